"""Frozen, validated settings, from code or from one URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import parse_qsl, urlsplit

from queue_runtime.breaker import BreakerPolicy
from queue_runtime.errors import ConfigurationError, InvalidName
from queue_runtime.message import MAX_ID_LENGTH, check_queue
from queue_runtime.retry import RetryPolicy

QUEUE_PREFIX = "queue."


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """What a provider's factory is given: the URL's place and its options, as text.

    `options` may hold secrets and stays out of the repr. A provider refuses options that it does not
    know, by name.
    """

    provider: str
    location: str = ""
    """What stands after ``provider://``: a region, a namespace, the name of a memory broker."""
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    credential: object | None = field(default=None, repr=False)
    """An object of the SDK's that says who we are, from code (Azure: any `TokenCredential`)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    def refuse_unknown(self, known: frozenset[str]) -> None:
        """Raise `ConfigurationError` for the first option that is not *known*."""
        for name in self.options:
            if name not in known:
                raise ConfigurationError(
                    f"{self.provider}: unknown option {name!r}; it takes {', '.join(sorted(known))}, "
                    f"and {QUEUE_PREFIX}NAME for logical queue names",
                    provider=self.provider,
                )

    def refuse_credential(self) -> None:
        """Raise `ConfigurationError` if there is a credential; for a provider that takes none."""
        if self.credential is not None:
            raise ConfigurationError(
                f"{self.provider}: it takes no credential object (a {type(self.credential).__name__} was "
                "given); leave credential= out",
                provider=self.provider,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """All that a `QueueClient` is configured with.

    `queues` maps the names that the program uses to the broker's (a name, a path or a URL); a name that
    is not mapped means itself. `max_workers` bounds the threads that run handlers, for all workers of the
    client together. `max_lease` is the longest time in seconds that anything is kept alive.
    """

    provider: ProviderSettings
    queues: Mapping[str, str] = field(default_factory=dict)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    max_workers: int = 128
    max_lease: float = 12 * 3600.0

    def __post_init__(self) -> None:
        for name, target in self.queues.items():
            _check_queue(name, f"{QUEUE_PREFIX}{name}: the name")
            _check_queue(target, f"{QUEUE_PREFIX}{name}: the target")
        if self.max_workers < 1:
            raise ConfigurationError(f"max_workers must be at least 1, it is {self.max_workers}")
        if not 0 < self.max_lease < float("inf"):
            raise ConfigurationError(f"max_lease must be seconds above 0, it is {self.max_lease!r}")
        object.__setattr__(self, "queues", MappingProxyType(dict(self.queues)))


def _check_queue(name: str, what: str) -> None:
    try:
        check_queue(name)
    except InvalidName:
        # Without its cause, which repeats the value.
        raise ConfigurationError(
            f"{what} is no queue name: 1 to {MAX_ID_LENGTH} characters, no white space or control characters"
        ) from None


def parse_url(url: str) -> ClientSettings:
    """Read ``PROVIDER://LOCATION?option=value&queue.NAME=TARGET``.

    The text of the errors never repeats a value: URLs may hold secrets.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        # Without its cause, which repeats a value.
        raise ConfigurationError("the URL cannot be read: its location has unpaired brackets") from None
    if not parts.scheme or "://" not in url:
        raise ConfigurationError(
            "the URL names no provider; write PROVIDER://LOCATION, such as sqs://eu-west-1 or memory://"
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
    settings = ProviderSettings(provider=parts.scheme, location=parts.netloc, options=options)
    return ClientSettings(provider=settings, queues=queues)
