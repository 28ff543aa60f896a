"""`connect`: from a URL, settings or the environment to a client."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from queue_runtime.client import QueueClient
from queue_runtime.clock import Clock
from queue_runtime.config import ClientSettings, parse_url
from queue_runtime.errors import ConfigurationError
from queue_runtime.events import Listener
from queue_runtime.executor import SessionExecutor
from queue_runtime.strategies import SessionStrategy, no_session

URL_VARIABLE = "QUEUE_RUNTIME_URL"


def connect(
    target: str | ClientSettings | None = None,
    *,
    strategy: SessionStrategy = no_session,
    listeners: Sequence[Listener] = (),
    clock: Clock | None = None,
    executor: SessionExecutor | None = None,
    credential: object | None = None,
) -> QueueClient:
    """Make a client of the broker that *target* names; it does not connect before its first call.

    *target* is a URL (``sqs://eu-west-1``, ``memory://?queues=events:sessions``), settings, or None for the
    URL in the environment variable ``QUEUE_RUNTIME_URL``. *strategy* gives messages without a session id
    one. *listeners* hear of every event. *clock* and *executor* are for tests, and for programs that want
    to share a pool (a forked child gets a pool of its own). *credential* is an object of the SDK's that says
    who we are, for providers that take one (Service Bus: any ``TokenCredential``). Raises
    `ConfigurationError` (`ProviderNotFound`, `MissingExtra`) at once for what cannot work.
    """
    if target is None:
        target = os.environ.get(URL_VARIABLE, "")
        if not target:
            raise ConfigurationError(
                f"no target: set the environment variable {URL_VARIABLE}, or call connect(URL), "
                "such as connect('sqs://eu-west-1')"
            )
    settings = parse_url(target) if isinstance(target, str) else target
    if not isinstance(settings, ClientSettings):
        raise ConfigurationError(f"connect takes a URL or ClientSettings, not a {type(settings).__name__}")
    if credential is not None:
        settings = replace(settings, provider=replace(settings.provider, credential=credential))
    if not callable(strategy):
        raise ConfigurationError(
            f"strategy must be a function from a Message to a session id or None, it is {strategy!r}"
        )
    return QueueClient(settings, strategy=strategy, listeners=listeners, clock=clock, executor=executor)
