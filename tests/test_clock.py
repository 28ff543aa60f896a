"""The system's clock keeps `Clock`, and the fake one moves threads without a sleep and without a flake."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from queue_runtime.clock import Clock, SystemClock, sleep
from queue_runtime.testing import FakeClock

REAL = 10.0
"""Real seconds after which a thread is given up; no test takes them."""


class Team:
    """Threads of a test; each is joined, and what one raised is raised again."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []

    def start(self, work: Callable[[], object], name: str | None = None) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as exc:  # the test's own thread raises it again
                self.errors.append(exc)

        thread = threading.Thread(target=run, name=name, daemon=True)
        self.threads.append(thread)
        thread.start()
        return thread

    def join(self) -> None:
        for thread in self.threads:
            thread.join(REAL)
            assert not thread.is_alive(), f"{thread.name} is still running"
        if self.errors:
            raise self.errors[0]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def team() -> Iterator[Team]:
    members = Team()
    yield members
    members.join()


def patient(clock: Clock, seconds: float | None, done: Callable[[], bool] = lambda: False) -> bool:
    condition = threading.Condition()
    with condition:
        return clock.wait_for(condition, done, seconds)


@pytest.mark.parametrize("any_clock", [SystemClock(), FakeClock()], ids=["system", "fake"])
class TestAnyClock:
    def test_a_predicate_that_holds_ends_the_wait_before_it_began(self, any_clock: Clock) -> None:
        assert patient(any_clock, None, lambda: True) is True

    @pytest.mark.parametrize("timeout", [0.0, -1.0])
    def test_no_time_is_no_wait(self, any_clock: Clock, timeout: float) -> None:
        assert patient(any_clock, timeout) is False

    def test_a_notified_wait_ends_when_its_predicate_holds(self, any_clock: Clock, team: Team) -> None:
        condition = threading.Condition()
        facts: list[str] = []
        answers: list[bool] = []

        def wait() -> None:
            with condition:
                answers.append(any_clock.wait_for(condition, lambda: len(facts) == 2, REAL))

        team.start(wait)
        for fact in ("first", "second"):
            with condition:
                facts.append(fact)
                condition.notify_all()
        team.join()

        assert answers == [True]

    def test_the_wall_clock_is_aware_and_in_utc(self, any_clock: Clock) -> None:
        assert any_clock.now().utcoffset() == timedelta(0)


def test_real_time_passes_by_itself() -> None:
    clock = SystemClock()
    before = clock.monotonic()

    sleep(clock, 0.02)

    assert 0.02 <= clock.monotonic() - before < REAL


def test_fake_time_stands_still_until_it_is_moved(clock: FakeClock) -> None:
    before, wall = clock.monotonic(), clock.now()

    clock.advance(90.5)

    assert clock.monotonic() - before == 90.5
    assert clock.now() - wall == timedelta(seconds=90.5)


def test_it_starts_when_it_is_told() -> None:
    start = datetime(2030, 6, 1, 12, tzinfo=UTC)

    assert FakeClock(start).now() == start


def test_time_does_not_go_back(clock: FakeClock) -> None:
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1.0)


def test_a_wait_ends_at_its_deadline_and_not_before(clock: FakeClock, team: Team) -> None:
    ended: list[float] = []
    started = clock.monotonic()

    def wait() -> None:
        sleep(clock, 30.0)
        ended.append(clock.monotonic())

    team.start(wait)
    clock.block_until(1)

    clock.advance(29.9)
    clock.block_until(1)
    assert ended == []

    clock.advance(0.1)
    team.join()
    assert ended == [started + 30.0]


def test_time_stops_at_each_deadline_on_the_way(clock: FakeClock, team: Team) -> None:
    started = clock.monotonic()
    seen: dict[int, float] = {}
    met = threading.Condition()

    def wait(seconds: int) -> None:
        with met:
            clock.wait_for(met, lambda: False, float(seconds))
            seen[seconds] = clock.monotonic() - started  # still holding: nothing can go on before this

    for seconds in (30, 10, 20):
        team.start(partial(wait, seconds))
    clock.block_until(waiters=3)

    clock.advance(60.0)
    team.join()

    assert sorted(seen) == [10, 20, 30]
    assert seen[10] <= seen[20] <= seen[30]
    assert clock.monotonic() - started == 60.0


