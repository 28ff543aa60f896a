"""Rows: dead letters keep what they were, say why they are there, and go back whole and in order."""

from __future__ import annotations

import pytest

from queue_runtime import Message, MessageView
from queue_runtime.errors import UnsupportedOperation
from queue_runtime.testing.conformance.content import ATTRIBUTES
from queue_runtime.testing.conformance.harness import QueueSpec
from queue_runtime.testing.conformance.kit import GRACE, Desk, Kind, Kit, Rows, both_kinds
from queue_runtime.testing.conformance.limits import ID, excess, room


def bury(desk: Desk, count: int, *, session_id: str = "session") -> list[str]:
    """Send so many messages and dead-letter them, in order; returns their ids."""
    ids = desk.fill(count, session_id=session_id)
    buried: list[str] = []
    while len(buried) < count:
        (message,) = desk.take(1)
        desk.dead_letter(message)
        buried.append(message.id)
    desk.let_go()
    assert buried == ids or desk.kind == "plain"
    return ids


def whole(desk: Desk) -> Message:
    """A message with everything that a message can have."""
    return desk.message(
        b"\0binary",
        id="id 🐙",
        session_id="octo/repo#1",
        attributes=ATTRIBUTES,
        content_type="application/x",
        correlation_id="correlation",
    )


def facts(view: MessageView) -> tuple[object, ...]:
    return (
        view.id,
        view.body,
        dict(view.attributes),
        view.session_id,
        view.content_type,
        view.correlation_id,
    )


def facts_of(message: Message) -> tuple[object, ...]:
    return (
        message.id,
        message.body,
        dict(message.attributes),
        message.session_id,
        message.content_type,
        message.correlation_id,
    )


