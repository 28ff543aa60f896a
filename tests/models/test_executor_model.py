"""The executor against a list of its tasks: who may run now, who must, and what is left at its end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from queue_runtime.errors import ConfigurationError
from queue_runtime.executor import ExecutorClosed, SessionExecutor
from queue_runtime.testing import FakeClock
from tests.fakes import REAL
from tests.models.sizes import sized, unhurried
from tests.worker.hands import wait_until

pytestmark = unhurried

SESSIONS = st.sampled_from([None, "a", "a", "b", "c"])
"""None: a task of no session."""

ENDS = st.sampled_from(["returns", "raises", "exits"])


@dataclass(eq=False)
class Task:
    """One task, as the board knows it: it waits, runs and is over, or was cancelled before it ran."""

    board: Board
    number: int
    session: str | None
    ends: str
    quick: bool
    """It ends by itself; others when they are told to."""
    follows: bool
    """When it is over, another of its session is submitted, by whatever thread tells."""
    state: str = "waits"
    thread: str = ""
    told_to_end: threading.Event = field(default_factory=threading.Event)
    future: Future[int] | None = None

    def __call__(self) -> int:
        self.board.begins(self)
        if not self.quick and not self.told_to_end.wait(3 * REAL):
            self.board.wrong.append(f"nobody ended task {self.number}")
        self.board.is_over(self)
        if self.ends == "raises":
            raise ValueError("scripted")
        if self.ends == "exits":
            raise SystemExit
        return self.number


class Board:
    """What every task notes about itself, checked at each step against what may be."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.changed = threading.Condition(threading.RLock())
        # guarded by changed
        self.tasks: list[Task] = []
        self.given_up: set[str] = set()
        """Threads whose tasks are stuck: others are there in their stead."""
        self.wrong: list[str] = []

    def begins(self, task: Task) -> None:
        with self.changed:
            earlier = [t for t in self._of(task.session) if t.number < task.number] if task.session else []
            if task.state != "waits":
                self.wrong.append(f"task {task.number} begins, and was {task.state}")
            if behind := [t.number for t in earlier if t.state in ("waits", "runs")]:
                self.wrong.append(f"task {task.number} of {task.session} begins before {behind} are over")
            task.state, task.thread = "runs", threading.current_thread().name
            running = self.running()
            if len(self.counted()) > self.workers or len({t.thread for t in running}) < len(running):
                self.wrong.append(f"{[(t.number, t.thread) for t in running]} run at once")
            self.changed.notify_all()

    def is_over(self, task: Task) -> None:
        with self.changed:
            task.state = "over"
            self.given_up.discard(task.thread)
            self.changed.notify_all()

    def running(self) -> list[Task]:
        with self.changed:
            return [task for task in self.tasks if task.state == "runs"]

    def counted(self) -> list[Task]:
        """Those that run and were not given up."""
        with self.changed:
            return [task for task in self.running() if task.thread not in self.given_up]

    def startable(self) -> list[Task]:
        """Those that wait for nothing but a thread."""
        with self.changed:
            waiting = [task for task in self.tasks if task.state == "waits"]
            busy = {task.session for task in self.running()} - {None}
            return [task for task in waiting if task.session not in busy]

    def rests(self) -> bool:
        """All threads are busy with tasks that end when they are told to, or none waits for a thread."""
        running = self.running()
        moving = any(task.quick for task in running) or any(
            task.follows and task.state in ("over", "cancelled") for task in self.tasks
        )
        return not moving and (len(self.counted()) >= self.workers or not self.startable())

    def meet(self) -> None:
        """Return when it rests: nobody who could run is kept waiting."""
        with self.changed:
            if not self.changed.wait_for(self.rests, REAL):
                waiting = [(task.number, task.session) for task in self.startable()]
                raise AssertionError(f"{len(self.running())} run, and {waiting} are not begun")

    def _of(self, session: str | None) -> list[Task]:
        return [task for task in self.tasks if task.session == session]


