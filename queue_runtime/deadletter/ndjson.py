"""A dead letter as one line of JSON, and back. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from queue_runtime.codec import read_info, written_info
from queue_runtime.deadletter.copies import replay_id
from queue_runtime.errors import DecodeError, QueueError
from queue_runtime.message import Delivery, Message, check_id

_TEXTS = ("session_id", "content_type", "correlation_id", "deduplication_id")


def written(delivery: Delivery) -> str:
    """*delivery* as JSON without a line break in it; plain ASCII. What is not known is left out."""
    message = delivery.message
    line: dict[str, Any] = {"id": message.id}
    line |= {name: value for name in _TEXTS if (value := getattr(message, name)) is not None}
    line |= _body(message.body)
    line["attributes"] = dict(message.attributes)
    if message.time_to_live is not None:
        line["time_to_live"] = message.time_to_live
    line["replays"] = message.replays
    if delivery.dead_letter is not None:
        line["dead_letter"] = written_info(delivery.dead_letter)
    facts = {
        "broker_id": delivery.broker_id,
        "sequence": delivery.sequence,
        "delivery_count": delivery.delivery_count,
        "enqueued_at": None if delivery.enqueued_at is None else delivery.enqueued_at.isoformat(),
        "problem": delivery.problem,
    }
    line |= {name: value for name, value in facts.items() if value is not None}
    return json.dumps(line, separators=(",", ":"))


def read(text: str) -> Delivery:
    """What `written` wrote, or a person: `id` and one of `body` and `body_base64` are needed, and no more.

    What is not known by name is passed over. Raises `DecodeError` naming the field.
    """
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise DecodeError(f"it is not JSON: {exc}") from exc
    if not isinstance(line, dict):
        raise DecodeError(f"it is not a JSON object but a {type(line).__name__}")
    broker_id = _field(line, "broker_id", str)
    try:
        if broker_id is not None:
            check_id(replay_id(broker_id), "broker_id, with what a replay puts before it,")
        message = _message(line)
    except DecodeError:
        raise
    except QueueError as exc:  # a name or a number that no message may have
        raise DecodeError(str(exc)) from exc
    info = read_info(line.get("dead_letter"))
    if info is None and line.get("dead_letter") is not None:
        raise DecodeError("dead_letter is not an object with a reason")
    return Delivery(
        message=message,
        receipt="",
        broker_id=_hash(text) if broker_id is None else broker_id,
        delivery_count=_field(line, "delivery_count", int) or 1,
        sequence=_field(line, "sequence", int),
        enqueued_at=_instant(line),
        leased_until=0.0,
        lease=0.0,
        dead_letter=info,
        problem=_field(line, "problem", str),
    )


def _message(line: Mapping[str, Any]) -> Message:
    message_id = _field(line, "id", str)
    if message_id is None:
        raise DecodeError("id is missing")
    attributes = _field(line, "attributes", dict) or {}
    message = Message(
        body=_read_body(line),
        id=message_id,
        attributes=attributes,
        replays=_field(line, "replays", int) or 0,
        time_to_live=_number(line, "time_to_live"),
    )
    return replace(message, **{name: _field(line, name, str) for name in _TEXTS})


def _body(body: bytes) -> dict[str, str]:
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode("ascii")}


def _read_body(line: Mapping[str, Any]) -> bytes:
    text, coded = _field(line, "body", str), _field(line, "body_base64", str)
    if (text is None) == (coded is None):
        raise DecodeError("one of body and body_base64 is needed, and not both")
    try:
        return text.encode() if text is not None else base64.b64decode(coded or "", validate=True)
    except UnicodeEncodeError as exc:
        raise DecodeError(f"body has half a surrogate pair: {exc}") from exc
    except (binascii.Error, ValueError) as exc:
        raise DecodeError(f"body_base64 is not base64: {exc}") from exc


def _field(line: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    """The value of a field, None if it is not there."""
    value = line.get(name)
    if value is not None and type(value) is not kind:
        raise DecodeError(f"{name} must be {_KINDS[kind]}, it is {value!r:.60}")
    return value


_KINDS = {str: "a text", int: "a whole number", dict: "an object of texts"}


def _number(line: Mapping[str, Any], name: str) -> float | None:
    value = line.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise DecodeError(f"{name} must be a number, it is {value!r:.60}")
    return value


def _instant(line: Mapping[str, Any]) -> datetime | None:
    text = _field(line, "enqueued_at", str)
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError as exc:
        raise DecodeError(f"enqueued_at is no instant: {exc}") from exc


def _hash(text: str) -> str:
    """In the place of the broker's id, for a line that was written by hand: the same at every import."""
    return "line-" + hashlib.sha256(text.strip().encode("utf-8", "surrogatepass")).hexdigest()[:32]
