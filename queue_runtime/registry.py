"""Finds a provider by its name: entry points of the group ``queue_runtime.providers``."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points

from queue_runtime.clock import Clock
from queue_runtime.config import ProviderSettings
from queue_runtime.errors import MissingExtra, ProviderNotFound
from queue_runtime.nearest import did_you_mean
from queue_runtime.provider import ProviderClient

GROUP = "queue_runtime.providers"

ProviderFactory = Callable[[ProviderSettings, Clock], ProviderClient]


def find(name: str) -> ProviderFactory:
    """Return the factory registered as *name*.

    Raises `ProviderNotFound`, or `MissingExtra` if the provider's SDK is not installed.
    """
    found = entry_points(group=GROUP)
    for entry in found:
        if entry.name != name:
            continue
        try:
            factory: ProviderFactory = entry.load()
        except ModuleNotFoundError as exc:
            owner = entry.dist.name if entry.dist is not None else "queue_runtime"
            needed = " and ".join(map(repr, _missing(entry) or [str(exc.name)]))
            raise MissingExtra(
                f"provider {name!r} needs the package {needed}; pip install '{owner}[{name}]'",
                provider=name,
            ) from exc
        return factory
    installed = ", ".join(sorted({entry.name for entry in found})) or "none (is the package installed?)"
    meant = did_you_mean(name, [entry.name for entry in found])
    raise ProviderNotFound(f"no provider {name!r}; installed: {installed}{meant}", provider=name)


def _missing(entry: EntryPoint) -> list[str]:
    """The distributions that the provider's extra brings and that are not installed; a module in them may be
    called otherwise."""
    required = (entry.dist.requires if entry.dist is not None else None) or []
    of_extra = re.compile(rf"""([\w.-]+).*;.*\bextra\s*==\s*["']{re.escape(entry.name)}["']""")
    return [found[1] for each in required if (found := of_extra.match(each)) and not _installed(found[1])]


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