@both_kinds
class TestDeadLetters(Rows):
    def test_a_dead_lettered_message_is_gone_from_the_queue(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind, lease=kit.lease)
        bury(desk, 1)

        kit.time.sleep(kit.lease + GRACE)

        assert desk.nothing()
        kit.eventually(kit.client.dead_letters(desk.queue).count, 1)

    def test_it_keeps_what_it_was_and_says_why_it_is_there(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        desk.send(whole(desk))
        message = desk.one()
        desk.dead_letter(message, reason="Refused", description="it is 🐙\nof no use")

        (dead,) = kit.call(kit.client.dead_letters(desk.queue).list)

        assert facts(dead) == facts(message)
        info = dead.dead_letter
        assert info is not None
        assert (info.reason, info.description) == ("Refused", "it is 🐙\nof no use")
        assert (info.queue, info.message_id) == (desk.queue, message.id)
        assert (info.session_id, info.sequence) == (message.session_id, message.sequence)
        assert info.attempts == 1
        assert info.host

    def test_looking_changes_nothing(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        ids = bury(desk, 4)
        dead = kit.client.dead_letters(desk.queue)

        first = {view.id for view in kit.call(lambda: dead.list(limit=2))}
        assert len(first) == 2
        assert first <= set(ids)

        for _ in range(2):
            assert sorted(view.id for view in kit.call(dead.list)) == sorted(ids)

    def test_there_are_none_at_first(self, kit: Kit, kind: Kind) -> None:
        dead = kit.client.dead_letters(kit.queue(kind))

        assert dead.count() == 0
        assert kit.call(dead.list) == []

    def test_a_message_that_fills_the_limit_gets_there(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        body = b"x" * room(desk)
        assert excess(desk, body) is None

        desk.dead_letter(desk.one(), reason="Large", description="d" * 20_000)

        (dead,) = kit.client.dead_letters(desk.queue).list()
        assert (dead.id, dead.body) == (ID, body)
        assert dead.dead_letter is not None
        assert dead.dead_letter.reason == "Large"
        assert desk.nothing()


class TestNoDeadLetterQueue(Rows):
    def test_without_a_dead_letter_queue_the_message_stays(self, kit: Kit) -> None:
        """A dead-letter queue has none of its own. Not everything can be sent to one, but all is received."""
        above = kit.desk()
        bury(above, 1)
        queue = kit.describe(above.queue).dead_letter_queue
        assert queue is not None
        desk = kit.desk(queue=queue)
        assert kit.describe(queue).dead_letter_queue is None
        message = desk.one()

        with pytest.raises(UnsupportedOperation, match="dead-letter"):
            kit.client.dead_letter(message, reason="because")

        assert desk.nothing(), "it is held as before"
        kit.client.abandon(message)
        kit.client.complete(desk.one())

    def test_without_a_dead_letter_queue_there_is_nothing_to_look_at(self, kit: Kit) -> None:
        dead = kit.client.dead_letters(kit.queue("plain", dead_letters=False))

        for look in (dead.count, dead.list, dead.replay):
            with pytest.raises(UnsupportedOperation, match="dead-letter"):
                look()


@both_kinds
class TestReplay(Rows):
    def test_a_message_goes_there_and_back_again_and_again(self, kit: Kit, kind: Kind) -> None:
        """A broker that drops repeated deduplication ids would confirm a second copy and store none."""
        desk = kit.desk(kind)
        message = whole(desk)
        desk.send(message)
        dead = kit.client.dead_letters(desk.queue)

        for _ in range(2):
            received = desk.one()
            assert facts(received) == facts_of(message)
            assert (received.delivery_count, received.attempt) == (1, 1)
            assert received.dead_letter is None
            desk.dead_letter(received)
            desk.let_go()
            assert kit.call(dead.replay) == 1
            kit.eventually(dead.count, 0)

        assert desk.drain(1).ids == [message.id]

    def test_those_that_are_asked_for_are_replayed(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        ids = desk.fill(5)
        slow = {ids[1], ids[3]}
        for _ in ids:
            message = desk.one()
            desk.dead_letter(message, reason="Timeout" if message.id in slow else "Broken")
        desk.let_go()
        dead = kit.client.dead_letters(desk.queue)

        def is_slow(view: MessageView) -> bool:
            return view.dead_letter is not None and view.dead_letter.reason == "Timeout"

        assert kit.call(lambda: dead.replay(where=is_slow)) == 2

        assert set(desk.drain(2).ids) == slow
        kit.eventually(dead.count, 3)

    def test_a_replay_may_be_limited(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        ids = bury(desk, 12)
        dead = kit.client.dead_letters(desk.queue)

        assert kit.call(lambda: dead.replay(limit=2)) == 2
        first = desk.drain(2).ids
        assert kit.call(lambda: dead.replay(limit=0)) == 0
        assert kit.call(lambda: dead.replay(limit=100)) == 10

        assert sorted(first + desk.drain(10).ids) == sorted(ids)


class TestReplayOfSessions(Rows):
    def test_each_session_goes_back_in_its_order_behind_what_it_has_now(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        sessions = {name: bury(desk, 6, session_id=name) for name in ("a", "b", "c")}
        later = desk.fill(2, session_id="b")

        assert kit.call(kit.client.dead_letters(desk.queue).replay) == 18

        drained = desk.drain(20)
        sessions["b"] = later + sessions["b"]
        assert {name: drained.of(name) for name in sessions} == sessions

    def test_the_session_goes_on_behind_a_dead_letter(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        ids = desk.fill(3)

        desk.dead_letter(desk.one())

        assert desk.drain(2).ids == ids[1:]


@both_kinds
class TestTheBrokersOwnLimit(Rows):
    def test_a_message_delivered_too_often_is_moved_whole(self, kit: Kit, kind: Kind) -> None:
        queue = kit.queue_of(QueueSpec(sessions=kind == "sessions", max_receives=2))
        if kit.describe(queue).max_receives is None:
            pytest.skip("QueueDescription.max_receives is None")
        desk = kit.desk(kind, queue=queue)
        message = whole(desk)
        desk.send(message)

        for _ in range(2):
            received = desk.one()
            if kind == "plain":
                desk.client.abandon(received)
            else:
                desk.let_go()
        assert desk.nothing()

        seen: list[MessageView] = []

        def look(view: MessageView) -> bool:
            seen.append(view)
            return True

        assert kit.call(lambda: kit.client.dead_letters(queue).replay(where=look)) == 1
        assert [facts(view) for view in seen] == [facts_of(message)]
        assert facts(desk.one()) == facts_of(message)
