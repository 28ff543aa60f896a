"""Every exception of the library, and `Outcome`, the answer for one entry of a batch.

Providers translate their SDK's errors into these once, at their edge, and keep the original as
``__cause__``. `QueueError.retryable` says whether asking again may help; the portable layer retries
by that and by nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Generic, TypeVar

T = TypeVar("T")


class QueueError(Exception):
    """The root of all errors raised here.

    `queue`, `operation` and `provider` say where it happened; they are None where that is not known.
    `retry_after` is the seconds to wait before the next try, as the broker, a gateway before it, or an open
    breaker says; None where nobody does.
    """

    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str = "",
        *,
        queue: str | None = None,
        operation: str | None = None,
        provider: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.queue = queue
        self.operation = operation
        self.provider = provider
        self.retry_after = retry_after

    def locate(self, *, queue: str | None, operation: str, provider: str) -> None:
        """Fill in where it happened, keeping what is already known."""
        self.queue = self.queue or queue
        self.operation = self.operation or operation
        self.provider = self.provider or provider


class ConfigurationError(QueueError):
    """A setting is missing, unknown, contradictory or out of range; the text names it."""


class ProviderNotFound(ConfigurationError):
    """No installed provider has this name or URL scheme."""


class MissingExtra(ConfigurationError):
    """The provider is known, its SDK is not installed; the text names the extra."""


class UnsupportedOperation(QueueError):
    """The queue cannot do this; the text says what to use instead."""


class InvalidArgument(QueueError, ValueError):
    """An argument of a call is of the wrong kind or out of its range; the text names it. Nothing was done."""


class InvalidMessage(QueueError):
    """The message cannot be sent as it is. Nothing was sent."""


class MessageTooLarge(InvalidMessage):
    """The message, as it would travel, is larger than the queue takes. Both numbers are bytes."""

    def __init__(
        self,
        message: str = "",
        *,
        actual: int = 0,
        limit: int = 0,
        queue: str | None = None,
        operation: str | None = None,
        provider: str | None = None,
    ) -> None:
        super().__init__(message, queue=queue, operation=operation, provider=provider)
        self.actual = actual
        self.limit = limit


class InvalidName(InvalidMessage):
    """A queue name, session id, message id or attribute name has a form that no provider takes."""


class DecodeError(InvalidMessage):
    """A body is not what the receiver asked for; the text names the field."""


class ProviderError(QueueError):
    """The broker refused. The plain class means: for a reason the provider's table does not know."""


class QueueNotFound(ProviderError):
    """The broker has no such queue, or hides it from these credentials."""


class AuthenticationFailed(ProviderError):
    """The broker does not accept who we say we are, or no credentials were found."""


class AuthorizationFailed(ProviderError):
    """The broker knows who we are and does not let us do this."""


class Throttled(ProviderError):
    """The broker asks for fewer requests."""

    retryable = True


class ConnectionFailed(ProviderError):
    """The broker could not be reached, or went away before the request left."""

    retryable = True


class OperationTimeout(ProviderError):
    """The broker did not answer in time, to a question that changes nothing."""

    retryable = True


class SettlementError(QueueError):
    """A message was not settled as asked."""


class InvalidReceipt(SettlementError):
    """The receipt no longer stands for a hold: settled otherwise, received again, or never valid."""


class LeaseLost(SettlementError):
    """The lease ended before the call; the message is, or soon will be, somebody else's."""


class SessionLeaseLost(LeaseLost):
    """The session is no longer held here; nothing more of it may be settled."""


class OutcomeUnknown(SettlementError):
    """The request left and no answer came: it may have happened or not.

    Asking again is safe: settling is idempotent, and a send keeps its deduplication id. (On a queue
    without deduplication a repeated send may be stored twice.)
    """

    retryable = True


class SessionNotAvailable(QueueError):
    """The session asked for is held by another. (That no session comes is no error.)"""


class CircuitOpen(QueueError):
    """The breaker refuses calls to this queue until `retry_at`, `retry_after` seconds from now."""

    def __init__(
        self,
        message: str = "",
        *,
        retry_at: datetime | None = None,
        queue: str | None = None,
        operation: str | None = None,
        provider: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(
            message, queue=queue, operation=operation, provider=provider, retry_after=retry_after
        )
        self.retry_at = retry_at


class NotAttempted(QueueError):
    """A message was not sent: an earlier one of its session and batch failed, and order comes first; or its
    time ran out before there was room for it.

    If the earlier one failed for a passing reason, sending both again, in their order, may help.
    """


class Closed(QueueError):
    """The client, session or worker was closed."""


# Without slots: with them Outcome[str](...) does not run on Python 3.11.
@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What became of one entry of a batch: its `value`, and an error if it failed.

    In the outcomes that users see the value is the message's id, of those that failed too.
    """

    value: T | None = None
    error: QueueError | None = None

    @property
    def ok(self) -> bool:
        return self.error is None


class BatchFailed(QueueError):
    """Some entries of a batch failed. `outcomes` is aligned with the input, one for each entry."""

    def __init__(
        self,
        message: str = "",
        outcomes: Sequence[Outcome[str]] = (),
        *,
        queue: str | None = None,
        operation: str | None = None,
        provider: str | None = None,
    ) -> None:
        super().__init__(message, queue=queue, operation=operation, provider=provider)
        self.outcomes = tuple(outcomes)

    @staticmethod
    def raise_for(what: str, outcomes: Sequence[Outcome[str]], *, queue: str | None, operation: str) -> None:
        """Raise if one of *outcomes* is a failure; *what* begins the text."""
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        if errors:
            raise BatchFailed(
                f"{what}: {len(errors)} of {len(outcomes)} messages failed, the first with: {errors[0]}",
                outcomes,
                queue=errors[0].queue or queue,
                operation=operation,
                provider=errors[0].provider,
            ) from errors[0]
