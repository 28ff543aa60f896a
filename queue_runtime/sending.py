"""The way out: session id, checks against the queue, then the queue's outbox."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace

from queue_runtime.errors import (
    InvalidArgument,
    InvalidMessage,
    MessageTooLarge,
    Outcome,
    QueueError,
    UnsupportedOperation,
)
from queue_runtime.message import Message
from queue_runtime.outbox import Batch, Entry
from queue_runtime.provider import Capabilities
from queue_runtime.retry import check_number
from queue_runtime.runtime import Runtime
from queue_runtime.strategies import SessionStrategy

FOR_EVER = float("inf")


def check_timeout(timeout: float) -> float:
    """Return *timeout* if it can be one of a send; raises `InvalidArgument`."""
    if timeout != FOR_EVER:
        check_number("timeout", timeout, least=0, above=True, unit="seconds", raises=InvalidArgument)
    return timeout


def send(
    runtime: Runtime,
    queue: str,
    messages: Sequence[Message],
    strategy: SessionStrategy,
    *,
    timeout: float = FOR_EVER,
) -> list[Outcome[str]]:
    """Send *messages* in order, within *timeout* seconds; the outcomes hold their ids. Raises before anything
    is sent if one of them cannot be."""
    began = runtime.clock.monotonic()
    ready = checked(runtime, queue, messages, strategy, operation="send", since=began, timeout=timeout)
    return send_back(runtime, queue, ready, since=began, timeout=timeout)


def send_back(
    runtime: Runtime,
    queue: str,
    messages: Sequence[Message],
    *,
    since: float | None = None,
    timeout: float = FOR_EVER,
) -> list[Outcome[str]]:
    """Send messages as they are: each that the queue does not take has an error of its own, and keeps none of
    the others."""
    now = runtime.clock.monotonic()
    began = now if since is None else since
    outbox = runtime.outbox(queue, since=began)
    batch = Batch(len(messages), deadline=began + timeout, spent=now - began)
    outcomes = outbox.send(messages, _sizes(runtime, queue, messages), batch)
    for outcome in outcomes:
        if outcome.error is not None:
            outcome.error.locate(queue=queue, operation="send", provider=runtime.provider.name)
    return outcomes


def submit(
    runtime: Runtime, queue: str, message: Message, strategy: SessionStrategy, *, timeout: float
) -> Future[str]:
    """Have *message* sent; the future has its id when it is stored. Waits for room, at most until *timeout*
    seconds have passed."""
    began = runtime.clock.monotonic()
    ready = checked(runtime, queue, [message], strategy, operation="submit", since=began, timeout=timeout)
    promise = Promise(
        lambda error: error.locate(queue=queue, operation="send", provider=runtime.provider.name)
    )
    runtime.outbox(queue, since=began).post(
        ready, _sizes(runtime, queue, ready), promise, room_until=began + timeout
    )
    return promise.future


class Promise(Batch):
    """One message, whose sender holds a future."""

    calls_back = True

    def __init__(self, locate: Callable[[QueueError], None]) -> None:
        super().__init__(1, deadline=FOR_EVER)
        self._locate = locate
        self.future: Future[str] = Future()

    def begin(self, entry: Entry) -> bool:
        """False if the future was cancelled; from now on it cannot be."""
        return self.future.running() or self.future.set_running_or_notify_cancel()

    def tell(self, entry: Entry, error: QueueError | None) -> None:
        with self.changed:
            if self.is_over():
                return  # what was given up at the client's end has been answered since
            super().tell(entry, error)
        if not self.begin(entry):
            return
        if error is not None:
            self._locate(error)
            self.future.set_exception(error)
        else:
            self.future.set_result(entry.message.id)


def checked(
    runtime: Runtime,
    queue: str,
    messages: Sequence[Message],
    strategy: SessionStrategy,
    *,
    operation: str,
    since: float,
    timeout: float = FOR_EVER,
) -> list[Message]:
    """*messages*, each in its session. Raises if the queue cannot take one of them."""
    for message in messages:
        if not isinstance(message, Message):
            raise InvalidArgument(
                f"{operation} takes a Message, not a {type(message).__name__}; Message.of(value) makes one",
                queue=queue,
            )
    target = runtime.target(queue)
    capabilities = runtime.capabilities(target, since=since, timeout=timeout)
    ready = [_in_session(message, strategy) for message in messages]
    for message in ready:
        try:
            _check(runtime, queue, target, capabilities, message)
        except QueueError as exc:
            exc.locate(queue=queue, operation=operation, provider=runtime.provider.name)
            raise
    return ready


def _sizes(runtime: Runtime, queue: str, messages: Sequence[Message]) -> list[int]:
    target = runtime.target(queue)
    return [runtime.provider.size(target, message) for message in messages]


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
