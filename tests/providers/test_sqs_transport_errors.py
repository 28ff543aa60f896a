"""Every exception of botocore, and what urllib3 and the network are behind it, as the library's errors."""

from __future__ import annotations

import gc
import inspect
import json
import traceback
from collections.abc import Iterator
from contextlib import suppress

import pytest
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from queue_runtime import errors
from queue_runtime.errors import QueueError
from queue_runtime.message import Message
from queue_runtime.provider import Complete
from queue_runtime.providers.sqs.client import AwsSqsClient
from queue_runtime.providers.sqs.errors import retry_after, translate
from queue_runtime.providers.sqs.table import FAILURES, Failure, failure_of
from queue_runtime.testing import FakeClock
from queue_runtime.testing.sqs import CREDENTIALS
from tests.providers.sqs_edge import Edge, provider_at, stored
from tests.providers.sqs_nets import Served, endpoint
from tests.providers.test_sqs_transport import made

KINDS: dict[Failure, tuple[type[QueueError], type[QueueError]]] = {
    "credentials": (errors.AuthenticationFailed, errors.AuthenticationFailed),
    "settings": (errors.ConfigurationError, errors.ConfigurationError),
    "unreached": (errors.ConnectionFailed, errors.ConnectionFailed),
    "proxy": (errors.ConnectionFailed, errors.ConnectionFailed),
    "tls": (errors.OutcomeUnknown, errors.ConnectionFailed),
    "timeout": (errors.OutcomeUnknown, errors.OperationTimeout),
    "broken": (errors.OutcomeUnknown, errors.ConnectionFailed),
    "odd": (errors.ProviderError, errors.ProviderError),
}
"""What a call that changes something ends with, and one that does not."""

# What none of our calls brings about: parameters (they are not validated), pages, waiters, stubs, event
# streams, S3, checksums to be computed, adaptive retries. They are told as they are.
ODD = {
    "AliasConflictParameterError",
    "AwsChunkedWrapperError",
    "CapacityNotAvailableError",
    "InvalidDNSNameError",
    "InvalidEndpointDiscoveryConfigurationError",
    "InvalidExpressionError",
    "InvalidS3AddressingStyleError",
    "InvalidS3UsEast1RegionalEndpointConfigError",
    "MD5UnavailableError",
    "MissingParametersError",
    "OperationNotPageableError",
    "PaginationError",
    "ParamValidationError",
    "RangeError",
    "StubAssertionError",
    "StubResponseError",
    "UnStubbedResponseError",
    "UnknownClientMethodError",
    "UnknownKeyError",
    "UnknownParameterError",
    "UnknownServiceStyle",
    "UnseekableStreamError",
    "UnsupportedOutpostResourceError",
    "UnsupportedS3AccesspointConfigurationError",
    "UnsupportedS3ArnError",
    "UnsupportedS3ConfigurationError",
    "UnsupportedS3ControlArnError",
    "UnsupportedS3ControlConfigurationError",
    "ValidationError",
    "WaiterConfigError",
    "WaiterError",
}

ALL = sorted(
    (
        kind
        for _, kind in inspect.getmembers(boto, inspect.isclass)
        if kind.__module__ == boto.__name__ and issubclass(kind, boto.BotoCoreError)
    ),
    key=lambda kind: kind.__name__,
)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


class _Anything(dict[str, object]):
    """Gives every field that a sentence of botocore asks for."""

    def __missing__(self, key: str) -> str:
        return f"<{key}>"


def instance(kind: type[Exception]) -> Exception:
    made = kind.__new__(kind)
    made.args = (kind.fmt.format_map(_Anything()),)  # type: ignore[attr-defined]
    return made


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_an_exception_of_botocore_is_one_error_of_ours(kind: type[Exception]) -> None:
    exc = instance(kind)
    failure = failure_of(exc)

    sent = translate(exc, operation="SendMessageBatch", queue="jobs", changes=True)
    received = translate(exc, operation="ReceiveMessage", queue="jobs", changes=False)

    assert (type(sent), type(received)) == KINDS[failure]
    for error in (sent, received):
        assert error.provider == "sqs"
        assert error.__cause__ is exc
        assert "'jobs'" in str(error)


