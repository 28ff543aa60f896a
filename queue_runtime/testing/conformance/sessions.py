"""Rows: a session is in one pair of hands, and its messages come in order.

A session may be handed out whole, or piece by piece (on SQS: what the broker gave out together). Rows go
by what both ways have in common: accept, receive, settle, and accept again until nothing comes.
"""

from __future__ import annotations

import pytest

from queue_runtime import Message, SessionClient
from queue_runtime.errors import UnsupportedOperation
from queue_runtime.testing.conformance.content import IDS
from queue_runtime.testing.conformance.kit import Desk, Kit, Rows


def accept(desk: Desk, *, wait: float = 5.0) -> SessionClient:
    """The next session, which must come."""
    deadline = desk.kit.time.clock.monotonic() + wait
    while (session := try_accept(desk, 1.0)) is None and desk.kit.time.clock.monotonic() < deadline:
        desk.kit.yield_to_others()  # one of them may be giving back what another client had fetched
    assert session is not None, f"no session came within {wait:g} s"
    return session


def try_accept(desk: Desk, wait: float | None = None) -> SessionClient | None:
    """The next session, if there is one; without *wait* as long as it takes to be sure."""
    seconds = desk.kit.look if wait is None else wait
    return desk.kit.call(lambda: desk.client.accept_session(desk.queue, wait=seconds), within=seconds + 30.0)


class TestSessionOrder(Rows):
    def test_a_session_comes_in_the_order_of_sending(self, kit: Kit) -> None:
        desk = kit.desk("sessions")

        ids = [desk.send(desk.message(b"%d" % n))[0] for n in range(25)]

        assert desk.drain(25).ids == ids

    def test_a_batch_comes_in_its_order(self, kit: Kit) -> None:
        desk = kit.desk("sessions")

        ids = desk.fill(25)

        assert desk.drain(25).ids == ids

    def test_mixed_sessions_keep_each_its_order(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        names = [f"session-{n}" for n in range(4)]
        sent = {name: [] for name in names}  # type: dict[str, list[str]]
        for n in range(40):
            name = names[n * 7 % 4]
            sent[name] += desk.send(desk.message(b"%d" % n, session_id=name))

        drained = desk.drain(40)

        assert {name: drained.of(name) for name in names} == sent

    def test_one_by_one_is_the_same_order(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        ids = desk.fill(6)
        seen = []

        for _ in ids:
            message = desk.one()
            seen.append(message.id)
            desk.complete(message)

        assert seen == ids

    def test_sequences_rise_along_a_session(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        desk.fill(6)

        sequences = [message.sequence or 0 for message in desk.drain(6).messages]

        assert sequences == sorted(set(sequences))
        assert sequences[0] > 0

    def test_a_session_holds_messages_of_one_id_only(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        for n in range(9):
            desk.send(desk.message(session_id=f"session-{n % 3}"))
        seen = set()

        for _ in range(9):
            session = try_accept(desk)
            if session is None:
                break
            with session:
                messages = session.receive()
                assert {message.session_id for message in messages} == {session.session_id}
                seen.add(session.session_id)
                session.complete(messages)

        assert seen == {"session-0", "session-1", "session-2"}

    @pytest.mark.parametrize("text", IDS.values(), ids=IDS.keys())
    def test_a_session_may_have_any_id(self, kit: Kit, text: str) -> None:
        desk = kit.desk("sessions")
        ids = desk.fill(2, session_id=text)

        session = accept(desk)

        assert session.session_id == text
        session.close()
        assert desk.drain(2).of(text) == ids


class TestSessionMessages(Rows):
    def test_messages_without_a_session_are_delivered(self, kit: Kit) -> None:
        desk = kit.desk("sessions")

        ids = desk.client.send_batch(desk.queue, [Message(body=b"%d" % n) for n in range(3)])

        drained = desk.drain(3)
        assert sorted(drained.ids) == sorted(ids)
        assert [message.session_id for message in drained.messages] == [None] * 3

    def test_no_more_than_asked_for(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        ids = desk.fill(3)

        with accept(desk) as session:
            messages = session.receive(max_messages=1)

            assert [message.id for message in messages] == ids[:1]

    def test_a_message_is_received_once(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        ids = desk.fill(3)

        with accept(desk) as session:
            first = session.receive()
            second = kit.call(lambda: session.receive(wait=kit.look))

            assert [m.id for m in [*first, *second]] == ids[: len(first) + len(second)]

    def test_each_says_where_it_is_from(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        desk.fill(1)

        with accept(desk) as session:
            (message,) = session.receive()

            assert message.queue == desk.queue
            assert message.session_id == session.session_id == "session"
            assert (message.delivery_count, message.attempt) == (1, 1)
            assert not message.lease.lost

    def test_settling_twice_is_harmless(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        desk.fill(2)

        with accept(desk) as session:
            messages = session.receive()
            session.complete(messages[0])
            session.complete(messages[0])
            session.complete(messages)

        assert desk.drain().ids == []

    def test_a_repeated_deduplication_id_is_delivered_once(self, kit: Kit) -> None:
        """A retry of a webhook sends the same message again."""
        desk = kit.desk("sessions")

        for body in (b"first", b"again"):
            desk.send(desk.message(body, id="delivery-1"))
        desk.send(desk.message(b"other", id="delivery-2"))

        assert [message.body for message in desk.drain(2).messages] == [b"first", b"other"]


class TestOnePairOfHands(Rows):
    def test_a_held_session_is_not_given_to_another_client(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        other = kit.desk("sessions", queue=desk.queue, client=kit.connect())
        ids = desk.fill(2)

        with accept(desk) as session:
            (head,) = session.receive(max_messages=1)
            desk.fill(1)
            assert try_accept(other) is None
            session.complete(head)
            assert head.id == ids[0]

        assert len(other.drain(2).ids) == 2

    def test_a_held_session_is_not_given_to_another_caller_of_the_same_client(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        desk.fill(2)

        with accept(desk):
            assert try_accept(desk) is None

    def test_it_is_held_before_anything_is_received(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        other = kit.desk("sessions", queue=desk.queue, client=kit.connect())
        desk.fill(1)

        with accept(desk):
            assert try_accept(other) is None

    def test_other_sessions_flow_past_a_held_one(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        other = kit.desk("sessions", queue=desk.queue, client=kit.connect())
        desk.fill(2, session_id="a")
        desk.fill(2, session_id="b")

        with accept(desk) as mine, accept(other, wait=10.0) as theirs:
            assert {mine.session_id, theirs.session_id} == {"a", "b"}

    def test_a_session_kept_alive_stays_here(self, kit: Kit) -> None:
        lease = kit.long_lease
        desk = kit.desk("sessions", lease=lease)
        other = kit.desk("sessions", queue=desk.queue, client=kit.connect())
        desk.fill(2)

        with accept(desk) as session:
            messages = session.receive()
            kit.pass_held(1.5 * lease, session.lease)
            assert other.client.accept_session(other.queue) is None
            session.complete(messages)


class TestWrongKind(Rows):
    def test_a_session_queue_cannot_be_received_from(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        desk.fill(1)

        with pytest.raises(UnsupportedOperation, match="session") as caught:
            kit.client.receive(desk.queue)

        assert caught.value.queue == desk.queue
        assert desk.one().delivery_count == 1

    def test_a_plain_queue_has_no_sessions_to_accept(self, kit: Kit) -> None:
        desk = kit.desk()
        desk.fill(1)

        with pytest.raises(UnsupportedOperation, match="session") as caught:
            kit.client.accept_session(desk.queue)

        assert caught.value.queue == desk.queue
        assert desk.one().delivery_count == 1
