"""Stands in for Microsoft's preparers: each test gets a queue of its own, made over a broker's control port.

``BROKER_CONNECTION_STRING`` and ``BROKER_CONTROL_URL`` of the environment say which broker.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

import pytest

SERVICEBUS_ENDPOINT_SUFFIX = ""

_CONNECTION_STRING = os.environ["BROKER_CONNECTION_STRING"]
_CONTROL_URL = os.environ["BROKER_CONTROL_URL"]
_PARTS = dict(part.split("=", 1) for part in _CONNECTION_STRING.split(";"))
_UNITS = {"S": 1, "M": 60, "H": 3600}

_numbers = itertools.count(1)
_opener = build_opener(ProxyHandler({}))

Test = Callable[..., Any]


class _Preparer:
    """A decorator that calls the test with what `made` returns as further keyword arguments."""

    def __init__(self, name_prefix: str = "", **options: Any) -> None:
        self.options = options

    def made(self) -> dict[str, Any]:
        return {}

    def __call__(self, test: Test) -> Test:
        @functools.wraps(test)
        def prepared(*args: Any, **kwargs: Any) -> Any:
            return test(*args, **{**kwargs, **self.made()})

        return prepared


class CachedServiceBusResourceGroupPreparer(_Preparer):
    """There are no resource groups here."""


class CachedServiceBusNamespacePreparer(_Preparer):
    """The broker as a namespace, with its connection string and key."""

    def made(self) -> dict[str, Any]:
        return {
            "servicebus_namespace": SimpleNamespace(name=_PARTS["Endpoint"].removeprefix("sb://")),
            "servicebus_namespace_connection_string": _CONNECTION_STRING,
            "servicebus_namespace_key_name": _PARTS["SharedAccessKeyName"],
            "servicebus_namespace_primary_key": _PARTS["SharedAccessKey"],
        }


class ServiceBusQueuePreparer(_Preparer):
    """A new queue with the settings that the test names; partitions make no difference in memory."""

    def made(self) -> dict[str, Any]:
        name = f"microsoft-{os.getpid()}-{next(_numbers)}"
        settings = {
            "lock": _seconds(self.options.get("lock_duration", "PT30S")),
            "session": int(self.options.get("requires_session", False)),
            "dup": 600 if self.options.get("requires_duplicate_detection") else 0,
            "dl_on_expire": int(self.options.get("dead_lettering_on_message_expiration", False)),
        }
        url = f"{_CONTROL_URL}/queues/{name}?{urlencode(settings)}"
        with _opener.open(Request(url, method="PUT"), timeout=10.0):
            pass
        return {self.options.get("parameter_name", "servicebus_queue"): SimpleNamespace(name=name)}


class CachedServiceBusQueuePreparer(ServiceBusQueuePreparer):
    """Microsoft shares it between tests to spare the time that making one takes in Azure."""


class _NoTopics(_Preparer):
    def made(self) -> dict[str, Any]:
        pytest.skip("topics and subscriptions are out of the broker's scope")


class ServiceBusTopicPreparer(_NoTopics):
    pass


class ServiceBusSubscriptionPreparer(_NoTopics):
    pass


def _seconds(duration: str) -> int:
    """Of an ISO 8601 duration with one unit, ``PT5S``."""
    found = re.fullmatch(r"PT(\d+)([SMH])", duration)
    assert found is not None, duration
    return int(found[1]) * _UNITS[found[2]]
