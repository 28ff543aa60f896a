"""Networks in which everything disappears and no connection ends: every call is over in its time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from queue_runtime.errors import (
    ConnectionFailed,
    OperationTimeout,
    OutcomeUnknown,
    QueueError,
    SessionLeaseLost,
)
from queue_runtime.message import Message
from queue_runtime.provider import Abandon, Complete
from queue_runtime.providers.servicebus.link import Link
from queue_runtime.testing.servicebus import LocalServiceBus
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
from tests.testing_servicebus.certificates import self_signed

TIMEOUT = 1.0
"""Seconds: the clients' `request_timeout`."""

SLACK = 0.4


@pytest.fixture
def weather(house: House) -> Iterator[Weather]:
    with Weather(house.bus.port) as made:
        yield made


@pytest.fixture
def client(house: House, weather: Weather) -> Any:
    """One that reaches the broker through the weather."""
    string = house.bus.connection_string.replace(f":{house.bus.port};", f":{weather.port};")
    return house.client(string, request_timeout=f"{TIMEOUT}")


def port_of(link: Link) -> int:
    inner: Any = link.receiver._handler
    port: int = inner._connection._transport.sock.getsockname()[1]
    return port


class TestEveryCall:
    def test_is_over_in_its_time(self, house: House, client: Any, weather: Weather) -> None:
        house.queue(lock=30)
        fill(client, 3)
        first, second, third = receive(client, 3)

        weather.sky = Sky.STILL

        with within(TIMEOUT + SLACK):
            assert isinstance(settled(client, Complete(first)), OutcomeUnknown)
        # On another receiver by now, or on none at all.
        with within(2 * TIMEOUT + SLACK):
            assert isinstance(error_of(client.renew("jobs", [second])), OperationTimeout | ConnectionFailed)
        with within(2 * TIMEOUT + SLACK):
            assert isinstance(settled(client, Abandon(third, 5.0)), OutcomeUnknown | ConnectionFailed)
        with within(TIMEOUT + SLACK):
            [outcome] = client.send("jobs", [Message(body=b"x")])
            assert isinstance(outcome.error, OutcomeUnknown | OperationTimeout | ConnectionFailed)
        with within(2 * TIMEOUT + SLACK), suppress(QueueError):
            client.peek("jobs", 1)
        with within(1.0 + 2 * TIMEOUT + SLACK), suppress(QueueError):
            client.receive("jobs", 1, 1.0)
        with within(2 * TIMEOUT + SLACK):
            client.close()

    def test_takes_a_sixth_of_the_lease_where_that_is_less(
        self, house: House, client: Any, weather: Weather
    ) -> None:
        house.queue(lock=3)
        fill(client, 1)
        [delivery] = receive(client)

        weather.sky = Sky.STILL

        with within(0.5 + SLACK):
            assert isinstance(error_of(client.renew("jobs", [delivery])), OperationTimeout)

    def test_of_a_session_too_and_the_session_is_held_as_long_as_its_lock(
        self, house: House, client: Any, weather: Weather
    ) -> None:
        house.queue(lock=30, sessions=True)
        fill(client, 1, session="s")
        session = accept(client)
        delivery = head(session)

        weather.sky = Sky.STILL
        with within(TIMEOUT + SLACK), pytest.raises(OperationTimeout):
            session.renew()
        with within(TIMEOUT + SLACK), pytest.raises(OperationTimeout):
            session.get_state()
        with within(TIMEOUT + SLACK), pytest.raises(OutcomeUnknown):
            session.set_state(b"x")

        with within(TIMEOUT + SLACK):
            assert isinstance(error_of(session.settle([Complete(delivery)])), OutcomeUnknown)
        with pytest.raises(SessionLeaseLost):
            session.renew()

    def test_a_batch_too(self, house: House, client: Any, weather: Weather) -> None:
        house.queue(lock=30)
        fill(client, 40)
        deliveries = receive(client, 40)

        weather.sky = Sky.STILL

        with within(3 * TIMEOUT + SLACK):
            outcomes = client.renew("jobs", deliveries)
        assert len(outcomes) == 40
        assert all(isinstance(each.error, OperationTimeout | ConnectionFailed) for each in outcomes)


