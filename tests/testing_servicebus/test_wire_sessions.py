"""Links to sessions of the local Service Bus, frame by frame."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from queue_runtime.testing.servicebus.amqp_types import Symbol, UInt
from queue_runtime.testing.servicebus.messages import Message
from queue_runtime.testing.servicebus.performatives import (
    Accepted,
    Attach,
    Close,
    Detach,
    Disposition,
    Flow,
)
from queue_runtime.testing.servicebus.receivers import SESSION_FILTER
from tests.testing_servicebus.wire_client import Client, body, message, refusal
from tests.testing_servicebus.wire_house import House, running

TICKS_AT_EPOCH = 621_355_968_000_000_000


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with running() as house:
        yield house


@pytest.fixture
def client(house: House) -> Iterator[Client]:
    house.queue()
    with Client(house) as client:
        yield client.ready()


class TestSessions:
    @pytest.fixture
    def house(self, house: House) -> House:
        house.queue("s", sessions=True)
        return house

    def accept(self, client: Client, session: str | None, handle: int = 1) -> Attach:
        return client.attach_receiver(
            "amqps://host/s", handle=handle, filter={Symbol(SESSION_FILTER): session}
        )

    def fill(self, client: Client, *sessions: str) -> None:
        client.attach_sender("s", handle=20)
        for session in sessions:
            client.transfer(message(session.encode(), group_id=session), handle=20)
            assert client.expect(Disposition).state == Accepted()

    def test_a_named_session_is_accepted_with_its_lock(self, client: Client, house: House) -> None:
        attach = self.accept(client, "a")

        assert attach.source is not None
        assert attach.source.address == "amqps://host/s"
        assert attach.source.filter == {SESSION_FILTER: "a"}
        assert attach.properties is not None
        ticks = attach.properties["com.microsoft:locked-until-utc"]
        assert 25 < (ticks - TICKS_AT_EPOCH) / 1e7 - time.time() < 31

    def test_only_messages_of_the_session_come(self, house: House, client: Client) -> None:
        self.fill(client, "a", "b", "a")
        self.accept(client, "a")

        client.flow(delivery_count=0, link_credit=10, drain=True)

        assert [body(client.receive()[1]) for _ in range(2)] == [b"a", b"a"]
        assert client.expect(Flow).drain

    def test_who_holds_it_holds_it_alone_until_the_link_goes(self, house: House, client: Client) -> None:
        self.accept(client, "a")
        with Client(house) as other:
            other.ready()
            other.ask_receiver("s", handle=1, filter={Symbol(SESSION_FILTER): "a"})
            assert refusal(other) == "com.microsoft:session-cannot-be-locked"

            client.send(Detach(handle=1, closed=True))
            client.expect(Detach)

            assert self.accept(other, "a", handle=2).source is not None

    def test_the_next_free_session_is_waited_for(self, house: House, client: Client) -> None:
        with Client(house) as other:
            other.ready()
            other.ask_receiver("s", filter={Symbol(SESSION_FILTER): None})

            self.fill(client, "late")

            attach = other.expect(Attach)
            assert attach.source is not None
            assert attach.source.filter == {SESSION_FILTER: "late"}

    def test_waiting_ends_after_the_time_that_the_client_gave(self, house: House, client: Client) -> None:
        client.ask_receiver(
            "s",
            filter={Symbol(SESSION_FILTER): None},
            properties={Symbol("com.microsoft:timeout"): UInt(30)},
        )

        assert refusal(client) == "com.microsoft:timeout"

    def test_a_session_that_is_killed_is_free_and_its_messages_uncounted(
        self, house: House, client: Client
    ) -> None:
        self.fill(client, "a")
        with Client(house) as victim:
            victim.ready()
            self.accept(victim, "a")
            victim.flow(delivery_count=0, link_credit=1)
            victim.receive()

        self.accept(client, None)
        client.flow(delivery_count=0, link_credit=1)

        assert Message.parse(client.receive()[1]).header.delivery_count == 0

    def test_a_waiter_that_went_away_gets_nothing(self, house: House, client: Client) -> None:
        with Client(house) as leaver:
            leaver.ready()
            leaver.ask_receiver("s", filter={Symbol(SESSION_FILTER): None})
            leaver.send(Close())
            leaver.expect(Close)

        self.fill(client, "a")

        assert self.accept(client, "a").source is not None

    def test_an_expired_lock_detaches_the_link_after_a_while(self, house: House, client: Client) -> None:
        house.queue("s", sessions=True, lock=0.02)
        self.accept(client, "a")
        client.flow(delivery_count=0, link_credit=1)
        began = time.monotonic()

        detach = client.expect(Detach)

        assert 0.9 < time.monotonic() - began < 5
        assert detach.error is not None
        assert detach.error.condition == "com.microsoft:session-lock-lost"

    def test_nobody_gets_messages_by_a_lock_that_has_expired(self, house: House, client: Client) -> None:
        house.queue("s", sessions=True, lock=0.02)
        self.fill(client, "a")
        self.accept(client, "a")
        time.sleep(0.05)

        client.flow(delivery_count=0, link_credit=1, drain=True)

        assert client.expect(Flow).drain
        assert house.counts("s")["active"] == 1

    def test_a_lost_lock_detaches_the_link(self, house: House, client: Client) -> None:
        self.accept(client, "a")

        house.do(lambda: house.namespace.queue("s").lose_session("a", time.time()))  # type: ignore[union-attr]

        detach = client.expect(Detach)
        assert detach.error is not None
        assert detach.error.condition == "com.microsoft:session-lock-lost"
