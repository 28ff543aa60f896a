"""What can be read of a message that the SDK cannot decode, so that it can be shown and put aside.

Such a message ends a receiver of the SDK without a word, comes again, and ends the next one; at the head of a
session it stands in the way of all that follows. Any sender can make one: a decimal that azure-servicebus
itself has written is enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from azure.servicebus._pyamqp._decode import decode_payload
from azure.servicebus._pyamqp.message import Message

_WIDTHS = {0x4: 0, 0x5: 1, 0x6: 2, 0x7: 4, 0x8: 8, 0x9: 16}
"""Bytes of a value by the upper half of its constructor, where they are fixed. Others tell their size.
https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-types-v1.0-os.html#section-encodings"""

_LISTS, _MAPS = (0xC0, 0xD0), (0xC1, 0xD1)
_DATA, _SEQUENCE, _VALUE = 0x75, 0x76, 0x77
_NULL = b"\x40"
_DESCRIBED = b"\x00\x53"


class Salvaged(Message):
    """A message without what could not be read of it. What of its body cannot be read is there as it came."""

    problem: str
    """Why it is not the whole message."""


def decode(payload: bytes) -> Message:
    """The message of *payload*, a `Salvaged` one if the SDK cannot decode it. Raises nothing."""
    try:
        return decode_payload(memoryview(payload))
    except Exception as exc:  # whatever is wrong with it, others wait behind it
        found = Salvaged(**_fields(map(_mended, _sections(payload))))
        found.problem = f"azure-servicebus cannot decode it ({type(exc).__name__}: {exc})"
        return found


def problem(message: Message) -> str | None:
    """Why *message* is not whole; None if it is."""
    return message.problem if isinstance(message, Salvaged) else None


def _fields(sections: Iterable[bytes]) -> dict[str, Any]:
    """What *sections* say, each decoded by itself: a size that is wrong in one stays its own matter."""
    fields: dict[str, Any] = {}
    for section in sections:
        for name, value in decode_payload(memoryview(section))._asdict().items():
            if value is not None:
                fields[name] = fields.get(name, []) + value if name in ("data", "sequence") else value
    return fields


def _sections(payload: bytes) -> Iterator[bytes]:
    """The sections of a message, as far as they can be told apart."""
    position = 0
    try:
        while position < len(payload):
            end = _end(payload, position)
            yield payload[position:end]
            position = end
    except (ValueError, IndexError, RecursionError):
        return


def _mended(section: bytes) -> bytes:
    """*section* without what cannot be decoded: entries of a map, fields of a list, which become null."""
    if _decodes(section):
        return section
    try:
        code, constructor = section[2], section[3]
        if code in (_DATA, _SEQUENCE, _VALUE):
            return _DESCRIBED + bytes((_DATA, 0xB0)) + len(section[3:]).to_bytes(4) + section[3:]
        items = list(_items(section[3:]))
        if constructor in _MAPS:
            pairs = zip(items[::2], items[1::2], strict=True)
            items = [item for pair in pairs if all(map(_is_readable, pair)) for item in pair]
        else:
            items = [item if _is_readable(item) else _NULL for item in items]
        wide = (_MAPS if constructor in _MAPS else _LISTS)[1]
        body = len(items).to_bytes(4) + b"".join(items)
        mended = _DESCRIBED + bytes((code, wide)) + len(body).to_bytes(4) + body
    except (ValueError, IndexError, RecursionError):
        return b""
    return mended if _decodes(mended) else b""


def _items(compound: bytes) -> Iterator[bytes]:
    """The items of a list or a map; none of another value."""
    if compound[0] not in _LISTS + _MAPS:
        return
    width = 4 if compound[0] & 0x10 else 1
    position = 1 + 2 * width
    for _ in range(int.from_bytes(compound[1 + width : position])):
        end = _end(compound, position)
        yield compound[position:end]
        position = end


def _is_readable(value: bytes) -> bool:
    return _decodes(_DESCRIBED + bytes((_VALUE,)) + value)


def _decodes(section: bytes) -> bool:
    try:
        decode_payload(memoryview(section))
    except Exception:  # what it raises depends on what is wrong
        return False
    return True


def _end(data: bytes, start: int) -> int:
    """Where the value ends that begins at *start*."""
    constructor = data[start]
    if constructor == 0x00:  # described: the descriptor, then the value
        return _end(data, _end(data, start + 1))
    kind = constructor >> 4
    if kind in _WIDTHS:
        end = start + 1 + _WIDTHS[kind]
    elif kind >= 0xA:
        width = 4 if kind & 1 else 1
        end = start + 1 + width + int.from_bytes(data[start + 1 : start + 1 + width])
    else:
        raise ValueError(f"no value of AMQP begins with {constructor:#04x}")
    if end > len(data):
        raise ValueError("the value is longer than the message")
    return end
