"""A broker in a thread of its own, for the tests of the wire."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from queue_runtime.testing.servicebus.namespace import Namespace
from queue_runtime.testing.servicebus.queues import QueueSettings
from queue_runtime.testing.servicebus.server import Server

PATIENCE = 10.0

T = TypeVar("T")


class House:
    """A broker that runs. Its parts belong to its event loop: use them by `do`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, server: Server, namespace: Namespace, port: int
    ) -> None:
        self._loop = loop
        self.server = server
        self.namespace = namespace
        self.port = port

    def do(self, work: Callable[[], T]) -> T:
        """Do *work* in the loop's thread."""

        async def main() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(main(), self._loop).result(PATIENCE)

    def queue(self, name: str = "q", **settings: Any) -> str:
        def put() -> None:
            self.namespace.put(name, QueueSettings(**settings))
            self.server.detach(name, "amqp:not-found")

        self.do(put)
        return name

    def counts(self, name: str = "q") -> dict[str, int]:
        return self.do(lambda: self.namespace.stats()[name])

    def stats(self) -> dict[str, int]:
        return self.do(self.server.stats)

    @property
    def connection_string(self) -> str:
        keys = "SharedAccessKeyName=k;SharedAccessKey=right"
        return f"Endpoint=sb://127.0.0.1:{self.port};{keys};UseDevelopmentEmulator=true"


@contextmanager
def running(*, sas_key: str | None = None, ssl_context: ssl.SSLContext | None = None) -> Iterator[House]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="broker")
    thread.start()
    namespace = Namespace()
    server = Server(namespace, host="127.0.0.1", port=0, sas_key=sas_key, ssl_context=ssl_context)
    try:
        port = asyncio.run_coroutine_threadsafe(server.start(), loop).result(PATIENCE)
        yield House(loop, server, namespace, port)
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(PATIENCE)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()