class TestAnOpening:
    def test_that_gets_no_answer_ends_in_its_time(self, house: House, client: Any, weather: Weather) -> None:
        house.queue()
        weather.sky = Sky.STILL

        with within(TIMEOUT + SLACK), pytest.raises((ConnectionFailed, OperationTimeout)):
            client.receive("jobs", 1, 0.0)

    def test_by_tls_that_gets_no_answer_ends_in_its_time(self, tmp_path: Path) -> None:
        certificate, key = self_signed(tmp_path)
        with (
            LocalServiceBus(certificate=certificate, key=key) as bus,
            Weather(bus.port) as weather,
            House(bus) as house,
        ):
            house.queue()
            client = house.client(
                endpoint=f"sb://localhost:{weather.port}",
                ca_bundle=str(certificate),
                request_timeout=f"{TIMEOUT}",
            )
            fill(client, 1)
            weather.sky = Sky.STILL
            other = house.client(
                endpoint=f"sb://localhost:{weather.port}",
                ca_bundle=str(certificate),
                request_timeout=f"{TIMEOUT}",
            )

            with within(TIMEOUT + SLACK), pytest.raises((ConnectionFailed, OperationTimeout)):
                other.receive("jobs", 1, 0.0)

    def test_ends_with_the_client(self, house: House, weather: Weather) -> None:
        house.queue(sessions=True)
        client = house.client()
        assert client.accept_sessions("jobs", 1, 0.1) == []
        waiting = Call(lambda: client.accept_sessions("jobs", 1, 30.0))
        threading.Event().wait(0.3)

        with within(1.0):
            client.close()

        with pytest.raises(QueueError):
            waiting.result()


class TestOneReceiverInAHole:
    def test_costs_the_others_none_of_their_leases(self, house: House, client: Any, weather: Weather) -> None:
        house.queue(lock=30)
        fill(client, 24)
        deliveries = receive(client, 24)
        by_link: dict[Link, list[Any]] = {}
        for each in deliveries:
            by_link.setdefault(client._queue("jobs").receivers._held.get(each).link, []).append(each)
        assert len(by_link) >= 2
        frozen, *_ = by_link

        weather.freeze(port_of(frozen))
        with within(TIMEOUT + SLACK):
            outcomes = client.renew("jobs", deliveries)

        failed = {each.receipt for each, o in zip(deliveries, outcomes, strict=True) if o.error is not None}
        assert failed
        assert failed <= {each.receipt for each in by_link[frozen]}

    def test_is_replaced_and_what_it_brought_is_renewed_and_settled_elsewhere(
        self, house: House, client: Any, weather: Weather
    ) -> None:
        house.queue(lock=30)
        fill(client, 1)
        [delivery] = receive(client)
        weather.freeze(port_of(client._queue("jobs").receivers._held.get(delivery).link))
        assert isinstance(error_of(client.renew("jobs", [delivery])), OperationTimeout)

        with within(SLACK):
            assert error_of(client.renew("jobs", [delivery])) is None
        with within(SLACK):
            assert settled(client, Complete(delivery)) is None
        assert house.counts() == {}

    def test_is_found_out_by_a_receive_and_replaced(
        self, house: House, client: Any, weather: Weather
    ) -> None:
        house.queue(lock=30)
        fill(client, 1)
        assert settled(client, Complete(receive(client)[0])) is None
        client.receive("jobs", 1, 0.0)
        for link in client._queue("jobs").receivers._pool._idle:
            weather.freeze(port_of(link))
        fill(house.client(), 1)

        with suppress(ConnectionFailed), within(TIMEOUT + 0.1 + SLACK):
            client.receive("jobs", 8, 0.1)

        with within(SLACK):
            assert ids(drained(client, quiet=0.1)) == ["m0"]
