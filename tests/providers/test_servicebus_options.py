"""What ``servicebus://...`` may say: each option by its effect on the SDK's clients, and no secret told."""

from __future__ import annotations

import copy
import pickle
import socket
import subprocess
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import certifi
import pytest
from azure.core.credentials import AccessToken, AzureNamedKeyCredential, AzureSasCredential
from azure.core.exceptions import ServiceRequestError
from azure.core.pipeline.transport import HttpTransport
from azure.servicebus import ServiceBusClient, TransportType
from azure.servicebus.management import ServiceBusAdministrationClient, _management_client
from hypothesis import given
from hypothesis import strategies as st

from queue_runtime import errors
from queue_runtime.config import ProviderSettings, parse_url
from queue_runtime.providers.servicebus.options import KNOWN_OPTIONS, ServiceBusOptions

KEY = "c2VjcmV0LWtleQ+/hunter2="
STRING = f"Endpoint=sb://orders.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey={KEY}"
EMULATOR = (
    "Endpoint=sb://127.0.0.1:15672;SharedAccessKeyName=Root;SharedAccessKey=SAS_KEY_VALUE;"
    "UseDevelopmentEmulator=true;"
)
SIGNATURE = "SharedAccessSignature sr=sb%3A%2F%2Forders&sig=hunter2%3D&skn=Root&se=4102444800"


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of this machine, and no network."""
    for name in (
        "AZURE_SERVICEBUS_CONNECTION_STRING",
        "AZURE_SERVICEBUS_CONNECTIONSTRING",
        "AZURE_CLIENT_ID",
        "AZURE_TENANT_ID",
        "AZURE_CLIENT_SECRET",
        "AZURE_AUTHORITY_HOST",
        "AZURE_TOKEN_CREDENTIALS",
    ):
        monkeypatch.delenv(name, raising=False)

    def connect(*_: object) -> None:
        pytest.fail("it connects")

    monkeypatch.setattr(socket.socket, "connect", connect)


class Given:
    """A credential from code."""

    def get_token(self, *scopes: str, **_: object) -> AccessToken:
        return AccessToken("token-hunter2", 4102444800)


def of(url: str, credential: object | None = None) -> ServiceBusOptions:
    return ServiceBusOptions.of(replace(parse_url(url).provider, credential=credential))


def by(string: str, more: str = "", location: str = "") -> ServiceBusOptions:
    return of(f"servicebus://{location}?connection_string={quote(string, safe='')}{more}")


def client_of(options: ServiceBusOptions) -> Any:
    """The SDK's client, of which one may ask anything."""
    client: ServiceBusClient = options.client()
    return client


def administration_of(options: ServiceBusOptions) -> Any:
    client: ServiceBusAdministrationClient | None = options.administration()
    assert client is not None
    return client


def refusal(url: str, credential: object | None = None) -> errors.ConfigurationError:
    with pytest.raises(errors.ConfigurationError) as caught:
        of(url, credential)
    return caught.value


