"""Who we are to Azure: connection strings, credentials by name and from code, and tokens for many threads."""

from __future__ import annotations

import copy
import pickle
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import azure.identity
import azure.identity.aio
import pytest
from azure.core.credentials import AccessToken, AzureNamedKeyCredential, AzureSasCredential
from azure.identity import CredentialUnavailableError
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from queue_runtime.config import parse_url
from queue_runtime.errors import ConfigurationError
from queue_runtime.providers.servicebus.connection_strings import parse
from queue_runtime.providers.servicebus.credentials import HttpSignature, Tokens
from queue_runtime.providers.servicebus.options import ServiceBusOptions
from queue_runtime.testing import FakeClock

SCOPE = "https://servicebus.azure.net//.default"
SECRET = "hunter2"
HTTP = {"connection_timeout": 5.0, "read_timeout": 5.0, "retry_total": 2, "retry_backoff_max": 1.0}


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "AZURE_AUTHORITY_HOST",
        "AZURE_CLIENT_CERTIFICATE_PASSWORD",
        "AZURE_CLIENT_CERTIFICATE_PATH",
        "AZURE_CLIENT_ID",
        "AZURE_CLIENT_SECRET",
        "AZURE_FEDERATED_TOKEN_FILE",
        "AZURE_SERVICEBUS_CONNECTIONSTRING",
        "AZURE_SERVICEBUS_CONNECTION_STRING",
        "AZURE_TENANT_ID",
        "AZURE_TOKEN_CREDENTIALS",
    ):
        monkeypatch.delenv(name, raising=False)


