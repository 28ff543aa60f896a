"""What may be a handler: plain functions and what calls them, refused by name where nothing would be done."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import AsyncMock

import pytest

from queue_runtime.errors import ConfigurationError, DecodeError
from queue_runtime.message import Message, ReceivedMessage
from queue_runtime.worker.handling import entry_point
from tests.worker.hands import Job
from tests.worker.test_hooks import a_message


async def coroutine(message: ReceivedMessage) -> None: ...


async def async_generator(message: ReceivedMessage) -> AsyncIterator[int]:
    yield 1


def generator(message: ReceivedMessage) -> Iterator[int]:
    yield 1


class AsyncCallable:
    async def __call__(self, message: ReceivedMessage) -> None: ...


class Bot:
    def __init__(self, database: object = None) -> None:
        self.seen: list[str] = []

    def on_message(self, message: ReceivedMessage) -> None:
        self.seen.append(message.id)

    def on_both(self, number: int, message: ReceivedMessage) -> None:
        self.seen.append(f"{number} {message.id}")

    async def on_async(self, message: ReceivedMessage) -> None: ...

    async def on_async_both(self, number: int, message: ReceivedMessage) -> None: ...

    @classmethod
    async def on_class(cls, message: ReceivedMessage) -> None: ...

    def on_generator(self, message: ReceivedMessage) -> Iterator[int]:
        yield 1


class CallsAsync:
    """Its class hands calls on to another object."""

    __call__ = AsyncCallable()


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("handler", "kind"),
        [
            (coroutine, "coroutine function"),
            (functools.partial(coroutine), "coroutine function"),
            (functools.partial(functools.partial(Bot().on_async_both, 1)), "coroutine function"),
            (Bot().on_async, "coroutine function"),
            (Bot.on_class, "coroutine function"),
            (AsyncCallable(), "coroutine function"),
            (AsyncCallable().__call__, "coroutine function"),
            (functools.partial(AsyncCallable()), "coroutine function"),
            (CallsAsync(), "coroutine function"),
            (AsyncMock(), "coroutine function"),
            (async_generator, "async generator function"),
            (functools.partial(async_generator), "async generator function"),
            (generator, "is a generator function"),
            (Bot().on_generator, "is a generator function"),
            (Bot, "is a class"),
            (functools.partial(Bot), "is a class"),
        ],
    )
    def test_what_would_only_prepare_the_work_is_refused_by_its_kind(
        self, handler: Callable[..., object], kind: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=rf"^handler .*{kind}.*(write|give)"):
            entry_point(handler, None)

    def test_what_cannot_be_called_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="callable, it is 'on_message'"):
            entry_point("on_message", None)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("handler", "payload", "wanted"),
        [
            (lambda: None, None, r"\(message\)"),
            (lambda payload, message: None, None, r"\(message\)"),
            (lambda message: None, Job, r"\(payload, message\)"),
            (Bot.on_message, None, r"\(message\)"),
            (lambda message, *, limit: None, None, "limit"),
        ],
    )
    def test_a_signature_that_does_not_fit_is_refused_and_both_forms_are_told(
        self, handler: Callable[..., object], payload: type[Any] | None, wanted: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=rf"cannot be called with.*{wanted}.*payload=TheClass"):
            entry_point(handler, payload)

    @pytest.mark.parametrize("payload", [Job(1), list[int], "Job"])
    def test_a_payload_that_is_no_class_is_refused(self, payload: Any) -> None:
        with pytest.raises(ConfigurationError, match="payload must be a class"):
            entry_point(lambda job, message: None, payload)

    def test_a_payload_that_json_cannot_bring_is_refused_before_the_first_message(self) -> None:
        @dataclass
        class Odd:
            run: Callable[[], None]

        with pytest.raises(ConfigurationError, match=r"payload\.run"):
            entry_point(lambda odd, message: None, Odd)


class TestWhatIsTaken:
    @pytest.mark.parametrize("with_number", [False, True])
    def test_methods_and_partials_of_them(self, with_number: bool) -> None:
        bot = Bot()

        entry_point(functools.partial(bot.on_both, 7) if with_number else bot.on_message, None)(a_message())

        assert bot.seen == ["7 m-1" if with_number else "m-1"]

    def test_a_builtin(self) -> None:
        seen: list[ReceivedMessage] = []
        message = a_message()

        entry_point(seen.append, None)(message)

        assert seen == [message]

    def test_a_coroutine_function_that_is_run_by_a_plain_one(self) -> None:
        done = []

        async def work(message: ReceivedMessage) -> None:
            done.append(message.id)

        @functools.wraps(work)
        def run(message: ReceivedMessage) -> None:
            asyncio.run(work(message))

        entry_point(run, None)(a_message())

        assert done == ["m-1"]

    def test_with_a_payload_it_comes_first(self) -> None:
        got: list[tuple[Job, str]] = []

        entry_point(lambda job, message: got.append((job, message.id)), Job)(
            a_message(Message.of(Job(7), id="seven"))
        )

        assert got == [(Job(7), "seven")]


class TestWhatIsFoundOutWhenItIsCalled:
    @pytest.mark.parametrize(
        ("handler", "kind"),
        [
            (lambda message: coroutine(message), "to await"),
            (lambda message: generator(message), "a generator"),
            (lambda message: async_generator(message), "a generator"),
        ],
    )
    def test_a_result_that_is_only_prepared_work_is_an_error(
        self, handler: Callable[..., object], kind: str
    ) -> None:
        enter = entry_point(handler, None)

        with pytest.raises(ConfigurationError, match=f"returned.*{kind}"):
            enter(a_message())

    def test_any_other_result_says_nothing(self) -> None:
        assert entry_point(lambda message: [message], None)(a_message()) is None

    def test_a_body_that_the_codec_could_not_read_reaches_no_handler(self) -> None:
        called: list[object] = []
        message = a_message()
        message.delivery = replace(message.delivery, problem="not base64")

        with pytest.raises(DecodeError, match="not base64"):
            entry_point(called.append, None)(message)

        assert called == []
