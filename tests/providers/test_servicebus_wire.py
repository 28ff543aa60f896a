"""Messages on their way to the service and back, by any sender's hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from azure.servicebus import ServiceBusMessage, ServiceBusMessageBatch, ServiceBusReceivedMessage
from azure.servicebus._pyamqp._encode import encode_payload
from azure.servicebus._transport._pyamqp_transport import PyamqpTransport
from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageHeader, AmqpMessageProperties
from hypothesis import given
from hypothesis import strategies as st

from queue_runtime.message import MAX_REPLAYS, MAX_TIME_TO_LIVE, DeadLetterInfo, Message
from queue_runtime.providers.servicebus import wire
from queue_runtime.providers.servicebus.limits import LONGEST_LIFE, MAX_DESCRIPTION, MAX_ID

TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=200
)
IDS = TEXT.filter(lambda text: len(text) > 0)
NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True).filter(lambda name: name != "queue_runtime")
MESSAGES = st.builds(
    Message,
    body=st.binary(max_size=3000),
    id=IDS,
    session_id=st.none() | IDS,
    content_type=st.none() | IDS,
    correlation_id=st.none() | IDS,
    deduplication_id=st.none() | IDS,
    time_to_live=st.none() | st.integers(1, int(MAX_TIME_TO_LIVE * 1000)).map(lambda n: n / 1000),
    replays=st.integers(0, MAX_REPLAYS),
    attributes=st.dictionaries(NAMES.filter(lambda name: not name.lower().startswith("a")), TEXT, max_size=5),
)


def received(message: ServiceBusMessage | AmqpAnnotatedMessage) -> ServiceBusReceivedMessage:
    """What the SDK makes of *message* when it comes back."""
    raw = message.raw_amqp_message if isinstance(message, ServiceBusMessage) else message
    raw.annotations = {b"x-opt-sequence-number": 7, b"x-opt-enqueued-time": 1_700_000_000_000}
    header = raw.header or AmqpMessageHeader()
    header.delivery_count = header.delivery_count or 0
    raw.header = header
    encoded = encode_payload(bytearray(), PyamqpTransport.to_outgoing_amqp_message(raw))
    return ServiceBusReceivedMessage.from_bytes(bytes(encoded))


@given(MESSAGES)
def test_a_message_comes_back_as_it_was_sent(message: Message) -> None:
    back = wire.delivery(received(wire.outgoing(message, sessions=True)), wire.LOOKED_AT)

    assert back.problem is None
    for field in (
        "body",
        "id",
        "session_id",
        "content_type",
        "correlation_id",
        "time_to_live",
        "replays",
    ):
        assert getattr(back.message, field) == getattr(message, field)
    assert dict(back.message.attributes) == dict(message.attributes)
    assert (back.delivery_count, back.sequence) == (1, 7)


@given(MESSAGES)
def test_its_size_is_never_told_too_small(message: Message) -> None:
    batch = ServiceBusMessageBatch(max_size_in_bytes=10_000_000)
    before = batch.size_in_bytes

    batch.add_message(wire.outgoing(message, sessions=True))

    assert batch.size_in_bytes - before <= wire.size(message)
    assert wire.size(message) <= batch.size_in_bytes - before + 300


@given(MESSAGES)
def test_ids_are_no_longer_than_the_service_takes(message: Message) -> None:
    native = wire.outgoing(message, sessions=True)

    assert 0 < len(native.message_id or "") <= MAX_ID
    assert 0 < len(native.session_id or "") <= MAX_ID


def test_without_a_session_id_a_message_goes_to_one_of_few_sessions() -> None:
    native = {wire.outgoing(Message(body=b"x"), sessions=True).session_id for _ in range(2000)}

    assert len(native) == wire.SHARDS
    assert wire.outgoing(Message(body=b"x"), sessions=False).session_id is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"value_body": "grüße"}, "grüße".encode()),
        ({"value_body": b"\x00\xff"}, b"\x00\xff"),
        ({"value_body": None}, b""),
        ({"value_body": {b"n": 1, "ok": [True, None, b"x"]}}, b'{"n": 1, "ok": [true, null, "x"]}'),
        ({"value_body": 1.5}, b"1.5"),
        ({"sequence_body": [[1, b"two"], ["three"]]}, b'[1, "two", "three"]'),
        ({"data_body": [b"in ", b"two"]}, b"in two"),
    ],
    ids=["text", "bytes", "nothing", "map", "number", "sequence", "sections"],
)
def test_bodies_of_other_senders_are_read(body: dict[str, Any], expected: bytes) -> None:
    back = wire.delivery(received(AmqpAnnotatedMessage(**body)), wire.LOOKED_AT)

    assert (back.message.body, back.problem) == (expected, None)


def test_attributes_of_other_types_come_as_text() -> None:
    unique = UUID("12345678123456781234567812345678")
    message = ServiceBusMessage(b"x", application_properties={"n": 1, b"b": b"bytes", "u": unique, "t": True})

    attributes = wire.delivery(received(message), wire.LOOKED_AT).message.attributes

    assert dict(attributes) == {"n": "1", "b": "bytes", "u": str(unique), "t": "True"}


def test_a_name_that_ours_would_refuse_is_a_problem_of_that_message() -> None:
    message = ServiceBusMessage(b"x", application_properties={"with space": "v"})

    back = wire.delivery(received(message), wire.LOOKED_AT)

    assert back.message.body == b"x"
    assert "with space" in (back.problem or "")


def test_a_message_without_an_id_is_named_by_its_place() -> None:
    message = AmqpAnnotatedMessage(data_body=[b"x"], properties=AmqpMessageProperties())

    assert wire.delivery(received(message), wire.LOOKED_AT).message.id == "7"


def test_a_forged_count_harms_only_itself() -> None:
    for forged in (-5, 10**12, "many", None):
        reserved = json.dumps({"deliveries": forged, "id": 5})
        message = ServiceBusMessage(b"x", message_id="m", application_properties={"queue_runtime": reserved})

        back = wire.delivery(received(message), wire.LOOKED_AT)

        assert (back.delivery_count, back.message.id) == (1, "m")


class TestDeadLetters:
    @given(
        st.builds(
            DeadLetterInfo,
            reason=IDS,
            description=st.none() | st.text(max_size=6000),
            exception=st.none() | TEXT,
            traceback=st.none() | st.text(max_size=6000),
            attempts=st.none() | st.integers(1, 100),
            queue=st.none() | IDS,
            session_id=st.none() | st.text(min_size=1, max_size=1024),
            message_id=st.none() | st.text(min_size=1, max_size=1024),
        )
    )
    def test_the_record_fits_and_keeps_its_reason(self, info: DeadLetterInfo) -> None:
        reason, description = wire.described(info)
        message = ServiceBusMessage(
            b"x",
            application_properties={"DeadLetterReason": reason, "DeadLetterErrorDescription": description},
        )

        found = wire.delivery(received(message), wire.LOOKED_AT).dead_letter

        assert len(reason) <= MAX_DESCRIPTION
        assert len(description) <= MAX_DESCRIPTION
        assert found is not None
        assert (found.reason, found.attempts) == (info.reason, info.attempts)

    def test_what_fits_is_kept_whole(self) -> None:
        info = DeadLetterInfo(reason="r", description="d", traceback="t" * 1000, session_id="s", sequence=3)
        reason, description = wire.described(info)
        message = ServiceBusMessage(
            b"x",
            application_properties={"DeadLetterReason": reason, "DeadLetterErrorDescription": description},
        )

        assert wire.delivery(received(message), wire.LOOKED_AT).dead_letter == info

    def test_the_traceback_loses_its_beginning_first(self) -> None:
        info = DeadLetterInfo(reason="r", description="kept", traceback="begin" + "x" * 5000 + "the cause")
        message = ServiceBusMessage(
            b"x", application_properties={"DeadLetterErrorDescription": wire.described(info)[1]}
        )

        found = wire.delivery(received(message), wire.LOOKED_AT).dead_letter

        assert found is not None
        assert found.description == "kept"
        assert (found.traceback or "").endswith("the cause")
        assert "begin" not in (found.traceback or "")

    def test_what_the_service_or_another_tool_moved_has_its_reason(self) -> None:
        for theirs, ours in (
            ("MaxDeliveryCountExceeded", "MaxReceivesExceeded"),
            ("TTLExpiredException", "TimeToLiveExpired"),
            ("TheirOwnReason",) * 2,
        ):
            message = ServiceBusMessage(
                b"x",
                application_properties={
                    "DeadLetterReason": theirs,
                    "DeadLetterErrorDescription": "{not ours",
                },
            )

            back = wire.delivery(received(message), wire.LOOKED_AT)

            assert back.dead_letter == DeadLetterInfo(reason=ours, description="{not ours")
            assert dict(back.message.attributes) == {}


class TestDelayedCopies:
    def test_a_copy_shows_the_same_ids_and_goes_on_counting(self) -> None:
        first = received(
            wire.outgoing(Message(body=b"x", id="m" * 300, attributes={"k": "v"}), sessions=False)
        )
        shown = wire.delivery(first, wire.LOOKED_AT)
        due_at = datetime(2026, 1, 1, tzinfo=UTC)

        again = received(wire.delayed_copy(first, due_at))
        second = wire.delivery(again, wire.LOOKED_AT)
        third = wire.delivery(received(wire.delayed_copy(again, due_at)), wire.LOOKED_AT)

        assert second.message.id == shown.message.id == "m" * 300
        assert dict(second.message.attributes) == {"k": "v"}
        assert [shown.delivery_count, second.delivery_count, third.delivery_count] == [1, 2, 3]
        assert shown.broker_id == second.broker_id == third.broker_id

    def test_each_copy_has_a_message_id_of_its_own_and_one_hold_has_one(self) -> None:
        first = received(wire.outgoing(Message(body=b"x", id="m"), sessions=False))
        due_at = datetime(2026, 1, 1, tzinfo=UTC)

        once, twice = wire.delayed_copy(first, due_at), wire.delayed_copy(first, due_at)
        later = wire.delayed_copy(received(once), due_at)

        assert once.message_id == twice.message_id
        assert len({"m", once.message_id, later.message_id}) == 3

    def test_what_is_left_of_its_life_goes_on_when_it_is_due(self) -> None:
        message = wire.outgoing(Message(body=b"x"), sessions=False)
        message.time_to_live = timedelta(seconds=100)
        first = received(message)
        assert first.expires_at_utc is not None

        due_at = first.expires_at_utc - timedelta(seconds=40)
        copy = wire.delayed_copy(first, due_at)
        too_late = wire.delayed_copy(first, first.expires_at_utc + timedelta(seconds=5))

        assert copy.time_to_live == timedelta(seconds=40)
        assert too_late.time_to_live == timedelta(seconds=1)
        assert wire.delivery(received(copy), wire.LOOKED_AT).message.time_to_live == 100.0, "for a replay"


class TestTimeToLive:
    def life(self, seconds: float) -> int | None:
        """What the field says, in milliseconds."""
        header = wire.outgoing(
            Message(body=b"x", time_to_live=seconds), sessions=False
        ).raw_amqp_message.header
        return None if header is None else header.time_to_live

    @pytest.mark.parametrize("seconds", [0.001, 0.5, 1.0, 1.5, 60.0, 2147476.399, 4_294_967.0])
    def test_it_is_told_to_the_millisecond(self, seconds: float) -> None:
        assert self.life(seconds) == round(seconds * 1000)

    @pytest.mark.parametrize("seconds", [4_294_967.295, 4_294_967.296, MAX_TIME_TO_LIVE])
    def test_one_beyond_seven_weeks_is_cut_there_and_shown_whole(self, seconds: float) -> None:
        message = wire.outgoing(Message(body=b"x", time_to_live=seconds), sessions=False)

        assert self.life(seconds) == LONGEST_LIFE
        assert wire.delivery(received(message), wire.LOOKED_AT).message.time_to_live == seconds

    @pytest.mark.parametrize("seconds", [0.0001, 0.0004])
    def test_the_shortest_is_a_millisecond(self, seconds: float) -> None:
        assert self.life(seconds) == 1

    def test_without_one_nothing_is_told(self) -> None:
        raw = wire.outgoing(Message(body=b"x"), sessions=False).raw_amqp_message

        assert raw.header is None or raw.header.time_to_live is None

    @pytest.mark.parametrize("milliseconds", [None, 0, LONGEST_LIFE])
    def test_one_without_an_end_is_none(self, milliseconds: int | None) -> None:
        message = AmqpAnnotatedMessage(data_body=b"x", header=AmqpMessageHeader(time_to_live=milliseconds))

        assert wire.delivery(received(message), wire.LOOKED_AT).message.time_to_live is None
