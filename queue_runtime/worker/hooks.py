"""Hooks: code that is told before and after each call of a handler, and cannot disturb it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from queue_runtime.errors import ConfigurationError
from queue_runtime.message import ReceivedMessage
from queue_runtime.worker.callables import check_callable, check_result

log = logging.getLogger("queue_runtime")

TAKES = {"before": ("message",), "after": ("message",), "failed": ("message", "error")}


class Hooks:
    """Override what you want to be told: ``Worker(..., hooks=(Tracing(), Metrics()))``.

    Each call of the handler, so each attempt, is one `before` and then one `after` or one `failed`, all on
    the handler's thread; `current_message` is set. Workers call one object from several threads at once.
    `before` is called in the order of *hooks*, the other two in reverse order, so that the first one is
    around all others.

    Hooks watch. Whatever one raises is logged with its name and goes no further: the message, and what the
    other hooks are told, stay as they would have been. What decides about a message, say by skipping it,
    belongs into the handler or a function around it. Messages that no handler may be called with (those
    delivered too often) reach no hook; the event `MessageDeadLettered` tells of them.
    """

    def before(self, message: ReceivedMessage) -> None:
        """The handler is about to be called; with ``payload=``, *message* is not decoded yet."""

    def after(self, message: ReceivedMessage) -> None:
        """The handler has returned. It is not settled yet: the event `MessageCompleted` tells of that."""

    def failed(self, message: ReceivedMessage, error: BaseException) -> None:
        """The handler has raised *error*: `Retry` and `Reject` too, which ask for something, and
        `DecodeError` for a body that could not be read, so that the handler was not called."""


def check_hooks(hooks: object) -> tuple[Hooks, ...]:
    """Return *hooks* as they are to be called; raises `ConfigurationError` for what is none."""
    if not isinstance(hooks, tuple | list):
        raise ConfigurationError(f"hooks must be a tuple or list of Hooks objects, it is {hooks!r}")
    for hook in hooks:
        _check_hook(hook)
    return tuple(hooks)


def with_hooks(
    handler: Callable[[ReceivedMessage], object], hooks: tuple[Hooks, ...]
) -> Callable[[ReceivedMessage], object]:
    """*handler*, with *hooks* around it. Returns and raises what *handler* does."""

    def enter(message: ReceivedMessage) -> object:
        for hook in hooks:
            _tell(hook, "before", message)
        try:
            result = handler(message)
        except BaseException as exc:  # it goes on to whom it concerns; hooks hear of all that ends a handler
            for hook in reversed(hooks):
                _tell(hook, "failed", message, exc)
            raise
        for hook in reversed(hooks):
            _tell(hook, "after", message)
        return result

    return enter if hooks else handler


def _check_hook(hook: object) -> None:
    if isinstance(hook, type):
        raise ConfigurationError(f"hooks has the class {hook.__qualname__}; give an instance of it")
    for what, given in TAKES.items():
        method = getattr(hook, what, None)
        if not callable(method):
            raise ConfigurationError(
                f"hooks has {hook!r}, which has no method {what}(); derive its class from Hooks"
            )
        check_callable(method, _name(hook, what), given)


def _tell(hook: Hooks, what: str, *arguments: object) -> None:
    try:
        check_result(getattr(hook, what)(*arguments), _name(hook, what))
    except BaseException:
        # Not `Exception` only: a sys.exit() let through here would be taken for the handler's, so that a
        # message that was handled is handled again. (It ends no process anyway on a worker's thread.)
        log.exception("hook %s failed; the message is handled as if it had not", _name(hook, what))


def _name(hook: object, what: str) -> str:
    return f"{type(hook).__qualname__}.{what}"
