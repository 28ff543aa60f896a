"""One thread and one heap of (when, what): leases, delayed retries, idle sessions."""

from __future__ import annotations

import heapq
import logging
import threading
from collections.abc import Callable
from itertools import count

from queue_runtime.clock import Clock
from queue_runtime.condition import Condition
from queue_runtime.errors import Closed

log = logging.getLogger("queue_runtime")

SWEEP = 64
"""Timers from which on cancelled ones are swept out: a lease of hours may be settled within the second, and
thousands like it in each."""


def _nothing() -> None:
    """What a cancelled timer does; it must not keep alive what its action holds."""


class Timer:
    """Something due. `cancel` is harmless at any time; what has begun is not interrupted."""

    __slots__ = ("action", "cancelled", "when")

    def __init__(self, when: float, action: Callable[[], None]) -> None:
        self.when = when
        self.action = action
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
        self.action = _nothing


class Scheduler:
    """Runs short actions when they are due, one after another, on a thread that starts with the first one.

    Actions must not block: they hand work to an executor. What an action raises is logged.
    """

    def __init__(self, clock: Clock, *, name: str = "queue_runtime-scheduler") -> None:
        self._clock = clock
        self._name = name
        self._changed = Condition()
        # guarded by _changed
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = count()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._rearranged = False
        self._sweep_at = SWEEP

    def call_at(self, when: float, action: Callable[[], None]) -> Timer:
        """Run *action* at *when* on the clock's monotonic scale. Raises `Closed` after `close`."""
        timer = Timer(when, action)
        with self._changed:
            if self._closed:
                raise Closed("the scheduler is closed")
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                thread.start()
                self._thread = thread
            self._sweep()
            heapq.heappush(self._heap, (when, next(self._order), timer))
            if self._heap[0][2] is timer:
                self._rearranged = True
                self._changed.notify_all()
        return timer

    def call_later(self, delay: float, action: Callable[[], None]) -> Timer:
        """Run *action* in *delay* seconds."""
        return self.call_at(self._clock.monotonic() + delay, action)

    def __len__(self) -> int:
        """Timers in hand, cancelled ones included that were not swept out yet."""
        with self._changed:
            return len(self._heap)

    def close(self) -> None:
        """Drop what is not due yet and end the thread; an action that runs now is waited for."""
        with self._changed:
            self._closed = True
            self._heap.clear()
            thread = self._thread
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                due = self._next_due()
                if self._closed:
                    return
            for timer in due:
                if not timer.cancelled:
                    self._act(timer)

    def _sweep(self) -> None:
        """Let go of the cancelled, when they may be the half of all. Requires _changed to be held."""
        if len(self._heap) >= self._sweep_at:
            self._heap = [entry for entry in self._heap if not entry[2].cancelled]
            heapq.heapify(self._heap)
            self._sweep_at = max(SWEEP, 2 * len(self._heap))

    def _next_due(self) -> list[Timer]:
        """Wait for the first timer and take all that are due. Requires _changed to be held."""
        while not self._closed:
            while self._heap and self._heap[0][2].cancelled:
                heapq.heappop(self._heap)
            now = self._clock.monotonic()
            due = []
            while self._heap and self._heap[0][0] <= now:
                due.append(heapq.heappop(self._heap)[2])
            if due:
                return due
            self._rearranged = False
            first = self._heap[0][0] if self._heap else None
            self._clock.wait_until(self._changed, lambda: self._closed or self._rearranged, first)
        return []

    def _act(self, timer: Timer) -> None:
        try:
            timer.action()
        except BaseException:  # one action, though it exits, must not end the thread that all others need
            log.exception("scheduled action failed: %r", timer.action)
