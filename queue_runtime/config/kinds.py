"""What a setting may be: read from text, from a file's value or from code, and checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from queue_runtime.strategies import SessionStrategy, as_strategy

NONE = "none"
"""How text says None."""

SHOWN = 60
"""Characters that an error shows of a value."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value. `read` takes what a file or code says, `parse` what an environment variable says;
    both raise `ValueError` for anything else."""

    what: str
    """As in "it must be …"."""
    read: Callable[[object], object]
    parse: Callable[[str], object]
    secret: bool = False
    """Errors do not show such values."""

    def wrong(self, value: object) -> str:
        """What an error says of *value*, which was refused."""
        if self.secret:
            return f"must be {self.what}, it is of type {type(value).__name__}"
        shown = repr(value)
        return f"must be {self.what}, it is {shown if len(shown) <= SHOWN else f'{shown[:SHOWN]}…'}"


def _whole(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError
    return value


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        raise ValueError from None


def _text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError
    return value


def _option(value: object) -> object:
    """As the text that it would be in a URL."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError


WHOLE = Kind("a whole number", _whole, int)
NUMBER = Kind("a number", _number, float)
TEXT = Kind("text", _text, str)
PLACE = Kind("text", _text, str, secret=True)
OPTION = Kind("text, a number or true or false", _option, str, secret=True)
STRATEGY = Kind("a session strategy", as_strategy, as_strategy)


def _choice(values: tuple[Any, ...]) -> Kind:
    def read(value: object) -> object:
        if value not in values:
            raise ValueError
        return value

    return Kind(f"one of {', '.join(map(repr, values))}", read, read)


def _or_none(kind: Kind) -> Kind:
    def read(value: object) -> object:
        return None if value is None or value == NONE else kind.read(value)

    def parse(text: str) -> object:
        return None if text == NONE else kind.parse(text)

    return Kind(f"{kind.what} or {NONE!r}", read, parse)


_SIMPLE: dict[object, Kind] = {int: WHOLE, float: NUMBER, str: TEXT}


def kind_of(hint: object, *, inherits: bool = False) -> Kind:
    """The kind of a field that is annotated with *hint*. *inherits*: None means that the field is not given,
    so nobody may write it."""
    if get_origin(hint) is Literal:
        return _choice(get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        if SessionStrategy in get_args(hint):
            return STRATEGY
        bare = [each for each in get_args(hint) if each is not type(None)]
        (kind,) = (kind_of(each) for each in bare)
        return kind if inherits else _or_none(kind)
    return _SIMPLE[hint]
