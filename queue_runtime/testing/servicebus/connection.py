"""One client's connection: protocol headers, SASL, open and close. What it does wrong ends this one only."""

from __future__ import annotations

import asyncio
import logging

from queue_runtime.testing.servicebus.amqp_types import Array, Symbol
from queue_runtime.testing.servicebus.broker import Broker
from queue_runtime.testing.servicebus.channel import Channel
from queue_runtime.testing.servicebus.errors import (
    FRAMING_ERROR,
    ILLEGAL_STATE,
    INTERNAL_ERROR,
    INVALID_FIELD,
    NOT_ALLOWED,
    AmqpError,
)
from queue_runtime.testing.servicebus.frames import (
    AMQP_FRAME,
    AMQP_HEADER,
    EMPTY_FRAME,
    MAX_FRAME_SIZE,
    MIN_MAX_FRAME_SIZE,
    SASL_FRAME,
    SASL_HEADER,
    FrameReader,
    frame,
)
from queue_runtime.testing.servicebus.links import Link
from queue_runtime.testing.servicebus.outbox import Outbox
from queue_runtime.testing.servicebus.performatives import (
    Attach,
    Begin,
    Close,
    Composite,
    Detach,
    Disposition,
    End,
    Error,
    Flow,
    Open,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    Transfer,
    read_performative,
)

log = logging.getLogger(__name__)

CONTAINER_ID = "queue_runtime.testing.servicebus"

MECHANISM = "ANONYMOUS"
"""The one SASL mechanism that is needed: who a client is, it says to $cbs."""

MAX_CHANNELS = 256

OPEN_PATIENCE = 20.0
"""Seconds for a client to come from the first byte to its open."""

CLOSE_PATIENCE = 1.0
"""Seconds for a client to answer a close, before its socket is closed."""

_CLOSE = b"\x00\x53\x18"
"""How the body of a close begins."""