class ExecutorModel(RuleBasedStateMachine):
    """Tasks are submitted, by one thread and by several, cancelled and ended; the executor is shut down."""

    crews = count(1)

    @initialize(workers=st.integers(1, 3))
    def start(self, workers: int) -> None:
        self.name = f"modelled-{next(self.crews)}"
        self.clock = FakeClock()
        self.board = Board(workers)
        self.executor = SessionExecutor(workers, name=self.name, clock=self.clock)
        self.claimed = 0
        self.shut = False
        self.once_given_up: set[str] = set()

    @precondition(lambda self: not self.shut)
    @rule(session=SESSIONS, ends=ENDS, quick=st.booleans(), follows=st.booleans())
    def submit(self, session: str | None, ends: str, quick: bool, follows: bool) -> None:
        self._submit(session, ends, quick=quick, follows=follows)
        self.board.meet()

    @precondition(lambda self: not self.shut)
    @rule(sessions=st.lists(SESSIONS, min_size=2, max_size=4), many=st.integers(1, 3), quick=st.booleans())
    def threads_submit_at_once(self, sessions: list[str | None], many: int, quick: bool) -> None:
        def submit(session: str | None) -> None:
            for _ in range(many):
                self._submit(session, "returns", quick=quick, follows=False)

        self._at_once([lambda session=session: submit(session) for session in sessions])  # type: ignore[misc]
        self.board.meet()

    @rule(which=st.integers(0, 2))
    def a_task_ends(self, which: int) -> None:
        for task in self._one_that_runs(which):
            self._end(task)

    @rule()
    def tasks_end_at_once(self) -> None:
        running = self.board.running()
        for task in running:
            task.told_to_end.set()
        for task in running:
            self._end(task)

    @rule(which=st.integers(0, 50), many=st.integers(1, 3))
    def cancel(self, which: int, many: int) -> None:
        tasks = self.board.tasks
        for task in tasks[which % max(1, len(tasks)) :][:many]:
            with self.board.changed:  # no task begins between the two
                waits = task.state == "waits"
                if waits:
                    task.state = "cancelled"
            assert task.future is not None
            assert task.future.cancel() == (waits or task.future.cancelled())
        self.board.meet()

    @precondition(lambda self: self.shut)
    @rule(session=SESSIONS)
    def nothing_more_is_taken(self, session: str | None) -> None:
        with pytest.raises(ExecutorClosed):
            self.executor.submit_in(session, pytest.fail)

    @rule(threads=st.integers(-2, 3))
    def claim(self, threads: int) -> None:
        threads = max(threads, -self.claimed)
        if self.claimed + threads > self.board.workers:
            with pytest.raises(ConfigurationError):
                self.executor.claim(threads)
        else:
            self.executor.claim(threads)
            self.claimed += threads

    @rule(cancel=st.booleans(), really=st.sampled_from([False, False, True]))
    def shut_down_without_waiting(self, cancel: bool, really: bool) -> None:
        if really:  # early ends leave little to look at
            self._shut_down(lambda: self.executor.shutdown(wait=False, cancel_futures=cancel), cancel)

    @rule(cancel=st.booleans(), seconds=st.sampled_from([1.0, 25.0]), given_up=st.sampled_from([0, 1, 3]))
    def shut_down_by_a_deadline(self, cancel: bool, seconds: float, given_up: int) -> None:
        """What runs is waited for until then, unless it was given up; some of it is, here."""
        for task in self.board.running()[:given_up]:
            self._give_up(task)
        stopping = threading.Thread(
            target=lambda: self.executor.shutdown(cancel_futures=cancel, deadline=seconds)
        )
        held_up = bool(self.board.counted())
        self._shut_down(stopping.start, cancel)
        if held_up:
            self.clock.block_until(1, timeout=REAL)
            assert stopping.is_alive()
            self.clock.advance(seconds)
        stopping.join(REAL)
        assert not stopping.is_alive(), "a shutdown lasts longer than it may"
        busy = {task.thread for task in self.board.running()}
        assert busy <= set(self.executor.thread_names()), "a thread is busy, and not named"

    @rule(which=st.integers(0, 2))
    def give_up(self, which: int) -> None:
        for task in self._one_that_runs(which):
            self._give_up(task)

    @invariant()
    def nothing_went_wrong(self) -> None:
        assert self.board.wrong == []

    @invariant()
    def there_are_no_more_threads_than_may_be(self) -> None:
        most = self.board.workers + len(self.board.given_up)
        wait_until(lambda: len(self.executor.thread_names()) <= most)  # one too many ends by itself

    def teardown(self) -> None:
        if not hasattr(self, "board"):
            return
        stopping = threading.Thread(target=self.executor.shutdown)
        self._shut_down(stopping.start, False)
        for _ in range(len(self.board.tasks) + 1):
            for task in self.board.running():
                self._end(task)
        stopping.join(REAL)
        assert not stopping.is_alive(), "all tasks are over, and the shutdown is not"
        for thread in threading.enumerate():
            if thread.name in self.once_given_up:  # nobody has waited for it
                thread.join(REAL)
        self._check_that_nothing_is_left()

    def _check_that_nothing_is_left(self) -> None:
        assert self.board.wrong == []
        assert self.executor.thread_names() == []
        assert [t.name for t in threading.enumerate() if t.name.startswith(self.name + "-")] == []
        assert not self.executor._ready
        assert not self.executor._lanes
        assert self.executor._idle == 0
        futures = {task.future: task for task in self.board.tasks if task.future is not None}
        unanswered = [futures[future].number for future in wait(futures, timeout=0).not_done]
        assert unanswered == []
        for future, task in futures.items():
            assert future.cancelled() == (task.state == "cancelled")

    def _submit(self, session: str | None, ends: str, *, quick: bool, follows: bool) -> None:
        """Submitted and noted in one step, so that the board knows the order."""
        with self.board.changed:
            task = Task(self.board, len(self.board.tasks), session, ends, quick, follows)
            self.board.tasks.append(task)
            try:
                if session is None:
                    task.future = self.executor.submit(task)
                else:
                    task.future = self.executor.submit_in(session, task)
            except ExecutorClosed:
                self.board.tasks.remove(task)
                assert self.shut
                return
            assert not self.shut
        if follows:
            task.future.add_done_callback(lambda _: self._follow(task))

    def _follow(self, task: Task) -> None:
        with self.board.changed:
            self._submit(task.session, "returns", quick=True, follows=False)
            task.follows = False
            self.board.changed.notify_all()

    def _one_that_runs(self, which: int) -> list[Task]:
        """None where none does. (What rules there are must not hang on it: threads are not that exact.)"""
        running = self.board.running()
        return [running[which % len(running)]] if running else []

    def _give_up(self, task: Task) -> None:
        with self.board.changed:  # no task begins between the two
            self.executor.give_up([task.thread])
            self.board.given_up.add(task.thread)
        self.once_given_up.add(task.thread)
        self.board.meet()

    def _end(self, task: Task) -> None:
        assert task.future is not None
        task.told_to_end.set()
        match task.ends:
            case "returns":
                assert task.future.result(REAL) == task.number
            case "raises":
                with pytest.raises(ValueError, match="scripted"):
                    task.future.result(REAL)
            case _:
                with pytest.raises(SystemExit):
                    task.future.result(REAL)
        self.board.meet()

    def _shut_down(self, begin: Callable[[], object], cancel: bool) -> None:
        with self.board.changed:
            self.shut = True
            if cancel:
                for task in self.board.tasks:
                    if task.state == "waits":
                        task.state = "cancelled"
        begin()
        if cancel:
            for task in self.board.tasks:
                if task.state == "cancelled" and task.future is not None:
                    with pytest.raises(CancelledError):
                        task.future.result(REAL)
        self.board.meet()

    def _at_once(self, acts: list[Callable[[], object]]) -> None:
        threads = [threading.Thread(target=act) for act in acts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(REAL)


TestExecutorModel = ExecutorModel.TestCase
TestExecutorModel.settings = sized(300, steps=20)
