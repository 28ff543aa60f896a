"""What may be called on a worker's thread: functions whose call does the work."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from queue_runtime.errors import ConfigurationError

WRAP = "write a plain function, or wrap it: lambda message: asyncio.run(handler(message))"

BODY = "a call runs nothing of its body, and nobody would iterate over it"

DEEPEST = 100
"""Layers of partials and callable objects that are looked through; nobody writes that many."""

UNFIT: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (inspect.iscoroutinefunction, f"is a coroutine function, and would be called on a thread; {WRAP}"),
    (inspect.isasyncgenfunction, f"is an async generator function: {BODY}; {WRAP}"),
    (inspect.isgeneratorfunction, f"is a generator function: {BODY}; write a plain function, without yield"),
    (inspect.isclass, "is a class: a call makes an object of it and does no more; give an instance of it"),
)


def check_callable(call: Callable[..., object], name: str, given: tuple[str, ...], hint: str = "") -> None:
    """Raise `ConfigurationError`, which begins with *name*, unless *call* takes *given* and works at once.

    Looks through bound methods, `functools.partial` and objects with `__call__`. Not through decorators: a
    plain function around a coroutine function is how one is run on a thread.
    """
    for layer in _layers(call):
        for is_unfit, text in UNFIT:
            if is_unfit(layer):
                raise ConfigurationError(f"{name} {text}")
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        return  # a builtin may not tell
    try:
        signature.bind(*given)
    except TypeError as exc:
        raise ConfigurationError(
            f"{name}{signature} cannot be called with ({', '.join(given)}): {exc}{hint}"
        ) from None


def check_result(result: object, name: str) -> None:
    """Raise `ConfigurationError` if *result* is work that was only prepared: nobody would do it."""
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise ConfigurationError(f"{name} returned something to await, and nothing was done; {WRAP}")
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise ConfigurationError(
            f"{name} returned a generator, and nothing of its body was run; iterate over it in the function"
        )


def name_of(call: Callable[..., object]) -> str:
    """What a person calls it."""
    return getattr(call, "__qualname__", repr(call))


def _layers(call: Any) -> Iterator[Any]:
    """*call*, and what it hands its calls on to."""
    for _ in range(DEEPEST):
        yield call
        if isinstance(call, functools.partial):
            call = call.func
        elif inspect.ismethod(call):
            call = call.__func__
        elif inspect.isroutine(call) or inspect.isclass(call):
            return
        else:
            call = type(call).__call__
