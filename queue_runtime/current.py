"""Which message is in the handler's hands, for whoever is not handed it: helpers far below, log records."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from queue_runtime.message import ReceivedMessage

_current: ContextVar[ReceivedMessage | None] = ContextVar("queue_runtime.current_message", default=None)


def current_message() -> ReceivedMessage | None:
    """The message that a worker's handler is called with, on this thread; None outside of a handler.

    It is set while the handler and its hooks run. A coroutine that the handler runs (``asyncio.run``) sees
    it; a thread that the handler starts does not, unless it is given a copy of the context, one for each
    task: ``pool.submit(contextvars.copy_context().run, work, item)``. Such a copy keeps the message also
    when the handler has returned and its lease may have ended: ask ``message.lease``.
    """
    return _current.get()


@contextmanager
def handling(message: ReceivedMessage) -> Iterator[None]:
    """Inside the block *message* is the current one; afterwards the one before is. For the library's use."""
    token = _current.set(message)
    try:
        yield
    finally:
        _current.reset(token)


class MessageLogFilter(logging.Filter):
    """Adds to each log record which message it is about: `queue`, `message_id`, `session_id` and
    `correlation_id`, as text, and `attempt`, a whole number.

    A record of one of the library's events that is about a message tells of that one, any other record of the
    message in the handler. Where there is none, the texts are ``-`` and `attempt` is 0, so that no format
    string fails, ``%(attempt)d`` and ``{session_id:<20}`` included. What a record has already, from
    ``extra=``, it keeps. No body, attribute or receipt is ever added. It lets every record through.

    Give it to handlers, not to loggers: a logger's filter does not see the records of loggers below it.
    """

    def __init__(self) -> None:
        super().__init__()

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in _facts_of(record).items():
            if name not in record.__dict__:
                setattr(record, name, value)
        return True


def _facts_of(record: logging.LogRecord) -> dict[str, str | int]:
    current = _facts(_current.get())
    ours = record.name == "queue_runtime" and "event" in record.__dict__
    event = {name: value for name, value in record.__dict__.items() if ours and name.startswith("event_")}
    told = {name: value for name in _NOTHING if (value := event.get(f"event_{name}")) is not None}
    if "message_id" in told:
        if "event_attempts" in event:
            told["attempt"] = event["event_attempts"] or 0
        same = current["message_id"] == told["message_id"]
        return {**(current if same else _NOTHING), **told}
    if _current.get() is not None:
        return current
    told.pop("attempt", None)  # of a call to the broker
    return {**_NOTHING, **told}


_NOTHING: Mapping[str, str | int] = {
    "queue": "-",
    "message_id": "-",
    "session_id": "-",
    "correlation_id": "-",
    "attempt": 0,
}


def _facts(message: ReceivedMessage | None) -> dict[str, str | int]:
    if message is None:
        return dict(_NOTHING)
    return {
        "queue": message.queue,
        "message_id": message.id,
        "session_id": message.session_id or "-",
        "correlation_id": message.correlation_id or "-",
        "attempt": message.attempt,
    }
