"""One session on its way through a worker: a small state machine whose every step is one task."""

from __future__ import annotations

import threading
from contextlib import suppress
from enum import Enum

from queue_runtime.errors import QueueError
from queue_runtime.message import ReceivedMessage
from queue_runtime.provider import Abandon, Settlement
from queue_runtime.scheduler import Timer
from queue_runtime.session_client import SessionClient
from queue_runtime.worker.context import Context
from queue_runtime.worker.crash_mark import CrashMark
from queue_runtime.worker.verdict import GiveUp, RetryIn

SLICE = 0.25
"""Longest wait in seconds of an idle session before it looks whether its place is wanted."""

NOT_SETTLED_DELAY = 5.0
"""Seconds before a message that could not be settled, say for want of a dead-letter queue, comes again."""


class _State(Enum):
    STEPPING = "stepping"
    RUNNING = "running"
    WAITING = "waiting"
    SETTLING = "settling"
    ENDED = "ended"


class SessionRun:
    """stepping → running → settling → stepping …, with waiting between two attempts at one message.

    Only the head is worked on; the next message follows the confirmed settlement of the one before. While
    a failed head waits for its next attempt no thread is held, the lease is kept, and the rest waits. After
    its turn the session is let go between two messages, if its place is wanted.
    """

    def __init__(self, context: Context, session: SessionClient) -> None:
        self._context = context
        self._session = session
        self._mark = CrashMark(context, session)
        self._began = context.runtime.clock.monotonic()
        # written by one step after the other
        self._head: ReceivedMessage | None = None
        self._since = 0.0
        self._refused: GiveUp | None = None
        self._done = 0
        self._lock = threading.Lock()
        # guarded by _lock
        self._state = _State.STEPPING
        self._retry: Timer | None = None
        self._retry_at = 0.0

    def start(self) -> None:
        self._session.keep_alive()
        self._submit()

    def stop(self) -> None:
        with self._lock:
            if self._state is not _State.WAITING:
                return  # it looks for itself before its next step
            self._state = _State.STEPPING
            if self._retry is not None:
                self._retry.cancel()
        self._context.submit(self, self._give_back)

    def abort(self) -> None:
        with self._lock:
            given_back = self._state is _State.ENDED
            self._retry_at = self._context.runtime.clock.monotonic() + NOT_SETTLED_DELAY
        if self._head is not None:
            self._context.attempts.note(self._head.delivery.broker_id, self._head.attempt)
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

    def _submit(self) -> None:
        self._context.submit(self, self._step, self._session.session_id)

    def _step(self) -> None:
        """Go on with the head, or with the next message if there is none; end if there is nothing to do."""
        with self._lock:
            if self._state not in (_State.STEPPING, _State.WAITING):
                return
            self._state = _State.STEPPING
        if self._context.in_hand.stopping or (self._head is None and self._turn_is_over()):
            self._give_back()
            return
        if self._head is None and (head := self._next()) is not None:
            self._head = head
            self._refused = self._mark.admit(head)
            self._since = self._context.runtime.clock.monotonic()
        if self._head is None or self._session.lease.lost or self._context.in_hand.stopping:
            self._give_back()
            return
        self._handle(self._head)

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
            while True:
                left = deadline - clock.monotonic()
                wanted = self._context.in_hand.permit_wanted or self._context.in_hand.stopping
                wait = 0.0 if wanted else max(0.0, min(SLICE, left))
                found = self._session.next_messages(1, wait, cancelled=self._is_stopping)
                if found:
                    return found[0]
                if wait <= 0.0 or not self._session.continues:
                    return None
        except QueueError:
            return None  # lost, closed or unreachable: it is accepted again when the broker sees fit

    def _is_stopping(self) -> bool:
        return self._context.in_hand.stopping

    def _handle(self, message: ReceivedMessage) -> None:
        with self._lock:
            self._state = _State.RUNNING
        started = self._context.runtime.clock.monotonic()
        if self._refused is None:
            message.attempt = self._context.attempts.next_of(message.delivery.broker_id)
        decision = self._refused or self._context.judge(message, since=self._since)
        if isinstance(decision, RetryIn) and not self._session.lease.lost:
            self._wait_for_retry(message, decision.delay)
            return
        settlement = self._context.settlement(message, decision)
        with self._lock:
            self._state = _State.SETTLING
        self._context.settle(
            self,
            message,
            settlement,
            self._session.settle_once,
            lambda error: self._settled(message, settlement, started, error),
        )

    def _wait_for_retry(self, message: ReceivedMessage, delay: float) -> None:
        self._context.attempts.note(message.delivery.broker_id, message.attempt)
        self._context.in_hand.count("retried")
        with self._lock:
            self._state = _State.WAITING
            self._retry_at = self._context.runtime.clock.monotonic() + delay
            self._retry = self._context.later(self, delay, self._step, self._session.session_id)
        if self._context.in_hand.stopping:
            self.stop()  # it was asked while the handler ran, and did not see a retry to cancel

    def _settled(
        self, message: ReceivedMessage, settlement: Settlement, started: float, error: QueueError | None
    ) -> None:
        with self._lock:
            self._state = _State.STEPPING
        if error is None:
            self._context.attempts.forget(message.delivery.broker_id)
            self._context.settled(message, settlement, started)
            self._head = None
            self._done += 1
            self._submit()
            return
        self._context.not_settled(message, error)
        with self._lock:
            self._retry_at = self._context.runtime.clock.monotonic() + NOT_SETTLED_DELAY
        self._context.in_hand.retry_due(self._retry_at)
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
            if head is not None and head.settled_as is None and not self._session.lease.lost:
                unsettled = True
                backoff = max(0.0, retry_at - self._context.runtime.clock.monotonic())
                with suppress(QueueError):  # what the broker does not hear of comes when the lease ends
                    self._session.settle_once([head], [Abandon(head.delivery, backoff)])
            lost = self._session.lease.lost
            self._session.close()
            if unsettled and not lost:
                self._context.in_hand.count("released")
        finally:
            self._context.in_hand.end(self)
