"""The way in: one question to the broker, and what comes made ready for the hands of the program."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from queue_runtime import expiring
from queue_runtime.errors import InvalidArgument, SessionNotAvailable, UnsupportedOperation
from queue_runtime.message import MessageView, ReceivedMessage
from queue_runtime.provider import Cancelled, Capabilities, ProviderSession, never
from queue_runtime.retry import check_number, check_whole
from queue_runtime.runtime import Runtime
from queue_runtime.session_client import SessionClient

LOOK_BEHIND = 1.0
"""Seconds for which a receive that waits for less goes on asking while all that comes has expired: what is
behind it is wanted, and an empty answer would say that there is nothing."""

PAGE = 100
"""Messages that one request looks at."""

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
    """Ask for messages of a queue without sessions: once, and again while all that comes has expired."""
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
    began = runtime.clock.monotonic()
    while True:
        waited = runtime.clock.monotonic() - began
        deliveries = runtime.provider.receive(
            target, most, max(0.0, wait - waited), lease=lease, cancelled=cancelled
        )
        arrived = [runtime.received(queue, delivery) for delivery in deliveries]
        live = expiring.take_out(runtime, arrived, partial(runtime.provider.settle, target))
        over = runtime.clock.monotonic() - began >= max(wait, LOOK_BEHIND)
        if live or not arrived or over or cancelled():
            return live


def peek(runtime: Runtime, queue: str, limit: int, after: int = 0) -> list[MessageView]:
    """Look at the first *limit* messages whose sequence is above *after*, or at fewer, in their order,
    without taking them; an empty list means that there are no more.

    Those in hand and those not due yet are shown too, and expired ones that the broker has not taken out
    yet. Raises `UnsupportedOperation` where the broker shows nothing (`Capabilities.peek`: SQS, and sessions
    of Service Bus).
    """
    wrong = partial(InvalidArgument, queue=queue, operation="peek")
    check_whole("limit", limit, least=1, raises=wrong)
    check_whole("after", after, least=0, raises=wrong)
    target = runtime.target(queue)
    capabilities = runtime.capabilities(target)
    if not capabilities.peek:
        raise _no_peek(queue, capabilities)
    shown: list[MessageView] = []
    while len(shown) < limit:
        ask = partial(runtime.provider.peek, target, min(PAGE, limit - len(shown)), after=after)
        page = runtime.retrying("peek", target, ask)
        shown += [MessageView(delivery) for delivery in page]
        places = [delivery.sequence for delivery in page if delivery.sequence is not None]
        if not places or max(places) <= after:
            break
        after = max(places)
    return shown


def purge(runtime: Runtime, queue: str) -> None:
    """Remove all messages of *queue* in one request, those in hand and those not due yet too.

    Raises `UnsupportedOperation` where there is no such request (`Capabilities.purge`; Service Bus), and
    `ProviderError` for a second one within a minute on SQS, where messages may still be handed out for as
    long.
    """
    target = runtime.target(queue)
    if not runtime.capabilities(target).purge:
        raise UnsupportedOperation(
            f"queue {queue!r} cannot be emptied in one request; receive its messages and complete them, or "
            "make the queue anew",
            queue=queue,
            operation="purge",
        )
    runtime.retrying("purge", target, lambda: runtime.provider.purge(target))


def accept(
    runtime: Runtime, queue: str, most: int, wait: float, *, cancelled: Cancelled = never
) -> list[SessionClient]:
    """Ask once for sessions, up to *most* of them. One whose messages have all expired by then is empty."""
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


def _no_peek(queue: str, capabilities: Capabilities) -> UnsupportedOperation:
    way_out = (
        "accept the session, and close it when you have seen enough"
        if capabilities.sessions == "native"
        else "receive them under a short lease and abandon them, which raises their delivery counts (on SQS "
        "FIFO it blocks their groups meanwhile)"
    )
    return UnsupportedOperation(
        f"queue {queue!r} cannot show its messages without handing them out; {way_out}. Its dead letters can "
        "be listed",
        queue=queue,
        operation="peek",
    )


def _no_sessions(queue: str) -> UnsupportedOperation:
    return UnsupportedOperation(
        f"queue {queue!r} has no sessions; receive from it, or use a queue that keeps order "
        "(on SQS: a FIFO queue; on Service Bus: one that requires sessions)",
        queue=queue,
        operation="accept_session",
    )


def check_lease(runtime: Runtime, queue: str, lease: float | None, operation: str) -> None:
    """Raise unless messages of *queue* can be held for so long."""
    if lease is None:
        return
    capabilities = runtime.capabilities(runtime.target(queue))
    if not capabilities.chosen_lease:
        raise UnsupportedOperation(
            f"a lease on queue {queue!r} lasts for the queue's own lock duration, not for {lease!r} s; leave "
            "lease= out, and change it on the queue; keep_alive holds a message for longer",
            queue=queue,
            operation=operation,
        )
    check_number(
        "lease",
        lease,
        least=0,
        most=capabilities.max_lease,
        above=True,
        unit="seconds",
        raises=partial(InvalidArgument, queue=queue, operation=operation),
    )
