"""Dead letters: looked at where they lie, sent back in order, and never gone before the copy is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queue_runtime import DeadLetters, Message, MessageView, QueueClient
from queue_runtime.deadletter import ROUND
from queue_runtime.errors import (
    AuthorizationFailed,
    BatchFailed,
    InvalidArgument,
    InvalidReceipt,
    OutcomeUnknown,
    Throttled,
    UnsupportedOperation,
)
from queue_runtime.events import Event, LostLease
from queue_runtime.testing import FakeClock
from tests.fakes import REAL, Act, Gate, Script, fails, fails_for, loses, passes, scripted, stored

URL = "memory://?queues=events:sessions,groups:groups,jobs,mails"
DEAD = "/$DeadLetterQueue"


@pytest.fixture
def script() -> Script:
    return Script(longest_wait=0.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture(params=[True, False], ids=["can be looked into", "cannot"])
def client(
    request: pytest.FixtureRequest, script: Script, clock: FakeClock, events: list[Event]
) -> Iterator[QueueClient]:
    """A broker in memory can be looked into; SQS cannot, and hands out ten at once."""
    limits: dict[str, Any] = {} if request.param else {"peek": False, "max_batch": 10}
    with scripted(script, URL, clock=clock, listeners=[events.append], **limits) as made:
        yield made


def bury(client: QueueClient, queue: str, *names: str, reason: str = "bad") -> None:
    """On queues with sessions the first letter is the session."""
    client.send_batch(queue, [Message(body=n.encode(), id=n, session_id=n[0]) for n in names])
    if queue in ("jobs", "mails"):
        while found := client.receive(queue, max_messages=100):
            client.dead_letter(found, reason=reason)
        return
    left = len(names)
    while left:
        session = client.accept_session(queue)
        assert session is not None
        with session:
            while found := session.receive():
                session.dead_letter(found, reason=reason)
                left -= len(found)


def buried(client: QueueClient, queue: str) -> list[str]:
    return stored(client, queue + DEAD)


def free(client: QueueClient, queue: str) -> int | None:
    return client.describe(queue + DEAD).active


class TestLooking:
    def test_shows_them_with_their_records_and_leaves_them_where_they_are(
        self, client: QueueClient, script: Script
    ) -> None:
        bury(client, "jobs", "a1", "b1", "c1")

        found = client.dead_letters("jobs").list()

        assert [view.id for view in found] == ["a1", "b1", "c1"]
        assert {view.dead_letter.reason for view in found} == {"bad"}
        assert free(client, "jobs") == 3

    def test_shows_no_more_than_it_was_asked_for(self, client: QueueClient) -> None:
        bury(client, "jobs", *[f"a{n:02}" for n in range(25)])

        assert [view.id for view in client.dead_letters("jobs").list(12)] == [f"a{n:02}" for n in range(12)]
        assert free(client, "jobs") == 25

    def test_at_none_of_them_shows_none(self, client: QueueClient) -> None:
        bury(client, "jobs", "a1", "b1")

        assert client.dead_letters("jobs").list(0) == []

    def test_a_negative_limit_is_refused(self, client: QueueClient) -> None:
        with pytest.raises(InvalidArgument, match="limit must be a number from 0 on, it is -1"):
            client.dead_letters("jobs").list(-1)
        with pytest.raises(InvalidArgument, match="it is -1"):
            client.dead_letters("jobs").replay(limit=-1)

    def test_into_an_empty_queue_shows_nothing(self, client: QueueClient) -> None:
        assert client.dead_letters("jobs").list() == []
        assert client.dead_letters("jobs").count() == 0

    def test_counts_them_those_in_hands_included(self, client: QueueClient) -> None:
        bury(client, "jobs", "a1", "b1", "c1")
        client.receive("jobs" + DEAD)

        assert client.dead_letters("jobs").count() == 3

    @pytest.mark.parametrize("client", [True], indirect=True, ids=["can be looked into"])
    @pytest.mark.parametrize("told", ["active", "leased", "delayed"])
    def test_counts_page_by_page_where_the_broker_does_not_tell(
        self, client: QueueClient, script: Script, told: str
    ) -> None:
        bury(client, "jobs", *[f"a{n:03}" for n in range(250)])
        client.receive("jobs" + DEAD)
        script.always("describe", lambda act: replace(act.run(), **{told: None}))

        assert client.dead_letters("jobs").count() == 250
        assert len(script.calls("peek")) == 4, "the last one is empty"

    @pytest.mark.parametrize("client", [True], indirect=True, ids=["can be looked into"])
    def test_goes_on_where_one_request_shows_fewer_than_it_was_asked_for(
        self, client: QueueClient, script: Script
    ) -> None:
        bury(client, "jobs", *[f"a{n:02}" for n in range(25)])
        script.always("peek", lambda act: act.run()[:7])
        dead = client.dead_letters("jobs")

        assert [view.id for view in dead.list()] == [f"a{n:02}" for n in range(25)]
        assert [view.id for view in dead.list(8)] == [f"a{n:02}" for n in range(8)]

    @pytest.mark.parametrize("chosen", [True, False])
    def test_takes_them_for_a_lease_of_its_own_only_where_it_may(self, script: Script, chosen: bool) -> None:
        with scripted(script, URL + "&lease=45", chosen_lease=chosen, peek=False) as client:
            bury(client, "jobs", "a1")
            with patch.object(client.runtime(), "keep_alive") as kept:
                assert len(client.dead_letters("jobs").list()) == 1

        assert kept.call_args.args[0].lease.length == (30.0 if chosen else 45.0)

    def test_is_tried_again_when_that_may_help(self, client: QueueClient, script: Script) -> None:
        bury(client, "jobs", "a1")
        for operation in ("describe", "peek", "receive"):
            script.then(operation, fails(Throttled))

        assert len(client.dead_letters("jobs").list()) == 1

    def test_for_them_where_there_can_be_none_is_refused(self, client: QueueClient) -> None:
        nested = client.dead_letters("jobs" + DEAD)

        for act in (nested.count, nested.list, nested.replay):
            with pytest.raises(UnsupportedOperation, match="has no dead-letter queue; give it one"):
                act()


class TestReplaying:
    def test_sends_them_back_as_they_were(self, client: QueueClient) -> None:
        sent = Message(
            body=b"\x00\xff",
            id="m",
            attributes={"kind": "push"},
            content_type="application/x",
            correlation_id="c",
        )
        client.send("jobs", sent)
        client.dead_letter(client.receive("jobs"), reason="bad")

        assert client.dead_letters("jobs").replay() == 1

        [back] = client.receive("jobs")
        assert (back.id, back.body, dict(back.attributes)) == ("m", b"\x00\xff", {"kind": "push"})
        assert (back.content_type, back.correlation_id) == ("application/x", "c")
        assert (back.dead_letter, back.delivery_count) == (None, 1)
        assert buried(client, "jobs") == []

    @pytest.mark.parametrize("queue", ["events", "groups"])
    def test_is_not_taken_for_a_repetition_of_what_was_sent(self, client: QueueClient, queue: str) -> None:
        """Within five minutes the broker drops what has an id that it knows, and says that all is well."""
        bury(client, queue, "a1")
        for _ in range(3):
            assert client.dead_letters(queue).replay() == 1
            session = client.accept_session(queue)
            assert session is not None
            with session:
                session.dead_letter(session.receive(), reason="again")

    def test_of_none_sends_nothing(self, client: QueueClient, script: Script) -> None:
        assert client.dead_letters("jobs").replay() == 0
        assert script.calls("send") == []

    def test_takes_only_those_that_were_chosen_and_frees_the_others_at_once(
        self, client: QueueClient
    ) -> None:
        bury(client, "jobs", "a1", "b1", "a2", "c1")

        assert client.dead_letters("jobs").replay(where=lambda view: view.id.startswith("a")) == 2

        assert stored(client, "jobs") == ["a1", "a2"]
        assert buried(client, "jobs") == ["b1", "c1"]
        assert free(client, "jobs") == 2

    def test_chooses_by_reason(self, client: QueueClient) -> None:
        bury(client, "jobs", "a1", reason="Timeout")
        bury(client, "jobs", "b1", reason="Bad")

        replayed = client.dead_letters("jobs").replay(where=lambda view: view.dead_letter.reason == "Timeout")

        assert replayed == 1
        assert stored(client, "jobs") == ["a1"]

    @pytest.mark.parametrize("limit", [0, 1, 3, 12, 100])
    def test_takes_no_more_than_its_limit(self, client: QueueClient, limit: int) -> None:
        bury(client, "jobs", *[f"a{n:02}" for n in range(25)])

        replayed = client.dead_letters("jobs").replay(limit=limit)

        assert replayed == min(limit, 25)
        assert stored(client, "jobs") == [f"a{n:02}" for n in range(replayed)]
        assert free(client, "jobs") == 25 - replayed

    def test_counts_those_that_were_chosen_against_the_limit_and_no_others(self, client: QueueClient) -> None:
        bury(client, "jobs", "a1", "b1", "a2", "b2", "b3")

        assert client.dead_letters("jobs").replay(where=lambda view: view.id[0] == "b", limit=2) == 2

        assert stored(client, "jobs") == ["b1", "b2"]

    @pytest.mark.parametrize("queue", ["events", "groups"])
    def test_keeps_the_order_of_each_session(self, client: QueueClient, queue: str) -> None:
        names = [f"{session}{n}" for n in range(6) for session in "cab"]
        bury(client, queue, *names)

        client.dead_letters(queue).replay()

        for session in "abc":
            mine = [name for name in stored(client, queue) if name[0] == session]
            assert mine == [f"{session}{n}" for n in range(6)]

    def test_puts_a_session_in_order_that_was_buried_out_of_it(self, client: QueueClient) -> None:
        client.send_batch("jobs", [Message(body=f"a{n}".encode(), session_id="a") for n in range(3)])
        first, second, third = client.receive("jobs", max_messages=3)
        for message in (third, first, second):
            client.dead_letter(message, reason="bad")

        client.dead_letters("jobs").replay()

        assert stored(client, "jobs") == ["a0", "a1", "a2"]

    def test_that_raises_in_the_middle_frees_what_it_held(self, client: QueueClient) -> None:
        bury(client, "jobs", "a1", "b1", "c1")

        def where(view: MessageView) -> bool:
            raise ValueError(view.id)

        with pytest.raises(ValueError, match="a1"):
            client.dead_letters("jobs").replay(where=where)

        assert free(client, "jobs") == 3

    def test_by_two_at_once_sends_each_back_once(self, client: QueueClient) -> None:
        bury(client, "jobs", *[f"a{n:02}" for n in range(60)])

        with ThreadPoolExecutor(2) as aside:
            dead = [client.dead_letters("jobs"), client.dead_letters("jobs")]
            replayed = list(aside.map(DeadLetters.replay, dead))

        assert sum(replayed) == 60
        assert sorted(stored(client, "jobs")) == [f"a{n:02}" for n in range(60)]


class TestAReplayThatFails:
    def test_to_send_leaves_the_dead_letter(self, client: QueueClient, script: Script) -> None:
        bury(client, "jobs", "a1", "b1", "c1")
        script.then("send", fails_for({"b1": AuthorizationFailed}))

        with pytest.raises(
            BatchFailed, match=r"replay to 'jobs', 0 sent back before: 1 of 3 messages failed.*scripted: b1"
        ) as caught:
            client.dead_letters("jobs").replay()

        assert [(outcome.value, outcome.ok) for outcome in caught.value.outcomes] == [
            ("a1", True),
            ("b1", False),
            ("c1", True),
        ]
        assert stored(client, "jobs") == ["a1", "c1"]
        assert buried(client, "jobs") == ["b1"]
        assert free(client, "jobs") == 1

    def test_stops_its_session_there(self, client: QueueClient, script: Script) -> None:
        bury(client, "groups", "a1", "a2", "b1")
        script.then("send", fails_for({"a1": AuthorizationFailed}))

        with pytest.raises(BatchFailed):
            client.dead_letters("groups").replay()

        assert stored(client, "groups") == ["b1"]
        assert buried(client, "groups") == ["a1", "a2"]

    @pytest.mark.parametrize("step", [fails(OutcomeUnknown), loses()], ids=["not sent", "sent"])
    def test_without_an_answer_leaves_the_dead_letter(
        self, client: QueueClient, script: Script, step: Any
    ) -> None:
        bury(client, "groups", "a1")
        script.then("send", *[step] * 3)

        with pytest.raises(BatchFailed) as caught:
            client.dead_letters("groups").replay()

        assert isinstance(caught.value.outcomes[0].error, OutcomeUnknown)
        assert buried(client, "groups") == ["a1"]

        client.dead_letters("groups").replay()
        assert (stored(client, "groups"), buried(client, "groups")) == (["a1"], [])

    def test_to_remove_says_that_there_are_two(self, client: QueueClient, script: Script) -> None:
        bury(client, "jobs", "a1", "b1")
        script.then("settle", fails_for({"a1": InvalidReceipt}))

        with pytest.raises(BatchFailed) as caught:
            client.dead_letters("jobs").replay()

        assert [outcome.ok for outcome in caught.value.outcomes] == [False, True]
        assert stored(client, "jobs") == ["a1", "b1"]
        assert buried(client, "jobs") == ["a1"]

    def test_to_fetch_frees_what_it_has(self, client: QueueClient, script: Script) -> None:
        bury(client, "jobs", *[f"a{n:02}" for n in range(25)])
        script.then("receive", passes, fails(AuthorizationFailed))

        with pytest.raises(AuthorizationFailed):
            client.dead_letters("jobs").replay()

        assert free(client, "jobs") == 25


class TestTheHold:
    def test_is_kept_alive_however_long_the_choosing_takes(
        self, client: QueueClient, clock: FakeClock, script: Script
    ) -> None:
        bury(client, "jobs", "a1", "b1")
        seen: list[str] = []

        def slowly(view: MessageView) -> bool:
            seen.append(view.id)
            for _ in range(4):
                calls = len(script.calls("renew"))
                clock.block_until(1)
                clock.advance(15.0)
                while len(script.calls("renew")) == calls:
                    clock.block_until(1)
                client.runtime().pool.submit_in("jobs" + DEAD, lambda: None).result(REAL)
            return True

        assert client.dead_letters("jobs").replay(where=slowly) == 2
        assert seen == ["a1", "b1"]

    def test_that_is_removed_while_it_is_renewed_is_no_loss(
        self, client: QueueClient, clock: FakeClock, script: Script, events: list[Event]
    ) -> None:
        bury(client, "jobs", "a1")
        with Gate() as gate:
            script.then("renew", gate)

            def slowly(view: MessageView) -> bool:
                clock.block_until(1)
                clock.advance(15.0)
                gate.wait_until_reached()
                return True

            def settle(act: Act) -> Any:
                answers = act.run()
                gate.open()
                client.runtime().pool.submit_in("jobs" + DEAD, lambda: None).result(REAL)
                return answers

            script.then("settle", settle)
            assert client.dead_letters("jobs").replay(where=slowly) == 1

        assert [event for event in events if isinstance(event, LostLease)] == []


def test_the_queue_of_dead_letters_is_called_by_the_programs_own_name() -> None:
    clock, script, events = FakeClock(), Script(), list[Event]()
    url = f"memory://?queues=jobs&queue.jobs-dead=jobs{DEAD}"
    with scripted(script, url, clock=clock, listeners=[events.append]) as client:
        bury(client, "jobs", "a1")
        script.then("renew", fails(InvalidReceipt))

        def slowly(view: MessageView) -> bool:
            clock.block_until(1)
            clock.advance(15.0)
            client.runtime().pool.submit_in(f"jobs{DEAD}", lambda: None).result(REAL)
            return False

        client.dead_letters("jobs").replay(where=slowly)

    assert [event.queue for event in events if isinstance(event, LostLease)] == ["jobs-dead"]


@settings(max_examples=30)
@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=30),
    st.sets(st.sampled_from("abc")),
    st.none() | st.integers(0, 30),
    st.sampled_from(["events", "groups", "jobs"]),
    st.sampled_from([5, ROUND]),
)
def test_any_replay_moves_what_was_chosen_in_order_and_keeps_the_rest(
    sessions: list[str], chosen: set[str], limit: int | None, queue: str, at_once: int
) -> None:
    names = [f"{session}{number:02}" for number, session in enumerate(sessions)]
    with scripted(Script(), URL, clock=FakeClock()) as client:
        bury(client, queue, *names)

        with patch("queue_runtime.deadletter.ROUND", at_once):
            replayed = client.dead_letters(queue).replay(where=lambda view: view.id[0] in chosen, limit=limit)
        moved, left = stored(client, queue), buried(client, queue)

        assert free(client, queue) == len(left)
    wanted = [name for name in names if name[0] in chosen]
    assert replayed == len(moved) == len(wanted if limit is None else wanted[:limit])
    assert sorted(moved + left) == sorted(names)
    for session in chosen:
        mine: Sequence[str] = [name for name in wanted if name[0] == session]
        there = [name for name in moved if name[0] == session]
        assert there == mine[: len(there)]
