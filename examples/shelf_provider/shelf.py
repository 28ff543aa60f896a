"""A provider of another distribution: plain queues on a shelf in this process, with all that is owed.

About the smallest that passes the conformance suite; docs/writing-a-provider.md goes through it. What a
broker behind a socket adds is errors that are translated and answers that are lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import NoReturn, TypeVar

from queue_runtime import ProviderSettings
from queue_runtime.clock import Clock
from queue_runtime.errors import (
    Closed,
    InvalidReceipt,
    LeaseLost,
    Outcome,
    QueueError,
    QueueNotFound,
    UnsupportedOperation,
)
from queue_runtime.message import DeadLetterInfo, Delivery, Message
from queue_runtime.provider import (
    Abandon,
    Cancelled,
    Capabilities,
    DeadLetter,
    ProviderClient,
    QueueDescription,
    Settlement,
    never,
)

T = TypeVar("T")

DEAD = ".dead"
"""Behind a queue's name: its dead-letter queue."""

CAPABILITIES = Capabilities(
    sessions="none",
    max_message_size=65_536,
    max_batch=10,
    max_batch_size=655_360,
    batched_settling=True,
    atomic_batch=True,
    max_attributes=None,
    max_delay=86_400.0,
    max_lease=43_200.0,
    peek=True,
    chosen_lease=True,
    cancel=False,
    copied_delays=False,
    session_state=False,
    counts_lost_sessions=True,
    deduplication=False,
)


@dataclass
class Stored:
    """Moments are on the clock's monotonic scale."""

    message: Message
    due: float
    free: float
    """When it may be handed out: it is due, its lease or its delay is over."""
    enqueued_at: datetime
    info: DeadLetterInfo | None = None
    deliveries: int = 0
    held: bool = False


