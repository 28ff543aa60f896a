"""The memory provider: the contract in code, on the injected clock. For tests and local runs."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar
from weakref import WeakValueDictionary

from queue_runtime.clock import Clock
from queue_runtime.config import ProviderSettings
from queue_runtime.errors import (
    Closed,
    InvalidReceipt,
    Outcome,
    QueueError,
    SessionNotAvailable,
    UnsupportedOperation,
)
from queue_runtime.message import Delivery, Message
from queue_runtime.provider import (
    Abandon,
    Cancelled,
    Capabilities,
    Complete,
    DeadLetter,
    ProviderClient,
    ProviderSession,
    QueueDescription,
    Settlement,
    never,
)
from queue_runtime.providers.memory_broker import MemoryBroker
from queue_runtime.providers.memory_options import declared, number
from queue_runtime.providers.memory_queues import (
    GroupQueue,
    PlainQueue,
    Queue,
    Session,
    SessionQueue,
    Stored,
)

T = TypeVar("T")

OPTIONS = frozenset({"queues", "lease", "max_message_size", "dead_letter_expired"})
MAX_MESSAGE_SIZE = 256 * 1024
"""The smallest limit among the clouds (Service Bus, standard tier): what fits here fits there.
https://learn.microsoft.com/azure/service-bus-messaging/service-bus-quotas"""
MAX_ATTRIBUTES = 9
"""Likewise: SQS takes ten, and one is ours."""
MAX_DELAY = 7 * 24 * 3600.0
MAX_LEASE = 12 * 3600.0

_shared_lock = threading.Lock()
# guarded by _shared_lock
_shared: WeakValueDictionary[str, MemoryBroker] = WeakValueDictionary()


def _forget_parents_brokers() -> None:
    """In a forked child: memory is not shared, and another thread may have held a lock at the fork."""
    global _shared_lock, _shared
    _shared_lock = threading.Lock()
    _shared = WeakValueDictionary()


os.register_at_fork(after_in_child=_forget_parents_brokers)


def create(settings: ProviderSettings, clock: Clock) -> InMemoryClient:
    """``memory://[NAME]?queues=events:sessions,jobs&lease=30&max_message_size=262144``.

    A queue is plain, or has `:sessions` as on Service Bus (given out next or by id, with a state, scheduling
    and cancelling), or `:groups` as on SQS FIFO: messages of exclusive groups, of which the portable layer
    makes sessions. Programs see the difference only where SQS shows it.

    Clients of one process that give the same NAME share a broker (with the clock of the first), and may not
    contradict each other; without a NAME the broker is private. A forked child starts with empty queues.
    `lease` is in seconds, `max_message_size` in bytes. With `dead_letter_expired=true` what has outlived its
    time-to-live goes to the dead letters, else it is dropped.
    """
    settings.refuse_unknown(OPTIONS)
    settings.refuse_credential()
    lease = number(settings, "lease")
    size = math.ceil(number(settings, "max_message_size") or MAX_MESSAGE_SIZE)
    broker = _broker(settings.location, clock)
    broker.declare(
        declared(settings.options.get("queues", "")),
        lease=lease,
        dead_letter_expired=settings.switch("dead_letter_expired"),
    )
    return InMemoryClient(broker, max_message_size=size)


def _broker(name: str, clock: Clock) -> MemoryBroker:
    if not name:
        return MemoryBroker(clock)
    with _shared_lock:
        return _shared.setdefault(name, MemoryBroker(clock))