def test_the_table_knows_all_that_a_call_can_end_with() -> None:
    told_as_they_are = {kind.__name__ for kind in ALL if failure_of(instance(kind)) == "odd"}

    # A newer SDK may have more; none that this one has is overlooked.
    assert told_as_they_are - {"BotoCoreError"} <= ODD
    assert not ODD & FAILURES.keys()


def test_a_class_that_the_table_does_not_name_is_what_its_base_is() -> None:
    class Newer(boto.ReadTimeoutError):
        pass

    class Newest(boto.BotoCoreError):
        pass

    assert failure_of(Newer(endpoint_url="u", error="e")) == "timeout"
    assert failure_of(Newest()) == "odd"
    assert failure_of(ResponseParserError("x")) == "broken"


class TestTls:
    @pytest.mark.parametrize(
        "text",
        [
            "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate",
            "hostname '127.0.0.1' doesn't match 'sqs.example.org'",
            "[SSL: WRONG_VERSION_NUMBER] wrong version number",
            "[SSL: TLSV1_ALERT_PROTOCOL_VERSION] unsupported protocol",
            "[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] sslv3 alert handshake failure",
        ],
    )
    def test_that_was_never_set_up_leaves_a_send_unsent(self, text: str) -> None:
        exc = boto.SSLError(endpoint_url="https://h", error=OSError(text))

        error = translate(exc, operation="SendMessageBatch", queue="jobs", changes=True)

        assert type(error) is errors.ConnectionFailed
        assert ("ca_bundle" in str(error)) is ("certificate" in text)

    @pytest.mark.parametrize(
        "text",
        ["tlsv13 alert certificate required", "tlsv1 alert unknown ca", "ssl/tls alert bad certificate"],
    )
    def test_that_wants_another_certificate_of_ours_says_so(self, text: str) -> None:
        exc = boto.SSLError(endpoint_url="https://h", error=OSError(text))

        error = translate(exc, operation="SendMessageBatch", queue="jobs", changes=True)

        assert type(error) is errors.AuthenticationFailed
        assert "client_cert" in str(error)

    def test_that_broke_leaves_a_send_unknown(self) -> None:
        exc = boto.SSLError(endpoint_url="https://h", error=OSError("EOF occurred in violation of protocol"))

        error = translate(exc, operation="SendMessageBatch", queue="jobs", changes=True)

        assert type(error) is errors.OutcomeUnknown

    def test_spoken_to_an_endpoint_without_it_is_not_reached(self) -> None:
        with endpoint() as plain:
            error = failure(made(plain.url.replace("http:", "https:")))

        assert type(error) is errors.ConnectionFailed
        assert plain.operations == []


