"""When to ask again: pure decisions, no clock and no thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from queue_runtime.errors import ConfigurationError, QueueError

Random = Callable[[], float]
"""Uniform in [0, 1): `random.random`."""


def backoff(attempt: int, *, base: float, cap: float, floor: float, random: Random) -> float:
    """Exponential backoff with full jitter: uniform between *floor* and ``base * 2 ** (attempt - 1)``.

    Full jitter spreads the retries of many clients best:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    ceiling = min(cap, base * 2.0 ** min(attempt - 1, 62))
    return max(floor, random() * ceiling)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often one call to the broker is made again. Only errors that say `retryable` are retried.

    `max_attempts` counts the first try. No retry starts after `time_limit` seconds from it: the default
    stays under the ten seconds that GitHub gives a webhook.
    https://docs.github.com/en/webhooks/using-webhooks/best-practices-for-using-webhooks
    """

    max_attempts: int = 5
    base: float = 0.1
    cap: float = 2.0
    time_limit: float = 8.0

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ConfigurationError(f"retry.max_attempts must be at least 1, it is {self.max_attempts}")
        for name in ("base", "cap", "time_limit"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigurationError(
                    f"retry.{name} must be a number of seconds from 0 on, it is {getattr(self, name)!r}"
                )

    def delay(self, attempt: int, error: QueueError, elapsed: float, random: Random) -> float | None:
        """Seconds to wait after try number *attempt* failed with *error*, or None to stop.

        *elapsed* is the time since the first try began.
        """
        if not error.retryable or attempt >= self.max_attempts:
            return None
        delay = backoff(attempt, base=self.base, cap=self.cap, floor=0.0, random=random)
        return delay if elapsed + delay < self.time_limit else None
