"""Frames: cut out of a stream of bytes, and put together again.

https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-transport-v1.0-os.html#section-framing
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from queue_runtime.testing.servicebus.errors import FRAMING_ERROR, AmqpError
from queue_runtime.testing.servicebus.performatives import Composite

SASL_HEADER = b"AMQP\x03\x01\x00\x00"
AMQP_HEADER = b"AMQP\x00\x01\x00\x00"

AMQP_FRAME, SASL_FRAME = 0, 1

MAX_FRAME_SIZE = 65536
"""The largest frame the broker takes and sends, as Service Bus does: larger messages travel in several."""

MIN_MAX_FRAME_SIZE = 512

FRAME_OVERHEAD = 8

_HEADER = struct.Struct(">IBBH")


class Frame(NamedTuple):
    kind: int
    channel: int
    body: bytes


def frame(channel: int, performative: Composite, payload: bytes = b"", *, kind: int = AMQP_FRAME) -> bytes:
    body = performative.encode()
    return _HEADER.pack(FRAME_OVERHEAD + len(body) + len(payload), 2, kind, channel) + body + payload


EMPTY_FRAME = _HEADER.pack(FRAME_OVERHEAD, 2, AMQP_FRAME, 0)


class FrameReader:
    """Collects what arrives and gives it out by protocol header and by frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._position = 0
        """Before it all is read; cut off when everything complete has been given out."""

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def header(self) -> bytes | None:
        """Return the next eight bytes; None if they are not there yet."""
        if len(self._buffer) - self._position < len(AMQP_HEADER):
            return None
        return self._take(len(AMQP_HEADER))

    def frame(self) -> Frame | None:
        """Return the next frame; None if it is not there yet. Raises `AmqpError` if it never can be."""
        if len(self._buffer) - self._position < FRAME_OVERHEAD:
            self._compact()
            return None
        size, offset, kind, channel = _HEADER.unpack_from(self._buffer, self._position)
        if not FRAME_OVERHEAD <= size <= MAX_FRAME_SIZE:
            raise AmqpError(FRAMING_ERROR, f"a frame has 8 to {MAX_FRAME_SIZE} bytes, not {size}")
        if not FRAME_OVERHEAD <= 4 * offset <= size:
            raise AmqpError(FRAMING_ERROR, f"a frame of {size} bytes cannot have its body at {4 * offset}")
        if len(self._buffer) - self._position < size:
            self._compact()
            return None
        return Frame(kind, channel, self._take(size)[4 * offset :])

    def _take(self, size: int) -> bytes:
        start = self._position
        self._position += size
        return bytes(self._buffer[start : self._position])

    def _compact(self) -> None:
        if self._position:
            del self._buffer[: self._position]
            self._position = 0
