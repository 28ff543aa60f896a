"""Typed payloads: a dataclass to JSON, and JSON to a dataclass with every type checked.

dataclasses-json writes the JSON, and its `config` (``field_name``, ``letter_case``, ``encoder``, ``decoder``,
on a field or on the class) holds in both directions. Reading is done here: on its own it lets ``null``
into an ``int``, turns 1.7 into 1 and a dict into its repr.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from functools import lru_cache
from typing import Any, Literal, NoReturn, TypeVar, Union, cast, get_args, get_origin
from uuid import UUID

from queue_runtime.errors import ConfigurationError, DecodeError, InvalidMessage

T = TypeVar("T")

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


def encode(payload: object) -> tuple[bytes, str | None]:
    """Return the body and its natural content type. Raises `InvalidMessage` for what JSON cannot say."""
    if isinstance(payload, bytes):
        return payload, None
    try:
        if isinstance(payload, str):
            return payload.encode(), TEXT
        text = json.dumps(_plain(payload), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode(), JSON
    except UnicodeEncodeError as exc:
        raise InvalidMessage(
            f"a payload of type {type(payload).__name__} with half a surrogate pair in its text cannot "
            "travel; remove it"
        ) from exc
    except RecursionError as exc:
        raise InvalidMessage(
            f"a payload of type {type(payload).__name__} cannot travel as JSON: it is nested too deeply, "
            "or holds itself"
        ) from exc
    except (TypeError, ValueError) as exc:
        raise InvalidMessage(
            f"a payload of type {type(payload).__name__} cannot travel as JSON: {exc}"
        ) from exc


def decode(body: bytes, payload_type: type[T] | None) -> Any:
    """Read *body* as JSON and make a *payload_type* of it; None gives the JSON value as it is.

    Raises `DecodeError` if the body is at fault, `ConfigurationError` if the type is.
    """
    try:
        value = _parse(body)
        return value if payload_type is None else _checked(value, payload_type, "payload")
    except RecursionError as exc:
        raise DecodeError("the body is nested too deeply") from exc


def check_type(payload_type: type[Any]) -> None:
    """Raise `ConfigurationError` if *payload_type*, or a type that it names, cannot be read from JSON."""
    _check_type(payload_type, "payload", set())


# Writing.


def _plain(value: object) -> object:
    """*value* in the terms of JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(_to_dict(value))
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is not a str")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value


def _to_dict(value: object) -> dict[str, Any]:
    # On first use: dataclasses-json brings marshmallow along, 58 ms that a client without payloads can save.
    from dataclasses_json import DataClassJsonMixin

    return DataClassJsonMixin.to_dict(cast(Any, value))


# Reading: what there is.

_SCALARS: tuple[type, ...] = (str, int, float, bool)
_FROM_TEXT: dict[type, tuple[str, Callable[[str], Any]]] = {
    datetime: ("an ISO 8601 instant", datetime.fromisoformat),
    UUID: ("a UUID", UUID),
    Decimal: ("a decimal number", Decimal),
}
_LISTS: dict[type, Callable[[Iterable[Any]], Any]] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    collections.abc.Sequence: tuple,
    collections.abc.MutableSequence: list,
    collections.abc.Collection: tuple,
    collections.abc.Iterable: tuple,
    collections.abc.Set: frozenset,
    collections.abc.MutableSet: set,
}
_OBJECTS: tuple[type, ...] = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


@dataclass(frozen=True, slots=True)
class _Field:
    """How one field of a dataclass travels."""

    name: str
    key: str
    type: Any
    required: bool
    decoder: Callable[[Any], Any] | None


@lru_cache(maxsize=512)
def _fields(kind: type) -> tuple[_Field, ...]:
    try:
        hints = typing.get_type_hints(kind)
    except (NameError, TypeError) as exc:
        raise ConfigurationError(
            f"payload type {kind.__qualname__}: its annotations cannot be resolved ({exc}); "
            "define it, and the types that it names, at the top of a module"
        ) from exc
    return tuple(_field(kind, item, hints[item.name]) for item in dataclasses.fields(kind) if item.init)


