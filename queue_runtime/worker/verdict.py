"""What the end of a handler means. Pure: the rules of retrying read without a thread in sight."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass

from queue_runtime.errors import DecodeError
from queue_runtime.message import Delivery
from queue_runtime.retry import backoff
from queue_runtime.worker.handling import Reject, Retry
from queue_runtime.worker.policy import FLOOR_IN_PLACE, HandlerPolicy

FLOOR_GIVEN_BACK = 1.0
"""Shortest backoff in seconds of a message that goes back to the broker: a hot loop costs requests."""

MAX_TRACEBACK = 4000
"""Characters of the traceback that a dead letter keeps: its end, where the cause is."""


@dataclass(frozen=True, slots=True)
class Done:
    """The handler returned: complete the message."""


@dataclass(frozen=True, slots=True)
class RetryIn:
    """Try again after `delay` seconds, in its place where it has one."""

    delay: float
    counted: bool = True
    """It was an attempt. If not, what the handler needs was down: it stays here, wherever it came from."""


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Let go of it, and of its session: it has held up others long enough. It comes again after `delay`
    seconds."""

    delay: float
    counted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """Dead-letter the message."""

    reason: str
    description: str | None = None
    exception: str | None = None
    traceback: str | None = None


@dataclass(frozen=True, slots=True)
class Drop:
    """Complete the message although it was not handled: it would be dead-lettered, and the policy drops
    it."""

    instead_of: GiveUp


Verdict = Done | RetryIn | GiveBack | GiveUp | Drop


def before_handler(delivery: Delivery, attempt: int, excused: int, policy: HandlerPolicy) -> GiveUp | None:
    """The verdict on a message that must not reach the handler; None for all others.

    The broker's count is evidence only against a message that came first of its session in its receive:
    one that came behind others was counted for their failures. Of the deliveries to this process, *excused*
    ones say nothing against it either. Its attempts are over already where the last one did not come to an
    end of its own. What is blocked is tried for ever, whatever is counted: also by the next process, whose
    handler may be mended.
    """
    if policy.on_exhausted == "block":
        return None
    deliveries = delivery.delivery_count - excused
    if not delivery.follows and deliveries > policy.delivery_limit:
        return GiveUp(
            reason="MaxDeliveriesExceeded",
            description=f"handed out {deliveries} times and never completed; "
            "its handler may be ending the process",
        )
    if attempt > policy.max_attempts:
        return GiveUp(
            reason="MaxAttemptsExceeded",
            description=f"{attempt - 1} attempts, the last of which lost its lease before it ended",
        )
    return None


def verdict(
    error: BaseException | None,
    attempt: int,
    policy: HandlerPolicy,
    *,
    held: float,
    in_place: bool,
    down: int = 0,
    random: Callable[[], float],
) -> Verdict:
    """What to do after attempt number *attempt* ended with *error*, or without one.

    *held* are the seconds since the first attempt of this hold. *in_place* is whether others wait behind it
    meanwhile, in its session; else it goes back to the broker in between. *down* is how often in a row,
    before this, the handler's own surroundings were down.
    """
    if error is None:
        return Done()
    if isinstance(error, Reject):
        return GiveUp(reason=error.reason, description=error.description)
    if isinstance(error, DecodeError):
        return GiveUp(reason="DecodeError", description=text_of(error), exception=_class_name(error))
    if isinstance(error, policy.permanent):
        return _give_up(type(error).__name__, error)
    if isinstance(error, policy.downstream):
        delay = backoff(down + 1, base=policy.base, cap=policy.cap, floor=FLOOR_IN_PLACE, random=random)
        fits = held + delay <= policy.max_hold
        return RetryIn(delay, counted=False) if fits else GiveBack(delay, counted=False)
    if attempt >= policy.max_attempts:
        return _give_up("MaxAttemptsExceeded", error)
    if isinstance(error, Retry) and error.delay is not None:
        delay = error.delay
    else:
        floor = FLOOR_IN_PLACE if in_place else FLOOR_GIVEN_BACK
        delay = backoff(attempt, base=policy.base, cap=policy.cap, floor=floor, random=random)
    if in_place and held + delay > policy.max_hold:
        return _give_up("MaxHoldExceeded", error)
    return RetryIn(delay)


def instead_of_dead_lettering(end: GiveUp, policy: HandlerPolicy, *, held: float, in_place: bool) -> Verdict:
    """What becomes of a message that would be dead-lettered, by the policy's `on_exhausted`."""
    if policy.on_exhausted == "dead_letter":
        return end
    if policy.on_exhausted == "drop":
        return Drop(end)
    # It stays: in its place for as long as a session may be held up by one hold, else at the broker.
    fits = in_place and held + policy.cap <= policy.max_hold
    return RetryIn(policy.cap) if fits else GiveBack(policy.cap)


def is_trouble(error: BaseException | None, policy: HandlerPolicy) -> bool | None:
    """Whether *error* is one of those that may be everybody's: True and False count in the processing
    breaker. None does not: the handler was not entered, or it asked to be entered again."""
    if isinstance(error, Retry | DecodeError):
        return None
    return error is not None and not isinstance(error, (Reject, *policy.permanent))


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


def _class_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
