"""The broker's AMQP port: a TCP or TLS server, and the faults that are done to its connections."""

from __future__ import annotations

import asyncio
import ssl

from queue_runtime.testing.servicebus.broker import Broker
from queue_runtime.testing.servicebus.connection import Connection
from queue_runtime.testing.servicebus.namespace import Namespace

_BACKLOG = 1024
_TURNS = 100


class Server:
    """Serves *namespace* over AMQP 1.0, with TLS if there is an *ssl_context*; port 0 picks a free one.

    Everything happens in the event loop that `start` is called in; all methods are for its thread.
    """

    def __init__(
        self,
        namespace: Namespace,
        *,
        host: str,
        port: int,
        ssl_context: ssl.SSLContext | None = None,
        sas_key: str | None = None,
    ) -> None:
        self._broker = Broker(namespace, sas_key)
        self._host = host
        self._port = port
        self._ssl_context = ssl_context
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen; return the port. Raises `OSError` if it is taken."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self._broker),
            self._host,
            self._port,
            ssl=self._ssl_context,
            backlog=_BACKLOG,
        )
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Listen no more, and cut off who is connected."""
        if self._server is not None:
            self._server.close()
        self.kill()
        self._broker.close()
        for _ in range(_TURNS):  # in which the connections hear of it
            if not self._broker.connections:
                return
            await asyncio.sleep(0.01)

    def kill(self) -> None:
        """Cut off every connection without a word."""
        for connection in list(self._broker.connections):
            connection.abort()

    def close_connections(self, condition: str) -> None:
        """Close every connection with that error."""
        for connection in list(self._broker.connections):
            connection.close(condition, "the broker was told to close the connection")

    def detach(self, entity: str, condition: str) -> None:
        """Detach every link to that queue with that error; and those to queues that are no more."""
        self._broker.detach(entity, condition, "the broker was told to detach the link")
        self._broker.sweep()

    def stats(self) -> dict[str, int]:
        return {
            "connections": len(self._broker.connections),
            "delivery_id_violations": self._broker.delivery_id_violations,
        }
