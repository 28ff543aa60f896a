"""What happened, as frozen records, and the `Listener` that hears of it.

Logging and telemetry listen; nothing in the library depends on who does. A listener is called on the
thread where the thing happened, never under a lock, and must be quick; what it raises is logged and
goes no further.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime

log = logging.getLogger("queue_runtime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to `queue`, by its name in the program."""

    queue: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderCalled(Event):
    """One call to the provider ended: one request to the broker, as a rule. A batch beyond what a request
    takes is several, a dead letter is a copy and a removal, the first look at a queue asks for its name."""

    operation: str
    messages: int
    """Entries sent, settled or renewed; messages received; sessions accepted."""
    seconds: float
    error: str | None
    """The class of the error that ended it, or with which all its entries failed; None if it was answered."""
    refused: bool = False
    """The broker will not do it, now or later: there is no such queue, or it does not let us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryScheduled(Event):
    """A call to the broker failed and will be made again."""

    operation: str
    attempt: int
    delay: float
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitOpened(Event):
    """The breaker refuses calls until `retry_at`."""

    operation: str
    retry_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitClosed(Event):
    """A probe went well; calls go through again."""

    operation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LostLease(Event):
    """A message, or a session, is no longer held although nobody had let it go."""

    message_id: str | None
    session_id: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerFailed(Event):
    """A handler raised; `delay` is the wait before its next attempt, None if there is none."""

    message_id: str
    session_id: str | None
    attempt: int
    error: str
    """The class of what it raised."""
    text: str
    delay: float | None
    counted: bool = True
    """It was an attempt; if not, what the handler needs was down."""
    exception: BaseException | None = field(repr=False, compare=False)
    """What it raised; its traceback is in the log if it was an attempt. None for what asks: `Retry` and
    `Reject`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageCompleted(Event):
    """A handler returned and the broker has removed the message."""

    message_id: str
    session_id: str | None
    attempt: int
    seconds: float
    """From the handler's start to the broker's answer."""
    repeated: bool = False
    """Its handler had returned before, and only the broker had not agreed; it was not handled again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageDeadLettered(Event):
    """A message went to the dead-letter queue."""

    message_id: str
    session_id: str | None
    reason: str
    attempts: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageDropped(Event):
    """A message that could never be handled was completed, as `on_exhausted` of its policy says. It is
    gone."""

    message_id: str
    session_id: str | None
    reason: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageBlocked(Event):
    """A message that could never be handled stays in its queue, as `on_exhausted` of its policy says, and is
    tried again after `delay` seconds. What is behind it in its session waits."""

    message_id: str
    session_id: str | None
    reason: str
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerOverran(Event):
    """A handler has run for longer than its `time_limit` and is still at it. Its lease is lost."""

    message_id: str
    session_id: str | None
    attempt: int
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessingPaused(Event):
    """Handlers keep failing: the worker fetches no more, and tries one message until it goes well."""

    text: str
    """How the last of them failed."""
    retry_at: datetime
    """When that one is tried first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessingResumed(Event):
    """A message went well: the worker fetches again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageExpired(Event):
    """A message had outlived its time-to-live when it came, and was taken out before anybody was handed it.

    Only where the broker does not see to that itself (`Capabilities.native_expiry`).
    """

    message_id: str
    session_id: str | None
    dead_lettered: bool
    """It is in the dead-letter queue; else it was dropped, as the settings say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementFailed(Event):
    """A message could not be settled and is given up here; it will be delivered again."""

    message_id: str
    session_id: str | None
    error: str
    """The class of the error."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchFailed(Event):
    """A worker could not fetch; it tries again after `delay` seconds."""

    error: str
    """The class of the error."""
    text: str
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerWarned(Event):
    """A worker found that its queue or its settings are not as they should be: mostly at its start."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStopped(Event):
    """A worker has stopped: why, and how that went. The counts are those of its `StopReport`."""

    reason: str
    text: str
    """The reason in words: the signal, or for how long the broker has answered nothing."""
    completed: int
    dead_lettered: int
    dropped: int
    finished: int
    released: int
    overdue: int
    unknown: int
    threads_left: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionUnmarked(Event):
    """A worker handles a session without its crash mark: a message of it that ends the process now is not
    found out by that."""

    session_id: str
    reason: str


Listener = Callable[[Event], object]

_LEVELS: dict[type[Event], int] = {
    ProviderCalled: logging.DEBUG,
    MessageCompleted: logging.DEBUG,
    CircuitClosed: logging.INFO,
    RetryScheduled: logging.INFO,
    SessionUnmarked: logging.INFO,
    ProcessingResumed: logging.INFO,
    WorkerStopped: logging.INFO,
    MessageExpired: logging.INFO,
    HandlerFailed: logging.WARNING,
    HandlerOverran: logging.WARNING,
    ProcessingPaused: logging.WARNING,
    FetchFailed: logging.WARNING,
    WorkerWarned: logging.WARNING,
    CircuitOpened: logging.WARNING,
    LostLease: logging.WARNING,
    SettlementFailed: logging.ERROR,
    MessageDeadLettered: logging.ERROR,
    MessageDropped: logging.ERROR,
    MessageBlocked: logging.ERROR,
}


def log_event(event: Event) -> None:
    """The listener that every client has: one log line on ``queue_runtime``, the fields as ``extra``.

    Levels: DEBUG for what goes well and for single requests, INFO and WARNING for what is being dealt with
    and for what the broker refuses, ERROR for what somebody should look at.
    """
    level = _level(event)
    if log.isEnabledFor(level):
        facts = {item.name: getattr(event, item.name) for item in fields(event) if item.repr}
        log.log(
            level,
            "%s %s",
            type(event).__name__,
            " ".join(f"{name}={_shown(value)}" for name, value in facts.items()),
            exc_info=event.exception if isinstance(event, HandlerFailed) and event.counted else None,
            extra={"event": type(event).__name__, **{f"event_{name}": v for name, v in facts.items()}},
        )


def _shown(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return repr(round(value, 3) if isinstance(value, float) else value)


def _level(event: Event) -> int:
    if isinstance(event, ProviderCalled) and event.refused:
        return logging.WARNING
    if isinstance(event, WorkerStopped):
        if event.reason == "provider lost":
            return logging.ERROR
        if event.overdue or event.unknown:
            return logging.WARNING
    return _LEVELS.get(type(event), logging.INFO)


class Events:
    """Tells every listener; one that raises disturbs neither the others nor the work."""

    def __init__(self, listeners: Sequence[Listener] = ()) -> None:
        self._listeners = (log_event, *listeners)

    def __call__(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except (Exception, SystemExit):  # a listener is a guest: the message being handled must live on
                log.exception("listener %r failed on %s", listener, type(event).__name__)
