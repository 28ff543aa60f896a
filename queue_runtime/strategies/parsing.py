"""From text, or from code, to a strategy: ``github.pull_request``, ``composite:tenant,order``, functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import cast

from queue_runtime.errors import ConfigurationError
from queue_runtime.nearest import did_you_mean
from queue_runtime.strategies.base import Function, Nothing, SessionStrategy, Strategy
from queue_runtime.strategies.combining import PERIODS, ByTime, Composite, First
from queue_runtime.strategies.fields import Attribute, Field, GitHubDelivery, PayloadField
from queue_runtime.strategies.github import STRATEGIES

Part = SessionStrategy | str
"""A strategy, or its text."""

NAMED: Mapping[str, Strategy] = {
    "none": Nothing(),
    **{f"github.{way}": GitHubDelivery(way) for way in STRATEGIES if way != "none"},
}
"""The strategies that need no more than a name."""


def parse(text: str) -> SessionStrategy:
    """The strategy that *text* describes.

    Raises `ConfigurationError`, naming the part that is wrong and what may have been meant. A function,
    ``package.module:function``, is imported now.
    """
    return as_strategy(text)


def as_strategy(value: object) -> Strategy:
    """*value*, text or any function from a `Message` to a session id, as one of our own strategies."""
    if isinstance(value, str):
        try:
            return _read(value.strip())
        except ConfigurationError as exc:
            raise ConfigurationError(_named(repr(value.strip()), str(exc))) from exc.__cause__
    if isinstance(value, Strategy):
        return value
    if callable(value):
        return Function(cast(SessionStrategy, value), _called(value))
    raise ConfigurationError(
        f"strategy must be a function from a Message to a session id or None, or the text of one, such as "
        f"'attribute:tenant'; it is {value!r}"
    )


def _named(whole: str, text: str) -> str:
    """*text*, with the *whole* strategy before it unless that is what it begins with."""
    if text.startswith(f"{whole} "):
        return f"strategy {text}"
    return text if text.startswith(f"no strategy is called {whole}") else f"strategy {whole}: {text}"


# In code. Each raises `ConfigurationError` as `parse` does.


def attribute(name: str) -> Strategy:
    """The value of the attribute *name*."""
    return _attribute(name)


def payload(path: str) -> Strategy:
    """The field of a JSON body at *path*, such as ``order.id`` or ``items.0.id``."""
    return _payload(path)


def field(name: str) -> Strategy:
    """The attribute *name*, or the payload's field of that name where there is no such attribute."""
    return _field(name)


def composite(*parts: Part) -> Strategy:
    """All *parts* together; None if one of them is None. A plain name is a `field`."""
    if not parts:
        raise ConfigurationError("strategy composite: it has no parts")
    return Composite(tuple(_whole(part, "composite") for part in parts))


def first(*choices: Part) -> Strategy:
    """The first of *choices* that names a session. A plain name is a `field`."""
    if not choices:
        raise ConfigurationError("strategy first: it has no choices")
    return First(tuple(_part(choice) for choice in choices))


def by_time(period: str, base: Part | None = None) -> Strategy:
    """The sessions of *base*, new ones in each *period*: ``hourly``, ``daily``, ``weekly``, ``monthly``.
    A plain name is a `field`."""
    if period not in PERIODS:
        raise ConfigurationError(
            f"strategy: there is no period {period!r}, only {', '.join(PERIODS)}"
            f"{did_you_mean(period, PERIODS)}"
        )
    return ByTime(None if base is None else _whole(base, period), period)


# Reading. What goes wrong is said without the whole text, which `as_strategy` puts before it.


def _read(text: str) -> Strategy:
    if text in NAMED:
        return NAMED[text]
    kind, colon, rest = text.partition(":")
    if kind in PERIODS and not colon:
        return ByTime(None, kind)
    if kind in KINDS:
        if not rest.strip():
            raise ConfigurationError(f"{kind!r} needs more, such as {EXAMPLES[kind]!r}")
        return KINDS[kind](rest.strip())
    if colon and all(name.isidentifier() for name in kind.split(".")):
        return _imported(kind, rest)
    raise _unknown(text)


