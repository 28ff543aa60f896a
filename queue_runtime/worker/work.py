"""One run of a worker, from its start to its stop."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from queue_runtime.worker.context import Context
from queue_runtime.worker.fetcher import Fetcher
from queue_runtime.worker.in_hand import Tally
from queue_runtime.worker.report import NOTHING_TO_STOP, State, StopReport, WorkerStatus

log = logging.getLogger("queue_runtime")

LOOK = 0.2
"""Seconds between two looks at whether a signal has come: a signal handler must not take a lock."""


class Work:
    """Running until `stop`, which may be called by any number of threads: all are answered by one report."""

    def __init__(self, context: Context, fetcher: Fetcher) -> None:
        self.in_hand = context.in_hand
        self._context = context
        self._runtime = context.runtime
        self._fetcher = fetcher
        self._pid = os.getpid()
        self._forget_client: Callable[[], None] = lambda: None
        self._stop_lock = threading.Lock()
        self._stopped = threading.Event()
        # guarded by _stop_lock
        self._stopping = False
        # written once, before _stopped is set
        self._report: StopReport | None = None

    def start(self) -> None:
        log.info("worker on %r starts: concurrency %d", self._context.queue, self.in_hand.permits)
        self._forget_client = self._runtime.before_close(self.stop)
        self._fetcher.start()

    @property
    def state(self) -> State:
        if self._report is not None:
            return "stopped"
        if self._pid != os.getpid():
            return "forked"
        with self._stop_lock:
            return "stopping" if self._stopping else "running"

    def is_over(self) -> bool:
        """It is being stopped, or has ended because the client was closed. For a predicate of `in_hand`."""
        return not self.in_hand.has_fetcher()

    def stop(self, deadline: float, *, hurry: Callable[[], bool] | None = None) -> StopReport:
        """Stop in the order that `Worker.stop` tells.

        With *hurry* the process is about to end: so a poll that cannot be woken is waited for too, until the
        deadline, or until *hurry* is true, which ends the wait for handlers as well.
        """
        if self._pid != os.getpid():
            return NOTHING_TO_STOP  # it runs in the parent, whose locks are not ours
        with self._stop_lock:
            first, self._stopping = not self._stopping, True
        if first:
            self._report = self._stop(deadline, hurry)
            self._stopped.set()
        else:
            self._stopped.wait(deadline)
        return self._report or self._result(self.in_hand.tally(), overdue=0, unanswered=0)

    def status(self) -> WorkerStatus:
        if self._pid != os.getpid():
            return WorkerStatus(queue=self._context.queue, state="forked", concurrency=self.in_hand.permits)
        tally = self.in_hand.tally()
        return WorkerStatus(
            queue=self._context.queue,
            state=self.state,
            concurrency=self.in_hand.permits,
            handlers=len(self.in_hand.handler_threads()),
            held=len(self.in_hand.runs()),
            leases=len(self._runtime.leases),
            completed=tally.completed,
            retried=tally.retried,
            dead_lettered=tally.dead_lettered,
            lost=tally.lost,
            unknown=tally.unknown,
        )

    def _stop(self, deadline: float, hurry: Callable[[], bool] | None) -> StopReport:
        clock = self._runtime.clock
        end = clock.monotonic() + deadline
        before = self.in_hand.tally()
        # 1, 2: fetch no more, release what was not started.
        runs = self.in_hand.stop()
        handlers = len(self.in_hand.handler_threads())
        log.info("worker on %r stops: %d handlers have %g s", self._context.queue, handlers, deadline)
        self._runtime.provider.wake(self._context.target)  # or our own poll might take what is released now
        for run in runs:
            run.stop()
        self._runtime.stop_waiting(self._context.target)
        # 3: let handlers finish; their leases are kept, and their settlements are part of them.
        self._wait(self.in_hand.is_empty, end, hurry)
        # 4: past the deadline, nobody may believe that it still holds its message.
        still_running = [run.overdue() for run in self.in_hand.runs()]
        self._runtime.executor.give_up(self.in_hand.handler_threads())
        # A poll that can be woken has ended by now. One that cannot may outlive this, and its messages are
        # released when it ends; but not in a process that is gone by then.
        soon = min(end, clock.monotonic() + LOOK)
        ended = self._wait(lambda: not self.in_hand.has_fetcher(), soon, hurry)
        if hurry is not None and not ended:
            log.warning(
                "stopping: waiting up to %.0f s for the last poll of queue %r; a second signal ends the wait",
                max(0.0, end - clock.monotonic()),
                self._context.queue,
            )
            ended = self._wait(lambda: not self.in_hand.has_fetcher(), end, hurry)
        if ended:
            self._fetcher.thread.join()
        self._forget_client()
        self._runtime.executor.claim(-self.in_hand.permits)
        return self._result(before, overdue=sum(still_running), unanswered=still_running.count(False))

    def _wait(self, fact: Callable[[], bool], end: float, hurry: Callable[[], bool] | None) -> bool:
        """Wait for *fact* until the moment *end*, or until *hurry* is true; returns whether it is so."""
        while True:
            left = max(0.0, end - self._runtime.clock.monotonic())
            if self.in_hand.wait(fact, left if hurry is None else min(LOOK, left)):
                return True
            if left <= 0 or (hurry is not None and hurry()):
                return False

    def _result(self, before: Tally, *, overdue: int, unanswered: int) -> StopReport:
        now = self.in_hand.tally()
        stuck = self.in_hand.handler_threads()
        poll = [self._fetcher.thread.name] if self._fetcher.thread.is_alive() else []
        return StopReport(
            completed=now.completed,
            dead_lettered=now.dead_lettered,
            finished=now.completed + now.dead_lettered - before.completed - before.dead_lettered,
            released=now.released - before.released,
            overdue=overdue,
            unknown=now.unknown - before.unknown + unanswered,
            threads_left=(*stuck, *poll),
        )
