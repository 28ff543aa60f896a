"""What a URL says: the provider, its place and options, and the broker's names of queues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from queue_runtime.config.provider_settings import QUEUE_PREFIX, ProviderSettings
from queue_runtime.config.settings import ClientSettings
from queue_runtime.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class UrlParts:
    """A URL, taken apart. The options may hold secrets."""

    provider: str
    location: str
    options: Mapping[str, str] = field(repr=False)
    queues: Mapping[str, str]


def parse_url(url: str) -> ClientSettings:
    """Read ``PROVIDER://LOCATION?option=value&queue.NAME=TARGET``, and nothing else: no environment, no file.

    The text of the errors never repeats a value: URLs may hold secrets.
    """
    parts = read_url(url)
    settings = ProviderSettings(provider=parts.provider, location=parts.location, options=parts.options)
    return ClientSettings(provider=settings, queues=parts.queues)


def read_url(url: str) -> UrlParts:
    """Take *url* apart. Raises `ConfigurationError`, without repeating a value."""
    try:
        parts = urlsplit(url)
    except ValueError:
        # Without its cause, which repeats a value.
        raise ConfigurationError("the URL cannot be read: its location has unpaired brackets") from None
    if not parts.scheme or "://" not in url:
        raise ConfigurationError(
            "the URL names no provider; write PROVIDER://LOCATION, such as sqs://eu-west-1 or memory://, "
            "or the name of a .toml or .json file"
        )
    if parts.scheme in ("http", "https"):
        raise ConfigurationError(
            f"{parts.scheme} is no provider; a queue's URL is the target of a name: "
            "sqs://REGION?queue.NAME=https://..."
        )
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(
            f"{parts.scheme}: the URL holds credentials; leave them to the SDK's own chain "
            "(environment, profile, role), where they stay out of logs"
        )
    if parts.path.strip("/") or parts.fragment:
        raise ConfigurationError(
            f"{parts.scheme}: the URL has a path or a fragment; queues are named by the program, "
            f"or mapped with {QUEUE_PREFIX}NAME=TARGET"
        )
    options: dict[str, str] = {}
    queues: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        kept = queues if name.startswith(QUEUE_PREFIX) else options
        key = name.removeprefix(QUEUE_PREFIX) if kept is queues else name
        if key in kept:
            raise ConfigurationError(f"{parts.scheme}: {name!r} is given twice; give it once")
        kept[key] = value
    return UrlParts(parts.scheme, parts.netloc, options, queues)