def everything_said(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


def of(url: str, credential: object | None = None) -> ServiceBusOptions:
    return ServiceBusOptions.of(replace(parse_url(url).provider, credential=credential))


def refusal(url: str, credential: object | None = None) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        of(url, credential)
    return caught.value


# Connection strings


@pytest.mark.parametrize(
    ("string", "address"),
    [
        ("Endpoint=sb://orders.example.net/;SharedAccessKeyName=n;SharedAccessKey=k", "orders.example.net"),
        ("endpoint=SB://ORDERS.example.net;sharedaccesskeyname=n;SHAREDACCESSKEY=k;", "orders.example.net"),
        (" Endpoint = sb://a.b ; SharedAccessKeyName = n ; SharedAccessKey = k \n", "a.b"),
        ("Endpoint=https://a.b:443/;SharedAccessKeyName=n;SharedAccessKey=k", "a.b"),
        ("Endpoint=sb://a.b:5671;SharedAccessKeyName=n;SharedAccessKey=k", "a.b"),
        ("HostName=a.b;SharedAccessKeyName=n;SharedAccessKey=k", "a.b"),
        ("Endpoint=sb://a.b;SharedAccessKeyName=n;SharedAccessKey=k;EntityPath=;Else=1", "a.b"),
        (
            "Endpoint=sb://a.b;SharedAccessKeyName=n;SharedAccessKey=k;UseDevelopmentEmulator=false",
            "a.b",
        ),
        (
            "Endpoint=sb://localhost;SharedAccessKeyName=n;SharedAccessKey=k;UseDevelopmentEmulator=true",
            "localhost",
        ),
        (
            "Endpoint=sb://service_bus:1;SharedAccessKeyName=n;SharedAccessKey=k;UseDevelopmentEmulator=true",
            "service_bus:1",
        ),
    ],
)
def test_a_connection_string_is_read_as_people_write_it(string: str, address: str) -> None:
    found = parse(string, "here")

    assert found.address == address
    assert isinstance(found.credential, AzureNamedKeyCredential)
    assert found.credential.named_key == ("n", "k")


@pytest.mark.parametrize(
    ("string", "message"),
    [
        ("", "not of the form"),
        (SECRET, "not of the form"),
        (f"Endpoint=sb://a.b;SharedAccessKeyName=n;{SECRET}", "not of the form"),
        (f"SharedAccessKeyName=n;SharedAccessKey={SECRET}", "no usable Endpoint"),
        (f"Endpoint=;SharedAccessKeyName=n;SharedAccessKey={SECRET}", "no usable Endpoint"),
        (f"Endpoint=sb://[{SECRET};SharedAccessKeyName=n;SharedAccessKey={SECRET}", "no usable Endpoint"),
        (f"Endpoint=sb://me:{SECRET}@a.b;SharedAccessKeyName=n;SharedAccessKey=k", "no usable Endpoint"),
        (f"Endpoint=sb://a.b/{SECRET};SharedAccessKeyName=n;SharedAccessKey=k", "no usable Endpoint"),
        (f"Endpoint=sb://a.b:{SECRET};SharedAccessKeyName=n;SharedAccessKey=k", "no usable Endpoint"),
        (
            f"Endpoint=sb://a.b:15671;SharedAccessKeyName=n;SharedAccessKey={SECRET}",
            "endpoint=sb://HOST:PORT",
        ),
        (f"Endpoint=sb://a.b;SharedAccessKey={SECRET}", "lacks a SharedAccessKeyName"),
        (f"Endpoint=sb://a.b;SharedAccessKeyName={SECRET}", "lacks a SharedAccessKeyName"),
        ("Endpoint=sb://a.b", "lacks a SharedAccessKeyName"),
        (f"Endpoint=sb://a.b;SharedAccessKeyName=n;SharedAccessKey={SECRET} b", "%2B"),
        (f"Endpoint=sb://a.b;SharedAccessKeyName=n;SharedAccessKey={SECRET};EntityPath=q", "EntityPath"),
        (f"Endpoint=sb://a.b;SharedAccessKey=k;SharedAccessSignature={SECRET}", "leave one of them"),
        (f"Endpoint=sb://a.b;SharedAccessSignature={SECRET}", "no usable signature"),
        (
            f"Endpoint=sb://a.b;SharedAccessSignature=SharedAccessSignature sig={SECRET}",
            "no usable signature",
        ),
        (
            f"Endpoint=sb://a.b;SharedAccessKeyName=n;SharedAccessKey={SECRET};UseDevelopmentEmulator=yes",
            "neither true nor false",
        ),
    ],
)
def test_one_that_is_wrong_is_refused_by_where_it_stands_and_not_repeated(string: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^servicebus: the variable BUS ") as caught:
        parse(string, "the variable BUS")

    assert message in str(caught.value)
    assert SECRET not in everything_said(caught.value)
    assert caught.value.__context__ is None


def test_a_signature_may_have_its_end_in_any_place() -> None:
    first = "SharedAccessSignature se=4102444800&sr=sb%3A%2F%2Fa.b&sig=x%3D&skn=n"
    credential = parse(f"Endpoint=sb://a.b;SharedAccessSignature={first}", "here").credential

    assert isinstance(credential, AzureSasCredential)
    assert credential.signature == "SharedAccessSignature sr=sb%3A%2F%2Fa.b&sig=x%3D&skn=n&se=4102444800"


@given(
    host=st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?(\.[a-z]{1,5}){0,2}", fullmatch=True),
    key=st.text("abcXYZ019+/=", min_size=1, max_size=44),
    name=st.text("abcXYZ-_", min_size=1, max_size=10),
    order=st.permutations([0, 1, 2]),
)
def test_a_connection_string_means_the_same_in_any_order(
    host: str, key: str, name: str, order: list[int]
) -> None:
    parts = [f"Endpoint=sb://{host}/", f"SharedAccessKeyName={name}", f"SharedAccessKey={key}"]
    found = parse(";".join(parts[i] for i in order), "here")

    assert (found.host, found.port, found.emulator) == (host, None, False)
    assert isinstance(found.credential, AzureNamedKeyCredential)
    assert found.credential.named_key == (name, key)
    assert repr(found) == f"ConnectionString(host={host!r}, port=None, emulator=False)"


# Credentials by name


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[object, ...], dict[str, object]]]:
    """Which credentials of azure-identity were made, and with what."""
    seen: list[tuple[str, tuple[object, ...], dict[str, object]]] = []

    def recorder(name: str) -> Callable[..., object]:
        class Made:
            def __init__(self, *args: object, **more: object) -> None:
                seen.append((name, args, more))

            def get_token(self, *scopes: str) -> AccessToken:
                return AccessToken("t", 4102444800)

        return Made

    for name in (
        "DefaultAzureCredential",
        "ManagedIdentityCredential",
        "ClientSecretCredential",
        "CertificateCredential",
        "WorkloadIdentityCredential",
        "EnvironmentCredential",
        "AzureCliCredential",
    ):
        monkeypatch.setattr(azure.identity, name, recorder(name))
    return seen


