"""Settling messages of one source, a queue or a session: the checks before, the notes after."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from queue_runtime.errors import (
    BatchFailed,
    InvalidArgument,
    InvalidReceipt,
    Outcome,
    QueueError,
    SettlementError,
)
from queue_runtime.leases import LeaseRenewer
from queue_runtime.message import DeadLetterInfo, Message, ReceivedMessage
from queue_runtime.provider import Abandon, Complete, DeadLetter, Settlement
from queue_runtime.retry import check_number
from queue_runtime.runtime import Runtime

SettleCall = Callable[[Sequence[Settlement]], Sequence[Outcome[None]]]

SETTLED_AS: dict[type[Settlement], str] = {
    Complete: "completed",
    Abandon: "abandoned",
    DeadLetter: "dead-lettered",
}


def as_list(messages: ReceivedMessage | Iterable[ReceivedMessage]) -> list[ReceivedMessage]:
    """One or many as a list. Raises `InvalidArgument` for what was not received."""
    chosen = [messages] if isinstance(messages, ReceivedMessage | Message) else list(messages)
    for message in chosen:
        if not isinstance(message, ReceivedMessage):
            raise InvalidArgument(
                f"only a message that was received can be settled or renewed, not a {type(message).__name__}"
            )
    return chosen


def check_delay(delay: float) -> None:
    """Raise `InvalidArgument` unless *delay* can be one of an abandon."""
    check_number("delay", delay, least=0, unit="seconds", raises=InvalidArgument)


def settle(
    runtime: Runtime,
    owner: object,
    messages: Sequence[ReceivedMessage],
    make: Callable[[ReceivedMessage], Settlement],
    call: SettleCall,
) -> list[QueueError | None]:
    """Settle *messages* of one queue until the broker agrees or nothing can be hoped for.

    Returns what went wrong, aligned with *messages*. What is settled so already went well; one that is named
    twice is settled once.
    """
    settlements = [make(message) for message in messages]
    errors = [_refusal(owner, m, s) for m, s in zip(messages, settlements, strict=True)]
    place = {message: i for i, message in enumerate(messages)}
    todo = [i for i in place.values() if errors[i] is None and messages[i].settled_as is None]

    def act(chosen: list[int]) -> Sequence[Outcome[None]]:
        indexes = [todo[i] for i in chosen]
        return settle_once(
            runtime.leases, [messages[i] for i in indexes], [settlements[i] for i in indexes], call
        )

    if todo:
        target = runtime.target(messages[0].queue)
        for i, outcome in zip(todo, runtime.outcomes("settle", target, len(todo), act), strict=True):
            errors[i] = outcome.error
    return [errors[place[message]] for message in messages]


def settle_once(
    leases: LeaseRenewer,
    messages: Sequence[ReceivedMessage],
    settlements: Sequence[Settlement],
    call: SettleCall,
) -> Sequence[Outcome[None]]:
    """One request, and what it changes here.

    A renewal that could undo an abandon is waited for first, and there are no more of them, until it turns
    out that the broker has not agreed.
    """
    aside = [
        message
        for message, settlement in zip(messages, settlements, strict=True)
        if isinstance(settlement, Abandon) and leases.set_aside(message.lease)
    ]
    held = [message.lease for message in messages]
    leases.settling(held, True)
    try:
        outcomes = call(settlements)
        for message, settlement, outcome in zip(messages, settlements, outcomes, strict=True):
            if outcome.ok:
                message.settled_as = SETTLED_AS[type(settlement)]
        leases.settled(message.lease for message in messages if message.settled_as is not None)
    finally:
        leases.settling(held, False)
        for message in aside:
            if message.settled_as is None:
                leases.take_up(message.lease)
            else:
                leases.forget(message.lease)
    return outcomes


def renew(
    runtime: Runtime, owner: object, messages: Sequence[ReceivedMessage], lease: float | None
) -> list[QueueError | None]:
    """Renew *messages* of one queue; returns what went wrong, aligned with them."""
    errors = [_renewal_refusal(owner, message) for message in messages]
    todo = [i for i, error in enumerate(errors) if error is None]
    target = runtime.target(messages[0].queue)

    def act(chosen: list[int]) -> Sequence[Outcome[float]]:
        deliveries = [messages[todo[i]].delivery for i in chosen]
        return runtime.provider.renew(target, deliveries, lease=lease)

    if todo:
        for i, outcome in zip(todo, runtime.outcomes("renew", target, len(todo), act), strict=True):
            errors[i] = outcome.error
            if outcome.value is not None:
                messages[i].lease.extend(outcome.value)
                runtime.leases.renewed(messages[i].lease)
    return errors


def raise_failed(
    operation: str, messages: Sequence[ReceivedMessage], errors: Sequence[QueueError | None]
) -> None:
    """Raise if one of *errors*, aligned with *messages*, is an error."""
    failed = [error for error in errors if error is not None]
    if not failed:
        return
    if len(messages) == 1:
        raise failed[0]
    outcomes = [Outcome(message.id, error) for message, error in zip(messages, errors, strict=True)]
    BatchFailed.raise_for(operation, outcomes, queue=messages[0].queue, operation=operation)


def dead_letter_info(
    message: ReceivedMessage,
    *,
    reason: str,
    description: str | None = None,
    exception: str | None = None,
    traceback: str | None = None,
) -> DeadLetterInfo:
    """The record that travels with *message* into the dead-letter queue."""
    return DeadLetterInfo(
        reason=reason,
        description=description,
        exception=exception,
        traceback=traceback,
        attempts=message.attempt,
        first_seen_at=message.enqueued_at,
        queue=message.queue,
        session_id=message.session_id,
        message_id=message.id,
        sequence=message.sequence,
        host=_host(),
    )


def check_owner(owner: object, message: ReceivedMessage) -> None:
    """Raise unless *message* was received through *owner*: this client in this process, or this session."""
    if message.owner is not owner:
        raise SettlementError(
            f"message {message.id!r} was received by another client, by a session, or by the parent of this "
            "process; settle and renew it where it was received",
            queue=message.queue,
        )


def _refusal(owner: object, message: ReceivedMessage, settlement: Settlement) -> QueueError | None:
    """Why *message* cannot be settled so; None also if it already is."""
    wanted = SETTLED_AS[type(settlement)]
    if message.settled_as == wanted:
        return None
    if message.settled_as is not None:
        return InvalidReceipt(
            f"message {message.id!r} cannot be {wanted}, it was {message.settled_as}", queue=message.queue
        )
    return _renewal_refusal(owner, message)


def _renewal_refusal(owner: object, message: ReceivedMessage) -> QueueError | None:
    try:
        check_owner(owner, message)
        if message.settled_as is not None:
            raise InvalidReceipt(f"message {message.id!r} was {message.settled_as}")
        message.lease.check()
    except QueueError as exc:
        exc.queue = message.queue
        return exc
    return None


@lru_cache(maxsize=1)
def _host() -> str:
    return socket.gethostname()
