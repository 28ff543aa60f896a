"""The SDK's errors as ours, by a table."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.servicebus import exceptions as sdk
from azure.servicebus._pyamqp.error import TokenAuthFailure, TokenExpired

from queue_runtime.errors import (
    AuthenticationFailed,
    AuthorizationFailed,
    ConnectionFailed,
    InvalidReceipt,
    LeaseLost,
    MessageTooLarge,
    OperationTimeout,
    OutcomeUnknown,
    ProviderError,
    QueueError,
    QueueNotFound,
    SessionLeaseLost,
    SessionNotAvailable,
    Throttled,
    UnsupportedOperation,
)

PROVIDER = "servicebus"

SDK_ERRORS = (
    AzureError,
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    struct.error,
)
"""What the SDK raises. Besides its own errors: `AttributeError` of a handler that was closed under the call,
`ValueError` of one that was shut down before, and whatever comes of a frame that it does not expect."""

_Kind = tuple[type[QueueError], str]
"""Our class, and what there is to do, where that is not plain from its name."""

_KEYS = (
    "check the connection string or the credential, that it has not expired, and the clock of this machine"
)
_RIGHTS = (
    "give these credentials Listen and Send, or the roles Azure Service Bus Data Receiver and "
    "Azure Service Bus Data Sender"
)
_MISSING = "check the name and the namespace, and that these credentials may see it"
_NOT_REACHED = (
    "check the namespace, and that AMQP is let through (port 5671, or that of the emulator or the endpoint), "
    "or use transport=websocket"
)
_FULL = "receive from it, or give the queue more room or the namespace more connections"
_DISABLED = "enable it again (its status is Disabled, SendDisabled or ReceiveDisabled)"
_SMALLER = "send less in one message, or keep the body elsewhere and send where it is"

_TABLE: tuple[tuple[type[Exception], _Kind], ...] = (
    (sdk.MessageLockLostError, (LeaseLost, "")),
    (sdk.SessionLockLostError, (SessionLeaseLost, "")),
    (sdk.SessionCannotBeLockedError, (SessionNotAvailable, "another holds it; try later")),
    (sdk.MessageAlreadySettled, (InvalidReceipt, "")),
    (sdk.MessageNotFoundError, (InvalidReceipt, "")),
    (sdk.MessageSizeExceededError, (MessageTooLarge, _SMALLER)),
    (sdk.MessagingEntityNotFoundError, (QueueNotFound, _MISSING)),
    (sdk.MessagingEntityDisabledError, (ProviderError, _DISABLED)),
    (sdk.ServiceBusQuotaExceededError, (ProviderError, _FULL)),
    (sdk.ServiceBusServerBusyError, (Throttled, "")),
    (sdk.ServiceBusAuthorizationError, (AuthorizationFailed, _RIGHTS)),
    (sdk.ServiceBusAuthenticationError, (AuthenticationFailed, _KEYS)),
    (ClientAuthenticationError, (AuthenticationFailed, _KEYS)),
    (sdk.OperationTimeoutError, (OperationTimeout, "")),
    (sdk.ServiceBusConnectionError, (ConnectionFailed, "")),
    (sdk.ServiceBusCommunicationError, (ConnectionFailed, _NOT_REACHED)),
    (TimeoutError, (OperationTimeout, "")),
    (OSError, (ConnectionFailed, _NOT_REACHED)),
)

_CONDITIONS: dict[str, _Kind] = {
    "amqp:not-allowed": (UnsupportedOperation, ""),
    # The service's own trouble: asking again may help.
    # https://learn.microsoft.com/azure/service-bus-messaging/service-bus-amqp-troubleshoot
    "amqp:internal-error": (OperationTimeout, ""),
    "com.microsoft:operation-cancelled": (OperationTimeout, ""),
}

_STATUSES: dict[int, _Kind] = {
    401: (AuthenticationFailed, _KEYS),
    403: (AuthorizationFailed, _RIGHTS),
    404: (QueueNotFound, _MISSING),  # an unknown queue fails already when its token is checked
}

_OWN = "amqp:client-error", "amqp:socket-error", "amqp:unknown-error", "amqp:link:detach-forced"
"""Conditions that the SDK makes up where the service has said nothing."""

_STUMBLES = (
    sdk.ServiceBusError,
    ValueError,
    AttributeError,
    IndexError,
    KeyError,
    OverflowError,
    RuntimeError,
    struct.error,
)

_NOT_BEGUN = "Failed to initiate the connection"

_BYTES = re.compile(r"""\bb(?P<quote>['"])(?P<text>.*?)(?P=quote)""")
"""How the SDK puts what it was sent into its own texts."""

_SECRET = re.compile(r"(?i)\b(sig|SharedAccessKey|SharedAccessSignature|password|token)=[^\s&;,'\"]+")


# "... is being throttled. Error code : 50009. Please wait 2 seconds and try again."
# https://learn.microsoft.com/azure/service-bus-messaging/service-bus-throttling
_WAIT = re.compile(r"(?i)\bwait\s+(?:for\s+)?([0-9]{1,9}(?:\.[0-9]+)?)\s+seconds?\b")


def translate(exc: Exception, *, changes: bool, queue: str | None = None) -> QueueError:
    """Our error for *exc*, with it as the cause, unless that would show a secret.

    *changes*: the request may have left, and may have changed something. Then a timeout, or a connection
    that broke, is `OutcomeUnknown`. A service that is throttling says how long to wait: `retry_after`.
    """
    kind, advice = _kind(exc)
    if changes and kind in (OperationTimeout, ConnectionFailed):
        kind = OutcomeUnknown
    said = _said(exc)
    text = _SECRET.sub(r"\1=***", said)
    where = f"queue {queue!r}: " if queue is not None else ""
    error = kind(f"{where}{text}{f' ({advice})' if advice else ''}", queue=queue, provider=PROVIDER)
    error.__cause__ = exc if text == said else None
    wait = _WAIT.search(said)
    error.retry_after = float(wait[1]) if wait is not None and isinstance(error, Throttled) else None
    return error


def is_answered(exc: BaseException | None) -> bool:
    """True if the service has said so; the SDK also gives up, and refuses, by itself."""
    return _condition(exc) not in (None, *_OWN)


def is_definite(exc: BaseException | None) -> bool:
    """True if a settlement was refused before anything else could have come of it.

    Not so where the SDK has repeated it on the management link, after the first try broke off: that is
    refused if the first try had arrived. Nor where the SDK finds by itself that a message's lock has ended:
    this machine's clock may have been put ahead. Of a session it is right: it knows of its link.
    """
    if not is_answered(exc):
        return isinstance(exc, sdk.SessionLockLostError)
    return getattr(exc, "_status_code", None) is None


def _kind(exc: Exception) -> _Kind:
    refused = _refused_token(exc)
    if refused is not None and refused.status_code in _STATUSES:
        return _STATUSES[refused.status_code]
    if any(isinstance(inner, TokenExpired) for inner in _inner(exc)):
        return ConnectionFailed, ""  # it was idle for long; a new connection gets a new token
    if isinstance(exc, sdk.ServiceBusConnectionError) and _NOT_BEGUN in str(exc):
        return ConnectionFailed, _NOT_REACHED
    found = next((ours for theirs, ours in _TABLE if isinstance(exc, theirs)), None)
    if found is not None:
        return found
    if not is_answered(exc) and type(exc) in _STUMBLES:
        return ConnectionFailed, ""  # the SDK stumbled, over a connection or a handler that is gone
    return _CONDITIONS.get(_condition(exc) or "", (ProviderError, ""))


def _said(exc: Exception) -> str:
    refused = _refused_token(exc)
    if refused is None:
        return _BYTES.sub(r"\g<text>", str(exc)) or type(exc).__name__
    # The SDK tells no more of it than that there was an error.
    text = refused.status_description
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else _BYTES.sub(r"\g<text>", f"{text}")
    return f"the service refused the token with status {refused.status_code}: {text}"


def _refused_token(exc: Exception) -> TokenAuthFailure | None:
    return next((inner for inner in _inner(exc) if isinstance(inner, TokenAuthFailure)), None)


def _condition(exc: BaseException | None) -> str | None:
    for inner in _inner(exc):
        condition = getattr(inner, "_condition", None) or getattr(inner, "condition", None)
        if condition is not None:
            found = getattr(condition, "value", condition)
            return found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
    return None


def _inner(exc: BaseException | None) -> Iterator[BaseException]:
    seen = 0
    while exc is not None and seen < 8:
        yield exc
        exc = getattr(exc, "inner_exception", None) or exc.__cause__
        seen += 1
