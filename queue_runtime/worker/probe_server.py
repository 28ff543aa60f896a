"""A small HTTP server on threads of its own: two pages to look at, and nobody who is slow can hold it."""

from __future__ import annotations

import io
import json
import logging
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from queue_runtime.clock import Clock, SystemClock

log = logging.getLogger("queue_runtime")

PATIENCE = 5.0
"""Seconds that a client has for its whole request, and the server for its answer."""

LONGEST = 16_384
"""Bytes of a request; probes send a few hundred."""

MOST = 64
"""Requests at the same time; those that come on top are hung up on."""

LOOK = 0.2
"""Seconds between two looks at whether the server is to be closed."""

Page = Callable[[], tuple[bool, Mapping[str, Any]]]
"""What is asked for when a page is: whether all is well, and the body."""


class ProbeServer(socketserver.TCPServer):
    """Answers GET and HEAD of *pages*, by their paths: 200 if all is well, else 503, with a body in JSON.

    Bound when it is made (raises `OSError`), serving from `start` to `close`. Each request has a daemon
    thread of its own. A forked child must `abandon` it.
    """

    allow_reuse_address = True  # connections that a program before this one had would hold the port
    request_queue_size = MOST

    def __init__(
        self, host: str, port: int, pages: Mapping[str, Page], *, clock: Clock | None = None
    ) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        address: Any
        self.address_family, _, _, _, address = found[0]
        self.pages = pages
        self.clock = clock or SystemClock()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        # guarded by _lock
        self._open: dict[socket.socket, threading.Thread] = {}
        super().__init__(address, _Request)
        self.port: int = self.socket.getsockname()[1]
        self._thread = threading.Thread(
            target=self.serve_forever, args=(LOOK,), name=f"queue_runtime-health-{self.port}", daemon=True
        )

    def start(self) -> None:
        try:
            self._thread.start()
        except RuntimeError:  # no thread is to be had
            self.server_close()
            raise

    def close(self) -> None:
        """Listen no more, hang up on who has not finished asking, and join the threads."""
        self._closing.set()
        self.shutdown()
        self._thread.join()
        self.server_close()
        with self._lock:
            still_open = dict(self._open)
        for connection in still_open:
            with suppress(OSError):  # it has ended meanwhile
                connection.shutdown(socket.SHUT_RD)
        end = self.clock.monotonic() + PATIENCE
        for thread in still_open.values():
            thread.join(max(0.0, end - self.clock.monotonic()))

    def abandon(self) -> None:
        """In a forked child: its parent serves, and must be the only one who holds the port."""
        self.socket.close()
        for connection in list(self._open):  # without the lock, which a thread of the parent may hold
            connection.close()

    # What socketserver calls.

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError:  # say, too many open files: it is asked again at once, and must not turn in circles
            self._closing.wait(LOOK)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(
            target=self._serve,
            args=(request, client_address),
            name="queue_runtime-health-request",
            daemon=True,
        )
        with self._lock:
            is_crowded = len(self._open) >= MOST
            if not is_crowded:
                self._open[request] = thread
        if is_crowded:
            self.shutdown_request(request)
            return
        try:
            thread.start()
        except RuntimeError:  # no thread is to be had; socketserver tells and hangs up
            self._forget(request)
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a request to the health server failed", exc_info=sys.exception())

    def _serve(self, request: socket.socket, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception:  # clients go away in the middle; the next one is to be answered
            self.handle_error(request, client_address)
        finally:
            self.shutdown_request(request)
            self._forget(request)

    def _forget(self, request: socket.socket) -> None:
        with self._lock:
            self._open.pop(request, None)


class _Request(BaseHTTPRequestHandler):
    """One request, one answer, and the connection ends."""

    server: ProbeServer

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BytesIO(
            _read_head(self.connection, self.server.clock)
        )  # all of it, in time, or nothing
        self.connection.settimeout(PATIENCE)

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            self._answer(HTTPStatus.NOT_FOUND, {"error": f"there are {', '.join(self.server.pages)}"})
            return
        ok, body = page()
        self._answer(HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE, body)

    do_HEAD = do_GET

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server refuses by itself: methods that have no ``do_``, and what is no HTTP."""
        status = HTTPStatus(code)
        if status is HTTPStatus.NOT_IMPLEMENTED:
            status = HTTPStatus.METHOD_NOT_ALLOWED
        self._answer(status, {"error": status.phrase})

    def version_string(self) -> str:
        return "queue_runtime"

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("health server: %r", format % args)

    def _answer(self, status: HTTPStatus, body: Mapping[str, Any]) -> None:
        content = json.dumps(body).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _read_head(connection: socket.socket, clock: Clock) -> bytes:
    """The request up to its empty line; nothing if it does not come, is too long or takes too long."""
    end = clock.monotonic() + PATIENCE
    head = b""
    while b"\n\r\n" not in head and b"\n\n" not in head:
        left = end - clock.monotonic()
        if left <= 0 or len(head) > LONGEST:
            return b""
        connection.settimeout(left)
        part = connection.recv(4096)
        if not part:
            return b""
        head += part
    return head
