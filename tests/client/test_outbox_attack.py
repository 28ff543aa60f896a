"""What goes to one queue under attack: callbacks that block, exit or send; threads that are not to be had."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from unittest.mock import patch

import pytest

from queue_runtime import Message, QueueClient
from queue_runtime.clock import SystemClock
from queue_runtime.errors import BatchFailed, Closed, NotAttempted, OutcomeUnknown, ProviderError, Throttled
from queue_runtime.retry import RetryPolicy
from queue_runtime.testing import FakeClock
from tests.fakes import REAL, Act, Gate, Script, fails, scripted, stored

SOON = REAL / 4
"""Real seconds for what must happen at once."""

SLOWLY = RetryPolicy(max_attempts=3, base=2.0, cap=2.0, time_limit=60.0)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def client(script: Script) -> Iterator[QueueClient]:
    with scripted(script) as made:
        yield made


def message(name: str) -> Message:
    """The first letter is its session: ``a1``."""
    return Message(body=name.encode(), id=name, session_id=name[0])


class TestWhatIsCalledBack:
    def test_may_submit_and_wait(self, client: QueueClient) -> None:
        seen: list[str] = []
        told = threading.Event()

        def call_back(future: Future[str]) -> None:
            seen.append(client.submit("jobs", message("a2")).result(SOON))
            told.set()

        with Gate() as gate:
            client.submit("jobs", message("a1")).add_done_callback(call_back)
            gate.open()

        assert told.wait(REAL)
        assert seen == ["a2"]

    def test_may_send_though_no_carrier_is_free(self, script: Script) -> None:
        seen: list[str] = []
        told = threading.Event()
        with patch("queue_runtime.runtime.CARRIERS", 1), scripted(script) as client, Gate() as gate:

            def call_back(future: Future[str]) -> None:
                seen.append(client.send("groups", message("b1"), timeout=SOON))
                told.set()

            script.then("send", gate)
            client.submit("jobs", message("a1")).add_done_callback(call_back)
            gate.open()

            assert told.wait(REAL)
        assert seen == ["b1"]

    @pytest.mark.parametrize("exit", [SystemExit, KeyboardInterrupt, GeneratorExit])
    def test_keeps_nobody_from_being_told_though_it_exits(
        self, client: QueueClient, script: Script, exit: type[BaseException]
    ) -> None:
        def call_back(future: Future[str]) -> None:
            raise exit

        with Gate() as gate:
            script.then("send", gate)
            first = client.submit("jobs", message("a1"))
            gate.wait_until_reached()
            second, third = (client.submit("jobs", message(name)) for name in ("a2", "a3"))
            second.add_done_callback(call_back)

        assert [future.result(SOON) for future in (first, second, third)] == ["a1", "a2", "a3"]

    def test_holds_up_no_send_that_travelled_with_it(self, script: Script) -> None:
        clock = FakeClock()
        blocked, let_go = threading.Event(), threading.Event()

        def call_back(future: Future[str]) -> None:
            blocked.set()
            assert let_go.wait(REAL)

        with scripted(script, clock=clock) as client, ThreadPoolExecutor(1) as aside:
            with Gate() as gate:
                script.then("send", gate)
                client.submit("jobs", message("a1"))
                gate.wait_until_reached()
                client.submit("jobs", message("a2")).add_done_callback(call_back)
                sending = aside.submit(client.send, "jobs", message("a3"), timeout=3.0)
                clock.block_until(1)
            try:
                assert blocked.wait(REAL)
                assert sending.result(SOON) == "a3"
            finally:
                clock.advance(3.0)
                let_go.set()

    def test_holds_up_no_send_whose_thread_carried_it(self, script: Script) -> None:
        let_go = threading.Event()

        def call_back(future: Future[str]) -> None:
            assert let_go.wait(REAL)

        with scripted(script, max_batch=2) as client, ThreadPoolExecutor(1) as aside, Gate() as gate:
            script.then("send", gate)
            client.submit("jobs", message("a1"))
            gate.wait_until_reached()
            client.submit("jobs", message("a2")).add_done_callback(call_back)
            sending = aside.submit(client.send, "jobs", message("a3"), timeout=60.0)  # fills the request
            try:
                assert sending.result(SOON) == "a3"
            finally:
                let_go.set()


class TestAnErrorThatCannotBeCopied:
    def test_is_told_as_it_is(self, client: QueueClient, script: Script) -> None:
        class Odd(ProviderError):
            def __init__(self, code: int, text: str) -> None:
                super().__init__(text)

        def step(act: Act) -> Any:
            raise Odd(7, "odd")

        script.always("send", step)
        assert isinstance(client.submit("jobs", message("a1")).exception(SOON), Odd)


class TestARequestThatTakesLong:
    def test_holds_what_it_left_behind_for_a_second_only(self, script: Script) -> None:
        clock = FakeClock()
        with (
            scripted(script, clock=clock, max_batch=2) as client,
            ThreadPoolExecutor(1) as aside,
            Gate() as gate,
        ):
            script.then("send", gate)
            batch = [message(name) for name in ("a1", "a2", "a3")]
            sending = aside.submit(client.send_batch, "jobs", batch)
            gate.wait_until_reached()

            clock.block_until(1)
            clock.advance(1.0)

            for _ in range(100):
                if len(script.calls("send")) == 2:
                    break
                threading.Event().wait(0.01)
            assert script.calls("send") == [("a1", "a2"), ("a3",)]
            gate.open()
            sending.result(REAL)


class TestWithoutThreads:
    def test_a_retry_is_made_all_the_same(self, client: QueueClient, script: Script) -> None:
        with scripted(script, retry=RetryPolicy(max_attempts=3, base=0.1)) as client:
            script.then("send", fails(Throttled))
            with patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
                assert client.send("groups", message("a1")) == "a1"

    def test_a_submitted_message_is_sent(self, client: QueueClient) -> None:
        with patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
            assert client.submit("groups", message("a1")).result(SOON) == "a1"


class TestAnInterruptedSend:
    def test_sends_nothing_more(self, client: QueueClient, script: Script) -> None:
        client.send("groups", message("b0"))
        with Gate() as gate:
            script.then("send", gate)

            def interrupt(*args: object) -> None:
                gate.wait_until_reached()
                raise KeyboardInterrupt

            with (
                patch.object(SystemClock, "wait_until", side_effect=interrupt),
                pytest.raises(KeyboardInterrupt),
            ):
                client.send_batch("groups", [message(f"a{n}") for n in range(5)])

            assert len(client.runtime().outbox("groups")) == 1

        client.send("groups", message("a5"))
        assert stored(client, "groups") == ["b0", "a0", "a5"]

    @pytest.mark.parametrize(
        "step", ["queue_runtime.outbox.Outbox._launch", "queue_runtime.batching.Lane.add"]
    )
    def test_wherever_it_is_interrupted_holds_nobody_up(self, client: QueueClient, step: str) -> None:
        client.send("groups", message("b0"))

        with patch(step, side_effect=[KeyboardInterrupt, []]), pytest.raises(KeyboardInterrupt):
            client.send_batch("groups", [message("a1"), message("c1")])

        assert len(client.runtime().outbox("groups")) == 0
        assert client.submit("groups", message("a2")).result(SOON) == "a2"

    def test_and_interrupted_again_keeps_close_from_answering_nobody(
        self, client: QueueClient, script: Script
    ) -> None:
        client.send("groups", message("b0"))
        with Gate() as gate:
            script.then("send", gate)
            with (
                patch("queue_runtime.outbox._Line", side_effect=KeyboardInterrupt),
                patch("queue_runtime.outbox.Outbox.give_up", side_effect=KeyboardInterrupt),
                pytest.raises(KeyboardInterrupt),
            ):
                client.send("groups", message("c1"))
            first, second = (client.submit("groups", message(name)) for name in ("a1", "a2"))
            gate.wait_until_reached()

            client.close(timeout=0.1)

            assert isinstance(first.exception(SOON), OutcomeUnknown)
            assert isinstance(second.exception(SOON), NotAttempted)


class TestLargeBatches:
    @pytest.mark.parametrize("queue", ["groups", "events"])
    def test_of_one_session_are_given_up_at_once(self, script: Script, queue: str) -> None:
        batch = [message(f"a{number}") for number in range(20_000)]
        with scripted(script) as client, ThreadPoolExecutor(3) as aside, Gate() as gate:
            script.always("send", gate)
            sending = [aside.submit(client.send_batch, queue, batch, timeout=1.0) for _ in range(3)]
            for each in sending:
                with pytest.raises(BatchFailed):
                    each.result(4 * REAL)  # what grows with the square takes minutes


class TestSettlingAtTheClientsEnd:
    def test_needs_no_carrier_that_comes_too_late(self, script: Script) -> None:
        with (
            patch("queue_runtime.runtime.CARRIERS", 1),
            scripted(script) as client,
            ThreadPoolExecutor(3) as aside,
            Gate() as sends,
            Gate() as settles,
        ):
            client.send_batch("jobs", [message("a1"), message("a2")])
            first, second = client.receive("jobs", max_messages=2)
            script.then("send", sends)
            script.then("settle", settles)
            client.submit("jobs", message("a3"))
            sends.wait_until_reached()
            completing = aside.submit(client.complete, first)
            settles.wait_until_reached()
            waiting = aside.submit(client.complete, second)
            settles.open()
            completing.result(REAL)

            client.close(timeout=0.1)  # the one carrier is still at it
            sends.open()

            assert waiting.exception(SOON) is None or isinstance(waiting.exception(), Closed)
