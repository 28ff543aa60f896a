"""What each error code of SQS means, in every spelling that is met: the provider's one table of errors."""

from __future__ import annotations

from queue_runtime.errors import (
    AuthenticationFailed,
    AuthorizationFailed,
    InvalidMessage,
    InvalidReceipt,
    LeaseLost,
    MessageTooLarge,
    QueueError,
    QueueNotFound,
    Throttled,
    UnsupportedOperation,
)

_PREFIXES = ("AWS.SimpleQueueService.", "com.amazonaws.sqs#")

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html, the errors of each
# action there, and the spellings met in answers: one meaning has up to four of them.
ERRORS: dict[str, type[QueueError]] = {
    "NonExistentQueue": QueueNotFound,
    "QueueDoesNotExist": QueueNotFound,
    "InvalidAddress": QueueNotFound,
    "RequestThrottled": Throttled,
    "RequestThrottledException": Throttled,
    "RequestLimitExceeded": Throttled,
    "Throttling": Throttled,
    "ThrottlingException": Throttled,
    "ThrottledException": Throttled,
    "TooManyRequestsException": Throttled,
    "SlowDown": Throttled,
    "OverLimit": Throttled,
    "KmsThrottled": Throttled,
    "KMS.ThrottlingException": Throttled,
    "429": Throttled,
    "InvalidClientTokenId": AuthenticationFailed,
    "UnrecognizedClientException": AuthenticationFailed,
    "InvalidAccessKeyId": AuthenticationFailed,
    "MissingAuthenticationToken": AuthenticationFailed,
    "MissingAuthenticationTokenException": AuthenticationFailed,
    "SignatureDoesNotMatch": AuthenticationFailed,
    "InvalidSignatureException": AuthenticationFailed,
    "IncompleteSignature": AuthenticationFailed,
    "IncompleteSignatureException": AuthenticationFailed,
    "ExpiredToken": AuthenticationFailed,
    "ExpiredTokenException": AuthenticationFailed,
    "RequestExpired": AuthenticationFailed,
    "RequestTimeTooSkewed": AuthenticationFailed,
    "AuthFailure": AuthenticationFailed,
    "InvalidSecurity": AuthenticationFailed,
    "OptInRequired": AuthenticationFailed,
    "AccessDenied": AuthorizationFailed,
    "AccessDeniedException": AuthorizationFailed,
    "NotAuthorized": AuthorizationFailed,
    "UnauthorizedOperation": AuthorizationFailed,
    "KmsAccessDenied": AuthorizationFailed,
    "KMS.AccessDeniedException": AuthorizationFailed,
    "ReceiptHandleIsInvalid": InvalidReceipt,
    "MessageNotInflight": LeaseLost,
    "InvalidMessageContents": InvalidMessage,
    "BatchRequestTooLong": MessageTooLarge,
    "UnsupportedOperation": UnsupportedOperation,
}

_BAD_VALUE = frozenset({"InvalidParameterValue", "InvalidParameterValueException", "ValidationError"})

# SQS has one code for every bad value; what it means stands in the sentence. First match wins.
_REASONS: tuple[tuple[str, type[QueueError]], ...] = (
    ("handle has expired", LeaseLost),
    ("not available for visibility timeout change", LeaseLost),
    ("total visibilitytimeout for the message is beyond the limit", LeaseLost),
    ("parameter receipthandle is invalid", InvalidReceipt),
    ("must be shorter than", MessageTooLarge),
)

BROKEN = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "InternalServiceError",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "Unavailable",
        "RequestTimeout",
        "RequestTimeoutException",
    }
)
"""The service failed, and may have done what was asked of it."""


def plain(code: str) -> str:
    """Return *code* without the prefixes that some answers have."""
    for prefix in _PREFIXES:
        code = code.removeprefix(prefix)
    return code


def kind_of(code: str, text: str) -> type[QueueError] | None:
    """Return the error that a plain *code* with the sentence *text* means; None if it is not here."""
    if code in _BAD_VALUE:
        sentence = text.lower()
        return next((kind for part, kind in _REASONS if part in sentence), None)
    return ERRORS.get(code)
