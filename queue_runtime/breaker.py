"""Refuses calls to a broker that keeps failing: closed, open, half-open. No I/O, no clock of its own."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Literal

from queue_runtime.retry import check_number, check_whole

State = Literal["closed", "open", "half-open"]

MAX_CALLS = 1000
"""Calls remembered at most, the newest; enough for any rate, and a bound where thousands end each second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """Opens when at least `minimum_calls` ended within `window` seconds and `failure_rate` of them failed.

    After `open_for` seconds it is half-open: `probes` calls are let through. When that many have gone well it
    closes; the first that fails opens it again.

    Raises `ConfigurationError`, naming the setting, for what is of the wrong type or out of range.
    """

    failure_rate: float = 0.5
    minimum_calls: int = 8
    window: float = 30.0
    open_for: float = 5.0
    probes: int = 1

    def __post_init__(self) -> None:
        check_number("breaker.failure_rate", self.failure_rate, least=0, most=1, above=True)
        check_whole("breaker.minimum_calls", self.minimum_calls, least=1, most=MAX_CALLS)
        check_number("breaker.window", self.window, least=0, above=True, unit="seconds")
        check_number("breaker.open_for", self.open_for, least=0, above=True, unit="seconds")
        check_whole("breaker.probes", self.probes, least=1, most=MAX_CALLS)


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
        self._probing = 0
        """Probes under way."""
        self._passed = 0
        """Probes that went well since it was last open."""
        self._probe_until = float("-inf")
        """When those under way are given up."""
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
            if now >= self._probe_until:
                # Probes that never report back must not keep the breaker open for ever.
                self._probing = 0
                self._probe_until = now + self._policy.open_for
            if self._probing + self._passed >= self._policy.probes:
                return self._probe_until
            self._probing += 1
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
        if failed:
            self._open(now)
            return "open"
        self._probing = max(0, self._probing - 1)
        self._passed += 1
        if self._passed < self._policy.probes:
            return None
        self._retry_at = None
        self._closed_at = now
        return "closed"

    def _open(self, now: float) -> None:
        self._retry_at = now + self._policy.open_for
        self._probing = self._passed = 0
        self._probe_until = float("-inf")
        self._calls.clear()
        self._failures = 0

    def _forget_old(self, now: float) -> None:
        """What left the window, and the oldest where there are too many."""
        oldest = now - self._policy.window
        while self._calls and (self._calls[0][0] <= oldest or len(self._calls) >= MAX_CALLS):
            self._failures -= self._calls.popleft()[1]
