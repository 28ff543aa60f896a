"""Leases are renewed when they are due, together, while that may help; a loss is told, never made up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_runtime.errors import (
    ConnectionFailed,
    InvalidReceipt,
    LeaseLost,
    Outcome,
    QueueError,
    SessionLeaseLost,
    Throttled,
)
from queue_runtime.events import Event, Events, LostLease
from queue_runtime.leases import SOON, TICK, Held, LeaseRenewer, look_at, renew_at
from tests.lease_house import Broker, House, a_delivery


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.close()
    assert made.pool.thread_names() == []


class TestTheTimeOfARenewal:
    @pytest.mark.parametrize(
        ("length", "passed"),
        [
            (3600.0, 1800.0),  # half of a long one
            (60.0, 30.0),
            (30.0, 15.0),
            (20.0, 10.0),  # from here on ten seconds before its end
            (18.0, 8.0),
            (15.0, 5.0),
            (12.0, 4.0),  # but never before a third of it has passed
            (6.0, 2.0),
            (0.75, 0.25),
        ],
    )
    def test_leaves_half_of_it_or_ten_seconds_but_lets_a_third_pass(
        self, length: float, passed: float
    ) -> None:
        assert renew_at(1000.0 + length, length) == pytest.approx(1000.0 + passed)

    @given(st.floats(0.01, 43200))
    def test_is_between_a_third_and_a_half_of_any_lease(self, length: float) -> None:
        passed = renew_at(length, length)

        assert length / 3 - 1e-6 <= passed <= length / 2 + 1e-6

    @given(st.floats(0, 1e6), st.floats(0.01, 43200))
    def test_is_looked_at_a_tick_earlier_at_most_and_never_later_or_too_early_to_renew(
        self, due: float, length: float
    ) -> None:
        early = due - look_at(due, length)

        assert 0 <= early <= min(TICK, max(0.0, length * SOON))

    @pytest.mark.parametrize("length", [0.5, 2.0])
    def test_of_a_lease_of_which_a_tick_is_much_is_exact(self, length: float) -> None:
        assert look_at(1000.1, length) == 1000.1


class TestRenewing:
    def test_keeps_a_lease_for_as_long_as_it_is_watched(self, house: House) -> None:
        broker = house.broker()
        lease = house.hold(broker)

        house.let_pass(100.0)

        assert broker.times() == [15.0, 30.0, 45.0, 60.0, 75.0, 90.0]
        assert not lease.lost
        assert house.losses() == []

    def test_those_that_are_due_together_travel_in_one_call(self, house: House) -> None:
        broker = house.broker()
        for number in range(25):
            house.hold(broker, f"m{number:02}")

        house.let_pass(20.0)

        assert broker.calls == [(15.0, [f"m{number:02}" for number in range(25)])]

    def test_those_that_soon_will_be_due_travel_along_and_the_others_do_not(self, house: House) -> None:
        broker = house.broker()
        house.hold(broker, "first")
        house.let_pass(3.0)
        house.hold(broker, "soon")  # due within a tenth of its lease after the first
        house.let_pass(1.0)
        house.hold(broker, "later")

        house.let_pass(12.0)

        assert broker.calls == [(15.0, ["first", "soon"])]
        house.let_pass(3.0)
        assert broker.calls[1:] == [(19.0, ["later"])]

    def test_those_of_other_lanes_that_are_due_within_one_tick_are_renewed_at_its_beginning(
        self, house: House
    ) -> None:
        """What costs most is waking up; so thousands of sessions wake the scheduler four times a second."""
        lanes = [house.broker(f"session {number}") for number in range(5)]
        for lane in lanes:
            house.hold(lane, str(lane.key))
            house.let_pass(TICK / 4)

        house.let_pass(15.0)

        assert [lane.times() for lane in lanes] == [[15.0], [15.0], [15.0], [15.0], [15.0 + TICK]]

    def test_each_lane_has_calls_of_its_own(self, house: House) -> None:
        jobs, mails = house.broker("jobs"), house.broker("mails")
        house.hold(jobs, "a")
        house.hold(mails, "b")

        house.let_pass(15.0)

        assert (jobs.calls, mails.calls) == ([(15.0, ["a"])], [(15.0, ["b"])])

    def test_watching_twice_changes_nothing_and_says_so(self, house: House) -> None:
        broker = house.broker()
        lease = house.hold(broker)
        again = Held(lease=lease, lane=broker, queue="jobs", delivery=a_delivery("m", 0.0, 30.0))

        assert house.renewer.watch(again) is False
        house.let_pass(15.0)

        assert broker.calls == [(15.0, ["m"])]
        assert len(house.renewer) == 1

    def test_goes_by_what_the_broker_gave_where_that_is_less_than_was_asked_for(self, house: House) -> None:
        broker = house.broker(length=30.0)
        lease = house.hold(broker, length=300.0)

        house.let_pass(200.0)

        assert broker.times() == [150.0, 165.0, 180.0, 195.0]
        assert not lease.lost

    def test_a_lease_renewed_by_hand_is_due_by_its_new_end(self, house: House) -> None:
        broker = house.broker()
        lease = house.hold(broker)
        house.let_pass(10.0)

        lease.extend(house.clock.monotonic() + 30.0)
        house.renewer.renewed(lease)
        house.let_pass(50.0)

        assert broker.times() == [25.0, 40.0, 55.0]
        assert not lease.lost

    def test_a_lease_shortened_by_hand_is_due_earlier(self, house: House) -> None:
        broker = house.broker()
        lease = house.hold(broker)

        lease.extend(house.clock.monotonic() + 6.0)
        house.renewer.renewed(lease)
        house.let_pass(10.0)

        assert broker.times() == [2.0]
        assert not lease.lost

    def test_a_lease_that_somebody_extended_without_a_word_is_kept_all_the_same(self, house: House) -> None:
        broker = house.broker()
        lease = house.hold(broker)
        house.let_pass(10.0)

        lease.extend(house.clock.monotonic() + 30.0)
        house.let_pass(90.0)

        assert not lease.lost
        assert house.losses() == []

    def test_no_lease_is_kept_for_longer_than_max_lease(self) -> None:
        house = House(max_lease=50.0)
        broker = house.broker()
        lease = house.hold(broker)

        house.let_pass(49.5)
        held = lease.lost
        house.let_pass(0.5)

        # At 15 it is prolonged to 45. At 30 it would be to 60.
        assert broker.times() == [15.0]
        assert (held, lease.lost, house.losses()) == (True, True, ["m"])
        house.close()

    def test_a_neighbour_does_not_take_along_what_has_been_held_for_too_long(self) -> None:
        house = House(max_lease=50.0)
        broker = house.broker()
        old = house.hold(broker, "old")
        house.let_pass(10.0)
        house.hold(broker, "new")

        house.let_pass(40.0)

        assert broker.calls == [(15.0, ["old"]), (25.0, ["new"])]
        assert old.lost
        house.close()


class TestFailures:
    @pytest.mark.parametrize("error", [Throttled, ConnectionFailed])
    def test_one_that_may_pass_is_tried_again_each_half_second_until_it_has(
        self, house: House, error: type[QueueError]
    ) -> None:
        broker = house.broker()
        lease = house.hold(broker)
        broker.says(error)
        house.let_pass(17.0)

        broker.answer = broker.yes
        house.let_pass(3.0)

        assert broker.times() == [15.0, 15.5, 16.0, 16.5, 17.0, 17.5]
        assert not lease.lost
        assert house.losses() == []

    def test_is_tried_until_the_lease_ends_and_then_it_is_lost(self, house: House) -> None:
        broker = house.broker()
        lease = house.hold(broker)
        broker.says(Throttled)

        house.let_pass(29.5)
        before = lease.lost
        house.let_pass(10.0)

        assert broker.times() == [15.0 + n / 2 for n in range(30)]
        assert (before, lease.lost) == (False, True)
        [event] = house.events
        assert isinstance(event, LostLease)
        assert (event.queue, event.message_id, event.session_id) == ("jobs", "m", None)
        assert event.reason == "it ran out before it could be renewed"
        assert len(house.renewer) == 0

    def test_tries_after_a_failure_are_half_a_second_apart_also_where_a_neighbour_is_due(
        self, house: House
    ) -> None:
        broker = house.broker()
        broker.says(Throttled)
        for number in range(4):
            house.hold(broker, f"m{number}", length=3.0)
            house.let_pass(0.375)  # so each is due by itself, while those before it fail

        house.let_pass(5.0)

        for number in range(4):
            tries = [when for when, ids in broker.calls if f"m{number}" in ids]
            gaps = [later - earlier for earlier, later in pairwise(tries)]
            assert min(gaps) >= 0.5

    @pytest.mark.parametrize("error", [InvalidReceipt, LeaseLost])
    def test_a_definite_one_is_a_loss_at_once(self, house: House, error: type[QueueError]) -> None:
        broker = house.broker()
        lease = house.hold(broker)
        broker.says(error)

        house.let_pass(15.0)
        house.let_pass(60.0)

        assert broker.times() == [15.0]
        assert house.losses() == ["m"]
        with pytest.raises(LeaseLost, match=f"no: {error.__name__}"):
            lease.check()

    def test_one_answer_is_not_anothers(self, house: House) -> None:
        broker = house.broker()
        leases = {name: house.hold(broker, name) for name in ("good", "gone", "busy")}
        errors: dict[str, QueueError] = {"gone": InvalidReceipt("gone"), "busy": Throttled("busy")}
        broker.answer = lambda held: (
            Outcome(error=errors[held.lease._what]) if held.lease._what in errors else broker.yes(held)
        )

        house.let_pass(31.0)

        assert {name: lease.lost for name, lease in leases.items()} == {
            "good": False,
            "gone": True,
            "busy": True,
        }
        assert house.losses() == ["gone", "busy"]

    def test_an_error_raised_stands_for_all_of_the_call(self, house: House) -> None:
        broker = house.broker()
        leases = [house.hold(broker, name) for name in ("a", "b")]

        def fail() -> None:
            raise LeaseLost("all gone")

        broker.before = fail
        house.let_pass(15.0)

        assert [lease.lost for lease in leases] == [True, True]
        assert sorted(map(str, house.losses())) == ["a", "b"]

    @pytest.mark.parametrize("answers", ["an exception", "too few"])
    def test_a_broken_provider_is_asked_again_and_its_leases_live_on(
        self, house: House, answers: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken(Broker):
            broken = True

            def renew(self, held: Sequence[Held]) -> Sequence[Outcome[float]]:
                found = super().renew(held)
                if self.broken and answers == "an exception":
                    raise TypeError("a bug")
                return found[:-1] if self.broken else found

        broker = Broken("jobs", house.clock)
        house._brokers.append(broker)
        lease = house.hold(broker)
        house.let_pass(16.0)

        broker.broken = False
        house.let_pass(4.0)

        assert broker.times() == [15.0, 15.5, 16.0, 16.5]
        assert not lease.lost
        assert "renewing 1 leases failed" in caplog.text

    def test_a_lost_session_is_told_as_a_session(self, house: House) -> None:
        broker = house.broker()
        lease = house.hold(broker, "s1", session=True)
        broker.says(SessionLeaseLost)

        house.let_pass(15.0)

        [event] = house.events
        assert isinstance(event, LostLease)
        assert (event.message_id, event.session_id) == (None, "s1")
        with pytest.raises(SessionLeaseLost):
            lease.check()

    def test_what_was_lost_otherwise_is_told_with_its_reason(self, house: House) -> None:
        broker = house.broker()
        lease = house.hold(broker, "s1", session=True)

        lease.lose("it was handed out again")
        house.let_pass(15.0)

        [event] = house.events
        assert isinstance(event, LostLease)
        assert "it was handed out again" in event.reason
        assert broker.calls == []

    def test_a_listener_that_raises_costs_nothing(self) -> None:
        def bad(event: Event) -> None:
            raise ValueError("listener")

        house = House()
        events = Events([bad])
        house.renewer = LeaseRenewer(house.clock, house.scheduler, house.pool, events, max_lease=3600.0)
        broker = house.broker()
        leases = [house.hold(broker, name) for name in ("gone", "good")]
        broker.answer = lambda held: (
            Outcome(error=LeaseLost("x")) if held.lease is leases[0] else broker.yes(held)
        )

        house.let_pass(60.0)

        assert [lease.lost for lease in leases] == [True, False]
        house.close()


def test_where_no_thread_is_to_be_had_the_scheduler_renews(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.12 starts none while the interpreter ends, and handlers still have time."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(house.pool, "submit_in", refuse)
    broker = house.broker()
    lease = house.hold(broker)

    for _ in range(20):
        house.clock.block_until(1)
        house.clock.advance(5.0)

    assert len(broker.calls) >= 5
    assert not lease.lost
