"""The three kinds of queue of the memory provider: plain data, moved while their broker's lock is held."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from queue_runtime.errors import InvalidReceipt, LeaseLost, SessionLeaseLost
from queue_runtime.message import DeadLetterInfo, Delivery, Message

DEDUPLICATION_WINDOW = 300.0
"""Seconds, as on SQS.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/using-messagededuplicationid-property.html
"""


@dataclass(slots=True, eq=False)
class Stored:
    """A message at rest, with what has happened to it."""

    message: Message
    sequence: int
    enqueued_at: datetime
    visible_at: float
    due_at: float
    info: DeadLetterInfo | None = None
    deliveries: int = 0
    """What its delivery count says."""
    turns: int = 0
    """Times it was handed out: each has a receipt of its own."""
    leased_until: float | None = None
    """None: nobody has it."""

    @property
    def expires(self) -> float | None:
        """When its time-to-live is over if nobody has it by then; None: never."""
        life = self.message.time_to_live
        return None if life is None else self.due_at + life

    @property
    def broker_id(self) -> str:
        return f"memory-{self.sequence}"

    @property
    def key(self) -> str:
        """Of its session or group: one without is alone."""
        return self.message.session_id or f"{self.broker_id}/alone"

    @property
    def receipt(self) -> str:
        return f"{self.sequence}/{self.turns}"

    def free(self, now: float) -> bool:
        return self.visible_at <= now and (self.leased_until is None or self.leased_until <= now)

    def hand_out(self, until: float, lease: float, *, follows: bool = False) -> Delivery:
        self.deliveries += 1
        self.turns += 1
        self.leased_until = until
        return self.shown(leased_until=until, lease=lease, follows=follows)

    def shown(self, *, leased_until: float, lease: float, follows: bool = False) -> Delivery:
        return Delivery(
            message=self.message,
            receipt=self.receipt,
            broker_id=self.broker_id,
            delivery_count=self.deliveries,
            sequence=self.sequence,
            enqueued_at=self.enqueued_at,
            leased_until=leased_until,
            lease=lease,
            dead_letter=self.info,
            follows=follows,
        )

    def give_back(self, now: float, delay: float) -> None:
        self.leased_until = None
        self.visible_at = now + delay

    def waits(self, now: float) -> bool:
        """It was sent with a delay and is not due yet."""
        return self.visible_at > now and not self.turns


class Queue(ABC):
    """What plain and session queues have in common. Requires the broker's lock to be held, all of it."""

    def __init__(self, name: str, *, lease: float, dead_letters: PlainQueue | None) -> None:
        self.name = name
        self.lease = lease
        self.dead_letters = dead_letters
        self.dead_letters_expired = False

    @abstractmethod
    def add(self, stored: Stored, now: float) -> int:
        """Take *stored*; returns its sequence, or that of the one that was sent before by the same id."""

    @abstractmethod
    def stored(self) -> Iterator[Stored]: ...

    @abstractmethod
    def cancel(self, sequence: int, now: float) -> None:
        """Take out what is not due yet. Raises `InvalidReceipt` if it is, or is not there."""

    def take_expired(self, now: float) -> list[Stored]:
        """Take out what has outlived its time-to-live in nobody's hands, first things first; of a dead-letter
        queue nothing."""
        if self.dead_letters is None:
            return []
        expired = [
            stored
            for stored in self.stored()
            if stored.expires is not None and stored.expires <= now and not self._is_out(stored, now)
        ]
        for stored in expired:
            self._forget(stored)
        return sorted(expired, key=lambda stored: stored.sequence)

    def clear(self) -> None:
        """Remove every message, also those in somebody's hands."""
        for stored in list(self.stored()):
            self._forget(stored)

    @abstractmethod
    def _is_out(self, stored: Stored, now: float) -> bool:
        """True while somebody has *stored* in hand."""

    @abstractmethod
    def _forget(self, stored: Stored) -> None:
        """Take *stored* out, wherever it is."""

    @abstractmethod
    def leased(self, now: float) -> int:
        """How many messages are in somebody's hands."""

    @abstractmethod
    def next_change(self, now: float) -> float:
        """When a delay or a lease next runs out; infinity if none does."""


