"""Hooks: who is told what, in which order, and that none of them changes what happens."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from queue_runtime.errors import ConfigurationError, DecodeError
from queue_runtime.lease import Lease
from queue_runtime.message import Delivery, Message, ReceivedMessage
from queue_runtime.testing import FakeClock
from queue_runtime.worker.handling import Reject, Retry, entry_point
from queue_runtime.worker.hooks import Hooks
from tests.worker.hands import Job


def a_message(message: Message | None = None, *, attempt: int = 1) -> ReceivedMessage:
    """In hand, of the queue ``events``."""
    delivery = Delivery(
        message=message or Message(body=b"{}", id="m-1"),
        receipt="a-receipt",
        broker_id="b",
        delivery_count=attempt,
        sequence=1,
        enqueued_at=None,
        leased_until=30.0,
        lease=30.0,
    )
    lease = Lease(FakeClock(), until=30.0, length=30.0, what="m-1")
    return ReceivedMessage(delivery, queue="events", lease=lease, owner=None, attempt=attempt)


class Notes(Hooks):
    """Writes into *book* what it is told."""

    def __init__(self, name: str, book: list[str]) -> None:
        self.name = name
        self.book = book

    def before(self, message: ReceivedMessage) -> None:
        self.book.append(f"{self.name} before {message.id}")

    def after(self, message: ReceivedMessage) -> None:
        self.book.append(f"{self.name} after {message.id}")

    def failed(self, message: ReceivedMessage, error: BaseException) -> None:
        self.book.append(f"{self.name} failed {message.id} {type(error).__name__}")


class Broken(Hooks):
    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def before(self, message: ReceivedMessage) -> None:
        raise self.error("in before")

    def after(self, message: ReceivedMessage) -> None:
        raise self.error("in after")

    def failed(self, message: ReceivedMessage, error: BaseException) -> None:
        raise self.error("in failed")


class AsyncHooks(Hooks):
    async def before(self, message: ReceivedMessage) -> None: ...  # type: ignore[override]


class Forgetful(Hooks):
    def failed(self, message: ReceivedMessage) -> None: ...  # type: ignore[override]


class OnlyBefore:
    def before(self, message: ReceivedMessage) -> None: ...


class Lookalike:
    """No child of `Hooks`, with all that one has."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def before(self, message: ReceivedMessage) -> None:
        self.told.append("before")

    def after(self, message: ReceivedMessage) -> None:
        self.told.append("after")

    def failed(self, message: ReceivedMessage, error: BaseException) -> None:
        self.told.append("failed")


@pytest.fixture
def book() -> list[str]:
    return []


@pytest.fixture
def two(book: list[str]) -> list[Hooks]:
    return [Notes("outer", book), Notes("inner", book)]


def raising(error: BaseException) -> Callable[[ReceivedMessage], None]:
    def handler(message: ReceivedMessage) -> None:
        raise error

    return handler


class TestWhatIsTold:
    def test_before_in_the_order_given_and_after_in_reverse(self, two: list[Hooks], book: list[str]) -> None:
        entry_point(lambda message: book.append("handler"), None, two)(a_message())

        assert book == [
            "outer before m-1",
            "inner before m-1",
            "handler",
            "inner after m-1",
            "outer after m-1",
        ]

    @pytest.mark.parametrize("error", [ValueError("x"), Retry(2.0), Reject("Spam"), SystemExit(1)])
    def test_failed_in_reverse_whatever_the_handler_raised_and_it_is_raised_on(
        self, two: list[Hooks], book: list[str], error: BaseException
    ) -> None:
        with pytest.raises(type(error)) as raised:
            entry_point(raising(error), None, two)(a_message())

        assert raised.value is error
        kind = type(error).__name__
        assert book[2:] == [f"inner failed m-1 {kind}", f"outer failed m-1 {kind}"]

    def test_a_payload_that_does_not_fit_is_a_failure_too(self, two: list[Hooks], book: list[str]) -> None:
        with pytest.raises(DecodeError, match="number"):
            entry_point(lambda job, message: book.append("handler"), Job, two)(a_message())

        assert book == [
            "outer before m-1",
            "inner before m-1",
            "inner failed m-1 DecodeError",
            "outer failed m-1 DecodeError",
        ]

    def test_and_so_is_a_body_that_the_codec_could_not_read(self, two: list[Hooks], book: list[str]) -> None:
        message = a_message()
        message.delivery = replace(message.delivery, problem="not base64")

        with pytest.raises(DecodeError):
            entry_point(lambda message: book.append("handler"), None, two)(message)

        assert book[2:] == ["inner failed m-1 DecodeError", "outer failed m-1 DecodeError"]

    def test_the_base_class_takes_it_all_and_does_nothing(self) -> None:
        entry_point(lambda message: None, None, [Hooks()])(a_message())
        with pytest.raises(Retry):
            entry_point(raising(Retry()), None, [Hooks()])(a_message())

    def test_an_object_with_the_same_methods_is_taken(self) -> None:
        hook: Any = Lookalike()

        entry_point(lambda message: None, None, (hook,))(a_message())

        assert hook.told == ["before", "after"]


class TestIsolation:
    @pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
    def test_what_a_hook_raises_changes_nothing_for_the_message_or_other_hooks(
        self, book: list[str], error: type[BaseException], caplog: pytest.LogCaptureFixture
    ) -> None:
        hooks = [Notes("outer", book), Broken(error), Notes("inner", book)]

        entry_point(lambda message: book.append("handler"), None, hooks)(a_message())

        assert book == [
            "outer before m-1",
            "inner before m-1",
            "handler",
            "inner after m-1",
            "outer after m-1",
        ]
        told = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert [record.getMessage().split(";")[0] for record in told] == [
            "hook Broken.before failed",
            "hook Broken.after failed",
        ]
        assert all(record.exc_info and record.exc_info[0] is error for record in told)

    def test_the_error_of_the_handler_stays_the_one_that_is_raised(
        self, book: list[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        hooks = [Notes("outer", book), Broken(ValueError)]

        with pytest.raises(Retry):
            entry_point(raising(Retry(1.0)), None, hooks)(a_message())

        assert book == ["outer before m-1", "outer failed m-1 Retry"]
        assert "hook Broken.failed failed" in caplog.text

    def test_a_hook_that_returns_a_coroutine_is_told_of_in_the_log(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def work() -> None: ...

        hook = Hooks()
        hook.before = lambda message: work()  # type: ignore[assignment,method-assign]

        entry_point(lambda message: None, None, [hook])(a_message())

        assert "Hooks.before returned something to await" in caplog.text


@pytest.mark.parametrize(
    ("hooks", "told"),
    [
        ([Notes], "the class Notes; give an instance"),
        ([OnlyBefore()], "OnlyBefore object.*no method after"),
        ([lambda message: None], "no method before"),
        ([AsyncHooks()], "AsyncHooks.before is a coroutine function"),
        ([Forgetful()], r"Forgetful.failed.*cannot be called with \(message, error\)"),
        (Hooks(), "must be a tuple or list"),
        ("before", "must be a tuple or list"),
        ([None], "None, which has no method before"),
    ],
)
def test_what_is_no_hook_is_refused_before_the_first_message(hooks: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        entry_point(lambda message: None, None, hooks)
