"""When to ask again: pure decisions, no clock and no thread."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from queue_runtime.errors import ConfigurationError, QueueError

Random = Callable[[], float]
"""Uniform in [0, 1): `random.random`."""


LONGEST = 240.0
"""Seconds. A FIFO queue knows a deduplication id for five minutes.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/using-messagededuplicationid-property.html
"""


def check_whole(
    name: str,
    value: object,
    *,
    least: int,
    most: int | None = None,
    raises: Callable[[str], QueueError] = ConfigurationError,
) -> None:
    """Raise *raises* unless the setting, or argument, *name* is a whole number from *least* to *most*."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):  # type: ignore[operator]
        end = "on" if most is None else f"to {most}"
        raise raises(f"{name} must be a whole number from {least} {end}, it is {value!r}")


def check_number(
    name: str,
    value: object,
    *,
    least: float,
    most: float = math.inf,
    above: bool = False,
    unit: str = "",
    raises: Callable[[str], QueueError] = ConfigurationError,
) -> None:
    """Raise *raises* unless the setting, or argument, *name* is a finite number from *least* to *most*;
    *above* excludes *least* itself. A bool or a text is no number, whatever it says."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf
    if not number or not least <= value <= most or (above and value == least):  # type: ignore[operator]
        end = "" if most == math.inf else f" to {most:g}"
        start = f"above {least:g}" if above else f"from {least:g}{'' if end else ' on'}"
        what = f"a number of {unit}" if unit else "a number"
        raise raises(f"{name} must be {what} {start}{end}, it is {value!r}")


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

    `max_attempts` counts the first try. Between two tries it waits at random up to `base` seconds, doubled
    with each try, at most `cap`; longer where the broker asked for that (`QueueError.retry_after`). No retry
    starts later than `time_limit` seconds after the first try; with one request more, which waits five
    seconds for its answer, the default stays under the ten seconds that GitHub gives a webhook.
    https://docs.github.com/en/webhooks/using-webhooks/best-practices-for-using-webhooks

    Raises `ConfigurationError`, naming the setting, for what is of the wrong type or out of range;
    `time_limit` is at most 240 seconds.
    """

    max_attempts: int = 5
    base: float = 0.1
    cap: float = 2.0
    time_limit: float = 4.0

    def __post_init__(self) -> None:
        check_whole("retry.max_attempts", self.max_attempts, least=1)
        for name in ("base", "cap", "time_limit"):
            check_number(f"retry.{name}", getattr(self, name), least=0, unit="seconds")
        if self.time_limit > LONGEST:
            raise ConfigurationError(
                f"retry.time_limit must be at most {LONGEST:g} s, it is {self.time_limit!r}: a send that is "
                "repeated later may be stored twice"
            )

    def delay(self, attempt: int, error: QueueError, elapsed: float, random: Random) -> float | None:
        """Seconds to wait after try number *attempt* failed with *error*, or None to stop.

        *elapsed* is the time since the first try began. A broker that asks for more time than is left is not
        asked again: an earlier try would only be one more that it did not want.
        """
        if not error.retryable or attempt >= self.max_attempts:
            return None
        delay = backoff(attempt, base=self.base, cap=self.cap, floor=0.0, random=random)
        if error.retry_after is not None:
            delay = max(delay, error.retry_after)
        return delay if elapsed + delay < self.time_limit else None
