"""Turns messages into what SQS stores, and what SQS hands out into deliveries."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from queue_runtime import codec
from queue_runtime.errors import InvalidMessage, MessageTooLarge, UnsupportedOperation
from queue_runtime.message import DeadLetterInfo, Delivery, Message
from queue_runtime.providers.sqs.errors import PROVIDER
from queue_runtime.providers.sqs.limits import MAX_ATTRIBUTES, MAX_DELAY, MAX_HOPPED_DELAY
from queue_runtime.providers.sqs.queues import Queue, name_in

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef, SendMessageBatchRequestEntryTypeDef

MAX_ID = 128
LEGAL_ID = re.compile(r"[!-~]+")
"""Characters of group and deduplication ids: letters, digits and ASCII punctuation.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html"""

COPY_PREFIX = "dl-"
"""Before the broker's id of the original: the group and deduplication id of a dead-letter copy."""

MOVED_BY_BROKER = "MaxReceivesExceeded"
"""The reason of a dead letter that SQS moved by itself: its RedrivePolicy's maxReceiveCount was reached."""

Attributes = Mapping[str, Mapping[str, Any]]
"""Message attributes as SQS has them: name -> DataType, and StringValue or BinaryValue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SqsDelivery(Delivery):
    """A delivery, and what only this provider wants to know of it."""

    received: float
    """When it was asked for, on the monotonic scale: SQS counts twelve hours of hold from there."""
    stored: Attributes = field(repr=False)
    """The attributes as they were stored, with their types."""
    due_in: float = 0.0
    """Seconds that are left of its delay: it is to be sent again and handed to nobody. 0: it is due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """When an answer came, and how long what it brought is held."""

    asked: float
    """On the clock's monotonic scale, as the next one."""
    came: float
    lease: int
    service: float | None
    """The time that the service gave with it, in Unix seconds; None if it gave none."""


def short(value: str) -> str:
    """Return *value* as a group or deduplication id; SQS takes neither long nor strange ones."""
    return codec.short_id(value, limit=MAX_ID, legal=LEGAL_ID)


def encode(message: Message, *, dead_letter: DeadLetterInfo | None = None) -> codec.TextMessage:
    """Return *message* as text, with user attributes packed together if SQS would refuse their number."""
    # Else SQS sees to the delay by itself, and nobody asks when it ends.
    tells = message.delay > MAX_DELAY or (message.delay > 0 and message.time_to_live is not None)
    wait = message.delay if tells else None
    text = codec.encode_text(message, dead_letter=dead_letter, wait=wait)
    if len(text.attributes) > MAX_ATTRIBUTES:
        return codec.encode_text(message, dead_letter=dead_letter, wait=wait, pack_attributes=True)
    return text


def typed(attributes: Mapping[str, str]) -> dict[str, Mapping[str, Any]]:
    """Return text attributes as SQS wants them."""
    return {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}


def size(body: str, attributes: Attributes) -> int:
    """Bytes that SQS counts: body, attribute names, types and values.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html
    """
    return len(body.encode()) + sum(
        len(name.encode()) + len(str(value.get("DataType", "")).encode()) + len(_content(value))
        for name, value in attributes.items()
    )


def entry(index: int, message: Message, queue: Queue) -> SendMessageBatchRequestEntryTypeDef:
    """Return *message* as an entry of SendMessageBatch. Raises `InvalidMessage` or `UnsupportedOperation`."""
    text = encode(message)
    attributes = typed(text.attributes)
    # The queue's own limit: what leaves no head-room was refused before, or comes back from the dead letters.
    actual, limit = size(text.body, attributes), queue.max_message_size
    if actual > limit:
        raise MessageTooLarge(
            f"message {message.id!r} has {actual} bytes with its attributes, queue {queue.asked!r} takes "
            f"{limit}; make it smaller, or raise the queue's MaximumMessageSize",
            actual=actual,
            limit=limit,
            provider=PROVIDER,
        )
    made: SendMessageBatchRequestEntryTypeDef = {
        "Id": str(index),
        "MessageBody": text.body,
        "MessageAttributes": attributes,  # type: ignore[typeddict-item]
    }
    if queue.fifo:
        made["MessageGroupId"] = short(message.id if message.session_id is None else message.session_id)
        made["MessageDeduplicationId"] = short(message.deduplication_id or message.id)
    elif message.session_id is not None:
        # Fair queues: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html
        made["MessageGroupId"] = short(message.session_id)
    if message.delay:
        made["DelaySeconds"] = _delay(message, queue)
    return made


def deliveries(messages: Sequence[MessageTypeDef], *, queue: Queue, arrival: Arrival) -> list[SqsDelivery]:
    """Return *messages* of one answer, in its order."""
    groups: set[str] = set()
    made = []
    for message in messages:
        group = _group(message, queue)
        made.append(_delivery(message, queue, group in groups, arrival))
        if group is not None:
            groups.add(group)
    return made


def _group(message: MessageTypeDef, queue: Queue) -> str | None:
    """The group by which SQS orders *message*; on a standard queue a group orders nothing."""
    return message.get("Attributes", {}).get("MessageGroupId") if queue.fifo else None


def renewed(delivery: Delivery, until: float) -> Delivery:
    """Return *delivery* as held until *until*."""
    return replace(delivery, leased_until=until)


