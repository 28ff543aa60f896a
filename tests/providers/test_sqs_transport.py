"""The transport options of SQS, each by its effect on real sockets: pool, timeouts, proxy, authorities."""

from __future__ import annotations

import socket
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any
from urllib.parse import quote

import pytest

from queue_runtime import errors
from queue_runtime.clock import SystemClock
from queue_runtime.config import parse_url
from queue_runtime.message import Message
from queue_runtime.providers.sqs import create
from queue_runtime.providers.sqs.client import AwsSqsClient
from queue_runtime.providers.sqs.options import SqsOptions
from queue_runtime.providers.sqs.sdk import SdkClients
from queue_runtime.testing.sqs import CREDENTIALS, REGION
from tests.providers.sqs_edge import Edge
from tests.providers.sqs_nets import Authority, Served, endpoint, proxy


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def plain() -> Iterator[Served]:
    with endpoint() as served:
        yield served


@pytest.fixture
def secure(authority: Authority) -> Iterator[Served]:
    with endpoint(authority.sign("127.0.0.1")) as served:
        yield served


def made(endpoint_url: str | None = None, **options: object) -> AwsSqsClient:
    if endpoint_url is not None:
        options["endpoint_url"] = endpoint_url
    query = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in options.items())
    return create(parse_url(f"sqs://{REGION}?{query}").provider, SystemClock())


def sent(client: AwsSqsClient) -> bool:
    try:
        return client.send("jobs", [Message(body=b"x")])[0].ok
    finally:
        client.close()


def refused(**options: object) -> str:
    with pytest.raises(errors.ConfigurationError) as caught:
        made(**options)  # type: ignore[arg-type]
    return str(caught.value)


def failure(client: AwsSqsClient) -> errors.QueueError:
    with pytest.raises(errors.QueueError) as caught:
        client.capabilities("jobs")
    client.close()
    return caught.value


