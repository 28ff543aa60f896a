"""Attaching to the local Service Bus and sending to it, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from queue_runtime.testing.servicebus.amqp_types import Symbol
from queue_runtime.testing.servicebus.messages import BATCH_FORMAT
from queue_runtime.testing.servicebus.performatives import (
    Accepted,
    Detach,
    Disposition,
    End,
    Flow,
    Transfer,
)
from queue_runtime.testing.servicebus.receivers import SESSION_FILTER
from tests.testing_servicebus.wire_client import Client, body, fill, message, refusal, rejected, section
from tests.testing_servicebus.wire_house import House, running


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with running() as house:
        yield house


@pytest.fixture
def client(house: House) -> Iterator[Client]:
    house.queue()
    with Client(house) as client:
        yield client.ready()


class TestAttaching:
    def test_a_sender_is_told_the_limits_and_gets_credit(self, house: House, client: Client) -> None:
        house.queue(max_message_size=5000, max_batch_size=9000)

        attach = client.attach_sender("amqps://host:5671/q")

        assert attach.target is not None
        assert attach.target.address == "amqps://host:5671/q"
        assert attach.source is not None
        assert attach.max_message_size == 5000
        assert attach.properties == {"com.microsoft:max-message-batch-size": 9000}
        assert client.expect(Flow).link_credit

    def test_a_receiver_gets_its_source_back_and_a_first_count(self, client: Client) -> None:
        attach = client.attach_receiver("amqps://host/q/$DeadLetterQueue")

        assert attach.source is not None
        assert attach.source.address == "amqps://host/q/$DeadLetterQueue"
        assert attach.initial_delivery_count == 0

    @pytest.mark.parametrize(
        ("address", "condition"),
        [
            ("amqps://host/none", "amqp:not-found"),
            ("none/$management", "amqp:not-found"),
            ("q/$DeadLetterQueue", "amqp:not-allowed"),
            ("", "amqp:invalid-field"),
        ],
    )
    def test_a_sender_to_nowhere_is_refused(self, client: Client, address: str, condition: str) -> None:
        client.ask_sender(address)

        assert refusal(client) == condition

    def test_a_refused_handle_can_be_used_again(self, client: Client) -> None:
        client.ask_sender("none")
        refusal(client)

        assert client.attach_sender("q").target is not None

    def test_the_kind_of_receiver_must_fit_the_queue(self, house: House, client: Client) -> None:
        house.queue("s", sessions=True)

        client.ask_receiver("s", handle=1)
        assert refusal(client) == "amqp:not-allowed"
        client.ask_receiver("q", handle=2, filter={Symbol(SESSION_FILTER): "a"})
        assert refusal(client) == "amqp:not-allowed"
        client.ask_receiver("s", handle=3, filter={Symbol(SESSION_FILTER): 5})
        assert refusal(client) == "amqp:not-allowed"

    def test_two_hundred_links_on_a_connection(self, client: Client) -> None:
        for number in range(100):
            client.attach_sender("q", handle=2 * number)
            client.attach_receiver("q", handle=2 * number + 1)

        client.transfer(message(b"x"), handle=150)
        assert client.expect(Disposition).state == Accepted()
        client.flow(151, delivery_count=0, link_credit=1)

        transfer, _ = client.receive()
        assert transfer.handle == 151


class TestSending:
    def test_a_large_message_arrives_in_many_frames(self, client: Client) -> None:
        content = bytes(range(256)) * 900
        payload = message(content)
        client.attach_sender("q")
        for start in range(0, len(payload), 1000):
            client.send(
                Transfer(
                    handle=0,
                    delivery_id=0 if start == 0 else None,
                    delivery_tag=b"t",
                    more=start + 1000 < len(payload),
                ),
                payload[start : start + 1000],
            )
        assert client.expect(Disposition).state == Accepted()

        client.attach_receiver("q")
        client.flow(delivery_count=0, link_credit=1)

        assert body(client.receive()[1]) == content

    def test_an_aborted_message_is_forgotten(self, house: House, client: Client) -> None:
        client.attach_sender("q")

        client.transfer(message(b"never"), more=True)
        client.send(Transfer(handle=0, aborted=True))
        client.transfer(message(b"this"))

        assert client.expect(Disposition).first == 1
        assert house.counts()["active"] == 1

    def test_a_message_over_the_limit_is_rejected_and_the_link_lives(
        self, house: House, client: Client
    ) -> None:
        house.queue(max_message_size=1000, max_batch_size=1000)
        client.attach_sender("q")

        client.transfer(message(b"x" * 1001))
        assert rejected(client) == "amqp:link:message-size-exceeded"
        client.transfer(message(b"x" * 900))
        assert client.expect(Disposition).state == Accepted()

    def test_what_is_no_message_is_rejected(self, client: Client) -> None:
        client.attach_sender("q")

        client.transfer(b"\x00\x53\x75")

        assert rejected(client) == "amqp:decode-error"

    def test_a_batch_is_taken_whole_or_not_at_all(self, house: House, client: Client) -> None:
        client.attach_sender("q")
        good = [section(0x75, message(str(number).encode())) for number in range(3)]

        client.send(Transfer(handle=0, delivery_id=0, message_format=BATCH_FORMAT), b"".join(good))
        assert client.expect(Disposition).state == Accepted()
        client.send(
            Transfer(handle=0, delivery_id=1, message_format=BATCH_FORMAT), good[0] + section(0x75, b"\xff")
        )
        assert rejected(client) == "amqp:decode-error"

        assert house.counts()["active"] == 3

    def test_what_is_settled_gets_no_answer(self, house: House, client: Client) -> None:
        client.attach_sender("q")

        client.transfer(message(b"quiet"), settled=True)
        client.transfer(message(b"loud"))

        assert client.expect(Disposition).first == 1
        assert house.counts()["active"] == 2

    def test_credit_is_renewed(self, client: Client) -> None:
        client.attach_sender("q")
        assert client.expect(Flow).link_credit == 1000

        for _ in range(1500):
            client.transfer(message(b""), settled=True)

        renewals = [client.expect(Flow) for _ in range(3)]
        assert [flow.delivery_count for flow in renewals] == [500, 1000, 1500]
        assert {flow.link_credit for flow in renewals} == {1000}

    def test_the_window_of_the_session_is_renewed(self, client: Client) -> None:
        client.attach_sender("q")
        assert client.expect(Flow).incoming_window == 5000

        client.transfer(b"", more=True)
        for _ in range(2500):
            client.send(Transfer(handle=0, more=True))

        flow = client.expect(Flow)
        assert (flow.handle, flow.incoming_window, flow.next_incoming_id) == (None, 5000, 2500)

    def test_delivery_ids_out_of_order_are_counted(self, house: House, client: Client) -> None:
        before = house.stats()["delivery_id_violations"]
        client.attach_sender("q")

        for delivery_id in (0, 1, 1, 5, 6):
            client.transfer(message(), delivery_id=delivery_id)
            client.expect(Disposition)

        assert house.stats()["delivery_id_violations"] - before == 2

    def test_ids_count_over_all_links_of_a_session_and_wrap_around(self, house: House) -> None:
        before = house.stats()["delivery_id_violations"]
        house.queue()
        with Client(house) as client:
            client.open()
            client.begin(next_outgoing_id=2**32 - 1)
            client.attach_sender("q", handle=0)
            client.attach_sender("q", handle=1)

            for handle, delivery_id in ((0, 2**32 - 1), (1, 0), (0, 1)):
                client.transfer(message(), handle=handle, delivery_id=delivery_id)
                client.expect(Disposition)

        assert house.stats()["delivery_id_violations"] == before


class TestConnections:
    def test_the_end_of_a_session_ends_its_links(self, house: House, client: Client) -> None:
        fill(client, b"1")
        client.attach_receiver("q")
        client.send(End())
        client.expect(End)
        client.begin()

        assert client.attach_receiver("q").source is not None

    def test_a_client_with_an_idle_timeout_hears_from_us(self, house: House) -> None:
        with Client(house) as client:
            client.ready(idle_time_out=200)

            assert client.read()[0] is None
            assert client.read()[0] is None

    def test_links_of_a_queue_that_is_no_more_are_detached(self, house: House, client: Client) -> None:
        client.attach_receiver("q")

        house.queue("q")

        detach = client.expect(Detach)
        assert detach.error is not None
        assert detach.error.condition == "amqp:not-found"

    def test_transfers_that_were_under_way_to_a_detached_link_are_no_offence(
        self, house: House, client: Client
    ) -> None:
        client.attach_sender("q")
        house.do(lambda: house.server.detach("q", "amqp:link:detach-forced"))

        client.transfer(message())
        client.expect(Detach)
        client.send(Detach(handle=0, closed=True))

        assert client.attach_sender("q").target is not None
        assert house.counts()["active"] == 0

    def test_who_does_not_read_stops_getting_messages(self, house: House) -> None:
        house.queue()
        with Client(house, receive_buffer=4096) as client:
            client.ready()
            client.attach_sender("q")
            for _ in range(230):
                client.transfer(message(b"x" * 60_000))
                client.expect(Disposition)
            client.attach_receiver("q")
            client.flow(delivery_count=0, link_credit=1000)

            with Client(house) as other:
                other.ready()
                other.attach_sender("q")
                other.transfer(message(b"others go on"))
                assert other.expect(Disposition).state == Accepted()

            assert house.counts()["active"] > 50
            for _ in range(100):
                client.receive()
