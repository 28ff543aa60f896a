"""The faults of the local Service Bus, as the clients feel them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from queue_runtime.testing.servicebus.performatives import Accepted, Close, Detach, Disposition, Rejected
from tests.testing_servicebus.wire_client import Client, message
from tests.testing_servicebus.wire_house import House, running


@pytest.fixture(scope="module")
def shared_house() -> Iterator[House]:
    with running() as house:
        yield house


@pytest.fixture
def house(shared_house: House) -> Iterator[House]:
    shared_house.queue("q")
    shared_house.queue("other")
    yield shared_house
    shared_house.do(shared_house.namespace.faults.clear)


@pytest.fixture
def client(house: House) -> Iterator[Client]:
    with Client(house) as client:
        client.ready()
        client.attach_sender("q")
        yield client


def test_kill_says_nothing(house: House, client: Client) -> None:
    house.do(house.server.kill)

    assert client.ended()
    assert house.stats()["connections"] == 0


def test_close_says_why(house: House, client: Client) -> None:
    house.do(lambda: house.server.close_connections("amqp:connection:forced"))

    close = client.expect(Close)
    assert close.error is not None
    assert close.error.condition == "amqp:connection:forced"
    assert client.ended()


def test_detach_is_for_one_queue_and_its_link_can_come_again(house: House, client: Client) -> None:
    client.attach_sender("other", handle=1)

    house.do(lambda: house.server.detach("q", "amqp:link:detach-forced"))

    detach = client.expect(Detach)
    assert (detach.handle, detach.closed) == (0, True)
    assert detach.error is not None
    assert detach.error.condition == "amqp:link:detach-forced"
    client.transfer(message(), handle=1)
    assert client.expect(Disposition).state == Accepted()
    assert client.attach_sender("q").target is not None


def test_a_send_is_refused_as_often_as_told(house: House, client: Client) -> None:
    house.do(lambda: house.namespace.faults.add("send", "q", "com.microsoft:server-busy", 2))

    states = []
    for _ in range(3):
        client.transfer(message())
        states.append(client.expect(Disposition).state)

    busy = [state.error.condition for state in states if isinstance(state, Rejected) and state.error]
    assert busy == ["com.microsoft:server-busy"] * 2
    assert states[2] == Accepted()
    assert house.counts()["active"] == 1


def test_a_request_is_refused(house: House, client: Client) -> None:
    house.do(lambda: house.namespace.faults.add("mgmt", "q", "com.microsoft:server-busy", 1))
    operation = {"operation": "com.microsoft:peek-message"}
    body = {"from-sequence-number": 0, "message-count": 1}

    answers = [client.request("q/$management", operation, body) for _ in range(2)]

    found = [answer.read_application_properties() for answer in answers]
    assert (found[0]["statusCode"], found[0]["errorCondition"]) == (503, "com.microsoft:server-busy")
    assert found[1]["statusCode"] == 204


def test_a_settlement_that_is_dropped_is_done_and_not_answered(house: House, client: Client) -> None:
    for _ in range(2):
        client.transfer(message())
        client.expect(Disposition)
    house.do(lambda: house.namespace.faults.add("drop_disposition", None, True, 1))
    client.attach_receiver("q")
    client.flow(delivery_count=0, link_credit=2)
    first, second = client.receive()[0].delivery_id, client.receive()[0].delivery_id
    assert first is not None
    assert second is not None

    client.settle(first, Accepted())
    client.settle(second, Accepted())

    assert client.expect(Disposition).first == second
    assert sum(house.counts().values()) == 0


def test_a_send_whose_answer_is_dropped_is_stored(house: House, client: Client) -> None:
    house.do(lambda: house.namespace.faults.add("drop_disposition", "q", True, 1))

    client.transfer(message())
    client.transfer(message())

    assert client.expect(Disposition).first == 1
    assert house.counts()["active"] == 2


def test_latency_is_on_every_answer_and_keeps_their_order(house: House, client: Client) -> None:
    house.do(lambda: setattr(house.namespace.faults, "latency", 0.05))
    began = time.monotonic()

    for _ in range(20):
        client.transfer(message())
    answers = [client.expect(Disposition).first for _ in range(20)]

    assert answers == list(range(20))
    assert 0.05 <= time.monotonic() - began < 0.5  # once, not twenty times


def test_answers_do_not_overtake_when_latency_ends(house: House, client: Client) -> None:
    house.do(lambda: setattr(house.namespace.faults, "latency", 0.1))
    client.transfer(message())
    while house.counts()["active"] == 0:  # it is on its way to the broker, for a moment
        pass
    house.do(lambda: setattr(house.namespace.faults, "latency", 0.0))

    client.transfer(message())

    assert [client.expect(Disposition).first for _ in range(2)] == [0, 1]


def test_what_was_said_before_a_close_is_still_said_late(house: House, client: Client) -> None:
    house.do(lambda: setattr(house.namespace.faults, "latency", 0.05))
    client.transfer(message())
    client.send(Close())

    client.expect(Disposition)
    client.expect(Close)
    assert client.ended()
