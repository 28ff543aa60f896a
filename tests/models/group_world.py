"""A queue of exclusive groups as it really is, beside what the sessions made of it take it to be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from queue_runtime.fetch_sizes import FetchSizes
from queue_runtime.message import Delivery, Message
from queue_runtime.providers.memory_queues import Stored
from queue_runtime.sessions import GroupDispatcher, GroupSession
from queue_runtime.testing import FakeClock
from tests.fakes import Script, ScriptedClient, Step
from tests.memory_hands import made

QUEUE = "events"
LEASE = 30.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A stored message, as the broker has it at one moment."""

    group: str
    sequence: int
    receipt: str
    leased_until: float | None
    visible_at: float


@dataclass(eq=False)
class Hand:
    """One session that was handed out here, and what became of it."""

    session: GroupSession
    deliveries: list[Delivery]
    """All of it, in order."""
    out: int = 0
    """How many of them were received."""
    closed: bool = False
    told: list[str] = field(default_factory=list)
    """Why it was lost, each time that this was told."""
    done: set[str] = field(default_factory=set)
    """Ids whose settlement was agreed to."""
    unknown: set[str] = field(default_factory=set)
    """Ids whose completion may have happened."""
    delays: dict[str, float] = field(default_factory=dict)
    """Of abandons that were not agreed to."""
    repeated: set[str] = field(default_factory=set)
    """Ids whose completion has happened when it was asked for again; whoever asked has not heard of it."""
    not_ours: set[str] = field(default_factory=set)
    """Ids that the broker has taken back, or says that it has."""

    def is_over(self, now: float) -> bool:
        """Nothing of it may be handed out or settled any more."""
        lapsed = self.session.has_unsettled() and now >= self.session.leased_until
        return self.closed or bool(self.told) or lapsed

    def received(self) -> list[Delivery]:
        """What was received and is not settled."""
        return [d for d in self.deliveries[: self.out] if d.message.id not in self.done]


class AnySizes(FetchSizes):
    """Fetches of any size: what is right must not hang on what was learned."""

    chosen = 1

    def size(self, wanted: int, now: float) -> int:
        return self.chosen


class World:
    """The broker, the dispatcher, and the weather between them."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.script = Script()
        self.inner = made(f"memory://?queues={QUEUE}:groups&lease={LEASE:g}", self.clock)
        self.provider = ScriptedClient(self.inner, self.script)
        self.dispatcher = GroupDispatcher(
            self.provider, QUEUE, self.clock, self._do_later, lambda broker_id: None
        )
        self.sizes = self.dispatcher._sizes = AnySizes(10)
        self.hands: list[Hand] = []
        self.asked_to_go: set[str] = set()
        """Ids that somebody has asked the broker to complete, or to move to the dead letters."""
        self.out_elsewhere: set[str] = set()
        """Ids of which the dispatcher cannot know that they are held."""
        self._sent: list[str] = []
        self._taken_back: set[str] = set()
        self._later: list[tuple[float, Callable[[], None]]] = []

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    def send(self, group: str | None, many: int) -> None:
        ids = [f"m{len(self._sent) + n}" for n in range(many)]
        self._sent += ids
        self.inner.send(QUEUE, [Message(body=b"", id=name, session_id=group) for name in ids])

    def seen(self) -> dict[str, Seen]:
        """What the broker has now."""
        return {
            stored.message.id: Seen(
                stored.key, stored.sequence, stored.receipt, stored.leased_until, stored.visible_at
            )
            for stored in self._stored()
        }

    def lost_messages(self) -> list[str]:
        """Ids that have left the queue though nobody has asked for it."""
        return sorted(set(self._sent) - set(self.seen()) - self.asked_to_go)

    def accepted(self, sessions: list[GroupSession]) -> list[Hand]:
        """Take *sessions* in hand."""
        hands = [Hand(session, list(session._order)) for session in sessions]
        for hand in hands:
            hand.session.on_lost = hand.told.append
            if hand.session._ended_because is not None:  # another accept has found out already
                hand.told.append(hand.session._ended_because)
            hand.not_ours |= {d.message.id for d in hand.deliveries if d.receipt in self._taken_back}
        self.hands += hands
        return hands

    def leased(self) -> set[str]:
        return {name for name, seen in self.seen().items() if (seen.leased_until or 0.0) > self.now}

    def take_back(self, message_id: str) -> None:
        """The broker ends the hold on a message, and nobody is told."""
        for stored in self._stored():
            if stored.message.id == message_id:
                self._taken_back.add(stored.receipt)
                stored.give_back(self.now, 0.0)
        for hand in self.hands:
            if message_id in {delivery.message.id for delivery in hand.deliveries}:
                hand.not_ours.add(message_id)

    def let_pass(self, seconds: float) -> None:
        """Let time pass; what was to be done on the way is done."""
        end = self.now + seconds
        while due := [one for one in self._later if one[0] <= end]:
            first = min(due, key=lambda one: one[0])
            self._later.remove(first)
            self.clock.advance(max(0.0, first[0] - self.now))
            first[1]()
        self.clock.advance(end - self.now)

    @contextmanager
    def weather(self, operation: str, step: Step) -> Iterator[None]:
        """Every call of *operation* in the block goes through *step*."""
        self.script.always(operation, step)
        try:
            yield
        finally:
            self.script.always(operation)

    def _stored(self) -> list[Stored]:
        with self.inner._broker.changed:
            return list(self.inner._broker.queue(QUEUE).stored())

    def _do_later(self, delay: float, act: Callable[[], None]) -> None:
        self._later.append((self.now + delay, act))
