"""`HandlerPolicy`: how often a message is tried, how long apart, and what becomes of it then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from queue_runtime.breaker import BreakerPolicy
from queue_runtime.errors import ConfigurationError
from queue_runtime.retry import check_number, check_whole

FLOOR_IN_PLACE = 0.1
"""Shortest backoff in seconds of a message that stays here (in a session)."""

Exhausted = Literal["dead_letter", "drop", "block"]

OFTEN = BreakerPolicy(failure_rate=0.8, minimum_calls=20)
"""So high that a queue with many bad messages among good ones goes on: only what fails for nearly all of them
is not theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerPolicy:
    """How often a message is tried, and how long apart. Durations are seconds.

    After `max_attempts` the message is dead-lettered; `permanent` exceptions do not wait for that. The
    backoff is exponential from `base` up to `cap`, with full jitter. `max_hold` is the longest time that a
    message of a session may hold up the ones behind it, from its first attempt to the last retry: it must
    cover all the backoffs, and a message that asks for more with `Retry(delay)` is dead-lettered.

    `downstream` exceptions say that something the handler needs is down, which is not the message's fault:
    they count as no attempt. The message is tried again where it is, under its lease, for `max_hold`; then it
    is given back, its place with it. When handlers fail at the rate of `breaker`, downstream or not, the
    worker stops fetching and lets go of all but one message, which is tried until it goes well; None: it
    never does. What `Retry`, `Reject`, `permanent` exceptions and undecodable bodies end is no such failure.

    Beyond `time_limit` (None: no limit) a handler has lost its lease: it is told by ``message.lease`` and not
    interrupted, its result is not settled, and it has had an attempt.

    `on_exhausted` is what happens instead of dead-lettering, where a message can never be handled:
    ``"dead_letter"``; ``"drop"`` completes it, with an event; ``"block"`` keeps it in the queue and tries it
    again every `cap` seconds, for ever, and in a session nothing passes it. A queue without a dead-letter
    queue needs one of the latter.

    Attempts are counted by the client that handles a message, in its process; what bounds them all is the
    broker's delivery count. A message handed out more than `max_deliveries` times (default: three times
    `max_attempts`) may be ending its processes, and is dead-lettered or dropped without being tried again;
    ``"block"`` tries it all the same.

    Raises `ConfigurationError`, naming the setting, for what is of the wrong type or out of range, and where
    two contradict each other.
    """

    max_attempts: int = 5
    base: float = 1.0
    cap: float = 60.0
    permanent: tuple[type[Exception], ...] = ()
    downstream: tuple[type[Exception], ...] = ()
    max_hold: float = 300.0
    max_deliveries: int | None = None
    time_limit: float | None = None
    on_exhausted: Exhausted = "dead_letter"
    breaker: BreakerPolicy | None = OFTEN

    def __post_init__(self) -> None:
        check_whole("max_attempts", self.max_attempts, least=1)
        for name in ("base", "cap", "max_hold"):
            check_number(name, getattr(self, name), least=0, unit="seconds")
        if self.max_deliveries is not None:
            check_whole("max_deliveries", self.max_deliveries, least=1)
        if self.max_deliveries is not None and self.max_deliveries < self.max_attempts:
            raise ConfigurationError(
                f"max_deliveries={self.max_deliveries} is below max_attempts={self.max_attempts}: messages "
                "would be dead-lettered before they were tried that often; raise it, or leave it out"
            )
        for name in ("permanent", "downstream"):
            kinds = getattr(self, name)
            if not isinstance(kinds, tuple) or not all(map(_is_exception, kinds)):
                raise ConfigurationError(f"{name} must be a tuple of exception classes, it is {kinds!r}")
        if self.time_limit is not None:
            check_number("time_limit", self.time_limit, least=0, above=True, unit="seconds")
        if self.on_exhausted not in get_args(Exhausted):
            raise ConfigurationError(
                f"on_exhausted must be one of {', '.join(map(repr, get_args(Exhausted)))}, "
                f"it is {self.on_exhausted!r}"
            )
        if self.breaker is not None and not isinstance(self.breaker, BreakerPolicy):
            raise ConfigurationError(
                f"breaker must be a BreakerPolicy(...), or None for none, it is {self.breaker!r}"
            )
        longest = sum(
            FLOOR_IN_PLACE + min(self.cap, self.base * 2.0**n) for n in range(self.max_attempts - 1)
        )
        if longest > self.max_hold:
            raise ConfigurationError(
                f"max_hold={self.max_hold:g} s does not cover the retries, which take up to {longest:g} s; "
                "raise it, or lower max_attempts, base or cap"
            )

    @property
    def delivery_limit(self) -> int:
        return self.max_deliveries if self.max_deliveries is not None else 3 * self.max_attempts


def _is_exception(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Exception)
