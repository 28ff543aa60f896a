"""What each error of SQS, of its SDK and of the network means: the provider's one table."""

from __future__ import annotations

from typing import Literal

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
    # The status stands for the code where something before SQS has answered: a proxy, a gateway.
    "401": AuthenticationFailed,
    "403": AuthorizationFailed,
    "407": AuthenticationFailed,
    "413": MessageTooLarge,
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
        "408",
    }
)
"""The service failed, and may have done what was asked of it."""


Failure = Literal["credentials", "settings", "unreached", "proxy", "tls", "timeout", "broken", "odd"]
"""What has happened where there is no answer of SQS:

- `credentials`: the SDK has none, or could not get them; nothing left.
- `settings`: something is set so that no request can be made of it.
- `unreached`: there is no connection, so nothing left.
- `proxy`: the same, to or through a proxy.
- `tls`: TLS failed; whether the request had left stands in its text.
- `timeout`: the request left, and the answer did not come in time.
- `broken`: the request may have left, and then the connection broke, or the answer was not one.
- `odd`: the SDK says something that no call of ours should bring about.
"""

# Every exception of botocore.exceptions that a call of ours can end with, by its name: some are newer than
# the oldest SDK that this package takes. A class that is not here is what its nearest base here is.
#
# botocore lets nothing of urllib3 through. It makes of urllib3's errors `SSLError`, `EndpointConnectionError`
# (of NewConnectionError, NameResolutionError), `ProxyConnectionError`, `ConnectTimeoutError`,
# `ReadTimeoutError`, `ConnectionClosedError` (of ProtocolError: with IncompleteRead, InvalidChunkLength …),
# and of the rest a plain `HTTPClientError`: "broken", but for the ValueErrors among them, see `errors`.
FAILURES: dict[str, Failure] = {
    "BotoCoreError": "odd",
    # who we are
    "NoCredentialsError": "credentials",
    "PartialCredentialsError": "credentials",
    "CredentialRetrievalError": "credentials",
    "UnknownCredentialError": "credentials",
    "NoAuthTokenError": "credentials",
    "TokenRetrievalError": "credentials",
    "UnknownTokenProviderError": "credentials",
    "RefreshWithMFAUnsupportedError": "credentials",
    "MetadataRetrievalError": "credentials",
    "SSOError": "credentials",
    "LoginError": "credentials",
    # what is set
    "BaseEndpointResolverError": "settings",
    "EndpointProviderError": "settings",
    "InvalidEndpointConfigurationError": "settings",
    "InvalidHostLabelError": "settings",
    "ServiceNotInRegionError": "settings",
    "UnknownRegionError": "settings",
    "InvalidRegionError": "settings",
    "ProfileNotFound": "settings",
    "ConfigParseError": "settings",
    "ConfigNotFound": "settings",
    "InvalidConfigError": "settings",
    "InvalidDefaultsMode": "settings",
    "InvalidRetryConfigurationError": "settings",
    "InvalidProxiesConfigError": "settings",
    "InvalidIMDSEndpointError": "settings",
    "InvalidIMDSEndpointModeError": "settings",
    "InvalidSTSRegionalEndpointsConfigError": "settings",
    "InvalidChecksumConfigError": "settings",
    "UnknownSignatureVersionError": "settings",
    "UnsupportedSignatureVersionError": "settings",
    "UnsupportedServiceProtocolsError": "settings",
    "MissingDependencyException": "settings",
    "DataNotFoundError": "settings",
    "ApiVersionNotFoundError": "settings",
    # the way there and back
    "ConnectionError": "broken",
    "EndpointConnectionError": "unreached",
    "ConnectTimeoutError": "unreached",
    "ProxyConnectionError": "proxy",
    "SSLError": "tls",
    "HTTPClientError": "broken",
    "ReadTimeoutError": "timeout",
    "ConnectionClosedError": "broken",
    "ResponseStreamingError": "broken",
    "IncompleteReadError": "broken",
    "ChecksumError": "broken",
    "FlexibleChecksumError": "broken",
    "ResponseParserError": "broken",
    # not botocore's own: it stumbles over an answer that is none of SQS
    "ValueError": "broken",
    "TypeError": "broken",
    "AttributeError": "broken",
    "LookupError": "broken",
}


def failure_of(exc: BaseException) -> Failure:
    """What *exc*, raised by the SDK, tells, by its class or the nearest base that `FAILURES` knows."""
    names = (kind.__name__ for kind in type(exc).__mro__)
    return next((FAILURES[name] for name in names if name in FAILURES), "odd")


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
