"""Sessions over a broker that gives out messages of exclusive groups and cannot be asked for one (SQS FIFO).

Whoever waits in `accept` fetches, so nothing is fetched, held or renewed for nobody. What a fetch brings is
sorted by session and handed out as `GroupSession`s; a session that nobody takes within `UNTAKEN` seconds
goes back. The broker blocks the rest of a group while one of its messages is out, and only then; so a
session here is what was handed out together. When that is settled the session is over, and its next
messages come with another `accept`, here or elsewhere. How many messages a fetch asks for is
learned, see `fetch_sizes`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from queue_runtime.clock import Clock
from queue_runtime.condition import Condition
from queue_runtime.errors import (
    ConnectionFailed,
    InvalidReceipt,
    LeaseLost,
    OperationTimeout,
    Outcome,
    OutcomeUnknown,
    QueueError,
    SessionLeaseLost,
)
from queue_runtime.fetch_sizes import FetchSizes
from queue_runtime.message import Delivery
from queue_runtime.provider import (
    Abandon,
    Cancelled,
    Complete,
    ProviderClient,
    ProviderSession,
    Settlement,
    never,
)

UNTAKEN = 2.0
"""Seconds after which a fetched session that nobody took goes back."""

Later = Callable[[float, Callable[[], None]], None]
"""Runs an action in so many seconds, where it may block."""

Excuse = Callable[[str], None]
"""Told the broker's id of a message that was counted as handed out, and that nobody was given."""


def _key(delivery: Delivery) -> str:
    # A message without a session is a group of its own.
    return delivery.message.session_id or delivery.broker_id


def _order(delivery: Delivery) -> int:
    return delivery.sequence or 0


def _id(settlement: Settlement) -> str:
    return settlement.delivery.broker_id


@dataclass(slots=True)
class _Fetched:
    """A session that waits to be taken."""

    deliveries: list[Delivery]
    since: float