OK = b"HTTP/1.1 200 OK\r\n"
LEFT_TO_THE_COLLECTOR = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""urllib3 closes no socket here: it does so when it is collected, with a warning."""
ANSWER = b'{"Successful": [{"Id": "0"}], "Failed": []}'


class TestAnAnswer:
    """Over real sockets: whatever comes after a send that was not an answer leaves its outcome unknown."""

    @pytest.fixture
    def plain(self) -> Iterator[Served]:
        with endpoint() as served:
            yield served

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"garbage",
            b"HTTP/1.1",
            b"HTTP/1.1 abc def\r\n\r\n",
            OK,
            OK + b"Content-Length: 100\r\n\r\n{",
            pytest.param(OK + b"Content-Length: 1, 2\r\n\r\n{}", marks=LEFT_TO_THE_COLLECTOR),
            pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", marks=LEFT_TO_THE_COLLECTOR),
            OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
            OK + b"X: " + b"x" * 70_000 + b"\r\n\r\n{}",
            OK + b"".join(b"X-%d: x\r\n" % n for n in range(200)) + b"\r\n{}",
            OK + b"Content-Length: 4\r\n\r\n\xff\xfe\xff\xfe",
            OK + b"Content-Length: 9\r\n\r\nno answer",
        ],
        ids=lambda raw: repr(raw[:40]),
    )
    def test_that_is_none_leaves_the_outcome_unknown(self, plain: Served, raw: bytes) -> None:
        client = made(plain.url)
        client.capabilities("jobs")
        plain.raw = raw

        try:
            found: type[object] = type(client.send("jobs", [Message(body=b"x")])[0].error)
        except QueueError as exc:
            found = type(exc)
        client.close()
        gc.collect()  # what is left to it warns here, not in whichever test comes next

        assert found is errors.OutcomeUnknown

    def test_in_chunks_is_read(self, plain: Served) -> None:
        client = made(plain.url)
        client.capabilities("jobs")
        plain.raw = OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(ANSWER), ANSWER)

        [outcome] = client.send("jobs", [Message(body=b"x")])
        client.close()

        assert outcome.ok

    def test_of_a_gateway_says_when_to_come_again(self, plain: Served) -> None:
        client = made(plain.url)
        client.capabilities("jobs")
        plain.raw = b"HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n"

        with pytest.raises(errors.OutcomeUnknown) as caught:
            client.send("jobs", [Message(body=b"x")])
        client.close()

        assert caught.value.retry_after == 2.0

    @given(
        raw=st.one_of(
            st.binary(max_size=40),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(
                        st.sampled_from(["Successful", "Failed", "Id", "__type", "message", "Code"]),
                        inner,
                        max_size=3,
                    )
                ),
                max_leaves=6,
            ).map(_json),
        ),
        status=st.sampled_from([200, 204, 301, 400, 403, 404, 413, 429, 500, 503]),
    )
    @settings(max_examples=150, deadline=None)
    @example(raw=b'{"Successful": [null]}', status=200)
    @example(raw=b'{"Failed": [{}, null]}', status=200)
    @example(raw=b'{"Successful": [{"Id": []}]}', status=200)
    @example(raw=b"[]", status=200)
    @example(raw=b"\x80", status=200)
    def test_of_any_kind_is_an_outcome_or_an_error_of_ours(self, raw: bytes, status: int) -> None:
        edge = Edge()
        edge.queue("jobs")
        client = provider_at(edge, FakeClock())
        client.capabilities("jobs")
        for operation in ("SendMessageBatch", "ReceiveMessage"):
            edge.returns(operation, raw, status=status)

        for call in (
            lambda: client.send("jobs", [Message(body=b"x")]),
            lambda: client.receive("jobs", 1, 0),
        ):
            with suppress(QueueError):
                call()


class TestThrottling:
    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({}, None),
            ({"retry-after": "3"}, 3.0),
            ({"retry-after": " 0 "}, 0.0),
            ({"retry-after": "soon"}, None),
            ({"retry-after": "-1"}, None),
            ({"retry-after": "1.5"}, None),
            ({"retry-after": "9" * 400}, None),
            ({"x-amz-retry-after": "1500", "retry-after": "9"}, 1.5),
            ({"x-amz-retry-after": "x", "retry-after": "9"}, 9.0),
            (
                {
                    "retry-after": "Wed, 21 Oct 2026 07:28:07 GMT",
                    "date": "Wed, 21 Oct 2026 07:28:00 GMT",
                },
                7.0,
            ),
            (
                {
                    "retry-after": "Wed, 21 Oct 2026 07:27:00 GMT",
                    "date": "Wed, 21 Oct 2026 07:28:00 GMT",
                },
                0.0,
            ),
            ({"retry-after": "Wed, 21 Oct 2026 07:28:07 GMT"}, None),
            (
                {"retry-after": "Wed, 21 Oct 2026 07:28:07 -0000", "date": "Wed, 21 Oct 2026 07:28:00 GMT"},
                None,
            ),
        ],
    )
    def test_says_when_to_come_again(self, headers: dict[str, str], seconds: float | None) -> None:
        exc = boto.ClientError(
            {
                "Error": {"Code": "RequestThrottled", "Message": "slower"},
                "ResponseMetadata": {"HTTPStatusCode": 429, "HTTPHeaders": headers},  # type: ignore[typeddict-item]
            },
            "SendMessageBatch",
        )

        error = translate(exc, operation="SendMessageBatch", queue="jobs", changes=True)

        assert type(error) is errors.Throttled
        assert error.retry_after == seconds
        assert retry_after(headers) == seconds

    def test_of_the_service_that_gives_credentials_is_passing(self) -> None:
        for code, status in (("Throttling", 400), ("InternalFailure", 500)):
            exc = boto.ClientError(
                {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
                "AssumeRole",
            )

            error = translate(exc, operation="SendMessageBatch", queue="jobs", changes=True)

            assert type(error) is errors.ConnectionFailed
            assert "AssumeRole" in str(error)


def failure(client: AwsSqsClient) -> QueueError:
    with pytest.raises(QueueError) as caught:
        client.capabilities("jobs")
    client.close()
    return caught.value


def test_a_credential_with_a_line_break_is_named_as_a_setting_and_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "short-but-secret\n")
    with endpoint() as plain:
        error = failure(made(plain.url))

    assert type(error) is errors.ConfigurationError
    assert "line break" in str(error)
    assert "short-but-secret" not in "".join(traceback.format_exception(error))


def test_an_answer_that_is_refused_by_a_value_error_is_still_one_that_was_sent_for() -> None:
    class NotChunked(ValueError):
        """As urllib3's ResponseNotChunked."""

    exc = boto.ConnectionClosedError(endpoint_url="u", error=NotChunked("x"))

    error = translate(exc, operation="SendMessageBatch", queue="jobs", changes=True)

    assert type(error) is errors.OutcomeUnknown


