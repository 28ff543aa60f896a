"""Settlements that are not confirmed, that come too late or twice; and the copies of delayed ones."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from queue_runtime.errors import ConnectionFailed, InvalidReceipt, LeaseLost, OutcomeUnknown, Throttled
from queue_runtime.message import DeadLetterInfo
from queue_runtime.provider import Abandon, Complete, DeadLetter
from queue_runtime.providers.servicebus import wire
from tests.faults.weather import Sky, Weather
from tests.providers.servicebus_house import (
    Call,
    House,
    accept,
    drained,
    error_of,
    fill,
    head,
    ids,
    receive,
    settled,
    within,
)

KINDS: dict[str, Any] = {
    "complete": Complete,
    "abandon": Abandon,
    "dead-letter": lambda delivery: DeadLetter(delivery, DeadLetterInfo(reason="Bad")),
}


@pytest.fixture(params=list(KINDS))
def make(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]


class TestAnAnswerThatIsLost:
    def test_of_a_settlement_that_was_done_is_an_unknown_outcome_and_stays_one(
        self, house: House, make: Any
    ) -> None:
        house.queue(lock=3)
        client = house.client()
        fill(client, 1)
        [delivery] = receive(client)
        house.fault("drop_disposition", entity="jobs")

        with within(0.5 + 0.3):  # a sixth of the lease
            first = settled(client, make(delivery))
        second = settled(client, make(delivery))

        assert isinstance(first, OutcomeUnknown)
        assert isinstance(second, OutcomeUnknown)
        assert house.counts() in ({}, {"active": 1}, {"dead": 1})  # done, once

    def test_stays_unknown_when_the_lease_is_over(self, house: House) -> None:
        house.queue(lock=1)
        client = house.client()
        fill(client, 1)
        [delivery] = receive(client)
        house.fault("drop_disposition", entity="jobs")
        assert isinstance(settled(client, Complete(delivery)), OutcomeUnknown)

        threading.Event().wait(1.1)

        assert isinstance(settled(client, Complete(delivery)), OutcomeUnknown)

    def test_with_its_connection_is_an_unknown_outcome_on_another_one_too(
        self, house: House, make: Any
    ) -> None:
        house.queue()
        with Weather(house.bus.port) as weather:
            string = house.bus.connection_string.replace(f":{house.bus.port};", f":{weather.port};")
            client = house.client(string)
            fill(client, 1)
            [delivery] = receive(client)
            weather.sky = Sky.LOST

            first = settled(client, make(delivery))
            weather.sky = Sky.CLEAR
            second = settled(client, make(delivery))
            third = settled(client, Complete(delivery))

        assert [type(error) for error in (first, second, third)] == [OutcomeUnknown] * 3
        assert house.counts() in ({}, {"active": 1}, {"dead": 1})

    def test_of_a_settlement_that_never_arrived_does_not_matter(self, house: House, make: Any) -> None:
        house.queue(lock=30)
        client = house.client(request_timeout="1")
        fill(client, 1)
        [delivery] = receive(client)
        house.fault("lose_disposition", entity="jobs")

        with within(1.3):
            assert settled(client, make(delivery)) is None

        assert house.counts() in ({}, {"active": 1}, {"dead": 1})

    def test_in_a_session_ends_the_session(self, house: House) -> None:
        house.queue(sessions=True, lock=3)
        client = house.client()
        fill(client, 2, session="s")
        session, lost = accept(client), list[str]()
        session.on_lost = lost.append
        delivery = head(session)
        house.fault("drop_disposition", entity="jobs")

        error = error_of(session.settle([Complete(delivery)]))

        assert isinstance(error, OutcomeUnknown)
        assert len(lost) == 1
        session.close()
        assert head(accept(client)).message.id == "m1"

    def test_leaves_other_messages_of_the_receiver_as_they_are(self, house: House) -> None:
        house.queue(lock=30)
        client = house.client(request_timeout="1", receivers="1")
        fill(client, 3)
        deliveries = receive(client, 3)
        house.fault("drop_disposition", entity="jobs")

        outcomes = client.settle("jobs", [Complete(each) for each in deliveries])

        assert [type(outcome.error) for outcome in outcomes] == [OutcomeUnknown, type(None), type(None)]
        assert house.counts() == {}


class TestConnectionsThatBreakAtAnyMoment:
    def test_nothing_is_lost_and_no_settlement_is_said_to_be_what_it_is_not(self, house: House) -> None:
        house.queue(lock=5, max_delivery=1000)
        client = house.client()
        fill(client, 60)
        completed, unknown = set[str](), set[str]()
        dice = random.Random(7)

        for _ in range(60):
            found = client.receive("jobs", 1, 0.2)
            if not found:
                continue
            [delivery] = found
            killer = threading.Timer(dice.random() * 0.003, house.bus.fault, ["kill"])
            killer.start()
            error = settled(client, Complete(delivery))
            killer.join()
            if error is None:
                completed.add(delivery.message.id)
            else:
                assert isinstance(error, OutcomeUnknown | ConnectionFailed), error
                unknown.add(delivery.message.id)
            try:
                client.receive("jobs", 1, 0.0)
            except ConnectionFailed:
                pass
        threading.Event().wait(5.0)  # the locks that are left end
        rest = set(ids(drained(client)))

        assert len(completed) + len(unknown) >= 20
        assert not rest & completed
        assert rest | completed | unknown == {f"m{n}" for n in range(60)}


class TestTwice:
    def test_a_settlement_that_went_well_is_no_receipt_any_more(self, house: House, make: Any) -> None:
        house.queue()
        client = house.client()
        fill(client, 1)
        [delivery] = receive(client)

        assert settled(client, make(delivery)) is None
        assert isinstance(settled(client, make(delivery)), InvalidReceipt)

    def test_at_once_by_many_threads_succeeds_once(self, house: House) -> None:
        house.queue()
        client = house.client()
        fill(client, 1)
        [delivery] = receive(client)
        house.bus.latency(50)

        with ThreadPoolExecutor(8) as crew:
            errors = list(crew.map(lambda _: settled(client, Abandon(delivery, 60.0)), range(8)))

        assert errors.count(None) == 1
        assert all(isinstance(error, InvalidReceipt) for error in errors if error is not None)
        assert house.counts() == {"scheduled": 1}


class TestTooLate:
    def test_a_lease_that_ran_out_is_lost(self, house: House, make: Any) -> None:
        house.queue(lock=1)
        client = house.client()
        fill(client, 1)
        [delivery] = receive(client)

        threading.Event().wait(1.1)

        assert isinstance(settled(client, make(delivery)), LeaseLost)

    def test_renewed_it_is_not_lost(self, house: House) -> None:
        house.queue(lock=1)
        client = house.client()
        fill(client, 1)
        [delivery] = receive(client)

        for _ in range(4):
            threading.Event().wait(0.5)
            assert error_of(client.renew("jobs", [delivery])) is None

        assert settled(client, Complete(delivery)) is None


class TestADelayedAbandon:
    def test_is_one_copy_that_comes_when_it_is_due(self, house: House) -> None:
        house.queue(duplicate_window=60)
        client = house.client()
        fill(client, 1)
        [delivery] = receive(client)

        assert settled(client, Abandon(delivery, 1.0)) is None
        assert house.counts() == {"scheduled": 1}

        [again] = receive(client)
        assert again.message.id == "m0"
        assert again.delivery_count == 2
        assert again.broker_id == delivery.broker_id

    @pytest.mark.parametrize("lost", ["drop_disposition", "lose_disposition"])
    def test_whose_completion_is_not_confirmed_makes_no_second_copy(self, house: House, lost: str) -> None:
        house.queue(lock=3)  # without duplicate detection
        client = house.client()
        fill(client, 1)
        [delivery] = receive(client)
        house.fault(lost, entity="jobs")

        errors = [settled(client, Abandon(delivery, 60.0)) for _ in range(3)]

        assert all(error is None or isinstance(error, OutcomeUnknown | InvalidReceipt) for error in errors)
        assert house.counts() == {"scheduled": 1}

    def test_whose_completion_meets_a_broken_connection_makes_no_second_copy(self, house: House) -> None:
        house.queue(lock=5)
        client = house.client()
        fill(client, 1)
        [delivery] = receive(client)
        house.fault("mgmt", entity="jobs", n=1)  # the scheduling is refused

        first = settled(client, Abandon(delivery, 60.0))
        house.fault("kill")
        second = settled(client, Abandon(delivery, 60.0))

        assert isinstance(first, Throttled)
        assert second is None
        assert house.counts() == {"scheduled": 1}

    def test_that_is_refused_takes_its_copy_back(self, house: House) -> None:
        house.queue(lock=30)
        client, other = house.client(), house.client()
        fill(client, 1)
        [delivery] = receive(client)
        # Done behind the client's back, as by an operator; the copy must not come on top.
        _forget(client, delivery.receipt, other)

        assert isinstance(settled(client, Abandon(delivery, 60.0)), LeaseLost)
        assert house.counts() == {}

    def test_that_cannot_be_scheduled_changes_nothing(self, house: House) -> None:
        house.queue(lock=30)
        client = house.client()
        fill(client, 1)
        [delivery] = receive(client)
        house.fault("mgmt", entity="jobs", cond="com.microsoft:server-busy")

        assert isinstance(settled(client, Abandon(delivery, 60.0)), Throttled)

        assert house.counts() == {"locked": 1}
        assert settled(client, Complete(delivery)) is None

    @pytest.mark.parametrize("then", ["complete", "lapse"])
    def test_that_comes_no_further_than_its_copy_takes_it_back_in_the_end(
        self, house: House, then: str
    ) -> None:
        house.queue(lock=3)
        client = house.client(request_timeout="0.5")
        fill(client, 1)
        [delivery] = receive(client)
        link = client._queue("jobs").receivers._pool.any(1.0)
        with link._turns.urgent(1.0):
            abandoned = Call(lambda: settled(client, Abandon(delivery, 60.0)))
            assert isinstance(abandoned.result(), ConnectionFailed)
        assert house.counts() == {"locked": 1, "scheduled": 1}

        if then == "complete":
            assert settled(client, Complete(delivery)) is None
            assert house.counts() == {}
        else:
            threading.Event().wait(3.1)
            assert isinstance(settled(client, Abandon(delivery, 60.0)), LeaseLost)
            assert house.counts() == {"active": 1}

    def test_of_a_later_hold_is_not_taken_for_one_that_was_taken_back(self, house: House) -> None:
        house.queue()
        client = house.client()
        fill(client, 1)
        due_at, copies = datetime.now(UTC) + timedelta(seconds=60), []

        for _ in range(2):
            held = client._queue("jobs").receivers._held.get(receive(client)[0])
            copies += [wire.delayed_copy(held.message, due_at) for _ in range(2)]
            held.link.give_back(held.message)  # no delivery is counted

        first, again, later, _ = (copy.message_id for copy in copies)
        assert first == again
        assert later != first


def _forget(client: Any, receipt: str, other: Any) -> None:
    """Complete the message of *receipt* through another client, by its lock token."""
    held = client._queue("jobs").receivers._held._held[receipt]
    link = other._queue("jobs").receivers._pool.any(1.0)
    link.settle(held.message, Complete(None), first=True)  # type: ignore[arg-type]
    held.message._settled = False
