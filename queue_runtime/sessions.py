"""Sessions over a broker that gives out messages of exclusive groups and cannot be asked for one (SQS FIFO).

Whoever waits in `accept` fetches, so nothing is fetched, held or renewed for nobody. What a fetch brings is
sorted by session and handed out as `GroupSession`s; a session that nobody takes within `UNTAKEN` seconds
goes back. The broker blocks the rest of a group while one of its messages is out, and only then; so a
session here is what was handed out together. When that is settled the session is over, and its next
messages come with another `accept`, here or elsewhere.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from queue_runtime.clock import Clock
from queue_runtime.errors import InvalidReceipt, LeaseLost, Outcome, QueueError, SessionLeaseLost
from queue_runtime.message import Delivery
from queue_runtime.provider import (
    Abandon,
    Cancelled,
    ProviderClient,
    ProviderSession,
    Settlement,
    never,
)

UNTAKEN = 2.0
"""Seconds after which a fetched session that nobody took goes back."""

MOST_PER_SESSION = 4.0
"""Messages asked for, at most, for each session that is waited for. A fetch may bring several of a group, or
more groups than are wanted; those go back with a raised delivery count. So fetches learn from each other."""

PROBE_EVERY = 16
"""Full answers of one message each, after which one fetch asks for two: has a session more by now?"""

Later = Callable[[float, Callable[[], None]], None]
"""Runs an action in so many seconds, where it may block."""


def _key(delivery: Delivery) -> str:
    # A message without a session is a group of its own.
    return delivery.message.session_id or delivery.broker_id


def _order(delivery: Delivery) -> int:
    return delivery.sequence or 0


@dataclass(slots=True)
class _Fetched:
    """A session that waits to be taken."""

    deliveries: list[Delivery]
    since: float


class GroupDispatcher:
    """Hands out the sessions of one queue. Any thread may call."""

    def __init__(self, provider: ProviderClient, queue: str, clock: Clock, later: Later) -> None:
        self.provider = provider
        self.queue = queue
        self.clock = clock
        self._later = later
        self._max_batch = provider.capabilities(queue).max_batch
        self._changed = threading.Condition()
        # guarded by _changed
        self._wanted = 0
        self._fetching = False
        self._depth = 2.0  # messages to ask for, for one session
        self._shallow = 0  # full answers in a row that had one message of each session
        self._fetched: OrderedDict[str, _Fetched] = OrderedDict()
        self._open: dict[str, GroupSession] = {}

    def accept(self, most: int, wait: float, *, cancelled: Cancelled = never) -> list[GroupSession]:
        """Up to *most* sessions, as soon as there is one; none after *wait* seconds.

        Where the provider can be woken, none also when it is *cancelled*.
        """
        deadline = self.clock.monotonic() + wait
        with self._changed:
            self._wanted += most
        try:
            while True:
                with self._changed:
                    taken = self._take(most)
                    remaining = deadline - self.clock.monotonic()
                    if taken:
                        return taken
                    if self._fetching:
                        if remaining <= 0 or cancelled():
                            return []
                        self.clock.wait_for(
                            self._changed, lambda: self._may_go_on() or cancelled(), remaining
                        )
                        continue
                    self._fetching = True
                    size = min(self._max_batch, math.ceil(self._depth * self._wanted))
                if not self._fetch(size, max(0.0, remaining), cancelled):
                    return []
        finally:
            with self._changed:
                self._wanted -= most

    def done(self, session: GroupSession) -> None:
        """*session* has nothing in hand any more: its successor may be taken."""
        with self._changed:
            if self._open.get(session.key) is session:
                del self._open[session.key]
                self._changed.notify_all()

    def wake(self) -> None:
        """Have whoever waits for another's fetch ask whether it is cancelled."""
        with self._changed:
            self._changed.notify_all()

    def give_back_untaken(self) -> None:
        """Somebody has stopped accepting: give back what was fetched and not taken. Whoever still waits
        fetches anew. Sessions that are open are closed by their holders."""
        with self._changed:
            back = [d for waiting in self._fetched.values() for d in waiting.deliveries]
            self._fetched.clear()
        self._give_back([Abandon(delivery) for delivery in back])

    def _fetch(self, size: int, wait: float, cancelled: Cancelled) -> bool:
        """Ask the broker once, and sort in what came; False if nothing did: the wait is used up."""
        arrived: Sequence[Delivery] = ()
        void: list[tuple[GroupSession, set[str]]] = []
        back: list[Delivery] = []
        try:
            arrived = self.provider.receive(self.queue, size, wait, cancelled=cancelled)
        finally:
            with self._changed:
                self._fetching = False
                self._learn_depth(size, arrived)
                self._sort_in(arrived, void, back)
                self._changed.notify_all()
        for session, again in void:
            session.void("the broker handed it out again", gone=again)
        self._give_back([Abandon(delivery) for delivery in back])
        if arrived:
            self._later(UNTAKEN, self._release_untaken)
        return bool(arrived)

    def _release_untaken(self) -> None:
        now = self.clock.monotonic()
        back: list[Settlement] = []
        with self._changed:
            for key, waiting in list(self._fetched.items()):
                if waiting.since + UNTAKEN <= now:
                    del self._fetched[key]
                    back += [Abandon(delivery) for delivery in waiting.deliveries]
        self._give_back(back)

    def _give_back(self, settlements: Sequence[Settlement]) -> None:
        """Best effort: what the broker does not hear of comes back when its lease ends."""
        now = self.clock.monotonic()
        held = [s for s in settlements if s.delivery.leased_until > now]
        if held:
            with suppress(QueueError):  # the guard has told the listeners
                self.provider.settle(self.queue, held)

    # Requires _changed to be held.

    def _may_go_on(self) -> bool:
        return not self._fetching or any(self._is_free(key) for key in self._fetched)

    def _is_free(self, key: str) -> bool:
        held = self._open.get(key)
        return held is None or not held.holds()

    def _learn_depth(self, size: int, arrived: Sequence[Delivery]) -> None:
        """Ask for what this answer had of a session; for twice as much if it was full and had several."""
        if not arrived:
            return
        depth = len(arrived) / len({_key(delivery) for delivery in arrived})
        full = len(arrived) == size
        self._shallow = self._shallow + 1 if full and depth == 1 else 0
        if full and (depth > 1 or self._shallow % PROBE_EVERY == PROBE_EVERY - 1):
            depth *= 2
        self._depth = min(MOST_PER_SESSION, depth)

    def _take(self, most: int) -> list[GroupSession]:
        now = self.clock.monotonic()
        taken = []
        for key in [key for key in self._fetched if self._is_free(key)][:most]:
            deliveries = self._fetched.pop(key).deliveries
            if min(d.leased_until for d in deliveries) > now:  # else it has lapsed here, and comes again
                session = self._open[key] = GroupSession(self, key, deliveries)
                taken.append(session)
        return taken

    def _sort_in(
        self,
        arrived: Sequence[Delivery],
        void: list[tuple[GroupSession, set[str]]],
        back: list[Delivery],
    ) -> None:
        """Put *arrived* to its sessions; fills *void* with holds that are lost, *back* with what returns."""
        groups: dict[str, list[Delivery]] = {}
        for delivery in arrived:
            groups.setdefault(_key(delivery), []).append(delivery)
        now = self.clock.monotonic()
        for key, deliveries in groups.items():
            deliveries.sort(key=_order)
            held = self._open.get(key)
            if held is not None and held.is_overtaken_by(deliveries[0]):
                void.append((held, {delivery.broker_id for delivery in deliveries}))
            waiting = self._fetched.pop(key, None)
            if waiting is None:
                self._fetched[key] = _Fetched(deliveries, now)
            elif _order(deliveries[0]) > _order(waiting.deliveries[-1]):
                self._fetched[key] = _Fetched(waiting.deliveries + deliveries, waiting.since)
            else:
                # An older message, or the same again: what waited here is no longer surely ours.
                again = {delivery.broker_id for delivery in deliveries}
                back += deliveries + [d for d in waiting.deliveries if d.broker_id not in again]