def test_with_waiters_each_step_of_a_periodic_thread_is_met(clock: FakeClock, team: Team) -> None:
    started = clock.monotonic()
    ticks: list[float] = []

    def tick() -> None:
        for _ in range(6):
            sleep(clock, 5.0)
            ticks.append(clock.monotonic() - started)
        sleep(clock, 1000.0)

    team.start(tick)

    clock.advance(32.0, waiters=1)
    clock.block_until(1)

    assert ticks == [5.0, 10.0, 15.0, 20.0, 25.0, 30.0]
    clock.advance(1000.0)


def test_threads_that_share_a_condition_are_told_apart(clock: FakeClock, team: Team) -> None:
    shared = threading.Condition()
    ready: set[int] = set()
    answers: dict[int, bool] = {}

    def wait(number: int, timeout: float | None) -> None:
        with shared:
            answers[number] = clock.wait_for(shared, lambda: number in ready, timeout)

    for number, timeout in enumerate((10.0, 20.0, None)):
        team.start(partial(wait, number, timeout))
    clock.block_until(3)

    clock.advance(10.0)
    clock.block_until(2)
    assert answers == {0: False}

    with shared:
        ready.update((1, 2))
        shared.notify_all()
    team.join()
    assert answers == {0: False, 1: True, 2: True}


def test_a_thread_whose_predicate_came_true_is_not_parked(clock: FakeClock, team: Team) -> None:
    condition = threading.Condition()
    facts: list[str] = []

    def wait() -> None:
        with condition:
            clock.wait_for(condition, lambda: bool(facts), None)

    team.start(wait)
    clock.block_until(1)
    with condition:
        facts.append("true, and not notified")

    with pytest.raises(AssertionError, match="parked threads: 0, not 1"):
        clock.block_until(1, timeout=0.05)

    with condition:
        condition.notify_all()


def test_a_thread_on_its_way_out_is_not_parked(clock: FakeClock, team: Team) -> None:
    condition = threading.Condition()
    team.start(lambda: sleep(clock, 5.0))
    clock.block_until(1)
    clock.advance(5.0)

    with pytest.raises(AssertionError, match="waiting: nobody"):
        clock.block_until(1, timeout=0.05)
    assert condition.acquire(timeout=REAL)
    condition.release()


def test_the_error_lists_who_waits_for_what(clock: FakeClock, team: Team) -> None:
    condition = threading.Condition()
    over: list[bool] = []

    def has_ended() -> bool:
        return bool(over)

    def wait() -> None:
        with condition:
            clock.wait_for(condition, has_ended, 30.0)

    team.start(wait, name="poller-1")
    clock.block_until(1)

    with pytest.raises(
        AssertionError, match=r"threads: 1, not 2, .* poller-1 waits for \S*has_ended for 30 s"
    ):
        clock.block_until(2, timeout=0.05)
    assert repr(clock) == "<FakeClock [0 s after its start | 1 waiting]>"

    clock.advance(30.0)


def test_threads_may_be_asked_after_by_themselves(clock: FakeClock, team: Team) -> None:
    go_on = threading.Event()
    parked = team.start(lambda: sleep(clock, 5.0))
    busy = team.start(lambda: go_on.wait(REAL))
    clock.block_until(1)

    assert clock.is_parked(parked)
    assert not clock.is_parked(parked, busy)

    go_on.set()
    clock.advance(5.0)


def test_the_next_deadline_is_the_first_that_somebody_waits_for(clock: FakeClock, team: Team) -> None:
    assert clock.next_deadline() is None
    team.start(lambda: sleep(clock, 9.0))
    team.start(lambda: sleep(clock, 4.0))
    clock.block_until(2)

    assert clock.next_deadline() == clock.monotonic() + 4.0

    clock.advance(9.0)


