"""Sessions made of groups against the broker's own book: order, one pair of hands, nothing lost or kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from queue_runtime.errors import (
    ConnectionFailed,
    LeaseLost,
    OperationTimeout,
    OutcomeUnknown,
    QueueError,
    SessionLeaseLost,
    Throttled,
)
from queue_runtime.message import DeadLetterInfo, Delivery
from queue_runtime.provider import Abandon, Complete, DeadLetter, Settlement
from queue_runtime.sessions import UNTAKEN, GroupSession
from tests.fakes import REAL, Step, fails, fails_for, loses, loses_for, passes
from tests.models.group_world import LEASE, QUEUE, Hand, World
from tests.models.sizes import sized, unhurried

pytestmark = unhurried

WHICH = st.sampled_from([0, 0, 0, 1, 2])

Weather = Callable[[list[str]], Step]
"""What happens to a call about the messages with these ids."""

RECEIVING: dict[str, Step] = {
    "fine": passes,
    "unreached": fails(ConnectionFailed),
    "answer lost": loses(OperationTimeout),
}
SETTLING: dict[str, Weather] = {
    "fine": lambda ids: passes,
    "throttled": lambda ids: fails(Throttled),
    "answer lost": lambda ids: loses(OutcomeUnknown),
    "request lost": lambda ids: fails(OutcomeUnknown),
    "one answer lost": lambda ids: loses_for(ids[0]),
    "one request lost": lambda ids: fails_for({ids[0]: OutcomeUnknown}),
    "one throttled": lambda ids: fails_for({ids[0]: Throttled}),
    "one not held": lambda ids: fails_for({ids[0]: LeaseLost}),
}
RENEWING: dict[str, Weather] = {
    "fine": lambda ids: passes,
    "throttled": lambda ids: fails(Throttled),
    "one throttled": lambda ids: fails_for({ids[0]: Throttled}),
    "one not held": lambda ids: fails_for({ids[0]: LeaseLost}),
}
INFO = DeadLetterInfo(reason="scripted")


def often_fine(weather: dict[str, Step] | dict[str, Weather]) -> st.SearchStrategy[str]:
    return st.sampled_from(["fine"] * len(weather) + list(weather))


class SessionsModel(RuleBasedStateMachine):
    """Sessions are accepted, settled, renewed, lost and closed in all weathers; others take messages too."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(several=st.lists(st.integers(1, 5), min_size=3, max_size=3))
    def begin(self, several: list[int]) -> None:
        for group, many in zip(("a", "b", None), several, strict=True):
            self.world.send(group, many)

    @rule(group=st.sampled_from(["a", "a", "b", "c", None]), many=st.integers(1, 4))
    def send(self, group: str | None, many: int) -> None:
        self.world.send(group, many)

    @rule(most=st.integers(1, 3), size=st.integers(1, 8), weather=often_fine(RECEIVING))
    def accept(self, most: int, size: int, weather: str) -> None:
        world, before = self.world, self.world.leased()
        world.sizes.chosen = size
        with world.weather("receive", RECEIVING[weather]):
            try:
                found = world.dispatcher.accept(most, 0.0)
            except QueueError:
                assert weather != "fine"
                world.out_elsewhere |= world.leased() - before
                return
        assert len(found) <= most
        self._accepted(found)

    @rule(threads=st.integers(1, 3), then=st.sampled_from(["send", "send", "wait", "cancel"]))
    def threads_accept_at_once(self, threads: int, then: str) -> None:
        found: list[GroupSession] = []
        cancelled = threading.Event()
        accept = self.world.dispatcher.accept
        crew = [
            threading.Thread(target=lambda: found.extend(accept(1, 7.0, cancelled=cancelled.is_set)))
            for _ in range(threads)
        ]
        for thread in crew:
            thread.start()
        self._meet(crew)
        if then == "send":
            for group in ("a", "b", "c"):
                self.world.send(group, 2)
            self._meet(crew)
        elif then == "wait":
            self.world.let_pass(7.0)
        cancelled.set()
        self.world.inner.wake(QUEUE)
        self.world.dispatcher.wake()
        for thread in crew:
            thread.join(REAL)
            assert not thread.is_alive(), "an accept lasts longer than it may"
        self._accepted(found)

    @rule(which=WHICH, most=st.integers(1, 3))
    def receive(self, which: int, most: int) -> None:
        for hand in self._pick(which):
            self._receive(hand, most)

    @rule(which=WHICH, most=st.integers(1, 3), weather=often_fine(SETTLING), dead=st.booleans())
    def settle(self, which: int, most: int, weather: str, dead: bool) -> None:
        """The first of what was received, as a handler does that has handled it."""
        for hand in self._pick(which):
            if not hand.received():
                self._receive(hand, most)
            kind = (lambda delivery: DeadLetter(delivery, INFO)) if dead else Complete
            asked = hand.unknown | hand.repeated
            chosen = [kind(d) for d in hand.received()[:most] if not (dead and d.message.id in asked)]
            if chosen:
                self._settle(hand, chosen, weather)

    @rule(
        which=WHICH,
        delay=st.sampled_from([0.0, 5.0]),
        weather=often_fine(SETTLING),
        closing=often_fine(SETTLING),
    )
    def abandon(self, which: int, delay: float, weather: str, closing: str) -> None:
        """The head, and then nothing more of it: it is closed."""
        for hand in self._pick(which):
            if not hand.received():
                self._receive(hand, 2)
            heads = hand.received()[:1]
            if heads and heads[0].message.id not in hand.unknown | hand.repeated:
                self._settle(hand, [Abandon(heads[0], delay)], weather)
            self._close(hand, closing)

    @rule(which=WHICH, weather=often_fine(RENEWING), repeat=often_fine(SETTLING))
    def renew(self, which: int, weather: str, repeat: str) -> None:
        for hand in self._pick(which):
            self._renew(hand, weather, repeat)

    @rule(
        which=WHICH,
        most=st.integers(1, 3),
        first=st.sampled_from(["answer lost", "request lost", "one request lost"]),
        repeat=st.sampled_from(sorted(SETTLING)),
    )
    def a_completion_is_unknown_and_asked_for_again(
        self, which: int, most: int, first: str, repeat: str
    ) -> None:
        self.settle(which, most, first, dead=False)
        self.renew(which, "fine", repeat)

    @rule(which=WHICH, weather=often_fine(SETTLING))
    def close(self, which: int, weather: str) -> None:
        for hand in self._pick(which):
            self._close(hand, weather)

    @rule()
    def somebody_stops_accepting(self) -> None:
        self.world.dispatcher.give_back_untaken()
        assert not self.world.dispatcher._fetched

    @rule(place=st.integers(0, 5))
    def the_broker_takes_a_message_back(self, place: int) -> None:
        """Whoever has it: one of a session, or one that waits to be taken."""
        leased = sorted(self.world.leased())
        if leased:
            self.world.take_back(leased[place % len(leased)])

    @rule(most=st.integers(1, 4), then=st.sampled_from(["complete", "abandon", "keep"]))
    def another_process_takes_some(self, most: int, then: str) -> None:
        taken = self.world.inner.receive(QUEUE, most, 0.0)
        for delivery in taken:
            for hand in self._holding(delivery):
                assert hand.not_ours, f"{delivery.message.id} is in two hands"
        if then == "complete":
            self.world.asked_to_go |= {delivery.message.id for delivery in taken}
            self.world.inner.settle(QUEUE, [Complete(delivery) for delivery in taken])
        elif then == "abandon":
            self.world.inner.settle(QUEUE, [Abandon(delivery) for delivery in taken])
        else:
            self.world.out_elsewhere |= {delivery.message.id for delivery in taken}

    @rule(seconds=st.sampled_from([0.5, 2.0, 10.0, LEASE]))
    def time_passes(self, seconds: float) -> None:
        self.world.let_pass(seconds)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.world.lost_messages() == []

    @invariant()
    def a_session_is_in_one_pair_of_hands(self) -> None:
        holding = [hand.session.key for hand in self.world.hands if hand.session.holds()]
        assert len(holding) == len(set(holding))

    @invariant()
    def what_is_held_here_is_held_there(self) -> None:
        seen = self.world.seen()
        for hand in self.world.hands:
            if hand.session.holds() and not hand.not_ours:
                for delivery in hand.deliveries:
                    there = seen.get(delivery.message.id)
                    if delivery.message.id in hand.done or there is None:
                        continue
                    assert there.receipt == delivery.receipt
                    assert (there.leased_until or 0.0) >= hand.session.leased_until

    @invariant()
    def a_loss_is_told_once(self) -> None:
        assert [hand.told for hand in self.world.hands if len(hand.told) > 1] == []

    @invariant()
    def nothing_is_kept_of_what_is_over(self) -> None:
        dispatcher = self.world.dispatcher
        over = [h.session for h in self.world.hands if h.closed or not h.session.has_unsettled()]
        assert not [session for session in over if session in dispatcher._open.values()]
        assert dispatcher._wanted == 0
        assert not dispatcher._fetching

    def teardown(self) -> None:
        for hand in self.world.hands:
            if hand.closed:
                hand.session.close()  # twice is harmless
            else:
                self._close(hand, "fine")
        self.world.let_pass(UNTAKEN)
        not_ours = {message_id for hand in self.world.hands for message_id in hand.not_ours}
        assert self.world.leased() <= self.world.out_elsewhere | not_ours
        self.world.dispatcher.give_back_untaken()
        assert not self.world.dispatcher._open
        assert not self.world.dispatcher._fetched
        self.world.let_pass(LEASE)
        self._drain()
        self.nothing_is_lost()
        assert self.world.inner.describe(QUEUE).leased == 0

    def _drain(self) -> None:
        """Handle all that is there, as a worker does: it comes in order, and then there is nothing."""
        for _ in range(len(self.world.seen()) + 1):
            found = self.world.dispatcher.accept(3, 0.0)
            if not found:
                break
            for hand in self._accepted(found):
                while self._receive(hand, 1):
                    self._settle(hand, [Complete(d) for d in hand.received()], "fine")
        assert self.world.seen() == {}
        assert not self.world.dispatcher._open

    def _pick(self, which: int) -> list[Hand]:
        """One of the newest that are not closed, if there is one."""
        found = [hand for hand in self.world.hands if not hand.closed]
        return [found[-1 - which % len(found)]] if found else []

    def _holding(self, delivery: Delivery) -> list[Hand]:
        """Those that surely have something of its group: what is to go may have gone."""
        key = delivery.message.session_id or delivery.broker_id
        return [
            hand
            for hand in self.world.hands
            if hand.session.key == key
            and hand.session.holds()
            and not {d.message.id for d in hand.deliveries} <= hand.done | self.world.asked_to_go
        ]

    def _accepted(self, found: list[GroupSession]) -> list[Hand]:
        for session in found:
            for hand in self.world.hands:
                assert hand.session.key != session.key or not hand.session.holds()
        for waiting in self.world.dispatcher._fetched.values():
            for delivery in waiting.deliveries:
                for hand in self._holding(delivery):
                    held = {d.broker_id for d in hand.deliveries if d.message.id not in hand.done}
                    assert delivery.broker_id not in held, "it was handed out again, and is held"
        hands = self.world.accepted(found)
        assert all(hand.session.holds() or hand.not_ours for hand in hands)
        return hands

    def _meet(self, crew: list[threading.Thread]) -> None:
        """Return when each of *crew* has ended or waits for something to change."""
        pause = threading.Event()
        for _ in range(int(REAL / 0.001)):
            alive = [thread for thread in crew if thread.is_alive()]
            if not alive or self.world.clock.is_parked(*alive):
                return
            pause.wait(0.001)
        raise AssertionError("a thread does not come to rest")

    def _receive(self, hand: Hand, most: int) -> list[Delivery]:
        if hand.is_over(self.world.now):
            with pytest.raises(SessionLeaseLost):
                hand.session.receive(most, 0.0)
            return []
        got = list(hand.session.receive(most, 0.0))
        assert got == hand.deliveries[hand.out : hand.out + most]
        hand.out += len(got)
        if got and not hand.not_ours:
            own = {delivery.message.id for delivery in hand.deliveries[: hand.out]}
            last = got[-1].sequence or 0
            seen = self.world.seen()
            group = seen[got[-1].message.id].group
            before = {name for name, one in seen.items() if one.group == group and one.sequence < last}
            assert before <= own, "it starts before those ahead of it are done"
        return got

    def _settle(self, hand: Hand, settlements: Sequence[Settlement], weather: str) -> None:
        world, ids = self.world, [settlement.delivery.message.id for settlement in settlements]
        over, before = hand.is_over(world.now), world.seen()
        go = {i for i, s in zip(ids, settlements, strict=True) if not isinstance(s, Abandon)}
        if not over:
            world.asked_to_go |= go
        with world.weather("settle", SETTLING[weather](ids)):
            try:
                errors = [outcome.error for outcome in hand.session.settle(settlements)]
            except QueueError as exc:
                assert weather in ("throttled", "answer lost", "request lost")
                errors = [exc] * len(ids)
        after = world.seen()
        if over:
            assert all(isinstance(error, SessionLeaseLost) for error in errors)
            assert after == before
            return
        assert {i: one for i, one in after.items() if i not in ids} == {
            i: one for i, one in before.items() if i not in ids
        }
        for settlement, error in zip(settlements, errors, strict=True):
            self._note(hand, settlement, error)

    def _note(self, hand: Hand, settlement: Settlement, error: QueueError | None) -> None:
        message_id, there = settlement.delivery.message.id, self.world.seen()
        assert error is None or message_id not in hand.repeated, "it has happened, and its caller is not told"
        if isinstance(settlement, Abandon):
            hand.delays[message_id] = settlement.delay
        if error is None:
            hand.done.add(message_id)
            hand.unknown.discard(message_id)
            hand.repeated.discard(message_id)
            if isinstance(settlement, Abandon):
                assert there[message_id].leased_until is None
                assert there[message_id].visible_at == self.world.now + settlement.delay
            else:
                assert message_id not in there, "it is said to be settled, and is there"
        elif isinstance(error, OutcomeUnknown):
            if isinstance(settlement, Complete):
                hand.unknown.add(message_id)
        elif not error.retryable:
            hand.not_ours.add(message_id)
            assert not hand.session.holds(), "it goes on without a message that is not held"

    def _renew(self, hand: Hand, weather: str, repeat: str) -> None:
        world, session = self.world, hand.session
        over, before = hand.is_over(world.now), world.seen()
        ids = [d.message.id for d in hand.deliveries if d.message.id not in hand.done]
        open_ids = [message_id for message_id in ids if message_id in hand.unknown]
        ids = ids or ["none"]
        settling = SETTLING[repeat](open_ids or ["none"])
        with world.weather("renew", RENEWING[weather](ids)), world.weather("settle", settling):
            try:
                until = session.renew()
            except SessionLeaseLost:
                assert over or hand.told or hand.not_ours
                hand.not_ours.update(ids[:1] if hand.told else ())
            except QueueError:
                assert (weather, repeat) != ("fine", "fine")
            else:
                assert not over
                self._check_renewed(hand, until)
        if over:
            assert world.seen() == before

    def _check_renewed(self, hand: Hand, until: float) -> None:
        world = self.world
        seen = world.seen()
        assert not hand.told, "it is lost, and is renewed"
        assert until == world.now + LEASE or not hand.session.has_unsettled()
        for delivery in hand.deliveries:
            message_id = delivery.message.id
            if message_id in hand.unknown and message_id not in hand.not_ours:
                assert message_id not in seen, "its completion was to be asked for again"
                hand.unknown.discard(message_id)
                hand.repeated.add(message_id)

    def _close(self, hand: Hand, weather: str) -> None:
        world, now = self.world, self.world.now
        before = world.seen()
        ours = {
            d.message.id
            for d in hand.deliveries
            if d.message.id in before
            and before[d.message.id].receipt == d.receipt
            and (before[d.message.id].leased_until or 0.0) > now
            and d.message.id not in hand.not_ours
        }
        calls = len(world.script.calls("settle"))
        with world.weather("settle", SETTLING[weather](sorted(ours) or ["none"])):
            try:
                hand.session.close()
            except QueueError:
                assert weather != "fine"
        hand.closed = True
        assert not hand.session.has_unsettled()
        asked = {message_id for ids in world.script.calls("settle")[calls:] for message_id in ids}
        open_still = hand.not_ours | world.asked_to_go | set(hand.delays)
        assert asked <= ours | open_still, "a stale receipt might take it from another"
        after = world.seen()
        if weather != "fine":
            world.out_elsewhere |= ours
        else:
            for message_id in ours & set(after):
                assert message_id not in hand.unknown, "its completion was to be asked for again"
                assert after[message_id].leased_until is None, "it was not given back"
                assert after[message_id].visible_at == now + hand.delays.get(message_id, 0.0)
        others = set(before) - {delivery.message.id for delivery in hand.deliveries}
        assert {i: after[i] for i in others} == {i: before[i] for i in others}


TestSessionsModel = SessionsModel.TestCase
TestSessionsModel.settings = sized(300, steps=30)
