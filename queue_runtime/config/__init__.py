"""Frozen, validated settings: from code, a URL, the environment, a ``.env`` file, a TOML or JSON file."""

from queue_runtime.config.loading import load_settings
from queue_runtime.config.provider_settings import QUEUE_PREFIX, ProviderSettings
from queue_runtime.config.settings import ClientSettings, Expired, QueueOptions, QueueSettings
from queue_runtime.config.showing import Shown
from queue_runtime.config.url import parse_url

__all__ = [
    "QUEUE_PREFIX",
    "ClientSettings",
    "Expired",
    "ProviderSettings",
    "QueueOptions",
    "QueueSettings",
    "Shown",
    "load_settings",
    "parse_url",
]
