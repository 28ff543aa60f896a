"""Sends copies back to the queue: in order, at a pace, a small number at a time."""

from __future__ import annotations

from collections.abc import Sequence

from queue_runtime.errors import (
    AuthenticationFailed,
    AuthorizationFailed,
    CircuitOpen,
    Closed,
    InvalidArgument,
    NotAttempted,
    Outcome,
    QueueError,
    QueueNotFound,
)
from queue_runtime.message import Message
from queue_runtime.retry import check_number
from queue_runtime.runtime import Runtime
from queue_runtime.sending import send_back

CHUNK = 100
"""Copies that are sent before the dead letters that they are of are removed: so many can be there twice if
the process ends between the two."""

_HOPELESS = (AuthenticationFailed, AuthorizationFailed, QueueNotFound, CircuitOpen, Closed)


def ends_all(error: QueueError | None) -> bool:
    """True if *error* would meet the next messages too; one that is of its message alone keeps no others."""
    return error is not None and (error.retryable or isinstance(error, _HOPELESS))


def check_rate(rate: float | None) -> None:
    """Raise `InvalidArgument` unless *rate* is None or messages per second."""
    if rate is not None:
        check_number("rate", rate, least=0, above=True, unit="messages a second", raises=InvalidArgument)


class Carrier:
    """For one thread, and one run. A session of which a copy could not be sent gets no further in it."""

    def __init__(self, runtime: Runtime, queue: str, *, rate: float | None) -> None:
        self._runtime = runtime
        self._queue = queue
        self._rate = rate
        self._ordered = runtime.capabilities(runtime.target(queue)).sessions != "none"
        self._blocked: set[str] = set()
        self._next_at = runtime.clock.monotonic()

    @property
    def chunk(self) -> int:
        """How many to give to `send`: at a pace a tenth of a second's worth, one at least."""
        return CHUNK if self._rate is None else max(1, min(CHUNK, int(self._rate / 10)))

    def block(self, session_id: str | None) -> None:
        """Send nothing more of a session: an earlier message of it stays behind."""
        if session_id is not None and self._ordered:
            self._blocked.add(session_id)

    def send(self, copies: Sequence[Message]) -> list[Outcome[str]]:
        """Send *copies* when it is time; an outcome for each. Raises `Closed` if the client closes before."""
        free = [i for i, copy in enumerate(copies) if copy.session_id not in self._blocked]
        outcomes = [Outcome(copy.id, self._behind(copy)) for copy in copies]
        if free:
            self._wait(len(free))
            answers = send_back(self._runtime, self._queue, [copies[i] for i in free])
            for i, answer in zip(free, answers, strict=True):
                outcomes[i] = answer
        for copy, outcome in zip(copies, outcomes, strict=True):
            if not outcome.ok:
                self.block(copy.session_id)
        return outcomes

    def _wait(self, count: int) -> None:
        """Until *count* may go. What was late is not made up for: that would be a burst."""
        if self._rate is None:
            return
        now = self._runtime.clock.monotonic()
        if self._next_at > now and not self._runtime.pause(self._next_at - now):
            raise Closed("the client is closed", queue=self._queue)
        self._next_at = max(self._next_at, now) + count / self._rate

    def _behind(self, copy: Message) -> NotAttempted:
        return NotAttempted(
            f"message {copy.id!r} was not sent: an earlier one of session {copy.session_id!r} stays behind, "
            "and order comes first",
            queue=self._queue,
        )
