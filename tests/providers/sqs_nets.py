"""Networks on this machine for the SQS provider: an authority, endpoints with TLS, forwarding proxies."""

from __future__ import annotations

import base64
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PEM = serialization.Encoding.PEM


class Authority:
    """Signs certificates, and is trusted by whoever is given its `bundle`."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._built(self._name, self._key, authority=True)
        self.bundle = directory / f"{name}.pem"
        self.bundle.write_bytes(certificate.public_bytes(PEM))

    def sign(self, name: str, *, password: bytes | None = None) -> tuple[Path, Path]:
        """A certificate for the host or client *name* (127.0.0.1 is a host too), and its key: two files."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._built(subject, key, host=name)
        files = self._directory / f"{name}.crt", self._directory / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(PEM))
        files[1].write_bytes(
            key.private_bytes(
                PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption(),
            )
        )
        return files

    def _built(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, host: str = "", authority: bool = False
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if host:
            names = [x509.IPAddress(IPv4Address(host))] if host[0].isdigit() else [x509.DNSName(host)]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


@dataclass
class Served:
    """What an endpoint was asked, how it answers, and how many connections it had."""

    url: str
    operations: list[str] = field(default_factory=list)
    connections: int = 0
    peers: list[Any] = field(default_factory=list)
    """The certificates that clients have shown."""
    raw: bytes | None = None
    """Sent instead of an answer to a send, and then the connection is closed."""
    together: threading.Barrier | None = None
    """Where sends meet before they are answered."""


@contextmanager
def endpoint(
    certificate: tuple[Path, Path] | None = None, *, clients: Authority | None = None
) -> Iterator[Served]:
    """An SQS with one queue, `jobs`; with TLS if there is a *certificate*, for *clients* with one."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            served.connections += 1
            super().setup()
            if isinstance(self.connection, ssl.SSLSocket):
                served.peers.append(self.connection.getpeercert())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            operation = self.headers["X-Amz-Target"].rpartition(".")[2]
            served.operations.append(operation)
            if operation == "SendMessageBatch":
                if served.together is not None:
                    served.together.wait(10)
                if served.raw is not None:
                    self.wfile.write(served.raw)
                    self.close_connection = True
                    return
            content = json.dumps(ANSWERS.get(operation, {})).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def finish_request(self, request: Any, client_address: Any) -> None:
            if context is None:
                super().finish_request(request, client_address)
                return
            # Here, not in the accepting thread, which a bad handshake would hold up.
            with suppress(OSError), context.wrap_socket(request, server_side=True) as wrapped:
                super().finish_request(wrapped, client_address)

        def handle_error(self, *_: object) -> None:
            """A connection that the client has cut is no error."""

    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        if clients is not None:
            context.load_verify_locations(clients.bundle)
            context.verify_mode = ssl.CERT_REQUIRED
    server = Server(("127.0.0.1", 0), Handler)
    served = Served(f"http{'' if context is None else 's'}://127.0.0.1:{server.server_port}")
    with _running(server):
        yield served


ANSWERS = {
    "GetQueueUrl": {"QueueUrl": "https://sqs.eu-west-1.amazonaws.com/1/jobs"},
    "GetQueueAttributes": {"Attributes": {"VisibilityTimeout": "30"}},
    "SendMessageBatch": {"Successful": [{"Id": "0"}]},
}


@dataclass
class Proxied:
    """What a proxy was asked for, and what it was told of who asks."""

    url: str
    port: int
    asked: list[str] = field(default_factory=list)
    credentials: list[str | None] = field(default_factory=list)


@contextmanager
def proxy(to: str, *, refuses: str | None = None) -> Iterator[Proxied]:
    """An HTTP proxy through which every address leads to the endpoint *to*; one that *refuses* answers so."""
    host, _, port = to.rpartition("//")[2].partition(":")

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            method, address, _ = self.rfile.readline().decode().split(" ", 2)
            proxied.asked.append(f"{method} {address}")
            head = [line for line in iter(self.rfile.readline, b"\r\n") if line]
            given = dict(line.decode().rstrip().lower().split(": ", 1) for line in head)
            exact = next((line for line in head if line.lower().startswith(b"proxy-authorization")), None)
            proxied.credentials.append(_basic(exact))
            if refuses is not None:
                self.wfile.write(f"HTTP/1.1 {refuses}\r\nContent-Length: 0\r\n\r\n".encode())
                return
            with socket.create_connection((host, int(port)), timeout=10) as upstream:
                if method == "CONNECT":
                    self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    body = self.rfile.read(int(given["content-length"]))
                    upstream.sendall(f"{method} / HTTP/1.1\r\n".encode() + b"".join(head) + b"\r\n" + body)
                back = threading.Thread(target=_pump, args=(upstream, self.connection))
                back.start()
                _pump(self.connection, upstream)
                back.join(10)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A connection that the client has cut is no error."""

    server = Server(("127.0.0.1", 0), Handler)
    listens = server.server_address[1]
    proxied = Proxied(f"http://127.0.0.1:{listens}", listens)
    with _running(server):
        yield proxied


def _basic(line: bytes | None) -> str | None:
    return None if line is None else base64.b64decode(line.split()[-1]).decode()


def _pump(source: socket.socket, to: socket.socket) -> None:
    with suppress(OSError):  # one of the two has gone
        while data := source.recv(65536):
            to.sendall(data)
    for end in (source, to):
        with suppress(OSError):  # it is closed already
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def _running(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
