"""Messages that the SDK cannot decode: shown with what can be read, put aside, in nobody's way."""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import Any

import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus._pyamqp._encode import encode_payload
from azure.servicebus._pyamqp.message import Header, Message, Properties
from azure.servicebus.amqp import AmqpAnnotatedMessage
from hypothesis import given
from hypothesis import strategies as st

import queue_runtime
from queue_runtime import ReceivedMessage, Worker, connect
from queue_runtime.message import DeadLetterInfo
from queue_runtime.provider import Complete, DeadLetter
from queue_runtime.providers.servicebus.salvage import decode, problem
from tests.providers.servicebus_house import (
    House,
    accept,
    error_of,
    fill,
    head,
    ids,
    receive,
    settled,
    within,
)

POISON: Any = Decimal("1.5")
"""As azure-servicebus 7.15 writes it, it cannot read it."""


def poison(message_id: str = "poison", session: str | None = None, size: int = 1) -> ServiceBusMessage:
    return ServiceBusMessage(
        b"x" * size,
        message_id=message_id,
        session_id=session,
        application_properties={"good": "1", "bad": POISON, "better": "2"},
    )


def encoded(message: Message) -> bytes:
    output = bytearray()
    encode_payload(output, message)
    return bytes(output)


class TestWhatCanBeRead:
    def test_is_all_but_the_property_that_cannot_be(self) -> None:
        found: Any = decode(
            encoded(
                Message(
                    header=Header(delivery_count=3),
                    message_annotations={"x-opt-sequence-number": 5},
                    properties=Properties(message_id="m", group_id="g"),
                    application_properties={"good": "1", "bad": POISON, "better": "2"},
                    data=[b"body", b" in parts"],
                )
            )
        )

        assert found.header.delivery_count == 3
        assert found.message_annotations == {b"x-opt-sequence-number": 5}
        assert (found.properties.message_id, found.properties.group_id) == (b"m", b"g")
        assert found.application_properties == {b"good": b"1", b"better": b"2"}
        assert found.data == [b"body", b" in parts"]
        assert "decimal128" in str(problem(found))

    def test_of_a_value_is_its_bytes(self) -> None:
        whole = encoded(Message(properties=Properties(message_id="m"), value={"bad": POISON}))

        found: Any = decode(whole)

        assert found.properties.message_id == b"m"
        assert found.data == [whole[-len(found.data[0]) :]]

    def test_is_all_of_a_message_without_faults(self) -> None:
        found = decode(encoded(Message(application_properties={"good": "1"}, data=[b"body"])))

        assert found.application_properties == {b"good": b"1"}
        assert problem(found) is None

    def test_may_be_nothing(self) -> None:
        found = decode(b"\x00\x53\x74\xc1")

        assert found == Message()
        assert problem(found) is not None

    def test_is_what_stands_before_a_value_without_end(self) -> None:
        found: Any = decode(encoded(Message(header=Header(delivery_count=3))) + b"\x00" * 5000)

        assert found.header.delivery_count == 3

    @given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8), st.floats(0, 1))
    def test_never_raises(self, changes: list[tuple[int, int]], part: float) -> None:
        payload = bytearray(
            encoded(
                Message(
                    header=Header(delivery_count=3),
                    message_annotations={"x-opt-sequence-number": 5},
                    properties=Properties(message_id="m", group_id="g"),
                    application_properties={"a": "1", "b": 2.5, "c": None},
                    data=[b"body"],
                )
            )
        )
        for place, byte in changes:
            payload[place % len(payload)] = byte

        assert isinstance(decode(bytes(payload[: int(part * len(payload)) or 1])), Message)


