"""Sessions and groups in memory: what Service Bus and SQS FIFO do with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queue_runtime.errors import SessionLeaseLost, SessionNotAvailable, UnsupportedOperation
from queue_runtime.message import DeadLetterInfo, Delivery, Message
from queue_runtime.provider import Abandon, Complete, DeadLetter, ProviderSession, Settlement
from queue_runtime.providers.memory import InMemoryClient
from queue_runtime.testing import FakeClock
from tests.fakes import REAL
from tests.memory_hands import DEAD, accept, made, names, receive, send


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def client(clock: FakeClock) -> InMemoryClient:
    return made("memory://?queues=events:sessions,groups:groups,jobs", clock)


class TestASessionQueue:
    def test_gives_the_session_that_has_waited_longest(self, client: InMemoryClient) -> None:
        send(client, "events", "a1", "b1", "c1")
        turns = []
        for _ in range(6):
            session = accept(client)
            turns.append(session.session_id)
            session.close()

        assert turns == ["a", "b", "c", "a", "b", "c"]

    def test_gives_one_to_nobody_else_while_it_is_held(
        self, client: InMemoryClient, clock: FakeClock
    ) -> None:
        send(client, "events", "a1")
        session = accept(client)
        assert client.accept_sessions("events", 1, 0.0) == []

        clock.advance(20.0)
        assert session.renew() == clock.monotonic() + 30.0
        clock.advance(29.5)
        assert client.accept_sessions("events", 1, 0.0) == []
        clock.advance(0.5)

        again = accept(client)
        with pytest.raises(SessionLeaseLost):
            session.renew()
        assert again.receive(1, 0.0)[0].delivery_count == 1

    def test_a_lapsed_hold_closes_nothing_of_the_next(self, client: InMemoryClient, clock: FakeClock) -> None:
        send(client, "events", "a1")
        lapsed = accept(client)
        clock.advance(30.0)
        holder = accept(client)

        lapsed.close()

        assert client.accept_sessions("events", 1, 0.0) == []
        assert names(holder.receive(1, 0.0)) == ["a1"]

    def test_closing_one_twice_loses_nothing_that_has_come_since(self, client: InMemoryClient) -> None:
        send(client, "events", "a1")
        session = accept(client)
        session.settle([Complete(session.receive(1, 0.0)[0])])
        session.close()
        send(client, "events", "a2")

        session.close()

        assert names(client.peek("events", 10)) == ["a2"]
        assert names(accept(client).receive(1, 0.0)) == ["a2"]

    def test_more_may_come_while_it_is_held(self, client: InMemoryClient, clock: FakeClock) -> None:
        send(client, "events", "a1")
        session = accept(client)
        session.receive(1, 0.0)
        with ThreadPoolExecutor(1) as aside:
            waiting = aside.submit(session.receive, 5, 20.0)
            clock.block_until(1)
            send(client, "events", "b1", "a2")

            assert names(waiting.result(REAL)) == ["a2"]

    def test_a_receive_does_not_outlast_the_hold(self, client: InMemoryClient, clock: FakeClock) -> None:
        send(client, "events", "a1")
        session = accept(client)
        session.receive(1, 0.0)
        with ThreadPoolExecutor(1) as aside:
            waiting = aside.submit(session.receive, 5, 60.0)
            clock.block_until(1)
            clock.advance(30.0)

            assert isinstance(waiting.exception(REAL), SessionLeaseLost)

    def test_a_head_that_waits_holds_the_rest_back(self, client: InMemoryClient, clock: FakeClock) -> None:
        send(client, "events", "a1", "a2")
        session = accept(client)
        head, second = session.receive(2, 0.0)
        session.settle([Abandon(head, 60.0)])
        assert session.settle([Complete(second)])[0].ok  # what is in hand may still be settled
        send(client, "events", "a3")
        assert session.receive(5, 0.0) == []
        session.close()

        assert client.accept_sessions("events", 1, 0.0) == []
        clock.advance(60.0)
        assert names(accept(client).receive(5, 0.0)) == ["a1", "a3"]

    def test_messages_without_a_session_are_one_each(self, client: InMemoryClient) -> None:
        client.send("events", [Message(body=b"", id=each) for each in "xy"])

        assert {accept(client).session_id, accept(client).session_id} == {"x", "y"}

    def test_is_given_by_its_id_whether_it_has_messages_or_not(
        self, client: InMemoryClient, clock: FakeClock
    ) -> None:
        send(client, "events", "a1")
        held = client.accept_session("events", "a")
        empty = client.accept_session("events", "b")

        assert names(held.receive(5, 0.0)) == ["a1"]
        assert empty.receive(5, 0.0) == []
        for session_id in ("a", "b"):
            with pytest.raises(
                SessionNotAvailable, match=f"session '{session_id}' of queue 'events' is held"
            ):
                client.accept_session("events", session_id)
        clock.advance(30.0)
        assert client.accept_session("events", "b").receive(5, 0.0) == []
        with pytest.raises(SessionLeaseLost):
            empty.receive(5, 0.0)

    def test_gives_several_at_once_if_they_are_asked_for(self, client: InMemoryClient) -> None:
        send(client, "events", "a1", "b1", "c1")

        found = client.accept_sessions("events", 2, 0.0)

        assert [session.session_id for session in found] == ["a", "b"]
        assert [s.session_id for s in client.accept_sessions("events", 9, 0.0)] == ["c"]

    def test_counts_no_delivery_for_a_hold_that_was_closed_and_one_for_any_other_end(
        self, client: InMemoryClient, clock: FakeClock
    ) -> None:
        send(client, "events", "a1")
        counts = []
        for ends in ("by close", "by lapse", "by abandon", "by close"):
            session = accept(client)
            [delivery] = session.receive(1, 0.0)
            counts.append(delivery.delivery_count)
            if ends == "by abandon":
                session.settle([Abandon(delivery)])
            if ends == "by lapse":
                clock.advance(30.0)
            session.close()

        assert counts == [1, 1, 2, 3]

    def test_keeps_the_state_of_a_session_until_it_is_removed(
        self, client: InMemoryClient, clock: FakeClock
    ) -> None:
        session = client.accept_session("events", "a")
        assert session.get_state() is None
        session.set_state(b"state")
        clock.advance(30.0)
        for act in (session.get_state, lambda: session.set_state(b"too late")):
            with pytest.raises(SessionLeaseLost):
                act()

        session = client.accept_session("events", "a")
        assert session.get_state() == b"state"
        session.set_state(None)
        session.close()
        assert client.accept_session("events", "a").get_state() is None

    def test_brings_what_is_due_behind_what_is_there(self, client: InMemoryClient, clock: FakeClock) -> None:
        send(client, "events", "a1", delay=60.0)
        send(client, "events", "a2", delay=30.0)
        send(client, "events", "a3")
        session = accept(client)
        assert names(session.receive(5, 0.0)) == ["a3"]
        session.close()
        clock.advance(60.0)

        found = accept(client).receive(5, 0.0)

        assert names(found) == ["a3", "a2", "a1"]
        assert sorted(d.sequence or 0 for d in found) == [d.sequence for d in found]
        assert found[2].enqueued_at == clock.now()

    def test_ends_the_wait_of_an_accept_for_what_becomes_due(
        self, client: InMemoryClient, clock: FakeClock
    ) -> None:
        send(client, "events", "a1", delay=10.0)
        with ThreadPoolExecutor(1) as aside:
            accepting = aside.submit(client.accept_sessions, "events", 1, 20.0)
            clock.block_until(1)
            clock.advance(10.0)

            assert [session.session_id for session in accepting.result(REAL)] == ["a"]

    def test_ends_the_wait_of_its_holder_for_what_becomes_due(
        self, client: InMemoryClient, clock: FakeClock
    ) -> None:
        held = client.accept_session("events", "a")
        send(client, "events", "a1", delay=10.0)
        with ThreadPoolExecutor(1) as aside:
            receiving = aside.submit(held.receive, 1, 20.0)
            clock.block_until(1)
            clock.advance(10.0)

            assert names(receiving.result(REAL)) == ["a1"]

    def test_an_empty_one_is_forgotten(self, client: InMemoryClient) -> None:
        for number in range(50):
            client.send("events", [Message(body=b"", session_id=str(number))])
            session = accept(client)
            session.settle([Complete(session.receive(1, 0.0)[0])])
            session.close()

        client.accept_session("events", "never-sent-to").close()
        assert len(client._broker.queue("events")._sessions) == 0  # type: ignore[attr-defined]

    def test_its_messages_are_not_received_settled_or_renewed_past_it(self, client: InMemoryClient) -> None:
        send(client, "events", "a1")
        [delivery] = accept(client).receive(1, 0.0)

        for act in (
            lambda: client.receive("events", 1, 0.0),
            lambda: client.settle("events", [Complete(delivery)]),
            lambda: client.renew("events", [delivery]),
        ):
            with pytest.raises(UnsupportedOperation, match="queue 'events' has sessions"):
                act()

    def test_dead_letters_leave_their_session(self, client: InMemoryClient) -> None:
        send(client, "events", "a1", "a2")
        session = accept(client)
        session.settle([DeadLetter(session.receive(1, 0.0)[0], DeadLetterInfo(reason="bad"))])

        assert names(session.receive(5, 0.0)) == ["a2"]
        [dead] = client.peek("events" + DEAD, 5)
        assert (dead.message.id, dead.dead_letter) == ("a1", DeadLetterInfo(reason="bad"))


class TestAGroupQueue:
    def test_can_neither_be_asked_for_a_session_nor_take_a_message_back(self, client: InMemoryClient) -> None:
        for act in (
            lambda: client.accept_session("groups", "a"),
            lambda: client.accept_sessions("groups", 1, 0.0),
            lambda: client.schedule("groups", [Message(body=b"", delay=1.0)]),
            lambda: client.cancel("groups", ["1"]),
        ):
            with pytest.raises(UnsupportedOperation, match="queue 'groups'"):
                act()

    def test_gives_a_group_in_order_and_blocks_the_rest_while_one_is_out(
        self, client: InMemoryClient
    ) -> None:
        send(client, "groups", "a1", "a2", "b1", "a3")

        assert receive(client, "groups", 2) == ["a1", "a2"]
        assert receive(client, "groups") == ["b1"]

    def test_gives_its_head_again_while_later_ones_are_out(self, client: InMemoryClient) -> None:
        send(client, "groups", "a1", "a2", "a3")
        head, *_ = client.receive("groups", 2, 0.0)

        client.settle("groups", [Abandon(head)])

        assert receive(client, "groups") == ["a1"]

    def test_gives_nothing_while_the_head_waits(self, client: InMemoryClient, clock: FakeClock) -> None:
        send(client, "groups", "a1", "a2")
        head, second = client.receive("groups", 2, 0.0)

        client.settle("groups", [Abandon(head, 60.0), Abandon(second)])

        assert receive(client, "groups") == []
        clock.advance(60.0)
        assert receive(client, "groups") == ["a1", "a2"]

    def test_takes_as_many_as_fit_of_one_group_before_the_next(self, client: InMemoryClient) -> None:
        send(client, "groups", "a1", "b1", "a2", "b2", "a3")

        assert receive(client, "groups", 4) == ["a1", "a2", "a3", "b1"]

    def test_says_which_came_behind_others(self, client: InMemoryClient) -> None:
        send(client, "groups", "a1", "a2", "b1")

        found = client.receive("groups", 10, 0.0)

        assert [(d.message.id, d.follows) for d in found] == [("a1", False), ("a2", True), ("b1", False)]


def settlement(what: str, delivery: Delivery, delay: float) -> Settlement:
    if what == "complete":
        return Complete(delivery)
    if what == "abandon":
        return Abandon(delivery, delay)
    return DeadLetter(delivery, DeadLetterInfo(reason="x"))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from("abc")),
        st.tuples(st.just("take"), st.integers(1, 4)),
        st.tuples(st.sampled_from(["complete", "abandon", "bury", "pass"]), st.integers(0, 40)),
    ),
    max_size=60,
)


class TestAnyHistory:
    @settings(max_examples=150)
    @given(STEPS)
    def test_of_groups_completes_each_group_in_order_and_loses_nothing(
        self, steps: list[tuple[str, str | int]]
    ) -> None:
        """By holders that settle only the first of a group that they hold, as the library does."""
        clock = FakeClock()
        client = made("memory://?queues=groups:groups", clock)
        sent: defaultdict[str, list[str]] = defaultdict(list)
        done: defaultdict[str, list[str]] = defaultdict(list)
        held: dict[str, list[Delivery]] = {}
        for what, value in steps:
            if what == "send":
                name = f"{value}{sum(map(len, sent.values())):02}"
                send(client, "groups", name)
                sent[name[0]].append(name)
            elif what == "take":
                for delivery in client.receive("groups", int(value), 0.0):
                    held.setdefault(delivery.message.id[0], []).append(delivery)
            elif what == "pass":
                clock.advance(float(value))
            elif held:
                group = sorted(held)[int(value) % len(held)]
                delivery, *_ = held.pop(group)  # the rest lapses
                if (
                    client.settle("groups", [settlement(what, delivery, float(value))])[0].ok
                    and what != "abandon"
                ):
                    done[group].append(delivery.message.id)

        left = defaultdict(list)
        for delivery in client.peek("groups", 1000):
            left[delivery.message.id[0]].append(delivery.message.id)
        for group, mine in sent.items():
            assert sorted(done[group] + left[group]) == mine
            assert left[group] == sorted(left[group])

    @settings(max_examples=150)
    @given(STEPS)
    def test_of_sessions_completes_each_session_in_order_and_loses_nothing(
        self, steps: list[tuple[str, str | int]]
    ) -> None:
        clock = FakeClock()
        client = made("memory://?queues=events:sessions", clock)
        sent: defaultdict[str, list[str]] = defaultdict(list)
        done: defaultdict[str, list[str]] = defaultdict(list)
        held: list[ProviderSession] = []
        for what, value in steps:
            if what == "send":
                name = f"{value}{sum(map(len, sent.values())):02}"
                send(client, "events", name)
                sent[name[0]].append(name)
            elif what == "take":
                held += client.accept_sessions("events", int(value), 0.0)
            elif what == "pass":
                clock.advance(float(value))
            elif held:
                session = held.pop(int(value) % len(held))
                found: Sequence[Delivery] = []
                with suppress(SessionLeaseLost):
                    found = session.receive(1, 0.0)
                for delivery in found:
                    assert session.settle([settlement(what, delivery, float(value))])[0].ok
                    if what != "abandon":
                        done[session.session_id].append(delivery.message.id)
                session.close()
                session.close()

        left = [delivery.message.id for delivery in client.peek("events", 1000)]
        for name, mine in sent.items():
            assert done[name] + [each for each in left if each[0] == name] == mine
