"""What a handler is, how it asks for a retry or for the end, and how it is entered."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from queue_runtime import payloads
from queue_runtime.errors import ConfigurationError, InvalidArgument
from queue_runtime.message import ReceivedMessage

PlainHandler = Callable[[ReceivedMessage], object]


class Retry(Exception):  # it asks for something; nothing is wrong
    """Raised by a handler: try this message again, after *delay* seconds (None: the policy's backoff).

    It is an attempt like any other: after the last one the message is dead-lettered. In a session the
    message waits in its place, and holds up what is behind it for the policy's `max_hold` at most.
    """

    delay: float | None = None

    def __init__(self, delay: float | None = None) -> None:
        super().__init__("the handler asked for a retry")
        if delay is not None and not 0 <= delay < float("inf"):
            raise InvalidArgument(f"delay must be a number of seconds from 0 on, it is {delay!r}")
        self.delay = delay


class Reject(Exception):  # likewise
    """Raised by a handler: dead-letter this message now, with *reason* and *description*."""

    def __init__(self, reason: str, description: str | None = None) -> None:
        super().__init__(reason if description is None else f"{reason}: {description}")
        # Text, whatever it was given: an enum's member must not keep a message out of the dead letters.
        self.reason = str(reason)
        self.description = None if description is None else str(description)


def entry_point(handler: Callable[..., object], payload: type[Any] | None) -> PlainHandler:
    """Return the function that a message goes through: decode if *payload* is given, then *handler*.

    Raises `ConfigurationError` for what is not a plain function: the result of a coroutine function would
    never be awaited, and its message completed without having been handled.
    """
    if not callable(handler):
        raise ConfigurationError(f"handler must be callable, it is {handler!r}")
    if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__):
        raise ConfigurationError(
            f"handler {_name(handler)} is a coroutine function, and handlers are called on threads; "
            "write a plain function, or wrap it: lambda message: asyncio.run(handler(message))"
        )
    if payload is not None:
        if not isinstance(payload, type):
            raise ConfigurationError(f"payload must be a class, it is {payload!r}")
        payloads.check_type(payload)
    _check_signature(handler, payload)

    def enter(message: ReceivedMessage) -> object:
        result = handler(message) if payload is None else handler(message.payload(payload), message)
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            raise ConfigurationError(
                f"handler {_name(handler)} returned something to await, and nothing was done; wrap it: "
                "lambda message: asyncio.run(handler(message))"
            )
        return None

    return enter


def _check_signature(handler: Callable[..., object], payload: type[Any] | None) -> None:
    """A handler that cannot be called so would send every message of its queue to the dead letters."""
    given = ("message",) if payload is None else ("payload", "message")
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return  # a builtin may not tell
    try:
        signature.bind(*given)
    except TypeError as exc:
        raise ConfigurationError(
            f"handler {_name(handler)}{signature} cannot be called with ({', '.join(given)}): {exc}; without "
            "payload= a handler takes the message, with payload=TheClass the payload and the message"
        ) from None


def _name(handler: Callable[..., object]) -> str:
    return getattr(handler, "__qualname__", repr(handler))
