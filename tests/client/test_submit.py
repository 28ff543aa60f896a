"""`submit`, and what it shares with `send`: order, retries, deadlines, room, the client's end."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queue_runtime import BatchPolicy, Message, QueueClient
from queue_runtime.errors import (
    AuthorizationFailed,
    BatchFailed,
    Closed,
    InvalidArgument,
    InvalidMessage,
    NotAttempted,
    OperationTimeout,
    OutcomeUnknown,
    QueueError,
    QueueNotFound,
    Throttled,
    UnsupportedOperation,
)
from queue_runtime.retry import RetryPolicy
from queue_runtime.testing import FakeClock
from tests.fakes import REAL, Act, Gate, Script, Step, fails, fails_for, loses, our_threads, scripted, stored

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


def message(name: str, **facts: Any) -> Message:
    """The first letter is its session: ``a1``."""
    return Message(**{"body": name.encode(), "id": name, "session_id": name[0], **facts})


def submitted(client: QueueClient, queue: str, *names: str) -> list[Future[str]]:
    return [client.submit(queue, message(name)) for name in names]


class TestASubmittedMessage:
    def test_has_its_id_when_it_is_stored(self, client: QueueClient) -> None:
        future = client.submit("jobs", message("a1"))

        assert future.result(REAL) == "a1"
        assert stored(client, "jobs") == ["a1"]

    def test_travels_with_those_that_come_while_a_request_is_under_way(
        self, client: QueueClient, script: Script
    ) -> None:
        with Gate() as gate:
            script.then("send", gate)
            first = client.submit("jobs", message("a0"))
            gate.wait_until_reached()
            rest = submitted(client, "jobs", *(f"a{number}" for number in range(1, 50)))

        wait([first, *rest], REAL)
        assert [len(ids) for ids in script.calls("send")] == [1, 49]

    @pytest.mark.parametrize("queue", ["groups", "events"])
    def test_is_stored_in_the_order_of_its_session(self, client: QueueClient, queue: str) -> None:
        names = [f"{session}{number:03}" for number in range(40) for session in "abc"]

        wait(submitted(client, queue, *names), REAL)

        kept = stored(client, queue)
        assert [[n for n in kept if n[0] == s] for s in "abc"] == [
            [n for n in names if n[0] == s] for s in "abc"
        ]

    def test_is_alone_of_its_session_in_a_request_that_can_fail_in_part(
        self, client: QueueClient, script: Script
    ) -> None:
        wait(submitted(client, "groups", *(f"{s}{n}" for n in range(5) for s in "ab")), REAL)

        assert all(len({name[0] for name in ids}) == len(ids) for ids in script.calls("send"))

    def test_fills_a_request_with_its_session_where_that_is_stored_whole(
        self, client: QueueClient, script: Script
    ) -> None:
        with Gate() as gate:
            script.then("send", gate)
            first = submitted(client, "events", "a0")
            gate.wait_until_reached()
            rest = submitted(client, "events", *(f"a{number}" for number in range(1, 9)))

        wait([*first, *rest], REAL)
        assert [len(ids) for ids in script.calls("send")] == [1, 8]

    @pytest.mark.parametrize(
        ("wrong", "error"),
        [
            (message("a1", delay=5.0), UnsupportedOperation),
            (message("a1", body=b"x" * 300_000), InvalidMessage),
            ("a1", InvalidArgument),
        ],
    )
    def test_that_cannot_be_sent_is_said_at_once(
        self, client: QueueClient, script: Script, wrong: Any, error: type[QueueError]
    ) -> None:
        with pytest.raises(error):
            client.submit("groups", wrong)
        assert script.calls("send") == []

    def test_that_fails_for_good_says_so_and_holds_nobody_up(
        self, client: QueueClient, script: Script
    ) -> None:
        script.then("send", fails(AuthorizationFailed))

        first, second = submitted(client, "groups", "a1", "a2")

        assert isinstance(first.exception(REAL), AuthorizationFailed)
        assert second.result(REAL) == "a2"

    def test_may_be_waited_for_in_what_another_calls_back(self, client: QueueClient, script: Script) -> None:
        with Gate() as gate:
            script.then("send", gate)
            first, second = submitted(client, "groups", "a1", "a2")
            gate.wait_until_reached()
            seen: list[str] = []
            told = threading.Event()

            def call_back(future: Future[str]) -> None:
                seen.extend([future.result(), second.result(REAL / 2), client.send("groups", message("a3"))])
                told.set()

            first.add_done_callback(call_back)

        assert told.wait(REAL)
        assert seen == ["a1", "a2", "a3"]

    def test_is_not_held_up_by_what_is_called_back(self, client: QueueClient, script: Script) -> None:
        first = client.submit("jobs", message("a1"))
        first.add_done_callback(lambda future: 1 // 0)

        assert client.submit("jobs", message("a2")).result(REAL) == "a2"


class TestATryThatFails:
    def test_is_made_again_later_and_the_session_waits(self, script: Script) -> None:
        clock = FakeClock()
        with scripted(script, clock=clock, retry=SLOWLY) as client:
            script.then("send", fails(Throttled))
            first, second = submitted(client, "groups", "a1", "a2")
            clock.block_until(1)
            other = client.submit("groups", message("b1"))
            assert other.result(REAL) == "b1"
            assert not first.done()
            assert not second.done()

            clock.advance(2.0)

            assert [first.result(REAL), second.result(REAL)] == ["a1", "a2"]
            assert stored(client, "groups") == ["b1", "a1", "a2"]

    def test_has_its_delay_though_another_of_its_request_failed_for_good(self, script: Script) -> None:
        clock = FakeClock()
        with (
            scripted(script, clock=clock, retry=SLOWLY) as client,
            ThreadPoolExecutor(1) as aside,
            Gate() as gate,
        ):
            script.then(
                "send", gate, fails_for({"a1": AuthorizationFailed, "a2": Throttled, "a3": Throttled})
            )
            first = client.submit("events", message("a0"))
            gate.wait_until_reached()
            batch = aside.submit(client.send_batch, "events", [message("a1"), message("a2")])
            clock.block_until(1)
            last = client.submit("events", message("a3"))

            gate.open()

            assert isinstance(batch.exception(REAL), BatchFailed)
            clock.block_until(1)
            assert script.calls("send") == [("a0",), ("a1", "a2", "a3")]
            clock.advance(2.0)
            assert (first.result(REAL), last.result(REAL)) == ("a0", "a3")

    def test_that_is_not_answered_stays_unknown(self, script: Script) -> None:
        with scripted(script) as client:
            script.then("send", loses(OutcomeUnknown), fails(Throttled), fails(Throttled))

            future = client.submit("groups", message("a1"))

            assert isinstance(future.exception(REAL), OutcomeUnknown)

    def test_of_one_of_many_is_its_own_affair(self, client: QueueClient, script: Script) -> None:
        with Gate() as gate:
            script.then("send", gate, fails_for({"b": Throttled}))
            first = submitted(client, "groups", "a")
            gate.wait_until_reached()
            rest = submitted(client, "groups", "b", "c", "d")

        wait([*first, *rest], REAL)
        assert script.calls("send") == [("a",), ("b", "c", "d"), ("b",)]


class TestASend:
    def test_ends_at_its_deadline_though_the_request_does_not(self, script: Script) -> None:
        clock = FakeClock()
        with scripted(script, clock=clock) as client, ThreadPoolExecutor(2) as aside, Gate() as gate:
            script.then("send", gate, gate)
            first = aside.submit(client.send, "groups", message("b1"))
            gate.wait_until_reached()
            sending = aside.submit(client.send, "groups", message("a1"), timeout=3.0)
            clock.block_until(3)  # both wait, and the scheduler for the first to take too long
            clock.advance(1.0)
            gate.wait_until_reached()

            clock.advance(2.0)

            assert isinstance(sending.exception(REAL), OutcomeUnknown)
            gate.open()
            assert first.result(REAL) == "b1"

    def test_to_a_queue_that_nobody_has_asked_about_ends_at_its_deadline_too(self, script: Script) -> None:
        clock = FakeClock()
        with (
            scripted(script, clock=clock) as client,
            ThreadPoolExecutor(1) as aside,
            Gate() as gate,
        ):
            script.then("capabilities", gate)
            sending = aside.submit(client.send, "groups", message("a1"), timeout=3.0)
            gate.wait_until_reached()
            clock.block_until(1)

            clock.advance(3.0)

            error = sending.exception(REAL)
            assert isinstance(error, OperationTimeout)
            assert "what queue 'groups' can do was not answered in time" in str(error)
            gate.open()
            assert client.send("groups", message("a2")) == "a2"
            assert stored(client, "groups") == ["a2"]

    def test_to_such_a_queue_shares_the_question_with_others(self, script: Script) -> None:
        """Else the threads that make requests would all wait for one queue that does not answer."""
        clock = FakeClock()
        with (
            scripted(script, clock=clock) as client,
            ThreadPoolExecutor(4) as aside,
            Gate() as gate,
        ):
            script.then("capabilities", gate)
            sending = [aside.submit(client.send, "groups", message(f"{name}1")) for name in "abcd"]
            gate.wait_until_reached()
            clock.block_until(4)
            gate.open()

            assert {each.result(REAL) for each in sending} == {"a1", "b1", "c1", "d1"}
            assert len(script.calls("capabilities")) == 1

    def test_ends_at_its_deadline_though_its_own_request_does_not(self, script: Script) -> None:
        clock = FakeClock()
        with scripted(script, clock=clock) as client, ThreadPoolExecutor(1) as aside, Gate() as gate:
            script.then("send", gate)
            sending = aside.submit(client.send, "groups", message("a1"), timeout=3.0)
            gate.wait_until_reached()
            clock.block_until(1)

            clock.advance(3.0)

            assert isinstance(sending.exception(SOON), OutcomeUnknown)

    def test_to_a_queue_that_was_gone_ends_at_its_deadline_too(self, script: Script) -> None:
        """Its provider has forgotten it, and asks again."""
        clock = FakeClock()
        with scripted(script, clock=clock) as client, ThreadPoolExecutor(1) as aside, Gate() as gate:
            script.then("send", fails(QueueNotFound))
            with pytest.raises(QueueNotFound):
                client.send("groups", message("a1"))
            script.then("capabilities", gate)
            sending = aside.submit(client.send, "groups", message("a2"), timeout=3.0)
            gate.wait_until_reached()
            clock.block_until(1)

            clock.advance(3.0)

            assert isinstance(sending.exception(SOON), OperationTimeout)

    def test_makes_no_request_itself(self, script: Script) -> None:
        """No limit of an SDK is kept in all weathers: a gateway may answer byte by byte."""
        threads: list[str] = []

        def seen(act: Act) -> Any:
            threads.append(threading.current_thread().name)
            return act.run()

        script.always("send", seen)
        script.always("capabilities", seen)
        with scripted(script, clock=FakeClock()) as client:
            client.send("groups", message("a1"))
            client.send("groups", message("a2"))

        assert len(threads) == 3
        assert all(name.startswith("queue_runtime-carry-") for name in threads)

    def test_that_never_left_says_so(self, script: Script) -> None:
        clock = FakeClock()
        with scripted(script, clock=clock) as client, ThreadPoolExecutor(2) as aside, Gate() as gate:
            script.then("send", gate)
            first = aside.submit(client.send, "groups", message("a1"))
            gate.wait_until_reached()
            sending = aside.submit(client.send, "groups", message("a2"), timeout=3.0)
            clock.block_until(2)

            clock.advance(3.0)

            assert isinstance(sending.exception(REAL), NotAttempted)
            gate.open()
            assert first.result(REAL) == "a1"
            assert client.send("groups", message("a3")) == "a3"
            assert stored(client, "groups") == ["a1", "a3"]

    def test_whose_tries_take_too_long_has_the_error_of_the_last(self, script: Script) -> None:
        clock = FakeClock()
        with scripted(script, clock=clock, retry=SLOWLY) as client:
            script.always("send", fails(Throttled))

            with pytest.raises(Throttled):
                client.send("groups", message("a1"), timeout=0.000001)

            assert len(script.calls("send")) == 1

    def test_has_the_settings_time_unless_it_is_given_another(self, script: Script) -> None:
        clock = FakeClock()
        with scripted(script, clock=clock) as client, ThreadPoolExecutor(2) as aside, Gate() as gate:
            script.then("send", gate)
            first = aside.submit(client.send, "groups", message("a1"), timeout=60.0)
            gate.wait_until_reached()
            sending = aside.submit(client.send, "groups", message("a2"))
            clock.block_until(2)

            clock.advance(7.9)
            clock.block_until(2)
            assert not sending.done()
            clock.advance(0.1)

            assert isinstance(sending.exception(REAL), NotAttempted)
            gate.open()
            first.result(REAL)

    def test_goes_behind_the_retry_of_an_earlier_one_of_its_session(self, script: Script) -> None:
        clock = FakeClock()
        with scripted(script, clock=clock, retry=SLOWLY) as client, ThreadPoolExecutor(2) as aside:
            script.then("send", fails(Throttled))
            first = aside.submit(client.send, "groups", message("a1"))
            clock.block_until(2)
            second = aside.submit(client.send, "groups", message("a2"))
            clock.block_until(3)
            assert script.calls("send") == [("a1",)]

            clock.advance(2.0)

            assert [first.result(REAL), second.result(REAL)] == ["a1", "a2"]
            assert stored(client, "groups") == ["a1", "a2"]

    @pytest.mark.parametrize("timeout", [0, -1, float("nan"), "3"])
    def test_takes_only_time_that_there_is(self, client: QueueClient, timeout: Any) -> None:
        for call in (client.send, client.submit):
            with pytest.raises(InvalidArgument, match="timeout must be a number of seconds above 0"):
                call("jobs", message("a1"), timeout=timeout)
        with pytest.raises(InvalidArgument, match="timeout must be a number of seconds above 0"):
            client.send_batch("jobs", [message("a1")], timeout=timeout)


class TestABatch:
    def test_that_is_not_through_in_time_says_which_messages_are(self, script: Script) -> None:
        clock = FakeClock()
        with (
            scripted(script, clock=clock) as client,
            ThreadPoolExecutor(1) as aside,
            Gate() as gate,
        ):
            script.then("send", lambda act: act.run(), gate)
            batch = [message(name) for name in ("a1", "a2", "a3")]
            sending = aside.submit(client.send_batch, "groups", batch, timeout=0.5)
            gate.wait_until_reached()
            clock.block_until(1)

            clock.advance(0.5)

            error = sending.exception(REAL)
            assert isinstance(error, BatchFailed)
            assert [type(outcome.error) for outcome in error.outcomes] == [
                type(None),
                OutcomeUnknown,
                NotAttempted,
            ]
            assert [(e.queue, e.operation, e.provider) for o in error.outcomes if (e := o.error)] == [
                ("groups", "send", "memory")
            ] * 2


class TestRoom:
    def test_is_waited_for(self, script: Script) -> None:
        policy = BatchPolicy(max_pending=2)
        with scripted(script, batching=policy) as client, ThreadPoolExecutor(1) as aside, Gate() as gate:
            script.then("send", gate)
            submitted(client, "jobs", "a1", "a2")
            gate.wait_until_reached()

            third = aside.submit(client.submit, "jobs", message("a3"))
            assert not third.done()
            gate.open()

            assert third.result(REAL).result(REAL) == "a3"

    def test_is_not_taken_by_those_who_wait_for_theirs(self, script: Script) -> None:
        policy = BatchPolicy(max_pending=1)
        with scripted(script, batching=policy) as client, ThreadPoolExecutor(1) as aside, Gate() as gate:
            script.then("send", gate)
            batch = aside.submit(client.send_batch, "jobs", [message(f"a{number}") for number in range(5)])
            gate.wait_until_reached()

            future = client.submit("jobs", message("b1"), timeout=REAL)
            gate.open()

            assert future.result(REAL) == "b1"
            batch.result(REAL)

    def test_that_does_not_come_in_time_is_an_error(self, script: Script) -> None:
        clock = FakeClock()
        policy = BatchPolicy(max_pending=1)
        with (
            scripted(script, clock=clock, batching=policy) as client,
            ThreadPoolExecutor(1) as aside,
            Gate() as gate,
        ):
            script.then("send", gate)
            first = client.submit("jobs", message("a1"))
            gate.wait_until_reached()
            second = aside.submit(client.submit, "jobs", message("a2"), timeout=2.0)
            clock.block_until(1)

            clock.advance(2.0)

            error = second.exception(REAL)
            assert isinstance(error, NotAttempted)
            assert "max_pending" in str(error)
            gate.open()
            assert first.result(REAL) == "a1"


class TestABatchThatTakesLong:
    def test_has_the_time_limit_of_a_retry_for_each_message(self, script: Script) -> None:
        clock = FakeClock()
        retry = RetryPolicy(max_attempts=2, base=0.0, cap=0.0, time_limit=1.0)

        def slow(act: Act) -> Any:
            clock.advance(0.5)
            return act.run()

        script.then("send", *[slow] * 5, fails_for({"m5": Throttled}))
        one = BatchPolicy(max_in_flight=1)
        with scripted(script, clock=clock, retry=retry, batching=one, max_batch=1) as client:
            client.send_batch("jobs", [Message(body=b"m", id=f"m{number}") for number in range(6)])

        assert script.calls("send") == [(f"m{number}",) for number in (0, 1, 2, 3, 4, 5, 5)]


class TestCancelling:
    def test_thousands_is_possible(self, client: QueueClient, script: Script) -> None:
        with Gate() as gate:
            script.then("send", gate)
            futures = [client.submit("groups", message("a1"))]
            gate.wait_until_reached()
            futures += [client.submit("groups", message(f"a{number}")) for number in range(2, 999)]
            assert all(future.cancel() for future in futures[1:])
            last = client.submit("groups", message("a999"))

        assert last.result(REAL) == "a999"
        assert stored(client, "groups") == ["a1", "a999"]

    def test_is_possible_until_the_message_leaves(self, client: QueueClient, script: Script) -> None:
        with Gate() as gate:
            script.then("send", gate)
            first, second, third = submitted(client, "groups", "a1", "a2", "a3")
            gate.wait_until_reached()

            assert not first.cancel()
            assert second.cancel()

        assert third.result(REAL) == "a3"
        with pytest.raises(CancelledError):
            second.result(REAL)
        assert stored(client, "groups") == ["a1", "a3"]


class TestTheClientsEnd:
    def test_sends_what_was_submitted(self, script: Script) -> None:
        with scripted(script) as client:
            futures = submitted(client, "groups", *(f"{s}{n}" for n in range(20) for s in "ab"))
            client.close()

            assert all(future.done() for future in futures)
            assert [future.result() for future in futures] == [f"{s}{n}" for n in range(20) for s in "ab"]

    def test_takes_no_longer_than_it_may(self, script: Script) -> None:
        clock = FakeClock()
        with scripted(script, clock=clock) as client, ThreadPoolExecutor(1) as aside, Gate() as gate:
            script.then("send", gate)
            first, second = submitted(client, "groups", "a1", "a2")
            gate.wait_until_reached()
            closing = aside.submit(client.close, timeout=2.0)
            clock.block_until(1)

            clock.advance(2.0)

            assert isinstance(first.exception(REAL), OutcomeUnknown)
            assert isinstance(second.exception(REAL), NotAttempted)
            gate.open()
            closing.result(REAL)

    def test_takes_no_more(self, script: Script) -> None:
        with scripted(script) as client:
            client.close()

            for call in (client.send, client.submit):
                with pytest.raises(Closed):
                    call("jobs", message("a1"))

    def test_leaves_no_thread(self, script: Script) -> None:
        with scripted(script) as client:
            wait(submitted(client, "groups", *(f"{s}{n}" for n in range(20) for s in "ab")), REAL)

        assert our_threads() == []


def sometimes(seed: int, *, in_part: bool) -> Step:
    """Some requests fail, some answers are lost, and some entries fail *in_part*, all for passing reasons."""
    chance = random.Random(seed)
    lock = threading.Lock()

    def step(act: Act) -> Any:
        with lock:
            fate = chance.random()
            unlucky = [name for name in act.ids if in_part and chance.random() < 0.2]
        if fate < 0.1:
            raise Throttled("scripted")
        if fate < 0.2:
            act.run()
            raise OutcomeUnknown("scripted")
        return fails_for(dict.fromkeys(unlucky, Throttled))(act)

    return step


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    queue=st.sampled_from(["groups", "events"]),
    threads=st.integers(1, 8),
    sessions=st.integers(1, 5),
    each=st.integers(1, 12),
    max_in_flight=st.integers(1, 4),
)
def test_any_weather_leaves_each_session_in_the_order_in_which_it_was_given(
    seed: int, queue: str, threads: int, sessions: int, each: int, max_in_flight: int
) -> None:
    script = Script()
    script.always("send", sometimes(seed, in_part=queue == "groups"))
    retry = RetryPolicy(max_attempts=50, base=0.0, cap=0.0, time_limit=60.0)
    order: dict[str, list[str]] = {f"s{number}": [] for number in range(sessions)}
    lock = threading.Lock()

    def give(client: QueueClient, thread: int) -> Sequence[Future[str]]:
        futures = []
        for number in range(each):
            session = f"s{(thread + number) % sessions}"
            name = f"{session}/{thread}.{number}"
            with lock:  # so that the order in which they were given is known
                order[session].append(name)
                futures.append(client.submit(queue, message(name, session_id=session)))
        return futures

    with (
        scripted(script, retry=retry, batching=BatchPolicy(max_in_flight=max_in_flight)) as client,
        ThreadPoolExecutor(threads) as crew,
    ):
        given_out = [f for futures in crew.map(lambda t: give(client, t), range(threads)) for f in futures]
        for future in given_out:
            future.result(REAL)
        kept = stored(client, queue)

    assert {session: [n for n in kept if n.startswith(session + "/")] for session in order} == order