def everything_said(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


# Whom we talk to


@pytest.mark.parametrize(
    ("location", "namespace"),
    [
        ("orders", "orders.servicebus.windows.net"),
        ("Orders", "orders.servicebus.windows.net"),
        ("orders.servicebus.windows.net", "orders.servicebus.windows.net"),
        ("orders.servicebus.chinacloudapi.cn", "orders.servicebus.chinacloudapi.cn"),
        ("orders.servicebus.usgovcloudapi.net", "orders.servicebus.usgovcloudapi.net"),
    ],
)
def test_a_namespace_is_named_short_or_in_full(location: str, namespace: str) -> None:
    options = of(f"servicebus://{location}")

    assert options.namespace == namespace
    assert client_of(options).fully_qualified_namespace == namespace
    assert administration_of(options).fully_qualified_namespace == namespace


@pytest.mark.parametrize("location", ["orders:5671", "or ders", "-", "ärger", "[::1]"])
def test_what_is_no_namespace_is_refused_and_not_repeated(location: str) -> None:
    settings = ProviderSettings(provider="servicebus", location=location)

    with pytest.raises(errors.ConfigurationError, match="namespace is no host name") as caught:
        ServiceBusOptions.of(settings)

    assert location not in everything_said(caught.value)


def test_a_connection_string_in_the_place_of_a_namespace_is_refused_and_not_repeated() -> None:
    with pytest.raises(errors.ConfigurationError, match="the location has") as caught:
        ProviderSettings(provider="servicebus", location=STRING)

    assert STRING not in everything_said(caught.value)


@pytest.mark.parametrize("location", ["localhost", "127.0.0.1"])
def test_this_machine_is_no_namespace_but_may_be_an_endpoint(location: str) -> None:
    assert "UseDevelopmentEmulator=true" in str(refusal(f"servicebus://{location}"))

    options = of(f"servicebus://{location}?endpoint=sb://localhost:15671", Given())

    assert options.namespace == location


def test_nothing_said_at_all_is_refused_with_the_ways_out() -> None:
    error = refusal("servicebus://")

    assert "servicebus://NAMESPACE" in str(error)
    assert "AZURE_SERVICEBUS_CONNECTION_STRING" in str(error)
    assert error.provider == "servicebus"


# Connection strings


def test_a_connection_string_says_who_we_are_and_to_whom() -> None:
    options = by(STRING)
    client = client_of(options)

    assert client.fully_qualified_namespace == "orders.servicebus.windows.net"
    assert client._credential.named_key == ("Root", KEY)
    assert client._config.use_tls
    assert client.get_queue_receiver("q")._credential.get_token("sb://orders/q").token.startswith("Shared")


def test_a_signature_may_stand_for_the_key() -> None:
    options = by(f"Endpoint=sb://orders.servicebus.windows.net/;SharedAccessSignature={SIGNATURE}")
    receiver: Any = options.client().get_queue_receiver("q")

    assert receiver._credential.get_token("sb://orders/q") == AccessToken(SIGNATURE, 4102444800)


@pytest.mark.parametrize("spelling", ["true", "True", "TRUE"])
def test_an_emulator_keeps_its_port_and_has_neither_tls_nor_https(spelling: str) -> None:
    options = by(EMULATOR.replace("=true", f"={spelling}"))
    receiver: Any = options.client().get_queue_receiver("q")

    assert receiver.fully_qualified_namespace == "127.0.0.1:15672"
    assert not receiver._config.use_tls
    assert receiver._config.transport_type is TransportType.Amqp
    assert options.administration() is None


@pytest.mark.parametrize("name", ["AZURE_SERVICEBUS_CONNECTION_STRING", "AZURE_SERVICEBUS_CONNECTIONSTRING"])
def test_it_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, f" {STRING}\n")

    assert client_of(of("servicebus://"))._credential.named_key == ("Root", KEY)


def test_it_may_stand_in_a_variable_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_SERVICEBUS_CONNECTION_STRING", STRING.replace("orders", "others"))
    monkeypatch.setenv("ORDERS", STRING)

    assert of("servicebus://?connection_string_env=ORDERS").namespace == "orders.servicebus.windows.net"


def test_an_url_that_names_a_namespace_or_a_credential_does_not_ask_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AZURE_SERVICEBUS_CONNECTION_STRING", STRING.replace("orders", "others"))

    assert "DefaultAzureCredential" in repr(of("servicebus://orders"))
    assert "no namespace" in str(refusal("servicebus://?credential=cli"))
    assert "no namespace" in str(refusal("servicebus://", Given()))


