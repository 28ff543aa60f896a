"""Rows: looking at a queue without taking, and emptying it, where that can be done."""

from __future__ import annotations

from functools import partial

import pytest

from queue_runtime import MessageView
from queue_runtime.errors import InvalidArgument, UnsupportedOperation
from queue_runtime.testing.conformance.kit import Desk, Kind, Kit, Rows, both_kinds


def peek(desk: Desk, limit: int = 100, after: int = 0) -> list[MessageView]:
    return desk.kit.call(lambda: desk.client.peek(desk.queue, limit=limit, after=after))


def purge(desk: Desk) -> None:
    desk.client.purge(desk.queue)


def shown(kit: Kit, kind: Kind) -> Desk:
    """A queue that shows its messages."""
    desk = kit.desk(kind)
    if not kit.capabilities(desk.queue).peek:
        pytest.skip("Capabilities.peek is False")
    return desk


@both_kinds
class TestPeek(Rows):
    def test_messages_are_shown_in_their_order_with_all_that_they_are(self, kit: Kit, kind: Kind) -> None:
        desk = shown(kit, kind)
        ids = desk.fill(5)
        last = desk.message(b"\0", attributes={"a": "b"}, content_type="t", correlation_id="c")
        desk.send(last)

        found = peek(desk)

        assert [view.id for view in found] == [*ids, last.id]
        view = found[-1]
        assert (view.body, dict(view.attributes)) == (last.body, {"a": "b"})
        assert (view.content_type, view.correlation_id) == ("t", "c")
        assert view.session_id == last.session_id

    def test_they_are_there_still(self, kit: Kit, kind: Kind) -> None:
        desk = shown(kit, kind)
        ids = desk.fill(3)

        for _ in range(2):
            assert [view.id for view in peek(desk)] == ids

        drained = desk.drain(3)
        assert sorted(drained.ids) == sorted(ids)
        assert {message.delivery_count for message in drained.messages} == {1}

    def test_one_may_go_on_where_one_has_stopped(self, kit: Kit, kind: Kind) -> None:
        desk = shown(kit, kind)
        ids = desk.fill(5)

        first = peek(desk, limit=2)
        assert first[-1].sequence is not None
        rest = peek(desk, after=first[-1].sequence)

        assert [view.id for view in first + rest] == ids

    def test_what_is_in_hand_is_shown_too(self, kit: Kit, kind: Kind) -> None:
        desk = shown(kit, kind)
        desk.fill(2)
        message = desk.one()

        assert message.id in [view.id for view in peek(desk)]

    def test_what_is_not_due_yet_is_shown_too(self, kit: Kit, kind: Kind) -> None:
        desk = shown(kit, kind)
        if kit.capabilities(desk.queue).max_delay == 0:
            pytest.skip("Capabilities.max_delay is 0")
        sent = desk.send(desk.message(delay=60.0), desk.message())

        assert sorted(view.id for view in peek(desk)) == sorted(sent)

    def test_an_empty_queue_shows_nothing(self, kit: Kit, kind: Kind) -> None:
        assert peek(shown(kit, kind)) == []

    def test_none_at_all_cannot_be_asked_for(self, kit: Kit, kind: Kind) -> None:
        with pytest.raises(InvalidArgument, match="limit"):
            peek(shown(kit, kind), limit=0)

    def test_where_it_cannot_be_done_it_is_said_with_the_way_out(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        if kit.capabilities(desk.queue).peek:
            pytest.skip("Capabilities.peek is True")
        desk.fill(1)

        with pytest.raises(UnsupportedOperation, match=r"receive|accept") as caught:
            peek(desk)

        assert caught.value.queue == desk.queue
        assert desk.one().delivery_count == 1


@both_kinds
class TestPurge(Rows):
    def test_a_purge_removes_all(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        found = kit.capabilities(desk.queue)
        if not found.purge:
            pytest.skip("Capabilities.purge is False")
        desk.fill(12)
        if found.max_delay >= 1.0:
            desk.send(desk.message(delay=1.0))
        desk.one()

        purge(desk)
        desk.let_go()
        kit.time.sleep(1.5)

        kit.eventually(lambda: kit.describe(desk.queue).active or 0, 0)
        assert desk.nothing()

    def test_what_is_sent_after_it_arrives(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        if not kit.capabilities(desk.queue).purge:
            pytest.skip("Capabilities.purge is False")
        desk.fill(2)

        purge(desk)
        kit.time.sleep(kit.harness.counts_lag)  # what is sent while it is under way may go with the others
        sent = desk.fill(1)

        assert desk.drain(1).ids == sent

    def test_the_dead_letters_stay(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        if not kit.capabilities(desk.queue).purge:
            pytest.skip("Capabilities.purge is False")
        desk.fill(2)
        message = desk.one()
        desk.dead_letter(message)
        desk.let_go()

        purge(desk)

        kit.eventually(lambda: kit.describe(desk.queue).active or 0, 0)
        assert [dead.id for dead in kit.call(kit.client.dead_letters(desk.queue).list)] == [message.id]

    def test_where_it_cannot_be_done_it_is_said_and_nothing_is_removed(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        if kit.capabilities(desk.queue).purge:
            pytest.skip("Capabilities.purge is True")
        sent = desk.fill(1)

        with pytest.raises(UnsupportedOperation, match="emptied") as caught:
            purge(desk)

        assert caught.value.queue == desk.queue
        assert desk.drain(1).ids == sent


@both_kinds
class TestDeduplication(Rows):
    def test_of_two_with_one_deduplication_id_one_comes(self, kit: Kit, kind: Kind) -> None:
        desk = self.deduplicating(kit, kind)

        first, second = desk.send(
            desk.message(b"first", deduplication_id="the same"),
            desk.message(b"second", deduplication_id="the same"),
        )

        assert first != second
        assert desk.drain(1).ids == [first]

    def test_of_many_sent_at_once_with_one_deduplication_id_one_comes(self, kit: Kit, kind: Kind) -> None:
        desk = self.deduplicating(kit, kind)
        messages = [desk.message(b"%d" % n, deduplication_id="the same") for n in range(8)]

        jobs = [kit.start(partial(desk.client.send, desk.queue, message)) for message in messages]
        kit.join(*jobs)

        came = desk.drain(1).ids
        assert len(came) == 1
        assert came[0] in [message.id for message in messages]

    def test_equal_messages_with_different_ids_all_come(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)

        sent = desk.send(*(desk.message(b"the same") for _ in range(3)))

        assert sorted(desk.drain(3).ids) == sorted(sent)

    def test_the_message_id_is_one_where_no_other_is_given(self, kit: Kit, kind: Kind) -> None:
        desk = self.deduplicating(kit, kind)

        desk.send(desk.message(b"first", id="the same"), desk.message(b"second", id="the same"))

        assert [message.body for message in desk.drain(1).messages] == [b"first"]

    def test_one_that_was_completed_is_remembered(self, kit: Kit, kind: Kind) -> None:
        desk = self.deduplicating(kit, kind)
        message = desk.message()
        desk.send(message)
        desk.drain(1)

        desk.send(message)

        assert desk.nothing()

    def test_where_the_queue_remembers_none_both_come(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        if kit.capabilities(desk.queue).deduplication is not False:
            pytest.skip("Capabilities.deduplication is not False")

        desk.send(desk.message(id="the same"), desk.message(id="the same"))

        assert desk.drain(2).ids == ["the same"] * 2

    def deduplicating(self, kit: Kit, kind: Kind) -> Desk:
        desk = kit.desk(kind)
        found = kit.capabilities(desk.queue).deduplication
        if not found:
            pytest.skip(f"Capabilities.deduplication is {found}")
        return desk
