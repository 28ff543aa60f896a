"""Connections and links that end: at rest, in a receive, between a receive and its settlement, in a send."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from queue_runtime.errors import ConnectionFailed, LeaseLost, OutcomeUnknown, SessionLeaseLost
from queue_runtime.message import DeadLetterInfo, Message
from queue_runtime.provider import Abandon, Complete, DeadLetter
from queue_runtime.providers.servicebus.link import Link
from tests.providers.servicebus_house import (
    Call,
    House,
    accept,
    drained,
    error_of,
    eventually,
    fill,
    head,
    ids,
    receive,
    settled,
    within,
)

Fault = Callable[[House], None]

FAULTS: dict[str, Fault] = {
    "killed": lambda house: house.fault("kill"),
    "closed": lambda house: house.fault("close", cond="amqp:connection:forced"),
    "detached": lambda house: house.fault("detach", entity="jobs", cond="amqp:link:detach-forced"),
}


@pytest.fixture(params=list(FAULTS))
def fault(request: pytest.FixtureRequest) -> Fault:
    return FAULTS[request.param]


def credit_of(link: Link) -> int:
    """How many messages the service may send on it now."""
    inner: Any = link.receiver._handler
    credit: int = inner._link.current_link_credit
    return credit


class TestAtRest:
    def test_all_receivers_that_ended_are_replaced_before_anybody_notices(
        self, house: House, fault: Fault
    ) -> None:
        house.queue()
        client = house.client()
        fill(client, 20)
        for delivery in receive(client, 20):  # on several receivers
            assert settled(client, Complete(delivery)) is None

        fault(house)
        fill(client, 1)

        with within(1.5):
            assert len(client.receive("jobs", 1, 1.0)) == 1

    def test_a_sender_that_ended_is_replaced_and_nothing_is_sent_twice(
        self, house: House, fault: Fault
    ) -> None:
        house.queue()
        client = house.client()
        fill(client, 1)

        fault(house)
        [outcome] = client.send("jobs", [Message(body=b"x", id="after")])

        assert outcome.error is None
        assert sorted(ids(drained(client))) == ["after", "m0"]

    def test_peeking_goes_on(self, house: House, fault: Fault) -> None:
        house.queue()
        client = house.client()
        fill(client, 2)
        assert len(client.peek("jobs", 5)) == 2

        fault(house)

        assert ids(client.peek("jobs", 5)) == ["m0", "m1"]

    def test_a_session_that_ended_says_so_and_comes_again_in_order(self, house: House, fault: Fault) -> None:
        house.queue(sessions=True)
        client = house.client()
        fill(client, 3, session="s")
        session, lost = accept(client), list[str]()
        session.on_lost = lost.append

        fault(house)

        eventually(lambda: bool(lost))  # without asking
        with pytest.raises(SessionLeaseLost):
            session.renew()
        assert len(lost) == 1
        again = accept(client)
        assert [head(again).message.id for _ in range(3)] == ["m0", "m1", "m2"]


class TestInALongReceive:
    def test_it_ends_with_an_error_and_the_next_one_receives(self, house: House, fault: Fault) -> None:
        house.queue()
        client = house.client()
        assert client.receive("jobs", 1, 0.0) == []
        [link] = client._queue("jobs").receivers._pool._idle
        waiting = Call(lambda: client.receive("jobs", 1, 30.0))
        eventually(lambda: credit_of(link) > 0)

        fault(house)

        with pytest.raises(ConnectionFailed):
            waiting.result()
        fill(client, 1)
        with within(1.5):
            assert len(client.receive("jobs", 1, 1.0)) == 1

    def test_a_session_is_lost_and_told_so(self, house: House, fault: Fault) -> None:
        house.queue(sessions=True)
        client = house.client()
        fill(client, 1, session="s")
        session, lost = accept(client), list[str]()
        session.on_lost = lost.append
        delivery = head(session)
        waiting = Call(lambda: session.receive(1, 30.0))

        fault(house)

        with pytest.raises(SessionLeaseLost):
            waiting.result()
        assert len(lost) == 1
        assert isinstance(error_of(session.settle([Complete(delivery)])), SessionLeaseLost)
        assert ids([head(accept(client))]) == ["m0"]


class TestBetweenReceiveAndSettlement:
    @pytest.mark.parametrize("kind", ["complete", "abandon", "dead-letter"])
    def test_a_message_is_settled_through_another_receiver(
        self, house: House, fault: Fault, kind: str
    ) -> None:
        house.queue()
        client = house.client()
        fill(client, 3)
        first, second, third = receive(client, 3)
        info = DeadLetterInfo(reason="Bad")
        make: Any = {"complete": Complete, "abandon": Abandon, "dead-letter": lambda d: DeadLetter(d, info)}[
            kind
        ]

        fault(house)

        assert [settled(client, make(each)) for each in (first, second, third)] == [None, None, None]
        expected = {"complete": {}, "abandon": {"active": 3}, "dead-letter": {"dead": 3}}[kind]
        assert house.counts() == expected

    def test_a_message_is_renewed_through_another_receiver(self, house: House, fault: Fault) -> None:
        house.queue(lock=3)
        client = house.client()
        fill(client, 1)
        [delivery] = receive(client)

        fault(house)
        [outcome] = client.renew("jobs", [delivery])

        assert outcome.error is None
        assert outcome.value is not None
        assert outcome.value > delivery.leased_until

    def test_a_message_that_another_has_by_now_is_a_lost_lease(self, house: House) -> None:
        house.queue(lock=1)
        client, other = house.client(), house.client()
        fill(client, 1)
        [delivery] = receive(client)
        house.fault("kill")

        [theirs] = receive(other)

        assert isinstance(settled(client, Complete(delivery)), LeaseLost)
        assert settled(other, Complete(theirs)) is None

    def test_a_session_is_lost_and_nothing_of_it_is_settled(self, house: House, fault: Fault) -> None:
        house.queue(sessions=True)
        client = house.client()
        fill(client, 2, session="s")
        session, lost = accept(client), list[str]()
        session.on_lost = lost.append
        delivery = head(session)

        fault(house)
        eventually(lambda: not house.counts().get("locked"))

        assert isinstance(error_of(session.settle([Complete(delivery)])), SessionLeaseLost)
        assert len(lost) == 1
        assert house.counts() == {"active": 2}
        again = accept(client)
        assert [head(again).message.id for _ in range(2)] == ["m0", "m1"]

    def test_a_client_with_one_receiver_only_settles_too(self, house: House, fault: Fault) -> None:
        house.queue()
        client = house.client(receivers="1")
        fill(client, 1)
        [delivery] = receive(client)

        fault(house)

        assert settled(client, Complete(delivery)) is None
        assert house.counts() == {}

    def test_many_messages_share_the_receiver_that_is_made_for_them(self, house: House) -> None:
        house.queue()
        client = house.client()
        fill(client, 16)
        deliveries = receive(client, 16)
        house.fault("kill")

        with ThreadPoolExecutor(16) as crew:
            errors = list(crew.map(lambda each: settled(client, Complete(each)), deliveries))

        assert errors == [None] * 16
        assert house.bus.stats()["connections"] == 1


class TestInASend:
    def test_an_answer_that_is_lost_is_an_unknown_outcome(self, house: House) -> None:
        house.queue()
        client = house.client(request_timeout="2")
        fill(client, 1)
        house.fault("drop_disposition", entity="jobs")

        with within(2.2):
            [outcome] = client.send("jobs", [Message(body=b"x", id="sent")])

        assert isinstance(outcome.error, OutcomeUnknown)

    @pytest.mark.parametrize("lost", ["drop_disposition", "lose_disposition"])
    def test_sent_again_with_its_id_it_is_stored_once(self, house: House, lost: str) -> None:
        house.queue(duplicate_window=60)
        client = house.client(request_timeout="0.5")
        message = Message(body=b"x", id="sent")
        house.fault(lost, entity="jobs")

        outcomes = [client.send("jobs", [message])[0] for _ in range(2)]

        assert isinstance(outcomes[0].error, OutcomeUnknown)
        assert outcomes[1].error is None
        assert ids(drained(client)) == ["sent"]
