"""Makes the copy that goes to the dead-letter queue, with the reason beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from queue_runtime import codec
from queue_runtime.errors import MessageTooLarge
from queue_runtime.message import RESERVED_ATTRIBUTE, DeadLetterInfo, Delivery
from queue_runtime.providers.sqs.errors import PROVIDER
from queue_runtime.providers.sqs.limits import MAX_ATTRIBUTES
from queue_runtime.providers.sqs.queues import Queue
from queue_runtime.providers.sqs.wire import COPY_PREFIX, Attributes, SqsDelivery, size, typed

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

# What can be spared first comes first.
_TRIMMED = (
    "traceback",
    "description",
    "exception",
    "host",
    "first_seen_at",
    "queue",
    "message_id",
    "session_id",
    "reason",
)

_SHORTEST = 32


def copy_entry(
    delivery: Delivery, info: DeadLetterInfo, dead_letters: Queue
) -> SendMessageBatchRequestEntryTypeDef:
    """Return the copy of *delivery* as an entry of SendMessageBatch to *dead_letters*, its id left empty.

    Body and attributes are the original's; *info* is trimmed where it would not fit, down to the reason, and
    left out where not even that fits. Raises `MessageTooLarge` if the message itself does not fit.
    """
    body, attributes = _fitting(delivery, info, dead_letters)
    made: SendMessageBatchRequestEntryTypeDef = {
        "Id": "",
        "MessageBody": body,
        "MessageAttributes": attributes,  # type: ignore[typeddict-item]
    }
    if dead_letters.fifo:
        # Never the user's deduplication id: with a repeated one the copy is confirmed and not stored. A group
        # for each copy lets the whole dead-letter queue be looked at.
        made["MessageDeduplicationId"] = made["MessageGroupId"] = COPY_PREFIX + delivery.broker_id
    return made


def _fitting(delivery: Delivery, info: DeadLetterInfo, dead_letters: Queue) -> tuple[str, Attributes]:
    limit = dead_letters.max_message_size

    def fits(trimmed: DeadLetterInfo) -> bool:
        body, attributes = _with_info(delivery, trimmed)
        return len(attributes) <= MAX_ATTRIBUTES and size(body, attributes) <= limit

    trimmed = _trim(info, fits)
    if trimmed is not None:
        return _with_info(delivery, trimmed)
    body, attributes = _as_stored(delivery)
    actual = size(body, attributes)
    if actual > limit:
        raise MessageTooLarge(
            f"message {delivery.message.id!r} has {actual} bytes, its dead-letter queue "
            f"{dead_letters.name!r} takes {limit}; raise that queue's MaximumMessageSize. "
            "The message was left as it was",
            actual=actual,
            limit=limit,
            provider=PROVIDER,
        )
    return body, attributes


def _with_info(delivery: Delivery, info: DeadLetterInfo) -> tuple[str, Attributes]:
    """The copy with *info*; other tools' attributes keep their types unless they must be packed."""
    text = codec.encode_text(delivery.message, dead_letter=info)
    attributes = {**typed(text.attributes), **_foreign(delivery)}
    if len(attributes) > MAX_ATTRIBUTES and delivery.problem is None:
        text = codec.encode_text(delivery.message, dead_letter=info, pack_attributes=True)
        attributes = typed(text.attributes)
    return text.body, attributes


def _as_stored(delivery: Delivery) -> tuple[str, Attributes]:
    """Without a word of why it is there, by which a dead letter is known: so it must say nothing of times."""
    text = codec.encode_text(delivery.message)
    stored = delivery.stored if isinstance(delivery, SqsDelivery) else typed(text.attributes)
    ours = stored.get(RESERVED_ATTRIBUTE, {}).get("StringValue")
    if ours is None:
        return text.body, stored
    return text.body, {**stored, **typed({RESERVED_ATTRIBUTE: codec.without_times(ours)})}


def _foreign(delivery: Delivery) -> Attributes:
    if not isinstance(delivery, SqsDelivery):
        return {}
    return {name: value for name, value in delivery.stored.items() if name != RESERVED_ATTRIBUTE}


def _trim(info: DeadLetterInfo, fits: Callable[[DeadLetterInfo], bool]) -> DeadLetterInfo | None:
    """Halve one field of *info* after the other until it fits; None if nothing helps."""
    for name in _TRIMMED:
        while not fits(info):
            value = getattr(info, name)
            shorter = _half(name, value)
            if shorter == value:
                break
            cut: dict[str, Any] = {name: shorter}
            info = replace(info, **cut)
    return info if fits(info) else None


_TEXTS = ("traceback", "description", "exception", "reason")
"""What half of is still worth having; a name that is cut names something else."""


def _half(name: str, value: str | datetime | None) -> str | None:
    if not isinstance(value, str) or name not in _TEXTS or len(value) <= _SHORTEST:
        return value if name == "reason" and isinstance(value, str) else None
    half = len(value) // 2
    # The end of a traceback names the error, the beginning of a text its subject.
    return "…" + value[-half:] if name == "traceback" else value[:half] + "…"
