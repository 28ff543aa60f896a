"""What a handler is, how it asks for a retry or for the end, and how it is entered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from queue_runtime import payloads
from queue_runtime.current import handling
from queue_runtime.errors import ConfigurationError, DecodeError, InvalidArgument
from queue_runtime.message import ReceivedMessage
from queue_runtime.retry import check_number
from queue_runtime.worker.callables import check_callable, check_result, name_of
from queue_runtime.worker.hooks import Hooks, check_hooks, with_hooks

PlainHandler = Callable[[ReceivedMessage], object]

WITHOUT_PAYLOAD = (
    "; without payload= a handler takes the message, with payload=TheClass the payload and the message"
)


class Retry(Exception):  # it asks for something; nothing is wrong
    """Raised by a handler: try this message again, after *delay* seconds (None: the policy's backoff).

    It is an attempt like any other: after the last one the message is dead-lettered. In a session the
    message waits in its place, and holds up what is behind it for the policy's `max_hold` at most.
    """

    delay: float | None = None

    def __init__(self, delay: float | None = None) -> None:
        super().__init__("the handler asked for a retry")
        if delay is not None:
            check_number("delay", delay, least=0, unit="seconds", raises=InvalidArgument)
        self.delay = delay


class Reject(Exception):  # likewise
    """Raised by a handler: dead-letter this message now, with *reason* and *description*."""

    def __init__(self, reason: str, description: str | None = None) -> None:
        super().__init__(reason if description is None else f"{reason}: {description}")
        # Text, whatever it was given: an enum's member must not keep a message out of the dead letters.
        self.reason = str(reason)
        self.description = None if description is None else str(description)


def entry_point(
    handler: Callable[..., object], payload: type[Any] | None, hooks: Sequence[Hooks] = ()
) -> PlainHandler:
    """Return the function that a message goes through: decode if *payload* is given, then *handler*; around
    both the *hooks*; meanwhile it is the `current_message`.

    Raises `ConfigurationError` for what is not a plain function: the result of a coroutine function would
    never be awaited, and its message completed without having been handled.
    """
    if not callable(handler):
        raise ConfigurationError(f"handler must be callable, it is {handler!r}")
    name = f"handler {name_of(handler)}"
    if payload is None:
        check_callable(handler, name, ("message",), WITHOUT_PAYLOAD)
    else:
        if not isinstance(payload, type):
            raise ConfigurationError(f"payload must be a class, it is {payload!r}")
        payloads.check_type(payload)
        check_callable(handler, name, ("payload", "message"), WITHOUT_PAYLOAD)

    def call(message: ReceivedMessage) -> None:
        if message.delivery.problem is not None:
            raise DecodeError(message.delivery.problem)  # a handler would take it for what was sent
        result = handler(message) if payload is None else handler(message.payload(payload), message)
        check_result(result, name)

    told = with_hooks(call, check_hooks(hooks))

    def enter(message: ReceivedMessage) -> object:
        with handling(message):
            return told(message)

    return enter
