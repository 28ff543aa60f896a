"""`ClientSettings`: all that a client is configured with, and what it comes to for each queue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

from queue_runtime.batching import BatchPolicy
from queue_runtime.breaker import BreakerPolicy
from queue_runtime.clock import Clock
from queue_runtime.config.provider_settings import QUEUE_PREFIX, ProviderSettings
from queue_runtime.config.showing import Origin, Shown, as_dict, described
from queue_runtime.errors import ConfigurationError, InvalidName
from queue_runtime.message import MAX_ID_LENGTH, check_queue
from queue_runtime.retry import RetryPolicy, check_number, check_whole
from queue_runtime.strategies import SessionStrategy, as_strategy, on_clock

Expired = Literal["drop", "dead_letter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOptions:
    """What is different for one queue. None: as the client's settings say.

    Raises `ConfigurationError`, naming the setting, for what is of the wrong type or out of range.
    """

    target: str | None = None
    """The broker's name for it, a path or a URL; None: the program's name is the broker's too."""
    strategy: SessionStrategy | str | None = None
    retry: RetryPolicy | None = None
    breaker: BreakerPolicy | None = None
    batching: BatchPolicy | None = None
    send_timeout: float | None = None
    lease: float | None = None
    expired: Expired | None = None

    def __post_init__(self) -> None:
        _check_common(self)
        for name, kind in _POLICIES.items():
            _check_type(name, getattr(self, name), kind, optional=True)
        if self.target is not None and not isinstance(self.target, str):
            raise ConfigurationError(f"target must be text, it is of type {type(self.target).__name__}")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """What holds for one queue: its own options, and the client's settings for the rest."""

    queue: str
    """The program's name for it."""
    target: str
    """The broker's."""
    strategy: SessionStrategy | None
    retry: RetryPolicy
    breaker: BreakerPolicy
    batching: BatchPolicy
    send_timeout: float
    lease: float | None
    expired: Expired


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """All that a `QueueClient` is configured with; docs/configuration.md says what each setting means.

    `queues` has what is special about the queues that the program names: the broker's name (a name, a path
    or a URL), or `QueueOptions`. A queue that is not among them is used under its own name, with what the
    client has.
    Raises `ConfigurationError`, naming the setting, for what is of the wrong type or out of range.
    """

    provider: ProviderSettings
    queues: Mapping[str, str | QueueOptions] = field(default_factory=dict)
    strategy: SessionStrategy | str | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    batching: BatchPolicy = field(default_factory=BatchPolicy)
    send_timeout: float = 8.0
    lease: float | None = None
    expired: Expired = "drop"
    max_workers: int = 128
    max_lease: float = 12 * 3600.0
    origins: Mapping[tuple[str, ...], Origin] = field(default_factory=dict, repr=False, compare=False)
    """Where they were found; `load_settings` writes it, `describe` reads it."""

    _queues: Mapping[str, QueueSettings] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_type("provider", self.provider, ProviderSettings)
        for name, kind in _POLICIES.items():
            _check_type(name, getattr(self, name), kind)
        check_whole("max_workers", self.max_workers, least=1)
        check_number("max_lease", self.max_lease, least=0, above=True, unit="seconds")
        _check_common(self)
        for name, options in self.queues.items():
            _check_type(f"queues.{name}", options, (str, QueueOptions))
            own = options if isinstance(options, QueueOptions) else QueueOptions(target=options)
            _check_queue(name, f"{QUEUE_PREFIX}{name}: the name")
            if own.target is not None:
                _check_queue(own.target, f"{QUEUE_PREFIX}{name}: the target")
            _check_lease(f"queues.{name}.lease", own.lease, self.max_lease)
        _check_lease("lease", self.lease, self.max_lease)
        object.__setattr__(self, "queues", MappingProxyType(dict(self.queues)))
        known = {name: self._of(name, options) for name, options in self.queues.items()}
        _check_aliases(known.values())
        object.__setattr__(self, "_queues", MappingProxyType(known))

    def of(self, queue: str) -> QueueSettings:
        """What holds for *queue*, by the name that the program gives it.

        Raises `ConfigurationError` for a URL that holds credentials, without repeating it.
        """
        known = self._queues.get(queue)
        if known is not None:
            return known
        _check_no_credentials(queue, "the queue's name")
        return self._of(queue, queue)

    def describe(self) -> list[Shown]:
        """All settings that hold, each with where it was found; for logs and for ``print(*..., sep="\\n")``.

        Secrets are masked: every option of the provider whose name or text looks like one.
        """
        return described(self)

    def as_dict(self) -> dict[str, Any]:
        """The same in the form of a file, in the terms of JSON. Masked, so it cannot be read back in full."""
        return as_dict(self)

    def timed_by(self, clock: Clock) -> ClientSettings:
        """The same, with the time of *clock* in the strategies that ask for the time."""
        queues = {
            name: replace(options, strategy=_on_clock(options.strategy, clock))
            if isinstance(options, QueueOptions)
            else options
            for name, options in self.queues.items()
        }
        return replace(self, strategy=_on_clock(self.strategy, clock), queues=queues)

    def _of(self, queue: str, options: str | QueueOptions) -> QueueSettings:
        own = options if isinstance(options, QueueOptions) else QueueOptions(target=options)
        return QueueSettings(
            queue=queue,
            target=own.target or queue,
            strategy=cast("SessionStrategy | None", own.strategy or self.strategy),
            retry=own.retry or self.retry,
            breaker=own.breaker or self.breaker,
            batching=own.batching or self.batching,
            send_timeout=self.send_timeout if own.send_timeout is None else own.send_timeout,
            lease=self.lease if own.lease is None else own.lease,
            expired=own.expired or self.expired,
        )


