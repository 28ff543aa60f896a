"""Translates what SQS, its SDK and the network say into the library's errors, by one table."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from queue_runtime.errors import (
    AuthenticationFailed,
    AuthorizationFailed,
    ConfigurationError,
    ConnectionFailed,
    OperationTimeout,
    OutcomeUnknown,
    ProviderError,
    QueueError,
    QueueNotFound,
)
from queue_runtime.providers.sqs.table import BROKEN, kind_of, plain

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import BatchResultErrorEntryTypeDef

PROVIDER = "sqs"

SDK_ERRORS = (boto.BotoCoreError, boto.ClientError, ResponseParserError)
"""Everything that a call of the SDK raises by design."""

_NOT_SENT = (boto.EndpointConnectionError, boto.ConnectTimeoutError, boto.ProxyConnectionError)

_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.NoAuthTokenError,
    boto.TokenRetrievalError,
    boto.SSOError,
    boto.MetadataRetrievalError,
    boto.RefreshWithMFAUnsupportedError,
    boto.UnknownCredentialError,
)

_SETTINGS = (
    boto.NoRegionError,
    boto.InvalidRegionError,
    boto.ProfileNotFound,
    boto.ConfigParseError,
    boto.ConfigNotFound,
    boto.InvalidConfigError,
    boto.EndpointProviderError,
    boto.InvalidProxiesConfigError,
    boto.UnknownSignatureVersionError,
    boto.MissingDependencyException,
)

_CREDENTIALS_PAGE = "https://docs.aws.amazon.com/boto3/latest/guide/credentials.html"

# Receipts, session tokens, signatures and keys as services quote them: long base64, and key ids.
_SECRET = re.compile(r"[A-Za-z0-9+/=]{40,}|\b(?:AKIA|ASIA)[A-Z0-9]{12,}")


def translate(exc: Exception, *, operation: str, queue: str | None, changes: bool) -> QueueError:
    """Return the library's error for *exc*, which is one of `SDK_ERRORS`, with it as the cause.

    *changes* says that the call would have changed something, so that a missing answer leaves the outcome
    unknown. Secrets that the service quoted are struck out of *exc* as well: its text is printed with ours.
    """
    if isinstance(exc, boto.ClientError):
        error = _refused(exc, operation, queue, changes)
    else:
        error = _failed(exc, f"{operation}{_of(queue)}", changes)
    error.provider = PROVIDER
    error.__cause__ = exc
    return error


def entry_error(
    failed: BatchResultErrorEntryTypeDef, *, operation: str, queue: str, receipt: str | None = None
) -> QueueError:
    """Return the error for one refused entry of a batch.

    A code that the table does not know is retryable if SQS says that the fault is its own.
    """
    code = plain(failed.get("Code", ""))
    text = failed.get("Message", "")
    if receipt:
        text = text.replace(receipt, "…")
    text = _clean(text)
    kind = kind_of(code, text)
    if kind is None:
        kind = OutcomeUnknown if code in BROKEN or failed.get("SenderFault") is False else ProviderError
    return kind(_sentence(operation, queue, code, text, kind), provider=PROVIDER)


def not_answered(operation: str, queue: str) -> QueueError:
    """The error for an entry that SQS left out of its answer."""
    return OutcomeUnknown(
        f"{operation}{_of(queue)}: SQS answered the request and left this entry out of the answer",
        provider=PROVIDER,
    )


def not_tried(error: QueueError) -> QueueError:
    """The error for entries that stayed behind when the request before theirs failed with *error*."""
    if not isinstance(error, OutcomeUnknown | OperationTimeout):
        return error
    behind = ConnectionFailed("not sent: the request before it was not answered", provider=PROVIDER)
    behind.__cause__ = error
    return behind


def _refused(exc: boto.ClientError, operation: str, queue: str | None, changes: bool) -> QueueError:
    details = exc.response.get("Error", {})
    code = plain(str(details.get("Code", "")))
    text = _clean(str(details.get("Message", "")))
    if exc.operation_name != operation:
        # Another service refused: the SDK was fetching credentials (a role, a token) to sign the call with.
        _strike_out(exc, "(withheld)")
        return AuthenticationFailed(
            f"{operation}{_of(queue)}: no credentials, {exc.operation_name} was refused ({code}); "
            f"check the profile or role: {_CREDENTIALS_PAGE}"
        )
    kind = kind_of(code, text)
    if kind is AuthenticationFailed:
        # These may quote the whole request, its token and signature with it.
        text = "(withheld: it may quote the request)"
    _strike_out(exc, text)
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if kind is None and (code in BROKEN or status >= 500):
        kind = OutcomeUnknown if changes else ConnectionFailed
    kind = kind or ProviderError
    return kind(_sentence(operation, queue, code, text, kind))


def _failed(exc: Exception, where: str, changes: bool) -> QueueError:
    """No answer, or no call: what the SDK and the network raise."""
    text = _clean(str(exc))
    if isinstance(exc, _CREDENTIALS):
        return AuthenticationFailed(
            f"{where}: {type(exc).__name__}: boto3 found no usable credentials; give it some by environment, "
            f"profile or role: {_CREDENTIALS_PAGE}"
        )
    if isinstance(exc, _SETTINGS):
        return ConfigurationError(f"{where}: {text}")
    if isinstance(exc, _NOT_SENT) or "certificate verify failed" in text.lower():
        return ConnectionFailed(f"{where}: SQS could not be reached: {text}")
    if isinstance(exc, boto.ReadTimeoutError):
        if changes:
            return OutcomeUnknown(f"{where}: the request left and was not answered in time: {text}")
        return OperationTimeout(f"{where}: not answered in time: {text}")
    if isinstance(
        exc, boto.HTTPClientError | boto.ConnectionError | boto.IncompleteReadError | ResponseParserError
    ):
        if changes:
            return OutcomeUnknown(f"{where}: the connection broke before an answer came: {text}")
        return ConnectionFailed(f"{where}: the connection broke before an answer came: {text}")
    return ProviderError(f"{where}: {type(exc).__name__}: {text}")


def _sentence(operation: str, queue: str | None, code: str, text: str, kind: type[QueueError]) -> str:
    return f"{operation}{_of(queue)}: {text or 'refused'} ({code}){_way_out(kind, operation)}"


def _way_out(kind: type[QueueError], operation: str) -> str:
    if kind is AuthenticationFailed:
        return (
            "; check the credentials that boto3 finds, the region, and this machine's clock: "
            + _CREDENTIALS_PAGE
        )
    if kind is AuthorizationFailed:
        return f"; allow sqs:{operation.removesuffix('Batch')} on this queue (and its KMS key, if it has one)"
    if kind is QueueNotFound:
        return (
            "; check the name, the region and the account: a queue of another account is named by URL or ARN"
        )
    return ""


def _of(queue: str | None) -> str:
    return "" if queue is None else f" on {queue!r}"


def _clean(text: str) -> str:
    return _SECRET.sub("…", text)


def _strike_out(exc: boto.ClientError, text: str) -> None:
    exc.response.get("Error", {})["Message"] = text
    code = exc.response.get("Error", {}).get("Code", "")
    exc.args = (f"({code}) when calling {exc.operation_name}: {text}",)
