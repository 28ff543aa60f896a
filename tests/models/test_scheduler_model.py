"""The scheduler against a sorted list: what runs, when, in which order, and what it lets go."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, field
from unittest.mock import patch

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from queue_runtime import scheduler as scheduler_module
from queue_runtime.errors import Closed
from queue_runtime.scheduler import Scheduler, Timer
from queue_runtime.testing import FakeClock
from tests.fakes import REAL
from tests.models.sizes import sized, unhurried

pytestmark = unhurried

SWEPT = 4
"""Timers from which on cancelled ones are swept out, here."""

DELAYS = st.sampled_from([-1.0, 0.0, 1.0, 1.0, 2.0, 3.0, 10.0])

AFTER = ["nothing", "raise", "exit", "schedule", "cancel", "close"]
"""What an action does when it has noted that it ran; most do nothing more."""


@dataclass(eq=False)
class Planned:
    """One timer as the model knows it."""

    number: int
    when: float
    then: str
    delay: float
    cancelled: bool = False
    ran_at: float | None = None


@dataclass
class Plan:
    """What the scheduler should do: timers by their time, those of one moment as they came."""

    waiting: list[Planned] = field(default_factory=list)
    made: list[Planned] = field(default_factory=list)
    ran: list[tuple[int, float]] = field(default_factory=list)
    closed: bool = False

    def add(self, when: float, then: str, delay: float) -> Planned:
        planned = Planned(len(self.made), when, then, delay)
        self.made.append(planned)
        if not self.closed:
            self.waiting.append(planned)
        return planned

    def cancel(self, planned: Planned) -> None:
        planned.cancelled = True
        self.waiting = [one for one in self.waiting if one is not planned]

    def close(self) -> None:
        self.closed, self.waiting = True, []

    def run_due(self, now: float) -> None:
        """Run what is due; what that adds comes after it, at the same moment if it is due."""
        while due := sorted((p for p in self.waiting if p.when <= now), key=lambda p: (p.when, p.number)):
            self.waiting = [p for p in self.waiting if p not in due]
            for planned in due:
                if not planned.cancelled:
                    planned.ran_at = now
                    self.ran.append((planned.number, now))
                    self._go_on(planned, now)

    def next_due(self) -> float | None:
        return min((planned.when for planned in self.waiting), default=None)

    def _go_on(self, planned: Planned, now: float) -> None:
        if planned.then == "schedule" and not self.closed:
            self.add(now + planned.delay, "nothing", 0.0)
        elif planned.then == "cancel":
            for other in [p for p in self.made if p.number == planned.number + 1]:
                self.cancel(other)
        elif planned.then == "close":
            self.close()


class Action:
    """What a timer runs: it notes that it did, then does what it is told."""

    def __init__(self, machine: SchedulerModel, number: int, then: str, delay: float) -> None:
        self.machine, self.number, self.then, self.delay = machine, number, then, delay

    def __call__(self) -> None:
        machine = self.machine
        machine.ran.append((self.number, machine.clock.monotonic()))
        match self.then:
            case "raise":
                raise ValueError("scripted")
            case "exit":
                raise SystemExit
            case "schedule":
                number = len(machine.timers)
                action = Action(machine, number, "nothing", 0.0)
                try:
                    timer = machine.scheduler.call_later(self.delay, action)
                except Closed:
                    return
                machine.timers.append((timer, weakref.ref(action)))
            case "cancel":
                if self.number + 1 < len(machine.timers):
                    machine.timers[self.number + 1][0].cancel()
            case "close":
                machine.scheduler.close()


class SchedulerModel(RuleBasedStateMachine):
    """Timers are made, cancelled and run out; actions make, cancel, fail and close."""

    def __init__(self) -> None:
        super().__init__()
        self._patch = patch.object(scheduler_module, "SWEEP", SWEPT)
        self._patch.start()
        self.clock = FakeClock()
        self.scheduler = Scheduler(self.clock, name="modelled")
        self.plan = Plan()
        self.ran: list[tuple[int, float]] = []
        self.timers: list[tuple[Timer, weakref.ref[Action]]] = []
        """What there is of each of the plan's, in the order of their making."""
        self.most_live = 0

    @precondition(lambda self: not self.plan.closed)
    @rule(delay=DELAYS, then=st.sampled_from(["nothing"] * 6 + AFTER[:-1]), later=DELAYS)
    def call_later(self, delay: float, then: str, later: float) -> None:
        self._add(delay, then, later)
        self._catch_up()

    @precondition(lambda self: not self.plan.closed)
    @rule(delays=st.lists(st.sampled_from([1.0, 2.0, 3.0, 10.0]), min_size=2, max_size=12))
    def call_many(self, delays: list[float]) -> None:
        for delay in delays:
            self._add(delay, "nothing", 0.0)
        self._catch_up()

    @precondition(lambda self: not self.plan.closed)
    @rule(delay=st.sampled_from([0.0, 1.0, 2.0]))
    def have_it_closed_by_an_action(self, delay: float) -> None:
        self._add(delay, "close", 0.0)
        self._catch_up()

    @precondition(lambda self: not self.plan.closed)
    @rule(many=st.integers(2, 4))
    def threads_call_at_once(self, many: int) -> None:
        """Each for a moment of its own; which of them is first is open."""
        now = self.clock.monotonic()
        before = len(self.timers)
        lock = threading.Lock()

        def call(place: int) -> None:
            with lock:  # their numbers are those of the plan; the scheduler itself is met without order
                number = before + place
                action = Action(self, number, "nothing", 0.0)
            timer = self.scheduler.call_at(now + 1.0 + place / 8, action)
            called[place] = (timer, weakref.ref(action))

        called: dict[int, tuple[Timer, weakref.ref[Action]]] = {}
        threads = [threading.Thread(target=call, args=(place,)) for place in range(many)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(REAL)
        for place in range(many):
            self.plan.add(now + 1.0 + place / 8, "nothing", 0.0)
            self.timers.append(called[place])
        self._catch_up()

    @precondition(lambda self: self.timers)
    @rule(which=st.integers(0, 50), many=st.integers(1, 8))
    def cancel(self, which: int, many: int) -> None:
        """Some in a row: those that have run, or are cancelled, too."""
        for number in range(which % len(self.timers), len(self.timers))[:many]:
            timer, action = self.timers[number]
            timer.cancel()
            self.plan.cancel(self.plan.made[number])
            if self.plan.made[number].ran_at is None:  # else the log may show what it raised, and hold that
                assert action() is None, "a cancelled timer keeps what its action holds"

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        end = self.clock.monotonic() + seconds
        while (due := self.plan.next_due()) is not None and due <= end:
            self.clock.advance(due - self.clock.monotonic())
            self._catch_up()
        self.clock.advance(end - self.clock.monotonic())
        self._catch_up()

    @rule()
    def close(self) -> None:
        self.scheduler.close()
        self.plan.close()

    @precondition(lambda self: self.plan.closed)
    @rule(delay=DELAYS)
    def nothing_more_is_taken(self, delay: float) -> None:
        with pytest.raises(Closed):
            self.scheduler.call_later(delay, pytest.fail)

    @invariant()
    def what_was_due_ran_once_in_order_at_its_time(self) -> None:
        assert self.ran == self.plan.ran

    @invariant()
    def what_is_cancelled_is_let_go(self) -> None:
        live, held = len(self.plan.waiting), len(self.scheduler)
        self.most_live = max(self.most_live, live)

        assert live <= held <= max(SWEPT, 2 * self.most_live)

    def teardown(self) -> None:
        self._patch.stop()
        self.scheduler.close()
        assert len(self.scheduler) == 0
        thread = self.scheduler._thread
        if thread is not None:
            thread.join(REAL)
            assert not thread.is_alive()

    def _add(self, delay: float, then: str, later: float) -> None:
        number = len(self.timers)
        planned = self.plan.add(self.clock.monotonic() + delay, then, later)
        assert planned.number == number
        action = Action(self, number, then, later)
        # An action that is due at once may make a timer of its own meanwhile: it stands behind this one.
        timer = Timer(0.0, pytest.fail)
        self.timers.append((timer, weakref.ref(action)))
        timer = self.scheduler.call_later(delay, action)
        self.timers[number] = (timer, self.timers[number][1])

    def _threads(self) -> int:
        thread = self.scheduler._thread
        return 0 if thread is None or self.plan.closed else 1

    def _catch_up(self) -> None:
        """Meet the scheduler's thread where it has nothing to do."""
        self.plan.run_due(self.clock.monotonic())
        if self._threads():
            self.clock.block_until(self._threads(), timeout=REAL)
        elif (thread := self.scheduler._thread) is not None:
            thread.join(REAL)


TestSchedulerModel = SchedulerModel.TestCase
TestSchedulerModel.settings = sized(500, steps=30)
