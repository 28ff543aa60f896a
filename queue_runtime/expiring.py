"""Takes out what came too late, where the broker does not: messages that have outlived their time-to-live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from queue_runtime.errors import QueueError
from queue_runtime.events import MessageExpired, SettlementFailed
from queue_runtime.message import ReceivedMessage
from queue_runtime.provider import Complete, DeadLetter, Settlement
from queue_runtime.runtime import Runtime
from queue_runtime.settling import SettleCall, dead_letter_info, settle, settle_once

REASON = "TimeToLiveExpired"
"""Of a dead letter that has outlived its time-to-live, on every provider."""


def take_out(
    runtime: Runtime, messages: Sequence[ReceivedMessage], call: SettleCall
) -> list[ReceivedMessage]:
    """Drop or dead-letter those of *messages* that expired, in one request; returns the others.

    What could not be settled is not among those either: it comes again when its lease ends.
    """
    expired = _expired(runtime, messages)
    if not expired:
        return list(messages)
    settlements = [_settlement(runtime, message) for message in expired]
    try:
        outcomes = settle_once(runtime.leases, expired, settlements, call)
        errors = [outcome.error for outcome in outcomes]
    except QueueError as exc:
        errors = [exc] * len(expired)
    _tell(runtime, expired, settlements, errors)
    return [message for message in messages if message not in expired]


def take_out_of_session(
    runtime: Runtime, owner: object, messages: Sequence[ReceivedMessage], call: SettleCall
) -> list[ReceivedMessage]:
    """The same in a session, whose next message must not pass one that is still there: until the broker has
    agreed, by the retry policy. Raises what it said if it does not."""
    expired = _expired(runtime, messages)
    if not expired:
        return list(messages)
    settlements = {message: _settlement(runtime, message) for message in expired}
    errors = settle(runtime, owner, expired, settlements.__getitem__, call)
    _tell(runtime, expired, list(settlements.values()), errors)
    for error in errors:
        if error is not None:
            raise error
    return [message for message in messages if message not in expired]


def _expired(runtime: Runtime, messages: Sequence[ReceivedMessage]) -> list[ReceivedMessage]:
    now = runtime.clock.monotonic()
    return [message for message in messages if message.delivery.expired(now)]


def _settlement(runtime: Runtime, message: ReceivedMessage) -> Settlement:
    if runtime.settings.of(message.queue).expired == "drop":
        return Complete(message.delivery)
    life = message.time_to_live
    text = "it was not received in time" + (f": it had {life:g} s" if life is not None else "")
    info = dead_letter_info(message, reason=REASON, description=text)
    # No handler has seen it this time, and of the times before nothing is known here.
    return DeadLetter(message.delivery, replace(info, attempts=None))


def _tell(
    runtime: Runtime,
    messages: Sequence[ReceivedMessage],
    settlements: Sequence[Settlement],
    errors: Sequence[QueueError | None],
) -> None:
    for message, settlement, error in zip(messages, settlements, errors, strict=True):
        if error is None:
            runtime.events(
                MessageExpired(
                    queue=message.queue,
                    message_id=message.id,
                    session_id=message.session_id,
                    dead_lettered=isinstance(settlement, DeadLetter),
                )
            )
        else:
            runtime.events(
                SettlementFailed(
                    queue=message.queue,
                    message_id=message.id,
                    session_id=message.session_id,
                    error=type(error).__name__,
                    text=str(error),
                )
            )
