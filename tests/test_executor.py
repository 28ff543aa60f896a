"""The executor: order in a session, as much at once as there are threads, an end that comes."""

from __future__ import annotations

import gc
import logging
import random
import threading
import weakref
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor, Future, wait

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queue_runtime.errors import Closed, ConfigurationError, QueueError
from queue_runtime.executor import SessionExecutor
from queue_runtime.testing import FakeClock
from tests.fakes import REAL


class Stop:
    """A task that runs until it is told to end."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.end = threading.Event()

    def __call__(self) -> None:
        self.running.set()
        assert self.end.wait(REAL), "nobody ended the task"

    def wait_until_running(self) -> None:
        assert self.running.wait(REAL), "the task has not begun"


@pytest.fixture
def stop() -> Iterator[Stop]:
    made = Stop()
    yield made
    made.end.set()


@pytest.fixture
def executor(stop: Stop) -> Iterator[SessionExecutor]:
    made = SessionExecutor(4, name="crew")
    yield made
    stop.end.set()
    made.shutdown(deadline=REAL)
    assert crew() == []


def crew() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("crew"))


def nothing() -> None:
    return None


def until_idle(executor: SessionExecutor) -> None:
    """Return when a thread waits for work: a future is told before its thread is back."""
    given_up = threading.Event()
    for _ in range(int(REAL / 0.001)):
        if executor._idle:
            return
        given_up.wait(0.001)
    pytest.fail("no thread has become idle")


class TestAsAnyExecutor:
    def test_is_one_of_the_standard_library(self, executor: SessionExecutor) -> None:
        assert isinstance(executor, Executor)

    def test_a_result_comes_with_its_future(self, executor: SessionExecutor) -> None:
        assert executor.submit(pow, 2, 10).result(REAL) == 1024

    def test_keywords_are_passed_on_whatever_their_name(self, executor: SessionExecutor) -> None:
        def take(**keywords: int) -> dict[str, int]:
            return keywords

        future = executor.submit_in("a", take, fn=1, session_id=2, self=3)

        assert future.result(REAL) == {"fn": 1, "session_id": 2, "self": 3}

    @pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
    def test_whatever_a_task_raises_comes_with_its_future_and_the_thread_lives_on(
        self, error: type[BaseException]
    ) -> None:
        def fail() -> None:
            raise error("x")

        with SessionExecutor(1) as one:
            failed, after = one.submit_in("a", fail), one.submit_in("a", nothing)

            with pytest.raises(error, match="x"):
                failed.result(REAL)
            assert after.result(REAL) is None
            assert len(one.thread_names()) == 1

    def test_map_answers_in_the_order_of_its_arguments(self, executor: SessionExecutor) -> None:
        assert list(executor.map(pow, range(50), [2] * 50, timeout=REAL)) == [n * n for n in range(50)]

    def test_a_waiting_task_can_be_cancelled_and_a_running_one_cannot(
        self, executor: SessionExecutor, stop: Stop
    ) -> None:
        running = executor.submit_in("a", stop)
        stop.wait_until_running()
        waiting = executor.submit_in("a", pytest.fail)
        last = executor.submit_in("a", nothing)

        assert (running.cancel(), waiting.cancel()) == (False, True)
        stop.end.set()

        assert last.result(REAL) is None
        with pytest.raises(CancelledError):
            waiting.result(0)

    def test_the_with_block_waits_for_its_tasks(self) -> None:
        done: list[int] = []
        with SessionExecutor(2, name="crew") as made:
            for number in range(20):
                made.submit_in(number % 3, done.append, number)

        assert sorted(done) == list(range(20))
        assert crew() == []

    def test_a_callback_may_submit_the_next_task(self, executor: SessionExecutor) -> None:
        ended = threading.Event()
        first: Future[None] = executor.submit_in("a", nothing)
        first.add_done_callback(lambda _: executor.submit_in("a", ended.set))

        assert ended.wait(REAL)

    def test_a_callback_that_exits_does_not_take_a_thread_or_a_session_with_it(
        self, stop: Stop, caplog: pytest.LogCaptureFixture
    ) -> None:
        def leave(_: Future[None]) -> None:
            raise SystemExit("from a callback")

        with SessionExecutor(1, name="crew") as one:
            first = one.submit_in("a", stop)
            first.add_done_callback(leave)
            after = one.submit_in("a", nothing)
            with caplog.at_level(logging.CRITICAL, logger="queue_runtime"):
                stop.end.set()
                assert after.result(REAL) is None

        assert crew() == []
        assert "from a callback" in caplog.text

    def test_needs_a_thread_to_work_with(self) -> None:
        with pytest.raises(ConfigurationError, match="max_workers must be at least 1, it is 0"):
            SessionExecutor(0)

    def test_an_ended_task_leaves_nothing_behind(self, executor: SessionExecutor) -> None:
        class Big:
            pass

        def fail(_: Big) -> None:
            raise ValueError

        gc.disable()  # no cycle may be needed to let go of it
        try:
            used, failed = Big(), Big()
            gone = weakref.ref(used), weakref.ref(failed)
            assert executor.submit(id, used).result(REAL)
            assert isinstance(executor.submit(fail, failed).exception(REAL), ValueError)
            del used, failed
            executor.shutdown(deadline=REAL)

            assert [ref() for ref in gone] == [None, None]
        finally:
            gc.enable()


class TestSessions:
    def test_its_tasks_run_in_their_order_one_at_a_time(self, executor: SessionExecutor) -> None:
        order: list[int] = []
        inside = threading.Lock()

        def work(number: int) -> None:
            assert inside.acquire(blocking=False), "two tasks of a session at once"
            order.append(number)
            inside.release()

        tasks = [executor.submit_in("a", work, number) for number in range(300)]
        for task in tasks:
            task.result(REAL)

        assert order == list(range(300))

    def test_different_ones_run_at_the_same_time(self, executor: SessionExecutor) -> None:
        meet = threading.Barrier(4)

        tasks = [executor.submit_in(session, meet.wait, REAL) for session in range(4)]

        assert sorted(task.result(REAL) for task in tasks) == [0, 1, 2, 3]

    def test_plain_tasks_run_beside_each_other_and_beside_a_session(self, executor: SessionExecutor) -> None:
        meet = threading.Barrier(4)

        tasks = [executor.submit(meet.wait, REAL) for _ in range(3)] + [
            executor.submit_in("a", meet.wait, REAL)
        ]

        assert sorted(task.result(REAL) for task in tasks) == [0, 1, 2, 3]

    def test_a_busy_one_holds_no_other_up(self, executor: SessionExecutor, stop: Stop) -> None:
        executor.submit_in("busy", stop)
        behind = [executor.submit_in("busy", nothing) for _ in range(50)]

        assert executor.submit_in("free", nothing).result(REAL) is None
        assert not any(task.done() for task in behind)

    def test_a_long_one_does_not_keep_the_others_from_their_turn(self, stop: Stop) -> None:
        order: list[str] = []
        with SessionExecutor(1) as one:
            one.submit(stop)
            for number in range(3):
                one.submit_in("long", order.append, f"long{number}")
            one.submit_in("short", order.append, "short")
            stop.end.set()

        assert order == ["long0", "short", "long1", "long2"]

    def test_a_failed_task_does_not_stop_those_behind_it(self, executor: SessionExecutor) -> None:
        failed = executor.submit_in("a", int, "x")
        after = executor.submit_in("a", nothing)

        assert isinstance(failed.exception(REAL), ValueError)
        assert after.result(REAL) is None

    def test_a_task_may_submit_into_its_own_session_and_does_not_wait_for_it(
        self, executor: SessionExecutor
    ) -> None:
        order: list[str] = []
        second: list[Future[None]] = []

        def first() -> None:
            second.append(executor.submit_in("a", order.append, "second"))
            order.append("first")

        executor.submit_in("a", first).result(REAL)
        second[0].result(REAL)

        assert order == ["first", "second"]


class TestThreads:
    def test_are_started_as_they_are_needed_and_named(self, executor: SessionExecutor, stop: Stop) -> None:
        assert executor.thread_names() == []

        executor.submit(stop)
        stop.wait_until_running()
        assert executor.thread_names() == ["crew-1"]

        meet = threading.Barrier(2)
        for _ in range(2):
            executor.submit(meet.wait, REAL)
        assert len(executor.thread_names()) == 3

    def test_one_that_is_idle_is_used_again(self, executor: SessionExecutor) -> None:
        for _ in range(20):
            executor.submit(nothing).result(REAL)
            until_idle(executor)

        assert executor.thread_names() == ["crew-1"]

    def test_one_goes_on_with_the_session_of_its_last_task(self, executor: SessionExecutor) -> None:
        in_turn = [executor.submit_in("a", nothing) for _ in range(100)]

        wait(in_turn, timeout=REAL)

        assert executor.thread_names() == ["crew-1"]

    def test_are_never_more_than_max_workers(self) -> None:
        inside, most = [0], [0]
        lock = threading.Lock()

        def work() -> None:
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            with lock:
                inside[0] -= 1

        with SessionExecutor(3, name="crew") as made:
            for number in range(300):
                made.submit_in(number % 50, work) if number % 2 else made.submit(work)
            assert len(made.thread_names()) <= 3

        assert most[0] <= 3

    def test_do_not_hold_the_end_of_the_process(self, executor: SessionExecutor, stop: Stop) -> None:
        executor.submit(stop)
        stop.wait_until_running()

        assert [t.daemon for t in threading.enumerate() if t.name.startswith("crew")] == [True]

    def test_one_that_cannot_be_started_fails_its_submit_and_nothing_else(
        self, executor: SessionExecutor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                executor.submit_in("a", pytest.fail)

        assert executor.thread_names() == []
        assert executor.submit_in("a", nothing).result(REAL) is None

    def test_where_no_more_can_be_started_those_that_there_are_do_the_work(
        self, executor: SessionExecutor, stop: Stop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        executor.submit(stop)
        stop.wait_until_running()
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            later = executor.submit_in("a", nothing)
        stop.end.set()

        assert later.result(REAL) is None


class TestClaims:
    def test_are_granted_as_long_as_they_fit(self) -> None:
        made = SessionExecutor(10)

        made.claim(6)
        made.claim(4)
        with pytest.raises(ConfigurationError, match=r"1 handlers .* max_workers=10, of which 10 are taken"):
            made.claim(1)
        made.claim(-4)
        made.claim(3)


class TestShutdown:
    def test_takes_no_more_tasks(self, executor: SessionExecutor) -> None:
        executor.shutdown()

        with pytest.raises(Closed, match="shut down"):
            executor.submit(nothing)
        with pytest.raises(Closed, match="shut down"):
            executor.submit_in("a", nothing)

    def test_is_the_error_that_other_programs_know(self, executor: SessionExecutor) -> None:
        executor.shutdown()

        with pytest.raises(RuntimeError):  # what concurrent.futures promises of any executor
            executor.submit(nothing)
        with pytest.raises(QueueError):
            executor.map(nothing, [1])

    def test_runs_what_was_accepted_and_ends_every_thread(self) -> None:
        done: list[int] = []
        made = SessionExecutor(3, name="crew")
        for number in range(100):
            made.submit_in(number % 7, done.append, number)

        made.shutdown()

        assert len(done) == 100
        assert made.thread_names() == crew() == []

    def test_twice_is_harmless(self, executor: SessionExecutor) -> None:
        executor.submit(nothing)

        executor.shutdown()
        executor.shutdown()

    def test_returns_at_its_deadline_and_names_who_is_left(self, stop: Stop) -> None:
        clock = FakeClock()
        made = SessionExecutor(2, name="crew", clock=clock)
        made.submit(stop)
        stop.wait_until_running()
        ended = threading.Event()

        def shut() -> None:
            made.shutdown(deadline=5.0)
            ended.set()

        closer = threading.Thread(target=shut, daemon=True)
        closer.start()
        clock.block_until(1)
        clock.advance(4.5)
        assert not ended.is_set()
        clock.advance(0.5)
        closer.join(REAL)

        assert ended.is_set()
        assert made.thread_names() == ["crew-1"]
        stop.end.set()
        made.shutdown(deadline=REAL)
        assert crew() == []

    def test_without_waiting_returns_at_once_and_the_tasks_still_run(
        self, executor: SessionExecutor, stop: Stop
    ) -> None:
        executor.submit_in("a", stop)
        behind = executor.submit_in("a", nothing)

        executor.shutdown(wait=False)
        stop.end.set()

        assert behind.result(REAL) is None

    def test_can_cancel_all_that_has_not_begun(self, stop: Stop) -> None:
        made = SessionExecutor(1, name="crew")
        running = made.submit_in("a", stop)
        stop.wait_until_running()
        waiting = [
            made.submit_in("a", pytest.fail),
            made.submit_in("b", pytest.fail),
            made.submit_in("b", pytest.fail),
            made.submit(pytest.fail),
        ]

        made.shutdown(wait=False, cancel_futures=True)
        stop.end.set()
        made.shutdown()

        assert [task.cancelled() for task in waiting] == [True] * 4
        assert running.result(0) is None
        assert crew() == []

    def test_tells_those_who_wait_for_what_it_cancels(self, stop: Stop) -> None:
        made = SessionExecutor(1, name="crew")
        made.submit_in("a", stop)
        stop.wait_until_running()
        dropped = [made.submit_in("a", pytest.fail), made.submit(pytest.fail), made.submit(pytest.fail)]
        dropped[2].cancel()

        made.shutdown(wait=False, cancel_futures=True)

        assert wait(dropped, timeout=REAL).not_done == set()
        stop.end.set()
        made.shutdown()

    def test_does_not_wait_for_a_task_that_was_given_up(self, stop: Stop) -> None:
        made = SessionExecutor(2, name="crew")
        made.submit(stop)
        stop.wait_until_running()

        made.give_up(["crew-1"])
        made.shutdown()

        assert made.thread_names() == ["crew-1"]
        stop.end.set()
        for thread in threading.enumerate():
            if thread.name == "crew-1":
                thread.join(REAL)

    def test_does_not_wait_for_idle_threads_because_others_of_its_session_wait(self, stop: Stop) -> None:
        made = SessionExecutor(2, name="crew")
        made.submit_in("a", stop)
        stop.wait_until_running()
        made.submit(nothing).result(REAL)  # there is a second thread
        behind = made.submit_in("a", nothing)

        made.give_up(["crew-1"])
        made.shutdown()

        assert made.thread_names() == ["crew-1"]
        stop.end.set()
        behind.result(REAL)
        for thread in threading.enumerate():
            if thread.name == "crew-1":
                thread.join(REAL)
        assert crew() == []

    def test_waits_for_what_the_thread_of_such_a_task_does_after_it(self, stop: Stop) -> None:
        made = SessionExecutor(1, name="crew")
        stuck = made.submit(stop)
        stop.wait_until_running()
        made.give_up(["crew-1"])
        stop.end.set()
        stuck.result(REAL)
        until_idle(made)
        done: list[int] = []
        for number in range(100):
            made.submit(done.append, number)

        made.shutdown()

        assert len(done) == 100
        assert crew() == []

    def test_from_a_task_of_its_own_waits_for_the_others_only(self) -> None:
        made = SessionExecutor(2, name="crew")

        made.submit(made.shutdown).result(REAL)
        made.shutdown(deadline=REAL)

        assert crew() == []

    def test_wakes_all_threads_that_are_idle(self) -> None:
        made = SessionExecutor(8, name="crew")
        meet = threading.Barrier(8)
        for task in [made.submit(meet.wait, REAL) for _ in range(8)]:
            task.result(REAL)

        made.shutdown()

        assert crew() == []


SESSIONS = [None, "a", "b", "c"]
STEPS = st.lists(
    st.tuples(st.sampled_from(SESSIONS), st.sampled_from(["go", "go", "cancel it", "cancel an old one"])),
    max_size=60,
)


class TestAnyInterleaving:
    @settings(max_examples=150)
    @given(STEPS, st.integers(1, 4), st.booleans(), st.integers(0, 2**32))
    def test_keeps_the_order_of_each_session_and_runs_each_task_once_unless_it_was_cancelled(
        self,
        steps: list[tuple[str | None, str]],
        workers: int,
        from_two_threads: bool,
        seed: int,
    ) -> None:
        ran: defaultdict[str | None, list[int]] = defaultdict(list)
        inside: defaultdict[str | None, int] = defaultdict(int)
        overlaps: list[str | None] = []
        lock = threading.Lock()
        tasks: dict[int, tuple[str | None, Future[None]]] = {}
        chance = random.Random(seed)

        def work(session: str | None, number: int) -> None:
            with lock:
                inside[session] += 1
                if session is not None and inside[session] > 1:
                    overlaps.append(session)
                ran[session].append(number)
            with lock:
                inside[session] -= 1

        def act(chosen: list[tuple[int, tuple[str | None, str]]]) -> None:
            for number, (session, then) in chosen:
                if session is None:
                    task = made.submit(work, session, number)
                else:
                    task = made.submit_in(session, work, session, number)
                tasks[number] = session, task
                if then == "cancel it":
                    task.cancel()
                elif then == "cancel an old one":
                    tasks[chance.choice(list(tasks))][1].cancel()

        def kept(session: str | None) -> list[int]:
            mine = [(number, task) for number, (its, task) in sorted(tasks.items()) if its == session]
            return [number for number, task in mine if not task.cancelled()]

        numbered = list(enumerate(steps))
        with SessionExecutor(workers) as made:
            if from_two_threads:
                # Each session is one thread's, so that there is an order to keep.
                mine = [step for step in numbered if step[1][0] in ("a", None)]
                other = threading.Thread(target=act, args=([s for s in numbered if s not in mine],))
                other.start()
                act(mine)
                other.join(REAL)
            else:
                act(numbered)

        assert overlaps == []
        assert {s: ran[s] for s in SESSIONS[1:]} == {s: kept(s) for s in SESSIONS[1:]}
        assert sorted(ran[None]) == kept(None)
        assert all(task.done() for _, task in tasks.values())