class PlainQueue(Queue):
    """Messages in the order they came, each leased on its own."""

    def __init__(self, name: str, *, lease: float, dead_letters: PlainQueue | None) -> None:
        super().__init__(name, lease=lease, dead_letters=dead_letters)
        self._messages: OrderedDict[int, Stored] = OrderedDict()

    def add(self, stored: Stored, now: float) -> int:
        self._messages[stored.sequence] = stored
        return stored.sequence

    def stored(self) -> Iterator[Stored]:
        return iter(self._messages.values())

    def cancel(self, sequence: int, now: float) -> None:
        stored = self._messages.get(sequence)
        if stored is None or not stored.waits(now):
            raise _too_late(sequence)
        self.remove(stored)

    def leased(self, now: float) -> int:
        return sum(self._is_out(stored, now) for stored in self.stored())

    def next_change(self, now: float) -> float:
        return _first_change(self.stored(), now)

    def take(self, most: int, lease: float, now: float) -> list[Delivery]:
        taken: list[Delivery] = []
        for stored in self._messages.values():
            if len(taken) == most:
                break
            if stored.free(now):
                taken.append(stored.hand_out(now + lease, lease))
        return taken

    def held(self, delivery: Delivery, now: float) -> Stored:
        """The message that *delivery* holds; raises if the hold has ended."""
        stored = self._messages.get(delivery.sequence or 0)
        if stored is None or stored.receipt != delivery.receipt:
            raise InvalidReceipt(f"message {delivery.message.id!r} was settled or received again")
        if stored.leased_until is None:
            raise InvalidReceipt(f"message {delivery.message.id!r} was given back")
        if stored.leased_until <= now:
            raise LeaseLost(f"the lease of message {delivery.message.id!r} ran out")
        return stored

    def remove(self, stored: Stored) -> None:
        del self._messages[stored.sequence]

    def _is_out(self, stored: Stored, now: float) -> bool:
        return stored.leased_until is not None and stored.leased_until > now

    def _forget(self, stored: Stored) -> None:
        self.remove(stored)


class SentIds:
    """Deduplication ids of the last five minutes: a repeated one is agreed to and dropped."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def first(self, stored: Stored, now: float) -> int:
        """The sequence of the message that first had the id of *stored*: its own if none has had it."""
        while self._seen and next(iter(self._seen.values()))[0] <= now - DEDUPLICATION_WINDOW:
            self._seen.popitem(last=False)
        key = stored.message.deduplication_id or stored.message.id
        return self._seen.setdefault(key, (now, stored.sequence))[1]


class GroupQueue(PlainQueue):
    """Messages leased one by one, in groups that are exclusive: what SQS FIFO does.

    A group gives its messages in order up to the first that is out or not visible yet, and then no more. So
    while one is out the rest is blocked; except that a head that was given back is handed out again even
    while later ones are still out. One receive takes as many as fit of one group, then goes to the next.
    """

    def __init__(self, name: str, *, lease: float, dead_letters: PlainQueue | None) -> None:
        super().__init__(name, lease=lease, dead_letters=dead_letters)
        self._sent = SentIds()

    def add(self, stored: Stored, now: float) -> int:
        first = self._sent.first(stored, now)
        if first == stored.sequence:
            super().add(stored, now)
        return first

    def take(self, most: int, lease: float, now: float) -> list[Delivery]:
        ready: dict[str, list[Stored]] = {}
        blocked: set[str] = set()
        for stored in self.stored():
            group = stored.key
            if group not in blocked:
                if stored.free(now):
                    ready.setdefault(group, []).append(stored)
                else:
                    blocked.add(group)
        chosen = [(place, stored) for group in ready.values() for place, stored in enumerate(group)][:most]
        return [stored.hand_out(now + lease, lease, follows=place > 0) for place, stored in chosen]


@dataclass(slots=True, eq=False)
class Session:
    """One session's messages in order, and who holds it: each hold has a number of its own."""

    key: str
    id: str
    messages: OrderedDict[int, Stored] = field(default_factory=OrderedDict)
    hold: int = 0
    leased_until: float | None = None
    state: bytes | None = None

    def held(self, now: float) -> bool:
        return self.leased_until is not None and self.leased_until > now

    def free(self, now: float) -> bool:
        if self.held(now):
            return False
        head = next(iter(self.messages.values()), None)
        return head is not None and head.visible_at <= now

    def next_change(self, now: float) -> float:
        if self.leased_until is not None and self.held(now):
            return self.leased_until
        head = next(iter(self.messages.values()), None)
        return head.visible_at if head is not None and head.visible_at > now else float("inf")

    def let_go(self, now: float) -> None:
        """The hold has ended. What it had in hand was delivered if it ran out, and was not if it was closed.

        As on Service Bus: https://learn.microsoft.com/azure/service-bus-messaging/message-sessions
        """
        closed = self.held(now)
        self.leased_until = None
        for stored in self.messages.values():
            if stored.leased_until is not None:
                stored.leased_until = None
                stored.deliveries -= closed