class InMemoryClient(ProviderClient):
    """One client of a `MemoryBroker`."""

    name = "memory"

    def __init__(self, broker: MemoryBroker, *, max_message_size: int = MAX_MESSAGE_SIZE) -> None:
        self._broker = broker
        self._clock = broker.clock
        self._max_message_size = max_message_size
        # guarded by the broker's lock
        self._closed = False

    def describe(self, queue: str) -> QueueDescription:
        with self._broker.changed:
            found = self._queue(queue)
            now = self._clock.monotonic()
            leased = found.leased(now)
            delayed = sum(s.visible_at > now for s in found.stored())
            total = sum(1 for _ in found.stored())
            return QueueDescription(
                name=queue,
                capabilities=self._capabilities(found),
                active=total - leased - delayed,
                leased=leased,
                delayed=delayed,
                lease=found.lease,
                dead_letter_queue=found.dead_letters.name if found.dead_letters else None,
                max_receives=None,
                retention=None,
            )

    def capabilities(self, queue: str) -> Capabilities:
        with self._broker.changed:
            return self._capabilities(self._queue(queue))

    def size(self, queue: str, message: Message) -> int:
        names_and_values = (len(n.encode()) + len(v.encode()) for n, v in message.attributes.items())
        return len(message.body) + sum(names_and_values)

    def send(self, queue: str, messages: Sequence[Message]) -> Sequence[Outcome[None]]:
        with self._broker.changed:
            found = self._queue(queue)
            for message in messages:
                self._broker.store(found, message, delay=message.delay)
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
        deadline = self._clock.monotonic() + wait
        with self._broker.changed:
            found = self._plain(queue, "receive: accept a session instead, or run a worker")
            while True:
                now = self._clock.monotonic()
                if cancelled():
                    return []
                taken = found.take(max_messages, lease or found.lease, now)
                if taken or now >= deadline:
                    return taken
                self._broker.wait(min(deadline, found.next_change(now)))
                self._check_open()
                self._broker.catch_up(found)

    def accept_sessions(
        self, queue: str, most: int, wait: float, *, cancelled: Cancelled = never
    ) -> Sequence[ProviderSession]:
        deadline = self._clock.monotonic() + wait
        with self._broker.changed:
            found = self._with_sessions(queue)
            while True:
                now = self._clock.monotonic()
                if cancelled():
                    return []
                taken: list[ProviderSession] = []
                while len(taken) < most and (session := found.accept(now)) is not None:
                    taken.append(InMemorySession(self, self._broker, found, session))
                if taken or now >= deadline:
                    return taken
                self._broker.wait(min(deadline, found.next_change(now)))
                self._check_open()
                self._broker.catch_up(found)

    def accept_session(self, queue: str, session_id: str) -> ProviderSession:
        with self._broker.changed:
            found = self._with_sessions(queue)
            session = found.accept_one(session_id, self._clock.monotonic())
            if session is None:
                raise SessionNotAvailable(f"session {session_id!r} of queue {queue!r} is held by another")
            return InMemorySession(self, self._broker, found, session)

    def settle(self, queue: str, settlements: Sequence[Settlement]) -> Sequence[Outcome[None]]:
        with self._broker.changed:
            found = self._plain(queue, "settle such a message: its session does it")
            return [_outcome(self._settle_one, found, s) for s in settlements]

    def renew(
        self, queue: str, deliveries: Sequence[Delivery], *, lease: float | None = None
    ) -> Sequence[Outcome[float]]:
        with self._broker.changed:
            found = self._plain(queue, "renew such a message: its session does it")

            def renew_one(delivery: Delivery) -> float:
                now = self._clock.monotonic()
                until = now + (lease or delivery.lease)
                found.held(delivery, now).leased_until = until
                return until

            answers = [_outcome(renew_one, delivery) for delivery in deliveries]
            self._broker.touch()
            return answers

    def peek(self, queue: str, max_messages: int, *, after: int = 0) -> Sequence[Delivery]:
        with self._broker.changed:
            behind = (stored for stored in self._queue(queue).stored() if stored.sequence > after)
            first = sorted(behind, key=lambda stored: stored.sequence)[:max_messages]
            return [stored.shown(leased_until=0.0, lease=0.0) for stored in first]

    def schedule(self, queue: str, messages: Sequence[Message]) -> Sequence[Outcome[str]]:
        with self._broker.changed:
            found = self._cancelling(queue)
            return [Outcome(str(self._broker.store(found, m, delay=m.delay))) for m in messages]

    def cancel(self, queue: str, receipts: Sequence[str]) -> Sequence[Outcome[None]]:
        with self._broker.changed:
            found = self._cancelling(queue)
            now = self._clock.monotonic()
            return [_outcome(lambda receipt: found.cancel(_sequence(receipt), now), r) for r in receipts]

    def purge(self, queue: str) -> None:
        with self._broker.changed:
            self._queue(queue).clear()
            self._broker.touch()

    def wake(self, queue: str) -> None:
        with self._broker.changed:
            self._broker.touch()

    def close(self) -> None:
        with self._broker.changed:
            self._closed = True
            self._broker.touch()

    # Requires the broker's lock to be held.

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the client is closed")

    def _queue(self, name: str) -> Queue:
        self._check_open()
        return self._broker.queue(name)

    def _with_sessions(self, name: str) -> SessionQueue:
        found = self._queue(name)
        if not isinstance(found, SessionQueue):
            raise UnsupportedOperation(f"queue {name!r} has no sessions: receive from it instead")
        return found

    def _cancelling(self, name: str) -> Queue:
        found = self._queue(name)
        if isinstance(found, GroupQueue):
            raise UnsupportedOperation(f"queue {name!r} has groups, and cannot delay a single message")
        return found

    def _plain(self, name: str, instead: str) -> PlainQueue:
        found = self._queue(name)
        if not isinstance(found, PlainQueue):
            raise UnsupportedOperation(
                f"queue {name!r} has sessions, so nothing outside of one can {instead}"
            )
        return found

    def _capabilities(self, queue: Queue) -> Capabilities:
        groups, sessions = isinstance(queue, GroupQueue), isinstance(queue, SessionQueue)
        batch = 10 if groups else 100
        return Capabilities(
            sessions="groups" if groups else "native" if sessions else "none",
            max_message_size=self._max_message_size,
            max_batch=batch,
            max_batch_size=batch * self._max_message_size,
            batched_settling=True,
            atomic_batch=not groups,
            max_attributes=MAX_ATTRIBUTES,
            max_delay=0.0 if groups else MAX_DELAY,
            max_lease=MAX_LEASE,
            peek=True,
            chosen_lease=True,
            cancel=not groups,
            copied_delays=False,
            session_state=sessions,
            # As Service Bus does where duplicate detection is on, and SQS on FIFO queues.
            deduplication=groups or sessions,
            native_expiry=True,
            purge=True,
            counts_lost_sessions=not sessions,
        )

    def _settle_one(self, queue: PlainQueue, settlement: Settlement) -> None:
        now = self._clock.monotonic()
        stored = queue.held(settlement.delivery, now)
        self._finish(queue, stored, settlement, remove=lambda: queue.remove(stored))

    def _finish(
        self, queue: Queue, stored: Stored, settlement: Settlement, *, remove: Callable[[], None]
    ) -> None:
        """Do to *stored* what *settlement* asks; *remove* takes it out of its queue."""
        match settlement:
            case Complete():
                remove()
            case Abandon(delay=delay):
                stored.give_back(self._clock.monotonic(), delay)
            case DeadLetter(info=info):
                if queue.dead_letters is None:
                    raise UnsupportedOperation(
                        f"queue {queue.name!r} is a dead-letter queue and has none of its own; "
                        "complete the message, or replay it"
                    )
                self._broker.store(queue.dead_letters, stored.message, info=info)
                remove()
        self._broker.touch()


