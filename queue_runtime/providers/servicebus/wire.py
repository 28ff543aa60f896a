"""Messages as they travel: ours to the service's native fields, and back from any sender's."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage
from azure.servicebus.amqp import AmqpMessageBodyType

from queue_runtime.codec import (
    REPLAYS,
    TIME_TO_LIVE,
    compact,
    life_story,
    read_info,
    read_ours,
    short_id,
    written_info,
)
from queue_runtime.message import RESERVED_ATTRIBUTE, DeadLetterInfo, Delivery, Message
from queue_runtime.providers.servicebus import sdk
from queue_runtime.providers.servicebus.limits import LONGEST_LIFE, MAX_DESCRIPTION, MAX_ID

SHARDS = 64
"""Sessions that messages without a session id are spread over on a queue that wants one: a session each would
cost an opening for every message."""

_SHARD = "queue_runtime-none-"

_ANY = re.compile(r".*", re.DOTALL)
_HASHED = re.compile(r"q-[0-9a-f]{64}")

_REASON, _DESCRIPTION = "DeadLetterReason", "DeadLetterErrorDescription"

_BROKERS_REASONS = {
    "MaxDeliveryCountExceeded": "MaxReceivesExceeded",
    "TTLExpiredException": "TimeToLiveExpired",
}
"""The service's own word for it -> ours."""

_INFO_MARK = "queue_runtime"
"""The key under which a dead letter's description, as JSON, holds the record."""

_PER_FIELD, _PER_ATTRIBUTE, _PER_MESSAGE = 8, 16, 128
"""Bytes beside the values themselves, at most: constructors and lengths of AMQP, section headers, the entry's
place in a batch. https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-types-v1.0-os.html"""


def size(message: Message) -> int:
    """Bytes of *message* as it travels, a little more rather than less."""
    ids = (_short(message.deduplication_id or message.id), _short(message.session_id or _SHARD + "00"))
    fields = (*ids, message.content_type, message.correlation_id)
    text = sum(_PER_FIELD + len(value.encode()) for value in fields if value is not None)
    attributes = {**message.attributes, **_reserved(message)}
    named = sum(
        _PER_ATTRIBUTE + len(name.encode()) + len(value.encode()) for name, value in attributes.items()
    )
    return _PER_MESSAGE + len(message.body) + text + named


def outgoing(message: Message, *, sessions: bool) -> ServiceBusMessage:
    """*message* for the SDK. On a queue with *sessions* one without an id gets one of the shards'."""
    session_id = None
    if message.session_id is not None:
        session_id = _short(message.session_id)
    elif sessions:
        session_id = f"{_SHARD}{zlib.crc32(message.id.encode()) % SHARDS:02}"
    properties: dict[str | bytes, Any] = {}
    properties.update(message.attributes)
    properties.update(_reserved(message))
    made = ServiceBusMessage(
        message.body,
        message_id=_short(message.deduplication_id or message.id),
        session_id=session_id,
        content_type=message.content_type,
        correlation_id=message.correlation_id,
        application_properties=properties,
    )
    if message.time_to_live is not None:
        _give_life(made, message.time_to_live)
    return made


def session_id_of(native: str) -> str | None:
    """The program's id of the session that the service calls *native*; None if only its messages know."""
    return None if _HASHED.fullmatch(native) else native


