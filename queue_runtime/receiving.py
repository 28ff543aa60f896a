"""The way in: one question to the broker, and what comes made ready for the hands of the program."""

from __future__ import annotations

from collections.abc import Sequence

from queue_runtime.errors import UnsupportedOperation
from queue_runtime.message import ReceivedMessage
from queue_runtime.provider import Cancelled, ProviderSession, never
from queue_runtime.runtime import Runtime
from queue_runtime.session_client import SessionClient


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
        session = runtime.provider.accept_session(target, wait, cancelled=cancelled)
        found = [] if session is None else [session]
    else:
        raise UnsupportedOperation(
            f"queue {queue!r} has no sessions; receive from it, or use a queue that keeps order "
            "(on SQS: a FIFO queue)",
            queue=queue,
            operation="accept_session",
        )
    return [SessionClient(runtime, queue, session) for session in found]
