"""Translates what SQS, its SDK and the network say into the library's errors, by one table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
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
    Throttled,
)
from queue_runtime.providers.sqs.table import BROKEN, Failure, failure_of, kind_of, plain

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import BatchResultErrorEntryTypeDef

PROVIDER = "sqs"

SDK_ERRORS = (
    boto.BotoCoreError,
    boto.ClientError,
    ResponseParserError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    RuntimeError,
)
"""Everything that a call of the SDK raises: by design, and over an answer that is not one of SQS (JSON of
another shape, bytes that are no text). `RuntimeError` tells of credentials that had ended when they came."""

_CREDENTIALS_PAGE = "https://docs.aws.amazon.com/boto3/latest/guide/credentials.html"

_DIGITS = re.compile(r"[0-9]{1,9}")

# Receipts, session tokens, signatures and keys as services quote them: long base64, and key ids.
# And who we are to a proxy, in a URL that the SDK quotes.
_SECRET = re.compile(r"[A-Za-z0-9+/=]{40,}|\b(?:AKIA|ASIA)[A-Z0-9]{12,}|(?<=//)[^/\s\"']*(?=@)")

# What TLS says while it is set up: no request has left, or none was read.
_NOT_BEGUN = (
    "certificate verify failed",
    "hostname mismatch",
    "doesn't match",
    "wrong version number",
    "record layer failure",
    "handshake failure",
    "unsupported protocol",
    "no protocols available",
    "unknown ca",
    "bad certificate",
    "certificate required",
    "certificate expired",
    "certificate unknown",
)

# What the other side says of our certificate, or of its absence.
_OUR_CERTIFICATE = ("alert certificate", "alert unknown ca", "alert bad certificate")


def translate(exc: Exception, *, operation: str, queue: str | None, changes: bool) -> QueueError:
    """Return the library's error for *exc*, which is one of `SDK_ERRORS`, with it as the cause.

    *changes* says that the call would have changed something, so that a missing answer leaves the outcome
    unknown. Secrets that the service quoted are struck out of *exc* as well: its text is printed with ours.
    """
    if isinstance(exc, boto.ClientError):
        error = _refused(exc, operation, queue, changes)
        error.retry_after = retry_after(exc.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}))
    else:
        error = _failed(exc, f"{operation}{_of(queue)}", changes)
    error.provider = PROVIDER
    error.__cause__ = exc if not _cannot_be_sent(exc) and _cleaned(exc) else None
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


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks to wait before the next try; None if it does not, or not in a way that is
    understood. *headers* have lower-case names.

    AWS says it in milliseconds; gateways in seconds, or as the moment, which is compared with the answer's
    own clock. https://www.rfc-editor.org/rfc/rfc9110#name-retry-after
    """
    text = headers.get("x-amz-retry-after", "").strip()
    if _DIGITS.fullmatch(text):
        return float(text) / 1000
    text = headers.get("retry-after", "").strip()
    if _DIGITS.fullmatch(text):
        return float(text)
    try:
        moment, sent = (parsedate_to_datetime(said) for said in (text, headers.get("date", "")))
        return max(0.0, (moment - sent).total_seconds())
    except (ValueError, TypeError):  # no date; the one aware and the other not
        return None


def _refused(exc: boto.ClientError, operation: str, queue: str | None, changes: bool) -> QueueError:
    details = exc.response.get("Error", {})
    code = plain(str(details.get("Code", "")))
    text = _clean(str(details.get("Message", "")))
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if exc.operation_name != operation:
        # Another service refused: the SDK was fetching credentials (a role, a token) to sign the call with.
        _strike_out(exc, "(withheld)")
        if status >= 500 or kind_of(code, "") is Throttled:
            return ConnectionFailed(
                f"{operation}{_of(queue)}: not sent: {exc.operation_name} failed ({code})"
            )
        return AuthenticationFailed(
            f"{operation}{_of(queue)}: no credentials, {exc.operation_name} was refused ({code}); "
            f"check the profile or role: {_CREDENTIALS_PAGE}"
        )
    kind = kind_of(code, text)
    if kind is AuthenticationFailed:
        # These may quote the whole request, its token and signature with it.
        text = "(withheld: it may quote the request)"
    _strike_out(exc, text)
    if kind is None and (code in BROKEN or status >= 500):
        kind = OutcomeUnknown if changes else ConnectionFailed
    kind = kind or ProviderError
    return kind(_sentence(operation, queue, code, text, kind))


