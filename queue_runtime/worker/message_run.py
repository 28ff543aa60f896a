"""One message outside sessions on its way through a worker."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum

from queue_runtime.errors import Outcome, QueueError
from queue_runtime.message import ReceivedMessage
from queue_runtime.provider import Abandon, Settlement
from queue_runtime.scheduler import Timer
from queue_runtime.settling import settle_once
from queue_runtime.worker.context import Context
from queue_runtime.worker.verdict import RetryIn

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

    Where the broker has no delay for a message in hand there is waiting, between two attempts that are not
    far apart: lease and permit are kept, no thread is held, and a stop gives the message back at once.
    """

    def __init__(self, context: Context, message: ReceivedMessage) -> None:
        self._context = context
        self._message = message
        self._lock = threading.Lock()
        # guarded by _lock
        self._state = _State.QUEUED
        self._retry: Timer | None = None

    def start(self) -> None:
        """Keep the lease alive and wait for a thread; behind the others of its session, where it has one."""
        message = self._message
        with self._lock:
            if self._state is not _State.QUEUED:
                return  # the worker stops, and has given it back: a renewal now would hide it again
            self._context.runtime.keep_alive(message)
        self._context.submit(self, self._handle, message.session_id)

    def stop(self) -> None:
        with self._lock:
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

    def _handle(self) -> None:
        with self._lock:
            if self._state not in (_State.QUEUED, _State.WAITING):
                return
            self._state = _State.RUNNING
        message = self._message
        if message.lease.lost:
            self._end()  # the renewer has told; it comes again, here or elsewhere
            return
        started = self._context.runtime.clock.monotonic()
        message.attempt = self._context.attempts.next_of(message.delivery.broker_id)
        decision = self._context.judge(message, since=None)
        if isinstance(decision, RetryIn):
            self._context.attempts.note(message.delivery.broker_id, message.attempt)
            if self._context.capabilities.copied_delays and decision.delay <= HELD_DELAY:
                self._wait_for_retry(decision.delay)
                return
            self._context.in_hand.retry_due(self._context.runtime.clock.monotonic() + decision.delay)
        settlement = self._context.settlement(message, decision)
        with self._lock:
            self._state = _State.SETTLING
        self._context.settle(
            self, message, settlement, self._call, lambda error: self._settled(settlement, started, error)
        )

    def _wait_for_retry(self, delay: float) -> None:
        self._context.in_hand.count("retried")
        with self._lock:
            self._state = _State.WAITING
            self._retry = self._context.later(self, delay, self._handle, self._message.session_id)
        if self._context.in_hand.stopping:
            self.stop()  # it was asked while the handler ran, and did not see a retry to cancel

    def _settled(self, settlement: Settlement, started: float, error: QueueError | None) -> None:
        message = self._message
        if error is None:
            if not isinstance(settlement, Abandon):
                self._context.attempts.forget(message.delivery.broker_id)
            self._context.settled(message, settlement, started)
        else:
            self._context.not_settled(message, error)
            self._context.in_hand.retry_due(message.lease.deadline)
        self._end()

    def _release(self) -> None:
        with suppress(QueueError):  # what the broker does not hear of comes back when its lease ends
            outcome = self._call([self._message], [Abandon(self._message.delivery)])[0]
            if outcome.ok:
                self._context.in_hand.count("released")
        self._end()

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
