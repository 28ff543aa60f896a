"""The longest time a handler may take: beyond it the lease is lost, which the handler can see."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from queue_runtime.errors import Closed
from queue_runtime.events import HandlerOverran
from queue_runtime.message import ReceivedMessage
from queue_runtime.runtime import Runtime
from queue_runtime.scheduler import Timer


class TimeLimit:
    """Around a handler with *message*; nobody interrupts it. None is no limit. *exceeded* is called when the
    lease is lost by it."""

    def __init__(
        self,
        runtime: Runtime,
        seconds: float | None,
        message: ReceivedMessage,
        *,
        exceeded: Callable[[], None] = lambda: None,
    ) -> None:
        self._runtime = runtime
        self._seconds = seconds
        self._message = message
        self._tell = exceeded
        self._timer: Timer | None = None
        self._lock = threading.Lock()
        # guarded by _lock: what ends first, the handler or its time
        self._over = False
        self._exceeded = False

    @property
    def exceeded(self) -> bool:
        with self._lock:
            return self._exceeded

    def __enter__(self) -> None:
        if self._seconds is not None:
            with suppress(Closed):
                self._timer = self._runtime.scheduler.call_later(self._seconds, self._exceed)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._over = True
        if self._timer is not None:
            self._timer.cancel()

    def _exceed(self) -> None:
        message = self._message
        history = self._runtime.history(self._runtime.target(message.queue))
        with self._lock:
            if self._over:
                return  # the handler has ended in the same instant, and its result is good
            if message.settled_as is not None:
                return  # the handler has settled it by itself, and only tidies up
            self._exceeded = True
            message.lease.lose(f"its handler has run for longer than {self._seconds:g} s, its time limit")
            history.tried(message.delivery.broker_id, message.attempt)
        self._runtime.leases.forget(message.lease)
        self._tell()
        self._runtime.events(
            HandlerOverran(
                queue=message.queue,
                message_id=message.id,
                session_id=message.session_id,
                attempt=message.attempt,
                limit=self._seconds or 0.0,
            )
        )
