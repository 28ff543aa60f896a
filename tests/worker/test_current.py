"""The message in the handler's hands, for code that is not handed it, and for log records."""

from __future__ import annotations

import asyncio
import contextvars
import io
import logging
import logging.config
import logging.handlers
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from queue_runtime import Message, QueueClient, Worker
from queue_runtime.current import MessageLogFilter, current_message, handling
from queue_runtime.events import Event, HandlerFailed, MessageDeadLettered, RetryScheduled, log_event
from queue_runtime.message import ReceivedMessage
from queue_runtime.worker.handling import Reject, entry_point
from queue_runtime.worker.hooks import Hooks
from tests.worker.hands import ANY_QUEUE
from tests.worker.test_hooks import a_message


class Watches(Hooks):
    def __init__(self) -> None:
        self.seen: list[ReceivedMessage | None] = []

    def before(self, message: ReceivedMessage) -> None:
        self.seen.append(current_message())

    def after(self, message: ReceivedMessage) -> None:
        self.seen.append(current_message())

    def failed(self, message: ReceivedMessage, error: BaseException) -> None:
        self.seen.append(current_message())


class TestCurrentMessage:
    def test_it_is_set_while_handler_and_hooks_run_and_not_afterwards(self) -> None:
        watches = Watches()
        message = a_message()

        entry_point(lambda message: watches.seen.append(current_message()), None, [watches])(message)

        assert watches.seen == [message, message, message]
        assert current_message() is None

    def test_it_is_reset_after_a_failure_too(self) -> None:
        watches = Watches()
        message = a_message()

        def handler(message: ReceivedMessage) -> None:
            raise Reject("Spam")

        with pytest.raises(Reject):
            entry_point(handler, None, [watches])(message)

        assert watches.seen == [message, message]
        assert current_message() is None

    def test_a_handler_inside_another_gives_the_outer_one_back(self) -> None:
        outer, inner = a_message(), a_message(Message(body=b"", id="m-2"))

        with handling(outer):
            with handling(inner):
                assert current_message() is inner
            assert current_message() is outer

    def test_a_coroutine_that_the_handler_runs_sees_it(self) -> None:
        async def look() -> ReceivedMessage | None:
            return current_message()

        message = a_message()
        with handling(message):
            assert asyncio.run(look()) is message

    def test_another_thread_sees_it_only_in_a_copy_of_the_context(self) -> None:
        message = a_message()

        with handling(message), ThreadPoolExecutor(1) as pool:
            alone = pool.submit(current_message)
            copied = pool.submit(contextvars.copy_context().run, current_message)

        assert alone.result() is None
        assert copied.result() is message

    @ANY_QUEUE
    def test_handlers_at_the_same_time_see_each_their_own(self, client: QueueClient, queue: str) -> None:
        client.send_batch(queue, [Message.of("x", id=f"m-{n}", session_id=f"s{n}") for n in range(4)])
        together = threading.Barrier(4)
        seen: list[tuple[str, str | None]] = []

        def handler(message: ReceivedMessage) -> None:
            together.wait(5.0)
            now = current_message()
            seen.append((message.id, None if now is None else now.id))

        Worker(client, queue, handler, concurrency=4).run_until_idle()

        assert sorted(seen) == [(f"m-{n}", f"m-{n}") for n in range(4)]


@pytest.fixture
def lines() -> Iterator[Callable[[str, str], list[str]]]:
    """Configure a logger as programs do, with a format in a style; what it has written when called again."""
    logger = logging.getLogger("a_bot.work")
    written = io.StringIO()

    def configure(layout: str, style: str = "%") -> list[str]:
        logging.config.dictConfig(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "filters": {"message": {"()": "queue_runtime.current.MessageLogFilter"}},
                "formatters": {"line": {"format": layout, "style": style}},
                "handlers": {
                    "out": {
                        "class": "logging.StreamHandler",
                        "stream": written,
                        "formatter": "line",
                        "filters": ["message"],
                    }
                },
                "loggers": {"a_bot": {"handlers": ["out"], "level": "INFO", "propagate": False}},
            }
        )
        logger.info("alone")
        with handling(MESSAGE):
            logger.info("at work")
            logger.info("of another", extra={"queue": "mine"})
        return written.getvalue().splitlines()

    yield configure
    logging.getLogger("a_bot").handlers.clear()
    logging.getLogger("a_bot").propagate = True


