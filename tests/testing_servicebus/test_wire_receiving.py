"""Receiving from the local Service Bus and settling, frame by frame."""

from __future__ import annotations

import time
from collections.abc import Iterator
from uuid import UUID

import pytest

from queue_runtime.testing.servicebus.amqp_types import Symbol, ULong
from queue_runtime.testing.servicebus.messages import Message
from queue_runtime.testing.servicebus.performatives import (
    Accepted,
    Detach,
    Disposition,
    End,
    Error,
    Flow,
    Modified,
    Rejected,
    Released,
    Transfer,
)
from tests.testing_servicebus.wire_client import Client, body, fill, rejected
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


class TestReceiving:
    def test_a_message_comes_with_its_lock_as_tag(self, house: House, client: Client) -> None:
        fill(client, b"one")
        client.attach_receiver("q")
        client.flow(delivery_count=0, link_credit=1)

        transfer, payload = client.receive()

        assert transfer.delivery_tag is not None
        message = Message.parse(payload)
        assert message.header.delivery_count == 0
        assert message.delivery_annotations["x-opt-lock-token"].endswith(
            UUID(bytes_le=transfer.delivery_tag).bytes
        )
        assert message.annotation("x-opt-sequence-number") == 1
        assert abs(message.annotation("x-opt-enqueued-time") / 1000 - time.time()) < 10
        assert 15 < message.annotation("x-opt-locked-until") / 1000 - time.time() < 31
        assert house.counts()["locked"] == 1

    def test_receive_and_delete_settles_and_has_no_tag(self, house: House, client: Client) -> None:
        fill(client, b"one")
        client.attach_receiver("q", settled=True)
        client.flow(delivery_count=0, link_credit=1)

        transfer, _ = client.receive()

        assert (transfer.settled, transfer.delivery_tag) == (True, None)
        assert sum(house.counts().values()) == 0

    def test_no_more_come_than_there_is_credit_for(self, house: House, client: Client) -> None:
        fill(client, b"1", b"2", b"3")
        client.attach_receiver("q")

        client.flow(delivery_count=0, link_credit=2)

        assert [body(client.receive()[1]) for _ in range(2)] == [b"1", b"2"]
        assert house.counts() == {"active": 1, "locked": 2, "deferred": 0, "scheduled": 0, "dead": 0}
        client.flow(delivery_count=2, link_credit=1)
        assert body(client.receive()[1]) == b"3"

    def test_draining_uses_up_the_credit(self, client: Client) -> None:
        fill(client, b"1")
        client.attach_receiver("q")

        client.flow(delivery_count=0, link_credit=10, drain=True)

        assert body(client.receive()[1]) == b"1"
        flow = client.expect(Flow)
        assert (flow.handle, flow.delivery_count, flow.link_credit, flow.drain) == (1, 10, 0, True)

    def test_draining_without_credit_is_answered_too(self, client: Client) -> None:
        client.attach_receiver("q")

        client.flow(delivery_count=0, link_credit=0, drain=True)

        assert client.expect(Flow).drain

    def test_a_flow_is_echoed_if_it_asks_for_that(self, client: Client) -> None:
        client.attach_receiver("q")

        client.flow(delivery_count=0, link_credit=7, echo=True)
        assert client.expect(Flow).link_credit == 7
        client.send(Flow(incoming_window=10, next_outgoing_id=0, outgoing_window=10, echo=True))
        assert client.expect(Flow).handle is None

    def test_a_waiting_receiver_is_served_when_a_message_comes(self, house: House, client: Client) -> None:
        with Client(house) as other:
            other.ready()
            other.attach_receiver("q")
            other.flow(delivery_count=0, link_credit=1)

            fill(client, b"now")

            assert body(other.receive()[1]) == b"now"

    def test_receivers_take_turns(self, client: Client) -> None:
        for handle in (1, 2):
            client.attach_receiver("q", handle=handle)
        fill(client, *[b"x"] * 6)

        for handle in (1, 2):
            client.flow(handle, delivery_count=0, link_credit=3)

        assert sorted(client.receive()[0].handle for _ in range(6)) == [1, 1, 1, 2, 2, 2]

    def test_frames_are_as_small_as_the_client_wants_them(self, house: House) -> None:
        house.queue()
        with Client(house) as client:
            client.ready(max_frame_size=512)
            fill(client, b"x" * 2000)
            client.attach_receiver("q")
            client.flow(delivery_count=0, link_credit=1)

            first, payload = client.read()

            assert isinstance(first, Transfer)
            assert first.more
            assert 400 < len(payload) <= 512

    def test_a_session_window_that_is_full_holds_frames_back(self, house: House) -> None:
        house.queue()
        with Client(house) as client:
            client.open(max_frame_size=512)
            client.begin(incoming_window=2)
            fill(client, b"x" * 1500)
            client.attach_receiver("q")
            client.send(
                Flow(
                    next_incoming_id=0,
                    incoming_window=2,
                    next_outgoing_id=1,
                    outgoing_window=10,
                    handle=1,
                    delivery_count=0,
                    link_credit=1,
                )
            )
            _, one = client.read()
            _, two = client.read()
            client.send(Flow(next_incoming_id=2, incoming_window=100, next_outgoing_id=1, outgoing_window=10))

            _, three = client.read()
            _, four = client.read()

            assert body(one + two + three + four) == b"x" * 1500


