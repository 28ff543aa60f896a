"""A websocket in front of an AMQP port, as Service Bus offers it at ``/$servicebus/websocket``."""

from __future__ import annotations

import base64
import hashlib
import socket
import ssl
import struct
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # https://www.rfc-editor.org/rfc/rfc6455#section-1.3
_BINARY, _CLOSE = 0x2, 0x8


class WebsocketBridge:
    """Listens by TLS on 127.0.0.1; each connection is one to *port*. Its handshakes take *delay* seconds."""

    def __init__(self, port: int, certificate: Path, key: Path, *, delay: float = 0.0) -> None:
        self._upstream = port
        self._delay = delay
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.paths: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        with suppress(OSError):  # wakes the accept
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5.0)

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(plain,), daemon=True))
            self._threads[-1].start()

    def _serve(self, plain: socket.socket) -> None:
        # Nothing of it is read and written at once: a socket of TLS is not for two threads.
        with suppress(OSError), plain, self._context.wrap_socket(plain, server_side=True) as client:
            self._greet(client)
            with socket.create_connection(("127.0.0.1", self._upstream)) as broker:
                client.settimeout(0.005)
                broker.settimeout(0.005)
                waiting = bytearray()
                while not self._over.is_set():
                    with suppress(TimeoutError):
                        data = client.recv(65536)
                        if not data:
                            return
                        waiting += data
                    while (frame := _take_frame(waiting)) is not None:
                        kind, payload = frame
                        if kind == _CLOSE:
                            return
                        broker.sendall(payload)
                    with suppress(TimeoutError):
                        data = broker.recv(65536)
                        if not data:
                            return
                        client.sendall(_frame(data))

    def _greet(self, client: ssl.SSLSocket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        request, *lines = head.decode().split("\r\n")
        self.paths.append(request.split()[1])
        fields = dict(line.lower().split(": ", 1) for line in lines if line)
        key = next(line.split(": ", 1)[1] for line in lines if line.lower().startswith("sec-websocket-key"))
        accept = base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()
        self._over.wait(self._delay)
        client.sendall(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n"
            f"Sec-WebSocket-Protocol: {fields['sec-websocket-protocol']}\r\n\r\n".encode()
        )


def _frame(payload: bytes) -> bytes:
    size = len(payload)
    length = bytes([size]) if size < 126 else struct.pack(">BH", 126, size)
    return bytes([0x80 | _BINARY]) + (length if size < 65536 else struct.pack(">BQ", 127, size)) + payload


def _take_frame(waiting: bytearray) -> tuple[int, bytes] | None:
    """Cut the first frame of a client off *waiting*; None if it is not there whole."""
    if len(waiting) < 2:
        return None
    size, start = waiting[1] & 0x7F, 2
    if size >= 126:
        start = 4 if size == 126 else 10
        size = int.from_bytes(waiting[2:start])
    end = start + 4 + size
    if len(waiting) < end:
        return None
    mask, masked = waiting[start : start + 4], waiting[start + 4 : end]
    kind = waiting[0] & 0x0F
    del waiting[:end]
    return kind, bytes(byte ^ mask[n % 4] for n, byte in enumerate(masked))