class SessionQueue(Queue):
    """Messages by session; a session is held as a whole: what Service Bus does.

    Repeated deduplication ids are dropped. What was sent with a delay comes into its session when it is due,
    behind what is there by then.
    """

    def __init__(self, name: str, *, lease: float, dead_letters: PlainQueue | None) -> None:
        super().__init__(name, lease=lease, dead_letters=dead_letters)
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._scheduled: dict[int, Stored] = {}
        self._sent = SentIds()

    def add(self, stored: Stored, now: float) -> int:
        first = self._sent.first(stored, now)
        if first == stored.sequence:
            if stored.visible_at > now:
                self._scheduled[stored.sequence] = stored
            else:
                self.append(stored)
        return first

    def append(self, stored: Stored) -> None:
        """Put *stored* behind the others of its session."""
        session = self._session(stored.key, stored.message.session_id or stored.message.id)
        session.messages[stored.sequence] = stored

    def stored(self) -> Iterator[Stored]:
        for session in self._sessions.values():
            yield from session.messages.values()
        yield from self._scheduled.values()

    def take_due(self, now: float) -> list[Stored]:
        """Take out what has become due, first things first, to be appended."""
        due = sorted((s for s in self._scheduled.values() if s.visible_at <= now), key=lambda s: s.visible_at)
        for stored in due:
            del self._scheduled[stored.sequence]
        return due

    def cancel(self, sequence: int, now: float) -> None:
        if self._scheduled.pop(sequence, None) is None:
            raise _too_late(sequence)

    def _is_out(self, stored: Stored, now: float) -> bool:
        session = self._sessions.get(stored.key)
        return stored.leased_until is not None and session is not None and session.held(now)

    def _forget(self, stored: Stored) -> None:
        if self._scheduled.pop(stored.sequence, None) is None:
            session = self._sessions[stored.key]
            del session.messages[stored.sequence]
            self.forget_empty(session)

    def leased(self, now: float) -> int:
        held = (s for s in self._sessions.values() if s.leased_until is not None and s.leased_until > now)
        return sum(
            stored.leased_until is not None for session in held for stored in session.messages.values()
        )

    def next_change(self, now: float) -> float:
        sessions = min((s.next_change(now) for s in self._sessions.values()), default=float("inf"))
        return min([sessions, *(stored.visible_at for stored in self._scheduled.values())])

    def accept(self, now: float) -> Session | None:
        """Hold the free session that has waited longest since its last turn."""
        for session in self._sessions.values():
            if session.free(now):
                return self._hold(session, now)
        return None

    def accept_one(self, session_id: str, now: float) -> Session | None:
        """Hold this session, whether it has messages or not; None if another holds it."""
        session = self._session(session_id, session_id)
        return None if session.held(now) else self._hold(session, now)

    def _hold(self, session: Session, now: float) -> Session:
        session.let_go(now)  # what a lapsed hold had in hand
        session.hold += 1
        session.leased_until = now + self.lease
        self._sessions.move_to_end(session.key)
        return session

    def _session(self, key: str, session_id: str) -> Session:
        return self._sessions.setdefault(key, Session(key, session_id))

    def check(self, session: Session, hold: int, now: float) -> None:
        """Raise unless hold number *hold* still has *session*."""
        if session.hold != hold or session.leased_until is None:
            raise SessionLeaseLost(f"session {session.id!r} is no longer held here")
        if session.leased_until <= now:
            raise SessionLeaseLost(f"the lease of session {session.id!r} ran out")

    def take(self, session: Session, most: int, now: float) -> list[Delivery]:
        until = session.leased_until or now
        taken: list[Delivery] = []
        for place, stored in enumerate(session.messages.values()):
            if stored.leased_until is not None:
                continue  # in hand already
            if stored.visible_at > now or len(taken) == most:
                break
            taken.append(stored.hand_out(until, self.lease, follows=place > 0))
        return taken

    def session_change(self, session: Session, now: float) -> float:
        """When the hold, or the delay of a message of *session*, next runs out."""
        mine = [*session.messages.values(), *self._scheduled.values()]
        return min([session.leased_until or now, *(s.visible_at for s in mine if s.visible_at > now)])

    def in_hand(self, session: Session, delivery: Delivery) -> Stored:
        stored = session.messages.get(delivery.sequence or 0)
        if stored is None or stored.receipt != delivery.receipt or stored.leased_until is None:
            raise InvalidReceipt(f"message {delivery.message.id!r} was settled or given back")
        return stored

    def remove(self, session: Session, stored: Stored) -> None:
        del session.messages[stored.sequence]

    def forget_empty(self, session: Session) -> None:
        """Drop a session that has no messages, no holder and no state."""
        known = self._sessions.get(session.key) is session  # else it is forgotten, and has a successor
        if known and not session.messages and session.leased_until is None and session.state is None:
            del self._sessions[session.key]


def _too_late(sequence: int) -> InvalidReceipt:
    return InvalidReceipt(f"nothing scheduled has the receipt '{sequence}': it is due, or was cancelled")


def _first_change(messages: Iterable[Stored], now: float) -> float:
    first = float("inf")
    for stored in messages:
        for moment in (stored.visible_at, stored.leased_until):
            if moment is not None and now < moment < first:
                first = moment
    return first
