"""The way out: refused before anything is sent, tried again entry by entry, in order, never silent."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queue_runtime import Message, QueueClient
from queue_runtime.breaker import BreakerPolicy
from queue_runtime.errors import (
    AuthorizationFailed,
    BatchFailed,
    CircuitOpen,
    ConnectionFailed,
    InvalidMessage,
    InvalidName,
    MessageTooLarge,
    NotAttempted,
    Outcome,
    OutcomeUnknown,
    QueueError,
    QueueNotFound,
    Throttled,
    UnsupportedOperation,
)
from queue_runtime.events import Event, RetryScheduled
from queue_runtime.retry import RetryPolicy
from queue_runtime.testing import FakeClock
from tests.fakes import AT_ONCE, REAL, Act, Script, Step, fails, fails_for, loses, loses_for, scripted, stored


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


def outcomes_of(client: QueueClient, queue: str, *messages: Message) -> Sequence[Outcome[str]]:
    try:
        return [Outcome(each) for each in client.send_batch(queue, messages)]
    except BatchFailed as failed:
        return failed.outcomes


def shown(outcomes: Sequence[Outcome[str]]) -> list[str | None]:
    """Ids of what went well, and the classes of errors."""
    return [o.value if o.error is None else type(o.error).__name__ for o in outcomes]


class TestBeforeAnythingIsSent:
    @pytest.mark.parametrize(
        ("capabilities", "bad", "error", "text"),
        [
            (
                {"max_message_size": 10},
                message("b1", body=b"x" * 11),
                MessageTooLarge,
                r"'b1' has 11 bytes .* queue 'jobs' takes 10",
            ),
            (
                {"max_message_size": 10},
                message("b1", attributes={"name": "ä" * 3}),
                MessageTooLarge,
                r"'b1' has 12 bytes",
            ),
            (
                {"max_attributes": 1},
                message("b1", attributes={"one": "1", "two": "2"}),
                InvalidMessage,
                r"'b1' has 2 attributes; queue 'jobs' takes 1; put the rest into the body",
            ),
            (
                {"max_delay": 900.0},
                message("b1", delay=901),
                InvalidMessage,
                r"'b1': delay=901 s; queue 'jobs' takes at most 900 s",
            ),
            (
                {"max_delay": 0.0},
                message("b1", delay=0.5),
                UnsupportedOperation,
                r"queue 'jobs' cannot delay a single message \(delay=0.5 s\)",
            ),
        ],
        ids=["size", "size in bytes with attributes", "attributes", "delay", "no delay"],
    )
    def test_what_the_queue_cannot_carry_refuses_the_whole_batch(
        self, capabilities: dict[str, Any], bad: Message, error: type[QueueError], text: str
    ) -> None:
        script = Script()
        with scripted(script, **capabilities) as client:
            with pytest.raises(error, match=text) as caught:
                client.send_batch("jobs", [message("a1"), bad, message("c1")])

            assert (caught.value.queue, caught.value.operation) == ("jobs", "send")
            assert script.calls("send") == []

    def test_a_message_too_large_says_both_numbers(self) -> None:
        with scripted(Script(), max_message_size=10) as client, pytest.raises(MessageTooLarge) as caught:
            client.send("jobs", message("a1", body=b"x" * 50))

        assert (caught.value.actual, caught.value.limit) == (50, 10)

    def test_what_just_fits_is_sent(self) -> None:
        with scripted(Script(), max_message_size=10, max_attributes=1, max_delay=5.0) as client:
            fits = Message(body=b"x" * 6, attributes={"ab": "12"}, delay=5.0)

            assert client.send("jobs", fits) == fits.id

    def test_a_strategy_that_answers_with_no_session_id_is_an_error(self, script: Script) -> None:
        with scripted(script, strategy=lambda message: "a\nb") as client:
            with pytest.raises(InvalidName, match="session_id"):
                client.send("jobs", Message(body=b""))
            assert script.calls("send") == []

    def test_an_unknown_queue_is_named(self, client: QueueClient) -> None:
        with pytest.raises(QueueNotFound, match="'nowhere'"):
            client.send("nowhere", message("a1"))

    def test_an_empty_batch_sends_nothing(self, client: QueueClient, script: Script) -> None:
        assert client.send_batch("jobs", []) == []
        assert script.calls("send") == []


class TestTheSession:
    def test_is_the_strategys_where_the_message_names_none(self, script: Script) -> None:
        with scripted(script, strategy=lambda message: message.body.decode()[0]) as client:
            client.send_batch("events", [Message(body=b"x1"), Message(body=b"y1", session_id="mine")])

            accepted = [client.accept_session("events"), client.accept_session("events")]

        assert [session.session_id for session in accepted if session] == ["x", "mine"]

    def test_may_be_none(self, script: Script) -> None:
        with scripted(script, strategy=lambda message: None) as client:
            client.send("jobs", Message(body=b"x"))

            assert client.receive("jobs")[0].session_id is None


class TestRequests:
    def test_of_a_fifo_queue_carry_one_message_of_a_session(
        self, client: QueueClient, script: Script
    ) -> None:
        client.send_batch("groups", [message(name) for name in ("a1", "a2", "b1", "b2", "c1")])

        assert script.calls("send") == [("a1", "b1", "c1"), ("a2", "b2")]

    def test_of_a_queue_that_stores_a_batch_as_a_whole_are_full(
        self, client: QueueClient, script: Script
    ) -> None:
        client.send_batch("events", [message(f"a{n}") for n in range(150)])

        assert [len(ids) for ids in script.calls("send")] == [100, 50]


class TestAFailureThatMayPass:
    @pytest.mark.parametrize("step", [fails(Throttled), fails(ConnectionFailed), loses()])
    def test_is_tried_again_with_the_same_message(
        self, client: QueueClient, script: Script, step: Step
    ) -> None:
        script.then("send", step)

        assert client.send("groups", message("a1")) == "a1"

        assert script.calls("send") == [("a1",), ("a1",)]
        assert stored(client, "groups") == ["a1"], "and its id keeps it from being stored twice"

    def test_of_some_entries_is_tried_again_for_those_only(self, client: QueueClient, script: Script) -> None:
        script.then("send", fails_for({"a1": Throttled, "c1": Throttled}), fails_for({"c1": Throttled}))

        ids = client.send_batch("groups", [message("a1"), message("b1"), message("c1"), message("d1")])

        assert ids == ["a1", "b1", "c1", "d1"]
        assert script.calls("send") == [("a1", "b1", "c1", "d1"), ("a1", "c1"), ("c1",)]

    def test_holds_the_rest_of_its_session_back_and_no_other(
        self, client: QueueClient, script: Script
    ) -> None:
        script.then("send", fails_for({"a1": Throttled}))

        client.send_batch("groups", [message(name) for name in ("a1", "a2", "a3", "b1", "b2")])

        assert script.calls("send") == [("a1", "b1"), ("a1", "b2"), ("a2",), ("a3",)]
        assert [text for text in stored(client, "groups") if text[0] == "a"] == ["a1", "a2", "a3"]

    def test_does_not_hold_back_what_has_no_order(self, client: QueueClient, script: Script) -> None:
        script.then("send", fails_for({"a1": Throttled}))

        client.send_batch("jobs", [message("a1"), message("a2")])

        assert stored(client, "jobs") == ["a2", "a1"]

    def test_is_given_up_after_the_last_attempt(self, client: QueueClient, script: Script) -> None:
        script.always("send", fails(Throttled))

        with pytest.raises(Throttled) as caught:
            client.send("jobs", message("a1"))

        assert len(script.calls("send")) == AT_ONCE.max_attempts
        assert (caught.value.queue, caught.value.operation, caught.value.provider) == (
            "jobs",
            "send",
            "memory",
        )

    def test_is_told_before_each_new_try(self, script: Script) -> None:
        events: list[Event] = []
        with scripted(script, listeners=[events.append]) as client:
            script.then("send", fails(Throttled), fails(ConnectionFailed))
            client.send("jobs", message("a1"))

        told = [event for event in events if isinstance(event, RetryScheduled)]
        assert [(e.queue, e.operation, e.attempt, e.error) for e in told] == [
            ("jobs", "send", 1, "Throttled"),
            ("jobs", "send", 2, "ConnectionFailed"),
        ]

    def test_waits_before_the_next_try_on_the_clock(self, script: Script) -> None:
        clock = FakeClock()
        policy = RetryPolicy(max_attempts=2, base=4.0, cap=4.0)
        script.then("send", fails(Throttled))
        with (
            ThreadPoolExecutor(1) as aside,
            scripted(script, clock=clock, retry=policy) as client,
        ):
            sending = aside.submit(client.send, "jobs", message("a1"))
            clock.block_until(2)  # the sender, and the scheduler that will try again
            assert script.calls("send") == [("a1",)]
            clock.advance(4.0)

            assert sending.result(REAL) == "a1"

    def test_a_client_that_is_closed_sends_what_it_has(self, script: Script) -> None:
        clock = FakeClock()
        policy = RetryPolicy(max_attempts=2, base=4.0, cap=4.0, time_limit=10.0)
        script.then("send", fails(Throttled))
        with (
            ThreadPoolExecutor(2) as aside,
            scripted(script, clock=clock, retry=policy) as client,
        ):
            sending = aside.submit(client.send, "jobs", message("a1"))
            clock.block_until(2)  # the sender, and the scheduler that will try again
            closing = aside.submit(client.close)
            clock.block_until(3)
            clock.advance(4.0)

            assert sending.result(REAL) == "a1"
            closing.result(REAL)

    def test_a_client_that_is_closed_gives_up_what_it_could_not_send_in_time(self, script: Script) -> None:
        clock = FakeClock()
        policy = RetryPolicy(max_attempts=2, base=400.0, cap=400.0, time_limit=240.0)
        script.always("send", fails(Throttled))
        with (
            ThreadPoolExecutor(2) as aside,
            patch("random.random", lambda: 0.5),
            scripted(script, clock=clock, retry=policy) as client,
        ):
            sending = aside.submit(client.send, "jobs", message("a1"), timeout=1000.0)
            clock.block_until(2)
            closing = aside.submit(client.close, timeout=5.0)
            clock.block_until(3)
            clock.advance(5.0)

            with pytest.raises(Throttled):
                sending.result(REAL)
            closing.result(REAL)
        assert len(script.calls("send")) == 1


class TestAFailureForGood:
    def test_is_not_tried_again(self, client: QueueClient, script: Script) -> None:
        script.then("send", fails(AuthorizationFailed))

        with pytest.raises(AuthorizationFailed):
            client.send("jobs", message("a1"))
        assert len(script.calls("send")) == 1

    def test_stops_its_session_there_and_no_other(self, client: QueueClient, script: Script) -> None:
        script.then("send", fails_for({"a1": AuthorizationFailed}))

        outcomes = outcomes_of(
            client, "groups", *[message(name) for name in ("a1", "b1", "a2", "b2", "a3", "c1")]
        )

        assert shown(outcomes) == ["AuthorizationFailed", "b1", "NotAttempted", "b2", "NotAttempted", "c1"]
        assert sorted(stored(client, "groups")) == ["b1", "b2", "c1"]
        assert isinstance(outcomes[2].error, NotAttempted)
        assert "an earlier one of session 'a' failed, and order comes first" in str(outcomes[2].error)

    def test_when_the_attempts_are_used_up_stops_its_session_too(
        self, client: QueueClient, script: Script
    ) -> None:
        script.always("send", fails_for({"a1": Throttled}))

        outcomes = outcomes_of(client, "groups", message("a1"), message("a2"), message("b1"))

        assert shown(outcomes) == ["Throttled", "NotAttempted", "b1"]
        assert stored(client, "groups") == ["b1"]

    def test_of_a_whole_request_stops_the_requests_behind_it(
        self, client: QueueClient, script: Script
    ) -> None:
        script.then("send", fails(AuthorizationFailed))

        outcomes = outcomes_of(client, "events", *[message(f"a{n}") for n in range(101)], message("b1"))

        assert shown(outcomes[:100]) == ["AuthorizationFailed"] * 100
        assert shown(outcomes[100:]) == ["NotAttempted", "b1"]
        assert stored(client, "events") == ["b1"]

    def test_says_in_one_error_how_many_failed_and_each_outcome(
        self, client: QueueClient, script: Script
    ) -> None:
        script.then("send", fails_for({"b1": AuthorizationFailed}))

        with pytest.raises(
            BatchFailed, match=r"send to 'groups': 1 of 3 messages failed.*scripted: b1"
        ) as caught:
            client.send_batch("groups", [message("a1"), message("b1"), message("c1")])

        assert [outcome.ok for outcome in caught.value.outcomes] == [True, False, True]
        assert (caught.value.queue, caught.value.operation, caught.value.provider) == (
            "groups",
            "send",
            "memory",
        )


class TestAnUnknownOutcome:
    def test_is_said_if_the_last_try_was_not_answered(self, client: QueueClient, script: Script) -> None:
        script.always("send", loses())

        with pytest.raises(OutcomeUnknown):
            client.send("groups", message("a1"))
        assert stored(client, "groups") == ["a1"]

    def test_holds_back_what_comes_behind_it(self, client: QueueClient, script: Script) -> None:
        script.always("send", loses_for("a1"))

        outcomes = outcomes_of(client, "groups", message("a1"), message("a2"))

        assert shown(outcomes) == ["OutcomeUnknown", "NotAttempted"]

    @pytest.mark.parametrize("later", [Throttled, ConnectionFailed, AuthorizationFailed])
    def test_stays_unknown_whatever_a_later_try_says_of_itself(
        self, client: QueueClient, script: Script, later: type[QueueError]
    ) -> None:
        """The first try may have been stored; that a later one was not says nothing of it."""
        script.then("send", loses(), fails(later), fails(later))

        with pytest.raises(OutcomeUnknown):
            client.send("groups", message("a1"))
        assert stored(client, "groups") == ["a1"]

    def test_is_not_covered_by_the_breaker(self, script: Script) -> None:
        with scripted(script, breaker=BreakerPolicy(minimum_calls=1)) as client:
            script.then("send", loses())

            with pytest.raises(OutcomeUnknown):
                client.send("groups", message("a1"))
            assert script.calls("send") == [("a1",)]


class TestAnOpenBreaker:
    def test_answers_at_once_and_is_not_asked_again(self, script: Script) -> None:
        with scripted(script, breaker=BreakerPolicy(minimum_calls=3), clock=FakeClock()) as client:
            script.always("send", fails(Throttled))
            with pytest.raises(Throttled):
                client.send("jobs", message("a1"))

            with pytest.raises(CircuitOpen, match="send on queue 'jobs' keeps failing"):
                client.send("jobs", message("a2"))
            assert len(script.calls("send")) == 3

    def test_answers_for_each_entry_of_a_batch(self, script: Script) -> None:
        with scripted(script, breaker=BreakerPolicy(minimum_calls=3), clock=FakeClock()) as client:
            script.always("send", fails(Throttled))
            outcomes_of(client, "groups", message("a1"))

            outcomes = outcomes_of(client, "groups", message("b1"), message("b2"), message("c1"))

        assert shown(outcomes) == ["CircuitOpen", "NotAttempted", "CircuitOpen"]


FATES = ["well", "well", "well", "throttled", "refused", "lost before it was done", "lost after"]
ERRORS: dict[str, type[QueueError]] = {
    "throttled": Throttled,
    "refused": AuthorizationFailed,
    "lost before it was done": OutcomeUnknown,
    "lost after": OutcomeUnknown,
}


def weather(chance: random.Random, *, whole: bool) -> Step:
    """Each call has a fate, or each entry of it."""

    def step(act: Act) -> Any:
        if whole or chance.random() < 0.2:
            fate = chance.choice(FATES)
            answers = act.run() if fate in ("well", "lost after") else []
            if fate == "well":
                return answers
            raise ERRORS[fate]("scripted")
        fates = [chance.choice(FATES) for _ in act.ids]
        done = [i for i, fate in enumerate(fates) if fate in ("well", "lost after")]
        act.run_some(done)
        return [Outcome() if fate == "well" else Outcome(error=ERRORS[fate]("scripted")) for fate in fates]

    return step


class TestAnyWeather:
    @settings(max_examples=100)
    @given(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=30),
        st.sampled_from(["groups", "events"]),
        st.integers(0, 2**32),
    )
    def test_stores_of_each_session_what_comes_first_and_says_of_the_rest_that_it_did_not(
        self, sessions: list[str], queue: str, seed: int
    ) -> None:
        script = Script()
        script.always("send", weather(random.Random(seed), whole=queue == "events"))
        names = [f"{session}{number:02}" for number, session in enumerate(sessions)]
        with scripted(script) as client:
            outcomes = outcomes_of(client, queue, *[message(name) for name in names])
            found = stored(client, queue)

        for session in set(sessions):
            mine = [name for name in names if name[0] == session]
            there = [name for name in found if name[0] == session]
            assert there == mine[: len(there)], "in order, each once, without a gap"
        for name, outcome in zip(names, outcomes, strict=True):
            unknown = isinstance(outcome.error, OutcomeUnknown)
            assert unknown or outcome.ok == (name in found), f"{name}: {outcome}"

    @settings(max_examples=50)
    @given(st.integers(1, 30), st.integers(0, 2**32))
    def test_loses_nothing_silently_where_there_is_no_order_to_keep(self, number: int, seed: int) -> None:
        script = Script()
        script.always("send", weather(random.Random(seed), whole=False))
        names = [f"a{n:02}" for n in range(number)]
        with scripted(script, atomic_batch=False, max_batch=10) as client:
            outcomes = outcomes_of(client, "jobs", *[message(name) for name in names])
            found = stored(client, "jobs")

        for name, outcome in zip(names, outcomes, strict=True):
            unknown = isinstance(outcome.error, OutcomeUnknown)
            assert unknown or outcome.ok == (name in found), f"{name}: {outcome}"
