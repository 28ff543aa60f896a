"""A pytest plugin: clients that Microsoft's tests make by host name and credential speak plain TCP."""

from __future__ import annotations

from typing import Any

from azure.servicebus import ServiceBusClient

_init = ServiceBusClient.__init__


def _init_without_tls(self: ServiceBusClient, *args: Any, **kwargs: Any) -> None:
    kwargs.setdefault("use_tls", False)
    _init(self, *args, **kwargs)


ServiceBusClient.__init__ = _init_without_tls  # type: ignore[method-assign]