class Connection(asyncio.Protocol):
    """Reads frames, hands them to their channels, writes what these answer."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.writable = True
        """False while the client does not read what it has been sent."""
        self.max_frame_size = MIN_MAX_FRAME_SIZE
        self.claims: dict[str, float] = {}
        """See `Client`."""
        self._reader = FrameReader()
        self._channels: dict[int, Channel] = {}
        self._open = False
        """From our open to our close: while frames of links may be written."""
        self._step = self._sasl_header
        """Takes one thing from the reader; False if that has not arrived yet."""

    # -- asyncio's side --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(transport, lambda: self.broker.namespace.faults.latency)
        self._deadline = self._loop.call_later(OPEN_PATIENCE, transport.abort)
        self._heartbeat: asyncio.TimerHandle | None = None
        self.broker.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while self._step():
                pass
        except AmqpError as exc:
            log.info("connection.violation", extra={"condition": exc.condition, "said": exc.description})
            self.close(exc.condition, exc.description)
        except Exception as exc:  # a fault of the broker: this client is told, the others must go on
            log.exception("connection.failed")
            self.close(INTERNAL_ERROR, f"the broker failed: {exc!r}")

    def pause_writing(self) -> None:
        # Who does not read gets no answers made: its requests wait in its own socket.
        self.writable = False
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self.writable = True
        self._transport.resume_reading()
        for channel in self._channels.values():
            channel.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self._open = False
        self._deadline.cancel()
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        self.broker.connections.discard(self)
        self._end_channels()

    # -- what others call ------------------------------------------------------------------------------

    def send(self, channel: int, performative: Composite, payload: bytes = b"") -> None:
        """Write a frame; if the connection is closed or closing, it is lost."""
        if self._open:
            self._outbox.write(frame(channel, performative, payload))

    def close(self, condition: str, description: str) -> None:
        """Tell the client why, as well as can be said at this stage, and close."""
        if self._step == self._farewell:
            return
        if self._step == self._sasl_header:
            self._outbox.write(SASL_HEADER)  # this is what would have been understood
        elif self._step == self._sasl_init:
            self._outbox.write(frame(0, SaslOutcome(outcome=1), kind=SASL_FRAME))
        elif self._step == self._amqp_header:
            self._outbox.write(AMQP_HEADER)
        else:
            if not self._open:
                self._send_open()
            self.send(0, Close(error=Error(condition=condition, description=description)))
        self._say_farewell(wait=self._open)

    def abort(self) -> None:
        """Cut the connection off, without a word."""
        self._transport.abort()

    def links(self) -> list[Link]:
        """Return the links of all its sessions."""
        return [link for channel in self._channels.values() for link in channel.links]

    # -- from the first byte to the open ---------------------------------------------------------------

    def _sasl_header(self) -> bool:
        header = self._reader.header()
        if header is None:
            return False
        if header != SASL_HEADER:
            raise AmqpError(NOT_ALLOWED, f"the first bytes are {SASL_HEADER!r}, not {header!r}")
        self._outbox.write(SASL_HEADER)
        mechanisms = SaslMechanisms(sasl_server_mechanisms=Array(Symbol, [MECHANISM]))
        self._outbox.write(frame(0, mechanisms, kind=SASL_FRAME))
        self._step = self._sasl_init
        return True

    def _sasl_init(self) -> bool:
        found = self._reader.frame()
        if found is None:
            return False
        if found.kind != SASL_FRAME:
            raise AmqpError(FRAMING_ERROR, "SASL is not through; a SASL frame is expected")
        performative, _ = read_performative(found.body)
        if not isinstance(performative, SaslInit) or performative.mechanism != MECHANISM:
            raise AmqpError(NOT_ALLOWED, f"expected sasl-init with {MECHANISM}, not {performative!r:.100}")
        self._outbox.write(frame(0, SaslOutcome(outcome=0), kind=SASL_FRAME))
        self._step = self._amqp_header
        return True

    def _amqp_header(self) -> bool:
        header = self._reader.header()
        if header is None:
            return False
        if header != AMQP_HEADER:
            raise AmqpError(NOT_ALLOWED, f"the header after SASL is {AMQP_HEADER!r}, not {header!r}")
        self._outbox.write(AMQP_HEADER)
        self._step = self._frame
        return True

    # -- frames ----------------------------------------------------------------------------------------

    def _frame(self) -> bool:
        found = self._reader.frame()
        if found is None:
            return False
        if found.kind != AMQP_FRAME:
            raise AmqpError(FRAMING_ERROR, f"a frame of kind {found.kind} after SASL")
        if found.body:
            performative, payload = read_performative(found.body)
            self._handle(found.channel, performative, payload)
        return True

    def _handle(self, number: int, performative: Composite, payload: bytes) -> None:
        match performative:
            case Open():
                self._opened(performative)
            case _ if not self._open:
                raise AmqpError(ILLEGAL_STATE, "the first frame is an open")
            case Transfer():
                self._channel(number).transferred(performative, payload)
            case Disposition():
                self._channel(number).disposed(performative)
            case Flow():
                self._channel(number).flowed(performative)
            case Attach():
                self._channel(number).attached(performative)
            case Detach():
                self._channel(number).detached(performative)
            case Begin():
                self._begun(number, performative)
            case End():
                self._channel(number).end()
                del self._channels[number]
                self.send(number, End())
            case Close():
                self.send(0, Close())
                self._say_farewell(wait=False)
            case _:
                raise AmqpError(NOT_ALLOWED, f"a {type(performative).__name__.lower()} is no frame")

    def _channel(self, number: int) -> Channel:
        channel = self._channels.get(number)
        if channel is None:
            raise AmqpError(NOT_ALLOWED, f"no session has begun on channel {number}")
        return channel

    def _opened(self, theirs: Open) -> None:
        if self._open:
            raise AmqpError(ILLEGAL_STATE, "a second open")
        if theirs.max_frame_size < MIN_MAX_FRAME_SIZE:
            raise AmqpError(INVALID_FIELD, f"max-frame-size is at least {MIN_MAX_FRAME_SIZE}")
        self._deadline.cancel()
        self.max_frame_size = min(theirs.max_frame_size, MAX_FRAME_SIZE)
        self._send_open()
        if theirs.idle_time_out:
            self._beat_every(max(theirs.idle_time_out / 2000, 0.05))

    def _send_open(self) -> None:
        self._open = True
        ours = Open(container_id=CONTAINER_ID, max_frame_size=MAX_FRAME_SIZE, channel_max=MAX_CHANNELS - 1)
        self.send(0, ours)

    def _beat_every(self, period: float) -> None:
        """Write an empty frame every *period* seconds: the client takes silence for death."""

        def beat() -> None:
            self._outbox.write(EMPTY_FRAME)
            self._heartbeat = self._loop.call_later(period, beat)

        self._heartbeat = self._loop.call_later(period, beat)

    def _begun(self, number: int, theirs: Begin) -> None:
        if number >= MAX_CHANNELS:
            raise AmqpError(FRAMING_ERROR, f"channels are 0 to {MAX_CHANNELS - 1}, not {number}")
        if number in self._channels:
            raise AmqpError(ILLEGAL_STATE, f"a session has begun on channel {number} already")
        self._channels[number] = Channel(self, number, theirs)

    # -- the end ---------------------------------------------------------------------------------------

    def _say_farewell(self, *, wait: bool) -> None:
        """Close when all is written; with *wait* the client gets time to read it before a reset."""
        self._step = self._farewell
        self._open = False
        self._end_channels()
        self._deadline.cancel()
        if wait:
            self._deadline = self._loop.call_later(CLOSE_PATIENCE, self._hang_up)
        else:
            self._hang_up()

    def _farewell(self) -> bool:
        """Overhear everything but the answer to our close."""
        try:
            found = self._reader.frame()
        except AmqpError:
            self._hang_up()
            return False
        if found is None:
            return False
        if found.body[:3] == _CLOSE:
            self._hang_up()
        return True

    def _hang_up(self) -> None:
        self._deadline.cancel()
        self._outbox.close()
        # Who does not read what is left to write must not keep it here.
        self._deadline = self._loop.call_later(OPEN_PATIENCE, self._transport.abort)

    def _end_channels(self) -> None:
        for channel in self._channels.values():
            channel.end()
        self._channels.clear()
