"""How receivers and senders of the SDK are made, with what must be mended behind its public names.

Written for azure-servicebus 7.15; the tests of this package run every line of it on a real link.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import certifi
from azure.servicebus import (
    NEXT_AVAILABLE_SESSION,
    ServiceBusClient,
    ServiceBusReceiver,
    ServiceBusSender,
    ServiceBusSubQueue,
    TransportType,
)

from queue_runtime.clock import Clock
from queue_runtime.providers.servicebus import salvage
from queue_runtime.providers.servicebus.limits import DEAD_LETTERS
from queue_runtime.providers.servicebus.sdk import SLICE, is_dead_letters

FURTHER = 0.01
"""Seconds that a receive goes on after its first message, where fewer came than were asked for."""

SEND_SOCKET_TIMEOUT = 0.5
"""Seconds that one read or write of a sender's socket may take: a large message is written in one go. The SDK
looks at how long it may take in between, and reads once more when that is over."""

OPENING_SOCKET_TIMEOUT = 1.0
"""Seconds that connecting by websocket may wait for each answer; so many has the SDK for a TCP connection."""

HANDSHAKE = 0.2
"""Seconds of a handshake between two looks at how long it may take."""


def tls(ca_bundle: str | None, timeout: float) -> ssl.SSLContext:
    """What the SDK makes for each connection anew, once; and no read of a handshake waits longer than
    *timeout* seconds, which the SDK does not bound."""

    class Bounded(ssl.SSLSocket):
        def settimeout(self, value: float | None) -> None:
            super().settimeout(timeout if value is None else value)

    context = ssl.create_default_context(cafile=ca_bundle or certifi.where())
    context.sslsocket_class = Bounded
    return context


def make_receiver(
    client: ServiceBusClient,
    queue: str,
    clock: Clock,
    *,
    session: str | None = None,
    wait: float | None = None,
) -> ServiceBusReceiver:
    """A receiver to be opened; of *session*, or with *wait* of the next one that is free within so many
    seconds."""
    dead = is_dead_letters(queue)
    receiver = client.get_queue_receiver(
        queue[: -len(DEAD_LETTERS)] if dead else queue,
        sub_queue=ServiceBusSubQueue.DEAD_LETTER if dead else None,
        session_id=NEXT_AVAILABLE_SESSION if wait is not None else session,
        max_wait_time=wait,
        socket_timeout=OPENING_SOCKET_TIMEOUT if _by_websocket(client) else SLICE,
    )
    _mend(receiver, clock)
    # The SDK waits 0.2 s for more after the first message: longer than all the rest takes.
    receiver._further_pull_receive_timeout = FURTHER
    receiver._receive_context = _Always()
    return receiver


def open_receiver(receiver: ServiceBusReceiver, timeout: float) -> None:
    """Connect *receiver* within *timeout* seconds."""
    receiver._config.try_timeout = timeout
    receiver.__enter__()
    inner: Any = receiver._handler
    inner._connection._transport.sock.settimeout(SLICE)
    _decode_everything(inner._link)


def hang_up(handler: ServiceBusReceiver | ServiceBusSender) -> None:
    """End what *handler* waits for; for one that is being opened. Any thread may call."""
    try:
        connected: Any = handler._handler._connection._transport.sock  # type: ignore[union-attr]
        # As a plain socket: one of TLS forgets its keys, and is never closed by the SDK then.
        socket.socket.shutdown(getattr(connected, "sock", connected), socket.SHUT_RDWR)
    except (AttributeError, TypeError, OSError):
        pass  # it has not begun, or is over


def make_sender(client: ServiceBusClient, queue: str, clock: Clock) -> ServiceBusSender:
    """A sender to be opened."""
    by_websocket = _by_websocket(client)
    sender = client.get_queue_sender(
        queue, socket_timeout=OPENING_SOCKET_TIMEOUT if by_websocket else SEND_SOCKET_TIMEOUT
    )
    _mend(sender, clock)
    return sender


def open_sender(sender: ServiceBusSender) -> None:
    """Connect *sender*, within the time that the client gives to everything."""
    sender.__enter__()
    inner: Any = sender._handler
    inner._connection._transport.sock.settimeout(SEND_SOCKET_TIMEOUT)


def _by_websocket(client: ServiceBusClient) -> bool:
    return client._config.transport_type is TransportType.AmqpOverWebsocket


class _Always(threading.Event):
    """Set for ever: tells the SDK that a receive is under way.

    Between two slices of one, a settlement may read the socket. The SDK then gives back what has come, and
    asks for it again: a round trip in vain, and in a session a message out of its place.
    """

    def is_set(self) -> bool:
        return True


def _mend(handler: Any, clock: Clock) -> None:
    """Spare *handler*, a receiver or a sender, four habits of the SDK's, before it is opened.

    Between the frames of a handshake, each of which it waits for as it is, it sleeps 50 ms more: half a
    second for an opening. A thread of its own reads the same socket every few seconds, though a handler is
    not for two threads; closing waits up to a second for that thread to wake up. After AMQP's farewell it
    waits for an answer to that of TLS, or of the websocket. And the socket of a connection that broke stays
    open.
    """
    create: Callable[..., None] = handler._create_handler

    def create_mended(auth: Any) -> None:
        create(auth)
        inner = handler._handler
        inner._keep_alive_interval = 0
        ready: Callable[[], bool] = inner.client_ready
        close: Callable[[], None] = inner.close

        def client_ready() -> bool:
            end = clock.monotonic() + HANDSHAKE
            while not ready():
                if clock.monotonic() > end:
                    return False
            return True

        def close_all() -> None:
            transport = getattr(inner._connection, "_transport", None)
            connected = getattr(transport, "sock", None)
            if transport is not None:
                transport._shutdown_transport = lambda: None
            try:
                close()
            finally:
                if transport is not None:
                    transport.close()
                if connected is not None:
                    getattr(connected, "sock", connected).close()

        inner.client_ready = client_ready
        inner.close = close_all

    handler._create_handler = create_mended


def _decode_everything(link: Any) -> None:
    """Have the receiver of *link* bring what the SDK cannot decode too: else it ends, or passes it over,
    unheard."""
    first: Any = None
    parts = bytearray()

    def incoming_transfer(frame: list[Any]) -> None:
        nonlocal first
        more, payload = frame[5], frame[11]
        if first is None:
            first = frame
        if more or parts:
            parts.extend(payload)
        if more:
            return
        whole, began = bytes(parts or payload), first
        first = None
        parts.clear()
        link.current_link_credit -= 1
        link.delivery_count += 1
        link._received_delivery_tags.add(began[2])
        link._process_incoming_message(began, salvage.decode(whole))

    link._incoming_transfer = incoming_transfer
