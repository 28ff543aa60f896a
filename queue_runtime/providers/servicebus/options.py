"""What ``servicebus://NAMESPACE?...`` may say, read and checked, and the SDK's clients made of it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from azure.servicebus import ServiceBusClient, TransportType
from azure.servicebus.management import ServiceBusAdministrationClient

from queue_runtime.clock import Clock, SystemClock
from queue_runtime.config import ProviderSettings
from queue_runtime.providers.servicebus import credentials, handlers, routes
from queue_runtime.providers.servicebus.connection_strings import ConnectionString, is_host, parse, refuse
from queue_runtime.providers.servicebus.credentials import IDENTITY_OPTIONS, Credential, HttpSignature, Tokens

_ROUTE_OPTIONS = frozenset({"endpoint", "ca_bundle", "transport", "proxy"})

_TEXT_OPTIONS = IDENTITY_OPTIONS | _ROUTE_OPTIONS | {"connection_string", "connection_string_env"}

KNOWN_OPTIONS = _TEXT_OPTIONS | {"request_timeout", "receivers", "openings", "senders"}

REQUEST_TIMEOUT = 5.0
"""Seconds; a sixth of the shortest lock that people use, half a minute."""

RECEIVERS = 16
OPENINGS = 16
SENDERS = 4
MOST_LINKS = 1000
"""Of each kind, at most: a bound of ours. All clients of a namespace share 5,000 AMQP connections.
https://learn.microsoft.com/azure/service-bus-messaging/service-bus-quotas"""

CONNECTION_STRING_VARIABLES = ("AZURE_SERVICEBUS_CONNECTION_STRING", "AZURE_SERVICEBUS_CONNECTIONSTRING")
"""Looked at where neither the URL nor the program names a namespace or a credential. The second is the name
that Azure itself sets. https://learn.microsoft.com/azure/service-connector/how-to-integrate-service-bus"""

PUBLIC_CLOUD = "servicebus.windows.net"

TOKEN_RETRIES: Mapping[str, float] = {"retry_total": 2, "retry_backoff_max": 1.0}
"""Of a request for a token of Microsoft Entra ID: what gives them to virtual machines and pods is often not
there in the first seconds. Each try is bounded by the request timeout."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ServiceBusOptions:
    """What ``servicebus://NAMESPACE?...`` says. Its repr shows none of its secrets, and it is not pickled."""

    namespace: str
    """A host's name; of an emulator with its port."""
    credential: Credential
    tls: bool = True
    """False for an emulator only."""
    endpoint: str | None = None
    """``sb://HOST:PORT``: where to connect to instead of the namespace."""
    ca_bundle: str | None = None
    """A file with the authorities to trust instead of certifi's."""
    transport: routes.Transport = "amqp"
    proxy: routes.Proxy | None = None
    request_timeout: float = REQUEST_TIMEOUT
    receivers: int = RECEIVERS
    """Most receivers of one queue without sessions."""
    openings: int = OPENINGS
    """Most session receivers that are being opened at once; each takes some ten round trips."""
    senders: int = SENDERS
    """Most senders of one queue."""

    @classmethod
    def of(cls, settings: ProviderSettings, clock: Clock | None = None) -> ServiceBusOptions:
        """Read and check *settings*; raises `ConfigurationError` naming the option, and `MissingExtra`.

        Reads the environment and the files that are named. Connects to nothing and asks for no token.
        """
        settings.refuse_unknown(KNOWN_OPTIONS)
        given = settings.options
        for name in sorted(_TEXT_OPTIONS & given.keys()):
            if not given[name]:
                refuse(f"{name} is empty; give it a value, or leave it out")
        endpoint = routes.endpoint(given.get("endpoint"))
        proxy = routes.proxy(given.get("proxy"))
        timeout = settings.number("request_timeout", REQUEST_TIMEOUT, 0.1, 60.0)
        string = _connection_string(settings)
        if string is not None:
            _check_beside(settings, string)
        return cls(
            endpoint=endpoint,
            ca_bundle=routes.ca_bundle(given.get("ca_bundle")),
            transport=routes.transport(given.get("transport"), proxy),
            proxy=proxy,
            request_timeout=timeout,
            receivers=int(settings.number("receivers", RECEIVERS, 1, MOST_LINKS, whole=True)),
            openings=int(settings.number("openings", OPENINGS, 1, MOST_LINKS, whole=True)),
            senders=int(settings.number("senders", SENDERS, 1, MOST_LINKS, whole=True)),
            namespace=string.address if string is not None else _namespace(settings.location, endpoint),
            tls=string is None or not string.emulator,
            # Last: nothing of it is made for settings that are refused.
            credential=(
                string.credential
                if string is not None
                else _identity(settings, endpoint, clock or SystemClock(), _http(timeout, proxy))
            ),
        )

    def client(self) -> ServiceBusClient:
        """A client of the SDK's that retries nothing. Connects to nothing.

        What it makes may take `request_timeout` to be opened, and for one answer (the SDK's `try_timeout`).
        """
        more: dict[str, Any] = {}
        if self.endpoint is not None:
            more["custom_endpoint_address"] = self.endpoint
        if self.ca_bundle is not None:
            more["connection_verify"] = self.ca_bundle
        if self.tls:
            more["ssl_context"] = handlers.tls(self.ca_bundle, self.request_timeout)
        if self.proxy is not None:
            more["http_proxy"] = self.proxy.for_amqp()
        websocket = self.transport == "websocket"
        return ServiceBusClient(
            self.namespace,
            self.credential,
            use_tls=self.tls,
            # Said in any case: beside an endpoint the SDK takes websockets for granted.
            transport_type=TransportType.AmqpOverWebsocket if websocket else TransportType.Amqp,
            retry_total=0,
            try_timeout=self.request_timeout,
            **more,
        )

    def administration(self) -> ServiceBusAdministrationClient | None:
        """A client for the queues' settings and counts, by HTTPS, that retries nothing. Connects to nothing.

        None where there is no HTTPS to ask: an emulator, or an endpoint, which stands for AMQP only.
        """
        if not self.tls or self.endpoint is not None:
            return None
        more = {"connection_verify": self.ca_bundle} if self.ca_bundle is not None else {}
        credential = (
            self.credential if isinstance(self.credential, Tokens) else HttpSignature(self.credential)
        )
        return ServiceBusAdministrationClient(
            self.namespace, credential, retry_total=0, **_http(self.request_timeout, self.proxy), **more
        )

    def close(self) -> None:
        """Close the connections by which tokens are asked for. A credential that was given stays open."""
        if isinstance(self.credential, Tokens):
            self.credential.close()

    def __repr__(self) -> str:
        who = self.credential.kind if isinstance(self.credential, Tokens) else type(self.credential).__name__
        how = self.transport if self.tls else "amqp without TLS"
        where = f" at {self.endpoint}" if self.endpoint is not None else ""
        return f"<ServiceBusOptions {self.namespace!r}{where} [{who} | {how}]>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("the options of Service Bus hold secrets and are not pickled")