class TestTheAuthorities:
    def test_of_an_endpoint_of_ones_own_are_named_by_ca_bundle(
        self, authority: Authority, secure: Served
    ) -> None:
        assert sent(made(secure.url, ca_bundle=authority.bundle))

    def test_are_certifis_without_it_and_the_error_names_the_way_out(self, secure: Served) -> None:
        error = failure(made(secure.url))

        assert type(error) is errors.ConnectionFailed
        assert "certificate verify failed" in str(error)
        assert "ca_bundle" in str(error)
        assert secure.operations == []

    def test_do_not_make_a_certificate_good_for_another_host(self, authority: Authority) -> None:
        with endpoint(authority.sign("sqs.example.org")) as other:
            error = failure(made(other.url, ca_bundle=authority.bundle))

        assert type(error) is errors.ConnectionFailed
        assert "127.0.0.1" in str(error)
        assert other.operations == []

    @pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
    def test_may_be_named_by_the_environment(
        self, authority: Authority, secure: Served, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        monkeypatch.setenv(variable, str(authority.bundle))

        assert sent(made(secure.url))

    @pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
    def test_are_asked_for_also_where_an_empty_variable_would_switch_verification_off(
        self, secure: Served, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        monkeypatch.setenv(variable, "")

        error = failure(made(secure.url))

        assert "certificate verify failed" in str(error)
        assert secure.operations == []

    def test_that_are_not_there_are_said_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "notes.txt").write_text("no certificate")

        assert "ca_bundle = '/nowhere.pem' is not usable" in refused(ca_bundle="/nowhere.pem")
        assert "PEM" in refused(ca_bundle=tmp_path / "notes.txt")
        assert "ca_bundle is empty" in refused(ca_bundle="")
        monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere.pem")
        assert "AWS_CA_BUNDLE" in refused()

    def test_are_refused_where_there_is_no_tls(self, authority: Authority, plain: Served) -> None:
        assert "no effect" in refused(endpoint_url=plain.url, ca_bundle=authority.bundle)

    def test_of_a_relative_path_stay_the_same_when_the_process_moves(
        self, authority: Authority, secure: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(authority.bundle.parent)
        client = made(secure.url, ca_bundle=authority.bundle.name)

        monkeypatch.chdir("/")

        assert sent(client)


class TestAClientCertificate:
    @pytest.fixture
    def gateway(self, authority: Authority) -> Iterator[Served]:
        """An endpoint that asks for one."""
        with endpoint(authority.sign("127.0.0.1"), clients=authority) as served:
            yield served

    @pytest.mark.parametrize("in_one_file", [True, False])
    def test_is_shown_to_an_endpoint_that_asks(
        self, authority: Authority, gateway: Served, in_one_file: bool, tmp_path: Path
    ) -> None:
        certificate, key = authority.sign("worker-7")
        options: dict[str, object] = {"client_cert": certificate, "client_key": key}
        if in_one_file:
            both = tmp_path / "both.pem"
            both.write_bytes(certificate.read_bytes() + key.read_bytes())
            options = {"client_cert": both}

        assert sent(made(gateway.url, ca_bundle=authority.bundle, **options))
        assert "worker-7" in str(gateway.peers)

    def test_that_is_missing_is_an_authentication_failure_or_a_broken_connection(
        self, authority: Authority, gateway: Served
    ) -> None:
        error = failure(made(gateway.url, ca_bundle=authority.bundle))

        # The refusal may be overtaken by the end of the connection.
        assert type(error) in (errors.AuthenticationFailed, errors.ConnectionFailed)
        assert gateway.operations == []

    def test_that_cannot_be_used_is_said_at_once(self, authority: Authority, tmp_path: Path) -> None:
        certificate, key = authority.sign("worker-7")
        _, other_key = authority.sign("worker-8")
        locked, its_key = authority.sign("worker-9", password=b"hunter2")

        assert "client_cert = '/nowhere.crt'" in refused(client_cert="/nowhere.crt")
        assert "the key that fits" in refused(client_cert=certificate)
        assert "the key that fits" in refused(client_cert=certificate, client_key=other_key)
        assert "without a password" in refused(client_cert=locked, client_key=its_key)
        assert "without client_cert" in refused(client_key=key)

    def test_is_refused_where_there_is_no_tls(self, authority: Authority, plain: Served) -> None:
        certificate, key = authority.sign("worker-7")

        said = refused(endpoint_url=plain.url, client_cert=certificate, client_key=key)

        assert "client_cert has no effect" in said


class TestAProxy:
    def test_is_gone_through_by_a_tunnel_to_an_endpoint_with_tls(
        self, authority: Authority, secure: Served
    ) -> None:
        with proxy(secure.url) as way:
            assert sent(made(secure.url, ca_bundle=authority.bundle, proxy=way.url))

        assert set(way.asked) == {f"CONNECT {secure.url.removeprefix('https://')}"}
        assert "SendMessageBatch" in secure.operations

    def test_is_given_the_request_for_one_without(self, plain: Served) -> None:
        with proxy(plain.url) as way:
            assert sent(made(plain.url, proxy=way.url))

        assert way.asked[0] == f"POST {plain.url}/"

    def test_is_gone_through_to_aws_itself(self, authority: Authority) -> None:
        with endpoint(authority.sign(f"sqs.{REGION}.amazonaws.com")) as aws, proxy(aws.url) as way:
            assert sent(made(ca_bundle=authority.bundle, proxy=way.url))

        assert set(way.asked) == {f"CONNECT sqs.{REGION}.amazonaws.com:443"}

    def test_is_told_who_we_are_by_a_variable_that_is_never_shown(
        self, plain: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PROXY_LOGIN", "us/er:hunter2@:x")
        with proxy(plain.url) as way:
            client = made(plain.url, proxy=way.url, proxy_credentials_env="PROXY_LOGIN")
            shown = repr(client._sdk._options)
            assert sent(client)

        assert way.credentials[0] == "us/er:hunter2@:x"
        assert "hunter2" not in shown

    @pytest.mark.parametrize(
        ("status", "kind", "way_out"),
        [
            ("407 Proxy Authentication Required", errors.AuthenticationFailed, "proxy_credentials_env"),
            ("403 Forbidden", errors.AuthorizationFailed, "let this machine through"),
            ("503 Service Unavailable", errors.ConnectionFailed, "503"),
        ],
    )
    def test_that_refuses_a_tunnel_is_quoted(
        self,
        authority: Authority,
        secure: Served,
        monkeypatch: pytest.MonkeyPatch,
        status: str,
        kind: type[errors.QueueError],
        way_out: str,
    ) -> None:
        monkeypatch.setenv("PROXY_LOGIN", "user:hunter2")
        with proxy(secure.url, refuses=status) as way:
            options = {
                "proxy": way.url,
                "proxy_credentials_env": "PROXY_LOGIN",
                "ca_bundle": authority.bundle,
            }
            error = failure(made(secure.url, **options))

        assert type(error) is kind
        assert status in str(error)
        assert way_out in str(error)
        assert "hunter2" not in "".join(traceback.format_exception(error))
        assert secure.operations == []

    def test_that_refuses_a_request_is_an_authentication_failure_too(self, plain: Served) -> None:
        with proxy(plain.url, refuses="407 Proxy Authentication Required") as way:
            error = failure(made(plain.url, proxy=way.url))

        assert type(error) is errors.AuthenticationFailed

    def test_that_is_not_there_leaves_the_request_unsent(self, secure: Served, authority: Authority) -> None:
        with proxy(secure.url) as way:
            pass
        error = failure(made(secure.url, ca_bundle=authority.bundle, proxy=way.url))

        assert type(error) is errors.ConnectionFailed
        assert way.url in str(error)
        assert secure.operations == []

    def test_may_be_named_by_the_environment_with_exceptions(
        self, plain: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with proxy(plain.url) as way:
            monkeypatch.setenv("HTTP_PROXY", f"http://user:hunter2@127.0.0.1:{way.port}")
            assert sent(made(plain.url))
            through = len(way.asked)
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            assert sent(made(plain.url))

        assert way.credentials[0] == "user:hunter2"
        assert through == len(way.asked) > 0

    @pytest.mark.parametrize(
        ("url", "kind"),
        [
            ("http://user:hunter2@127.0.0.1:port", errors.ConfigurationError),
            ("http://user:hunter2@[::1", errors.ConfigurationError),
            ("http://us er:hunter2@127.0.0.1:1", errors.ConnectionFailed),
            ("http://h:hunter2@127.0.0.1:1", errors.ConnectionFailed),
            ("socks5://user:hunter2@127.0.0.1:1", errors.ConnectionFailed),
        ],
    )
    def test_of_the_environment_that_is_none_is_told_without_a_secret(
        self, plain: Served, monkeypatch: pytest.MonkeyPatch, url: str, kind: type[errors.QueueError]
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", url)

        error = failure(made(plain.url))

        assert type(error) is kind
        assert "proxy" in str(error)
        assert "hunter2" not in "".join(traceback.format_exception(error))

    @pytest.mark.parametrize(
        "url",
        ["http://user:hunter2@h:1", "hunter2@h", "socks5://h:1", "http://h", "http://h:0", "http://h:1/x"],
    )
    def test_that_cannot_be_one_is_refused(self, url: str) -> None:
        said = refused(proxy=url)

        assert "proxy" in said
        assert "hunter2" not in said

    @pytest.mark.parametrize("login", [None, "", "user", "user:", ":word", "us\u00e9r:word"])
    def test_login_that_is_none_is_refused_by_its_variables_name(
        self, monkeypatch: pytest.MonkeyPatch, login: str | None
    ) -> None:
        if login is not None:
            monkeypatch.setenv("PROXY_LOGIN", login)

        said = refused(proxy="http://h:1", proxy_credentials_env="PROXY_LOGIN")

        assert "'PROXY_LOGIN'" in said
        assert "USER:PASSWORD" in said
        assert "hunter2" not in refused(proxy="http://h:1", proxy_credentials_env="user:hunter2")
        assert "without proxy" in refused(proxy_credentials_env="PROXY_LOGIN")


class TestThePool:
    @pytest.mark.parametrize(("size", "connections"), [(4, 4), (1, 7)])
    def test_keeps_so_many_connections_open(self, plain: Served, size: int, connections: int) -> None:
        client = made(plain.url, max_connections=size)
        client.capabilities("jobs")
        plain.together = Barrier(4)
        with ThreadPoolExecutor(4) as threads:
            for _ in range(2):
                list(threads.map(lambda _: client.send("jobs", [Message(body=b"x")]), range(4)))
        client.close()

        assert plain.connections == connections

    @pytest.mark.parametrize(("text", "alive"), [("true", True), ("false", False), (None, True)])
    def test_has_idle_connections_checked_by_the_system(
        self, plain: Served, monkeypatch: pytest.MonkeyPatch, text: str | None, alive: bool
    ) -> None:
        options: set[tuple[Any, ...]] = set()

        class Socket(socket.socket):
            def setsockopt(self, *args: Any) -> None:
                options.add(args)
                super().setsockopt(*args)

        monkeypatch.setattr("socket.socket", Socket)
        assert sent(made(plain.url, **({} if text is None else {"tcp_keepalive": text})))

        assert ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1) in options) is alive

    def test_waits_for_a_connection_as_long_as_it_is_told(self) -> None:
        # Its queue is full: connections are not answered any more.
        with socket.socket() as full, socket.socket() as first, socket.socket() as second:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for one in (first, second):
                one.setblocking(False)
                one.connect_ex(full.getsockname())
            client = made(f"http://127.0.0.1:{full.getsockname()[1]}", connect_timeout=0.3, request_timeout=5)
            started = time.monotonic()
            error = failure(client)
            seconds = time.monotonic() - started

        assert type(error) is errors.ConnectionFailed
        assert "could not be reached" in str(error)
        assert 0.25 < seconds < 5, "not for as long as an answer may take"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("connect_timeout", "0"),
            ("connect_timeout", "61"),
            ("connect_timeout", "soon"),
            ("tcp_keepalive", "yes"),
            ("use_fips_endpoint", "1"),
            ("use_dualstack_endpoint", ""),
        ],
    )
    def test_refuses_what_is_no_setting_by_its_name(self, name: str, value: str) -> None:
        said = refused(**{name: value})

        assert f"{name} = {value!r}" in said


class TestAwssOwnEndpoints:
    @pytest.mark.parametrize(
        ("options", "host"),
        [
            ({}, f"sqs.{REGION}.amazonaws.com"),
            ({"use_dualstack_endpoint": "true"}, f"sqs.{REGION}.api.aws"),
            ({"use_fips_endpoint": "true"}, f"sqs-fips.{REGION}.amazonaws.com"),
            ({"use_fips_endpoint": "false"}, f"sqs.{REGION}.amazonaws.com"),
        ],
    )
    def test_are_chosen_among(self, options: dict[str, str], host: str) -> None:
        edge = Edge()
        edge.queue("jobs")
        client = made(**options)
        edge.listen_to(client._sdk._session)

        client.capabilities("jobs")
        client.close()

        assert {asked.url for asked in edge.asked} == {f"https://{host}/"}

    def test_are_chosen_against_the_environment_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")

        self.test_are_chosen_among({"use_fips_endpoint": "false"}, f"sqs.{REGION}.amazonaws.com")

    @pytest.mark.parametrize("name", ["use_fips_endpoint", "use_dualstack_endpoint"])
    def test_are_not_chosen_where_another_one_is_named(self, name: str) -> None:
        said = refused(endpoint_url="https://127.0.0.1:1", **{name: "true"})

        assert name in said
        assert "endpoint_url" in said


@pytest.mark.parametrize(
    ("region", "endpoint", "warnings"),
    [
        ("eu-wets-1", None, 1),
        ("eu-west-1", None, 0),
        ("cn-north-1", None, 0),
        ("us-gov-west-1", None, 0),
        ("eu-wets-1", "http://127.0.0.1:1", 0),
    ],
)
def test_a_region_that_the_sdk_does_not_know_is_warned_of_once(
    region: str, endpoint: str | None, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    options = SqsOptions(region=region, endpoint_url=endpoint)
    clients = SdkClients(options, options.session())

    for timeout in (1.0, 2.0):
        clients._client(timeout)

    clients.close()
    told = "boto3 knows no region 'eu-wets-1'; did you mean 'eu-west-1'?"
    assert [told in record.getMessage() for record in caplog.records] == [True] * warnings


def test_credentials_are_fetched_the_same_way_and_once(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(
        "[profile worker]\nrole_arn = arn:aws:iam::1:role/worker\ncredential_source = Environment\n"
    )
    monkeypatch.setenv("AWS_STS_REGIONAL_ENDPOINTS", "regional")  # older SDKs ask for it elsewhere
    host = f"sts.{REGION}.amazonaws.com"
    with endpoint(authority.sign(host)) as sts, proxy(sts.url, refuses="503 Busy") as way:
        error = failure(made(profile="worker", ca_bundle=authority.bundle, proxy=way.url))

    assert way.asked == [f"CONNECT {host}:443"]
    assert type(error) is errors.ConnectionFailed
    assert sts.operations == []
