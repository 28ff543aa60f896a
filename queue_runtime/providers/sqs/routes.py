"""The way to the service: endpoint, authorities, certificate and proxy, read from their texts."""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from urllib.parse import SplitResult, quote, urlsplit

from queue_runtime.errors import ConfigurationError
from queue_runtime.providers.sqs.errors import PROVIDER

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def wrong(name: str, value: object, way_out: str) -> ConfigurationError:
    return ConfigurationError(f"sqs: {name} = {value!r} is not usable: {way_out}", provider=PROVIDER)


def refuse(text: str) -> NoReturn:
    """Raise the error of a setting, with the cause dropped: it may repeat what could not be read."""
    raise ConfigurationError(f"sqs: {text}", provider=PROVIDER) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """An HTTP proxy to go through."""

    url: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def whole(self) -> str:
        """The URL with who we are to the proxy, as botocore wants it: no text to be shown."""
        if not self.user:
            return self.url
        scheme, _, host = self.url.partition("://")
        return f"{scheme}://{quote(self.user, safe='')}:{quote(self.password, safe='')}@{host}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """What we show to an endpoint that asks for a certificate: two files, or one that holds both."""

    certificate: str
    key: str | None = None

    def for_botocore(self) -> str | tuple[str, str]:
        return self.certificate if self.key is None else (self.certificate, self.key)


def endpoint(url: str | None) -> str | None:
    """The address to ask instead of the region's own: ``http://HOST:PORT`` or ``https://HOST``."""
    if not url:
        return None
    if "@" in url:
        refuse("endpoint_url holds credentials; leave them to boto3's own chain, where they stay out of logs")
    if _split(url, "http", "https") is None:
        raise wrong("endpoint_url", url, "write it as http://HOST:PORT or https://HOST")
    return url


def ca_bundle(text: str, source: str = "ca_bundle") -> str:
    """The whole path of a file with authorities, named by *source*; it has been read once."""
    path = str(Path(text).absolute())  # it is read for each connection, and a daemon may move
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError:  # an SSLError is one
        refuse(f"{source} = {text!r} is not usable: name a file of certificates in PEM form")
    return path


def client_certificate(certificate: str | None, key: str | None) -> ClientCertificate | None:
    """A certificate and its key, which have been read once. A key with a password cannot be used."""
    if certificate is None:
        if key is not None:
            refuse("client_key has no effect without client_cert, the certificate that it is the key of")
        return None
    names = f"client_cert = {certificate!r}" + (f" with client_key = {key!r}" if key is not None else "")
    found = ClientCertificate(
        certificate=str(Path(certificate).absolute()),
        key=None if key is None else str(Path(key).absolute()),
    )
    try:
        # An empty password: without one OpenSSL would ask on the terminal.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_cert_chain(found.certificate, found.key, password=lambda: "")
    except (OSError, ValueError):  # an SSLError is an OSError
        refuse(
            f"{names} is not usable: name a file with a certificate and the key that fits, without a "
            "password, in PEM form"
        )
    return found


def proxy(url: str | None, credentials_variable: str | None) -> Proxy | None:
    """``http://HOST:PORT``; who we are to it is in an environment variable, as ``USER:PASSWORD``."""
    if url is None:
        if credentials_variable is not None:
            refuse("proxy_credentials_env has no effect without proxy")
        return None
    if "@" in url:
        refuse(
            "proxy holds credentials; put USER:PASSWORD into an environment variable and name that: "
            "proxy_credentials_env=NAME"
        )
    parts = _split(url, "http")
    if parts is None or parts.port is None or parts.path.strip("/"):
        raise wrong("proxy", url, "write it as http://HOST:PORT")
    plain = f"http://{parts.netloc}"
    if credentials_variable is None:
        return Proxy(url=plain)
    if not _VARIABLE.fullmatch(credentials_variable):
        refuse("proxy_credentials_env is no name of an environment variable")  # it may be a password
    user, colon, password = os.environ.get(credentials_variable, "").partition(":")
    if not (user and colon and password) or not (user + password).isascii():
        refuse(
            f"proxy_credentials_env = {credentials_variable!r}: this environment variable must hold "
            "USER:PASSWORD, in ASCII"
        )
    return Proxy(url=plain, user=user, password=password)


def _split(url: str, *schemes: str) -> SplitResult | None:
    """The parts of a URL that names a host; None if it is not one."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if usable and not parts.query and not parts.fragment else None
