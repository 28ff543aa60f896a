"""Completions, delays and renewals of several threads share requests; each is answered for its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from queue_runtime import BatchPolicy, Message, QueueClient, ReceivedMessage
from queue_runtime.errors import (
    BatchFailed,
    ConnectionFailed,
    InvalidReceipt,
    LeaseLost,
    Outcome,
    OutcomeUnknown,
)
from queue_runtime.retry import RetryPolicy
from queue_runtime.testing import FakeClock
from tests.fakes import REAL, Gate, Script, fails, fails_for, loses, scripted

ONCE = RetryPolicy(max_attempts=1)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def crew() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as made:
        yield made


def held(client: QueueClient, count: int, queue: str = "jobs") -> list[ReceivedMessage]:
    client.send_batch(queue, [Message(body=b"m", id=f"m{number}") for number in range(count)])
    return client.receive(queue, max_messages=count)


def together(
    script: Script,
    crew: ThreadPoolExecutor,
    operation: str,
    act: Callable[[ReceivedMessage], object],
    messages: list[ReceivedMessage],
) -> list[Future[object]]:
    """*act* for all of *messages*, a thread each, the others while the first one's request is under way."""
    with Gate() as gate:
        script.then(operation, gate)
        first = crew.submit(act, messages[0])
        gate.wait_until_reached()
        rest = [crew.submit(act, message) for message in messages[1:]]
        wait_for_company(messages[0].owner, len(rest))
    return [first, *rest]


def wait_for_company(runtime: object, count: int) -> None:
    """Until as many wait in the lanes of *runtime*."""
    lanes = runtime.provider._lanes  # type: ignore[attr-defined]
    until = threading.Event()
    for _ in range(5000):
        if (
            sum(len(parcel.items) for lane in list(lanes.values()) for parcel in list(lane._lane._waiting))
            >= count
        ):
            return
        until.wait(0.001)
    raise AssertionError("nobody waits")


class TestThreadsAtTheSameTime:
    def test_complete_in_one_request(self, script: Script, crew: ThreadPoolExecutor) -> None:
        with scripted(script) as client:
            messages = held(client, 6)

            for each in together(script, crew, "settle", client.complete, messages):
                each.result(REAL)

            assert [len(ids) for ids in script.calls("settle")] == [1, 5]
            assert client.describe("jobs").active == client.describe("jobs").leased == 0

    def test_abandon_in_one_request(self, script: Script, crew: ThreadPoolExecutor) -> None:
        with scripted(script) as client:
            messages = held(client, 6)

            for each in together(script, crew, "settle", client.abandon, messages):
                each.result(REAL)

            assert [len(ids) for ids in script.calls("settle")] == [1, 5]
            assert client.describe("jobs").active == 6

    def test_dead_letter_in_one_request(self, script: Script, crew: ThreadPoolExecutor) -> None:
        with scripted(script) as client:
            messages = held(client, 6)

            act = lambda message: client.dead_letter(message, reason="Bad")  # noqa: E731
            for each in together(script, crew, "settle", act, messages):
                each.result(REAL)

            assert [len(ids) for ids in script.calls("settle")] == [1, 5]
            assert client.dead_letters("jobs").count() == 6

    def test_renew_in_one_request(self, script: Script, crew: ThreadPoolExecutor) -> None:
        clock = FakeClock()
        with scripted(script, clock=clock) as client:
            messages = held(client, 6)
            clock.advance(10.0)

            for each in together(script, crew, "renew", client.renew, messages):
                each.result(REAL)

            assert [len(ids) for ids in script.calls("renew")] == [1, 5]
            assert {message.lease.remaining() for message in messages} == {30.0}

    def test_are_told_of_their_own_messages_only(self, script: Script, crew: ThreadPoolExecutor) -> None:
        with scripted(script, retry=ONCE) as client:
            messages = held(client, 4)
            script.always("settle", fails_for({"m2": InvalidReceipt}))

            results = together(script, crew, "settle", client.complete, messages)

            assert [type(each.exception(REAL)) for each in results] == [
                type(None),
                type(None),
                InvalidReceipt,
                type(None),
            ]

    def test_get_an_error_each_where_the_request_fails(
        self, script: Script, crew: ThreadPoolExecutor
    ) -> None:
        with scripted(script, retry=ONCE) as client:
            messages = held(client, 3)
            script.always("settle", fails(ConnectionFailed))

            results = together(script, crew, "settle", client.complete, messages)

            assert results[0].exception(REAL) is None
            errors = [each.exception(REAL) for each in results[1:]]
            assert [type(error) for error in errors] == [ConnectionFailed, ConnectionFailed]
            assert errors[0] is not errors[1]

    def test_do_not_share_a_request_of_two_kinds(self, script: Script, crew: ThreadPoolExecutor) -> None:
        with scripted(script) as client:
            messages = held(client, 2)
            with Gate() as gate:
                script.then("settle", gate)
                first = crew.submit(client.complete, messages[0])
                gate.wait_until_reached()

                client.abandon(messages[1])

            first.result(REAL)
            assert script.calls("settle") == [("m0",), ("m1",)]

    def test_go_their_own_way_where_they_could_not_share(
        self, script: Script, crew: ThreadPoolExecutor
    ) -> None:
        with scripted(script, batched_settling=False) as client:
            messages = held(client, 2)
            with Gate() as gate:
                script.then("settle", gate)
                first = crew.submit(client.complete, messages[0])
                gate.wait_until_reached()

                client.complete(messages[1])
                assert not first.done()

            first.result(REAL)