class TestSettling:
    @pytest.fixture
    def delivered(self, client: Client) -> int:
        fill(client, b"one")
        client.attach_receiver("q")
        client.flow(delivery_count=0, link_credit=1)
        delivery_id = client.receive()[0].delivery_id
        assert delivery_id is not None
        return delivery_id

    @pytest.mark.parametrize(
        ("state", "answer", "where"),
        [
            (Accepted(), Accepted(), None),
            (Released(), Released(), "active"),
            (Modified(delivery_failed=True), Modified(delivery_failed=True), "active"),
            (
                Modified(delivery_failed=True, undeliverable_here=True),
                Modified(delivery_failed=True, undeliverable_here=True),
                "deferred",
            ),
            (
                Rejected(
                    error=Error(condition="com.microsoft:dead-letter", info={"DeadLetterReason": "why"})
                ),
                Rejected(),
                "dead",
            ),
        ],
        ids=["complete", "release", "abandon", "defer", "dead-letter"],
    )
    def test_the_outcome_is_done_and_echoed(
        self, house: House, client: Client, delivered: int, state: object, answer: object, where: str | None
    ) -> None:
        client.settle(delivered, state)

        disposition = client.expect(Disposition)
        assert (disposition.role, disposition.first, disposition.settled) == (False, delivered, True)
        assert disposition.state == answer
        assert {name for name, count in house.counts().items() if count} == ({where} if where else set())

    def test_the_reason_stands_in_the_dead_letter(self, client: Client, delivered: int) -> None:
        info = {"DeadLetterReason": "why", "DeadLetterErrorDescription": "because", "more": 1}
        client.settle(delivered, Rejected(error=Error(condition="com.microsoft:dead-letter", info=info)))
        client.expect(Disposition)

        client.attach_receiver("q/$DeadLetterQueue", handle=2)
        client.flow(2, delivery_count=0, link_credit=1)

        dead = Message.parse(client.receive()[1])
        assert dead.read_application_properties() == info
        assert dead.annotation("x-opt-deadletter-source") == "q"

    def test_a_lost_lock_is_a_rejection_with_its_reason(
        self, house: House, client: Client, delivered: int
    ) -> None:
        house.do(lambda: house.namespace.queue("q").tick(time.time() + 60))  # type: ignore[union-attr]

        client.settle(delivered, Accepted())

        assert rejected(client) == "com.microsoft:message-lock-lost"

    def test_what_the_client_settles_itself_gets_no_answer(
        self, house: House, client: Client, delivered: int
    ) -> None:
        client.settle(delivered, Accepted(), settled=True)
        client.send(End())

        client.expect(End)
        assert sum(house.counts().values()) == 0

    def test_a_range_may_be_as_wide_as_it_likes(self, house: House, client: Client, delivered: int) -> None:
        client.send(Disposition(role=True, first=0, last=2**32 - 1, settled=False, state=Accepted()))

        assert client.expect(Disposition).first == delivered
        assert sum(house.counts().values()) == 0

    def test_properties_that_cannot_be_set_are_a_rejection(self, client: Client, delivered: int) -> None:
        client.settle(
            delivered, Modified(delivery_failed=True, message_annotations={Symbol("n"): ULong(2**64 - 1)})
        )

        assert rejected(client) == "com.microsoft:argument-error"

    def test_locks_outlive_their_link(self, house: House, client: Client, delivered: int) -> None:
        client.send(Detach(handle=1, closed=True))
        client.expect(Detach)

        assert house.counts()["locked"] == 1