def _field(kind: type, item: dataclasses.Field[Any], hint: Any) -> _Field:
    of_class = getattr(kind, "dataclass_json_config", None) or {}
    settings = {**of_class, **item.metadata.get("dataclasses_json", {})}
    letter_case = settings.get("letter_case")
    return _Field(
        name=item.name,
        key=letter_case(item.name) if letter_case else item.name,
        type=hint,
        required=item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING,
        decoder=settings.get("decoder"),
    )


def _check_type(expected: Any, path: str, seen: set[Any]) -> None:
    expected = _bare(expected)
    kind = get_origin(expected) or expected
    if dataclasses.is_dataclass(kind):
        if kind not in seen:
            seen.add(kind)
            for item in _fields(cast(type, kind)):
                if item.decoder is None:
                    _check_type(item.type, f"{path}.{item.key}", seen)
    elif kind in _OBJECTS:
        key_type, item_type = get_args(expected) or (str, Any)
        _check_key_type(key_type, path)
        _check_type(item_type, f"{path}[...]", seen)
    elif kind in _LISTS or _is_union(kind):
        for argument in get_args(expected):
            if argument is not Ellipsis:
                _check_type(argument, f"{path}[...]" if kind in _LISTS else path, seen)
    elif not (_is_leaf(kind) or kind is Literal):
        _refuse(expected, path)


def _check_key_type(key_type: Any, path: str) -> None:
    kind = _bare(key_type)
    if kind in (int, float, bool) or not (_is_leaf(kind) or get_origin(kind) is Literal):
        raise ConfigurationError(f"{path}: the keys of a JSON object are text, they cannot be {_name(kind)}")


def _bare(expected: Any) -> Any:
    """*expected* without what only type checkers care about."""
    while True:
        if isinstance(expected, typing.NewType):
            expected = expected.__supertype__
        elif get_origin(expected) is typing.Annotated:
            expected = get_args(expected)[0]
        else:
            return expected


def _is_union(kind: Any) -> bool:
    return kind is Union or kind is types.UnionType


def _is_leaf(kind: Any) -> bool:
    if kind in (Any, object, None, type(None)) or kind in _SCALARS or kind in _FROM_TEXT:
        return True
    return isinstance(kind, type) and issubclass(kind, Enum)


def _refuse(expected: Any, path: str) -> NoReturn:
    raise ConfigurationError(
        f"{path}: a payload cannot have a field of type {_name(expected)}; use a dataclass, list, dict, str, "
        "int, float, bool, datetime, UUID, Decimal, Enum, Literal, or a decoder of your own"
    )


# Reading: value by value.


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_refuse_constant, parse_float=_finite)
    except ValueError as exc:
        raise DecodeError(f"the body is not JSON: {exc}") from exc


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON value")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is beyond the range of a float")
    return number


def _checked(value: Any, expected: Any, path: str) -> Any:
    """*value* as an *expected*, or a `DecodeError` that names *path*."""
    expected = _bare(expected)
    kind = get_origin(expected) or expected
    if kind is Any or kind is object:
        return value
    if kind in _SCALARS:
        return _scalar(value, kind, path)
    if dataclasses.is_dataclass(kind):
        return _instance(value, cast(type, kind), path)
    if _is_union(kind):
        return _one_of(value, get_args(expected), path)
    if kind is None or kind is type(None):
        return value if value is None else _wrong(value, "null", path)
    if kind in _LISTS:
        return _list(value, kind, expected, path)
    if kind in _OBJECTS:
        return _object(value, expected, path)
    if kind in _FROM_TEXT:
        return _from_text(value, kind, path)
    if kind is Literal:
        return _same(value, {choice: choice for choice in get_args(expected)}, path)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _same(value, {member: member.value for member in kind}, path)
    _refuse(expected, path)


def _scalar(value: Any, kind: type, path: str) -> Any:
    # bool is an int to Python, and is not to anybody who reads a webhook.
    if isinstance(value, bool) != (kind is bool):
        _wrong(value, kind.__name__, path)
    if kind is float and isinstance(value, int):
        try:
            return float(value)
        except OverflowError:
            raise DecodeError(f"{path}: a number is beyond the range of a float") from None
    return value if isinstance(value, kind) else _wrong(value, kind.__name__, path)


