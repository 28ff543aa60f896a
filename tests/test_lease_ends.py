"""Leases that are forgotten, settled, or renewed by a call that hangs: no loss made up, none kept quiet."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from queue_runtime.errors import InvalidReceipt, SessionLeaseLost
from tests.fakes import REAL
from tests.lease_house import Hang, House


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.close()
    assert made.pool.thread_names() == []


class TestAHangingCall:
    def test_does_not_keep_the_loss_of_its_lease_from_being_told(self, house: House) -> None:
        broker = house.broker()
        lease = house.hold(broker)
        with Hang(broker) as hang:
            house.let_pass(15.0, without=broker)
            hang.wait_until_reached()

            house.let_pass(14.5, without=broker)
            before = lease.lost
            house.let_pass(0.5, without=broker)

            assert (before, lease.lost) == (False, True)
            assert house.losses() == ["m"]

    def test_that_is_answered_after_the_end_changes_nothing(self, house: House) -> None:
        broker = house.broker()
        lease = house.hold(broker)
        with Hang(broker) as hang:
            house.let_pass(15.0, without=broker)
            hang.wait_until_reached()
            house.let_pass(15.0, without=broker)

        house.let_pass(30.0)

        assert lease.lost
        assert house.losses() == ["m"]
        assert broker.times() == [15.0]

    def test_costs_no_other_lane_its_leases(self, house: House) -> None:
        stuck, healthy = house.broker("stuck"), house.broker("healthy")
        lost, kept = house.hold(stuck, "lost"), house.hold(healthy, "kept")

        with Hang(stuck):
            house.let_pass(90.0, without=stuck)

        assert (lost.lost, kept.lost) == (True, False)
        assert healthy.times() == [15.0, 30.0, 45.0, 60.0, 75.0, 90.0]

    def test_of_one_lane_is_the_only_one_of_it(self, house: House) -> None:
        broker = house.broker()
        house.hold(broker, "a")
        house.let_pass(5.0)
        house.hold(broker, "b")
        with Hang(broker) as hang:
            house.let_pass(10.0, without=broker)
            hang.wait_until_reached()
            house.let_pass(10.0, without=broker)

            assert broker.calls == [(15.0, ["a"])]

        house.let_pass(0.0)
        assert [ids for _, ids in broker.calls] == [["a"], ["b"]]


class TestForgetting:
    def test_ends_the_renewals(self, house: House) -> None:
        broker = house.broker()
        lease = house.hold(broker)
        house.let_pass(15.0)

        house.renewer.forget(lease)
        house.renewer.forget(lease)
        house.let_pass(60.0)

        assert broker.times() == [15.0]
        assert house.losses() == []
        assert len(house.renewer) == 0

    def test_without_join_does_not_wait(self, house: House) -> None:
        broker = house.broker()
        lease = house.hold(broker)
        with Hang(broker) as hang:
            house.let_pass(15.0, without=broker)
            hang.wait_until_reached()

            house.renewer.forget(lease)

            assert len(house.renewer) == 0

    @pytest.mark.parametrize("forgotten_before", [False, True], ids=["at once", "forgotten before"])
    def test_with_join_waits_for_a_renewal_under_way(self, house: House, forgotten_before: bool) -> None:
        """Else the visibility that an abandon sets would be overwritten by a renewal that comes after it."""
        broker = house.broker()
        lease = house.hold(broker)
        order: list[str] = []

        def forget() -> None:
            house.renewer.forget(lease, join=True)
            order.append("forgotten")

        waiting = threading.Thread(target=forget, daemon=True)
        with Hang(broker) as hang:
            house.let_pass(15.0, without=broker)
            hang.wait_until_reached()
            if forgotten_before:
                house.renewer.forget(lease)
            waiting.start()
            house.clock.block_until(2)
            order.append("answered")
        waiting.join(REAL)

        assert order == ["answered", "forgotten"]

    @pytest.mark.parametrize("lost", [False, True], ids=["held", "lost before"])
    def test_with_join_waits_at_most_for_the_length_of_the_lease(self, house: House, lost: bool) -> None:
        broker = house.broker()
        lease = house.hold(broker)
        join = {"join": True}
        waiting = threading.Thread(target=house.renewer.forget, args=(lease,), kwargs=join, daemon=True)
        with Hang(broker) as hang:
            house.let_pass(15.0, without=broker)
            hang.wait_until_reached()
            if lost:
                lease.lose("by another's word")
            waiting.start()
            house.clock.block_until(2)

            house.clock.advance(29.5)
            house.clock.block_until(2)
            house.clock.advance(0.5)
            waiting.join(REAL)

            assert not waiting.is_alive()

    def test_keeps_a_renewal_that_waits_for_its_lane_from_being_made(self, house: House) -> None:
        broker = house.broker()
        house.hold(broker, "a")
        house.let_pass(5.0)
        b = house.hold(broker, "b")
        with Hang(broker) as hang:
            house.let_pass(10.0, without=broker)
            hang.wait_until_reached()
            house.let_pass(5.0, without=broker)  # a hangs, b stands behind it

            house.renewer.forget(b, join=True)  # and does not wait for a

        house.let_pass(0.0)
        assert broker.calls == [(15.0, ["a"])]


class TestSettling:
    def test_a_renewal_that_fails_because_of_it_is_no_loss(self, house: House) -> None:
        broker = house.broker()
        lease = house.hold(broker)
        broker.says(InvalidReceipt)

        house.renewer.settling([lease], True)
        house.let_pass(15.0)
        house.renewer.settled([lease])
        house.renewer.settling([lease], False)
        house.let_pass(60.0)

        assert broker.times() == [15.0]
        assert not lease._lost_because
        assert house.losses() == []

    def test_a_lease_is_renewed_meanwhile(self, house: House) -> None:
        broker = house.broker()
        lease = house.hold(broker)

        house.renewer.settling([lease], True)
        house.let_pass(40.0)

        assert broker.times() == [15.0, 30.0]
        assert not lease.lost

    def test_that_failed_leaves_a_loss_a_loss(self, house: House) -> None:
        broker = house.broker()
        lease = house.hold(broker)
        broker.says(InvalidReceipt)
        house.renewer.settling([lease], True)
        house.let_pass(15.0)

        house.renewer.settling([lease], False)
        house.let_pass(0.5)

        assert lease.lost
        assert house.losses() == ["m"]

    def test_of_one_message_of_a_session_does_not_end_that_of_another(self, house: House) -> None:
        broker = house.broker()
        lease = house.hold(broker, "s1", session=True)
        broker.says(SessionLeaseLost)
        house.renewer.settling([lease], True)
        house.renewer.settling([lease], True)

        house.renewer.settling([lease], False)
        house.let_pass(15.0)
        before = lease.lost
        house.renewer.settling([lease], False)
        house.let_pass(0.5)

        assert (before, lease.lost) == (False, True)

    def test_that_ends_while_its_lease_is_set_aside_has_ended(self, house: House) -> None:
        """A completion beside an abandon that fails, of two messages of one session."""
        broker = house.broker()
        lease = house.hold(broker, "s1", session=True)
        broker.says(SessionLeaseLost)

        house.renewer.settling([lease], True)
        assert house.renewer.set_aside(lease)
        house.renewer.settling([lease], False)
        house.renewer.take_up(lease)
        house.let_pass(15.0)

        assert house.losses() == ["s1"], "the loss is told when the broker tells it"

    def test_a_message_settled_is_forgotten_and_a_session_is_kept(self, house: House) -> None:
        broker = house.broker()
        message, session = house.hold(broker, "m"), house.hold(broker, "s1", session=True)

        house.renewer.settled([message, session])
        house.let_pass(15.0)

        assert broker.calls == [(15.0, ["s1"])]
        assert len(house.renewer) == 1


class TestLostByItsHolder:
    """A session that knows by itself, a handler that has run for too long."""

    def test_is_not_renewed_with_others_of_its_lane(self, house: House) -> None:
        broker = house.broker()
        house.hold(broker, "a")
        lost = house.hold(broker, "b")

        lost.lose("scripted")
        house.let_pass(20.0)

        assert broker.calls == [(15.0, ["a"])]


class TestTakingUp:
    """What a failed abandon does with the lease that it had set aside."""

    def test_is_not_done_for_what_was_forgotten_meanwhile(self, house: House) -> None:
        broker = house.broker()
        lease = house.hold(broker)
        assert house.renewer.set_aside(lease)

        house.renewer.forget(lease)
        house.renewer.take_up(lease)

        assert len(house.renewer) == 0
        assert not house.renewer.set_aside(lease)

    def test_renews_also_what_was_forgotten_while_it_stood_in_its_lane(self, house: House) -> None:
        broker = house.broker()
        house.hold(broker, "a")
        house.let_pass(5.0)
        lease = house.hold(broker, "b")
        with Hang(broker) as hang:
            house.let_pass(10.0, without=broker)
            hang.wait_until_reached()
            house.let_pass(5.0, without=broker)  # a hangs, b stands behind it
            assert house.renewer.set_aside(lease)
        house.let_pass(0.0)

        house.renewer.take_up(lease)
        house.let_pass(60.0)

        assert not lease.lost

    def test_does_not_begin_its_longest_time_anew(self) -> None:
        house = House(max_lease=50.0)
        broker = house.broker()
        lease = house.hold(broker)
        house.let_pass(20.0)

        assert house.renewer.set_aside(lease)
        house.renewer.take_up(lease)
        house.let_pass(40.0)

        assert broker.times() == [15.0]
        assert lease.lost
        house.close()


def test_a_closed_client_has_no_more_use_for_its_leases(house: House) -> None:
    broker = house.broker()
    lease = house.hold(broker)
    house.let_pass(1.0)

    house.close()
    house.hold(broker, "late")
    house.renewer.forget(lease)

    assert broker.calls == []
    assert house.losses() == []
