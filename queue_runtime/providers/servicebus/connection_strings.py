"""Connection strings of a Service Bus namespace, read and checked; no error repeats a part of one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import urlsplit

from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential

from queue_runtime.errors import ConfigurationError
from queue_runtime.providers.servicebus.errors import PROVIDER

_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")

_USUAL_PORTS = frozenset({None, 443, 5671})
"""In an Endpoint; Azure's own tools write some of them. The SDK goes to 5671 whatever is written there."""


@dataclass(frozen=True, slots=True)
class ConnectionString:
    """What a connection string says."""

    host: str
    """In small letters."""
    port: int | None
    """Only of an emulator."""
    emulator: bool
    """Plain AMQP without TLS: ``UseDevelopmentEmulator=true``."""
    credential: AzureNamedKeyCredential | AzureSasCredential = field(repr=False)

    @property
    def address(self) -> str:
        return self.host if self.port is None else f"{self.host}:{self.port}"


def parse(text: str, source: str) -> ConnectionString:
    """Read *text*. *source* says where it stands; it is all that a `ConfigurationError` repeats.

    Names may be in small or capital letters; those that mean nothing here are passed over, as the SDK does.
    https://learn.microsoft.com/azure/service-bus-messaging/service-bus-sas
    """
    parts: dict[str, str] = {}
    for part in text.strip().strip(";").split(";"):
        name, equals, value = part.partition("=")
        if not equals:
            refuse(
                f"{source} is not of the form Endpoint=sb://...;SharedAccessKeyName=...;SharedAccessKey=..."
            )
        parts[name.strip().lower()] = value.strip()
    if parts.get("entitypath"):
        refuse(
            f"{source} is for one queue (EntityPath): take that part away, name the queue in the program; "
            "its key still opens no other"
        )
    emulator = _is_emulator(parts.get("usedevelopmentemulator", "false"), source)
    host, port = _place(parts.get("endpoint") or parts.get("hostname") or "", source, emulator)
    return ConnectionString(host, port, emulator, _credential(parts, source))


def check_signature(signature: str, source: str) -> None:
    """Raise `ConfigurationError` if the SDK cannot use *signature*: it needs to know when it ends."""
    if re.search(r"&se=\d+(&|$)", signature) is None or not re.search(r"\bsig=[^&]", signature):
        refuse(f"{source} has no usable signature: SharedAccessSignature sr=...&sig=...&se=SECONDS&skn=...")


def is_host(text: str) -> bool:
    """True if *text* is a host's name in small letters, or an IPv4 address."""
    return _HOST.fullmatch(text) is not None


def refuse(text: str) -> NoReturn:
    """Raise the error of a setting, with the cause dropped: it may repeat what could not be read."""
    raise ConfigurationError(f"servicebus: {text}", provider=PROVIDER) from None


def _is_emulator(text: str, source: str) -> bool:
    # The SDK knows nothing but "true", and goes on with TLS otherwise.
    if text.lower() not in ("true", "false"):
        refuse(f"{source} says UseDevelopmentEmulator, and neither true nor false")
    return text.lower() == "true"


def _place(endpoint: str, source: str, emulator: bool) -> tuple[str, int | None]:
    try:
        parts = urlsplit(endpoint if "//" in endpoint else f"sb://{endpoint}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not is_host(host) or "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
        refuse(f"{source} has no usable Endpoint: write it as sb://NAMESPACE.servicebus.windows.net")
    if emulator:
        return host, port
    if port not in _USUAL_PORTS:
        refuse(
            f"{source} has a port in its Endpoint, which counts for an emulator only "
            "(UseDevelopmentEmulator=true); for TLS on another port give the option endpoint=sb://HOST:PORT"
        )
    return host, None


def _credential(parts: dict[str, str], source: str) -> AzureNamedKeyCredential | AzureSasCredential:
    name, key = parts.get("sharedaccesskeyname", ""), parts.get("sharedaccesskey", "")
    signature = parts.get("sharedaccesssignature", "")
    if signature and not key:
        signature = _ordered(signature)
        check_signature(signature, source)
        return AzureSasCredential(signature)
    if signature:
        refuse(f"{source} has both a SharedAccessKey and a SharedAccessSignature: leave one of them")
    if not name or not key:
        refuse(f"{source} lacks a SharedAccessKeyName with its SharedAccessKey, or a SharedAccessSignature")
    if " " in key:
        refuse(f"{source} has a blank in its SharedAccessKey: in a URL a + is written %2B")
    return AzureNamedKeyCredential(name, key)


def _ordered(signature: str) -> str:
    """The same with its end last: the SDK does not find it in the first place."""
    kind, _, fields = signature.partition(" ")
    return f"{kind} {'&'.join(sorted(fields.split('&'), key=lambda each: each.startswith('se=')))}"
