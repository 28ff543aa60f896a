"""The scheduler: what is due runs when it is due, in order, and nothing stops the thread that all need."""

from __future__ import annotations

import gc
import logging
import random
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queue_runtime.clock import SystemClock
from queue_runtime.errors import Closed
from queue_runtime.scheduler import Scheduler, Timer
from queue_runtime.testing import FakeClock
from tests.fakes import REAL


class Diary:
    """Notes what ran, and when, in seconds since its start."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._start = clock.monotonic()
        self.lines: list[tuple[str, float]] = []

    def note(self, what: str) -> None:
        self.lines.append((what, self._clock.monotonic() - self._start))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def diary(clock: FakeClock) -> Diary:
    return Diary(clock)


@pytest.fixture
def scheduler(clock: FakeClock) -> Iterator[Scheduler]:
    made = Scheduler(clock, name="timekeeper")
    yield made
    made.close()
    assert threads() == []


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "timekeeper"]


class TestTheTime:
    def test_an_action_runs_when_it_is_due_and_not_before(
        self, scheduler: Scheduler, clock: FakeClock, diary: Diary
    ) -> None:
        scheduler.call_later(5.0, lambda: diary.note("five"))

        clock.advance(4.5, waiters=1)
        clock.block_until(1)
        assert diary.lines == []

        clock.advance(0.5, waiters=1)
        clock.block_until(1)
        assert diary.lines == [("five", 5.0)]

    def test_actions_run_by_their_time_whatever_the_order_in_which_they_were_given(
        self, scheduler: Scheduler, clock: FakeClock, diary: Diary
    ) -> None:
        for seconds in (3.0, 1.0, 2.0):
            scheduler.call_later(seconds, lambda seconds=seconds: diary.note(str(seconds)))  # type: ignore[misc]

        clock.advance(3.0, waiters=1)
        clock.block_until(1)

        assert diary.lines == [("1.0", 1.0), ("2.0", 2.0), ("3.0", 3.0)]

    def test_those_of_one_moment_run_in_the_order_in_which_they_were_given(
        self, scheduler: Scheduler, clock: FakeClock
    ) -> None:
        order: list[int] = []
        for number in range(20):
            scheduler.call_later(1.0, lambda number=number: order.append(number))  # type: ignore[misc]

        clock.advance(1.0, waiters=1)
        clock.block_until(1)

        assert order == list(range(20))

    def test_one_that_is_due_earlier_than_the_first_is_not_kept_waiting_by_it(
        self, scheduler: Scheduler, clock: FakeClock, diary: Diary
    ) -> None:
        scheduler.call_later(60.0, lambda: diary.note("late"))
        clock.block_until(1)
        scheduler.call_later(1.0, lambda: diary.note("early"))

        clock.advance(60.0, waiters=1)
        clock.block_until(1)

        assert diary.lines == [("early", 1.0), ("late", 60.0)]

    @pytest.mark.parametrize("seconds", [0.0, -5.0])
    def test_what_is_due_already_runs_at_once(self, scheduler: Scheduler, seconds: float) -> None:
        ran = threading.Event()

        scheduler.call_later(seconds, ran.set)

        assert ran.wait(REAL)

    def test_time_that_goes_on_while_its_thread_gets_to_its_wait_is_not_waited_for_twice(self) -> None:
        class Overtaking(FakeClock):
            """Moves on when the first is about to wait."""

            ahead = 2.0

            def overtake(self) -> None:
                seconds, self.ahead = self.ahead, 0.0
                self.advance(seconds)

            def wait_for(self, *args: Any) -> bool:
                self.overtake()
                return super().wait_for(*args)

            def wait_until(self, *args: Any) -> bool:
                self.overtake()
                return super().wait_until(*args)

        clock = Overtaking()
        diary, scheduler = Diary(clock), Scheduler(clock, name="timekeeper")
        scheduler.call_later(5.0, lambda: diary.note("five"))
        clock.block_until(1)

        clock.advance(3.0, waiters=1)
        clock.block_until(1)

        assert diary.lines == [("five", 5.0)]
        scheduler.close()

    def test_it_keeps_real_time_too(self) -> None:
        real, ran = Scheduler(SystemClock()), threading.Event()
        started = SystemClock().monotonic()

        real.call_later(0.02, ran.set)

        assert ran.wait(REAL)
        assert SystemClock().monotonic() - started >= 0.02
        real.close()


class TestCancelling:
    def test_keeps_an_action_from_running(self, scheduler: Scheduler, clock: FakeClock, diary: Diary) -> None:
        first = scheduler.call_later(1.0, lambda: diary.note("first"))
        scheduler.call_later(2.0, lambda: diary.note("second"))

        first.cancel()
        first.cancel()
        clock.advance(2.0, waiters=1)
        clock.block_until(1)

        assert diary.lines == [("second", 2.0)]

    def test_by_an_action_of_the_same_moment_is_in_time(self, scheduler: Scheduler, clock: FakeClock) -> None:
        later: list[Timer] = []
        ran: list[str] = []
        scheduler.call_later(1.0, lambda: later[0].cancel())
        later.append(scheduler.call_later(1.0, lambda: ran.append("cancelled")))

        clock.advance(1.0, waiters=1)
        clock.block_until(1)

        assert ran == []

    def test_after_the_action_ran_is_harmless(self, scheduler: Scheduler) -> None:
        ran = threading.Event()
        timer = scheduler.call_later(0.0, ran.set)
        assert ran.wait(REAL)

        timer.cancel()

    def test_lets_go_of_what_the_action_holds(self, scheduler: Scheduler, clock: FakeClock) -> None:
        class Body:
            pass

        body = Body()
        gone = weakref.ref(body)
        timer = scheduler.call_later(3600.0, lambda body=body: None)  # type: ignore[misc]
        del body

        timer.cancel()
        gc.collect()

        assert gone() is None

    def test_keeps_no_more_cancelled_ones_than_live_ones(self, scheduler: Scheduler) -> None:
        """Leases of hours are settled within a second, thousands in each."""
        live = [scheduler.call_later(3600.0, lambda: None) for _ in range(100)]

        for _ in range(10_000):
            scheduler.call_later(3600.0, lambda: None).cancel()

        assert len(scheduler) <= 3 * len(live)


class TestTheThread:
    def test_starts_with_the_first_action(self, scheduler: Scheduler) -> None:
        assert threads() == []

        scheduler.call_later(1.0, lambda: None)
        scheduler.call_later(1.0, lambda: None)

        assert threads() == ["timekeeper"]

    @pytest.mark.parametrize("error", [ValueError, SystemExit])
    def test_survives_an_action_that_raises_and_logs_it(
        self,
        scheduler: Scheduler,
        clock: FakeClock,
        diary: Diary,
        caplog: pytest.LogCaptureFixture,
        error: type[BaseException],
    ) -> None:
        def fail() -> None:
            raise error("no good")

        scheduler.call_later(1.0, fail)
        scheduler.call_later(1.0, lambda: diary.note("same moment"))
        scheduler.call_later(2.0, lambda: diary.note("later"))

        with caplog.at_level(logging.ERROR, logger="queue_runtime"):
            clock.advance(2.0, waiters=1)
            clock.block_until(1)

        assert diary.lines == [("same moment", 1.0), ("later", 2.0)]
        assert "no good" in caplog.text

    def test_runs_what_an_action_schedules(
        self, scheduler: Scheduler, clock: FakeClock, diary: Diary
    ) -> None:
        def tick() -> None:
            diary.note("tick")
            scheduler.call_later(0.5, tick)

        scheduler.call_later(0.5, tick)
        clock.advance(2.0, waiters=1)
        clock.block_until(1)

        assert diary.lines == [("tick", 0.5), ("tick", 1.0), ("tick", 1.5), ("tick", 2.0)]

    def test_that_could_not_be_started_is_started_by_the_next_action(
        self, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        ran = threading.Event()
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                scheduler.call_later(0.0, pytest.fail)

        scheduler.call_later(0.0, ran.set)

        assert ran.wait(REAL)


class TestClosing:
    def test_drops_what_is_not_due_and_ends_the_thread(
        self, scheduler: Scheduler, clock: FakeClock, diary: Diary
    ) -> None:
        scheduler.call_later(1.0, lambda: diary.note("dropped"))
        clock.block_until(1)

        scheduler.close()
        clock.advance(5.0)

        assert threads() == []
        assert diary.lines == []

    def test_takes_no_more_actions(self, scheduler: Scheduler) -> None:
        scheduler.close()

        with pytest.raises(Closed, match="the scheduler is closed"):
            scheduler.call_later(1.0, lambda: None)
        assert threads() == []

    def test_waits_for_the_action_that_runs(self, scheduler: Scheduler, diary: Diary) -> None:
        running, go_on = threading.Event(), threading.Event()

        def act() -> None:
            running.set()
            assert go_on.wait(REAL)
            diary.note("ended")

        scheduler.call_later(0.0, act)
        assert running.wait(REAL)
        closer = threading.Thread(target=scheduler.close, daemon=True)
        closer.start()
        assert closer.is_alive()
        go_on.set()
        closer.join(REAL)

        assert diary.lines == [("ended", 0.0)]
        assert threads() == []

    def test_from_within_an_action_ends_the_thread_after_it(self, scheduler: Scheduler) -> None:
        scheduler.call_later(0.0, scheduler.close)

        for thread in [t for t in threading.enumerate() if t.name == "timekeeper"]:
            thread.join(REAL)

        assert threads() == []

    def test_twice_or_without_a_thread_is_harmless(self, scheduler: Scheduler) -> None:
        scheduler.close()
        scheduler.close()


class TestAnySchedule:
    @settings(max_examples=60)
    @given(
        st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["keep", "keep", "cancel"])), max_size=60),
        st.integers(0, 2**32),
    )
    def test_runs_each_action_that_was_not_cancelled_once_at_its_time_in_order(
        self, wishes: list[tuple[int, str]], seed: int
    ) -> None:
        clock, chance = FakeClock(), random.Random(seed)
        scheduler, diary = Scheduler(clock), Diary(clock)
        expected: list[tuple[float, int]] = []
        passed = 0.0
        scheduler.call_later(1000.0, lambda: None)  # there is a thread from the start
        for number, (quarters, then) in enumerate(wishes):
            timer = scheduler.call_later(
                quarters / 4,
                lambda number=number: diary.note(str(number)),  # type: ignore[misc]
            )
            if then == "cancel" and quarters > 0:  # one that is due at once may be running already
                timer.cancel()
            else:
                expected.append((passed + quarters / 4, number))
            if chance.random() < 0.2:
                clock.advance(0.25, waiters=1)
                passed += 0.25
        clock.advance(20.0, waiters=1)
        clock.block_until(1)
        scheduler.close()

        assert [(when, int(what)) for what, when in diary.lines] == sorted(expected)
