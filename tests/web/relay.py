"""A TCP relay before the endpoint that remembers which process's messages came by which connection."""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.web.marks import MARK

CHUNK = 65536

TIMEOUT = 30.0
"""Seconds; the longest that anything is held."""


class Relay:
    """Passes on to *upstream*, on a port of 127.0.0.1 that is its own from the start; `open` listens on it.

    Before that, connections to it are refused, as those to a broker that is down.
    """

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._passing = threading.Event()
        self._passing.set()
        # guarded by _lock
        self._said: list[bytearray] = []
        self._ends: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def open(self) -> None:
        """Listen from now on."""
        self._listener.listen(128)
        self._start(self._accept)

    def hold(self) -> None:
        """Let nothing pass to the endpoint, until `release`."""
        self._passing.clear()

    def release(self) -> None:
        self._passing.set()

    def sends(self) -> Counter[str]:
        """How often each marked message travelled."""
        return Counter(mark["id"].decode() for said in self._heard() for mark in MARK.finditer(said))

    def senders(self) -> list[set[int]]:
        """For each connection, the processes whose messages it carried."""
        found = [{int(mark["pid"]) for mark in MARK.finditer(said)} for said in self._heard()]
        return [pids for pids in found if pids]

    def requests(self) -> int:
        """How many requests came by, of any kind."""
        return sum(len(re.findall(rb"^POST ", said, re.MULTILINE)) for said in self._heard())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        with suppress(OSError):  # wakes the accept; refused if it never listened
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            ends, threads = list(self._ends), list(self._threads)
        for end in ends:
            _cut(end)
        for thread in threads:
            thread.join(5.0)

    def _heard(self) -> list[bytes]:
        with self._lock:
            return [bytes(said) for said in self._said]

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                below, _ = self._listener.accept()
                above = socket.create_connection(("127.0.0.1", self._upstream))
            except OSError:
                return
            for end in (below, above):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            said = bytearray()
            with self._lock:
                self._said.append(said)
                self._ends |= {below, above}
            self._start(self._pump, below, above, said)
            self._start(self._pump, above, below, None)

    def _pump(self, source: socket.socket, sink: socket.socket, said: bytearray | None) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                if said is not None:
                    with self._lock:
                        said += data
                    self._passing.wait(TIMEOUT)
                sink.sendall(data)
        with self._lock:
            self._ends -= {source, sink}
        _cut(source)
        _cut(sink)


def _cut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