_POLICIES: Mapping[str, type[Any]] = {"retry": RetryPolicy, "breaker": BreakerPolicy, "batching": BatchPolicy}


def _check_common(settings: ClientSettings | QueueOptions) -> None:
    """What the client and each queue may say. The text of a strategy becomes the strategy."""
    if settings.strategy is not None:
        object.__setattr__(settings, "strategy", as_strategy(settings.strategy))
    optional = isinstance(settings, QueueOptions)
    if not optional or settings.send_timeout is not None:
        check_number("send_timeout", settings.send_timeout, least=0, above=True, unit="seconds")
    if settings.lease is not None:
        check_number("lease", settings.lease, least=0, above=True, unit="seconds")
    if settings.expired not in (*get_args(Expired), *([None] if optional else [])):
        raise ConfigurationError(
            f"expired must be {' or '.join(map(repr, get_args(Expired)))}, it is {settings.expired!r}"
        )


def _check_type(
    name: str, value: object, kind: type[Any] | tuple[type[Any], ...], *, optional: bool = False
) -> None:
    if not isinstance(value, kind) and not (optional and value is None):
        names = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
        raise ConfigurationError(f"{name} must be a {names}, it is of type {type(value).__name__}")


def _check_lease(name: str, lease: float | None, longest: float) -> None:
    if lease is not None and lease > longest:
        raise ConfigurationError(f"{name} must be at most max_lease, {longest:g} seconds; it is {lease!r}")


def _on_clock(strategy: SessionStrategy | str | None, clock: Clock) -> SessionStrategy | None:
    return None if strategy is None else on_clock(as_strategy(strategy), clock)


def _check_aliases(queues: Iterable[QueueSettings]) -> None:
    """Two names may mean one queue of the broker; what holds for its requests can be said once only."""
    first: dict[str, QueueSettings] = {}
    for each in queues:
        known = first.setdefault(each.target, each)
        for name in ("retry", "breaker", "batching", "lease"):
            if getattr(each, name) != getattr(known, name):
                raise ConfigurationError(
                    f"queues.{known.queue} and queues.{each.queue} are the same queue of the broker, "
                    f"{each.target!r}, and differ in {name}; give them the same"
                )


def _check_no_credentials(name: str, what: str) -> None:
    if "@" in name and "//" in name:
        raise ConfigurationError(
            f"{what} holds credentials; leave them to the SDK's own chain (environment, profile, role), "
            "where they stay out of logs"
        )


def _check_queue(name: str, what: str) -> None:
    _check_no_credentials(name, what)
    try:
        check_queue(name)
    except InvalidName:
        # Without its cause, which repeats the value.
        raise ConfigurationError(
            f"{what} is no queue name: 1 to {MAX_ID_LENGTH} characters, no white space or control characters"
        ) from None
