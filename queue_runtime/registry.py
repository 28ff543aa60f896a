"""Finds a provider by its name: entry points of the group ``queue_runtime.providers``."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

from queue_runtime.clock import Clock
from queue_runtime.config import ProviderSettings
from queue_runtime.errors import MissingExtra, ProviderNotFound
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
            raise MissingExtra(
                f"provider {name!r} needs the package {exc.name!r}; pip install '{owner}[{name}]'",
                provider=name,
            ) from exc
        return factory
    installed = ", ".join(sorted({entry.name for entry in found})) or "none (is the package installed?)"
    raise ProviderNotFound(f"no provider {name!r}; installed: {installed}", provider=name)
