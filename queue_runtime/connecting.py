"""`connect`: from a URL, a file, the environment or settings to a client."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike

from queue_runtime.client import QueueClient
from queue_runtime.clock import Clock
from queue_runtime.config import ClientSettings, load_settings
from queue_runtime.config.explaining import explained
from queue_runtime.config.loading import Target
from queue_runtime.errors import ConfigurationError
from queue_runtime.events import Listener
from queue_runtime.executor import SessionExecutor
from queue_runtime.strategies import SessionStrategy


def connect(
    target: Target | ClientSettings | None = None,
    *,
    strategy: SessionStrategy | str | None = None,
    listeners: Sequence[Listener] = (),
    clock: Clock | None = None,
    executor: SessionExecutor | None = None,
    credential: object | None = None,
    env_file: str | PathLike[str] | None = None,
) -> QueueClient:
    """Make a client of the broker that *target* names; it does not connect before its first call.

    *target* is a URL (``sqs://eu-west-1``, ``memory://?queues=events:sessions``), the path of a TOML or JSON
    file, or a dictionary with what such a file has; None: the environment says it, in ``QUEUE_RUNTIME_URL``
    or the file that ``QUEUE_RUNTIME_CONFIG`` names. What *target* leaves open comes from the environment,
    then *env_file*, then the file, as `load_settings` reads them. `ClientSettings` are taken as they are.

    *strategy* gives messages without a session id one, in place of that of the settings; a queue's own
    strategy comes before it. *listeners* hear of every event. *clock* and *executor* are for tests, and for
    programs that want to share a pool (a forked child gets a pool of its own). *credential* is an object of
    the SDK's that says who we are, for providers that take one (Service Bus: any ``TokenCredential``). Raises
    `ConfigurationError` (`ProviderNotFound`, `MissingExtra`) at once for what cannot work.
    """
    if not isinstance(target, ClientSettings):
        settings = load_settings(target, env_file=env_file)
    elif env_file is None:
        settings = target
    else:
        raise ConfigurationError("env_file has no meaning beside ClientSettings, which are taken as they are")
    if credential is not None:
        settings = replace(settings, provider=replace(settings.provider, credential=credential))
    try:
        return QueueClient(settings, strategy=strategy, listeners=listeners, clock=clock, executor=executor)
    except ConfigurationError as exc:
        raise explained(exc, settings, os.environ) from exc.__cause__
