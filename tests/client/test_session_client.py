"""A session in hand, the same on a broker that gives out sessions and on one that gives out groups."""

from __future__ import annotations

from typing import Any

import pytest

from queue_runtime import QueueClient
from queue_runtime.errors import InvalidArgument, SessionLeaseLost, Throttled
from queue_runtime.testing import FakeClock
from tests.client.hands import Keeping, accepted, send
from tests.fakes import Script, fails, stored


@pytest.mark.parametrize("queue", ["events", "groups"])
class TestASession:
    def test_gives_its_messages_in_order_and_they_leave_it_settled(
        self, client: QueueClient, queue: str
    ) -> None:
        send(client, queue, "a1")
        with accepted(client, queue) as session:
            [first] = session.receive()
            session.complete(first)
            session.complete(first)
            assert session.receive() == []
        send(client, queue, "a2")
        with accepted(client, queue) as session:
            session.dead_letter(session.receive(), reason="bad")

        assert stored(client, queue) == []
        assert client.dead_letters(queue).count() == 1

    def test_left_is_free_at_once_with_what_was_not_settled(self, client: QueueClient, queue: str) -> None:
        send(client, queue, "a1")
        with accepted(client, queue) as session:
            [message] = session.receive()

        again = accepted(client, queue).receive()
        assert [each.id for each in again] == ["a1"]
        with pytest.raises(SessionLeaseLost, match="it was closed"):
            session.complete(message)

    def test_is_kept_alive_inside_its_block(self, client: QueueClient, queue: str, time: Keeping) -> None:
        send(client, queue, "a1")
        with accepted(client, queue) as session:
            [message] = session.receive()

            time.let_pass(100.0, session=session)

            session.complete(message)

    def test_abandoned_is_over(self, client: QueueClient, queue: str, clock: FakeClock) -> None:
        send(client, queue, "a1")
        with accepted(client, queue) as session:
            [message] = session.receive()
            session.abandon(message, delay=60.0)
            session.abandon(message)

            assert session.receive() == []
            with pytest.raises(SessionLeaseLost):
                session.renew()
        assert client.accept_session(queue) is None
        clock.advance(60.0)
        assert [m.id for m in accepted(client, queue).receive()] == ["a1"]

    def test_is_renewed_by_hand(self, client: QueueClient, queue: str, clock: FakeClock) -> None:
        send(client, queue, "a1")
        session = accepted(client, queue)
        clock.advance(20.0)

        session.renew()
        clock.advance(20.0)

        assert not session.lease.lost
        session.complete(session.receive())

    def test_renewed_by_hand_is_kept_alive_all_the_same(
        self, client: QueueClient, queue: str, time: Keeping
    ) -> None:
        send(client, queue, "a1")
        with accepted(client, queue) as session:
            [message] = session.receive()
            time.let_pass(10.0, session=session)
            session.renew()
            time.let_pass(14.5, session=session)
            assert time.renewals() == 1, "it is due again half a lease after that"
            time.let_pass(90.0, session=session)

            session.complete(message)

    def test_lost_settles_nothing(self, client: QueueClient, queue: str, clock: FakeClock) -> None:
        send(client, queue, "a1")
        session = accepted(client, queue)
        [message] = session.receive()
        clock.advance(30.0)

        for act in (lambda: session.complete(message), session.renew, session.receive):
            with pytest.raises(SessionLeaseLost):
                act()
        assert repr(session) == f"<SessionClient 'a' of '{queue}' [lost]>"

    @pytest.mark.parametrize("delay", [-1, float("inf"), float("nan"), "1"])
    def test_refuses_a_delay_that_is_none(self, client: QueueClient, queue: str, delay: Any) -> None:
        send(client, queue, "a1")
        with accepted(client, queue) as session:
            [message] = session.receive()

            with pytest.raises(InvalidArgument, match="delay must be a number of seconds from 0 on"):
                session.abandon(message, delay=delay)
            session.complete(message)

    @pytest.mark.parametrize(
        ("wrong", "text"),
        [
            ({"max_messages": 0}, "max_messages must be a whole number from 1 on, it is 0"),
            ({"max_messages": -1}, "max_messages must be a whole number from 1 on, it is -1"),
            ({"wait": -1.0}, "wait must be a number of seconds from 0 on, it is -1.0"),
            ({"wait": float("inf")}, "wait must be"),
            ({"wait": "2"}, "wait must be a number of seconds from 0 on, it is '2'"),
        ],
    )
    def test_refuses_a_question_that_is_none(
        self, client: QueueClient, queue: str, wrong: dict[str, Any], text: str
    ) -> None:
        send(client, queue, "a1")
        with accepted(client, queue) as session, pytest.raises(InvalidArgument, match=text):
            session.receive(**wrong)

    def test_settles_as_often_as_may_help(self, client: QueueClient, queue: str, script: Script) -> None:
        send(client, queue, "a1")
        with accepted(client, queue) as session:
            for operation in ("settle", "session.settle"):
                script.then(operation, fails(Throttled))
            session.complete(session.receive())

        assert stored(client, queue) == []
