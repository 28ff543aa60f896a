"""Rows: dead letters keep what they were, say why they are there, and go back whole and in order."""

from __future__ import annotations

import json
from io import StringIO

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

        shown = kit.call(lambda: dead.show(ids[2]))
        assert shown is not None
        assert (shown.id, shown.body) == (ids[2], b"2")
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

        (dead,) = kit.call(kit.client.dead_letters(desk.queue).list)
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

        for replays in range(2):
            received = desk.one()
            assert facts(received) == facts_of(message)
            assert (received.delivery_count, received.attempt) == (1, 1)
            assert received.replays == replays
            assert received.dead_letter is None
            desk.dead_letter(received)
            desk.let_go()
            assert kit.call(dead.replay).replayed == (message.id,)
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

        report = kit.call(lambda: dead.replay(where=is_slow))

        assert set(report.replayed) == slow
        assert set(report.refused) == set(ids) - slow
        assert set(desk.drain(2).ids) == slow
        kit.eventually(dead.count, 3)

    def test_a_replay_may_be_limited(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        ids = bury(desk, 12)
        dead = kit.client.dead_letters(desk.queue)

        assert len(kit.call(lambda: dead.replay(limit=2)).replayed) == 2
        first = desk.drain(2).ids
        assert kit.call(lambda: dead.replay(limit=0)).replayed == ()
        assert len(kit.call(lambda: dead.replay(limit=100)).replayed) == 10

        assert sorted(first + desk.drain(10).ids) == sorted(ids)

    def test_a_dry_run_says_what_would_go_and_moves_nothing(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        ids = bury(desk, 3)
        dead = kit.client.dead_letters(desk.queue)

        report = kit.call(lambda: dead.replay(where=lambda view: view.id != ids[1], dry_run=True))

        assert sorted(report.replayed) == sorted([ids[0], ids[2]])
        assert report.refused == (ids[1],)
        assert desk.nothing()
        assert sorted(kit.call(dead.replay).replayed) == sorted(ids), "none is held any more"

    def test_what_came_back_too_often_stays(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        desk.send(desk.message(id="loop", replays=2), desk.message(id="news"))
        for _ in range(2):
            desk.dead_letter(desk.one())
        desk.let_go()
        dead = kit.client.dead_letters(desk.queue)

        report = kit.call(lambda: dead.replay(max_replays=2))

        assert (report.replayed, report.looping) == (("news",), ("loop",))
        assert [letter.id for letter in kit.call(dead.list)] == ["loop"]


class TestReplayOfSessions(Rows):
    def test_each_session_goes_back_in_its_order_behind_what_it_has_now(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        sessions = {name: bury(desk, 6, session_id=name) for name in ("a", "b", "c")}
        later = desk.fill(2, session_id="b")

        report = kit.call(kit.client.dead_letters(desk.queue).replay)
        assert len(report.replayed) == 18

        drained = desk.drain(20)
        sessions["b"] = later + sessions["b"]
        assert {name: drained.of(name) for name in sessions} == sessions

    def test_the_session_goes_on_behind_a_dead_letter(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        ids = desk.fill(3)

        desk.dead_letter(desk.one())

        assert desk.drain(2).ids == ids[1:]


@both_kinds
class TestRemovingDeadLetters(Rows):
    def test_those_that_are_named_are_removed(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        ids = bury(desk, 4)
        dead = kit.client.dead_letters(desk.queue)

        report = kit.call(lambda: dead.remove([ids[1], ids[2], "never sent"]))

        assert sorted(report.removed) == sorted(ids[1:3])
        assert report.missing == ("never sent",)
        assert sorted(letter.id for letter in kit.call(dead.list)) == sorted([ids[0], ids[3]])
        assert desk.nothing()

    def test_a_purge_removes_what_its_plan_was_made_for(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        ids = bury(desk, 3)
        dead = kit.client.dead_letters(desk.queue)
        kit.eventually(dead.count, 3)
        plan = kit.call(dead.purge)
        assert plan.count == 3
        assert sorted(letter.id for letter in plan.samples) == sorted(ids)
        # On a broker that cannot be looked into its clock decides, which may differ from ours.
        later = bury(desk, 1) if kit.capabilities(desk.queue).peek else []

        assert kit.call(plan.confirm) == 3

        assert [letter.id for letter in kit.call(dead.list)] == later
        assert kit.call(plan.confirm) == 0

    def test_a_purge_of_everything_leaves_nothing(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        bury(desk, 3)
        dead = kit.client.dead_letters(desk.queue)
        kit.eventually(dead.count, 3)

        assert kit.call(lambda: dead.purge().confirm(everything=True)) == 3

        kit.eventually(lambda: len(kit.call(dead.list)), 0)


@both_kinds
class TestAFileOfDeadLetters(Rows):
    def test_a_message_goes_into_a_file_and_comes_back_from_it_whole(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        message = whole(desk)
        desk.send(message, desk.message("täxt".encode(), id="text", session_id="octo/repo#1"))
        for _ in range(2):
            desk.dead_letter(desk.one())
        desk.let_go()
        dead = kit.client.dead_letters(desk.queue)
        file = StringIO()

        exported = kit.call(lambda: dead.export(file, remove=True))

        assert (exported.exported, exported.ended) == (2, "all")
        kit.eventually(dead.count, 0)
        file.seek(0)
        imported = kit.call(lambda: dead.import_(file))
        assert (imported.sent, imported.next_line) == (2, 3)
        back = {each.id: each for each in desk.drain(2).messages}
        assert facts(back[message.id]) == facts_of(message)
        assert back["text"].text == "täxt"
        assert {each.replays for each in back.values()} == {1}

    def test_an_export_that_removes_nothing_leaves_all_where_it_is(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        ids = bury(desk, 3)
        dead = kit.client.dead_letters(desk.queue)
        file = StringIO()

        assert kit.call(lambda: dead.export(file)).exported == 3

        assert sorted(json.loads(line)["id"] for line in file.getvalue().splitlines()) == sorted(ids)
        assert sorted(letter.id for letter in kit.call(lambda: list(dead))) == sorted(ids)


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

        report = kit.call(lambda: kit.client.dead_letters(queue).replay(where=look))
        assert report.replayed == (message.id,)
        assert [facts(view) for view in seen] == [facts_of(message)]
        assert facts(desk.one()) == facts_of(message)
