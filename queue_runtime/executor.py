"""A `concurrent.futures` executor that runs one task of a session at a time, in order."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

from queue_runtime.clock import Clock, SystemClock
from queue_runtime.condition import Condition
from queue_runtime.errors import Closed, ConfigurationError

log = logging.getLogger("queue_runtime")

P = ParamSpec("P")
T = TypeVar("T")


class ExecutorClosed(Closed, RuntimeError):
    """The executor was shut down. A `RuntimeError` too, as other programs know it from any executor."""


class _Task:
    __slots__ = ("arguments", "function", "future", "lane")

    def __init__(
        self, function: Callable[..., Any], arguments: tuple[Any, dict[str, Any]], lane: Hashable | None
    ) -> None:
        self.future: Future[Any] = Future()
        self.function = function
        self.arguments = arguments
        self.lane = lane

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        args, kwargs = self.arguments
        try:
            result = self.function(*args, **kwargs)
        except BaseException as exc:  # it belongs to whoever waits for the future, SystemExit included
            future = self.future
            # The traceback holds this frame: what it need not show would stay for as long as the error.
            del self, args, kwargs
            future.set_exception(exc)
            del future
        else:
            self.future.set_result(result)

    def drop(self) -> None:
        """Cancel it, and tell those who wait for it: nobody will run it, so nobody else tells them."""
        self.future.cancel()
        self.future.set_running_or_notify_cancel()


class SessionExecutor(Executor):
    """At most *max_workers* named daemon threads, started as they are needed; those that were given up do not
    count, until they are free again.

    `submit` is as everywhere and promises no order; tasks given to `submit_in` with the same session id
    run one at a time in the order of their submission. Safe to share between threads; not to be used in a
    forked child. As a context manager it waits for its tasks, like any executor.
    """

    def __init__(
        self, max_workers: int, *, name: str = "queue_runtime-worker", clock: Clock | None = None
    ) -> None:
        if max_workers < 1:
            raise ConfigurationError(f"max_workers must be at least 1, it is {max_workers}")
        self.max_workers = max_workers
        self._name = name
        self._clock = clock or SystemClock()
        self._changed = Condition()
        # guarded by _changed
        self._ready: deque[_Task] = deque()
        # a session is here while a task of it is ready or runs
        self._lanes: dict[Hashable, deque[_Task]] = {}
        self._threads: set[threading.Thread] = set()
        self._given_up: set[str] = set()
        self._started = 0
        self._idle = 0
        self._claimed = 0
        self._shut = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return self._add(_Task(fn, (args, kwargs), None))

    def submit_in(
        self, session_id: Hashable, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Run *fn* after everything submitted earlier with the same *session_id* has ended."""
        return self._add(_Task(fn, (args, kwargs), session_id))

    def is_busy(self, session_id: Hashable) -> bool:
        """What is submitted with this *session_id* now has to wait for another task."""
        with self._changed:
            return session_id in self._lanes

    def claim(self, threads: int) -> None:
        """Set *threads* aside for somebody whose tasks must not wait for another's; `claim(-n)` returns them.

        Raises `ConfigurationError` if that many are not to be had.
        """
        with self._changed:
            if self._claimed + threads > self.max_workers:
                raise ConfigurationError(
                    f"{threads} handlers at once do not fit: the executor has max_workers="
                    f"{self.max_workers}, of which {self._claimed} are taken; raise the client's max_workers "
                    "or lower the concurrency of its workers"
                )
            self._claimed += threads

    def shutdown(
        self, wait: bool = True, *, cancel_futures: bool = False, deadline: float | None = None
    ) -> None:
        """Take no more tasks; with *wait*, return when the accepted ones have ended.

        *deadline* is the longest wait in seconds (None: no limit; the standard executors have none). Threads
        still busy then are named by `thread_names`; they are daemons and do not hold the interpreter's exit.
        Those that were given up are not waited for.
        """
        with self._changed:
            self._shut = True
            dropped = self._take_all() if cancel_futures else []
            threads = list(self._threads)
            self._changed.notify_all()
        for task in dropped:
            task.drop()
        if not wait:
            return
        me = threading.current_thread()
        with self._changed:
            self._clock.wait_for(self._changed, lambda: self._all_ended(but=me), deadline)
            ended = [thread for thread in threads if thread not in self._threads]
        for thread in ended:
            thread.join()

    def give_up(self, names: Iterable[str]) -> None:
        """The tasks of the threads with these names are stuck: `shutdown` does not wait for them, and others
        are started in their stead."""
        with self._changed:
            self._given_up.update({thread.name for thread in self._threads}.intersection(names))
            for _ in range(len(self._ready) - self._idle):
                if self._has_room():
                    self._start_thread()
            self._changed.notify_all()

    def runs_here(self) -> bool:
        """The calling thread is one of its own: it must not wait for another, for there may be none."""
        with self._changed:
            return threading.current_thread() in self._threads

    def thread_names(self) -> list[str]:
        """Names of the threads that have not ended."""
        with self._changed:
            return sorted(thread.name for thread in self._threads)

    def _add(self, task: _Task) -> Future[Any]:
        with self._changed:
            if self._shut:
                raise ExecutorClosed("cannot submit to an executor that was shut down")
            if task.lane is not None:
                waiting = self._lanes.get(task.lane)
                if waiting is not None:
                    waiting.append(task)
                    return task.future
            if self._idle <= len(self._ready) and self._has_room():
                self._start_thread()
            # First, for a signal handler may raise in it: no task may be ready and nobody know of it, and no
            # session wait for a task that is not there.
            self._changed.notify()
            if task.lane is not None:
                self._lanes[task.lane] = deque()
            self._ready.append(task)
        return task.future

    def _run(self) -> None:
        lane: Hashable | None = None
        while (task := self._next(lane)) is not None:
            try:
                task.run()
            except BaseException:  # a callback of its future exits: the thread and its session must live on
                log.critical("a callback of %r ended badly", task.future, exc_info=True)
            lane = task.lane
            del task  # an idle thread must not keep the last task's arguments alive

    def _next(self, lane: Hashable | None) -> _Task | None:
        """The next task for this thread, which has run one of *lane*; None: it is to end."""
        me = threading.current_thread()
        with self._changed:
            if lane is not None:
                self._next_of_lane(lane)
            if me.name in self._given_up:  # it was the task that was given up, and it has ended
                surplus = not self._has_room()
                self._given_up.discard(me.name)
                if surplus:
                    self._end(me)
                    return None
            self._idle += 1
            # Once shut, nothing becomes ready but by a thread that has run a task, and runs the next.
            self._changed.wait_for(lambda: bool(self._ready) or self._shut)
            self._idle -= 1
            if self._ready:
                return self._ready.popleft()
            self._end(me)
            return None

    # Requires _changed to be held.

    def _all_ended(self, *, but: threading.Thread) -> bool:
        return all(thread is but or thread.name in self._given_up for thread in self._threads)

    def _has_room(self) -> bool:
        return len(self._threads) - len(self._given_up) < self.max_workers

    def _end(self, me: threading.Thread) -> None:
        """This thread ends; what its last task has made ready is for another."""
        self._threads.discard(me)
        self._changed.notify_all()

    def _start_thread(self) -> None:
        """Raises what the system says if there can be no more threads and there is none yet."""
        thread = threading.Thread(target=self._run, name=f"{self._name}-{self._started + 1}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._threads:
                raise
            return  # those that there are do the work
        self._started += 1
        self._threads.add(thread)

    def _next_of_lane(self, lane: Hashable) -> None:
        """A task of *lane* has ended on this thread, which takes the next that is ready."""
        waiting = self._lanes[lane]
        if waiting:
            self._ready.append(waiting.popleft())
        else:
            del self._lanes[lane]

    def _take_all(self) -> list[_Task]:
        """Every task that has not begun."""
        taken = [*self._ready, *(task for waiting in self._lanes.values() for task in waiting)]
        for task in self._ready:
            if task.lane is not None:
                del self._lanes[task.lane]
        self._ready.clear()
        for waiting in self._lanes.values():
            waiting.clear()
        return taken