def _failed(exc: Exception, where: str, changes: bool) -> QueueError:
    """No answer, or no call: what the SDK and the network raise."""
    text = _clean(str(exc))
    match _failure(exc):
        case "credentials":
            return AuthenticationFailed(
                f"{where}: {type(exc).__name__}: boto3 found no usable credentials ({text}); give it some by "
                f"environment, profile or role: {_CREDENTIALS_PAGE}"
            )
        case "settings" if _cannot_be_sent(exc):
            # It may quote a whole URL or header, and what is wrong with it hides where a secret ends.
            return ConfigurationError(
                f"{where}: no request can be made ({type(_inner(exc)).__name__}): check the endpoint, the "
                "proxy that the environment names (HTTPS_PROXY, HTTP_PROXY: http://HOST:PORT), and that no "
                "credential ends with a line break"
            )
        case "settings":
            return ConfigurationError(f"{where}: {text}")
        case "unreached":
            return ConnectionFailed(f"{where}: SQS could not be reached: {text}{_because(exc)}")
        case "proxy":
            return _no_way_through(f"{where}: {text}{_because(exc)}", str(_inner(exc)))
        case "tls" if any(part in text.lower() for part in _NOT_BEGUN):
            return _no_tls(f"{where}: SQS could not be reached: {text}", text.lower())
        case "timeout":
            if changes:
                return OutcomeUnknown(f"{where}: the request left and was not answered in time: {text}")
            return OperationTimeout(f"{where}: not answered in time: {text}")
        case "broken" | "tls":
            kind = OutcomeUnknown if changes else ConnectionFailed
            return kind(f"{where}: the connection broke before an answer came: {text}")
        case "odd":
            return ProviderError(f"{where}: {type(exc).__name__}: {text}")


def _failure(exc: Exception) -> Failure:
    found = failure_of(exc)
    if isinstance(exc, RuntimeError) and "credentials" in str(exc).lower():
        return "credentials"
    return "settings" if found == "broken" and _cannot_be_sent(exc) else found


def _cannot_be_sent(exc: Exception) -> bool:
    """urllib3 and http.client refuse so what they cannot make a request of: a URL, a scheme, a header. (What
    they say of answers comes in a class below it.)"""
    return type(exc) is boto.HTTPClientError and isinstance(_inner(exc), ValueError)


def _no_way_through(text: str, said: str) -> QueueError:
    """What a proxy has *said*: http.client quotes its status, and nothing has left for SQS."""
    if "Tunnel connection failed: 407" in said:
        return AuthenticationFailed(
            f"{text}; the proxy wants a user and a password: see proxy_credentials_env, or HTTPS_PROXY"
        )
    if "Tunnel connection failed: 403" in said:
        return AuthorizationFailed(f"{text}; have the proxy let this machine through to SQS")
    return ConnectionFailed(text)


def _no_tls(text: str, said: str) -> QueueError:
    if any(part in said for part in _OUR_CERTIFICATE):
        return AuthenticationFailed(f"{text}; give a certificate that the endpoint trusts: client_cert")
    if "certificate" in said:
        return ConnectionFailed(
            f"{text}; name the authority that signs for this endpoint or proxy: ca_bundle"
        )
    return ConnectionFailed(text)


def _inner(exc: Exception) -> object:
    """What botocore was told, by the network or by urllib3; None if nothing."""
    return getattr(exc, "kwargs", {}).get("error")


def _because(exc: Exception) -> str:
    """What was told, where botocore leaves it out of its sentence."""
    inner = _inner(exc)
    return "" if inner is None else f" ({_clean(str(inner))})"


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


def _cleaned(exc: BaseException | None) -> bool:
    """Strike secrets out of *exc* and of all that led to it, which a traceback shows; False if that cannot be
    done: what led to a secret is cut off then."""
    if exc is None:
        return True
    if _clean(str(exc)) != str(exc):
        exc.args = (_clean(str(exc)),)
    if not (_cleaned(exc.__cause__) and _cleaned(exc.__context__)):
        exc.__cause__ = exc.__context__ = None
    return _clean(str(exc)) == str(exc)


def _strike_out(exc: boto.ClientError, text: str) -> None:
    exc.response.get("Error", {})["Message"] = text
    code = exc.response.get("Error", {}).get("Code", "")
    exc.args = (f"({code}) when calling {exc.operation_name}: {text}",)