def _unknown(text: str) -> ConfigurationError:
    """What to say of what is no strategy."""
    known = [*NAMED, *KINDS]
    kind = text.partition(":")[0]
    way_out = did_you_mean(kind, known) or (
        f"; there are {', '.join(map(repr, known))}, and package.module:function. "
        "A field of messages is field:NAME"
    )
    return ConfigurationError(f"no strategy is called {kind!r}{way_out}")


def _attribute(name: str) -> Attribute:
    if not name or any(character.isspace() for character in name):
        raise ConfigurationError(f"{name!r} is no name of an attribute")
    return Attribute(name)


def _payload(path: str) -> PayloadField:
    steps = tuple(path.split("."))
    if not all(steps):
        raise ConfigurationError(
            f"{path!r} is no path: write the names from the outside to the inside, such as order.id"
        )
    return PayloadField(steps)


def _field(name: str) -> Field:
    return Field(_attribute(name), _payload(name))


def _composite(text: str) -> Composite:
    return Composite(tuple(_whole(part, "composite") for part in _split(text, ",", "composite")))


def _part(part: Part) -> Strategy:
    """A part of another strategy. Text with a ``:``, and the name of a strategy, is one; any other names a
    field."""
    if not isinstance(part, str):
        return as_strategy(part)
    text = part.strip()
    if text.startswith("github.") and text not in NAMED:
        raise ConfigurationError(
            f"no strategy is called {text!r}{did_you_mean(text, NAMED) or '.'} "
            f"The attribute is attribute:{text}"
        )
    return _read(text) if ":" in text or text in NAMED or text in KINDS else _field(text)


def _first(text: str) -> First:
    choices = _split(text, "|", "first")
    nested = next((choice for choice in choices if choice.partition(":")[0] == "first"), None)
    if nested is not None:
        raise ConfigurationError(f"{nested!r} stands inside another first; write all choices in one row")
    return First(tuple(map(_part, choices)))


def _by_time(period: str) -> Callable[[str], Strategy]:
    return lambda text: ByTime(_whole(text, period), period)


def _whole(part: Part, owner: str) -> Strategy:
    """A part that must be able to name something."""
    found = _part(part)
    if isinstance(found, Nothing):
        raise ConfigurationError(f"'none' inside {owner!r} names nothing, so the whole never would")
    return found


def _split(text: str, separator: str, owner: str) -> list[str]:
    parts = [part.strip() for part in text.split(separator)]
    for number, part in enumerate(parts, 1):
        if not part:
            raise ConfigurationError(f"part {number} of {owner!r} is empty")
    return parts


def _imported(module: str, name: str) -> Strategy:
    """The function *name* of *module*."""
    try:
        found: object = import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module}.".startswith(f"{exc.name}."):
            raise  # the module is there, and misses another
        if "." not in module and (meant := did_you_mean(module, KINDS)):
            raise ConfigurationError(f"no strategy is called {module!r}{meant}") from None
        raise ConfigurationError(
            f"there is no module {exc.name!r} to import {name!r} from; a strategy of your own is "
            "package.module:function"
        ) from exc
    for step in name.split("."):
        if not hasattr(found, step):
            raise ConfigurationError(f"module {module!r} has no {name!r}{did_you_mean(step, dir(found))}")
        found = getattr(found, step)
    if isinstance(found, Strategy):
        return found
    if not callable(found):
        raise ConfigurationError(f"{name!r} of module {module!r} is no function, it is {found!r}")
    return Function(cast(SessionStrategy, found), f"{module}:{name}")


def _called(function: object) -> str:
    """What to call *function* in errors and listings: not its repr, which may show what it closes over."""
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    module = getattr(function, "__module__", None) or type(function).__module__
    return f"{module}:{name}"


KINDS: Mapping[str, Callable[[str], Strategy]] = {
    "attribute": _attribute,
    "payload": _payload,
    "field": _field,
    "composite": _composite,
    "first": _first,
    **{period: _by_time(period) for period in PERIODS},
}
"""What a strategy's text begins with -> what reads the rest of it."""

EXAMPLES: Mapping[str, str] = {
    "attribute": "attribute:tenant",
    "payload": "payload:order.id",
    "field": "field:tenant",
    "composite": "composite:tenant,payload:order.id",
    "first": "first:payload:order.id|attribute:tenant",
    **{period: f"{period}:attribute:tenant" for period in PERIODS},
}