MESSAGE = a_message(
    Message(body=b"a-secret-body", id="m-1", session_id="octo/repo#7", attributes={"token": "a-secret"}),
    attempt=3,
)


def facts_of(event: Event) -> tuple[object, ...]:
    """What the filter adds to the log record of *event*."""
    logger = logging.getLogger("queue_runtime")
    handler = logging.handlers.BufferingHandler(10)
    handler.addFilter(MessageLogFilter())
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        log_event(event)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    names = ("queue", "message_id", "session_id", "correlation_id", "attempt")
    return tuple(handler.buffer[0].__dict__[name] for name in names)


class TestMessageLogFilter:
    def test_every_record_says_which_message_it_is_about(self, lines: Callable[[str], list[str]]) -> None:
        written = lines("%(queue)s %(message_id)s %(session_id)s %(correlation_id)s %(attempt)d: %(message)s")

        assert written == [
            "- - - - 0: alone",
            "events m-1 octo/repo#7 - 3: at work",
            "mine m-1 octo/repo#7 - 3: of another",
        ]

    def test_no_format_string_fails_outside_of_a_handler(
        self, lines: Callable[[str, str], list[str]]
    ) -> None:
        written = lines("{queue:>8}|{correlation_id:<3}|{attempt:02d}|{message}", "{")

        assert written[:2] == ["       -|-  |00|alone", "  events|-  |03|at work"]

    def test_what_another_program_calls_so_is_no_event_of_the_librarys(self) -> None:
        record = logging.makeLogRecord(
            {"name": "app", "msg": "x", "event_message_id": "theirs", "event_attempts": "many"}
        )

        MessageLogFilter().filter(record)

        assert (record.message_id, record.attempt) == ("-", 0)  # type: ignore[attr-defined]

    def test_a_record_of_an_event_tells_of_the_events_message(self) -> None:
        failed = HandlerFailed(
            queue="events",
            message_id="m-2",
            session_id="octo/repo#8",
            attempt=2,
            error="ValueError",
            text="no such branch",
            delay=1.0,
            exception=None,
        )
        dead = MessageDeadLettered(
            queue="events", message_id="m-2", session_id=None, reason="MaxAttemptsExceeded", attempts=5
        )

        assert facts_of(failed) == ("events", "m-2", "octo/repo#8", "-", 2)
        assert facts_of(dead) == ("events", "m-2", "-", "-", 5)
        with handling(MESSAGE):  # of another handler
            assert facts_of(dead) == ("events", "m-2", "-", "-", 5)

    def test_a_record_of_an_event_without_a_message_tells_of_the_one_in_the_handler(self) -> None:
        retry = RetryScheduled(queue="jobs", operation="send", attempt=1, delay=0.5, error="Throttled")

        assert facts_of(retry) == ("jobs", "-", "-", "-", 0)
        with handling(MESSAGE):  # whose handler sends
            assert facts_of(retry) == ("events", "m-1", "octo/repo#7", "-", 3)

    def test_a_correlation_id_is_told(self) -> None:
        record = logging.makeLogRecord({"msg": "x"})

        with handling(a_message(Message(body=b"", correlation_id="order-9"))):
            assert MessageLogFilter().filter(record)

        assert record.__dict__["correlation_id"] == "order-9"

    def test_nothing_but_the_five_facts_is_added(self) -> None:
        record = logging.makeLogRecord({"msg": "x"})
        before = set(record.__dict__)

        with handling(MESSAGE):
            MessageLogFilter().filter(record)

        added = {name: value for name, value in record.__dict__.items() if name not in before}
        assert set(added) == {"queue", "message_id", "session_id", "correlation_id", "attempt"}
        assert "secret" not in str(added)
        assert "receipt" not in str(added)