def _one_of(value: Any, choices: tuple[Any, ...], path: str) -> Any:
    errors = []
    for choice in choices:
        try:
            return _checked(value, choice, path)
        except DecodeError as exc:
            errors.append(exc)
    if len(choices) == 2 and type(None) in choices:
        raise errors[0] if choices[1] is type(None) else errors[1]
    return _wrong(value, " or ".join(_name(choice) for choice in choices), path)


def _from_text(value: Any, kind: type, path: str) -> Any:
    what, parse = _FROM_TEXT[kind]
    if not isinstance(value, str):
        _wrong(value, f"{what} as text", path)
    try:
        return parse(value)
    except (ValueError, InvalidOperation):
        # Without its cause, which repeats the text.
        raise DecodeError(f"{path}: expected {what}, got {_shown(value)}") from None


def _same(value: Any, choices: Mapping[Any, Any], path: str) -> Any:
    """The choice that stands for *value*: equal and of its type, for 1 == 1.0 == True."""
    for choice, stands_for in choices.items():
        if stands_for == value and type(stands_for) is type(value):
            return choice
    return _wrong(value, " or ".join(repr(stands_for) for stands_for in choices.values()), path)


def _object(value: Any, expected: Any, path: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        _wrong(value, "an object", path)
    key_type, item_type = get_args(expected) or (str, Any)
    return {
        _checked(key, key_type, f"{path}, key {key!r}"): _checked(item, item_type, f"{path}.{key}")
        for key, item in value.items()
    }


def _list(value: Any, kind: type, expected: Any, path: str) -> Any:
    if not isinstance(value, list):
        _wrong(value, "a list", path)
    wanted = get_args(expected)
    if kind is tuple and expected is not tuple and Ellipsis not in wanted:
        if len(value) != len(wanted):
            raise DecodeError(f"{path}: expected {len(wanted)} items, got {len(value)}")
    else:
        wanted = (wanted[0] if wanted else Any,) * len(value)
    items = [_checked(item, wanted[i], f"{path}[{i}]") for i, item in enumerate(value)]
    try:
        return _LISTS[kind](items)
    except TypeError as exc:  # only a set is so particular
        raise DecodeError(f"{path}: {exc}, so it cannot be in a set") from exc


def _instance(value: Any, kind: type, path: str) -> Any:
    if not isinstance(value, dict):
        _wrong(value, f"an object for {kind.__name__}", path)
    known: dict[str, Any] = {}
    for item in _fields(kind):
        if item.key in value:
            known[item.name] = _field_value(value[item.key], item, f"{path}.{item.key}")
        elif item.required:
            raise DecodeError(f"{path}.{item.key}: missing")
    try:
        return kind(**known)
    except Exception as exc:  # a __post_init__ of the user's refuses the values
        raise DecodeError(f"{path}: {kind.__name__} refuses it: {exc}") from exc


def _field_value(value: Any, item: _Field, path: str) -> Any:
    if item.decoder is None:
        return _checked(value, item.type, path)
    if value is None:  # as dataclasses-json does: null is not shown to decoders
        return None if _takes_null(item.type) else _wrong(value, _name(item.type), path)
    try:
        return item.decoder(value)
    except Exception as exc:  # the decoder is the user's, and says no in its own way
        raise DecodeError(f"{path}: its decoder refuses {_shown(value)}: {exc}") from exc


def _takes_null(expected: Any) -> bool:
    expected = _bare(expected)
    if _is_union(get_origin(expected)):
        return any(_takes_null(choice) for choice in get_args(expected))
    return expected in (None, type(None), Any, object)


def _name(expected: Any) -> str:
    if expected is type(None):
        return "null"
    return str(expected) if get_args(expected) else str(getattr(expected, "__name__", expected))


def _wrong(value: Any, expected: str, path: str) -> NoReturn:
    raise DecodeError(f"{path}: expected {expected}, got {_shown(value)}")


def _shown(value: Any) -> str:
    """What came, short enough for a log line and without the contents of texts, which may be secret."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return f"text of {len(value)} characters"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "an object" if isinstance(value, dict) else f"{value!r}"
