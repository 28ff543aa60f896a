"""Which of several values holds: pure, from layers to one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from queue_runtime.config.schema import Path
from queue_runtime.config.sources import Given, Layer, given_twice
from queue_runtime.errors import ConfigurationError

PROVIDER: Path = ("provider",)
URL: Path = ("url",)


def merge(layers: Sequence[Layer]) -> Layer:
    """One value for each setting: that of the first of *layers* that has one.

    A URL is one setting, so only the first counts, and all that it says has its place in the order. What a
    layer says of another provider than the one that is chosen does not count: the location, the options and
    the broker's names of queues mean nothing to this one.
    """
    named = _queue_names(layers)
    layers = [_with_names(layer, named) for layer in layers]
    provider = next((layer[PROVIDER].value for layer in layers if PROVIDER in layer), None)
    merged: dict[Path, Given] = {}
    url_seen = False
    for layer in layers:
        other = PROVIDER in layer and layer[PROVIDER].value != provider
        for path, given in layer.items():
            superseded = url_seen and given.from_url
            if path not in merged and not superseded and not (other and _is_place(path)):
                merged[path] = given
        url_seen = url_seen or URL in layer
    return merged


def _is_place(path: Path) -> bool:
    """Whether it says where the broker or a queue is."""
    return path[0] in ("provider", "location", "options") or (path[0] == "queues" and path[-1] == "target")


# An environment variable cannot spell every queue's name.


def _queue_names(layers: Iterable[Layer]) -> set[str]:
    """The names of queues that are written as they are."""
    return {
        path[1]
        for layer in layers
        for path, given in layer.items()
        if path[0] == "queues" and not given.spelled
    }


def _with_names(layer: Layer, named: set[str]) -> Layer:
    found: dict[Path, Given] = {}
    for path, given in layer.items():
        if path[0] == "queues" and given.spelled:
            path = ("queues", _spelled(path[1], named, given.source), *path[2:])
        if path in found:
            raise given_twice(path, found[path], given)
        found[path] = replace(given, path=path)
    return found


def _spelled(variable: str, named: set[str], source: str) -> str:
    """The queue that a variable means with *variable*: the one that is spelled so if all that is no letter
    and no digit is written as ``_``, else the name in lower case."""
    alike = [name for name in sorted(named) if re.sub(r"[^A-Z0-9]", "_", name.upper()) == variable]
    lower = variable.lower()
    if len(alike) > 1 and lower not in alike:
        raise ConfigurationError(
            f"{source} may mean {' or '.join(map(repr, alike))}; set it in a file instead"
        )
    return alike[0] if len(alike) == 1 else lower