class GroupDispatcher:
    """Hands out the sessions of one queue. Any thread may call."""

    def __init__(
        self, provider: ProviderClient, queue: str, clock: Clock, later: Later, excuse: Excuse
    ) -> None:
        self.provider = provider
        self.queue = queue
        self.clock = clock
        self.excuse = excuse
        self._later = later
        self._changed = Condition()
        # guarded by _changed
        self._wanted = 0
        self._fetching = False
        self._sizes = FetchSizes(provider.capabilities(queue).max_batch)
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
                        self.clock.wait_until(
                            self._changed, lambda: self._may_go_on() or cancelled(), deadline
                        )
                        continue
                    self._fetching = True
                    size = self._size()
                if not self._fetch(size, max(0.0, remaining), cancelled):
                    return []
        finally:
            with self._changed:
                self._wanted -= most

    def done(self, session: GroupSession, *, well: bool) -> None:
        """*session* has nothing in hand any more: its successor may be taken. *well*: all of it was settled
        for good."""
        with self._changed:
            if self._open.get(session.key) is session:
                del self._open[session.key]
                if well:
                    self._sizes.went_well()
                self._changed.notify_all()

    def failed(self, session: GroupSession, free_at: float) -> None:
        """Something of *session* was given back or lost; the broker may hand it out again at *free_at*."""
        with self._changed:
            self._sizes.failed(session.key, free_at)

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
        self._give_back(back)

    def _fetch(self, size: int, wait: float, cancelled: Cancelled) -> bool:
        """Ask the broker once, and sort in what came; False if nothing did: the wait is used up."""
        arrived: Sequence[Delivery] = ()
        void: list[tuple[GroupSession, set[str]]] = []
        back: list[Delivery] = []
        try:
            arrived = self.provider.receive(self.queue, size, wait, cancelled=cancelled)
        except (OperationTimeout, ConnectionFailed):
            with self._changed:
                self._sizes.lost(size)
            raise
        finally:
            with self._changed:
                self._fetching = False
                self._sizes.came(
                    size,
                    len(arrived),
                    {_key(delivery) for delivery in arrived},
                    again=any(delivery.delivery_count > 1 for delivery in arrived),
                    now=self.clock.monotonic(),
                )
                self._sort_in(arrived, void, back)
                self._changed.notify_all()
        for session, again in void:
            session.void("the broker handed it out again", gone=again)
        self._give_back(back)
        if arrived:
            self._later(UNTAKEN, self._release_untaken)
        return bool(arrived)

    def _release_untaken(self) -> None:
        now = self.clock.monotonic()
        back: list[Delivery] = []
        with self._changed:
            for key, waiting in list(self._fetched.items()):
                if waiting.since + UNTAKEN <= now:
                    del self._fetched[key]
                    back += waiting.deliveries
        self._give_back(back)

    def _give_back(self, untouched: Sequence[Delivery]) -> None:
        """Best effort: what the broker does not hear of comes back when its lease ends."""
        self._excuse(untouched)
        now = self.clock.monotonic()
        held = [Abandon(delivery) for delivery in untouched if delivery.leased_until > now]
        if held:
            with suppress(QueueError):  # the guard has told the listeners
                self.provider.settle(self.queue, held)

    def _excuse(self, untouched: Iterable[Delivery]) -> None:
        for delivery in untouched:
            self.excuse(delivery.broker_id)

    # Requires _changed to be held.

    def _may_go_on(self) -> bool:
        return not self._fetching or any(self._is_free(key) for key in self._fetched)

    def _is_free(self, key: str) -> bool:
        held = self._open.get(key)
        return held is None or not held.holds()

    def _size(self) -> int:
        """How many messages to ask for. Sessions that are lost have failed, even where nobody knows yet."""
        now = self.clock.monotonic()
        for key in [key for key, session in self._open.items() if session.is_lost()]:
            del self._open[key]
            self._sizes.failed(key, now)
        return self._sizes.size(self._wanted, now)

    def _take(self, most: int) -> list[GroupSession]:
        now = self.clock.monotonic()
        taken = []
        for key in [key for key in self._fetched if self._is_free(key)][:most]:
            deliveries = self._fetched.pop(key).deliveries
            if min(d.leased_until for d in deliveries) > now:
                session = self._open[key] = GroupSession(self, key, deliveries)
                taken.append(session)
            else:  # it has lapsed here, and comes again
                self._excuse(deliveries)
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
        self._unknown: dict[str, Complete] = {}  # asked for, and not known to have happened
        self._repeated: set[str] = set()  # of those, what has gone well when it was asked for again
        self._gave_back = False
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
        """A completion with an unknown outcome is asked for again by `renew` and `close`."""
        with self._lock:
            try:
                self._check()
            except SessionLeaseLost as exc:
                return [Outcome(error=exc)] * len(settlements)
            done = [isinstance(s, Complete) and _id(s) in self._repeated for s in settlements]
        chosen = [settlement for settlement, was_done in zip(settlements, done, strict=True) if not was_done]
        answers = iter(self._settle(chosen) if chosen else ())
        return [Outcome() if was_done else next(answers) for was_done in done]

    def _settle(self, settlements: Sequence[Settlement]) -> Sequence[Outcome[None]]:
        """One request, and what it tells of this session."""
        ids = {_id(settlement) for settlement in settlements}
        delays = {_id(s): s.delay for s in settlements if isinstance(s, Abandon)}
        with self._lock:
            self._settling |= ids
            self._delays.update(delays)
            self._gave_back |= bool(delays)
        outcomes: Sequence[Outcome[None]] = ()
        try:
            outcomes = self._dispatcher.provider.settle(self._dispatcher.queue, settlements)
        except QueueError as exc:
            outcomes = [Outcome(error=exc)] * len(settlements)
        finally:
            with self._lock:
                self._settling -= ids
                gone = self._note(settlements, outcomes)
                drained, well = not self._unsettled, not self._gave_back
        if delays:
            self._dispatcher.failed(self, self._dispatcher.clock.monotonic() + min(delays.values()))
        if drained:
            self._dispatcher.done(self, well=well)
        elif gone:
            self.void("a message of it is no longer held", gone=gone)
        return outcomes

    def renew(self) -> float:
        with self._lock:
            self._check()
            again = [s for broker_id, s in self._unknown.items() if broker_id not in self._settling]
        if again:
            # It may be gone: to renew it would look like a loss. While that is not known the session gets no
            # longer, and ends when its lease does.
            self._repeat(again)
        with self._lock:
            self._check()
            due = [d for d in self._unsettled.values() if d.broker_id not in self._settling]
            if not self._unsettled:  # there is nothing that could be lost
                return self._dispatcher.clock.monotonic() + self.lease
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
        """Give back what is not settled, in one request: its head is free at once, the rest behind it. What
        was to be completed, with an unknown outcome, is asked for once more instead."""
        with self._lock:
            now = self._dispatcher.clock.monotonic()
            left = [
                self._unknown.get(broker_id) or Abandon(delivery, self._delays.get(broker_id, 0.0))
                for broker_id, delivery in self._unsettled.items()
                # A stale receipt might take the message from its new holder.
                if self._until[broker_id] > now and broker_id not in self._settling
            ]
            unsettled = bool(self._unsettled)
            untouched = [d.broker_id for d in self._order[self._handed_out :]] if unsettled else []
            self._ended_because = self._ended_because or "it was closed"
            self._unsettled.clear()
        for broker_id in untouched:
            self._dispatcher.excuse(broker_id)
        if unsettled:
            head = left[0].delay if left and isinstance(left[0], Abandon) else 0.0
            self._dispatcher.failed(self, now + head)
        try:
            if left:
                self._dispatcher.provider.settle(self._dispatcher.queue, left)
        finally:
            self._dispatcher.done(self, well=False)

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
            self._dispatcher.failed(self, self._dispatcher.clock.monotonic())
            self.on_lost(reason)

    def holds(self) -> bool:
        """True while it has something in hand and has not lost it."""
        with self._lock:
            over = self._dispatcher.clock.monotonic() >= self.leased_until
            return bool(self._unsettled) and self._ended_because is None and not over

    def is_lost(self) -> bool:
        """True if what it has in hand is no longer surely its own."""
        with self._lock:
            over = self._dispatcher.clock.monotonic() >= self.leased_until
            return bool(self._unsettled) and (self._ended_because is not None or over)

    def is_overtaken_by(self, arrival: Delivery) -> bool:
        """True if *arrival* shows that the broker took back something that is held here."""
        with self._lock:
            return bool(self._unsettled) and _order(arrival) <= self._newest

    def _repeat(self, again: Sequence[Complete]) -> None:
        """Ask once more for completions with an unknown outcome. Raises if it stays unknown."""
        outcomes = self._settle(again)
        with self._lock:
            self._repeated |= {_id(s) for s, outcome in zip(again, outcomes, strict=True) if outcome.ok}
        for error in (outcome.error for outcome in outcomes):
            if error is not None and error.retryable:
                raise error

    # Requires _lock to be held.

    def _note(self, settlements: Sequence[Settlement], outcomes: Sequence[Outcome[None]]) -> set[str]:
        """Note the *outcomes*; returns the ids of what turns out not to be held any more."""
        gone: set[str] = set()
        for settlement, outcome in zip(settlements, outcomes, strict=False):
            broker_id = _id(settlement)
            if broker_id not in self._unsettled:
                continue  # another call has settled it
            if outcome.ok:
                del self._unsettled[broker_id]
            if isinstance(settlement, Complete) and isinstance(outcome.error, OutcomeUnknown):
                self._unknown[broker_id] = settlement
            elif outcome.error is None or not isinstance(settlement, Complete):
                self._unknown.pop(broker_id, None)
            if isinstance(outcome.error, LeaseLost | InvalidReceipt):
                gone.add(broker_id)
        return gone

    def _check(self) -> None:
        ran_out = self._unsettled and self._dispatcher.clock.monotonic() >= self.leased_until
        if self._ended_because is None and ran_out:
            self._ended_because = "its lease ran out"
        if self._ended_because is not None:
            raise SessionLeaseLost(f"session {self.session_id!r} is not held: {self._ended_because}")
