"""What the end of a handler means. Pure: the rules of retrying read without a thread in sight."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass

from queue_runtime.errors import ConfigurationError, DecodeError
from queue_runtime.message import Delivery
from queue_runtime.retry import backoff
from queue_runtime.worker.handling import Reject, Retry

FLOOR_IN_PLACE = 0.1
"""Shortest backoff in seconds of a message that stays here (in a session)."""

FLOOR_GIVEN_BACK = 1.0
"""Shortest backoff in seconds of a message that goes back to the broker: a hot loop costs requests."""

MAX_TRACEBACK = 4000
"""Characters of the traceback that a dead letter keeps: its end, where the cause is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerPolicy:
    """How often a message is tried, and how long apart. Durations are seconds.

    After `max_attempts` the message is dead-lettered; `permanent` exceptions do not wait for that. The
    backoff is exponential from `base` up to `cap`, with full jitter. `max_hold` is the longest time that a
    message of a session may hold up the ones behind it, from its first attempt to the last retry: it must
    cover all the backoffs, and a message that asks for more with `Retry(delay)` is dead-lettered.

    Attempts are counted by each worker for itself; what bounds them all is the broker's delivery count. A
    message handed out more than `max_deliveries` times (default: three times `max_attempts`) may be ending
    its processes, and is dead-lettered without being tried again.
    """

    max_attempts: int = 5
    base: float = 1.0
    cap: float = 60.0
    permanent: tuple[type[Exception], ...] = ()
    max_hold: float = 300.0
    max_deliveries: int | None = None

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ConfigurationError(f"max_attempts must be at least 1, it is {self.max_attempts}")
        for name in ("base", "cap", "max_hold"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigurationError(
                    f"{name} must be a number of seconds from 0 on, it is {getattr(self, name)!r}"
                )
        if self.max_deliveries is not None and self.max_deliveries < self.max_attempts:
            raise ConfigurationError(
                f"max_deliveries={self.max_deliveries} is below max_attempts={self.max_attempts}: messages "
                "would be dead-lettered before they were tried that often; raise it, or leave it out"
            )
        if not isinstance(self.permanent, tuple) or not all(map(_is_exception, self.permanent)):
            raise ConfigurationError(
                f"permanent must be a tuple of exception classes, it is {self.permanent!r}"
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


@dataclass(frozen=True, slots=True)
class Done:
    """The handler returned: complete the message."""


@dataclass(frozen=True, slots=True)
class RetryIn:
    """Try again after `delay` seconds."""

    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """Dead-letter the message."""

    reason: str
    description: str | None = None
    exception: str | None = None
    traceback: str | None = None


Verdict = Done | RetryIn | GiveUp


def before_handler(delivery: Delivery, policy: HandlerPolicy) -> GiveUp | None:
    """The verdict on a message that must not reach the handler; None for all others.

    The broker's count is evidence only against a message that came first of its session in its receive:
    one that came behind others was counted for their failures.
    """
    if delivery.problem is not None:
        return GiveUp(reason="DecodeError", description=delivery.problem)
    if not delivery.follows and delivery.delivery_count > policy.delivery_limit:
        return GiveUp(
            reason="MaxDeliveriesExceeded",
            description=f"handed out {delivery.delivery_count} times and never completed; "
            "its handler may be ending the process",
        )
    return None


def verdict(
    error: BaseException | None,
    attempt: int,
    policy: HandlerPolicy,
    *,
    held: float | None,
    random: Callable[[], float],
) -> Verdict:
    """What to do after attempt number *attempt* ended with *error*, or without one.

    *held* are the seconds since the first attempt for a message that is retried in its place, in a session;
    None for one that goes back to the broker in between.
    """
    if error is None:
        return Done()
    if isinstance(error, Reject):
        return GiveUp(reason=error.reason, description=error.description)
    if isinstance(error, DecodeError):
        return GiveUp(reason="DecodeError", description=text_of(error), exception=_class_name(error))
    if isinstance(error, policy.permanent):
        return _give_up(type(error).__name__, error)
    if attempt >= policy.max_attempts:
        return _give_up("MaxAttemptsExceeded", error)
    if isinstance(error, Retry) and error.delay is not None:
        delay = error.delay
    else:
        floor = FLOOR_GIVEN_BACK if held is None else FLOOR_IN_PLACE
        delay = backoff(attempt, base=policy.base, cap=policy.cap, floor=floor, random=random)
    if held is not None and held + delay > policy.max_hold:
        return _give_up("MaxHoldExceeded", error)
    return RetryIn(delay)


def _give_up(reason: str, error: BaseException) -> GiveUp:
    return GiveUp(
        reason=reason,
        description=text_of(error) or None,
        exception=_class_name(error),
        traceback="".join(traceback.format_exception(error))[-MAX_TRACEBACK:],
    )


def text_of(error: BaseException) -> str:
    """``str(error)``, also of an exception that cannot say it: a message must not be stuck for that."""
    try:
        return str(error)
    except Exception as exc:  # what the handler raised is still to be judged, and its session to go on
        return f"(its text cannot be had: {type(exc).__name__})"


def _is_exception(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Exception)


def _class_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