def test_a_name_that_is_not_found_is_not_reached() -> None:
    error = failure(made("http://no-such-host.invalid:1"))

    assert type(error) is errors.ConnectionFailed
    assert "no-such-host.invalid" in str(error)


def test_a_role_whose_credentials_have_ended_is_an_authentication_failure() -> None:
    edge = Edge()
    edge.queue("jobs")
    client = provider_at(edge, FakeClock())
    client.capabilities("jobs")
    edge.fails(
        "SendMessageBatch",
        RuntimeError("Credentials were refreshed, but the refreshed credentials are still expired."),
    )

    with pytest.raises(errors.AuthenticationFailed, match="still expired"):
        client.send("jobs", [Message(body=b"x")])


def test_what_led_to_an_error_is_shown_without_its_secrets() -> None:
    token, url = "FwoGZXIvYXdzE" + "abc/" * 20, "http://user:hunter2@h"
    try:
        try:
            raise ValueError(f"header {token}")
        except ValueError as exc:
            raise boto.ConnectionClosedError(endpoint_url=url) from exc
    except boto.ConnectionClosedError as exc:
        error = translate(exc, operation="SendMessageBatch", queue="jobs", changes=True)

    said = "".join(traceback.format_exception(error))
    assert "ConnectionClosedError" in said
    assert token not in said
    assert "hunter2" not in said


def test_a_settlement_through_a_broken_connection_is_unknown() -> None:
    edge = Edge()
    edge.queue("jobs")
    client = provider_at(edge, FakeClock())
    edge.answers("ReceiveMessage", {"Messages": [stored(Message(body=b"x"))]})
    [delivery] = client.receive("jobs", 1, 0)
    edge.fails("DeleteMessageBatch", boto.ConnectionClosedError(endpoint_url="u", error="reset"))

    with pytest.raises(errors.OutcomeUnknown):
        client.settle("jobs", [Complete(delivery)])
