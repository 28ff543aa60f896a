"""What the connections of one broker share: its queues, its key, and the count of what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from queue_runtime.testing.servicebus.errors import NOT_FOUND
from queue_runtime.testing.servicebus.hub import Hub
from queue_runtime.testing.servicebus.namespace import Namespace


class Link(Protocol):
    """A link of whatever kind. *entity* is the path that it leads to."""

    entity: str
    attached: bool

    def detach(self, condition: str, description: str) -> None:
        """End the link, and say why."""


class Client(Protocol):
    """A connection."""

    broker: Broker
    claims: dict[str, float]
    """What $cbs lets it use: paths of entities, in lower case, and until when (Unix seconds)."""

    def __hash__(self) -> int:
        """It may hold locks."""

    def links(self) -> Sequence[Link]:
        """Return the links of all its sessions."""

    def close(self, condition: str, description: str) -> None:
        """Tell the client why, and close."""

    def abort(self) -> None:
        """Cut the client off, without a word."""


class Broker:
    """*sas_key* is the key that shared access signatures must be made with; None: they are not checked."""

    def __init__(self, namespace: Namespace, sas_key: str | None) -> None:
        self.namespace = namespace
        self.sas_key = sas_key
        self.connections: set[Client] = set()
        self.delivery_id_violations = 0
        self._hubs: dict[str, Hub] = {}

    def hub(self, path: str) -> Hub | None:
        """Return the hub of the queue at *path*; None if there is no such queue."""
        queue = self.namespace.queue(path)
        if queue is None:
            return None
        known = self._hubs.get(queue.path)
        if known is None or known.queue is not queue:
            self.sweep()
            known = self._hubs[queue.path] = Hub(queue)
        return known

    def sweep(self) -> None:
        """Detach the links of queues that were deleted, or replaced by others of their name."""
        gone = [path for path, hub in self._hubs.items() if self.namespace.queue(path) is not hub.queue]
        for path in gone:
            self._hubs.pop(path).close()
            self.detach(path, NOT_FOUND, f"the queue '{path}' was deleted")

    def detach(self, entity: str, condition: str, description: str) -> None:
        """Detach every link that leads to *entity*."""
        for connection in list(self.connections):
            for link in connection.links():
                if link.attached and link.entity.lower() == entity.lower():
                    link.detach(condition, description)

    def close(self) -> None:
        """Stop the clocks of all queues."""
        for hub in self._hubs.values():
            hub.close()
        self._hubs.clear()
