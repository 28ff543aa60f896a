"""The way in: one question to the broker, and what comes made ready for the hands of the program."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from queue_runtime.errors import SessionNotAvailable, UnsupportedOperation
from queue_runtime.message import ReceivedMessage
from queue_runtime.provider import Cancelled, ProviderSession, never
from queue_runtime.runtime import Runtime
from queue_runtime.session_client import SessionClient

ASK_EVERY = 0.5
"""Seconds between two questions for a session that another holds: no broker tells when it is let go."""


def receive(
    runtime: Runtime,
    queue: str,
    max_messages: int,
    wait: float,
    *,
    lease: float | None = None,
    cancelled: Cancelled = never,
) -> list[ReceivedMessage]:
    """Ask once for messages of a queue without sessions."""
    target = runtime.target(queue)
    capabilities = runtime.provider.capabilities(target)
    if capabilities.sessions != "none":
        raise UnsupportedOperation(
            f"queue {queue!r} has sessions, and a plain receive would break their order; "
            "use accept_session, or a Worker",
            queue=queue,
            operation="receive",
        )
    most = min(max_messages, capabilities.max_batch)
    deliveries = runtime.provider.receive(target, most, wait, lease=lease, cancelled=cancelled)
    return [runtime.received(queue, delivery) for delivery in deliveries]


def accept(
    runtime: Runtime, queue: str, most: int, wait: float, *, cancelled: Cancelled = never
) -> list[SessionClient]:
    """Ask once for sessions, up to *most* of them."""
    target = runtime.target(queue)
    kind = runtime.provider.capabilities(target).sessions
    found: Sequence[ProviderSession]
    if kind == "groups":
        found = runtime.dispatcher(target).accept(most, wait, cancelled=cancelled)
    elif kind == "native":
        found = runtime.provider.accept_sessions(target, most, wait, cancelled=cancelled)
    else:
        raise _no_sessions(queue)
    return [SessionClient(runtime, queue, session) for session in found]


def accept_by_id(runtime: Runtime, queue: str, session_id: str, wait: float) -> SessionClient:
    """Ask for one session until it is to be had; `SessionNotAvailable` after *wait* seconds."""
    target = runtime.target(queue)
    deadline = runtime.clock.monotonic() + wait
    kind = runtime.capabilities(target).sessions
    if kind == "none":
        raise _no_sessions(queue)
    if kind == "groups":
        raise UnsupportedOperation(
            f"queue {queue!r} gives out the session that is next, and cannot be asked for one by its id (SQS "
            "FIFO cannot); accept the next one, or let a Worker see to each",
            queue=queue,
            operation="accept_session",
        )
    ask = partial(runtime.provider.accept_session, target, session_id)
    while True:
        try:
            return SessionClient(runtime, queue, runtime.retrying("accept_session", target, ask))
        except SessionNotAvailable:
            left = deadline - runtime.clock.monotonic()
            if left <= 0:
                raise
        if not runtime.pause(min(ASK_EVERY, left)):
            runtime.check_open()


def _no_sessions(queue: str) -> UnsupportedOperation:
    return UnsupportedOperation(
        f"queue {queue!r} has no sessions; receive from it, or use a queue that keeps order "
        "(on SQS: a FIFO queue; on Service Bus: one that requires sessions)",
        queue=queue,
        operation="accept_session",
    )
