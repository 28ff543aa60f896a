"""The broker behind the memory provider: its queues, its lock, its clock."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from itertools import count

from queue_runtime.clock import Clock
from queue_runtime.errors import ConfigurationError, QueueNotFound
from queue_runtime.message import DeadLetterInfo, Message
from queue_runtime.providers.memory_queues import GroupQueue, PlainQueue, Queue, SessionQueue, Stored

DEAD_LETTERS = "/$DeadLetterQueue"
"""Behind a queue's name: its dead-letter queue, spelt as on Service Bus."""

KINDS: dict[str, type[PlainQueue | GroupQueue | SessionQueue]] = {
    "plain": PlainQueue,
    "sessions": SessionQueue,
    "groups": GroupQueue,
}


LEASE = 30.0
"""Seconds that a hold lasts, as on SQS.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-visibility-timeout.html"""


class MemoryBroker:
    """Queues that live as long as somebody refers to them, for any number of clients in one process."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.changed = threading.Condition()
        # guarded by changed
        self.version = 0
        self._queues: dict[str, Queue] = {}
        self._sequence = count(1)

    def declare(self, queues: Mapping[str, str], *, lease: float | None) -> None:
        """Make the queues that do not exist yet, each of one of `KINDS`; None is a lease of `LEASE`.

        Raises `ConfigurationError` for one that exists and is another.
        """
        with self.changed:
            for name, kind in queues.items():
                found = self._queues.get(name)
                if found is not None:
                    _compare(found, kind, lease)
                    continue
                dead = PlainQueue(name + DEAD_LETTERS, lease=lease or LEASE, dead_letters=None)
                self._queues[name] = KINDS[kind](name, lease=lease or LEASE, dead_letters=dead)
                self._queues[dead.name] = dead

    # Requires changed to be held.

    def queue(self, name: str) -> Queue:
        try:
            found = self._queues[name]
        except KeyError:
            known = ", ".join(n for n in self._queues if not n.endswith(DEAD_LETTERS)) or "none"
            raise QueueNotFound(
                f"no queue {name!r} on this memory broker; it has: {known}. "
                "Declare it: memory://?queues=events:sessions,jobs"
            ) from None
        self.bring_due(found)
        return found

    def bring_due(self, queue: Queue) -> None:
        """What was sent to *queue* with a delay, and is due, is stored as if it came now."""
        if isinstance(queue, SessionQueue):
            for stored in queue.take_due(self.clock.monotonic()):
                stored.sequence, stored.enqueued_at = next(self._sequence), self.clock.now()
                queue.append(stored)

    def store(
        self, queue: Queue, message: Message, *, delay: float = 0.0, info: DeadLetterInfo | None = None
    ) -> int:
        """Returns the sequence, by which it can be cancelled until it is due."""
        now = self.clock.monotonic()
        stored = Stored(message, next(self._sequence), self.clock.now(), now + delay, info)
        sequence = queue.add(stored, now)
        self.touch()
        return sequence

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


def _compare(found: Queue, kind: str, lease: float | None) -> None:
    its_kind = next(name for name, made in KINDS.items() if made is type(found))
    if its_kind != kind:
        raise ConfigurationError(
            f"memory: queue {found.name!r} is {its_kind} already, it cannot be {kind}; "
            "declare it alike everywhere, or give the broker another name"
        )
    if lease not in (None, found.lease):
        raise ConfigurationError(
            f"memory: queue {found.name!r} has a lease of {found.lease:g} s already, not {lease:g} s; "
            "give it one lease everywhere, or the broker another name"
        )
