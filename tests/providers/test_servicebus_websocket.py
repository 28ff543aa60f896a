"""AMQP over a websocket: the same, also where each step of connecting takes longer than a slice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from queue_runtime.provider import Complete
from queue_runtime.testing.servicebus import LocalServiceBus
from tests.providers.servicebus_house import (
    Call,
    House,
    accept,
    error_of,
    fill,
    head,
    receive,
    settled,
    within,
)
from tests.providers.websocket_bridge import WebsocketBridge
from tests.testing_servicebus.certificates import self_signed


@pytest.fixture(scope="module")
def bridge(local_service_bus: LocalServiceBus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    directory = tmp_path_factory.mktemp("websocket")
    certificate, key = self_signed(directory)
    with WebsocketBridge(local_service_bus.port, certificate, key, delay=0.2) as made:
        yield made, str(certificate)


@pytest.fixture
def client(house: House, bridge: tuple[WebsocketBridge, str]) -> Any:
    made, certificate = bridge
    return house.client(
        "Endpoint=sb://localhost;SharedAccessKeyName=local;SharedAccessKey=bG9jYWw=",
        endpoint=f"sb://localhost:{made.port}",
        transport="websocket",
        ca_bundle=certificate,
    )


def test_messages_are_sent_received_renewed_and_settled(
    house: House, client: Any, bridge: tuple[WebsocketBridge, str]
) -> None:
    house.queue()

    fill(client, 3)
    deliveries = receive(client, 3)

    assert all(outcome.error is None for outcome in client.renew("jobs", deliveries))
    assert [settled(client, Complete(each)) for each in deliveries] == [None] * 3
    assert house.counts() == {}
    assert set(bridge[0].paths) == {"/$servicebus/websocket"}


def test_a_settlement_does_not_wait_for_a_long_receive(house: House, client: Any) -> None:
    house.queue(sessions=True)
    fill(client, 1, session="s")
    session = accept(client)
    delivery = head(session)
    waiting = Call(lambda: session.receive(1, 3.0))

    for _ in range(3):
        with within(0.4):
            session.renew()
    with within(0.4):
        assert error_of(session.settle([Complete(delivery)])) is None

    assert waiting.result() == []


def test_a_connection_that_ended_at_rest_is_replaced(house: House, client: Any) -> None:
    house.queue()
    fill(client, 1)
    assert settled(client, Complete(receive(client)[0])) is None

    house.fault("kill")
    fill(client, 1)

    assert len(client.receive("jobs", 1, 1.0)) == 1
