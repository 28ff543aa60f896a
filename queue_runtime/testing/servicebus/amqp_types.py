"""The AMQP 1.0 type system: values to bytes, and bytes from peers that are not trusted to values.

https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-types-v1.0-os.html

`decode` gives plain Python values: every integer and timestamp is an `int`, strings, symbols and characters
are `str`, decimals are their undecoded `bytes`, arrays are lists. `encode` takes plain values, and those of
the classes below where the type on the wire matters: a plain `int` goes out as a long.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from queue_runtime.testing.servicebus.errors import DecodeError

MAX_DEPTH = 32
"""Deeper nesting is refused. What the SDK sends is less than ten deep."""

NULL = b"\x40"

MAP_CODES = (0x40, 0xC1, 0xD1)
"""The constructors of what is read as a map: null is an empty one."""


class UByte(int):
    """0 to 2**8 - 1."""


class UShort(int):
    """0 to 2**16 - 1."""


class UInt(int):
    """0 to 2**32 - 1."""


class ULong(int):
    """0 to 2**64 - 1."""


class Int(int):
    """-2**31 to 2**31 - 1."""


class Timestamp(int):
    """Milliseconds since 1970-01-01 UTC."""


class Symbol(str):
    """ASCII, from a constrained domain: names of properties, conditions, annotations."""


@dataclass(frozen=True, slots=True)
class Described:
    """A value with a descriptor that says what it means."""

    descriptor: Any
    value: Any


@dataclass(frozen=True, slots=True)
class Array:
    """Values of one type, *kind*: a class of this module, int (as long) or UUID."""

    kind: type
    items: Iterable[Any]


# -- bytes to values ----------------------------------------------------------------------------------

Reader = Callable[[bytes, int, int], tuple[Any, int]]
"""Takes the buffer, the position after the constructor, and the depth; gives the value and where it ends."""


def decode(buffer: bytes, position: int = 0) -> tuple[Any, int]:
    """Return the value at *position* and the position after it; raises `DecodeError`, and nothing else."""
    try:
        return _decode(buffer, position, 0)
    except (IndexError, struct.error) as exc:
        raise DecodeError(f"a value that begins at byte {position} is cut off") from exc
    except UnicodeDecodeError as exc:
        raise DecodeError(f"a string after byte {position} is not UTF-8, or a symbol not ASCII") from exc


def map_entries(buffer: bytes, position: int = 0) -> tuple[dict[Any, bytes], int]:
    """Read a map (or null) as `decode` does, but leave every entry, key and value, in its encoded form.

    So what a stranger wrote can be passed on byte for byte.
    """
    value, end = decode(buffer, position)
    if value is None:
        return {}, end
    if not isinstance(value, dict):
        raise DecodeError(f"expected a map at byte {position}, not {type(value).__name__}")
    position += 3 if buffer[position] == 0xC1 else 9
    entries = {}
    while position < end:
        key, middle = decode(buffer, position)
        _, after = decode(buffer, middle)
        entries[key] = buffer[position:after]
        position = after
    return entries, end


def _decode(buffer: bytes, position: int, depth: int) -> tuple[Any, int]:
    code = buffer[position]
    reader = _READERS[code]
    if reader is None:
        raise DecodeError(f"no type has the constructor 0x{code:02x} that stands at byte {position}")
    return reader(buffer, position + 1, depth)


def _constant(value: Any) -> Reader:
    return lambda _buffer, position, _depth: (value, position)


def _number(form: str) -> Reader:
    layout = struct.Struct(form)

    def read(buffer: bytes, position: int, _depth: int) -> tuple[Any, int]:
        return layout.unpack_from(buffer, position)[0], position + layout.size

    return read


def _small(buffer: bytes, position: int, _depth: int) -> tuple[int, int]:
    return buffer[position], position + 1


def _boolean(buffer: bytes, position: int, _depth: int) -> tuple[bool, int]:
    if buffer[position] > 1:
        raise DecodeError(f"a boolean is 0 or 1, not {buffer[position]}")
    return buffer[position] == 1, position + 1


def _char(buffer: bytes, position: int, _depth: int) -> tuple[str, int]:
    (point,) = _U32.unpack_from(buffer, position)
    if point > 0x10FFFF:
        raise DecodeError(f"no character has the number 0x{point:x}")
    return chr(point), position + 4


def _uuid(buffer: bytes, position: int, _depth: int) -> tuple[UUID, int]:
    return UUID(bytes=_cut(buffer, position, position + 16)), position + 16


def _opaque(width: int) -> Reader:
    return lambda buffer, position, _depth: (_cut(buffer, position, position + width), position + width)


def _cut(buffer: bytes, start: int, end: int) -> bytes:
    if end > len(buffer):
        raise DecodeError(f"{end - start} bytes should follow byte {start}, only {len(buffer) - start} do")
    return buffer[start:end]


def _variable(wide: bool, convert: Callable[[bytes], Any]) -> Reader:
    def read(buffer: bytes, position: int, _depth: int) -> tuple[Any, int]:
        if wide:
            start = position + 4
            end = start + _U32.unpack_from(buffer, position)[0]
        else:
            start = position + 1
            end = start + buffer[position]
        return convert(_cut(buffer, start, end)), end

    return read


def _open_compound(buffer: bytes, position: int, depth: int, wide: bool) -> tuple[int, int, int]:
    """Return how many items a compound value has, where they begin and where they end."""
    if depth >= MAX_DEPTH:
        raise DecodeError(f"values are nested more than {MAX_DEPTH} deep")
    if wide:
        size, count = _U32_PAIR.unpack_from(buffer, position)
        first, end = position + 8, position + 4 + size
    else:
        size, count = buffer[position], buffer[position + 1]
        first, end = position + 2, position + 1 + size
    # Items of no width (an array of nulls) could claim 2**32 of themselves in ten bytes.
    if end > len(buffer) or count > size:
        raise DecodeError(f"a compound value at byte {position} claims {size} bytes and {count} items")
    return count, first, end


def _close_compound(position: int, end: int) -> None:
    if position != end:
        raise DecodeError(f"the items of a compound value end at byte {position}, it at {end}")


def _list(wide: bool) -> Reader:
    def read(buffer: bytes, position: int, depth: int) -> tuple[list[Any], int]:
        count, position, end = _open_compound(buffer, position, depth, wide)
        items = []
        for _ in range(count):
            item, position = _decode(buffer, position, depth + 1)
            items.append(item)
        _close_compound(position, end)
        return items, end

    return read


def _map(wide: bool) -> Reader:
    def read(buffer: bytes, position: int, depth: int) -> tuple[dict[Any, Any], int]:
        count, position, end = _open_compound(buffer, position, depth, wide)
        if count % 2:
            raise DecodeError(f"a map has keys and values in pairs, not {count} items")
        entries = {}
        for _ in range(count // 2):
            key, position = _decode(buffer, position, depth + 1)
            if isinstance(key, list | dict | Described):
                raise DecodeError(f"a map's key is a simple value, not {type(key).__name__}")
            entries[key], position = _decode(buffer, position, depth + 1)
        _close_compound(position, end)
        return entries, end

    return read


def _array(wide: bool) -> Reader:
    def read(buffer: bytes, position: int, depth: int) -> tuple[list[Any], int]:
        count, position, end = _open_compound(buffer, position, depth, wide)
        described = buffer[position] == 0
        descriptor = None
        if described:
            descriptor, position = _decode(buffer, position + 1, depth + 1)
        reader = _READERS[buffer[position]]
        if reader is None or buffer[position] == 0:
            raise DecodeError(f"an array's items have no type 0x{buffer[position]:02x}")
        position += 1
        items = []
        for _ in range(count):
            item, position = reader(buffer, position, depth + 1)
            items.append(Described(descriptor, item) if described else item)
        _close_compound(position, end)
        return items, end

    return read


def _described(buffer: bytes, position: int, depth: int) -> tuple[Described, int]:
    if depth >= MAX_DEPTH:
        raise DecodeError(f"values are nested more than {MAX_DEPTH} deep")
    descriptor, position = _decode(buffer, position, depth + 1)
    value, position = _decode(buffer, position, depth + 1)
    return Described(descriptor, value), position


def _utf8(raw: bytes) -> str:
    return raw.decode()


def _ascii(raw: bytes) -> str:
    return raw.decode("ascii")


_U32 = struct.Struct(">I")
_U32_PAIR = struct.Struct(">II")

_READERS: list[Reader | None] = [None] * 256
for _code, _reader in {
    0x00: _described,
    0x40: _constant(None),
    0x41: _constant(True),
    0x42: _constant(False),
    0x43: _constant(0),
    0x44: _constant(0),
    0x45: lambda _buffer, position, _depth: ([], position),
    0x50: _small,
    0x51: _number(">b"),
    0x52: _small,
    0x53: _small,
    0x54: _number(">b"),
    0x55: _number(">b"),
    0x56: _boolean,
    0x60: _number(">H"),
    0x61: _number(">h"),
    0x70: _number(">I"),
    0x71: _number(">i"),
    0x72: _number(">f"),
    0x73: _char,
    0x74: _opaque(4),
    0x80: _number(">Q"),
    0x81: _number(">q"),
    0x82: _number(">d"),
    0x83: _number(">q"),
    0x84: _opaque(8),
    0x94: _opaque(16),
    0x98: _uuid,
    0xA0: _variable(False, bytes),
    0xA1: _variable(False, _utf8),
    0xA3: _variable(False, _ascii),
    0xB0: _variable(True, bytes),
    0xB1: _variable(True, _utf8),
    0xB3: _variable(True, _ascii),
    0xC0: _list(False),
    0xC1: _map(False),
    0xD0: _list(True),
    0xD1: _map(True),
    0xE0: _array(False),
    0xF0: _array(True),
}.items():
    _READERS[_code] = _reader


# -- values to bytes ----------------------------------------------------------------------------------

Writer = Callable[[Any], bytes]


def encode(value: Any) -> bytes:
    """Return *value* with its constructor; `TypeError` if its class is none of those that AMQP knows."""
    return encode_as(type(value), value)


def encode_as(kind: type, value: Any) -> bytes:
    """Return *value* as a value of *kind*: ``encode_as(UInt, 5)`` is ``encode(UInt(5))``."""
    writer = _WRITERS.get(kind)
    if writer is None:
        raise TypeError(f"no AMQP type for {kind.__name__}: {value!r}")
    return writer(value)


def encode_items(code: int, items: Iterable[bytes]) -> bytes:
    """Return a list (0xC0) or map (0xC1) of what is encoded already."""
    parts = list(items)
    body = b"".join(parts)
    if len(body) < 255 and len(parts) < 256:
        return bytes((code, len(body) + 1, len(parts))) + body
    return bytes((code | 0x10,)) + _U32_PAIR.pack(len(body) + 4, len(parts)) + body


def encode_entries(entries: Iterable[bytes]) -> bytes:
    """Return a map of entries (a key and a value each) that are encoded already; see `map_entries`."""
    parts = list(entries)
    return b"\xd1" + _U32_PAIR.pack(sum(map(len, parts)) + 4, 2 * len(parts)) + b"".join(parts)


def _integer(zero: bytes, small: int, wide: int, form: str, *, signed: bool = False) -> Writer:
    layout = struct.Struct(f">B{form}")
    low, high = (-128, 127) if signed else (1, 255)

    def write(value: int) -> bytes:
        if value == 0 and zero:
            return zero
        if low <= value <= high:
            return bytes((small, value & 0xFF))
        return layout.pack(wide, value)

    return write


def _fixed(code: int, form: str) -> Writer:
    layout = struct.Struct(f">B{form}")
    return lambda value: layout.pack(code, value)


def _sized(small: int, raw: bytes) -> bytes:
    if len(raw) < 256:
        return bytes((small, len(raw))) + raw
    return bytes((small | 0x10,)) + _U32.pack(len(raw)) + raw


def _write_array(array: Array) -> bytes:
    code, write = _ELEMENTS[array.kind]
    parts = [write(item) for item in array.items]
    size = sum(map(len, parts))
    return b"\xf0" + _U32_PAIR.pack(size + 5, len(parts)) + bytes((code,)) + b"".join(parts)


_WRITERS: dict[type, Writer] = {
    type(None): lambda _: NULL,
    bool: lambda value: b"\x41" if value else b"\x42",
    UByte: _fixed(0x50, "B"),
    UShort: _fixed(0x60, "H"),
    UInt: _integer(b"\x43", 0x52, 0x70, "I"),
    ULong: _integer(b"\x44", 0x53, 0x80, "Q"),
    Int: _integer(b"", 0x54, 0x71, "i", signed=True),
    int: _integer(b"", 0x55, 0x81, "q", signed=True),
    Timestamp: _fixed(0x83, "q"),
    float: _fixed(0x82, "d"),
    UUID: lambda value: b"\x98" + value.bytes,
    bytes: lambda value: _sized(0xA0, value),
    str: lambda value: _sized(0xA1, value.encode()),
    Symbol: lambda value: _sized(0xA3, value.encode("ascii")),
    list: lambda value: encode_items(0xC0, map(encode, value)) if value else b"\x45",
    dict: lambda value: encode_items(0xC1, (encode(part) for entry in value.items() for part in entry)),
    Described: lambda value: b"\x00" + encode(value.descriptor) + encode(value.value),
    Array: _write_array,
}

_ELEMENTS: dict[type, tuple[int, Writer]] = {
    UInt: (0x70, struct.Struct(">I").pack),
    int: (0x81, struct.Struct(">q").pack),
    Timestamp: (0x83, struct.Struct(">q").pack),
    UUID: (0x98, lambda value: value.bytes),
    Symbol: (0xB3, lambda value: _U32.pack(len(value)) + value.encode("ascii")),
}
