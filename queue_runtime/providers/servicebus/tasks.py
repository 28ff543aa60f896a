"""Threads for what takes many round trips and need not be waited for: opening and closing links."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from queue_runtime.clock import Clock
from queue_runtime.condition import Condition

log = logging.getLogger("queue_runtime.servicebus")

IDLE = 30.0
"""Seconds after which a thread without work ends."""


class Tasks:
    """Runs tasks beside each other on at most *most* named daemon threads, started when they are needed.

    A task says itself what went wrong in it; what it does not say is logged. `close` waits for the tasks
    under way, and has those that wait in line run before it.
    """

    def __init__(self, name: str, most: int, clock: Clock) -> None:
        self._name = name
        self._most = most
        self._clock = clock
        self._changed = Condition()
        # guarded by _changed
        self._waiting: deque[Callable[[], object]] = deque()
        self._idle = 0
        self._threads: set[threading.Thread] = set()
        self._started = 0
        self._closed = False

    def submit(self, task: Callable[[], object]) -> bool:
        """Run *task* soon; False after `close`: it is not run."""
        with self._changed:
            if self._closed:
                return False
            self._waiting.append(task)
            if self._idle < len(self._waiting) and len(self._threads) < self._most:
                self._started += 1
                thread = threading.Thread(
                    target=self._work, name=f"queue_runtime-{self._name}-{self._started}", daemon=True
                )
                self._threads.add(thread)
                thread.start()
            self._changed.notify()
            return True

    def together(self, tasks: Sequence[Callable[[], object]]) -> None:
        """Run *tasks* beside each other, one of them in the caller's thread; returns when all have ended."""
        done = Condition()
        left = len(tasks)

        def run(task: Callable[[], object]) -> None:
            nonlocal left
            try:
                task()
            finally:
                with done:
                    left -= 1
                    done.notify_all()

        for task in tasks[1:]:
            if not self.submit(partial(run, task)):
                run(task)
        for task in tasks[:1]:
            run(task)
        with done:
            self._clock.wait_for(done, lambda: not left)

    def close(self, timeout: float) -> None:
        """End the threads, after what is submitted; one that takes longer than *timeout* ends by itself."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._clock.wait_for(self._changed, lambda: not self._threads, timeout)

    def _work(self) -> None:
        while (task := self._next()) is not None:
            try:
                task()
            except Exception:  # the thread has other tasks to do
                log.exception("servicebus.task_failed")

    def _next(self) -> Callable[[], object] | None:
        with self._changed:
            self._idle += 1
            self._clock.wait_for(self._changed, lambda: bool(self._waiting) or self._closed, IDLE)
            self._idle -= 1
            if self._waiting:
                return self._waiting.popleft()
            self._threads.discard(threading.current_thread())
            self._changed.notify_all()
            return None