@pytest.mark.parametrize(
    ("query", "kind", "args", "more"),
    [
        ("", "DefaultAzureCredential", (), HTTP),
        ("credential=default", "DefaultAzureCredential", (), HTTP),
        ("client_id=me", "DefaultAzureCredential", (), {"managed_identity_client_id": "me", **HTTP}),
        ("credential=managed_identity", "ManagedIdentityCredential", (), HTTP),
        (
            "credential=managed_identity&client_id=me",
            "ManagedIdentityCredential",
            (),
            {"client_id": "me", **HTTP},
        ),
        (
            "credential=service_principal&tenant_id=t&client_id=me",
            "ClientSecretCredential",
            ("t", "me", SECRET),
            HTTP,
        ),
        (
            "credential=service_principal&tenant_id=t&client_id=me&certificate_path=c.pem",
            "CertificateCredential",
            ("t", "me", "c.pem"),
            {"password": None, **HTTP},
        ),
        ("credential=workload_identity", "WorkloadIdentityCredential", (), HTTP),
        (
            "credential=workload_identity&tenant_id=t&client_id=me",
            "WorkloadIdentityCredential",
            (),
            {"tenant_id": "t", "client_id": "me", **HTTP},
        ),
        ("credential=environment", "EnvironmentCredential", (), HTTP),
        ("credential=cli", "AzureCliCredential", (), {}),
        ("credential=cli&tenant_id=t", "AzureCliCredential", (), {"tenant_id": "t"}),
    ],
)
def test_a_credential_is_made_by_its_name(
    made: list[Any], monkeypatch: pytest.MonkeyPatch, query: str, kind: str, args: object, more: object
) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", SECRET)

    options = of(f"servicebus://orders?{query}")

    assert made == [(kind, args, more)]
    client: Any = options.client()
    assert client._credential.get_token(SCOPE).token == "t"


def test_each_of_them_can_really_be_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    monkeypatch.setenv("AZURE_CLIENT_SECRET", SECRET)
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    ids = "tenant_id=00000000-0000-0000-0000-000000000001&client_id=00000000-0000-0000-0000-000000000002"

    kinds = []
    for query in (
        "credential=default&client_id=x",
        "credential=managed_identity&client_id=x",
        f"credential=service_principal&{ids}",
        f"credential=workload_identity&{ids}",
        "credential=environment",
        "credential=cli",
    ):
        options = of(f"servicebus://orders.servicebus.usgovcloudapi.net?{query}")
        kinds.append(repr(options).partition("[")[2].partition(" ")[0])
        assert SECRET not in repr(options)
        options.close()

    assert kinds == [
        "DefaultAzureCredential",
        "ManagedIdentityCredential",
        "ClientSecretCredential",
        "WorkloadIdentityCredential",
        "EnvironmentCredential",
        "AzureCliCredential",
    ]


@pytest.mark.parametrize(
    ("end", "authority"),
    [
        ("servicebus.windows.net", None),
        ("servicebus.chinacloudapi.cn", azure.identity.AzureAuthorityHosts.AZURE_CHINA),
        ("servicebus.usgovcloudapi.net", azure.identity.AzureAuthorityHosts.AZURE_GOVERNMENT),
    ],
)
def test_a_sovereign_clouds_tokens_come_from_its_own_authority(
    made: list[Any], monkeypatch: pytest.MonkeyPatch, end: str, authority: str | None
) -> None:
    of(f"servicebus://orders.{end}")
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://login.example")
    of(f"servicebus://orders.{end}")

    assert [more.get("authority") for _, _, more in made] == [authority, None]


def test_a_proxy_and_the_timeout_are_for_asking_for_tokens_too(made: list[Any]) -> None:
    of("servicebus://orders?transport=websocket&proxy=http://proxy:3128&request_timeout=2")

    ((_, _, more),) = made
    assert more["proxies"] == {"https": "http://proxy:3128"}
    assert (more["connection_timeout"], more["read_timeout"]) == (2.0, 2.0)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (f"credential={SECRET}", "credential must be one of default, managed_identity, service_principal"),
        ("credential=", "credential is empty"),
        ("credential=cli&client_id=x", "credential=cli takes tenant_id, not client_id"),
        (
            "credential=environment&tenant_id=x",
            "credential=environment takes no further option, not tenant_id",
        ),
        ("tenant_id=x", "credential=default takes client_id, not tenant_id"),
        ("credential=service_principal", "needs tenant_id and client_id"),
        ("credential=service_principal&tenant_id=t", "needs client_id"),
        ("credential=service_principal&tenant_id=t&client_id=c", "AZURE_CLIENT_SECRET"),
        ("credential=service_principal&tenant_id=t&client_id=c&certificate_path=/nowhere", "'/nowhere'"),
        ("credential=workload_identity", "credential=workload_identity: "),
        ("credential=cli&tenant_id=a%20b", "credential=cli: "),
    ],
)
def test_an_identity_that_cannot_be_is_refused_with_the_way_out(query: str, message: str) -> None:
    error = refusal(f"servicebus://orders?{query}")

    assert message in str(error)
    assert SECRET not in everything_said(error)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate with its key, which the password opens."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bot")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("certificate") / "bot.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(SECRET.encode()))
        + made.public_bytes(Encoding.PEM)
    )
    return path


