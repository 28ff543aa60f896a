"""One run of a worker, from its start to its stop."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress

from queue_runtime.clock import SystemClock, instant
from queue_runtime.worker.context import Context
from queue_runtime.worker.fetcher import Fetcher
from queue_runtime.worker.in_hand import Tally
from queue_runtime.worker.processing import Pause
from queue_runtime.worker.report import (
    NOTHING_TO_STOP,
    Paused,
    Reason,
    State,
    StopReport,
    WorkerHealth,
    WorkerStatus,
    stopped,
)

log = logging.getLogger("queue_runtime")

LOOK = 0.2
"""Seconds between two looks at whether a signal has come: a signal handler must not take a lock."""

GRACE = 1.0
"""Seconds by which a stop may be over its deadline, to end its last poll and to write its report."""

EXIT_DEADLINE = 25.0
"""Seconds that the handlers of all workers that nobody has stopped get at the end of the interpreter."""


class _AtExit:
    """The end of the interpreter, and the workers that run. (Each change of the list is one step.)"""

    def __init__(self) -> None:
        self._works: list[Work] = []
        self._end: float | None = None

    def add(self, work: Work) -> None:
        self._works.append(work)
        atexit.register(work.leave)

    def remove(self, work: Work) -> None:
        with suppress(ValueError):
            self._works.remove(work)
        atexit.unregister(work.leave)

    def left(self) -> float:
        """Seconds that handlers still get. With the first question no worker fetches any more: they are
        stopped one after the other, and share the time."""
        clock = SystemClock()
        if self._end is None:
            self._end = clock.monotonic() + EXIT_DEADLINE
            for work in list(self._works):
                work.fetch_no_more()
        return max(0.0, self._end - clock.monotonic())


_at_exit = _AtExit()


class Work:
    """Running until `stop`, which may be called by any number of threads: all are answered by one report."""

    def __init__(self, context: Context, fetcher: Fetcher, *, threads: int) -> None:
        self.in_hand = context.in_hand
        self._context = context
        self._runtime = context.runtime
        self._fetcher = fetcher
        self._threads = threads
        """Threads of the executor that were claimed for it."""
        self._pid = os.getpid()
        self._forget_client: Callable[[], None] = lambda: None
        self._stop_lock = threading.Lock()
        self._hurried = False  # written once, in one step
        # guarded by _stop_lock
        self._stopping = False
        # written once, in one step
        self._report: StopReport | None = None

    def start(self) -> None:
        log.info("worker on %r starts: concurrency %d", self._context.queue, self.in_hand.concurrency)
        self._fetcher.start()
        self._forget_client = self._runtime.before_close(self._close, mine=lambda: self.in_hand.is_mine)
        _at_exit.add(self)

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

    def has_ended(self) -> bool:
        """Nothing is fetched any more, because it was stopped or its client closed."""
        return self.in_hand.wait(self.is_over, 0.0)

    def lost_for(self) -> float:
        """Seconds for which the broker has answered nothing although it was asked."""
        since = self.in_hand.lost_since()
        return 0.0 if since is None else self._runtime.clock.monotonic() - since

    def stop(
        self,
        deadline: float,
        *,
        hurry: Callable[[], bool] | None = None,
        reason: Reason = "asked",
        why: str | None = None,
    ) -> StopReport:
        """Stop in the order that `Worker.stop` tells; *why* says more than *reason* to who reads the log.

        With *hurry* the process is about to end: so a poll that cannot be woken is waited for too, until the
        deadline, or until *hurry* is true, which ends the wait for handlers as well.
        """
        if self._pid != os.getpid():
            return NOTHING_TO_STOP  # it runs in the parent, whose locks are not ours
        with self._stop_lock:
            first, self._stopping = not self._stopping, True
        inside = self.in_hand.is_mine  # a handler that waits for the end of its own would wait in vain
        if first and inside:
            self._stop_behind(deadline, reason, why)
        elif first:
            self._finish(deadline, hurry, reason, why)
        elif not inside:
            self._join(deadline, hurry)
        return self._report or self._preliminary(reason)

    def status(self) -> WorkerStatus:
        queue, in_hand = self._context.queue, self.in_hand
        if self._pid != os.getpid():
            return WorkerStatus(queue=queue, state="forked", concurrency=in_hand.concurrency)
        tally = in_hand.tally()
        return WorkerStatus(
            queue=queue,
            state=self.state,
            concurrency=in_hand.concurrency,
            handlers=len(in_hand.handler_threads()),
            held=len(in_hand.runs()),
            prefetch=in_hand.prefetch,
            pollers=len(self._fetcher.threads()),
            ordering="best-effort" if self._context.capabilities.sessions == "none" else "sessions",
            paused=self._paused(),
            leases=len(self._runtime.leases),
            completed=tally.completed,
            retried=tally.retried,
            dead_lettered=tally.dead_lettered,
            dropped=tally.dropped,
            lost=tally.lost,
            unknown=tally.unknown,
        )

    def health(self) -> WorkerHealth:
        state, signs, paused = self.state, self.in_hand.signs(), self._paused()
        now = self._runtime.clock.monotonic()
        progress = max((at for at in (signs.answered_at, signs.settled_at) if at is not None), default=None)
        lives = state in ("running", "stopping")
        return WorkerHealth(
            queue=self._context.queue,
            state=state,
            alive=lives and (state == "stopping" or bool(self._fetcher.threads())),
            fetching=state == "running" and paused is None,
            last_progress=None if progress is None else now - progress,
            last_answer=None if signs.answered_at is None else now - signs.answered_at,
            lag=signs.lag,
            paused=None if paused is None else f"{paused.by}: {paused.why}",
        )

    def _paused(self) -> Paused | None:
        found = self.in_hand.not_fetching()
        if found is None:
            return None
        return Paused(
            by="handlers" if isinstance(found, Pause) else "provider",
            why=found.why,
            retry_at=instant(self._runtime.clock, found.retry_at),
        )

    def _stop_behind(self, deadline: float, reason: Reason, why: str | None) -> None:
        """On a thread of its own, which ends with the stop."""
        name = f"queue_runtime-stop-{self._context.queue}"
        asked = (deadline, None, reason, why)
        behind = threading.Thread(target=self._finish, args=asked, name=name, daemon=True)
        try:
            behind.start()
        except RuntimeError:  # no thread is to be had: nothing can be waited for
            self._finish(0.0, None, reason, why)

    def _close(self, deadline: float) -> None:
        """The client is closed: what this thread itself has in hand can be settled no more."""
        self.stop(deadline, reason="closed")
        if self.in_hand.is_mine:
            end = self._runtime.clock.monotonic() + deadline
            self._wait(lambda: self.in_hand.is_empty(but=1), end, None)

    def leave(self) -> None:
        """The interpreter ends, and nobody has stopped this: its threads would end where they are."""
        self.stop(_at_exit.left())

    def fetch_no_more(self) -> Future[None] | None:
        """Release what was not started. Returns what is done when the session dispatcher has done so too."""
        if self._pid != os.getpid():
            return None
        runs = self.in_hand.stop()
        self._runtime.provider.wake(self._context.target)  # or our own poll might take what is released now
        for run in runs:
            run.stop()
        return self._runtime.stop_waiting(self._context.target)

    def _finish(
        self, deadline: float, hurry: Callable[[], bool] | None, reason: Reason, why: str | None
    ) -> None:
        report = self._stop(deadline, hurry, reason)
        self._runtime.events(stopped(self._context.queue, report, why))
        self._report = report
        self.in_hand.look_again()

    def _join(self, deadline: float, hurry: Callable[[], bool] | None) -> None:
        """Wait for the end of a stop that somebody else has begun; *hurry* hurries that one too."""
        end = self._runtime.clock.monotonic() + deadline + GRACE
        while True:
            left = max(0.0, end - self._runtime.clock.monotonic())
            slice_ = left if hurry is None else min(LOOK, left)
            if self.in_hand.wait(lambda: self._report is not None, slice_) or left <= 0:
                return
            if hurry is not None and hurry():
                self._hurried = True
                self.in_hand.look_again()

    def _stop(self, deadline: float, hurry: Callable[[], bool] | None, reason: Reason) -> StopReport:
        clock = self._runtime.clock
        end = clock.monotonic() + deadline
        before = self.in_hand.tally()
        handlers = len(self.in_hand.handler_threads())
        log.info(
            "worker on %r stops: %g s for handlers, running: %d", self._context.queue, deadline, handlers
        )
        # 1, 2: fetch no more, release what was not started.
        releasing = self.fetch_no_more()
        if releasing is not None:
            releasing.add_done_callback(lambda _: self.in_hand.look_again())
        # 3: let handlers finish; their leases are kept, and their settlements are part of them.
        self._wait(lambda: self.in_hand.is_empty() and (releasing is None or releasing.done()), end, hurry)
        # 4: past the deadline, nobody may believe that it still holds its message.
        late, now = self.in_hand.cut()
        still_running = [run.overdue() for run in late]
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
            self._fetcher.join()
        self._forget_client()
        _at_exit.remove(self)
        self._runtime.executor.claim(-self._threads)
        return self._result(before, now, still_running, reason)

    def _wait(self, fact: Callable[[], bool], end: float, hurry: Callable[[], bool] | None) -> bool:
        """Wait for *fact* until the moment *end*, or until *hurry* is true; returns whether it is so."""
        while True:
            left = max(0.0, end - self._runtime.clock.monotonic())
            slice_ = left if hurry is None else min(LOOK, left)
            if self.in_hand.wait(lambda: fact() or self._hurried, slice_):
                return self.in_hand.wait(fact, 0.0)
            if left <= 0 or (hurry is not None and hurry()):
                return False

    def _result(self, before: Tally, now: Tally, still_running: Sequence[bool], reason: Reason) -> StopReport:
        stuck = self.in_hand.handler_threads()
        polls = sorted(thread.name for thread in self._fetcher.threads())
        return StopReport(
            completed=now.completed,
            dead_lettered=now.dead_lettered,
            dropped=now.dropped,
            finished=_finished(now) - _finished(before),
            released=now.released - before.released,
            overdue=still_running.count(True),
            unknown=now.unknown - before.unknown + still_running.count(False),
            threads_left=(*stuck, *polls),
            reason=reason,
        )

    def _preliminary(self, reason: Reason) -> StopReport:
        """What can be said while the stop goes on."""
        now = self.in_hand.tally()
        return StopReport(
            completed=now.completed,
            dead_lettered=now.dead_lettered,
            dropped=now.dropped,
            finished=0,
            released=0,
            overdue=0,
            unknown=0,
            threads_left=(),
            in_hand=len(self.in_hand.runs()),
            reason=reason,
        )


def _finished(tally: Tally) -> int:
    return tally.completed + tally.dead_lettered + tally.dropped