@pytest.mark.parametrize("location", ["orders", "ORDERS.servicebus.windows.net", ""])
def test_url_and_connection_string_may_name_the_same_namespace(location: str) -> None:
    assert by(STRING, location=location).namespace == "orders.servicebus.windows.net"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"servicebus://others?connection_string={quote(STRING, safe='')}", "different namespaces"),
        (
            f"servicebus://?connection_string={quote(STRING, safe='')}&credential=cli",
            "credential has no effect",
        ),
        (f"servicebus://?connection_string={quote(STRING, safe='')}&client_id=x", "client_id has no effect"),
        (f"servicebus://?connection_string={quote(STRING, safe='')}&connection_string_env=A", "both given"),
        ("servicebus://?connection_string_env=NOT_THERE", "'NOT_THERE'"),
        (
            f"servicebus://?connection_string_env={quote(STRING, safe='')}",
            "no name of an environment variable",
        ),
        ("servicebus://?connection_string=", "connection_string is empty"),
    ],
)
def test_a_contradiction_is_refused_without_the_string(url: str, message: str) -> None:
    error = refusal(url)

    assert message in str(error)
    assert "hunter2" not in everything_said(error)


@pytest.mark.parametrize(
    "name", ["endpoint=sb://h:1", "ca_bundle=CA", "transport=websocket", "proxy=http://h:1"]
)
def test_what_means_nothing_to_an_emulator_is_refused(name: str) -> None:
    ca_bundle = quote(certifi.where(), safe="")
    more = f"&{name.replace('=CA', '=' + ca_bundle)}"

    with pytest.raises(errors.ConfigurationError, match=f"{name.split('=')[0]} has no effect"):
        by(EMULATOR, more + ("&transport=websocket" if "proxy" in name else ""))


# How to get there


def test_transport_is_amqp_unless_said_otherwise() -> None:
    plain, web = (client_of(of(f"servicebus://orders{more}")) for more in ("", "?transport=websocket"))

    assert plain._config.transport_type is TransportType.Amqp
    assert web._config.transport_type is TransportType.AmqpOverWebsocket
    assert web.get_queue_sender("q")._config.hostname == (
        "orders.servicebus.windows.net/$servicebus/websocket"
    )


@pytest.mark.parametrize(
    ("more", "transport"),
    [("", TransportType.Amqp), ("&transport=websocket", TransportType.AmqpOverWebsocket)],
)
def test_an_endpoint_is_connected_to_instead_of_the_namespace(more: str, transport: TransportType) -> None:
    options = of(f"servicebus://orders?endpoint=sb://LOCALHOST:15671/{more}")
    receiver: Any = options.client().get_queue_receiver("q")

    assert receiver.fully_qualified_namespace == "orders.servicebus.windows.net"
    assert receiver._config.custom_endpoint_address == "sb://localhost:15671/$servicebus/websocket"
    assert receiver._config.transport_type is transport
    assert options.administration() is None


