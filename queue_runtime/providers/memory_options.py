"""Reads the options of ``memory://``; raises `ConfigurationError` naming the one that makes no sense."""

from __future__ import annotations

from queue_runtime.config import ProviderSettings
from queue_runtime.errors import ConfigurationError, InvalidName
from queue_runtime.message import check_queue
from queue_runtime.providers.memory_broker import KINDS


def declared(text: str) -> dict[str, str]:
    """Queue -> kind, of ``events:sessions,jobs``."""
    queues: dict[str, str] = {}
    for entry in filter(None, text.split(",")):
        name, colon, kind = entry.partition(":")
        if colon and kind not in KINDS:
            raise ConfigurationError(
                f"memory: queues: {entry!r} is neither NAME nor NAME:KIND with a kind of {', '.join(KINDS)}"
            )
        kind = kind or "plain"
        if queues.setdefault(_checked(name), kind) != kind:
            raise ConfigurationError(
                f"memory: queues: {name!r} is declared twice, as {queues[name]} and as {kind}"
            )
    return queues


def _checked(name: str) -> str:
    try:
        return check_queue(name)
    except InvalidName as exc:
        raise ConfigurationError(f"memory: queues: {exc}") from None


def number(settings: ProviderSettings, name: str) -> float | None:
    """The option as a number above 0; None where it is not given."""
    text = settings.options.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigurationError(f"memory: {name} must be a number above 0, it is {text!r}")
    return value
