"""What Amazon SNS puts into a queue: a JSON envelope with the published message inside.

https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeVar, overload

from queue_runtime import payloads
from queue_runtime.errors import DecodeError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class SnsNotification:
    """A published message, by the name that its envelope has for each thing. Nothing of it is verified:
    whoever may send to the queue may write such an envelope."""

    message: str = field(repr=False)
    """What was published."""
    message_id: str
    """SNS's id of it: the same in every queue that the topic delivers to."""
    topic_arn: str
    subject: str | None = None
    published_at: datetime | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    """The publisher's message attributes; one of type Binary is base64, as it is in the envelope."""

    @classmethod
    def of(cls, body: bytes) -> SnsNotification:
        """Read the envelope that *body* is. Raises `DecodeError` if it is none."""
        try:
            found = json.loads(body)
        except (ValueError, RecursionError) as exc:
            raise DecodeError(f"the body is no SNS notification: it is not JSON: {exc}") from exc
        kind = found.get("Type") if isinstance(found, dict) else None
        if kind != "Notification":
            raise DecodeError(
                f"the body is no SNS notification: its Type is {kind!r}, not 'Notification'; read it as it "
                "is (with raw message delivery SNS sends no envelope)"
            )
        for name in ("Message", "MessageId", "TopicArn"):
            if not isinstance(found.get(name), str):
                raise DecodeError(f"the body is no SNS notification: {name} is {found.get(name)!r}, not text")
        subject = found.get("Subject")
        return cls(
            message=found["Message"],
            message_id=found["MessageId"],
            topic_arn=found["TopicArn"],
            subject=subject if isinstance(subject, str) else None,
            published_at=_instant(found.get("Timestamp")),
            attributes=MappingProxyType(_attributes(found.get("MessageAttributes"))),
        )

    @overload
    def payload(self) -> Any: ...

    @overload
    def payload(self, payload_type: type[T]) -> T: ...

    def payload(self, payload_type: type[Any] | None = None) -> Any:
        """Decode the published message as JSON, as `MessageView.payload` does a body."""
        return payloads.decode(self.message.encode("utf-8", "surrogatepass"), payload_type)


def _attributes(found: object) -> dict[str, str]:
    """``{"name": {"Type": "String", "Value": "text"}}`` without the types."""
    if not isinstance(found, dict):
        return {}
    values = {name: entry.get("Value") for name, entry in found.items() if isinstance(entry, dict)}
    return {name: value for name, value in values.items() if isinstance(value, str)}


def _instant(text: object) -> datetime | None:
    try:
        read = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return None if read is None or read.tzinfo is None else read