class InMemorySession(ProviderSession):
    """A hold on one session of a `SessionQueue`; its lock is the broker's."""

    def __init__(
        self, client: InMemoryClient, broker: MemoryBroker, queue: SessionQueue, session: Session
    ) -> None:
        self._client = client
        self._broker = broker
        self._queue = queue
        self._session = session
        self._hold = session.hold
        self.session_id = session.id
        self.lease = queue.lease
        self.leased_until = session.leased_until or 0.0

    def receive(self, max_messages: int, wait: float, *, cancelled: Cancelled = never) -> Sequence[Delivery]:
        clock = self._broker.clock
        deadline = clock.monotonic() + wait
        with self._broker.changed:
            while True:
                now = clock.monotonic()
                self._check(now)
                if cancelled():
                    return []
                self._broker.catch_up(self._queue)
                taken = self._queue.take(self._session, max_messages, now)
                if taken or now >= deadline:
                    return taken
                self._broker.wait(min(deadline, self._queue.session_change(self._session, now)))

    def settle(self, settlements: Sequence[Settlement]) -> Sequence[Outcome[None]]:
        with self._broker.changed:
            return [_outcome(self._settle_one, s) for s in settlements]

    def renew(self) -> float:
        with self._broker.changed:
            now = self._broker.clock.monotonic()
            self._check(now)
            self._session.leased_until = self.leased_until = now + self.lease
            self._broker.touch()
            return self.leased_until

    def get_state(self) -> bytes | None:
        with self._broker.changed:
            self._check(self._broker.clock.monotonic())
            return self._session.state

    def set_state(self, state: bytes | None) -> None:
        with self._broker.changed:
            self._check(self._broker.clock.monotonic())
            self._session.state = state

    def close(self) -> None:
        with self._broker.changed:
            if self._session.hold == self._hold:
                self._session.let_go(self._broker.clock.monotonic())
                self._queue.forget_empty(self._session)
                self._broker.touch()

    # Requires the broker's lock to be held.

    def _check(self, now: float) -> None:
        self._client._check_open()
        self._queue.check(self._session, self._hold, now)

    def _settle_one(self, settlement: Settlement) -> None:
        self._check(self._broker.clock.monotonic())
        stored = self._queue.in_hand(self._session, settlement.delivery)
        self._client._finish(
            self._queue, stored, settlement, remove=lambda: self._queue.remove(self._session, stored)
        )


def _outcome(act: Callable[..., T], *arguments: object) -> Outcome[T]:
    try:
        return Outcome(act(*arguments))
    except QueueError as exc:
        return Outcome(error=exc)


def _sequence(receipt: str) -> int:
    if not receipt.isdecimal():
        raise InvalidReceipt("the receipt was never valid: it is not one of this broker")
    return int(receipt)