def _connection_string(settings: ProviderSettings) -> ConnectionString | None:
    given = settings.options
    if "connection_string" in given and "connection_string_env" in given:
        refuse("connection_string and connection_string_env are both given; leave one of them")
    if "connection_string" in given:
        return parse(given["connection_string"], "connection_string")
    if "connection_string_env" in given:
        name = given["connection_string_env"]
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):  # not repeated: it may be the string itself
            refuse("connection_string_env is no name of an environment variable")
        if not os.environ.get(name):
            refuse(f"connection_string_env = {name!r}: there is no such environment variable, or it is empty")
        return parse(os.environ[name], f"the environment variable {name}")
    if settings.location or settings.credential is not None or IDENTITY_OPTIONS & given.keys():
        return None
    found = next((name for name in CONNECTION_STRING_VARIABLES if os.environ.get(name)), None)
    return parse(os.environ[found], f"the environment variable {found}") if found is not None else None


def _check_beside(settings: ProviderSettings, string: ConnectionString) -> None:
    """Refuse what contradicts *string*, or has no effect beside it."""
    location = settings.location.lower()
    if location and location not in (string.host, string.address, string.host.partition(".")[0]):
        refuse("the URL and the connection string name different namespaces; leave the URL's out")
    if settings.credential is not None:
        refuse("both a connection string and ProviderSettings.credential say who we are; leave one of them")
    for name in sorted(IDENTITY_OPTIONS & settings.options.keys()):
        refuse(f"{name} has no effect beside a connection string; leave one of them")
    for name in sorted(_ROUTE_OPTIONS & settings.options.keys()):
        if string.emulator and settings.options[name] != "amqp":
            refuse(
                f"{name} has no effect with UseDevelopmentEmulator=true, which is AMQP without TLS at the "
                "Endpoint of the connection string; leave one of them"
            )


def _namespace(location: str, endpoint: str | None) -> str:
    name = location.lower()
    if not name:
        refuse(
            "no namespace; write it into the URL (servicebus://NAMESPACE), or set the environment variable "
            f"{CONNECTION_STRING_VARIABLES[0]}"
        )
    if not is_host(name):  # not repeated: it may be a connection string in the wrong place
        refuse("the namespace is no host name; write servicebus://NAMESPACE, without a port")
    if endpoint is None and (name == "localhost" or re.fullmatch(r"[0-9.]+", name)):
        refuse(
            f"{name!r} is no namespace; for a broker on this machine give a connection string with "
            "UseDevelopmentEmulator=true, or endpoint=sb://HOST:PORT"
        )
    return name if "." in name or name == "localhost" else f"{name}.{PUBLIC_CLOUD}"


def _identity(
    settings: ProviderSettings, endpoint: str | None, clock: Clock, http: Mapping[str, Any]
) -> Credential:
    if settings.credential is None:
        namespace = _namespace(settings.location, endpoint)
        return credentials.named(settings.options, namespace, clock, {**http, **TOKEN_RETRIES})
    for name in sorted(IDENTITY_OPTIONS & settings.options.keys()):
        refuse(f"{name} has no effect beside ProviderSettings.credential; leave one of them")
    return credentials.given(settings.credential, clock)


def _http(timeout: float, proxy: routes.Proxy | None) -> dict[str, Any]:
    """What the clients of azure-core are told; on their own they wait five minutes."""
    proxies = {"proxies": {"https": proxy.url}} if proxy is not None else {}
    return {"connection_timeout": timeout, "read_timeout": timeout, **proxies}
