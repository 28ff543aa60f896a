"""Refuses calls to a broker that keeps failing: closed, open, half-open. No I/O, no clock of its own."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Literal

from queue_runtime.errors import ConfigurationError

State = Literal["closed", "open", "half-open"]

MAX_CALLS = 1000
"""Calls remembered at most, the newest; enough for any rate, and a bound where thousands end each second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """Opens when at least `minimum_calls` ended within `window` seconds and `failure_rate` of them failed.

    After `open_for` seconds one call is let through; it closes the breaker or opens it again.
    """

    failure_rate: float = 0.5
    minimum_calls: int = 10
    window: float = 30.0
    open_for: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.failure_rate <= 1:
            raise ConfigurationError(
                f"breaker.failure_rate must be above 0 and at most 1, it is {self.failure_rate}"
            )
        if not 1 <= self.minimum_calls <= MAX_CALLS:
            raise ConfigurationError(
                f"breaker.minimum_calls must be from 1 to {MAX_CALLS}, it is {self.minimum_calls}"
            )
        for name in ("window", "open_for"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigurationError(
                    f"breaker.{name} must be seconds above 0, it is {getattr(self, name)!r}"
                )


class CircuitBreaker:
    """One breaker, for one operation on one queue. Safe to share between threads.

    The rate counts, not a run of failures: a run is common at high volume and never comes at a rate of 90 %.
    Callers pass the monotonic time in.
    """

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._lock = threading.Lock()
        # guarded by _lock
        self._calls: deque[tuple[float, bool]] = deque()
        self._failures = 0
        self._retry_at: float | None = None
        self._probe_until: float | None = None
        self._closed_at = float("-inf")

    def state(self, now: float) -> State:
        with self._lock:
            if self._retry_at is None:
                return "closed"
            return "half-open" if now >= self._retry_at else "open"

    def admit(self, now: float) -> float | None:
        """None: go ahead, and `record` the end. A number: refused until then."""
        with self._lock:
            if self._retry_at is None:
                return None
            if now < self._retry_at:
                return self._retry_at
            if self._probe_until is not None and now < self._probe_until:
                return self._probe_until
            # A probe that never reports back must not keep the breaker open for ever.
            self._probe_until = now + self._policy.open_for
            return None

    def record(self, now: float, *, started: float, failed: bool) -> State | None:
        """Note how a call admitted at *started* ended. Returns the new state if this changed it."""
        with self._lock:
            if self._retry_at is not None:
                if started < self._retry_at:
                    return None  # admitted before the breaker opened: old news, not the probe
                return self._record_probe(now, failed)
            if started < self._closed_at:
                return None  # from before the breaker closed: it was judged then
            self._forget_old(now)
            self._calls.append((now, failed))
            self._failures += failed
            enough = len(self._calls) >= self._policy.minimum_calls
            if not enough or self._failures / len(self._calls) < self._policy.failure_rate:
                return None
            self._open(now)
            return "open"

    # Requires _lock to be held.

    def _record_probe(self, now: float, failed: bool) -> State | None:
        self._probe_until = None
        if failed:
            self._open(now)
            return "open"
        self._retry_at = None
        self._closed_at = now
        return "closed"

    def _open(self, now: float) -> None:
        self._retry_at = now + self._policy.open_for
        self._calls.clear()
        self._failures = 0

    def _forget_old(self, now: float) -> None:
        """What left the window, and the oldest where there are too many."""
        oldest = now - self._policy.window
        while self._calls and (self._calls[0][0] <= oldest or len(self._calls) >= MAX_CALLS):
            self._failures -= self._calls.popleft()[1]