class TestManyOfOneThread:
    def test_are_answered_in_their_order(self, script: Script) -> None:
        with scripted(script, max_batch=10, retry=ONCE) as client:
            messages = held(client, 25) + client.receive("jobs", max_messages=10)
            messages += client.receive("jobs", max_messages=10)
            script.always("settle", fails_for({"m13": LeaseLost}))

            errors = [outcome.error for outcome in outcomes_of(client, messages)]

            assert [i for i, error in enumerate(errors) if error is not None] == [13]
            assert sorted(len(ids) for ids in script.calls("settle")) == [5, 10, 10]

    def test_cost_one_timeout_where_the_network_is_dead(
        self, script: Script, crew: ThreadPoolExecutor
    ) -> None:
        policy = BatchPolicy(max_in_flight=2)
        with scripted(script, max_batch=10, max_batch_size=10**9, retry=ONCE, batching=policy) as client:
            client.send_batch("jobs", [Message(body=b"m", id=f"m{number}") for number in range(100)])
            messages = [message for _ in range(10) for message in client.receive("jobs", max_messages=10)]
            gate = Gate()
            script.always("settle", lambda act: (gate(act), loses(OutcomeUnknown)(act)))

            settling = crew.submit(outcomes_of, client, messages)
            gate.wait_until_reached()
            gate.wait_until_reached()
            gate.open()

            errors = [outcome.error for outcome in settling.result(REAL)]
            assert [type(error) for error in errors] == [OutcomeUnknown] * 20 + [ConnectionFailed] * 80
            assert len(script.calls("settle")) == 2


class TestACallThatNobodyAnswers:
    def test_ends_when_the_lease_does(self, script: Script, crew: ThreadPoolExecutor) -> None:
        clock = FakeClock()
        with scripted(script, clock=clock, retry=ONCE) as client:
            messages = held(client, 2)
            with Gate() as gate:
                script.then("settle", gate, gate)
                first = crew.submit(client.complete, messages[0])
                gate.wait_until_reached()
                second = crew.submit(client.complete, messages[1])
                clock.block_until(2)  # the second caller, and the scheduler
                clock.advance(1.0)  # it is slow by now: the second one goes by itself
                gate.wait_until_reached()

                clock.advance(28.9)
                clock.block_until(1)
                assert not second.done(), "it is held for a moment yet"
                clock.advance(0.1)

                assert isinstance(second.exception(REAL), OutcomeUnknown)
            assert isinstance(first.exception(REAL), LeaseLost)


def outcomes_of(client: QueueClient, messages: list[ReceivedMessage]) -> list[Outcome[str]]:
    try:
        client.complete(messages)
    except BatchFailed as failed:
        return list(failed.outcomes)
    raise AssertionError("nothing failed")
