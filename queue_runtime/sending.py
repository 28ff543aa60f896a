"""The way out: session id, checks against the queue, requests in order, an outcome per message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from queue_runtime.batching import Entry, plan
from queue_runtime.errors import (
    InvalidArgument,
    InvalidMessage,
    MessageTooLarge,
    NotAttempted,
    Outcome,
    QueueError,
    UnsupportedOperation,
)
from queue_runtime.message import Message
from queue_runtime.provider import Capabilities
from queue_runtime.runtime import Runtime
from queue_runtime.strategies import SessionStrategy


class _Behind(NotAttempted):
    """Not sent yet, because an earlier message of its session is tried again."""

    retryable = True


def send(
    runtime: Runtime, queue: str, messages: Sequence[Message], strategy: SessionStrategy
) -> list[Outcome[str]]:
    """Send *messages* in order; the outcomes hold their ids. Raises before anything is sent if one of them
    cannot be."""
    began = runtime.clock.monotonic()
    ready = checked(runtime, queue, messages, strategy, operation="send", since=began)
    return send_back(runtime, queue, ready, since=began)


def checked(
    runtime: Runtime,
    queue: str,
    messages: Sequence[Message],
    strategy: SessionStrategy,
    *,
    operation: str,
    since: float,
) -> list[Message]:
    """*messages*, each in its session. Raises if the queue cannot take one of them."""
    for message in messages:
        if not isinstance(message, Message):
            raise InvalidArgument(
                f"{operation} takes a Message, not a {type(message).__name__}; Message.of(value) makes one",
                queue=queue,
            )
    target = runtime.target(queue)
    capabilities = runtime.capabilities(target, since=since)
    ready = [_in_session(message, strategy) for message in messages]
    for message in ready:
        try:
            _check(runtime, queue, target, capabilities, message)
        except QueueError as exc:
            exc.locate(queue=queue, operation=operation, provider=runtime.provider.name)
            raise
    return ready


def send_back(
    runtime: Runtime, queue: str, messages: Sequence[Message], *, since: float | None = None
) -> list[Outcome[str]]:
    """Send messages that the broker has had before, as they are: each that it does not take has an error of
    its own, and keeps none of the others."""
    target = runtime.target(queue)
    began = runtime.clock.monotonic() if since is None else since
    capabilities = runtime.capabilities(target, since=began)
    entries = [Entry(runtime.provider.size(target, m), m.session_id) for m in messages]
    ended: set[str] = set()

    def act(pending: list[int]) -> Sequence[Outcome[str]]:
        return _send_in_order(runtime, target, messages, entries, pending, ended, capabilities)

    outcomes = runtime.outcomes("send", target, len(messages), act, since=began)
    return [Outcome(m.id, _told(o.error)) for m, o in zip(messages, outcomes, strict=True)]


def _in_session(message: Message, strategy: SessionStrategy) -> Message:
    if message.session_id is not None:
        return message
    session_id = strategy(message)
    return message if session_id is None else replace(message, session_id=session_id)


def _check(runtime: Runtime, queue: str, target: str, capabilities: Capabilities, message: Message) -> None:
    """Raise if the queue cannot take *message*."""
    if message.delay > capabilities.max_delay:
        if capabilities.max_delay == 0:
            raise UnsupportedOperation(
                f"queue {queue!r} cannot delay a single message (delay={message.delay:g} s); "
                "send it later, or use a queue without sessions",
            )
        raise InvalidMessage(
            f"message {message.id!r}: delay={message.delay:g} s; queue {queue!r} takes at most "
            f"{capabilities.max_delay:g} s",
        )
    most = capabilities.max_attributes
    if most is not None and len(message.attributes) > most:
        raise InvalidMessage(
            f"message {message.id!r} has {len(message.attributes)} attributes; queue {queue!r} takes {most}; "
            "put the rest into the body",
        )
    size = runtime.provider.size(target, message)
    if size > capabilities.max_message_size:
        raise MessageTooLarge(
            f"message {message.id!r} has {size} bytes with its attributes; queue {queue!r} takes "
            f"{capabilities.max_message_size}; keep the content elsewhere and send where it is",
            actual=size,
            limit=capabilities.max_message_size,
        )


def _send_in_order(
    runtime: Runtime,
    target: str,
    messages: Sequence[Message],
    entries: Sequence[Entry],
    pending: Sequence[int],
    ended: set[str],
    capabilities: Capabilities,
) -> Sequence[Outcome[str]]:
    """One round of requests for *pending*. A session with a failed entry gets no further here; if it failed
    for good, it is added to *ended* and gets no further at all."""
    outcomes: dict[int, Outcome[str]] = {}
    waiting: set[str] = set()
    for request in plan([entries[i] for i in pending], capabilities):
        indexes = []
        for i in (pending[place] for place in request):
            session = entries[i].session_id
            if session in ended:
                outcomes[i] = Outcome(error=NotAttempted(_because(messages[i])))
            elif session in waiting:
                outcomes[i] = Outcome(error=_Behind(_because(messages[i])))
            else:
                indexes.append(i)
        if not indexes:
            continue
        for i, answer in zip(indexes, _request(runtime, target, [messages[i] for i in indexes]), strict=True):
            outcomes[i] = answer
            session = entries[i].session_id
            if answer.error is not None and session is not None and capabilities.sessions != "none":
                (waiting if answer.error.retryable else ended).add(session)
    return [outcomes[i] for i in pending]


def _request(runtime: Runtime, target: str, messages: Sequence[Message]) -> Sequence[Outcome[str]]:
    try:
        answers = runtime.provider.send(target, messages)
    except QueueError as exc:
        return [Outcome(error=exc)] * len(messages)
    return [Outcome(m.id if a.ok else None, a.error) for m, a in zip(messages, answers, strict=True)]


def _told(error: QueueError | None) -> QueueError | None:
    """*error* as users know it."""
    return NotAttempted(str(error), queue=error.queue) if isinstance(error, _Behind) else error


def _because(message: Message) -> str:
    return (
        f"message {message.id!r} was not sent: an earlier one of session {message.session_id!r} failed, "
        "and order comes first"
    )
