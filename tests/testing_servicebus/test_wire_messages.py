"""Messages in the local Service Bus: what a sender wrote reaches the receiver as it was written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_runtime.testing.servicebus.amqp_types import Symbol, Timestamp, UByte, UInt, ULong, decode, encode
from queue_runtime.testing.servicebus.errors import DecodeError
from queue_runtime.testing.servicebus.messages import Header, Message, Properties
from queue_runtime.testing.servicebus.senders import incoming
from tests.testing_servicebus.wire_client import section

SECTIONS = {
    0x70: Header(durable=True, priority=7, ttl=60_000, delivery_count=9).encode(),
    0x71: section(0x71, {Symbol("x-opt-their-delivery"): UByte(1)}),
    0x72: section(0x72, {Symbol("x-opt-theirs"): UInt(2), Symbol("x-opt-sequence-number"): 99}),
    0x73: Properties(
        message_id="m",
        user_id=b"u",
        to="to",
        reply_to="back",
        correlation_id=ULong(7),
        content_type=Symbol("text/plain"),
        absolute_expiry_time=1_800_000_000_000,
        creation_time=1_700_000_000_000,
        group_id="s",
        group_sequence=UInt(2),
    ).encode(),
    0x74: section(0x74, {"name": "value", "number": UByte(3)}),
    0x75: section(0x75, b"one") + section(0x75, b"two"),
    0x78: section(0x78, {Symbol("foot"): "note"}),
}


def delivered(message: Message, **broker_annotations: Any) -> Message:
    return Message.parse(
        message.encode(
            delivery_count=2,
            delivery_annotations={"x-opt-lock-token": "t"},
            message_annotations={"x-opt-sequence-number": 1, **broker_annotations},
        )
    )


def annotations_of(entries: Any) -> dict[Any, Any]:
    found = {}
    for entry in entries.values():
        key, middle = decode(entry)
        found[key] = decode(entry, middle)[0]
    return found


@given(st.permutations(sorted(SECTIONS)))
def test_sections_survive_in_whatever_order_they_came(order: list[int]) -> None:
    message = delivered(Message.parse(b"".join(SECTIONS[code] for code in order)))

    assert message.header == Header(durable=True, priority=7, ttl=60_000, delivery_count=2)
    assert annotations_of(message.delivery_annotations) == {
        "x-opt-their-delivery": 1,
        "x-opt-lock-token": "t",
    }
    assert annotations_of(message.message_annotations) == {"x-opt-theirs": 2, "x-opt-sequence-number": 1}
    assert message.properties == SECTIONS[0x73]
    assert message.application_properties == SECTIONS[0x74]
    assert message.body == SECTIONS[0x75]
    assert message.footer == SECTIONS[0x78]


@pytest.mark.parametrize("body", [section(0x76, [1, "two"]) + section(0x76, []), section(0x77, {"a": None})])
def test_sequence_and_value_bodies_survive(body: bytes) -> None:
    assert delivered(Message.parse(body)).body == body


def test_a_message_may_be_empty() -> None:
    assert Message.parse(b"") == Message()
    assert incoming(Message()).message_id is None


def test_application_properties_can_be_added_and_replaced() -> None:
    message = Message.parse(SECTIONS[0x74]).with_application_properties({"name": "new", "more": True})

    assert message.read_application_properties() == {"name": "new", "number": 3, "more": True}
    assert b"\x50\x03" in message.application_properties  # still a ubyte


def test_a_property_without_an_amqp_type_is_refused() -> None:
    with pytest.raises(DecodeError, match="no application property"):
        Message().with_application_properties({"n": 2**64})


def test_properties_are_read_in_all_their_types() -> None:
    found = Message.parse(SECTIONS[0x73]).read_properties()

    assert (found.message_id, found.user_id, found.correlation_id) == ("m", b"u", 7)
    assert (found.absolute_expiry_time, found.creation_time) == (1_800_000_000_000, 1_700_000_000_000)


def test_a_queue_goes_by_properties_header_and_annotations() -> None:
    annotations = {
        Symbol("x-opt-scheduled-enqueue-time"): Timestamp(5_500),
        Symbol("x-opt-partition-key"): "p",
    }
    message = Message.parse(SECTIONS[0x70] + section(0x72, annotations) + SECTIONS[0x73])

    found = incoming(message)

    assert (found.message_id, found.session_id) == ("m", "s")
    assert (found.ttl, found.scheduled_at, found.partition_key) == (60.0, 5.5, "p")
    assert found.content is message


@pytest.mark.parametrize(
    "payload",
    [
        b"\x53\x75",
        section(0x79, b"x"),
        section(0x75, b"x")[:-1],
        SECTIONS[0x73] + SECTIONS[0x73],
        section(0x72, ["no map"]),
        section(0x74, ["no map"]),
        section(0x70, {}),
        b"\x00" + encode("amqp:data:binary") + encode(b"x"),
    ],
    ids=["undescribed", "unknown", "cut-off", "twice", "annotations", "properties", "header", "by-name"],
)
def test_what_is_no_message_is_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        Message.parse(payload)


@given(st.binary(max_size=100))
def test_any_bytes_are_a_message_or_a_decode_error(payload: bytes) -> None:
    try:
        message = Message.parse(payload)
        incoming(message)
    except DecodeError:
        return
    delivered(message)
    message.with_application_properties({"DeadLetterReason": "any"})


def test_a_batch_is_messages_in_data_sections() -> None:
    batch = Message.parse(section(0x75, b"1") + section(0x75, b"2"))

    assert list(batch.data()) == [b"1", b"2"]


def test_a_batch_of_something_else_is_refused() -> None:
    with pytest.raises(DecodeError, match="batch"):
        list(Message.parse(section(0x77, "text")).data())
