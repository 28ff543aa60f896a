"""Where settings come from: each source becomes a layer, a row of values that know where they were found."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from io import StringIO
from pathlib import Path as FilePath
from typing import Any

from queue_runtime.config.schema import (
    ANYWHERE,
    IN_FILES,
    QUEUE,
    Group,
    Leaf,
    Names,
    Node,
    Path,
    dotted,
    leaves,
)
from queue_runtime.config.url import UrlParts, read_url
from queue_runtime.errors import ConfigurationError, MissingExtra
from queue_runtime.nearest import did_you_mean, nearest

PREFIX = "QUEUE_RUNTIME_"
"""Begins the names of our environment variables."""

INSIDE = "__"
"""Stands for the dot of ``retry.max_attempts`` in them."""

NOT_SETTINGS = ("QUEUE_RUNTIME_TEST_", "QUEUE_RUNTIME_PAYLOADS")
"""Begin variables of the conformance suite and of the demo."""

CODE = "code"
IN_CODE = (CODE, "the URL")
"""What needs no words: the caller is the source."""

_URL_IN = "the URL, "
"""Before the source of a URL."""

SUFFIXES = (".toml", ".json")


@dataclass(frozen=True, slots=True)
class Given:
    """A value, read and checked, and where it was found."""

    path: Path
    value: object = field(repr=False)
    source: str
    from_url: bool = False
    """It stands in a URL."""
    spelled: bool = False
    """The queue in its path is written as an environment variable has it, in upper case."""


Layer = Mapping[Path, Given]


def from_code(data: Mapping[str, object]) -> Layer:
    """A dictionary of settings, as a file would have them; also with functions and policies for values."""
    return _layer(_walk(data, ANYWHERE, (), CODE))


def from_file(path: FilePath) -> Layer:
    """A TOML or JSON file."""
    return _layer(_walk(_load(path), IN_FILES, (), str(path)))


def from_environment(environ: Mapping[str, str], where: str = "") -> Layer:
    """Environment variables, those of ours. One that is empty counts as not set. *where* they stand, if it is
    not in the environment itself."""
    return _layer(
        _variable(name, value, f"{name}{where}")
        for name, value in environ.items()
        if value and name.startswith(PREFIX) and not name.startswith(NOT_SETTINGS)
    )


def from_env_file(path: FilePath) -> Layer:
    """A ``.env`` file: of its variables those of ours. It changes nothing in the environment."""
    if not path.is_file():
        raise ConfigurationError(f"the file {str(path)!r} is not there; env_file names a .env file")
    return from_environment(_variables(path), f" in {path}")


def set_in(path: FilePath) -> list[str]:
    """The names that a ``.env`` file sets, ours and others."""
    return [name for name, value in _variables(path).items() if value]


def given_twice(path: Path, first: Given, second: Given) -> ConfigurationError:
    """What to say of a setting that one source has twice."""
    name, places = dotted(path), [_place(first), _place(second)]
    if places[0] == places[1] and (first.from_url or second.from_url):
        return ConfigurationError(
            f"{name} is given twice in {places[0]}: by the URL, and by itself; give it once"
        )
    one, other = (
        f"the URL of {place}" if given.from_url else place
        for given, place in zip((first, second), places, strict=True)
    )
    return ConfigurationError(f"{name} is given twice: by {one}, and by {other}; give it once")


def variable_of(path: Path) -> str:
    """The environment variable of the setting *path*."""
    return f"{PREFIX}{INSIDE.join(path).upper()}"


# A layer.


def _layer(found: Iterator[Given]) -> Layer:
    """All that was *found*, with what a URL among it says beside the rest."""
    layer: dict[Path, Given] = {}
    for given in found:
        for each in (given, *_in_url(given)):
            if each.path in layer:
                raise given_twice(each.path, layer[each.path], each)
            layer[each.path] = each
    return layer


def _in_url(given: Given) -> Iterator[Given]:
    if given.path != ("url",):
        return
    source = IN_CODE[1] if given.source == CODE else f"{_URL_IN}{given.source}"
    parts = _located(lambda: read_url(str(given.value)), given.source)
    said: dict[Path, str] = {("provider",): parts.provider, ("location",): parts.location}
    said |= {("options", name): value for name, value in parts.options.items()}
    said |= {("queues", name, "target"): target for name, target in parts.queues.items()}
    for path, value in said.items():
        yield Given(path, value, source, from_url=True)


def _place(given: Given) -> str:
    """Where it stands; of what a URL says, where the URL stands."""
    if not given.from_url:
        return given.source
    return CODE if given.source in IN_CODE else given.source.removeprefix(_URL_IN)


def _located(read: Callable[[], UrlParts], source: str) -> UrlParts:
    try:
        return read()
    except ConfigurationError as exc:
        if source == CODE:
            raise
        raise ConfigurationError(f"{source}: {exc}") from None


# Tables: files, and dictionaries in code.


def _walk(data: Mapping[Any, object], group: Group, path: Path, source: str) -> Iterator[Given]:
    for name, value in data.items():
        node = group.items.get(name)
        if node is None:
            wrong = dotted((*path, str(name)))
            raise ConfigurationError(
                f"{source}: there is no setting {wrong!r}{_meant(str(name), group, path)}"
            )
        yield from _at(value, node, (*path, name), source)


def _at(value: object, node: Node, path: Path, source: str) -> Iterator[Given]:
    if isinstance(node, Leaf):
        yield Given(path, _read(node.kind.read, node, value, f"{source}: {dotted(path)}"), source)
    elif isinstance(node, Names):
        for name, item in _table(value, path, source).items():
            inner = {node.short: item} if node.short and isinstance(item, str) else item
            yield from _at(inner, node.each, (*path, str(name)), source)
    elif node.made is not None and isinstance(value, node.made):  # from code
        for each in fields(node.made):
            inner = getattr(value, each.name)
            if inner is not None:
                yield from _at(inner, node.items[each.name], (*path, each.name), source)
    else:
        yield from _walk(_table(value, path, source), node, path, source)


def _table(value: object, path: Path, source: str) -> Mapping[Any, object]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f"{source}: {dotted(path)} must be a table with names and values, it is of type "
            f"{type(value).__name__}"
        )
    return value


def _meant(name: str, group: Group, path: Path) -> str:
    if group is IN_FILES and name in ANYWHERE.items:
        return f" in a file; it is named in code, or by the environment variable {variable_of((name,))}"
    if not path and name == "worker":
        return "; what a worker does is told in code: Worker(client, queue, handler, concurrency=...)"
    elsewhere = [dotted(other) for other, _ in leaves(ANYWHERE) if other[-1] == name]
    if not path and elsewhere:
        return f"; did you mean {elsewhere[0]!r}?"
    return did_you_mean(name, group.items) or f"; there are {', '.join(group.items)}"


def _read(read: Callable[[Any], object], leaf: Leaf, value: object, where: str) -> object:
    try:
        return read(value)
    except ConfigurationError as exc:
        text = str(exc)
        if where.endswith("strategy") and text.startswith("strategy "):  # said once
            raise ConfigurationError(f"{where} {text.removeprefix('strategy ')}") from exc.__cause__
        raise ConfigurationError(f"{where}: {text}") from exc.__cause__
    except ValueError:
        raise ConfigurationError(f"{where} {leaf.kind.wrong(value)}") from None


# Files.


def _variables(path: FilePath) -> dict[str, str]:
    """All that a ``.env`` file sets."""
    try:
        dotenv, parser = import_module("dotenv"), import_module("dotenv.parser")
    except ModuleNotFoundError as exc:
        raise MissingExtra(
            f"reading {str(path)!r} needs the package 'python-dotenv'; pip install 'queue_runtime[dotenv]'"
        ) from exc
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{path} cannot be read: {_reason(exc)}") from None
    # What cannot be read dotenv_values passes over, with a warning that does not name the file.
    wrong = [each.original.line for each in parser.parse_stream(StringIO(text)) if each.error]
    if wrong:
        raise ConfigurationError(f"{path}, line {wrong[0]}, cannot be read: write it as NAME=VALUE")
    values = dotenv.dotenv_values(stream=StringIO(text))
    return {name: value or "" for name, value in values.items()}


def _load(path: FilePath) -> Mapping[str, object]:
    if path.suffix not in SUFFIXES:
        raise ConfigurationError(f"{str(path)!r} is neither a .toml nor a .json file")
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text, object_pairs_hook=_once)
    except FileNotFoundError:
        raise ConfigurationError(f"the file {str(path)!r} is not there") from None
    except (OSError, ValueError, RecursionError) as exc:
        raise ConfigurationError(f"{path} cannot be read: {_reason(exc)}") from None
    if not isinstance(data, dict):
        raise ConfigurationError(f"{path} must have an object with settings, it has a {type(data).__name__}")
    return data


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is given twice")
    return found


def _reason(exc: Exception) -> str:
    """Without what stands in the file: there may be secrets in it."""
    if isinstance(exc, UnicodeDecodeError):
        return "it is not UTF-8"
    return exc.strerror or str(exc) if isinstance(exc, OSError) else str(exc)


# Environment variables.


def _variable(name: str, text: str, source: str) -> Given:
    parts = name.removeprefix(PREFIX).split(INSIDE)
    node: Node = ANYWHERE
    path: Path = ()
    for part in parts:
        lower = part.lower()
        if isinstance(node, Group) and lower in node.items:
            node, path = node.items[lower], (*path, lower)
        elif isinstance(node, Names) and part:
            node, path = node.each, (*path, part)
        else:
            raise ConfigurationError(f"{source} is no setting{_meant_variable(name, parts)}")
    if node is QUEUE:  # the broker's name alone
        node, path = QUEUE.items["target"], (*path, "target")
    if not isinstance(node, Leaf):
        raise ConfigurationError(
            f"{source} is a group of settings; set one of it, such as {name}{INSIDE}{_example(node)}"
        )
    if path[0] == "options" and path[1].isupper():
        path = ("options", path[1].lower())
    value = _read(node.kind.parse, node, text, source)
    return Given(path, value, source, spelled=path[0] == "queues" and path[1].isupper())


def _example(node: Group | Names) -> str:
    if isinstance(node, Group):
        return next(iter(node.items)).upper()
    return "NAME" if isinstance(node.each, Leaf) else f"EVENTS{INSIDE}{_example(node.each)}"


def _meant_variable(name: str, parts: list[str]) -> str:
    if parts[0].lower() == "worker":
        return _meant("worker", ANYWHERE, ())
    known = [path for path, _ in leaves(ANYWHERE)]
    if parts[0].lower() == "queues" and len(parts) > 1:
        known = [("queues", parts[1], *path) for path, _ in leaves(QUEUE)]
    # Without the prefix: it would make all names alike.
    without = {variable_of(path).removeprefix(PREFIX): variable_of(path) for path in known}
    near = nearest(name.removeprefix(PREFIX), without)
    if near is None:
        return f"; the variables that begin with {PREFIX} are the library's own"
    return f"; did you mean {without[near]!r}?"
