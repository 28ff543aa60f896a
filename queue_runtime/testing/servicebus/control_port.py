"""What can be asked of a broker that has the control port: queues, faults, and what it has seen."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import ProxyHandler, Request, build_opener

from queue_runtime.errors import QueueError

_TIMEOUT = 10.0

# Proxies of the environment are for the world outside.
_OPENER = build_opener(ProxyHandler({}))


class Controlled(ABC):
    """A broker, by the requests that `queue_runtime.testing.servicebus.control` lists. Any thread may call.

    What the broker refuses, or does not answer within ten seconds, is a `QueueError`.
    """

    @property
    @abstractmethod
    def control_url(self) -> str:
        """``http://127.0.0.1:PORT``"""

    def make_queue(
        self,
        name: str,
        *,
        lock: float = 30.0,
        sessions: bool = False,
        max_delivery: int = 10,
        dead_letter_on_expire: bool = False,
        duplicate_window: float = 0.0,
        ttl: float = 0.0,
        max_message_size: int | None = None,
        max_batch_size: int | None = None,
    ) -> str:
        """Make an empty queue, in the place of one of that name; return *name*.

        Times are in seconds, a *ttl* or *duplicate_window* of 0 is none; sizes are in bytes, None: 256 KiB.
        """
        values: dict[str, object] = {
            "lock": lock,
            "session": int(sessions),
            "max_delivery": max_delivery,
            "dl_on_expire": int(dead_letter_on_expire),
            "dup": duplicate_window,
            "ttl": ttl,
        }
        sizes = {"max_message_size": max_message_size, "max_batch_size": max_batch_size}
        values |= {key: size for key, size in sizes.items() if size is not None}
        self._ask("PUT", f"/queues/{quote(name)}", values)
        return name

    def stats(self) -> dict[str, Any]:
        """Return ``{"queues": {NAME: {"active": 0, …}}, "connections": 0, "delivery_id_violations": 0}``."""
        answer: dict[str, Any] = self._ask("GET", "/stats", {})
        return answer

    def fault(self, kind: str, **values: object) -> None:
        """Do, or prepare, what ``POST /fault/KIND?...`` does: ``fault("send", entity="q", n=2)``."""
        self._ask("POST", f"/fault/{quote(kind)}", values)

    def latency(self, milliseconds: float) -> None:
        """Let everything that the broker is asked take so much longer, until told otherwise."""
        self.fault("latency", ms=milliseconds)

    def delete_all(self) -> None:
        """Remove all queues with their messages, and all faults."""
        self._ask("DELETE", "/all", {})

    def _ask(self, method: str, path: str, values: dict[str, Any]) -> Any:
        url = self.control_url + path
        try:
            with _OPENER.open(
                Request(f"{url}?{urlencode(values)}", method=method), timeout=_TIMEOUT
            ) as answer:
                return json.load(answer)
        except HTTPError as exc:
            raise QueueError(f"the broker refused {method} {path}: {_why(exc)}") from exc
        except (URLError, TimeoutError) as exc:
            raise QueueError(f"no answer to {method} {url}: {exc}; is the broker running?") from exc


class ControlPort(Controlled):
    """The broker whose control port is at *url*, whoever started it."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    @property
    def control_url(self) -> str:
        return self._url


def _why(refusal: HTTPError) -> str:
    """What the broker says; whatever else has answered, its status."""
    with refusal:
        try:
            return str(json.load(refusal)["error"])
        except (ValueError, KeyError, TypeError):
            return str(refusal)
