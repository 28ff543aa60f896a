"""A TCP proxy that brings bad weather between the library and an endpoint."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import Self

CHUNK = 65536


class Sky(Enum):
    """What happens to what passes through."""

    CLEAR = "everything passes"
    CLOSED = "connections are reset at once"
    SILENT = "requests arrive and are never answered"
    STILL = "nothing passes either way, and no connection ends"
    LOST = "requests arrive and are done, the answers are lost and the connection with them"


class Weather:
    """Listens on 127.0.0.1, passes on to *port*; `sky` may be changed at any time."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        # guarded by _lock
        self._sky = Sky.CLEAR
        self._open: set[socket.socket] = set()
        self._frozen: set[int] = set()
        self._threads: list[threading.Thread] = []

    @property
    def sky(self) -> Sky:
        with self._lock:
            return self._sky

    @sky.setter
    def sky(self, sky: Sky) -> None:
        with self._lock:
            self._sky = sky
        if sky is Sky.CLOSED:
            self.reset_all()

    def reset_all(self) -> None:
        """Cut every connection that is open now."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            _reset(connection)

    def freeze(self, port: int) -> None:
        """Let nothing pass any more on the connection that comes from this local port."""
        with self._lock:
            self._frozen.add(port)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # wakes the accept
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset_all()
        for thread in self._threads:
            thread.join(5.0)

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                below, (_, port) = self._listener.accept()
            except OSError:
                return
            if self.sky is Sky.CLOSED:
                _reset(below)
                continue
            try:
                above = socket.create_connection(("127.0.0.1", self._upstream))
            except OSError:
                _reset(below)
                continue
            with self._lock:
                self._open |= {below, above}
            self._start(self._pump, below, above, False, port)
            self._start(self._pump, above, below, True, port)

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool, port: int) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                sky = self.sky
                if answers and sky is Sky.LOST:
                    break
                still = sky is Sky.STILL or port in self._frozen
                if not (still or (answers and sky is Sky.SILENT)):
                    sink.sendall(data)
        with self._lock:
            self._open -= {source, sink}
        _reset(source)
        _reset(sink)


def _reset(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