class GroupSession(ProviderSession):
    """What the broker handed out of one group together. Its lease is its shortest message's."""

    continues = False

    def __init__(self, dispatcher: GroupDispatcher, key: str, deliveries: Sequence[Delivery]) -> None:
        self._dispatcher = dispatcher
        self.key = key
        head = deliveries[0]
        self.session_id = head.message.session_id or head.message.id
        self.lease = head.lease
        self.leased_until = min(delivery.leased_until for delivery in deliveries)
        self._lock = threading.Lock()
        # guarded by _lock
        self._unsettled = {delivery.broker_id: delivery for delivery in deliveries}
        self._until = {delivery.broker_id: delivery.leased_until for delivery in deliveries}
        self._handed_out = 0
        self._order = list(deliveries)
        self._settling: set[str] = set()
        self._delays: dict[str, float] = {}  # of abandons that the broker may not have agreed to
        self._newest = _order(deliveries[-1])
        self._ended_because: str | None = None

    def receive(self, max_messages: int, wait: float, *, cancelled: Cancelled = never) -> Sequence[Delivery]:
        """The next of those handed out together; none, at once, when all are out."""
        with self._lock:
            self._check()
            chosen = self._order[self._handed_out : self._handed_out + max_messages]
            self._handed_out += len(chosen)
            return chosen

    def settle(self, settlements: Sequence[Settlement]) -> Sequence[Outcome[None]]:
        ids = {settlement.delivery.broker_id for settlement in settlements}
        with self._lock:
            try:
                self._check()
            except SessionLeaseLost as exc:
                return [Outcome(error=exc)] * len(settlements)
            self._settling |= ids
            self._delays.update(
                (s.delivery.broker_id, s.delay) for s in settlements if isinstance(s, Abandon)
            )
        outcomes: Sequence[Outcome[None]] = ()
        try:
            outcomes = self._dispatcher.provider.settle(self._dispatcher.queue, settlements)
        finally:
            with self._lock:
                self._settling -= ids
                for settlement, outcome in zip(settlements, outcomes, strict=False):
                    if outcome.ok:
                        self._unsettled.pop(settlement.delivery.broker_id, None)
                gone = {
                    settlement.delivery.broker_id
                    for settlement, outcome in zip(settlements, outcomes, strict=False)
                    if isinstance(outcome.error, LeaseLost | InvalidReceipt)
                    and settlement.delivery.broker_id in self._unsettled  # else another call has settled it
                }
                drained = not self._unsettled
        if drained:
            self._dispatcher.done(self)
        elif gone:
            self.void("a message of it is no longer held", gone=gone)
        return outcomes

    def renew(self) -> float:
        with self._lock:
            self._check()
            due = [d for d in self._unsettled.values() if d.broker_id not in self._settling]
        if not due:
            return self.leased_until
        outcomes = self._dispatcher.provider.renew(self._dispatcher.queue, due)
        with self._lock:
            # What was settled meanwhile cannot be renewed, and need not be.
            answers = [
                (delivery, outcome)
                for delivery, outcome in zip(due, outcomes, strict=True)
                if delivery.broker_id in self._unsettled and delivery.broker_id not in self._settling
            ]
            for delivery, outcome in answers:
                if outcome.value is not None:
                    self._until[delivery.broker_id] = outcome.value
            errors = [(d.broker_id, outcome.error) for d, outcome in answers if outcome.error is not None]
            if not errors:
                self.leased_until = min(
                    (self._until[d.broker_id] for d, _ in answers), default=self.leased_until
                )
                return self.leased_until
            definite = [(broker_id, error) for broker_id, error in errors if not error.retryable]
        if not definite:
            raise errors[0][1]
        self.void("a message of it could not be renewed", gone={broker_id for broker_id, _ in definite})
        raise SessionLeaseLost(f"session {self.session_id!r} is lost: {definite[0][1]}") from definite[0][1]

    def close(self) -> None:
        """Give back what is not settled, in one request: its head is free at once, the rest behind it."""
        with self._lock:
            now = self._dispatcher.clock.monotonic()
            back = [
                Abandon(delivery, self._delays.get(broker_id, 0.0))
                for broker_id, delivery in self._unsettled.items()
                # A stale receipt might take the message from its new holder.
                if self._until[broker_id] > now and broker_id not in self._settling
            ]
            self._ended_because = self._ended_because or "it was closed"
            self._unsettled.clear()
        try:
            if back:
                self._dispatcher.provider.settle(self._dispatcher.queue, back)
        finally:
            self._dispatcher.done(self)

    def has_unsettled(self) -> bool:
        with self._lock:
            return bool(self._unsettled)

    def void(self, reason: str, *, gone: Iterable[str]) -> None:
        """The hold is lost: nothing more of it is handed out or settled. *gone* are the broker's ids of the
        messages that are surely not ours any more; `close` gives back the others."""
        with self._lock:
            self._until.update(dict.fromkeys(gone, 0.0))
            first = self._ended_because is None
            self._ended_because = self._ended_because or reason
        if first:
            self.on_lost(reason)

    def holds(self) -> bool:
        """True while it has something in hand and has not lost it."""
        with self._lock:
            over = self._dispatcher.clock.monotonic() >= self.leased_until
            return bool(self._unsettled) and self._ended_because is None and not over

    def is_overtaken_by(self, arrival: Delivery) -> bool:
        """True if *arrival* shows that the broker took back something that is held here."""
        with self._lock:
            return bool(self._unsettled) and _order(arrival) <= self._newest

    # Requires _lock to be held.

    def _check(self) -> None:
        ran_out = self._unsettled and self._dispatcher.clock.monotonic() >= self.leased_until
        if self._ended_because is None and ran_out:
            self._ended_because = "its lease ran out"
        if self._ended_because is not None:
            raise SessionLeaseLost(f"session {self.session_id!r} is not held: {self._ended_because}")
