"""Dead letters go back in order, and never leave before the copy is there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queue_runtime import DeadLetters, Message, MessageView, QueueClient, ReceivedMessage
from queue_runtime.deadletter import ReplayReport
from queue_runtime.deadletter.holding import ROUND
from queue_runtime.errors import Closed
from queue_runtime.testing import FakeClock
from queue_runtime.testing.conformance.harness import FakeTime
from tests.deadletters.house import DEAD, LOOKED_INTO, NOT_LOOKED_INTO, URL, buried, bury, free
from tests.fakes import REAL, Act, Gate, Script, scripted, stored


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

        assert client.dead_letters("jobs").replay().replayed == ("m",)

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
            assert client.dead_letters(queue).replay(max_replays=None).replayed == ("a1",)
            session = client.accept_session(queue)
            assert session is not None
            with session:
                session.dead_letter(session.receive(), reason="again")

    def test_of_none_sends_nothing(self, client: QueueClient, script: Script) -> None:
        assert client.dead_letters("jobs").replay().replayed == ()
        assert script.calls("send") == []

    def test_takes_only_those_that_were_chosen_and_frees_the_others_at_once(
        self, client: QueueClient
    ) -> None:
        bury(client, "jobs", "a1", "b1", "a2", "c1")

        report = client.dead_letters("jobs").replay(where=lambda view: view.id.startswith("a"))

        assert (report.replayed, report.refused, report.ended) == (("a1", "a2"), ("b1", "c1"), "all")

        assert stored(client, "jobs") == ["a1", "a2"]
        assert buried(client, "jobs") == ["b1", "c1"]
        assert free(client, "jobs") == 2

    def test_chooses_by_reason(self, client: QueueClient) -> None:
        bury(client, "jobs", "a1", reason="Timeout")
        bury(client, "jobs", "b1", reason="Bad")

        client.dead_letters("jobs").replay(where=lambda view: view.dead_letter.reason == "Timeout")

        assert stored(client, "jobs") == ["a1"]

    @pytest.mark.parametrize("limit", [0, 1, 3, 12, 100])
    def test_takes_no_more_than_its_limit(self, client: QueueClient, limit: int) -> None:
        bury(client, "jobs", *[f"a{n:02}" for n in range(25)])

        report = client.dead_letters("jobs").replay(limit=limit)

        replayed = len(report.replayed)
        assert replayed == min(limit, 25)
        assert report.ended == ("all" if limit > 25 else "limit")
        assert len(set(stored(client, "jobs"))) == replayed  # a queue without sessions keeps no order
        assert free(client, "jobs") == 25 - replayed

    def test_counts_those_that_were_chosen_against_the_limit_and_no_others(self, client: QueueClient) -> None:
        bury(client, "jobs", "a1", "b1", "a2", "b2", "b3")

        report = client.dead_letters("jobs").replay(where=lambda view: view.id[0] == "b", limit=2)

        assert (report.replayed, report.left, report.refused) == (("b1", "b2"), ("b3",), ("a1", "a2"))

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

        with pytest.raises(ValueError, match="a1") as caught:
            client.dead_letters("jobs").replay(where=where)

        assert caught.value.__notes__ == ["replay to 'jobs': 0 were sent back before this"]

        assert free(client, "jobs") == 3

    def test_by_two_at_once_sends_each_back_once(self, client: QueueClient) -> None:
        bury(client, "jobs", *[f"a{n:02}" for n in range(60)])

        with ThreadPoolExecutor(2) as aside:
            dead = [client.dead_letters("jobs"), client.dead_letters("jobs")]
            replayed = list(aside.map(DeadLetters.replay, dead))

        assert sum(len(report.replayed) for report in replayed) == 60
        assert sorted(stored(client, "jobs")) == [f"a{n:02}" for n in range(60)]


class TestADryRun:
    def test_says_what_would_go_and_sends_nothing(self, client: QueueClient, script: Script) -> None:
        bury(client, "jobs", "a1", "b1", "a2", "c1")
        sent = len(script.calls("send"))
        dead = client.dead_letters("jobs")

        report = dead.replay(where=lambda view: view.id != "c1", limit=2, dry_run=True)

        assert report.dry_run
        assert (report.replayed, report.left, report.refused) == (("a1", "b1"), ("a2",), ("c1",))
        assert (len(script.calls("send")), free(client, "jobs")) == (sent, 4)
        assert str(report) == (
            "jobs: 2 would be replayed, 1 refused, 1 left; the limit is reached, there may be more"
        )

    @pytest.mark.parametrize("client", [LOOKED_INTO], indirect=True, ids=["can be looked into"])
    def test_touches_nothing_where_the_broker_can_be_looked_into(
        self, client: QueueClient, script: Script
    ) -> None:
        bury(client, "jobs", *[f"a{n:03}" for n in range(250)])
        received = len(script.calls("receive"))

        assert len(client.dead_letters("jobs").replay(dry_run=True).replayed) == 250

        assert len(script.calls("receive")) == received


class TestTheLoopGuard:
    def test_counts_how_often_a_message_came_back(self, client: QueueClient) -> None:
        bury(client, "jobs", "a1")
        for count in (1, 2, 3):
            client.dead_letters("jobs").replay()
            [message] = client.receive("jobs")
            assert message.replays == count
            client.dead_letter(message, reason="again")

        report = client.dead_letters("jobs").replay()

        assert (report.replayed, report.looping) == ((), ("a1",))
        assert buried(client, "jobs") == ["a1"]
        assert free(client, "jobs") == 1

    @pytest.mark.parametrize(("most", "goes"), [(0, False), (5, False), (6, True), (None, True)])
    def test_stops_at_the_number_it_is_given(self, client: QueueClient, most: int | None, goes: bool) -> None:
        bury(client, "jobs", "a1", replays=5)

        report = client.dead_letters("jobs").replay(max_replays=most)

        assert (report.replayed, report.looping) == ((("a1",), ()) if goes else ((), ("a1",)))

    def test_asks_first_whether_it_is_wanted(self, client: QueueClient) -> None:
        bury(client, "jobs", "a1", replays=5)

        report = client.dead_letters("jobs").replay(where=lambda view: False)

        assert (report.refused, report.looping) == (("a1",), ())

    def test_leaves_what_is_given_up_again_while_it_runs(self, client: QueueClient, script: Script) -> None:
        """A worker that is not mended would send it round and round."""
        bury(client, "jobs", "a1", "b1")

        def give_up_again(act: Act) -> Any:
            answers = act.run()
            if act.queue == "jobs":
                client.dead_letter(client.receive("jobs", max_messages=10), reason="still bad")
            return answers

        script.always("send", give_up_again)
        with patch("queue_runtime.deadletter.replaying.ROUND", 2):
            report = client.dead_letters("jobs").replay(max_replays=None)

        assert (report.replayed, report.returned) == (("a1", "b1"), ("a1", "b1"))
        assert free(client, "jobs") == 2

    def test_tells_two_messages_with_one_id_apart_from_one_that_comes_back(self, client: QueueClient) -> None:
        bury(client, "jobs", "a1", "a1")

        assert client.dead_letters("jobs").replay().replayed == ("a1", "a1")


class TestTheRate:
    @pytest.mark.parametrize(("rate", "seconds"), [(2.0, 4.5), (0.5, 18.0), (20.0, 0.4)])
    def test_spreads_the_messages_over_time(
        self, client: QueueClient, clock: FakeClock, script: Script, rate: float, seconds: float
    ) -> None:
        bury(client, "jobs", *[f"a{n}" for n in range(10)])
        began, sent = clock.monotonic(), list[tuple[float, int]]()

        def note(act: Act) -> Any:
            sent.append((clock.monotonic() - began, len(act.ids)))
            return act.run()

        script.always("send", note)
        report = beside(clock, lambda: client.dead_letters("jobs").replay(rate=rate))

        assert report.replayed == tuple(f"a{n}" for n in range(10))
        assert sent[-1][0] == pytest.approx(seconds)
        done = 0
        for at, count in sent:
            done += count
            assert done <= rate * at + max(1, rate / 10)

    def test_does_not_make_up_for_what_was_slow(
        self, client: QueueClient, clock: FakeClock, script: Script
    ) -> None:
        bury(client, "jobs", "a1", "b1", "c1")
        began, sent = clock.monotonic(), list[float]()

        def slowly(act: Act) -> Any:
            sent.append(clock.monotonic() - began)
            if len(sent) == 1:
                clock.advance(10.0)
            return act.run()

        script.always("send", slowly)
        beside(clock, lambda: client.dead_letters("jobs").replay(rate=1.0))

        assert sent == pytest.approx([0.0, 10.0, 11.0])

    def test_ends_when_the_client_closes(self, client: QueueClient, clock: FakeClock, script: Script) -> None:
        bury(client, "jobs", "a1", "b1", "c1")

        with ThreadPoolExecutor(1) as aside, Gate() as gate:
            script.then("settle", gate)
            replay = aside.submit(client.dead_letters("jobs").replay, rate=0.01)
            gate.wait_until_reached()
            gate.open()
            clock.block_until(2)  # it waits for its turn, the scheduler for its leases
            client.close()
            report = replay.result(REAL)

        assert (report.replayed, report.left, report.ended) == (("a1",), ("b1", "c1"), "error")
        assert isinstance(report.error, Closed)

    def test_takes_no_more_at_once_than_can_go_in_ten_minutes(
        self, client: QueueClient, script: Script
    ) -> None:
        bury(client, "jobs", *[f"a{n:02}" for n in range(20)])

        report = client.dead_letters("jobs").replay(rate=0.01, limit=1)

        assert (report.replayed, len(report.left)) == (("a00",), 5)


def beside(clock: FakeClock, work: Callable[[], ReplayReport]) -> ReplayReport:
    """Do *work* on a thread, and let time pass until it is done."""
    found: list[ReplayReport] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    FakeTime(clock).join([thread], 60.0)
    thread.join(REAL)
    return found[0]


class TestABigQueue:
    def test_is_taken_in_rounds_and_never_held_as_a_whole(self, client: QueueClient, script: Script) -> None:
        bury(client, "jobs", *[f"a{n:03}" for n in range(300)])
        most = 0

        def count(act: Act) -> Any:
            nonlocal most
            most = max(most, client.describe("jobs" + DEAD).leased or 0)
            return act.run()

        script.always("send", count)
        with patch("queue_runtime.deadletter.replaying.ROUND", 50):
            report = client.dead_letters("jobs").replay()

        assert len(report.replayed) == 300
        assert most == 50

    @pytest.mark.parametrize("client", [NOT_LOOKED_INTO], indirect=True, ids=["cannot"])
    def test_is_taken_in_smaller_rounds_if_its_bodies_are_large(
        self, client: QueueClient, script: Script
    ) -> None:
        bury(client, "jobs", *[f"a{n:03}" for n in range(50)])
        held: list[int | None] = []

        def note(act: Act) -> Any:
            held.append(client.describe("jobs" + DEAD).leased)
            return act.run()

        script.always("send", note)

        with patch("queue_runtime.deadletter.holding.ROUND_BYTES", 20 * 4):
            client.dead_letters("jobs").replay()

        assert {20, 10} <= set(held)
        assert all(count is not None and count <= 20 for count in held)

    def test_that_holds_too_many_of_those_that_stay_is_not_gone_through(self, client: QueueClient) -> None:
        bury(client, "jobs", *[f"a{n:03}" for n in range(60)], "z1")
        with (
            patch("queue_runtime.deadletter.holding.MOST_HELD", 40),
            patch("queue_runtime.deadletter.replaying.ROUND", 20),
        ):
            report = client.dead_letters("jobs").replay(where=lambda view: view.id == "z1")

        assert (len(report.refused), report.replayed, report.ended) == (40, (), "held")
        assert free(client, "jobs") == 61
        assert "there may be more" in str(report)

    def test_that_fills_as_fast_as_it_is_emptied_is_left_in_time(
        self, client: QueueClient, clock: FakeClock, script: Script
    ) -> None:
        bury(client, "jobs", *[f"a{n:03}" for n in range(500)])

        def slowly(act: Act) -> Any:
            clock.advance(10.0)
            return act.run()[:1]

        script.always("receive", slowly)
        report = client.dead_letters("jobs").replay()

        assert (len(report.replayed), report.ended) == (3, "time")

    @pytest.mark.parametrize("client", [NOT_LOOKED_INTO], indirect=True, ids=["cannot"])
    def test_is_held_for_longer_once_it_is_many(self, client: QueueClient) -> None:
        bury(client, "jobs", *[f"a{n:03}" for n in range(30)])
        lengths: list[float] = []
        keep_alive = client.runtime().keep_alive

        def kept(message: ReceivedMessage, **where: str) -> bool:
            lengths.append(message.lease.length)
            return keep_alive(message, **where)

        with (
            patch("queue_runtime.deadletter.holding.ROUND", 20),
            patch.object(client.runtime(), "keep_alive", kept),
        ):
            client.dead_letters("jobs").replay(where=lambda view: False)

        assert lengths == [30.0] * 20 + [300.0] * 10


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

        with (
            patch("queue_runtime.deadletter.replaying.ROUND", at_once),
            patch("queue_runtime.deadletter.carrier.CHUNK", 7),
        ):
            report = client.dead_letters(queue).replay(where=lambda view: view.id[0] in chosen, limit=limit)
        moved, left = stored(client, queue), buried(client, queue)

        assert free(client, queue) == len(left)
    wanted = [name for name in names if name[0] in chosen]
    assert sorted(report.replayed) == sorted(moved)
    assert len(moved) == len(wanted if limit is None else wanted[:limit])
    assert sorted(moved + left) == sorted(names)
    for session in chosen:
        mine: Sequence[str] = [name for name in wanted if name[0] == session]
        there = [name for name in moved if name[0] == session]
        assert there == mine[: len(there)]
