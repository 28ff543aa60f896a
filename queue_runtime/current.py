"""Which message is in the handler's hands, for whoever is not handed it: helpers far below, log records."""

from __future__ import annotations

import logging
from collections.abc import Iterator
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

    Outside of a handler, and where the message has none, the texts are ``-`` and `attempt` is 0, so that no
    format string fails, ``%(attempt)d`` and ``{session_id:<20}`` included. What a record has already, from
    ``extra=``, it keeps. No body, attribute or receipt is ever added. It lets every record through.

    Give it to handlers, not to loggers: a logger's filter does not see the records of loggers below it.
    """

    def __init__(self) -> None:
        super().__init__()

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in _facts(_current.get()).items():
            if name not in record.__dict__:
                setattr(record, name, value)
        return True


def _facts(message: ReceivedMessage | None) -> dict[str, str | int]:
    if message is None:
        return {"queue": "-", "message_id": "-", "session_id": "-", "correlation_id": "-", "attempt": 0}
    return {
        "queue": message.queue,
        "message_id": message.id,
        "session_id": message.session_id or "-",
        "correlation_id": message.correlation_id or "-",
        "attempt": message.attempt,
    }
