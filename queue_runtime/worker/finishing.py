"""The end of a message in a worker: settled, again and again until its lease ends, counted and told."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial

from queue_runtime.errors import Outcome, OutcomeUnknown, QueueError
from queue_runtime.events import MessageCompleted, MessageDeadLettered, MessageDropped, SettlementFailed
from queue_runtime.message import ReceivedMessage
from queue_runtime.provider import Abandon, Complete, DeadLetter, Settlement
from queue_runtime.retry import backoff
from queue_runtime.worker.context import Context
from queue_runtime.worker.in_hand import Run
from queue_runtime.worker.verdict import Drop, Verdict

SettleOnce = Callable[[Sequence[ReceivedMessage], Sequence[Settlement]], Sequence[Outcome[None]]]


def settle(
    context: Context,
    run: Run,
    message: ReceivedMessage,
    settlement: Settlement,
    call: SettleOnce,
    then: Callable[[QueueError | None], None],
    *,
    attempt: int = 1,
    unknown: OutcomeUnknown | None = None,
) -> None:
    """Settle, again and again until the lease ends if that may help; then call *then*, once.

    No thread sleeps in between: the next try is on the scheduler. What was *unknown* once stays so unless a
    later try goes well: that those fail says nothing of it.
    """
    error = _settle_once(message, settlement, call)
    if isinstance(error, OutcomeUnknown):
        unknown = error
    if error is not None and error.retryable and not message.lease.lost:
        delay = backoff(attempt, base=0.1, cap=2.0, floor=0.05, random=random.random)
        go_on = partial(
            settle, context, run, message, settlement, call, then, attempt=attempt + 1, unknown=unknown
        )
        context.later(run, min(delay, message.lease.remaining()), go_on)
        return
    then(unknown if error is not None and unknown is not None else error)


def settled(
    context: Context,
    run: Run,
    message: ReceivedMessage,
    settlement: Settlement,
    started: float,
    decision: Verdict | None,
) -> None:
    """The broker has agreed: count it and tell. *decision* is None for what ended before, and only now is
    agreed to."""
    if not isinstance(settlement, Abandon):
        context.history.forget(message.delivery.broker_id)
    match settlement:
        case Complete() if isinstance(decision, Drop):
            context.in_hand.settled("dropped", run)
            context.runtime.events(
                MessageDropped(
                    queue=context.queue,
                    message_id=message.id,
                    session_id=message.session_id,
                    reason=decision.instead_of.reason,
                    text=decision.instead_of.description or "",
                )
            )
        case Complete():
            context.in_hand.settled("completed", run)
            context.runtime.events(
                MessageCompleted(
                    queue=context.queue,
                    message_id=message.id,
                    session_id=message.session_id,
                    attempt=message.attempt,
                    seconds=context.runtime.clock.monotonic() - started,
                    repeated=decision is None,
                )
            )
        case DeadLetter(info=info):
            context.in_hand.settled("dead_lettered", run)
            context.runtime.events(
                MessageDeadLettered(
                    queue=context.queue,
                    message_id=message.id,
                    session_id=message.session_id,
                    reason=info.reason,
                    attempts=info.attempts,
                )
            )
        case Abandon():
            context.in_hand.settled("retried", run)


def not_settled(context: Context, run: Run, message: ReceivedMessage, error: QueueError) -> None:
    """It is given up here: the broker delivers it again."""
    context.in_hand.count("unknown" if isinstance(error, OutcomeUnknown) else "lost", of=run)
    context.runtime.events(
        SettlementFailed(
            queue=context.queue,
            message_id=message.id,
            session_id=message.session_id,
            error=type(error).__name__,
            text=str(error),
        )
    )


def _settle_once(message: ReceivedMessage, settlement: Settlement, call: SettleOnce) -> QueueError | None:
    if message.settled_as is not None:
        return None  # the handler has done it itself
    try:
        message.lease.check()
        return call([message], [settlement])[0].error
    except QueueError as exc:
        return exc
