"""Rows: a message that is not due yet can be taken back, and one that is cannot."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from queue_runtime import ScheduledMessage
from queue_runtime.errors import InvalidArgument, InvalidReceipt, UnsupportedOperation
from queue_runtime.testing.conformance.kit import SLACK, Desk, Kind, Kit, Rows, both_kinds


def cancelling(kit: Kit, kind: Kind) -> Desk:
    """A queue that can take messages back."""
    desk = kit.desk(kind)
    if not kit.capabilities(desk.queue).cancel:
        pytest.skip("Capabilities.cancel is False")
    return desk


def schedule(desk: Desk, delay: float, **fields: Any) -> ScheduledMessage:
    return desk.client.schedule(desk.queue, desk.message(delay=delay, **fields))


def long_enough(kit: Kit) -> float:
    """Seconds of a delay that leaves the time to cancel."""
    return 2.0 + kit.opening


@both_kinds
class TestScheduling(Rows):
    def test_a_scheduled_message_comes_when_it_is_due(self, kit: Kit, kind: Kind) -> None:
        desk = cancelling(kit, kind)
        before = kit.time.clock.now()
        scheduled = schedule(desk, 1.0)

        message, seconds = kit.timed(lambda: desk.one(wait=10.0))

        assert message.id == scheduled.message_id
        assert scheduled.queue == desk.queue
        assert timedelta(0) <= scheduled.due_at - before - timedelta(seconds=1.0) <= timedelta(seconds=10.0)
        assert 1.0 - SLACK <= seconds <= 1.0 + 2.0 + kit.opening

    def test_one_that_was_cancelled_never_comes_and_the_others_do(self, kit: Kit, kind: Kind) -> None:
        desk = cancelling(kit, kind)
        kept, cancelled, also_kept = (schedule(desk, long_enough(kit), body=b"%d" % n) for n in range(3))

        desk.client.cancel(cancelled)
        kit.time.sleep(long_enough(kit))

        drained = desk.drain(2)
        assert sorted(drained.ids) == sorted([kept.message_id, also_kept.message_id])

    def test_another_client_can_cancel_it(self, kit: Kit, kind: Kind) -> None:
        desk = cancelling(kit, kind)
        scheduled = schedule(desk, long_enough(kit))

        kit.connect().cancel(scheduled)
        kit.time.sleep(long_enough(kit) + 2 * SLACK)

        assert desk.nothing()

    def test_one_that_is_due_cannot_be_cancelled(self, kit: Kit, kind: Kind) -> None:
        desk = cancelling(kit, kind)
        scheduled = schedule(desk, 1.0)
        kit.time.sleep(1.0 + 2 * SLACK)

        with pytest.raises(InvalidReceipt) as caught:
            desk.client.cancel(scheduled)

        assert caught.value.queue == desk.queue
        assert desk.one().id == scheduled.message_id

    def test_one_that_was_received_cannot_be_cancelled(self, kit: Kit, kind: Kind) -> None:
        desk = cancelling(kit, kind)
        scheduled = schedule(desk, 1.0)
        message = desk.one(wait=10.0)

        with pytest.raises(InvalidReceipt):
            desk.client.cancel(scheduled)

        desk.complete(message)

    def test_it_is_cancelled_once(self, kit: Kit, kind: Kind) -> None:
        desk = cancelling(kit, kind)
        scheduled = schedule(desk, 60.0)
        desk.client.cancel(scheduled)

        with pytest.raises(InvalidReceipt):
            desk.client.cancel(scheduled)

    def test_one_without_a_delay_is_refused(self, kit: Kit, kind: Kind) -> None:
        desk = cancelling(kit, kind)

        with pytest.raises(InvalidArgument, match="delay"):
            schedule(desk, 0.0)

        assert desk.nothing()

    def test_where_it_cannot_be_done_it_is_said_before_anything_is_sent(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        if kit.capabilities(desk.queue).cancel:
            pytest.skip("Capabilities.cancel is True")

        with pytest.raises(UnsupportedOperation, match="take back") as caught:
            schedule(desk, 1.0)

        assert caught.value.queue == desk.queue
        kit.time.sleep(1.0 + SLACK)
        assert desk.nothing()


class TestSchedulingInASession(Rows):
    def test_one_that_is_not_due_holds_back_no_other_of_its_session(self, kit: Kit) -> None:
        desk = cancelling(kit, "sessions")
        late = schedule(desk, 2.0)
        ids = desk.fill(2)

        drained = desk.drain(2)
        last = desk.one(wait=10.0)

        assert drained.ids == ids
        assert (last.id, last.session_id) == (late.message_id, "session")
