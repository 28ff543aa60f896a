"""What SQS, the SDK and the network say, and which of our errors it becomes."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

import boto3.session
import pytest
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from queue_runtime import errors
from queue_runtime.errors import QueueError
from queue_runtime.message import Message
from queue_runtime.provider import Complete
from queue_runtime.providers.sqs.client import AwsSqsClient
from queue_runtime.providers.sqs.options import SqsOptions
from queue_runtime.testing import FakeClock
from tests.providers.sqs_edge import KEY_ID, Edge, failing, provider_at, stored

THROTTLES = [
    "RequestThrottled",
    "AWS.SimpleQueueService.RequestThrottled",
    "ThrottlingException",
    "Throttling",
    "ThrottledException",
    "OverLimit",
    "AWS.SimpleQueueService.OverLimit",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "SlowDown",
    "AWS.SimpleQueueService.KmsThrottled",
    "KMS.ThrottlingException",
]

CODES = [
    ("AWS.SimpleQueueService.NonExistentQueue", errors.QueueNotFound),
    ("QueueDoesNotExist", errors.QueueNotFound),
    ("InvalidClientTokenId", errors.AuthenticationFailed),
    ("UnrecognizedClientException", errors.AuthenticationFailed),
    ("SignatureDoesNotMatch", errors.AuthenticationFailed),
    ("ExpiredToken", errors.AuthenticationFailed),
    ("AWS.SimpleQueueService.InvalidSecurity", errors.AuthenticationFailed),
    ("AccessDenied", errors.AuthorizationFailed),
    ("AccessDeniedException", errors.AuthorizationFailed),
    ("KmsAccessDenied", errors.AuthorizationFailed),
    ("AWS.SimpleQueueService.UnsupportedOperation", errors.UnsupportedOperation),
    ("AWS.SimpleQueueService.BatchRequestTooLong", errors.MessageTooLarge),
    ("InvalidSomethingNew", errors.ProviderError),
]

RECEIPT = "AQEB" + "receipt/+" * 12
BAD_RECEIPT = f"Value {RECEIPT} for parameter ReceiptHandle is invalid. Reason: "
NOT_AVAILABLE = "Message does not exist or is not available for visibility timeout change."
TOO_LONG = (
    "Value 43200 for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout for the message "
    "is beyond the limit [43200 seconds]."
)


@pytest.fixture
def edge() -> Edge:
    edge = Edge()
    edge.queue("jobs")
    return edge


@pytest.fixture
def provider(edge: Edge) -> AwsSqsClient:
    provider = provider_at(edge, FakeClock())
    provider.capabilities("jobs")
    return provider


def send_error(provider: AwsSqsClient) -> QueueError:
    with pytest.raises(QueueError) as caught:
        provider.send("jobs", [Message(body=b"x")])
    return caught.value


def receive_error(provider: AwsSqsClient) -> QueueError:
    with pytest.raises(QueueError) as caught:
        provider.receive("jobs", 1, 0)
    return caught.value


def everything_said(error: QueueError) -> str:
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize("code", THROTTLES)
def test_every_spelling_of_a_throttle_is_retryable(edge: Edge, provider: AwsSqsClient, code: str) -> None:
    edge.refuses("SendMessageBatch", code)

    error = send_error(provider)

    assert type(error) is errors.Throttled
    assert error.retryable


@pytest.mark.parametrize("code", THROTTLES)
def test_an_entry_may_be_throttled_alone(edge: Edge, provider: AwsSqsClient, code: str) -> None:
    edge.does("SendMessageBatch", failing({1: (code, "slower")}))

    outcomes = provider.send("jobs", [Message(body=b"x"), Message(body=b"y")])

    assert outcomes[0].ok
    assert type(outcomes[1].error) is errors.Throttled


@pytest.mark.parametrize(("code", "kind"), CODES)
def test_a_code_means_one_error_and_keeps_its_cause(
    edge: Edge, provider: AwsSqsClient, code: str, kind: type[QueueError]
) -> None:
    edge.refuses("SendMessageBatch", code)

    error = send_error(provider)

    assert type(error) is kind
    assert not error.retryable
    assert error.provider == "sqs"
    assert isinstance(error.__cause__, boto.ClientError)


def test_a_refused_permission_names_what_to_allow(edge: Edge, provider: AwsSqsClient) -> None:
    edge.refuses("SendMessageBatch", "AccessDenied", "User: arn:aws:iam::1:user/x is not authorized")

    error = send_error(provider)

    assert "sqs:SendMessage " in str(error)
    assert "'jobs'" in str(error)
    assert "user/x is not authorized" in str(error)


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        ("ReceiptHandleIsInvalid", f'The receipt handle "{RECEIPT}" is not valid', errors.InvalidReceipt),
        ("AWS.SimpleQueueService.ReceiptHandleIsInvalid", "It is invalid.", errors.InvalidReceipt),
        ("AWS.SimpleQueueService.MessageNotInflight", "not in flight", errors.LeaseLost),
        ("InvalidParameterValue", BAD_RECEIPT + "The receipt handle has expired.", errors.LeaseLost),
        ("InvalidParameterValue", BAD_RECEIPT + NOT_AVAILABLE, errors.LeaseLost),
        ("InvalidParameterValue", BAD_RECEIPT + "Some other reason.", errors.InvalidReceipt),
        ("InvalidParameterValue", TOO_LONG, errors.LeaseLost),
        ("InvalidParameterValue", "Value x for parameter y is invalid.", errors.ProviderError),
    ],
)
def test_a_stale_receipt_is_told_from_a_lost_lease(
    edge: Edge, provider: AwsSqsClient, code: str, text: str, kind: type[QueueError]
) -> None:
    edge.answers("ReceiveMessage", {"Messages": [stored(Message(body=b"x"), receipt=RECEIPT)]})
    [delivery] = provider.receive("jobs", 1, 0)
    edge.does("DeleteMessageBatch", failing({0: (code, text)}))

    [outcome] = provider.settle("jobs", [Complete(delivery)])

    assert type(outcome.error) is kind
    assert outcome.error is not None
    assert RECEIPT not in everything_said(outcome.error)


def test_a_short_receipt_is_not_repeated_either(edge: Edge, provider: AwsSqsClient) -> None:
    edge.answers("ReceiveMessage", {"Messages": [stored(Message(body=b"x"), receipt="r-42")]})
    [delivery] = provider.receive("jobs", 1, 0)
    edge.does("DeleteMessageBatch", failing({0: ("ReceiptHandleIsInvalid", "r-42 is not valid")}))

    [outcome] = provider.settle("jobs", [Complete(delivery)])

    assert "… is not valid" in str(outcome.error)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("raw", [b"", b"<html>oops</html>", b'{"message": "oops"}', b"oops"])
def test_a_failing_service_leaves_a_send_unknown_and_a_receive_to_be_repeated(
    edge: Edge, provider: AwsSqsClient, status: int, raw: bytes
) -> None:
    edge.returns("SendMessageBatch", raw, status=status)
    edge.returns("ReceiveMessage", raw, status=status)

    sent, received = send_error(provider), receive_error(provider)

    assert type(sent) is errors.OutcomeUnknown
    assert type(received) is errors.ConnectionFailed
    assert received.retryable


def test_a_proxys_refusal_is_not_tried_again(edge: Edge, provider: AwsSqsClient) -> None:
    edge.returns("SendMessageBatch", b"<html>no such thing</html>", status=404)

    error = send_error(provider)

    assert type(error) is errors.ProviderError


@pytest.mark.parametrize("code", ["InternalError", "InternalFailure", "ServiceUnavailable"])
def test_a_failure_inside_the_service_is_retryable_for_its_entry(
    edge: Edge, provider: AwsSqsClient, code: str
) -> None:
    edge.does("SendMessageBatch", failing({0: (code, "oops")}))

    [outcome] = provider.send("jobs", [Message(body=b"x")])

    assert type(outcome.error) is errors.OutcomeUnknown


def test_an_unknown_code_is_retryable_only_where_sqs_takes_the_blame(
    edge: Edge, provider: AwsSqsClient
) -> None:
    edge.does("SendMessageBatch", failing({0: ("Novelty", "oops")}, mine=False))
    edge.does("SendMessageBatch", failing({0: ("Novelty", "oops")}, mine=True))

    [theirs] = provider.send("jobs", [Message(body=b"x")])
    [ours] = provider.send("jobs", [Message(body=b"x")])

    assert type(theirs.error) is errors.OutcomeUnknown
    assert type(ours.error) is errors.ProviderError


URL = "https://sqs.eu-west-1.amazonaws.com/"


@pytest.mark.parametrize(
    ("failure", "sent", "received"),
    [
        (
            boto.EndpointConnectionError(endpoint_url=URL, error="refused"),
            errors.ConnectionFailed,
            errors.ConnectionFailed,
        ),
        (
            boto.ConnectTimeoutError(endpoint_url=URL, error="slow"),
            errors.ConnectionFailed,
            errors.ConnectionFailed,
        ),
        (
            boto.ProxyConnectionError(proxy_url="http://proxy", error="no"),
            errors.ConnectionFailed,
            errors.ConnectionFailed,
        ),
        (
            boto.SSLError(endpoint_url=URL, error=OSError("certificate verify failed: self-signed")),
            errors.ConnectionFailed,
            errors.ConnectionFailed,
        ),
        (
            boto.SSLError(endpoint_url=URL, error=OSError("EOF occurred in violation of protocol")),
            errors.OutcomeUnknown,
            errors.ConnectionFailed,
        ),
        (
            boto.ReadTimeoutError(endpoint_url=URL, error="slow"),
            errors.OutcomeUnknown,
            errors.OperationTimeout,
        ),
        (
            boto.ConnectionClosedError(endpoint_url=URL, error="reset"),
            errors.OutcomeUnknown,
            errors.ConnectionFailed,
        ),
        (boto.HTTPClientError(error="odd"), errors.OutcomeUnknown, errors.ConnectionFailed),
        (
            boto.ResponseStreamingError(error="cut"),
            errors.OutcomeUnknown,
            errors.ConnectionFailed,
        ),
        (ResponseParserError("garbage"), errors.OutcomeUnknown, errors.ConnectionFailed),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_may_have_happened_is_unknown_and_what_cannot_have_is_not(
    edge: Edge,
    provider: AwsSqsClient,
    failure: Exception,
    sent: type[QueueError],
    received: type[QueueError],
) -> None:
    edge.fails("SendMessageBatch", failure)
    edge.fails("ReceiveMessage", failure)

    send, receive = send_error(provider), receive_error(provider)

    assert type(send) is sent
    assert type(receive) is received
    assert send.retryable
    assert receive.retryable
    assert send.__cause__ is failure


@pytest.mark.parametrize(
    "failure",
    [
        boto.NoCredentialsError(),
        boto.PartialCredentialsError(provider="env", cred_var="secret"),
        boto.CredentialRetrievalError(provider="sso", error_msg="expired"),
        boto.TokenRetrievalError(provider="sso", error_msg="expired"),
        boto.UnauthorizedSSOTokenError(),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_missing_credentials_say_where_to_put_some(
    edge: Edge, provider: AwsSqsClient, failure: Exception
) -> None:
    edge.fails("SendMessageBatch", failure)

    error = send_error(provider)

    assert type(error) is errors.AuthenticationFailed
    assert "environment, profile or role" in str(error)


def test_a_role_that_may_not_be_assumed_is_an_authentication_failure(
    edge: Edge, provider: AwsSqsClient
) -> None:
    refused = boto.ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "AssumeRole")
    edge.fails("SendMessageBatch", refused)

    error = send_error(provider)

    assert type(error) is errors.AuthenticationFailed
    assert "AssumeRole" in str(error)


def test_no_error_repeats_the_request_that_a_service_quotes(
    edge: Edge, provider: AwsSqsClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    token = "IQoJb3JpZ2luX2VjE" + "Zm9v" * 30
    signature = "Signature=5d6f"
    edge.refuses(
        "SendMessageBatch",
        "SignatureDoesNotMatch",
        f"The Canonical String should be 'POST\nx-amz-security-token:{token}' for {KEY_ID}, {signature}",
        status=403,
    )
    edge.refuses("ReceiveMessage", "AccessDenied", f"token {token} of {KEY_ID} may not", status=403)

    said = everything_said(send_error(provider)) + everything_said(receive_error(provider)) + caplog.text

    assert token not in said
    assert signature not in said
    assert KEY_ID not in said
    assert "never-shown" not in said


def test_credentials_that_come_later_are_found_without_a_restart(
    edge: Edge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    session = boto3.session.Session(region_name="eu-west-1")
    edge.listen_to(session)
    provider = AwsSqsClient(SqsOptions(region="eu-west-1"), FakeClock(), session=session)
    with pytest.raises(errors.AuthenticationFailed):
        provider.describe("jobs")

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    assert provider.describe("jobs").name == "jobs"
