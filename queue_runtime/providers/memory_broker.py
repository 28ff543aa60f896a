"""The broker behind the memory provider: its queues, its lock, its clock."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

from queue_runtime.clock import Clock
from queue_runtime.condition import Condition
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


EXPIRED = "TimeToLiveExpired"
"""The reason of a dead letter that has outlived its time-to-live."""

LEASE = 30.0
"""Seconds that a hold lasts, as on SQS.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-visibility-timeout.html"""


class MemoryBroker:
    """Queues that live as long as somebody refers to them, for any number of clients in one process."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.changed = Condition()
        # guarded by changed
        self.version = 0
        self._queues: dict[str, Queue] = {}
        self._sequence = count(1)

    def declare(
        self, queues: Mapping[str, str], *, lease: float | None, dead_letter_expired: bool | None = None
    ) -> None:
        """Make the queues that do not exist yet, each of one of `KINDS`; None is a lease of `LEASE`, and that
        what expires is dropped.

        Raises `ConfigurationError` for one that exists and is another.
        """
        with self.changed:
            for name, kind in queues.items():
                found = self._queues.get(name)
                if found is not None:
                    _compare(found, kind, lease, dead_letter_expired)
                    continue
                dead = PlainQueue(name + DEAD_LETTERS, lease=lease or LEASE, dead_letters=None)
                made = KINDS[kind](name, lease=lease or LEASE, dead_letters=dead)
                made.dead_letters_expired = bool(dead_letter_expired)
                self._queues[name] = made
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
        above = self._queues.get(name.removesuffix(DEAD_LETTERS))
        if above is not None and above is not found:
            self.catch_up(above)  # what it gives up comes here
        self.catch_up(found)
        return found

    def catch_up(self, queue: Queue) -> None:
        """What was sent to *queue* with a delay, and is due, is stored as if it came now; what has expired
        leaves it."""
        now = self.clock.monotonic()
        if isinstance(queue, SessionQueue):
            for stored in queue.take_due(now):
                stored.sequence, stored.enqueued_at = next(self._sequence), self.clock.now()
                queue.append(stored)
        for stored in queue.take_expired(now):
            if queue.dead_letters_expired and queue.dead_letters is not None:
                self.store(queue.dead_letters, stored.message, info=_expired(queue, stored))

    def store(
        self, queue: Queue, message: Message, *, delay: float = 0.0, info: DeadLetterInfo | None = None
    ) -> int:
        """Returns the sequence, by which it can be cancelled until it is due."""
        now = self.clock.monotonic()
        stored = Stored(message, next(self._sequence), self.clock.now(), now + delay, now + delay, info)
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
        self.clock.wait_until(self.changed, lambda: self.version != seen, until)


def _expired(queue: Queue, stored: Stored) -> DeadLetterInfo:
    return DeadLetterInfo(
        reason=EXPIRED,
        description=f"it was not received in time: it had {stored.message.time_to_live:g} s",
        first_seen_at=stored.enqueued_at,
        queue=queue.name,
        session_id=stored.message.session_id,
        message_id=stored.message.id,
        sequence=stored.sequence,
    )


def _compare(found: Queue, kind: str, lease: float | None, dead_letter_expired: bool | None) -> None:
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
    if dead_letter_expired not in (None, found.dead_letters_expired):
        does = "dead-letters" if found.dead_letters_expired else "drops"
        raise ConfigurationError(
            f"memory: queue {found.name!r} {does} what expires already; give it one dead_letter_expired "
            "everywhere, or the broker another name"
        )