def test_a_certificate_is_opened_by_the_password_in_the_environment(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"servicebus://orders?credential=service_principal&tenant_id=t&client_id=c&certificate_path={certificate}"

    for password in (None, "wrong"):
        if password is not None:
            monkeypatch.setenv("AZURE_CLIENT_CERTIFICATE_PASSWORD", password)
        error = refusal(url)
        assert "AZURE_CLIENT_CERTIFICATE_PASSWORD" in str(error)
        assert error.__context__ is None
    monkeypatch.setenv("AZURE_CLIENT_CERTIFICATE_PASSWORD", SECRET)

    assert "[CertificateCredential " in repr(of(url))


# Credentials from code


class Given:
    """A credential that counts how often it is asked."""

    def __init__(self, life: float = 3600.0, clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.life = life
        self.asked: list[tuple[str, ...]] = []
        self.failure: BaseException | None = None
        self.closed = False
        self.before: Callable[[], object] = lambda: None

    def get_token(self, *scopes: str, **more: object) -> AccessToken:
        self.asked.append(scopes)
        self.before()
        if self.failure is not None:
            raise self.failure
        return AccessToken(f"token {len(self.asked)}", int(self.clock.now().timestamp() + self.life))

    def close(self) -> None:
        self.closed = True


def test_a_token_credential_is_asked_through_the_sdks_client() -> None:
    credential = Given(clock=FakeClock())
    settings = replace(parse_url("servicebus://orders").provider, credential=credential)
    receiver: Any = ServiceBusOptions.of(settings, credential.clock).client().get_queue_receiver("q")

    assert receiver._credential.get_token(SCOPE).token == "token 1"
    assert credential.asked == [(SCOPE,)]


@pytest.mark.parametrize(
    "credential",
    [
        AzureNamedKeyCredential("n", SECRET),
        AzureSasCredential(f"SharedAccessSignature sr=x&sig={SECRET}&se=4102444800&skn=n"),
    ],
)
def test_a_key_or_signature_object_is_used_as_it_is(credential: object) -> None:
    options = of("servicebus://orders", credential)

    assert options.credential is credential
    assert SECRET not in repr(options)


@pytest.mark.parametrize(
    ("credential", "message"),
    [
        (SECRET, "is a builtins.str"),
        (Given, "is the class "),
        (azure.identity.aio.AzureCliCredential(), "for asyncio"),
        (AzureSasCredential(f"SharedAccessSignature sr=x&sig={SECRET}"), "no usable signature"),
    ],
)
def test_an_object_that_is_none_of_these_is_refused_by_its_kind(credential: object, message: str) -> None:
    error = refusal("servicebus://orders", credential)

    assert message in str(error)
    assert SECRET not in everything_said(error)


@pytest.mark.parametrize("query", ["credential=default", "client_id=x", "certificate_path=x"])
def test_an_object_excludes_the_options_that_would_make_one(query: str) -> None:
    error = refusal(f"servicebus://orders?{query}", Given())

    assert f"{query.split('=')[0]} has no effect beside ProviderSettings.credential" in str(error)


def test_an_object_excludes_a_connection_string(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUS", f"Endpoint=sb://a.b;SharedAccessKeyName=n;SharedAccessKey={SECRET}")

    error = refusal("servicebus://?connection_string_env=BUS", Given())

    assert "both a connection string and ProviderSettings.credential" in str(error)
    assert SECRET not in everything_said(error)


def test_only_what_was_made_here_is_closed() -> None:
    ours, theirs = Given(), Given()

    Tokens(ours, FakeClock(), owned=True).close()
    Tokens(theirs, FakeClock(), owned=False).close()
    Tokens(azure.identity.AzureCliCredential(), FakeClock(), owned=True).close()

    assert (ours.closed, theirs.closed) == (True, False)


# Tokens


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def test_a_token_is_kept_for_four_fifths_of_its_life(clock: FakeClock) -> None:
    credential = Given(life=3600.0, clock=clock)
    tokens = Tokens(credential, clock, owned=False)

    first = tokens.get_token(SCOPE)
    clock.advance(2879.0)
    same = tokens.get_token(SCOPE)
    clock.advance(2.0)
    second = tokens.get_token(SCOPE)

    assert (first.token, same.token, second.token) == ("token 1", "token 1", "token 2")
    assert tokens.get_token("other scope").token == "token 3"


def test_an_old_token_is_used_while_it_lives_if_no_new_one_is_to_be_had(clock: FakeClock) -> None:
    credential = Given(life=3600.0, clock=clock)
    tokens = Tokens(credential, clock, owned=False)
    tokens.get_token(SCOPE)
    credential.failure = CredentialUnavailableError(message="not now")

    clock.advance(3000.0)
    kept = [tokens.get_token(SCOPE).token for _ in range(5)]
    asked = len(credential.asked)
    clock.advance(31.0)
    kept.append(tokens.get_token(SCOPE).token)

    assert kept == ["token 1"] * 6
    assert (asked, len(credential.asked)) == (2, 3)  # half a minute between the tries
    clock.advance(600.0)
    with pytest.raises(CredentialUnavailableError):
        tokens.get_token(SCOPE)


def stopped(reached: threading.Event, go_on: threading.Event) -> Callable[[], object]:
    """What says that it has been reached, and waits."""

    def stop() -> bool:
        reached.set()
        return go_on.wait(5.0)

    return stop


def test_one_thread_asks_and_all_get_its_answer(clock: FakeClock, pool: ThreadPoolExecutor) -> None:
    credential = Given(clock=clock)
    tokens = Tokens(credential, clock, owned=False)
    asking, go_on = threading.Event(), threading.Event()
    credential.before = stopped(asking, go_on)

    answers = [pool.submit(tokens.get_token, SCOPE)]
    assert asking.wait(5.0)
    answers += [pool.submit(tokens.get_token, SCOPE) for _ in range(7)]
    go_on.set()

    assert {answer.result(5.0).token for answer in answers} == {"token 1"}
    assert len(credential.asked) == 1


def test_a_failure_is_told_to_all_who_waited_and_the_next_asks_anew(
    clock: FakeClock, pool: ThreadPoolExecutor
) -> None:
    credential = Given(clock=clock)
    tokens = Tokens(credential, clock, owned=False)
    asking, go_on = threading.Event(), threading.Event()
    credential.before = stopped(asking, go_on)
    credential.failure = CredentialUnavailableError(message="not here")

    first = pool.submit(tokens.get_token, SCOPE)
    assert asking.wait(5.0)
    second = pool.submit(tokens.get_token, SCOPE)
    go_on.set()
    failures = [answer.exception(5.0) for answer in (first, second)]
    credential.failure = None

    assert {type(failure) for failure in failures} == {CredentialUnavailableError}
    assert tokens.get_token(SCOPE).token.startswith("token ")


def test_an_interrupt_ends_the_thread_that_asked_and_no_other(
    clock: FakeClock, pool: ThreadPoolExecutor
) -> None:
    credential = Given(clock=clock)
    tokens = Tokens(credential, clock, owned=False)
    waiting: list[Any] = []
    credential.before = lambda: waiting.append(tokens._asked[(SCOPE,)])
    credential.failure = KeyboardInterrupt()

    with pytest.raises(KeyboardInterrupt):
        tokens.get_token(SCOPE)

    with pytest.raises(CancelledError):
        waiting[0].result(0)
    credential.failure = None
    assert tokens.get_token(SCOPE).token == "token 2"


def test_claims_that_the_service_asks_for_go_past_what_is_kept(clock: FakeClock) -> None:
    credential = Given(clock=clock)
    tokens = Tokens(credential, clock, owned=False)

    answers = [tokens.get_token(SCOPE, **more).token for more in ({}, {"claims": "c"}, {"claims": None})]

    assert answers == ["token 1", "token 2", "token 1"]


@pytest.mark.parametrize("way", [pickle.dumps, copy.deepcopy])
def test_neither_tokens_nor_keys_are_pickled(clock: FakeClock, way: Callable[[object], object]) -> None:
    for secret in (Tokens(Given(), clock, owned=False), HttpSignature(AzureNamedKeyCredential("n", SECRET))):
        with pytest.raises(TypeError, match="not pickled"):
            way(secret)


def test_tokens_show_the_kind_of_credential_and_nothing_else(clock: FakeClock) -> None:
    tokens = Tokens(Given(), clock, owned=False)
    tokens.get_token(SCOPE)

    assert repr(tokens) == "<Tokens of Given>"


def test_a_signature_for_https_is_of_the_namespace() -> None:
    signature = HttpSignature(AzureNamedKeyCredential("n", SECRET)).get_token("https://a.b").token
    fields = dict(part.split("=", 1) for part in signature.removeprefix("SharedAccessSignature ").split("&"))

    assert urlsplit(fields["sr"].replace("%3A", ":").replace("%2F", "/")).hostname == "a.b"
    assert fields["skn"] == "n"