def _delay(message: Message, queue: Queue) -> int:
    if queue.fifo:
        raise UnsupportedOperation(
            f"message {message.id!r} has a delay of {message.delay:g} s; {queue.asked!r} is a FIFO queue and "
            "delays no single message: send it later, or set the DelaySeconds of the queue",
            provider=PROVIDER,
        )
    longest = queue.capabilities.max_delay
    if message.delay > longest:
        raise InvalidMessage(
            f"message {message.id!r} has a delay of {message.delay:g} s; queue {queue.asked!r} takes at most "
            f"{longest:g} s",
            provider=PROVIDER,
        )
    return timer(message.delay)


def timer(seconds: float) -> int:
    """What SQS is asked to hold back of *seconds*; the rest is for later hops."""
    # Up: a message is never early.
    return min(MAX_DELAY, math.ceil(seconds))


def _delivery(message: MessageTypeDef, queue: Queue, follows: bool, arrival: Arrival) -> SqsDelivery:
    facts = cast("Mapping[str, str]", message.get("Attributes", {}))
    stored: Attributes = message.get("MessageAttributes", {})
    decoded = codec.decode_text(
        message["Body"],
        {name: _shown(value) for name, value in stored.items()},
        fallback_id=message["MessageId"],
        deduplication_id=facts.get("MessageDeduplicationId"),
    )
    placed = _placed(decoded, facts.get("MessageGroupId"), ordered=queue.fifo)
    dead_letter = decoded.dead_letter or _moved_by_broker(facts, placed)
    # In a dead-letter queue nothing waits, and nothing expires.
    times = Times() if dead_letter is not None else _times(decoded, facts, arrival, ordered=queue.fifo)
    return SqsDelivery(
        message=placed,
        receipt=message["ReceiptHandle"],
        broker_id=message["MessageId"],
        delivery_count=int(facts.get("ApproximateReceiveCount", 1)),
        sequence=int(facts["SequenceNumber"]) if "SequenceNumber" in facts else None,
        enqueued_at=_instant(facts.get("SentTimestamp")),
        leased_until=arrival.asked + arrival.lease,
        lease=float(arrival.lease),
        dead_letter=dead_letter,
        problem=decoded.problem,
        follows=follows,
        expires=times.expires,
        received=arrival.asked,
        stored=stored,
        due_in=times.due_in,
    )


@dataclass(frozen=True, slots=True)
class Times:
    """What a message's own claims come to, by the service's clock."""

    due_in: float = 0.0
    expires: float | None = None


def _times(decoded: codec.Decoded, facts: Mapping[str, str], arrival: Arrival, *, ordered: bool) -> Times:
    """*ordered* says that the queue delays no single message, whatever one claims."""
    sent = first_sent(decoded.sent, facts)
    if sent is None:
        return Times()
    now = service_time(facts, arrival)
    wait = 0.0 if ordered else min(decoded.wait or 0.0, float(MAX_HOPPED_DELAY))
    due_in = sent / 1000 + wait - now
    life = decoded.message.time_to_live
    return Times(
        # A delay that SQS keeps itself is over when the message comes.
        due_in=max(0.0, due_in) if wait > MAX_DELAY else 0.0,
        expires=None if life is None else arrival.came + due_in + life,
    )


def first_sent(claimed: int | None, facts: Mapping[str, str]) -> int | None:
    """When the message was sent at first, in milliseconds of the service's clock: what a copy says of that,
    but never later than the copy itself."""
    if "SentTimestamp" not in facts:
        return None
    stored = int(facts["SentTimestamp"])
    return stored if claimed is None else min(claimed, stored)


def service_time(facts: Mapping[str, str], arrival: Arrival) -> float:
    """The service's own time of *arrival*, in Unix seconds, never this machine's. Where it was not told it is
    too early rather than too late: then a message may be late, and none is early."""
    if arrival.service is not None:
        return arrival.service
    return int(facts.get("ApproximateFirstReceiveTimestamp", facts["SentTimestamp"])) / 1000


def _placed(decoded: codec.Decoded, group: str | None, *, ordered: bool) -> Message:
    """The message with the session that SQS orders by, and without a deduplication id that nobody gave."""
    message = decoded.message
    session_id = message.session_id
    copy = decoded.dead_letter is not None and group is not None and group.startswith(COPY_PREFIX)
    if group is None or copy:
        # A dead-letter copy has a group of its own, and shows the session it came from.
        pass
    elif session_id is None:
        session_id = None if group == short(message.id) else group
    elif ordered and short(session_id) != group:
        # Another tool copied a message of ours into a group of its choice: that is the one that holds.
        session_id = group
    given = message.deduplication_id
    deduplication_id = None if given == short(message.id) else given
    if (session_id, deduplication_id) == (message.session_id, given):
        return message
    return replace(message, session_id=session_id, deduplication_id=deduplication_id)


def _moved_by_broker(facts: Mapping[str, str], message: Message) -> DeadLetterInfo | None:
    source = facts.get("DeadLetterQueueSourceArn")
    if source is None:
        return None
    return DeadLetterInfo(
        reason=MOVED_BY_BROKER,
        queue=name_in(source),
        session_id=message.session_id,
        message_id=message.id,
    )


def _instant(milliseconds: str | None) -> datetime | None:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC) if milliseconds else None


def _shown(value: Mapping[str, Any]) -> str:
    """An attribute's value as text: numbers as they are written, bytes (of other tools) as base64."""
    if "BinaryValue" in value:
        return base64.b64encode(value["BinaryValue"]).decode("ascii")
    return str(value.get("StringValue", ""))


def _content(value: Mapping[str, Any]) -> bytes:
    if "BinaryValue" in value:
        return bytes(value["BinaryValue"])
    return str(value.get("StringValue", "")).encode()
