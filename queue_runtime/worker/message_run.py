"""One message outside sessions on its way through a worker."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from functools import partial

from queue_runtime.errors import Outcome, QueueError
from queue_runtime.message import ReceivedMessage
from queue_runtime.provider import Abandon, Settlement
from queue_runtime.scheduler import Timer
from queue_runtime.settling import settle_once
from queue_runtime.worker.context import Context, Hold
from queue_runtime.worker.finishing import not_settled, settle, settled
from queue_runtime.worker.verdict import GiveBack, RetryIn, Verdict

HELD_DELAY = 10.0
"""Longest delay in seconds for which a failed message is held here, where its broker would have to make a
copy of it (`Capabilities.copied_delays`)."""


class _State(Enum):
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SETTLING = "settling"
    ENDED = "ended"


class MessageRun:
    """queued → running → settling → ended; a stop takes it from queued to ended.

    A failed message goes back to its broker with its backoff. There is waiting instead, between two attempts,
    for one that is not to blame, for the probe of a pause, and for a short while where the broker has no
    delay for a message in hand: lease and permit are kept, no thread is held, and a stop gives it back at
    once.
    """

    def __init__(self, context: Context, message: ReceivedMessage) -> None:
        self._context = context
        self._message = message
        # written by one step after the other
        self._since: float | None = None
        self._down = 0
        self._blamed = False
        self._lock = threading.Lock()
        # guarded by _lock
        self._state = _State.QUEUED
        self._leaving = False
        self._retry: Timer | None = None

    def start(self) -> None:
        """Keep the lease alive and stand in line; behind the others of its session, where it has one."""
        with self._lock:
            if self._state is not _State.QUEUED:
                return  # the worker stops, and has given it back: a renewal now would hide it again
            self._context.runtime.keep_alive(self._message)
        self._line_up()

    def stop(self) -> None:
        with self._lock:
            self._leaving = True
            if self._state not in (_State.QUEUED, _State.WAITING):
                return
            self._state = _State.ENDED
            if self._retry is not None:
                self._retry.cancel()
        self._context.submit(self, self._release)

    def abort(self) -> None:
        self._message.lease.lose("the worker failed on it")
        self._end()

    def overdue(self) -> bool:
        self._message.lease.lose("the worker stopped before its handler did")
        self._context.runtime.leases.forget(self._message.lease)
        with self._lock:
            return self._state is _State.RUNNING

    def _line_up(self) -> None:
        go = partial(self._context.submit, self, self._handle)
        if self._context.in_hand.line_up(self, go, self._message.session_id):
            go()

    def _handle(self) -> None:
        with self._lock:
            if self._state not in (_State.QUEUED, _State.WAITING):
                return
            self._state = _State.RUNNING
        message = self._message
        if message.lease.lost:
            self._excuse()
            self._context.in_hand.retry_due(message.lease.deadline)
            self._end()  # the renewer has told; it comes again, here or elsewhere
            return
        if not self._context.in_hand.may_go_on(self):
            self._release()
            return
        started = self._context.runtime.clock.monotonic()
        if (again := self._context.settlement_again(message)) is not None:
            self._settle(again[0], started, again[1])
            return
        if self._since is None:
            self._since = started
        decision = self._context.judge(
            self, message, Hold(since=self._since, in_place=False, down=self._down)
        )
        if isinstance(decision, RetryIn | GiveBack):
            self._down = 0 if decision.counted else self._down + 1
            self._blamed = self._blamed or decision.counted
        if isinstance(decision, RetryIn) and self._waits_here(decision):
            self._wait_for_retry(decision.delay)
        else:
            self._settle(self._context.settlement(message, decision), started, decision)

    def _waits_here(self, decision: RetryIn) -> bool:
        if self._message.settled_as is not None or self._message.lease.lost:
            return False  # it may be another's by now
        if self._context.capabilities.copied_delays and decision.delay <= HELD_DELAY:
            return True  # also when it is to go: without a delay, which would cost a copy
        with self._lock:
            leaving = self._leaving
        is_probe = self._context.in_hand.probe_due(self) is not None
        return not leaving and (is_probe or not decision.counted)

    def _wait_for_retry(self, delay: float) -> None:
        self._context.in_hand.count("retried")
        self._context.in_hand.leave(self, lane=True)  # before it may stand in line anew
        with self._lock:
            self._state = _State.WAITING
            leaving = self._leaving
            self._retry = self._context.later(self, delay, self._line_up)
        if leaving:
            self.stop()  # it was asked while the handler ran, and did not see a retry to cancel

    def _settle(self, settlement: Settlement, started: float, decision: Verdict | None) -> None:
        with self._lock:
            self._state = _State.SETTLING
        self._context.in_hand.leave(self)
        if isinstance(settlement, Abandon):
            self._context.in_hand.retry_due(self._context.runtime.clock.monotonic() + settlement.delay)
            self._excuse()
        settle(
            self._context,
            self,
            self._message,
            settlement,
            self._call,
            partial(self._settled, settlement, started, decision),
        )

    def _settled(
        self, settlement: Settlement, started: float, decision: Verdict | None, error: QueueError | None
    ) -> None:
        if error is None:
            settled(self._context, self, self._message, settlement, started, decision)
        else:
            not_settled(self._context, self, self._message, error)
            self._context.in_hand.retry_due(self._message.lease.deadline)
        self._end()

    def _release(self) -> None:
        self._excuse()
        with suppress(QueueError):  # what the broker does not hear of comes back when its lease ends
            outcome = self._call([self._message], [Abandon(self._message.delivery)])[0]
            if outcome.ok:
                self._context.in_hand.count("released", of=self)
        self._end()

    def _excuse(self) -> None:
        """It goes back: if no attempt at it has failed in this hold, that it was handed out says nothing."""
        if not self._blamed:
            self._context.history.excuse(self._message.delivery.broker_id)

    def _call(
        self, messages: Sequence[ReceivedMessage], settlements: Sequence[Settlement]
    ) -> Sequence[Outcome[None]]:
        runtime, target = self._context.runtime, self._context.target
        return settle_once(
            runtime.leases, messages, settlements, lambda chosen: runtime.provider.settle(target, chosen)
        )

    def _end(self) -> None:
        with self._lock:
            self._state = _State.ENDED
        self._context.runtime.leases.forget(self._message.lease)
        self._context.in_hand.end(self)
