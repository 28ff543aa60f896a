"""One session on its way through a worker: a small state machine whose every step is one task."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from functools import partial

from queue_runtime.errors import QueueError
from queue_runtime.message import ReceivedMessage
from queue_runtime.provider import Abandon, Settlement
from queue_runtime.scheduler import Timer
from queue_runtime.session_client import SessionClient
from queue_runtime.worker.context import Context, Hold
from queue_runtime.worker.crash_mark import CrashMark
from queue_runtime.worker.finishing import not_settled, settle, settled
from queue_runtime.worker.verdict import GiveBack, GiveUp, RetryIn, Verdict

SLICE = 0.25
"""Longest wait in seconds of an idle session before it looks whether its place is wanted."""

NOT_SETTLED_DELAY = 5.0
"""Seconds before a message that could not be settled, say for want of a dead-letter queue, comes again."""


class _State(Enum):
    ARRIVED = "arrived"
    STEPPING = "stepping"
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SETTLING = "settling"
    ENDED = "ended"


class SessionRun:
    """arrived → stepping → queued → running → settling → stepping …, with waiting between two attempts at one
    message.

    Only the head is worked on; the next message follows the confirmed settlement of the one before. While
    a failed head waits for its next attempt no thread is held, the lease is kept, and the rest waits. After
    its turn the session is let go between two messages, if its place is wanted. One that has arrived while a
    handler that outlived its lease is still at the same session here waits for it, as long as a message may
    hold up its session; then it is given back for other processes. If it comes here again it waits as long
    as that handler has been at it: what is given back is counted by the broker.
    """

    def __init__(self, context: Context, session: SessionClient) -> None:
        self._context = context
        self._session = session
        self._mark = CrashMark(context, session)
        self._began = context.runtime.clock.monotonic()
        # written by one step after the other
        self._head: ReceivedMessage | None = None
        self._since = 0.0
        self._down = 0
        self._blamed = False
        self._refused: GiveUp | None = None
        self._done = 0
        self._lock = threading.Lock()
        # guarded by _lock
        self._state = _State.ARRIVED
        self._leaving = False
        self._retry: Timer | None = None
        self._retry_at = 0.0

    def start(self) -> None:
        with self._lock:
            if self._state is not _State.ARRIVED:
                return  # the worker stops, and gives it back: a renewal now would be of nothing
            self._session.keep_alive()
        go = partial(self._submit, self._step)
        stuck = self._context.in_hand.stand_behind(self, self._session.session_id, go)
        if stuck is not None or self._context.is_busy(self._session.session_id):
            with self._lock:
                if self._state is _State.ARRIVED:
                    patience = max(self._context.policy.max_hold, stuck or 0.0)
                    self._retry = self._context.later(self, patience, self._make_way)
        if stuck is None:
            go()

    def stop(self) -> None:
        with self._lock:
            self._leaving = True
            if self._state not in (_State.ARRIVED, _State.QUEUED, _State.WAITING):
                return  # it looks for itself before its next step
            self._state = _State.STEPPING
            if self._retry is not None:
                self._retry.cancel()
        self._context.submit(self, self._give_back)

    def _make_way(self) -> None:
        with self._lock:
            if self._state is not _State.ARRIVED:
                return
            self._leaving, self._state = True, _State.STEPPING
        self._context.in_hand.make_way(self)
        self._context.runtime.provider.wake(self._context.target)  # or our own poll might take it at once
        self._give_back()

    def abort(self) -> None:
        with self._lock:
            given_back = self._state is _State.ENDED
            self._retry_at = self._context.runtime.clock.monotonic() + NOT_SETTLED_DELAY
        if self._head is not None:
            self._context.history.tried(self._head.delivery.broker_id, self._head.attempt)
        if given_back:
            self._session.lease.lose("the worker failed on it")
            self._context.in_hand.end(self)
        else:
            self._give_back(graceful=False)

    def overdue(self) -> bool:
        self._session.lease.lose("the worker stopped before its handler did")
        self._context.runtime.leases.forget(self._session.lease)
        with self._lock:
            return self._state is _State.RUNNING

    def _submit(self, step: Callable[[], None]) -> None:
        self._context.submit(self, step, self._session.session_id)

    def _step(self) -> None:
        """Go on with the head, or with the next message if there is none; end if there is nothing to do."""
        with self._lock:
            if self._state not in (_State.ARRIVED, _State.STEPPING, _State.WAITING):
                return
            if self._state is _State.ARRIVED and self._retry is not None:
                self._retry.cancel()
            self._state = _State.STEPPING
        over = self._session.lease.lost or not self._context.in_hand.may_go_on(self)
        if over or self._is_leaving() or (self._head is None and self._turn_is_over()):
            self._give_back()
            return
        if self._head is None and (head := self._next()) is not None:
            self._head = head
            self._refused = self._mark.admit(head)
            self._since, self._down, self._blamed = self._context.runtime.clock.monotonic(), 0, False
        with self._lock:
            self._state = _State.QUEUED
        if self._head is None or self._session.lease.lost or self._is_leaving():
            self._give_back()
        elif (left := self._context.probe_waits(self)) > 0:
            self._wait_for_its_turn(left)
        elif self._context.in_hand.line_up(self, partial(self._submit, self._handle)):
            self._handle()

    def _wait_for_its_turn(self, seconds: float) -> None:
        """The message before this was given up, as the probe of a pause: this one is the next probe."""
        with self._lock:
            if self._state is _State.QUEUED:  # else it was stopped meanwhile
                self._state = _State.WAITING
                self._retry = self._context.later(self, seconds, self._step, self._session.session_id)

    def _turn_is_over(self) -> bool:
        """It has had its share, others want its place, and there is nothing here that would go back."""
        turn = self._context.turn
        lasted = self._context.runtime.clock.monotonic() - self._began
        if not self._done or (lasted < turn.longest and (turn.most is None or self._done < turn.most)):
            return False
        rest = not self._session.continues or self._session.has_unsettled()
        return not rest and self._context.in_hand.permit_wanted

    def _next(self) -> ReceivedMessage | None:
        """The session's next message; None if it stays idle, its place is wanted, or it is lost."""
        clock = self._context.runtime.clock
        deadline = clock.monotonic() + self._context.turn.idle
        try:
            # What is there is taken, however much its place is wanted.
            if found := self._session.next_messages(1, 0.0, cancelled=self._is_leaving):
                return found[0]
            while self._session.continues:
                left = deadline - clock.monotonic()
                wait = 0.0 if self._is_unwanted() else max(0.0, min(SLICE, left))
                if wait <= 0.0:
                    return None
                if found := self._session.next_messages(1, wait, cancelled=self._is_unwanted):
                    return found[0]
        except QueueError:
            pass  # lost, closed or unreachable: it is accepted again when the broker sees fit
        return None

    def _is_unwanted(self) -> bool:
        return self._leaving or self._context.in_hand.permit_wanted

    def _is_leaving(self) -> bool:
        return self._leaving  # set once, in one step: it is asked under the provider's locks

    def _handle(self) -> None:
        with self._lock:
            if self._state is not _State.QUEUED:
                return  # it was stopped in the line
            self._state = _State.RUNNING
        message = self._head
        if message is None or self._session.lease.lost or not self._context.in_hand.may_go_on(self):
            self._give_back()
            return
        started = self._context.runtime.clock.monotonic()
        if (again := self._context.settlement_again(message)) is not None:
            self._settle(message, again[0], started, again[1])
            return
        hold = Hold(since=self._since, in_place=True, down=self._down)
        decision = self._context.judge(self, message, hold, self._refused)
        if isinstance(decision, RetryIn | GiveBack) and not self._session.lease.lost:
            self._down = 0 if decision.counted else self._down + 1
            self._blamed = self._blamed or decision.counted
            self._wait_for_retry(decision)
        else:
            self._settle(message, self._context.settlement(message, decision), started, decision)

    def _wait_for_retry(self, decision: RetryIn | GiveBack) -> None:
        self._context.in_hand.count("retried")
        self._context.in_hand.leave(self)
        here = isinstance(decision, RetryIn)
        with self._lock:
            leaving = self._leaving or not here
            self._state = _State.WAITING
            self._retry_at = self._context.runtime.clock.monotonic() + decision.delay
            if not leaving:
                self._retry = self._context.later(self, decision.delay, self._step, self._session.session_id)
        if leaving:
            self._context.in_hand.retry_due(self._retry_at)
            self.stop()

    def _settle(
        self, message: ReceivedMessage, settlement: Settlement, started: float, decision: Verdict | None
    ) -> None:
        with self._lock:
            self._state = _State.SETTLING
        self._context.in_hand.leave(self)
        settle(
            self._context,
            self,
            message,
            settlement,
            self._session.settle_once,
            partial(self._settled, message, settlement, started, decision),
        )

    def _settled(
        self,
        message: ReceivedMessage,
        settlement: Settlement,
        started: float,
        decision: Verdict | None,
        error: QueueError | None,
    ) -> None:
        with self._lock:
            self._state = _State.STEPPING
        if error is None:
            settled(self._context, self, message, settlement, started, decision)
            self._head = None
            self._done += 1
            self._submit(self._step)
            return
        not_settled(self._context, self, message, error)
        with self._lock:
            self._retry_at = self._context.runtime.clock.monotonic() + NOT_SETTLED_DELAY
        self._context.in_hand.retry_due(max(self._retry_at, self._session.lease.deadline))
        self._give_back()

    def _give_back(self, *, graceful: bool = True) -> None:
        """Let the session go: a head that has failed with its backoff, the rest behind it at once. If that is
        not *graceful*, what was marked stays so."""
        with self._lock:
            if self._state is _State.ENDED:
                return
            self._state = _State.ENDED
            retry_at = self._retry_at
        head = self._head
        unsettled = self._session.has_unsettled()
        try:
            if graceful:
                self._mark.take_back()
            if head is not None and head.settled_as is None and not self._blamed:
                self._context.history.excuse(head.delivery.broker_id)
            if head is not None and head.settled_as is None and not self._session.lease.lost:
                unsettled = True
                given_back = self._abandon(head, retry_at)
                self._context.in_hand.retry_due(retry_at if given_back else self._session.lease.deadline)
            lost = self._session.lease.lost
            self._session.close()
            if unsettled and not lost:
                self._context.in_hand.count("released", of=self)
        finally:
            self._context.in_hand.end(self)

    def _abandon(self, head: ReceivedMessage, retry_at: float) -> bool:
        """Give *head* back with what is left of its backoff. False if the broker did not hear of it: it comes
        when the lease ends."""
        backoff = max(0.0, retry_at - self._context.runtime.clock.monotonic())
        with suppress(QueueError):
            return self._session.settle_once([head], [Abandon(head.delivery, backoff)])[0].ok
        return False