def test_a_ca_bundle_replaces_the_authorities_for_amqp_and_https(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ca.pem").write_bytes(Path(certifi.where()).read_bytes())
    monkeypatch.chdir(tmp_path)
    options = of("servicebus://orders?ca_bundle=ca.pem")
    whole = str(tmp_path / "ca.pem")

    assert client_of(options).get_queue_receiver("q")._config.connection_verify == whole
    assert administration_of(options)._pipeline._transport.connection_config.verify == whole


def test_a_proxy_is_for_websockets_and_for_https() -> None:
    options = of("servicebus://orders?transport=websocket&proxy=http://me:hunter%252F2@proxy:3128")
    sender: Any = options.client().get_queue_sender("q")

    assert sender._config.http_proxy == {
        "proxy_hostname": "proxy",
        "proxy_port": 3128,
        "username": "me",
        "password": "hunter/2",
    }
    assert administration_of(options)._config.proxy_policy.proxies == {
        "https": "http://me:hunter%2F2@proxy:3128"
    }
    assert "hunter" not in repr(options) + repr(options.proxy)


def test_a_proxy_needs_no_user() -> None:
    options = of("servicebus://orders?transport=websocket&proxy=http://proxy:3128")

    assert client_of(options)._config.http_proxy["username"] is None


@pytest.mark.parametrize(
    ("query", "parts"),
    [
        ("colour=red", ["'colour'", *KNOWN_OPTIONS, "queue.NAME"]),
        ("endpoint=localhost:15671", ["endpoint", "'localhost:15671'", "sb://HOST:PORT"]),
        ("endpoint=sb://h:port", ["endpoint", "sb://HOST:PORT"]),
        ("endpoint=sb://h:0", ["endpoint", "sb://HOST:PORT"]),
        ("endpoint=sb://h/queue", ["endpoint", "sb://HOST:PORT"]),
        ("endpoint=https://h", ["endpoint", "sb://HOST:PORT"]),
        ("endpoint=sb://me:hunter2@h:1", ["endpoint holds credentials"]),
        ("ca_bundle=/nowhere/ca.pem", ["ca_bundle", "'/nowhere/ca.pem'", "PEM"]),
        (f"ca_bundle={quote(__file__, safe='')}", ["ca_bundle", "PEM"]),
        ("transport=AMQP", ["transport", "'AMQP'", "amqp", "websocket"]),
        ("proxy=http://h:1", ["proxy has no effect without transport=websocket"]),
        ("proxy=http://h:1&transport=amqp", ["proxy has no effect without transport=websocket"]),
        ("proxy=http://hunter2@h&transport=websocket", ["proxy", "http://HOST:PORT"]),
        ("proxy=hunter2@h:1&transport=websocket", ["proxy", "http://HOST:PORT"]),
        ("request_timeout=soon", ["request_timeout", "'soon'", "0.1", "60"]),
        ("request_timeout=0", ["request_timeout", "'0'"]),
        ("request_timeout=nan", ["request_timeout", "'nan'"]),
        ("receivers=1.5", ["receivers", "'1.5'", "whole", "16"]),
        ("receivers=0", ["receivers", "'0'"]),
        ("openings=1001", ["openings", "'1001'"]),
        ("senders=", ["senders", "''"]),
        ("endpoint=", ["endpoint is empty"]),
    ],
)
def test_an_unusable_option_is_named_with_the_way_out(query: str, parts: list[str]) -> None:
    error = refusal(f"servicebus://orders?{query}")

    assert [part for part in parts if part not in str(error)] == []
    assert "hunter2" not in everything_said(error)


# Limits


def test_the_clients_retry_nothing_and_wait_no_longer_than_told() -> None:
    options = of("servicebus://orders?request_timeout=2.5")
    sender: Any = options.client().get_queue_sender("q")
    https = administration_of(options)

    assert (sender._config.retry_total, sender._config.try_timeout) == (0, 2.5)
    assert https._config.retry_policy.total_retries == 0
    assert https._pipeline._transport.connection_config.timeout == 2.5
    assert https._pipeline._transport.connection_config.read_timeout == 2.5


def test_the_limits_are_numbers_with_defaults() -> None:
    usual = of("servicebus://orders")
    chosen = of("servicebus://orders?receivers=3&openings=64&senders=1&request_timeout=10")

    assert (usual.receivers, usual.openings, usual.senders, usual.request_timeout) == (16, 16, 4, 5.0)
    assert (chosen.receivers, chosen.openings, chosen.senders, chosen.request_timeout) == (3, 64, 1, 10.0)


# HTTPS


class Deaf(HttpTransport[Any, Any]):
    """Notes each request's authorization, and answers none."""

    heard: list[str]

    def __init__(self, **_: object) -> None: ...
    def open(self) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Deaf:
        return self

    def __exit__(self, *_: object) -> None: ...

    def send(self, request: Any, **_: object) -> Any:
        self.heard.append(request.headers["Authorization"])
        raise ServiceRequestError("deaf")


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The authorization of each request that an administration client has made."""
    monkeypatch.setattr(Deaf, "heard", [], raising=False)
    monkeypatch.setattr(_management_client, "RequestsTransport", Deaf)
    return Deaf.heard


def ask(https: ServiceBusAdministrationClient) -> None:
    with pytest.raises(ServiceRequestError):
        https.get_queue_runtime_properties("q")


def test_https_bears_a_token_in_one_try(heard: list[str]) -> None:
    ask(administration_of(of("servicebus://orders", Given())))

    assert heard == ["Bearer token-hunter2"]


def test_https_bears_a_signature_as_it_is(heard: list[str]) -> None:
    ask(administration_of(of("servicebus://orders", AzureSasCredential(SIGNATURE))))

    assert heard == [SIGNATURE]


def test_https_is_signed_with_the_key_of_the_moment(heard: list[str]) -> None:
    key = AzureNamedKeyCredential("Root", "old")
    https = administration_of(of("servicebus://orders", key))

    ask(https)
    key.update("Root2", "new")
    ask(https)

    assert [said.rpartition("skn=")[2] for said in heard] == ["Root", "Root2"]
    assert all(said.startswith("SharedAccessSignature sr=https%3A%2F%2Forders.") for said in heard)


# What is kept to ourselves


def test_the_repr_tells_who_and_where_and_no_secret() -> None:
    assert repr(by(STRING)) == (
        "<ServiceBusOptions 'orders.servicebus.windows.net' [AzureNamedKeyCredential | amqp]>"
    )
    assert repr(by(EMULATOR)) == (
        "<ServiceBusOptions '127.0.0.1:15672' [AzureNamedKeyCredential | amqp without TLS]>"
    )
    assert repr(of("servicebus://orders?endpoint=sb://h:1&transport=websocket", Given())) == (
        "<ServiceBusOptions 'orders.servicebus.windows.net' at sb://h:1 [Given | websocket]>"
    )


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy])
def test_options_are_not_pickled(way: Any) -> None:
    with pytest.raises(TypeError, match="hold secrets"):
        way(by(STRING))


@given(st.text("Ee=;:/?&%SharedAccessKeyNmUsDvlopmtEuqir. ", max_size=60))
def test_no_connection_string_raises_anything_else_or_is_repeated(text: str) -> None:
    settings = ProviderSettings(
        provider="servicebus",
        options={"connection_string": f"Endpoint=sb://x;SharedAccessKey=hunter2;{text}"},
    )

    try:
        said = repr(ServiceBusOptions.of(settings))
    except errors.ConfigurationError as exc:
        said = everything_said(exc)

    assert "hunter2" not in said


# What must be installed


def python(code: str) -> str:
    """What a fresh interpreter prints that runs *code*."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_the_sdk_the_extra_is_named() -> None:
    said = python(
        "import sys, queue_runtime\n"
        "sys.modules['azure.servicebus'] = None\n"
        "try: queue_runtime.connect('servicebus://orders')\n"
        "except queue_runtime.errors.MissingExtra as exc: print(exc)"
    )

    assert "pip install 'queue_runtime[servicebus]'" in said


def test_without_azure_identity_the_extra_is_named_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)

    by(STRING)
    of("servicebus://orders", Given())
    with pytest.raises(errors.MissingExtra, match=r"queue_runtime\[servicebus\]"):
        of("servicebus://orders")


def test_a_connection_string_does_not_load_azure_identity() -> None:
    url = f"servicebus://?connection_string={quote(STRING, safe='')}"
    said = python(
        "import sys\n"
        "from queue_runtime.config import parse_url\n"
        "from queue_runtime.providers.servicebus.options import ServiceBusOptions\n"
        f"ServiceBusOptions.of(parse_url({url!r}).provider)\n"
        "print('azure.identity' in sys.modules, 'websocket' in sys.modules)"
    )

    assert said.split() == ["False", "False"]


def test_without_websocket_client_its_package_is_named_when_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "websocket", None)

    of("servicebus://orders")
    with pytest.raises(errors.MissingExtra, match="pip install websocket-client"):
        of("servicebus://orders?transport=websocket")