class Shelf:
    """The broker: its queues, by name and by the number of a message."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        # guarded by changed
        self.changes = 0
        self.queues: dict[str, dict[int, Stored]] = {}
        self.leases: dict[str, float] = {}
        self._last = 0

    def make(self, name: str, lease: float = 30.0) -> None:
        for each in (name, name + DEAD):
            self.queues[each], self.leases[each] = {}, lease

    # Requires changed to be held.

    def put(self, queue: str, stored: Stored) -> None:
        self._last += 1
        self.queues[queue][self._last] = stored
        self.touch()

    def touch(self) -> None:
        self.changes += 1
        self.changed.notify_all()


SHELVES: dict[str, Shelf] = {}


def create(settings: ProviderSettings, clock: Clock) -> ShelfClient:
    """The factory that the entry point names. It connects to nothing, and refuses what it does not know."""
    settings.refuse_credential()
    settings.refuse_unknown(frozenset())
    return ShelfClient(SHELVES.setdefault(settings.location, Shelf()), clock)


class ShelfClient(ProviderClient):
    name = "shelf"

    def __init__(self, shelf: Shelf, clock: Clock) -> None:
        self._shelf = shelf
        self._clock = clock
        self._closed = False

    def describe(self, queue: str) -> QueueDescription:
        with self._shelf.changed:
            messages = self._queue(queue)
            now = self._clock.monotonic()
            away = [each for each in messages.values() if each.free > now]
            leased = sum(each.held for each in away)
            return QueueDescription(
                name=queue,
                capabilities=CAPABILITIES,
                active=len(messages) - len(away),
                leased=leased,
                delayed=len(away) - leased,
                lease=self._shelf.leases[queue],
                dead_letter_queue=None if queue.endswith(DEAD) else queue + DEAD,
                max_receives=None,
                retention=None,
            )

    def capabilities(self, queue: str) -> Capabilities:
        with self._shelf.changed:
            self._queue(queue)
            return CAPABILITIES

    def size(self, queue: str, message: Message) -> int:
        texts = [text for attribute in message.attributes.items() for text in attribute]
        return len(message.body) + sum(len(text.encode()) for text in texts)

    def send(self, queue: str, messages: Sequence[Message]) -> Sequence[Outcome[None]]:
        with self._shelf.changed:
            self._queue(queue)
            for message in messages:
                due = self._clock.monotonic() + message.delay
                self._shelf.put(queue, Stored(replace(message, delay=0.0), due, due, self._clock.now()))
            return [Outcome() for _ in messages]

    def receive(
        self,
        queue: str,
        max_messages: int,
        wait: float,
        *,
        lease: float | None = None,
        cancelled: Cancelled = never,
    ) -> Sequence[Delivery]:
        end = self._clock.monotonic() + wait
        with self._shelf.changed:
            while True:
                messages, now = self._queue(queue), self._clock.monotonic()
                if cancelled():
                    return []
                free = [number for number, stored in messages.items() if stored.free <= now][:max_messages]
                if free or now >= end:
                    length = self._shelf.leases[queue] if lease is None else lease
                    return [self._hand_out(number, messages[number], now, length) for number in free]
                self._wait(min([end, *(stored.free for stored in messages.values())]) - now)

    def peek(self, queue: str, max_messages: int, *, after: int = 0) -> Sequence[Delivery]:
        with self._shelf.changed:
            behind = [(number, stored) for number, stored in self._queue(queue).items() if number > after]
            return [_delivery(number, stored, 0.0) for number, stored in behind[:max_messages]]

    def settle(self, queue: str, settlements: Sequence[Settlement]) -> Sequence[Outcome[None]]:
        with self._shelf.changed:
            return [_outcome(partial(self._settle, queue, each)) for each in settlements]

    def renew(
        self, queue: str, deliveries: Sequence[Delivery], *, lease: float | None = None
    ) -> Sequence[Outcome[float]]:
        with self._shelf.changed:
            return [_outcome(partial(self._renew, queue, each, lease)) for each in deliveries]

    def accept_sessions(
        self, queue: str, most: int, wait: float, *, cancelled: Cancelled = never
    ) -> NoReturn:
        raise UnsupportedOperation(f"queue {queue!r} has no sessions; receive from it")

    def accept_session(self, queue: str, session_id: str) -> NoReturn:
        raise UnsupportedOperation(f"queue {queue!r} has no sessions; receive from it")

    def wake(self, queue: str) -> None:
        with self._shelf.changed:
            self._shelf.touch()

    def close(self) -> None:
        with self._shelf.changed:
            self._closed = True
            self._shelf.touch()

    # Requires the shelf's lock to be held.

    def _queue(self, name: str) -> dict[int, Stored]:
        if self._closed:
            raise Closed("the client is closed")
        if name not in self._shelf.queues:
            raise QueueNotFound(f"no queue {name!r} on this shelf")
        return self._shelf.queues[name]

    def _wait(self, seconds: float) -> None:
        """For the next change, at most so long."""
        seen = self._shelf.changes
        self._clock.wait_for(self._shelf.changed, lambda: self._shelf.changes != seen, seconds)

    def _hand_out(self, number: int, stored: Stored, now: float, lease: float) -> Delivery:
        stored.deliveries += 1
        stored.held, stored.free = True, now + lease
        return _delivery(number, stored, lease)

    def _held(self, queue: str, delivery: Delivery) -> Stored:
        stored = self._queue(queue).get(int(delivery.broker_id))
        if stored is None or not delivery.receipt.isdecimal():
            raise InvalidReceipt("there is no such message, or this is no receipt of ours")
        if int(delivery.receipt) != stored.deliveries or stored.free <= self._clock.monotonic():
            raise LeaseLost("its lease has ended")
        return stored

    def _settle(self, queue: str, settlement: Settlement) -> None:
        stored = self._held(queue, settlement.delivery)
        match settlement:
            case Abandon(delay=delay):
                stored.held, stored.free = False, self._clock.monotonic() + delay
                self._shelf.touch()
                return
            case DeadLetter(info=info):
                if queue.endswith(DEAD):
                    raise UnsupportedOperation(f"{queue!r} is a dead-letter queue and has none of its own")
                copy = replace(stored, info=info, free=0.0, deliveries=0, held=False)
                self._shelf.put(queue + DEAD, copy)  # stored before the original goes
        del self._shelf.queues[queue][int(settlement.delivery.broker_id)]

    def _renew(self, queue: str, delivery: Delivery, lease: float | None) -> float:
        stored = self._held(queue, delivery)
        stored.free = self._clock.monotonic() + (delivery.lease if lease is None else lease)
        return stored.free


def _delivery(number: int, stored: Stored, lease: float) -> Delivery:
    life = stored.message.time_to_live
    return Delivery(
        message=stored.message,
        receipt=str(stored.deliveries),
        broker_id=str(number),
        delivery_count=stored.deliveries,
        sequence=number,
        enqueued_at=stored.enqueued_at,
        leased_until=stored.free,
        lease=lease,
        dead_letter=stored.info,
        expires=None if life is None or stored.info else stored.due + life,
    )


def _outcome(act: Callable[[], T]) -> Outcome[T]:
    """One entry's answer: its failure is its own, and hides no other."""
    try:
        return Outcome(act())
    except QueueError as exc:
        return Outcome(error=exc)
