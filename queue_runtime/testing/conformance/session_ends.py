"""Rows: however a hold on a session ends, the next one begins at the first message that is not settled."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from queue_runtime.errors import SessionLeaseLost
from queue_runtime.testing.conformance.kit import GRACE, SLACK, Kit, Rows
from queue_runtime.testing.conformance.sessions import accept, try_accept
from queue_runtime.testing.conformance.settling import believed


class TestAbandon(Rows):
    def test_an_abandoned_head_comes_back_first(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        ids = desk.fill(4)

        with accept(desk) as session:
            session.abandon(session.receive()[0])

        drained = desk.drain(4)
        assert drained.ids == ids
        assert drained.messages[0].delivery_count == 2

    def test_an_abandoned_middle_comes_before_what_is_behind_it(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        ids = desk.fill(4)
        head, second = desk.take(2)

        desk.complete(head)
        with desk.session_of(second) as session:
            session.abandon(second)

        assert desk.drain(3).ids == ids[1:]

    def test_the_session_waits_for_the_delay(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        other = kit.desk("sessions", queue=desk.queue, client=kit.connect())
        ids = desk.fill(3)

        with accept(desk) as session:
            head = session.receive()[0]
            given_back = kit.time.clock.monotonic()
            session.abandon(head, delay=2.0)
        assert try_accept(other) is None, "a later message must not pass the one that was given back"

        drained = kit.call(lambda: other.take(1, wait=10.0), within=60.0)
        seconds = kit.time.clock.monotonic() - given_back
        assert [message.id for message in drained] == ids[:1]
        assert seconds >= 2.0 - SLACK
        other.complete(drained)
        assert other.drain(2).ids == ids[1:]

    def test_it_is_over_here(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        desk.fill(3)

        with accept(desk) as session:
            head, *rest = session.receive()
            session.abandon(head)

            assert session.lease.lost
            assert session.receive() == []
            for message in rest:
                with pytest.raises(SessionLeaseLost):
                    session.complete(message)


class TestClose(Rows):
    def test_closing_gives_the_session_back_at_once_and_in_order(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        other = kit.desk("sessions", queue=desk.queue, client=kit.connect())
        ids = desk.fill(4)

        session = accept(desk)
        session.receive()
        session.close()

        again, seconds = kit.timed(lambda: accept(other, wait=10.0))
        assert seconds < 3.0 + kit.opening
        again.close()
        assert other.drain(4).ids == ids

    def test_a_hold_that_was_let_go_counts_as_the_queue_says(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        desk.fill(1)

        with accept(desk) as session:
            session.receive()

        (message,) = desk.drain(1).messages
        assert message.delivery_count == 1 + kit.capabilities(desk.queue).counts_lost_sessions

    def test_what_was_not_settled_is_given_back(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        ids = desk.fill(4)

        with accept(desk) as session:
            head = session.receive()[0]
            session.complete(head)

        assert desk.drain(3).ids == ids[1:]

    def test_what_was_not_received_is_given_back(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        ids = desk.fill(4)

        with accept(desk):
            pass

        assert desk.drain(4).ids == ids

    def test_an_error_inside_gives_it_back_too(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        ids = desk.fill(2)

        def fail() -> None:
            with accept(desk) as session:
                session.complete(session.receive()[0])
                raise RuntimeError("the program failed")

        with pytest.raises(RuntimeError, match="the program failed"):
            fail()

        assert desk.drain(1).ids == ids[1:]

    def test_closing_twice_is_harmless(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        desk.fill(1)

        session = accept(desk)
        session.close()
        with session:
            pass
        session.close()

        assert len(desk.drain(1).ids) == 1

    def test_a_closed_session_settles_nothing(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        desk.fill(1)
        session = accept(desk)
        (message,) = session.receive()
        session.close()

        assert session.receive() == []
        with pytest.raises(SessionLeaseLost):
            session.complete(message)

        assert len(desk.drain(1).ids) == 1


class TestSessionLease(Rows):
    def test_a_lost_session_says_so(self, kit: Kit) -> None:
        desk = kit.desk("sessions", lease=kit.lease)
        desk.fill(2)
        session = accept(desk)
        head = session.receive()[0]
        held = not session.lease.lost

        kit.time.sleep(kit.lease + GRACE)

        assert held
        assert session.lease.lost
        assert head.lease.lost
        with pytest.raises(SessionLeaseLost):
            session.lease.check()
        acts: list[Callable[[], object]] = [
            lambda: session.complete(head),
            lambda: session.abandon(head),
            lambda: session.dead_letter(head, reason="because"),
            lambda: session.renew(),
            lambda: session.receive(),
        ]
        for act in acts:
            with pytest.raises(SessionLeaseLost):
                act()

    def test_a_lost_session_comes_again_elsewhere_in_order(self, kit: Kit) -> None:
        desk = kit.desk("sessions", lease=kit.lease)
        other = kit.desk("sessions", queue=desk.queue, client=kit.connect())
        ids = desk.fill(3)
        accept(desk).receive()

        kit.time.sleep(kit.lease + GRACE)

        drained = other.drain(3)
        assert drained.ids == ids
        counted = kit.capabilities(desk.queue).counts_lost_sessions
        assert drained.messages[0].delivery_count in ({2} if counted else {1, 2})

    def test_what_is_done_too_late_does_not_disturb_the_next_holder(self, kit: Kit) -> None:
        desk = kit.desk("sessions", lease=kit.lease)
        other = kit.desk("sessions", queue=desk.queue, client=kit.connect())
        third = kit.desk("sessions", queue=desk.queue, client=kit.connect())
        ids = desk.fill(2)
        late = accept(desk)
        head = late.receive()[0]
        kit.time.sleep(kit.lease + GRACE)

        with accept(other, wait=10.0) as session:
            with pytest.raises(SessionLeaseLost):
                late.complete(head)
            late.close()

            assert try_accept(third) is None
            messages = session.receive()
            session.complete(messages)

        assert [message.id for message in messages] == ids

    def test_a_lost_hold_takes_nothing_from_its_successor(self, kit: Kit) -> None:
        """The provider is asked, for the client is made to believe that the session is still held."""
        desk = kit.desk("sessions", lease=kit.lease)
        other = kit.desk("sessions", queue=desk.queue, client=kit.connect())
        ids = desk.fill(2)
        late = accept(desk)
        head = late.receive()[0]
        kit.time.sleep(kit.lease + GRACE)

        with accept(other, wait=10.0) as session:
            late.lease = head.lease = believed(kit, head)
            with pytest.raises(SessionLeaseLost):
                late.complete(head)
            late.close()
            again = session.receive()

        assert again[0].id == ids[0]
        assert desk.drain(2).ids == ids

    def test_a_renewed_session_lasts_from_its_renewal(self, kit: Kit) -> None:
        lease = kit.long_lease
        desk = kit.desk("sessions", lease=lease)
        desk.fill(2)
        session = accept(desk)
        messages = session.receive()
        kit.time.sleep(lease * 0.6)

        session.renew()
        kit.time.sleep(lease * 0.6)

        assert not session.lease.lost
        session.complete(messages)
        session.close()
        assert desk.drain().ids == []

    def test_the_lease_is_the_queues_own(self, kit: Kit) -> None:
        desk = kit.desk("sessions", lease=25.0)
        desk.fill(1)

        with accept(desk) as session:
            assert session.lease.length == 25.0
            assert 0 < session.lease.remaining() <= 25.0
