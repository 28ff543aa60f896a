"""Shows settings: which hold, with what they were found in, and no secret."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from queue_runtime.batching import BatchPolicy
from queue_runtime.breaker import BreakerPolicy
from queue_runtime.config.provider_settings import ProviderSettings
from queue_runtime.retry import RetryPolicy

MASK = "***"

POLICIES = (RetryPolicy, BreakerPolicy, BatchPolicy)
"""Settings that are shown part by part."""

DEFAULT = "default"
CODE = "code"

_SECRET_NAME = re.compile(
    "secret|passw|pwd|token|key|sas|sign|credential|auth|connection_?string|private|cert", re.IGNORECASE
)
_SECRET_TEXT = re.compile(r"(?i)(key|signature|secret|password|token|sig|credential)\s*=")


@dataclass(frozen=True, slots=True)
class Origin:
    """What a source said of a setting."""

    value: object = field(repr=False)
    source: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A setting that holds. A secret among them is ``***``."""

    name: str
    """As files write it: ``retry.max_attempts``."""
    value: object
    """Text, a number or None."""
    source: str
    """``code``, ``default``, a file, an environment variable, or the URL in one of those."""

    def __str__(self) -> str:
        value = self.value if self.value is None else json.dumps(self.value, ensure_ascii=False)
        return f"{self.name} = {'none' if value is None else value}  ({self.source})"


def described(settings: Any) -> list[Shown]:
    """All that holds in *settings*, a `ClientSettings`."""
    return [Shown(".".join(path), value, source) for path, value, source in _rows(settings)]


def as_dict(settings: Any) -> dict[str, Any]:
    """The same as a file would have it, in the terms of JSON."""
    found: dict[str, Any] = {}
    for path, value, _ in _rows(settings):
        inner = found
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = value
    return found


def masked(name: str, value: str) -> str:
    """The value of the option *name*, with ``***`` in the place of what may be secret in it."""
    if _SECRET_NAME.search(name) or _SECRET_TEXT.search(value):
        return MASK
    return _bare(value)


def _bare(text: str) -> str:
    """*text*, without the name and the password that a URL may have, and without its query."""
    place, asks, _ = text.partition("?")
    return f"{_without_user(place)}?{MASK}" if asks else _without_user(place)


def _without_user(text: str) -> str:
    if "@" not in text:
        return text
    try:
        parts = urlsplit(text)
    except ValueError:
        return MASK
    if not parts.netloc or "@" in text.replace(parts.netloc, "", 1):
        return MASK
    return urlunsplit(parts._replace(netloc=f"{MASK}@{parts.netloc.rpartition('@')[2]}"))


# Each row: the path, the value as it is shown, and the source.

_Path = tuple[str, ...]
_Row = tuple[_Path, object, str]


def _rows(settings: Any) -> Iterator[_Row]:
    origins: Mapping[_Path, Origin] = settings.origins

    def row(path: _Path, value: object, default: object, shown: object) -> _Row:
        origin = origins.get(path)
        if origin is not None:
            return path, shown, origin.source if origin.value == value else CODE
        return path, shown, DEFAULT if value == default else CODE

    provider: ProviderSettings = settings.provider
    yield row(("provider",), provider.provider, None, provider.provider)
    yield row(("location",), provider.location, "", _bare(provider.location))
    for name, text in sorted(provider.options.items()):
        yield row(("options", name), text, None, masked(name, text))
    if provider.credential is not None:
        yield ("credential",), type(provider.credential).__name__, CODE
    for each in fields(settings):
        if each.init and each.name not in ("provider", "queues", "origins"):
            value = getattr(settings, each.name)
            for path, item, default in _items((each.name,), value, _default(each)):
                yield row(path, item, default, _plain(item))
    for queue, options in sorted(settings.queues.items()):
        for path, item, default in _own(queue, options, settings):
            shown = _bare(item) if isinstance(item, str) and path[-1] == "target" else _plain(item)
            yield row(path, item, default, shown)


def _default(each: Any) -> object:
    return each.default_factory() if each.default is MISSING else each.default


def _items(path: _Path, value: Any, default: Any) -> Iterator[tuple[_Path, object, object]]:
    """A setting, or those of a policy."""
    if not isinstance(value, POLICIES):
        yield path, value, default
        return
    for each in fields(value):
        yield (*path, each.name), getattr(value, each.name), getattr(default, each.name)


def _own(queue: str, options: Any, settings: Any) -> Iterator[tuple[_Path, object, object]]:
    """What a queue has of its own: of a policy, what differs from the client's."""
    if isinstance(options, str):
        yield ("queues", queue, "target"), options, None
        return
    for each in fields(options):
        value = getattr(options, each.name)
        if value is None:
            continue
        place = ("queues", queue, each.name)
        if not isinstance(value, POLICIES):
            yield place, value, None
            continue
        common = getattr(settings, each.name)
        for path, item, default in _items(place, value, type(value)()):
            if item != getattr(common, path[-1]) or path in settings.origins:
                yield path, item, default


def _plain(value: object) -> object:
    """*value* in the terms of JSON: a strategy as its text."""
    return value if value is None or isinstance(value, str | int | float) else str(value)
