"""The way to the service: endpoint, authorities, transport and proxy, read from their texts."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import SplitResult, unquote, urlsplit

from queue_runtime.errors import MissingExtra
from queue_runtime.providers.servicebus.connection_strings import is_host, refuse
from queue_runtime.providers.servicebus.errors import PROVIDER

Transport = Literal["amqp", "websocket"]


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy to go through."""

    host: str
    port: int
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    url: str = field(default="", repr=False)
    """As it was written, which is how HTTP clients want it."""

    def for_amqp(self) -> dict[str, Any]:
        """As azure-servicebus wants it."""
        found = {"proxy_hostname": self.host, "proxy_port": self.port}
        return found | {"username": self.username, "password": self.password}


def endpoint(text: str | None) -> str | None:
    """The address to connect to instead of the namespace's own: ``sb://HOST`` or ``sb://HOST:PORT``."""
    if text is None:
        return None
    if "@" in text:
        refuse("endpoint holds credentials; it takes none, and they would show up in logs")
    parts = _split(text)
    if parts is None or parts.scheme != "sb" or parts.path.strip("/"):
        refuse(f"endpoint = {text!r} is not usable: write it as sb://HOST:PORT")
    return f"sb://{parts.hostname}" + (f":{parts.port}" if parts.port is not None else "")


def ca_bundle(text: str | None) -> str | None:
    """The whole path of a file with authorities; it has been read once."""
    if text is None:
        return None
    path = str(Path(text).absolute())  # the SDK reads it for each connection, and a daemon may move
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError:  # an SSLError is one
        refuse(f"ca_bundle = {text!r} is not usable: name a file of certificates in PEM form")
    return path


def transport(text: str | None, proxy: Proxy | None) -> Transport:
    """AMQP on its own port, or inside a websocket, which is the only way through an HTTP proxy."""
    if text not in (None, "amqp", "websocket"):
        refuse(f"transport = {text!r} is not usable: write amqp (port 5671) or websocket (port 443)")
    if text != "websocket":
        if proxy is not None:
            refuse("proxy has no effect without transport=websocket: AMQP does not go through an HTTP proxy")
        return "amqp"
    try:
        import websocket  # noqa: F401, PLC0415  # the SDK needs it for this alone
    except ModuleNotFoundError as exc:
        raise MissingExtra(
            "servicebus: transport=websocket needs the package 'websocket-client'; "
            "pip install websocket-client",
            provider=PROVIDER,
        ) from exc
    return "websocket"


def proxy(text: str | None) -> Proxy | None:
    """``http://[USER:PASSWORD@]HOST:PORT``; user and password percent-encoded."""
    if text is None:
        return None
    parts = _split(text)
    if parts is None or parts.scheme != "http" or parts.port is None or parts.path.strip("/"):
        refuse("proxy is not usable: write it as http://HOST:PORT")  # not repeated: it may hold a password
    return Proxy(
        host=str(parts.hostname),
        port=parts.port,
        username=unquote(parts.username) if parts.username is not None else None,
        password=unquote(parts.password) if parts.password is not None else None,
        url=text,
    )


def _split(text: str) -> SplitResult | None:
    """The parts of a URL that names a host and no page; None if it is not one."""
    try:
        parts = urlsplit(text)
        usable = is_host(parts.hostname or "") and parts.port != 0 and not parts.query and not parts.fragment
    except ValueError:
        return None
    return parts if usable else None