def native_session_id(session_id: str) -> str:
    return _short(session_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What is known of the hold on a message that was handed out."""

    receipt: str
    leased_until: float
    lease: float
    follows: bool = False


LOOKED_AT = Hold(receipt="", leased_until=0.0, lease=0.0)
"""Of a message that was only looked at."""


def delivery(received: ServiceBusReceivedMessage, hold: Hold) -> Delivery:
    """What *received* says. Never raises: what cannot be read becomes a problem of that message."""
    attributes = {_text(k): _text(v) for k, v in (received.application_properties or {}).items()}
    reason, description = attributes.pop(_REASON, None), attributes.pop(_DESCRIPTION, None)
    ours, problem = read_ours(attributes.pop(RESERVED_ATTRIBUTE, None))
    problem = sdk.problem(received) or problem
    sequence, enqueued_at = received.sequence_number, received.enqueued_time_utc
    fallback = f"{sequence}"
    try:
        message = _message(received, attributes, ours, fallback)
    except Exception as exc:  # names of another tool's that ours would refuse: show the message all the same
        problem = problem or f"it has a name that is not portable: {exc}"
        message = Message(body=_body(received), id=fallback)
    before = ours.get("deliveries")
    return Delivery(
        message=message,
        receipt=hold.receipt,
        broker_id=_own(ours, "broker") or broker_id(received),
        delivery_count=1
        + (received.delivery_count or 0)
        + (before if isinstance(before, int) and 0 <= before < 1_000_000 else 0),
        sequence=sequence,
        enqueued_at=None if enqueued_at is None else enqueued_at.replace(tzinfo=UTC),
        leased_until=hold.leased_until,
        lease=hold.lease,
        dead_letter=None if reason is None and description is None else _info(reason, description),
        problem=problem,
        follows=hold.follows,
    )


def broker_id(received: ServiceBusReceivedMessage) -> str:
    """Sequence numbers begin anew when a queue is deleted and made again; with the time they do not meet."""
    enqueued_at = received.enqueued_time_utc
    moment = "" if enqueued_at is None else f"-{int(enqueued_at.timestamp() * 1000):x}"
    return f"{received.sequence_number}{moment}"


def described(info: DeadLetterInfo) -> tuple[str, str]:
    """Reason and description for the service. The record is trimmed where it would not fit, the traceback
    first, down to the reason."""
    known = written_info(info)
    for name in ("traceback", "description", "message_id", "session_id", "queue", "exception", "host", None):
        text = compact({_INFO_MARK: known})
        over = len(text) - MAX_DESCRIPTION
        if over <= 0 or name is None:
            break
        if name in known:
            known[name] = known[name][over:] if name == "traceback" else known[name][: -over or None]
            if len(compact({_INFO_MARK: known})) > MAX_DESCRIPTION:
                del known[name]
    return info.reason[:MAX_DESCRIPTION], text if over <= 0 else ""


def delayed_copy(received: ServiceBusReceivedMessage, due_at: datetime) -> ServiceBusMessage:
    """A copy of *received* to come again at *due_at*, that shows the same ids and goes on counting.

    Its own message id is made from the place, the count and the lock, so that a second copy of the same hold
    is dropped where the queue detects duplicates, and one of a later hold never is: the queue also remembers
    copies that were taken back.
    """
    shown = delivery(received, LOOKED_AT)
    attributes: dict[str | bytes, Any] = dict(received.application_properties or {})
    ours, _ = read_ours(_text(attributes.pop(RESERVED_ATTRIBUTE.encode(), None) or "{}"))
    count = shown.delivery_count
    ours |= {"id": shown.message.id, "deliveries": count, "broker": shown.broker_id}
    if shown.message.time_to_live is not None:
        ours[TIME_TO_LIVE] = shown.message.time_to_live  # all of it, for a replay
    attributes[RESERVED_ATTRIBUTE] = compact(ours)
    copy = ServiceBusMessage(
        _body(received),
        message_id=_short(f"{shown.broker_id}-retry-{count}-{received.lock_token}"),
        session_id=received.session_id,
        content_type=received.content_type,
        correlation_id=received.correlation_id,
        subject=received.subject,
        to=received.to,
        reply_to=received.reply_to,
        reply_to_session_id=received.reply_to_session_id,
        application_properties=attributes,
    )
    expires_at = received.expires_at_utc
    if expires_at is not None:
        # What was left of its life goes on when it is due.
        _give_life(copy, max(1.0, (expires_at.replace(tzinfo=UTC) - due_at).total_seconds()))
    return copy


def follow(first: Delivery) -> Delivery:
    return replace(first, follows=True)


def _message(
    received: ServiceBusReceivedMessage, attributes: Mapping[str, str], ours: Mapping[str, Any], fallback: str
) -> Message:
    native = _optional(received.session_id)
    message_id = _optional(received.message_id)
    told = {"time_to_live": _life(received)} | life_story(ours)
    return Message(
        body=_body(received),
        id=_own(ours, "id") or message_id or fallback,
        session_id=None if native is None or native.startswith(_SHARD) else _own(ours, "sid") or native,
        attributes=attributes,
        content_type=_optional(received.content_type),
        correlation_id=_optional(received.correlation_id),
        deduplication_id=message_id,
        **told,
    )


def _give_life(message: ServiceBusMessage, seconds: float) -> None:
    """Set the time-to-live to the millisecond: the SDK's own way cuts off what is not a whole second. Of one
    beyond seven weeks the field holds no more, and our attribute the rest."""
    message.time_to_live = timedelta(seconds=1)  # so that it has a header
    header = message.raw_amqp_message.header
    if header is not None:
        header.time_to_live = min(max(1, round(seconds * 1000)), LONGEST_LIFE)


def _life(received: ServiceBusReceivedMessage) -> float | None:
    """The time-to-live in seconds; None where there is no end to it that the field could tell."""
    header = received.raw_amqp_message.header
    length = header.time_to_live if header is not None else None
    return None if not length or length >= LONGEST_LIFE else length / 1000


def _reserved(message: Message) -> dict[str, str]:
    """Our attribute, where a native field does not hold it all."""
    ours: dict[str, Any] = {}
    if message.replays:
        ours[REPLAYS] = message.replays
    if message.time_to_live is not None and message.time_to_live * 1000 >= LONGEST_LIFE:
        ours[TIME_TO_LIVE] = message.time_to_live
    if _short(message.deduplication_id or message.id) != message.id:
        ours["id"] = message.id
    if message.session_id is not None and _short(message.session_id) != message.session_id:
        ours["sid"] = message.session_id
    return {RESERVED_ATTRIBUTE: compact(ours)} if ours else {}


def _short(value: str) -> str:
    return short_id(value, limit=MAX_ID, legal=_ANY)


def _body(received: ServiceBusReceivedMessage) -> bytes:
    """Bytes as they are; text as UTF-8; other values of AMQP as JSON."""
    body = received.body
    if received.body_type is AmqpMessageBodyType.DATA:
        return b"".join(bytes(part) for part in body)
    if received.body_type is AmqpMessageBodyType.SEQUENCE:
        body = [item for section in body for item in section]
    if body is None:
        return b""
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    if isinstance(body, str):
        return body.encode("utf-8", "surrogatepass")
    return json.dumps(_plain(body), ensure_ascii=False).encode("utf-8", "surrogatepass")


def _plain(value: Any) -> Any:
    """*value* of AMQP in what JSON can say."""
    if isinstance(value, Mapping):
        return {_text(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "replace")
    if isinstance(value, datetime):
        return value.isoformat()
    return value if isinstance(value, str) else str(value)


def _optional(value: Any) -> str | None:
    return None if value is None else _text(value)


def _own(ours: Mapping[str, Any], name: str) -> str | None:
    value = ours.get(name)
    return value if isinstance(value, str) and value else None


def _info(reason: str | None, description: str | None) -> DeadLetterInfo:
    record = None
    if description is not None and description.startswith("{"):
        try:
            record = read_info(json.loads(description).get(_INFO_MARK))
        except (ValueError, AttributeError, RecursionError):
            record = None
    if record is not None:
        return record
    told = _BROKERS_REASONS.get(reason or "", reason) or "Unknown"
    return DeadLetterInfo(reason=told, description=description or None)
