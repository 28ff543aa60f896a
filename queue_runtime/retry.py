"""When to ask again: pure decisions, no clock and no thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from queue_runtime.errors import ConfigurationError, QueueError

Random = Callable[[], float]
"""Uniform in [0, 1): `random.random`."""


LONGEST = 240.0
"""Seconds. A FIFO queue knows a deduplication id for five minutes.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/using-messagededuplicationid-property.html
"""


def backoff(attempt: int, *, base: float, cap: float, floor: float, random: Random) -> float:
    """Exponential backoff with full jitter: *floor*, and up to ``base * 2 ** (attempt - 1)``, at most *cap*,
    on top of it.

    Full jitter spreads the retries of many clients best:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    ceiling = min(cap, base * 2.0 ** min(attempt - 1, 62))
    return floor + random() * ceiling


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often one call to the broker is made again. Only errors that say `retryable` are retried.

    `max_attempts` counts the first try. No retry starts later than `time_limit` seconds after it; with one
    request more, which waits five seconds for its answer, the default stays under the ten seconds that GitHub
    gives a webhook.
    https://docs.github.com/en/webhooks/using-webhooks/best-practices-for-using-webhooks
    """

    max_attempts: int = 5
    base: float = 0.1
    cap: float = 2.0
    time_limit: float = 4.0

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ConfigurationError(f"retry.max_attempts must be at least 1, it is {self.max_attempts}")
        if self.time_limit > LONGEST:
            raise ConfigurationError(
                f"retry.time_limit must be at most {LONGEST:g} s, it is {self.time_limit:g}: a send that is "
                "repeated later may be stored twice"
            )
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