class TestInAQueue:
    def test_it_comes_with_a_problem_and_others_beside_it(self, house: House) -> None:
        house.queue()
        client = house.client(receivers="1")
        fill(client, 1)
        house.send_raw("jobs", poison())
        client.send("jobs", [_message("last")])

        with within(2.0):
            first, second, third = receive(client, 3)

        assert ids([first, second, third]) == ["m0", "poison", "last"]
        assert [first.problem, third.problem] == [None, None]
        assert second.problem is not None
        assert "azure-servicebus cannot decode it" in second.problem
        assert second.message.attributes == {"good": "1", "better": "2"}
        assert second.message.body == b"x"
        assert second.leased_until > first.leased_until - 1.0

    def test_it_is_settled_and_renewed_like_any_other(self, house: House) -> None:
        house.queue()
        client = house.client()
        house.send_raw("jobs", poison())
        [delivery] = receive(client)

        assert error_of(client.renew("jobs", [delivery])) is None
        assert settled(client, DeadLetter(delivery, DeadLetterInfo(reason="DecodeError"))) is None

        assert house.counts() == {"dead": 1}

    def test_it_is_peeked_and_received_among_the_dead_letters(self, house: House) -> None:
        house.queue()
        client = house.client()
        house.send_raw("jobs", poison())
        [delivery] = receive(client)
        assert settled(client, DeadLetter(delivery, DeadLetterInfo(reason="DecodeError"))) is None
        dead = "jobs/$DeadLetterQueue"

        [peeked] = client.peek(dead, 5)
        [found] = receive(client, 1, dead)

        for each in (peeked, found):
            assert each.message.id == "poison"
            assert each.problem is not None
            assert each.dead_letter is not None
            assert each.dead_letter.reason == "DecodeError"
        assert settled(client, Complete(found), dead) is None
        assert house.counts() == {}

    def test_one_of_many_frames_comes_too(self, house: House) -> None:
        house.queue()
        client = house.client()
        house.send_raw("jobs", poison(size=200_000), ServiceBusMessage(b"y" * 200_000, message_id="whole"))

        first, second = receive(client, 2)

        assert first.problem is not None
        assert (first.message.body, second.message.body) == (b"x" * 200_000, b"y" * 200_000)
        assert second.problem is None

    @pytest.mark.parametrize(
        "raw",
        [
            AmqpAnnotatedMessage(value_body={"bad": POISON}),
            AmqpAnnotatedMessage(sequence_body=[[POISON, 1]]),
            AmqpAnnotatedMessage(data_body=b"x", annotations={"bad": POISON}),
            AmqpAnnotatedMessage(data_body=b"x", footer={"bad": POISON}),
        ],
        ids=["value", "sequence", "annotations", "footer"],
    )
    def test_it_comes_wherever_the_fault_is(self, house: House, raw: Any) -> None:
        house.queue()
        client = house.client()
        house.send_raw("jobs", raw)
        fill(client, 1)

        first, second = receive(client, 2)

        assert first.problem is not None
        assert second.message.id == "m0"
        assert settled(client, Complete(first)) is None


class TestInASession:
    def test_it_does_not_stand_in_the_way_of_what_follows(self, house: House) -> None:
        house.queue(sessions=True)
        client = house.client()
        fill(client, 1, session="s")
        house.send_raw("jobs", poison(session="s"))
        client.send("jobs", [_message("last", "s")])
        session = accept(client)

        found = []
        for _ in range(3):
            delivery = head(session)
            found.append((delivery.message.id, delivery.problem is None))
            info = DeadLetterInfo(reason="DecodeError")
            make: Any = Complete if delivery.problem is None else lambda d: DeadLetter(d, info)  # noqa: B023
            assert error_of(session.settle([make(delivery)])) is None

        assert found == [("m0", True), ("poison", False), ("last", True)]
        assert house.counts() == {"dead": 1}

    def test_a_worker_puts_it_aside_and_goes_on_in_order(self, house: House) -> None:
        house.queue(sessions=True)
        with connect(house.bus.target()) as client:
            house.send_raw("jobs", *_raw_session())
            handled: list[str] = []
            done = threading.Event()

            def handle(message: ReceivedMessage) -> None:
                handled.append(message.id)
                if len(handled) == 2:
                    done.set()

            with Worker(client, "jobs", handle, concurrency=2), within(5.0):
                assert done.wait(5.0)

            assert handled == ["first", "last"]
            [dead] = client.dead_letters("jobs").list()
            assert dead.id == "poison"
            assert dead.dead_letter is not None
            assert dead.dead_letter.reason == "DecodeError"


def _raw_session() -> list[ServiceBusMessage]:
    first, last = (ServiceBusMessage(b"x", message_id=name, session_id="s") for name in ("first", "last"))
    return [first, poison(session="s"), last]


def _message(name: str, session: str | None = None) -> queue_runtime.Message:
    return queue_runtime.Message(body=b"x", id=name, session_id=session)