def test_a_woken_thread_that_cannot_leave_is_an_error_not_a_hang(
    clock: FakeClock, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queue_runtime.testing.clock.PATIENCE", 0.05)
    condition = threading.Condition()

    def wait() -> None:
        with condition:
            clock.wait_for(condition, lambda: False, 1.0)

    team.start(wait, name="stuck")
    clock.block_until(1)

    with condition, pytest.raises(AssertionError, match=r"not gone after 0\.05 s; waiting: stuck"):
        clock.advance(1.0)


def test_a_condition_held_twice_is_let_go_for_the_wait(clock: FakeClock, team: Team) -> None:
    condition = threading.Condition()
    ended: list[bool] = []

    def wait() -> None:
        with condition, condition:
            ended.append(clock.wait_for(condition, lambda: False, 5.0))

    team.start(wait)
    clock.block_until(1)

    clock.advance(5.0)
    team.join()

    assert ended == [False]


def test_a_thread_may_hold_one_condition_and_wait_on_another(clock: FakeClock, team: Team) -> None:
    outer, inner = threading.Condition(), threading.Condition()
    holds_both = threading.Event()
    ended: list[str] = []

    def nested() -> None:
        with outer, inner:
            holds_both.set()
            clock.wait_for(inner, lambda: False, 5.0)
            ended.append("nested")

    def plain() -> None:
        with outer:
            clock.wait_for(outer, lambda: False, 5.0)
            ended.append("plain")

    team.start(plain)
    clock.block_until(1)
    team.start(nested)
    assert holds_both.wait(REAL)
    clock.block_until(1)  # the nested one: nobody can look at the other while its condition is held

    clock.advance(5.0)
    team.join()

    assert sorted(ended) == ["nested", "plain"]


def test_a_woken_thread_may_advance_time_itself(clock: FakeClock, team: Team) -> None:
    started = clock.monotonic()

    def wait_and_advance() -> None:
        sleep(clock, 5.0)
        clock.advance(7.0)

    team.start(wait_and_advance)
    clock.block_until(1)

    clock.advance(10.0)
    team.join()

    assert clock.monotonic() - started == 17.0


def test_what_a_predicate_raises_ends_its_wait(clock: FakeClock) -> None:
    def broken() -> bool:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        patient(clock, 5.0, broken)
    assert repr(clock) == "<FakeClock [0 s after its start | 0 waiting]>"


@pytest.mark.parametrize("run", range(10))
def test_a_ball_that_goes_round_is_met_at_every_pass(clock: FakeClock, team: Team, run: int) -> None:
    """Between two passes all wait, and one has something to do: counting waits would not be enough."""
    condition = threading.Condition()
    players, passes = 8, 100
    passed = [0]

    def play(number: int) -> None:
        while True:
            with condition:
                clock.wait_for(condition, lambda: passed[0] % players == number or passed[0] == passes)
                if passed[0] == passes:
                    return
            sleep(clock, 1.0)
            with condition:
                passed[0] += 1
                condition.notify_all()

    for number in range(players):
        team.start(partial(play, number))

    for done in range(passes):
        clock.block_until(waiters=players)
        assert passed == [done]
        clock.advance(1.0)
    team.join()

    assert passed == [passes]


@pytest.mark.parametrize("run", range(10))
def test_many_threads_on_few_conditions_end_each_at_its_time(clock: FakeClock, team: Team, run: int) -> None:
    started = clock.monotonic()
    conditions = [threading.Condition() for _ in range(4)]
    ended: dict[int, tuple[bool, float]] = {}

    def wait(number: int) -> None:
        condition = conditions[number % 4]
        with condition:
            answer = clock.wait_for(condition, lambda: False, 1.0 + number % 7)
            ended[number] = (answer, clock.monotonic() - started)

    for number in range(40):
        team.start(partial(wait, number))
    clock.block_until(waiters=40)

    for second in range(1, 8):
        clock.advance(1.0)
        clock.block_until(waiters=sum(1.0 + number % 7 > second for number in range(40)))
    team.join()

    assert ended == {number: (False, 1.0 + number % 7) for number in range(40)}
