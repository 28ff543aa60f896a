"""Messages: taken apart where the broker must look inside, passed on byte for byte where it need not.

https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-messaging-v1.0-os.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from queue_runtime.testing.servicebus.amqp_types import (
    MAP_CODES,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    decode,
    encode,
    encode_entries,
    map_entries,
)
from queue_runtime.testing.servicebus.errors import DecodeError
from queue_runtime.testing.servicebus.performatives import Composite, amqp, composite

BATCH_FORMAT = 0x80013700
"""The message-format of a transfer whose data sections are messages themselves."""

_HEADER = 0x70
_DELIVERY_ANNOTATIONS = 0x71
_MESSAGE_ANNOTATIONS = 0x72
_PROPERTIES = 0x73
_APPLICATION_PROPERTIES = 0x74
_DATA = 0x75
_SEQUENCE = 0x76
_VALUE = 0x77
_FOOTER = 0x78

_BODY = {_DATA, _SEQUENCE, _VALUE}


@composite(_HEADER)
class Header(Composite):
    durable: bool | None = amqp(bool, default=None)
    priority: int | None = amqp(UByte, default=None)
    ttl: int | None = amqp(UInt, default=None)  # milliseconds
    first_acquirer: bool | None = amqp(bool, default=None)
    delivery_count: int | None = amqp(UInt, default=None)


@composite(_PROPERTIES)
class Properties(Composite):
    message_id: Any = amqp(object, default=None)
    user_id: Any = amqp(object, default=None)
    to: Any = amqp(object, default=None)
    subject: Any = amqp(object, default=None)
    reply_to: str | None = amqp(str, default=None)
    correlation_id: Any = amqp(object, default=None)
    content_type: Any = amqp(object, default=None)
    content_encoding: Any = amqp(object, default=None)
    absolute_expiry_time: int | None = amqp(Timestamp, default=None)
    creation_time: int | None = amqp(Timestamp, default=None)
    group_id: str | None = amqp(str, default=None)
    group_sequence: Any = amqp(object, default=None)
    reply_to_group_id: Any = amqp(object, default=None)


@dataclass(frozen=True, slots=True)
class Message:
    """The sections of a message. Bytes are whole sections as they came, empty where there was none."""

    header: Header = field(default_factory=Header)
    delivery_annotations: Mapping[Any, bytes] = field(default_factory=dict)
    message_annotations: Mapping[Any, bytes] = field(default_factory=dict)
    properties: bytes = b""
    application_properties: bytes = b""
    body: bytes = b""
    footer: bytes = b""

    @classmethod
    def parse(cls, payload: bytes) -> Message:
        """Take *payload* apart; raises `DecodeError`. Sections may come in any order: the SDK has its own."""
        whole: dict[int, bytes] = {}
        values: dict[int, int] = {}
        body = []
        position = 0
        while position < len(payload):
            code, start, end = _section(payload, position)
            if code in _BODY:
                body.append(payload[position:end])
            elif code in whole:
                raise DecodeError(f"a message has one section {code:#x}, not two")
            else:
                if code == _APPLICATION_PROPERTIES and payload[start] not in MAP_CODES:
                    raise DecodeError("the application properties of a message are a map")
                whole[code] = payload[position:end]
                values[code] = start
            position = end

        def entries(code: int) -> dict[Any, bytes]:
            return map_entries(payload, values[code])[0] if code in values else {}

        return cls(
            header=Header.read(decode(payload, values[_HEADER])[0] if _HEADER in values else []),
            delivery_annotations=entries(_DELIVERY_ANNOTATIONS),
            message_annotations=entries(_MESSAGE_ANNOTATIONS),
            properties=whole.get(_PROPERTIES, b""),
            application_properties=whole.get(_APPLICATION_PROPERTIES, b""),
            body=b"".join(body),
            footer=whole.get(_FOOTER, b""),
        )

    def read_properties(self) -> Properties:
        return Properties.read(_value_of(self.properties)) if self.properties else Properties()

    def read_application_properties(self) -> dict[Any, Any]:
        return (_value_of(self.application_properties) if self.application_properties else None) or {}

    def read_value(self) -> Any:
        """Return what the body's first section holds: of a request, its one AMQP value."""
        return _value_of(self.body) if self.body else None

    def annotation(self, name: str) -> Any:
        """Return the value of a message annotation; None if the message has it not."""
        entry = self.message_annotations.get(name)
        if entry is None:
            return None
        _, start = decode(entry)
        return decode(entry, start)[0]

    def data(self) -> Iterator[bytes]:
        """The content of the data sections; in a batch each is a message. Raises `DecodeError`."""
        position = 0
        while position < len(self.body):
            code, start, position = _section(self.body, position)
            content, _ = decode(self.body, start)
            if code != _DATA or not isinstance(content, bytes):
                raise DecodeError("the body of a batch is data sections, each a message")
            yield content

    def with_application_properties(self, added: Mapping[Any, Any]) -> Message:
        """Return the message with these properties, in place of any that have their names.

        Raises `DecodeError` if one of them has a value that AMQP does not know.
        """
        entries: dict[Any, bytes] = {}
        if self.application_properties:
            _, start, _ = _section(self.application_properties, 0)
            entries, _ = map_entries(self.application_properties, start)
        try:
            entries |= _encoded(str, added)
        except (TypeError, struct.error) as exc:
            raise DecodeError(f"no application property can be made of {added!r:.200}") from exc
        return replace(
            self, application_properties=_head(_APPLICATION_PROPERTIES) + encode_entries(entries.values())
        )

    def encode(
        self,
        *,
        delivery_count: int,
        delivery_annotations: Mapping[str, Any],
        message_annotations: Mapping[str, Any],
    ) -> bytes:
        """Put the sections together again. The annotations given here replace the sender's of those names."""
        parts = [replace(self.header, delivery_count=delivery_count).encode()]
        if ours := {**self.delivery_annotations, **_encoded(Symbol, delivery_annotations)}:
            parts += [_head(_DELIVERY_ANNOTATIONS), encode_entries(ours.values())]
        if ours := {**self.message_annotations, **_encoded(Symbol, message_annotations)}:
            parts += [_head(_MESSAGE_ANNOTATIONS), encode_entries(ours.values())]
        parts += [self.properties, self.application_properties, self.body, self.footer]
        return b"".join(parts)


def response(correlation_id: Any, application_properties: Mapping[str, Any], value: Any) -> bytes:
    """Return a message that answers a request."""
    return b"".join(
        (
            Properties(correlation_id=correlation_id).encode(),
            _head(_APPLICATION_PROPERTIES),
            encode(dict(application_properties)),
            _head(_VALUE),
            encode(value),
        )
    )


def _head(code: int) -> bytes:
    return bytes((0x00, 0x53, code))


def _section(buffer: bytes, position: int) -> tuple[int, int, int]:
    """Return the code of the section at *position*, where its value begins, and where it ends."""
    if buffer[position] != 0:
        raise DecodeError(f"no section of a message begins at byte {position}")
    code, start = decode(buffer, position + 1)
    if not isinstance(code, int) or not _HEADER <= code <= _FOOTER:
        raise DecodeError(f"a message has no section {code!r:.60}")
    return code, start, decode(buffer, start)[1]


def _value_of(section: bytes) -> Any:
    _, start, _ = _section(section, 0)
    return decode(section, start)[0]


def _encoded(key_kind: type, values: Mapping[str, Any]) -> dict[Any, bytes]:
    return {key: encode(key_kind(key)) + encode(value) for key, value in values.items()}
