"""The lease book against a ledger: what is watched is renewed in time, or told lost once and for a reason."""

from __future__ import annotations

import threading
from itertools import count

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from queue_runtime.leases import Held, renew_at
from queue_runtime.message import Lease
from queue_runtime.testing import FakeClock
from tests.fakes import REAL
from tests.lease_house import House, a_delivery
from tests.models.lease_ledger import MODES, Entry, Ledger, ScriptedLane, Told
from tests.models.sizes import sized, unhurried

pytestmark = unhurried

WHICH = st.sampled_from([0, 0, 0, 1, 2, 3])
"""One of the newest: things that happen to one lease are what is looked for."""

Kind = tuple[int, float, float, bool]
"""Of a lease: its lane, its length, the part of it that is left, and whether it is of a whole session."""

KINDS = st.tuples(
    st.integers(0, 1), st.sampled_from([6.0, 30.0]), st.sampled_from([1.0, 1.0, 0.5, 0.1]), st.booleans()
)
LEASES = st.lists(KINDS, min_size=3, max_size=6)


class LeaseModel(RuleBasedStateMachine):
    """Leases are watched, forgotten, set aside, taken up, settled and lost; brokers answer this and that."""

    @initialize(max_lease=st.sampled_from([40.0, 100.0, 12 * 3600.0]), leases=LEASES)
    def begin(self, max_lease: float, leases: list[Kind]) -> None:
        self.ledger = Ledger(FakeClock(), max_lease)
        self.house = House(max_lease=max_lease, clock=self.ledger.clock, events=Told(self.ledger))
        self.house.scheduler.call_later(0.0, lambda: None)  # time passes where a thread waits for it
        self.renewer = self.house.renewer
        self.lanes = [ScriptedLane(key, self.ledger) for key in ("one", "two")]
        self.house._brokers.extend(self.lanes)
        self.names = count()
        for kind in leases:
            self._watch(kind)

    @rule(kind=KINDS)
    def watch(self, kind: Kind) -> None:
        self._watch(kind)

    @rule(which=WHICH)
    def watch_what_is_watched(self, which: int) -> None:
        for entry in self._pick(which, "watched"):
            assert not self.renewer.watch(self._held(entry))

    @rule(which=WHICH)
    def watch_again_what_was_forgotten(self, which: int) -> None:
        for entry in self._pick(which, "forgotten"):
            if not entry.lease.lost:
                entry.state, entry.settling, entry.excused = "watched", 0, True
                entry.failed_at = None
                entry.due = renew_at(entry.lease.deadline, entry.lease.length)
                assert self.renewer.watch(self._held(entry, since=entry.since))
        self.house.let_pass(0.0)

    @rule(which=WHICH, join=st.booleans())
    def forget(self, which: int, join: bool) -> None:
        for entry in self._pick(which, "watched", "aside", "forgotten", "lost"):
            entry.state = "lost" if entry.state == "lost" else "forgotten"
            self.renewer.forget(entry.lease, join=join)

    @rule(which=WHICH)
    def set_aside(self, which: int) -> None:
        for entry in self._pick(which, "watched", "forgotten"):
            watched = entry.state == "watched"
            if watched:
                entry.state, entry.excused = "aside", True

            assert self.renewer.set_aside(entry.lease) == watched

    @rule(which=WHICH)
    def take_up(self, which: int) -> None:
        for entry in self._pick(which, "aside", "forgotten"):
            self._take_up(entry)
        self.house.let_pass(0.0)

    @rule(which=WHICH)
    def renew_by_hand(self, which: int) -> None:
        for entry in self._pick(which, "watched"):
            if not entry.lease.lost:
                entry.lease.extend(self._now() + entry.lease.length)
                entry.due, entry.excused = renew_at(entry.lease.deadline, entry.lease.length), False
                self.renewer.renewed(entry.lease)
        self.house.let_pass(0.0)

    @rule(which=WHICH, begins=st.sampled_from([True, True, False]))
    def a_settlement_begins_or_ends(self, which: int, begins: bool) -> None:
        for entry in self._pick(which, "watched", "aside"):
            if begins or entry.settling:
                entry.settling += 1 if begins else -1
                self.renewer.settling([entry.lease], begins)

    @rule(which=WHICH)
    def a_completion_ends_beside_an_abandon_that_fails(self, which: int) -> None:
        """Both of messages of one session, say."""
        for entry in self._pick(which, "watched"):
            self.renewer.settling([entry.lease], True)
            assert self.renewer.set_aside(entry.lease)
            entry.state, entry.excused = "aside", True
            self.renewer.settling([entry.lease], False)
            self._take_up(entry)
        self.house.let_pass(0.0)

    @rule(which=WHICH)
    def settled(self, which: int) -> None:
        """A message of it: one that is of a whole session is kept."""
        for entry in self._pick(which, "watched"):
            self.renewer.settled([entry.lease])
            entry.state = "watched" if entry.whole_session else "forgotten"

    @rule(which=WHICH)
    def its_holder_loses_it(self, which: int) -> None:
        for entry in self._pick(which, "watched", "aside"):
            entry.lease.lose("scripted")
            entry.lost_elsewhere = True

    @rule(lane=st.integers(0, 1), mode=st.sampled_from(["yes"] * 4 + MODES))
    def a_broker_changes_its_mind(self, lane: int, mode: str) -> None:
        self.lanes[lane].mode = mode

    @rule(seconds=st.sampled_from([0.5, 3.0, 10.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.house.let_pass(seconds)

    @rule(
        lane=st.integers(0, 1),
        more=st.sampled_from([0.0, 10.0, 10.0, 40.0]),
        mode=st.sampled_from(MODES),
        act=st.sampled_from(["aside", "forgotten"]),
        spared=st.integers(0, 4),
    )
    def a_call_hangs_while_leases_are_let_go(
        self, lane: int, more: float, mode: str, act: str, spared: int
    ) -> None:
        """What is under way is waited for; what waits behind it is not begun any more."""
        hanging = self.lanes[lane]
        hanging.mode = mode
        self._hang(hanging)
        under_way = {name for _, names in hanging.calls[-1:] for name in names if hanging.reached.is_set()}
        self.house.let_pass(more, without=hanging)
        assert self.ledger.untold() == []
        waiting: list[threading.Thread] = []
        there = [entry for entry in self.ledger.entries("watched") if entry.lane is hanging]
        for entry in there[spared:] or there:
            entry.state, entry.excused = act, True
            thread = self._let_go(entry)
            if entry.name in under_way:
                waiting.append(thread)
                self.ledger.clock.block_until(1 + len(waiting), timeout=REAL)
                assert thread.is_alive()
            else:
                thread.join(REAL)
                assert not thread.is_alive()
        hanging.goes_on.set()
        for thread in waiting:
            thread.join(REAL)
            assert not thread.is_alive()
        self.house.let_pass(0.0)

    @invariant()
    def nothing_went_wrong(self) -> None:
        assert self.ledger.wrong == []
        assert self.ledger.untold() == []
        assert self.ledger.overdue() == []

    @invariant()
    def it_keeps_what_is_watched_and_nothing_else(self) -> None:
        assert len(self.renewer) == len(self.ledger.entries("watched"))
        assert len(self.renewer._aside) == len(self.ledger.entries("aside"))
        assert not self.renewer._under_way

    def teardown(self) -> None:
        if not hasattr(self, "house"):
            return
        for lane in self.lanes:
            lane.goes_on.set()
            lane.mode = "lost"
        for number, entry in enumerate(self.ledger.entries("watched", "aside")):
            self.renewer.settling([entry.lease] * entry.settling, False)
            entry.settling = 0
            if entry.state == "aside":
                self._take_up(entry)
            if number % 3 == 2:
                entry.state = "forgotten"
                self.renewer.forget(entry.lease, join=True)
        self.house.let_pass(40.0)
        self.nothing_went_wrong()
        timers = [timer for _, _, timer in self.house.scheduler._heap if not timer.cancelled]
        self.house.close()
        assert not self.ledger.entries("watched")
        assert not self.renewer._held
        assert not self.renewer._lanes
        assert not self.renewer._aside
        assert not self.renewer._under_way
        assert timers == []

    def _watch(self, kind: Kind) -> None:
        lane, length, left, whole_session = kind
        name, now = str(next(self.names)), self._now()
        until = now + left * length
        lease = Lease(self.ledger.clock, until=until, length=length, what=name, session=whole_session)
        entry = Entry(name, lease, self.lanes[lane], whole_session, now, renew_at(until, length))
        self.ledger.by_lease[lease] = self.ledger.by_name[name] = entry

        assert self.renewer.watch(self._held(entry))
        self.house.let_pass(0.0)

    def _now(self) -> float:
        return self.ledger.clock.monotonic()

    def _held(self, entry: Entry, since: float | None = None) -> Held:
        lease, name = entry.lease, entry.name
        delivery = None if entry.whole_session else a_delivery(name, lease.deadline, lease.length)
        session = name if entry.whole_session else None
        return Held(
            lease=lease, lane=entry.lane, queue="jobs", delivery=delivery, session_id=session, since=since
        )

    def _pick(self, which: int, *states: str) -> list[Entry]:
        """One in one of these *states*, if there is one."""
        found = self.ledger.entries(*states)
        return [found[-1 - which % len(found)]] if found else []

    def _take_up(self, entry: Entry) -> None:
        if entry.state == "aside":
            entry.state = "watched"
            entry.due = renew_at(entry.lease.deadline, entry.lease.length)
        self.renewer.take_up(entry.lease)

    def _hang(self, lane: ScriptedLane) -> None:
        """Have the next call of *lane* hang, if one comes within a minute."""
        lane.reached.clear()
        lane.goes_on.clear()
        for _ in range(60):
            if lane.reached.is_set() or not any(e.lane is lane for e in self.ledger.entries("watched")):
                break
            self.house.let_pass(1.0, without=lane)
            self._have_reached(lane)
        for entry in self.ledger.entries("watched"):
            entry.excused = entry.excused or entry.lane is lane

    def _have_reached(self, lane: ScriptedLane) -> None:
        """A call that was begun stands in the lane before this goes on."""
        begun = any(one.renewing for one in self.renewer._lanes.get(lane.key, ()))
        if begun:
            assert lane.reached.wait(REAL)

    def _let_go(self, entry: Entry) -> threading.Thread:
        act = self.renewer.set_aside if entry.state == "aside" else self._forget_and_join
        thread = threading.Thread(target=act, args=(entry.lease,))
        thread.start()
        return thread

    def _forget_and_join(self, lease: Lease) -> None:
        self.renewer.forget(lease, join=True)


TestLeaseModel = LeaseModel.TestCase
TestLeaseModel.settings = sized(250, steps=30)
