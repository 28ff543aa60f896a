"""The broker behind the memory provider: its queues, its lock, its clock."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from itertools import count

from queue_runtime.clock import Clock
from queue_runtime.errors import QueueNotFound
from queue_runtime.message import DeadLetterInfo, Message
from queue_runtime.providers.memory_queues import GroupQueue, PlainQueue, Queue, SessionQueue, Stored

DEAD_LETTERS = "/$DeadLetterQueue"
"""Behind a queue's name: its dead-letter queue, spelt as on Service Bus."""

KINDS: dict[str, type[PlainQueue | GroupQueue | SessionQueue]] = {
    "plain": PlainQueue,
    "sessions": SessionQueue,
    "groups": GroupQueue,
}


class MemoryBroker:
    """Queues that live as long as somebody refers to them, for any number of clients in one process."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.changed = threading.Condition()
        # guarded by changed
        self.version = 0
        self._queues: dict[str, Queue] = {}
        self._sequence = count(1)

    def declare(self, queues: Mapping[str, str], *, lease: float) -> None:
        """Make the queues that do not exist yet, each of one of `KINDS`."""
        with self.changed:
            for name, kind in queues.items():
                if name not in self._queues:
                    dead = PlainQueue(name + DEAD_LETTERS, lease=lease, dead_letters=None)
                    self._queues[name] = KINDS[kind](name, lease=lease, dead_letters=dead)
                    self._queues[dead.name] = dead

    # Requires changed to be held.

    def queue(self, name: str) -> Queue:
        try:
            return self._queues[name]
        except KeyError:
            known = ", ".join(n for n in self._queues if not n.endswith(DEAD_LETTERS)) or "none"
            raise QueueNotFound(
                f"no queue {name!r} on this memory broker; it has: {known}. "
                "Declare it: memory://?queues=events:sessions,jobs"
            ) from None

    def store(
        self, queue: Queue, message: Message, *, delay: float = 0.0, info: DeadLetterInfo | None = None
    ) -> None:
        now = self.clock.monotonic()
        stored = Stored(message, next(self._sequence), self.clock.now(), now + delay, info)
        queue.add(stored, now)
        self.touch()

    def touch(self) -> None:
        """Something moved: whoever waits looks again."""
        self.version += 1
        self.changed.notify_all()

    def wait(self, until: float) -> None:
        """Wait for the next change, or for the moment *until*."""
        seen = self.version
        self.clock.wait_for(
            self.changed, lambda: self.version != seen, max(0.0, until - self.clock.monotonic())
        )
