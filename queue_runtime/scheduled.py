"""Messages that are not due yet: sent with a receipt, by which they can be taken back."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from queue_runtime.errors import InvalidArgument, UnsupportedOperation
from queue_runtime.message import Message
from queue_runtime.provider import Capabilities
from queue_runtime.runtime import Runtime
from queue_runtime.sending import checked
from queue_runtime.strategies import SessionStrategy


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledMessage:
    """What `QueueClient.cancel` takes. Plain data: any client of the same broker can cancel by it."""

    queue: str
    message_id: str
    due_at: datetime
    """When it comes, by this machine's clock."""
    receipt: str = field(repr=False)
    """The broker's name of it until then."""


def schedule(runtime: Runtime, queue: str, message: Message, strategy: SessionStrategy) -> ScheduledMessage:
    """Send *message*, which has a delay. Raises before anything is sent if it cannot be."""
    target = runtime.target(queue)
    began = runtime.clock.monotonic()
    if isinstance(message, Message) and not message.delay > 0:
        raise InvalidArgument(
            f"message {message.id!r} has no delay, so there is nothing to cancel; give it one, or send it",
            queue=queue,
            operation="schedule",
        )
    capabilities = runtime.capabilities(target, since=began)
    _check(capabilities, queue, "schedule")
    ready = checked(runtime, queue, [message], strategy, operation="schedule", since=began)
    due_at = runtime.clock.now() + timedelta(seconds=message.delay)
    outcome = runtime.outcomes(
        "schedule",
        target,
        1,
        lambda _: runtime.provider.schedule(target, ready),
        since=began,
        repeatable=capabilities.deduplication is True,
    )[0]
    if outcome.error is not None:
        raise outcome.error
    return ScheduledMessage(queue=queue, message_id=message.id, due_at=due_at, receipt=outcome.value or "")


def cancel(runtime: Runtime, scheduled: ScheduledMessage) -> None:
    """Take it back; raises `InvalidReceipt` if it is due, or gone."""
    target = runtime.target(scheduled.queue)
    began = runtime.clock.monotonic()
    _check(runtime.capabilities(target, since=began), scheduled.queue, "cancel")
    outcome = runtime.outcomes(
        "cancel", target, 1, lambda _: runtime.provider.cancel(target, [scheduled.receipt]), since=began
    )[0]
    if outcome.error is not None:
        raise outcome.error


def _check(capabilities: Capabilities, queue: str, operation: str) -> None:
    if not capabilities.cancel:
        raise UnsupportedOperation(
            f"queue {queue!r} cannot take back a message that was sent; send it with its delay where the "
            "queue can delay, and let its handler find out that it is not wanted any more",
            queue=queue,
            operation=operation,
        )
