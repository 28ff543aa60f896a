"""Messages, what travels of them, the hold on them, and how they cross a process."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
import pickle
import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_runtime import errors
from queue_runtime.codec import EMPTY, decode_text, encode_text, short_id
from queue_runtime.errors import (
    BatchFailed,
    CircuitOpen,
    DecodeError,
    InvalidMessage,
    InvalidName,
    LeaseLost,
    MessageTooLarge,
    Outcome,
    QueueError,
    SessionLeaseLost,
    Throttled,
)
from queue_runtime.message import (
    MAX_ID_LENGTH,
    MAX_REPLAYS,
    MAX_TIME_TO_LIVE,
    RESERVED_ATTRIBUTE,
    DeadLetterInfo,
    Delivery,
    Lease,
    Message,
    MessageView,
    ReceivedMessage,
    check_queue,
)
from queue_runtime.testing import FakeClock

printable = st.characters(
    exclude_categories=["Cs", "Cc"],
    exclude_characters="\ufffe\uffff",
)
ids = st.text(printable, min_size=1, max_size=20)
names = st.from_regex(r"[A-Za-z0-9_-]{1,10}(\.[A-Za-z0-9_-]{1,10})?", fullmatch=True).filter(
    lambda name: name != RESERVED_ATTRIBUTE and not name.lower().startswith(("aws.", "amazon."))
)
messages = st.builds(
    Message,
    body=st.binary(max_size=40) | st.text(max_size=20).map(lambda text: text.encode(errors="replace")),
    id=ids,
    session_id=st.none() | ids,
    attributes=st.dictionaries(names, st.text(max_size=10), max_size=4),
    content_type=st.none() | ids,
    correlation_id=st.none() | ids,
    deduplication_id=st.none() | ids,
    time_to_live=st.none() | st.floats(0.001, MAX_TIME_TO_LIVE),
    replays=st.integers(0, MAX_REPLAYS),
)
infos = st.builds(
    DeadLetterInfo,
    reason=st.text(max_size=9),
    description=st.none() | st.text(max_size=9),
    attempts=st.none() | st.integers(0, 99),
    sequence=st.none() | st.integers(0, 2**127),
)


def delivery(message: Message | None = None, **changes: Any) -> Delivery:
    known: dict[str, Any] = {
        "message": message or Message(body=b"{}", id="m1"),
        "receipt": "AQEB-secret-receipt",
        "broker_id": "b1",
        "delivery_count": 1,
        "sequence": None,
        "enqueued_at": None,
        "leased_until": 30.0,
        "lease": 30.0,
    }
    return Delivery(**{**known, **changes})


class TestAMessage:
    def test_has_an_id_of_its_own_made_once(self) -> None:
        first, second = Message(body=b""), Message(body=b"")

        assert first.id != second.id
        assert first.id == first.id

    @pytest.mark.parametrize(
        ("payload", "body", "content_type"),
        [
            (b"\x00", b"\x00", None),
            ("é", "é".encode(), "text/plain; charset=utf-8"),
            ({"a": [1, None]}, b'{"a":[1,null]}', "application/json"),
        ],
    )
    def test_is_made_of_bytes_text_or_json(
        self, payload: object, body: bytes, content_type: str | None
    ) -> None:
        message = Message.of(payload)

        assert (message.body, message.content_type) == (body, content_type)

    def test_keeps_what_it_is_given(self) -> None:
        message = Message.of(
            {},
            id="i",
            session_id="s",
            attributes={"a": "b"},
            content_type="c",
            correlation_id="r",
            deduplication_id="d",
            delay=2,
            time_to_live=60,
            replays=1,
        )

        assert message == Message(
            body=b"{}",
            id="i",
            session_id="s",
            attributes={"a": "b"},
            content_type="c",
            correlation_id="r",
            deduplication_id="d",
            delay=2,
            time_to_live=60,
            replays=1,
        )

    def test_does_not_change_with_the_dictionary_it_was_made_with(self) -> None:
        attributes = {"a": "b"}
        message = Message(body=b"", attributes=attributes)

        attributes["a"] = "changed"

        assert message.attributes == {"a": "b"}
        with pytest.raises(TypeError):
            message.attributes["a"] = "changed"  # type: ignore[index]  # that is the test

    @given(messages)
    def test_crosses_a_process_unchanged(self, message: Message) -> None:
        assert pickle.loads(pickle.dumps(message)) == message
        assert copy.deepcopy(message) == message
        assert dataclasses.replace(message, delay=1.0).delay == 1.0

    def test_shows_no_body_in_its_repr(self) -> None:
        assert "hunter2" not in repr(Message(body=b"hunter2"))

    @pytest.mark.parametrize("body", ["text", bytearray(b"x"), None, {"a": 1}])
    def test_has_a_body_of_bytes_and_says_how_to_get_one(self, body: Any) -> None:
        with pytest.raises(InvalidMessage, match=r"Message\.of\(value\)"):
            Message(body=body)

    @pytest.mark.parametrize(
        "what", ["id", "session_id", "content_type", "correlation_id", "deduplication_id"]
    )
    @pytest.mark.parametrize(
        "value", ["", "x" * (MAX_ID_LENGTH + 1), "a\nb", "a\x00", "\x7f", "\ud800", "\ufffe", 7, b"id"]
    )
    def test_refuses_ids_that_no_provider_takes_and_names_them(self, what: str, value: Any) -> None:
        with pytest.raises(InvalidName, match=what if what != "id" else "message id"):
            Message(body=b"", **{what: value})

    @given(ids)
    def test_takes_any_printable_id(self, value: str) -> None:
        assert Message(body=b"", id=value, session_id=value).id == value

    @pytest.mark.parametrize(
        "name",
        ["", "a b", "é", ".a", "a.", "a..b", "x" * 257, "AWS.x", "amazon.x", "Aws.Trace", RESERVED_ATTRIBUTE],
    )
    def test_refuses_attribute_names_that_not_every_provider_takes(self, name: str) -> None:
        with pytest.raises(InvalidName, match="attribute name"):
            Message(body=b"", attributes={name: "x"})

    @pytest.mark.parametrize(("name", "value"), [(1, "x"), ("x", 1), ("x", None), (b"x", "x")])
    def test_refuses_attributes_that_are_not_text(self, name: Any, value: Any) -> None:
        with pytest.raises(InvalidMessage, match="names and values are str"):
            Message(body=b"", attributes={name: value})

    @pytest.mark.parametrize("name", ["a", "x-github-event", "a.b.c", "A_1", "x" * 256, "0", "awsome"])
    def test_takes_the_other_names(self, name: str) -> None:
        assert Message(body=b"", attributes={name: ""}).attributes == {name: ""}

    @pytest.mark.parametrize("delay", [-1, -0.1, float("inf"), float("nan"), "5", None])
    def test_refuses_a_delay_that_is_no_time(self, delay: Any) -> None:
        with pytest.raises(InvalidMessage, match="delay must be a number of seconds"):
            Message(body=b"", delay=delay)

    @pytest.mark.parametrize("life", [0, -1, float("inf"), float("nan"), "5", MAX_TIME_TO_LIVE + 1])
    def test_refuses_a_time_to_live_that_is_none(self, life: Any) -> None:
        with pytest.raises(InvalidMessage, match="time_to_live must be seconds above 0"):
            Message(body=b"", time_to_live=life)

    @pytest.mark.parametrize("replays", [-1, MAX_REPLAYS + 1, 1.5, "1", None])
    def test_refuses_replays_that_are_no_number(self, replays: Any) -> None:
        with pytest.raises(InvalidMessage, match="replays must be a number from 0"):
            Message(body=b"", replays=replays)


class TestAQueueName:
    @pytest.mark.parametrize(
        "name",
        ["jobs", "github-events.fifo", "https://sqs.eu-west-1.amazonaws.com/123456789012/a.fifo", "a/b"],
    )
    def test_may_be_a_name_a_path_or_a_url(self, name: str) -> None:
        assert check_queue(name) == name

    @pytest.mark.parametrize("name", ["", "a b", "a\tb", "a\u00a0b", "x" * 1025, 3, None])
    def test_is_refused_otherwise(self, name: Any) -> None:
        with pytest.raises(InvalidName, match="queue name"):
            check_queue(name)


class TestTravellingAsText:
    @given(messages, st.none() | infos, st.booleans())
    def test_brings_everything_back(self, message: Message, info: DeadLetterInfo | None, pack: bool) -> None:
        sent = encode_text(message, dead_letter=info, pack_attributes=pack)
        found = decode_text(
            sent.body, sent.attributes, fallback_id="f", deduplication_id=message.deduplication_id
        )

        assert (found.message, found.dead_letter, found.problem) == (message, info, None)

    @given(messages, st.booleans())
    def test_sends_nothing_that_the_broker_refuses(self, message: Message, pack: bool) -> None:
        sent = encode_text(message, pack_attributes=pack)

        # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
        legal = re.compile("[\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")
        assert legal.fullmatch(sent.body)
        assert all(legal.fullmatch(value) for value in sent.attributes.values())
        assert len(sent.attributes) <= 1 if pack else len(sent.attributes) <= 1 + len(message.attributes)

    @pytest.mark.parametrize("body", ["{}", "grüß 🚀", "line\nline\ttab\r", EMPTY])
    def test_leaves_legal_text_readable_for_other_tools(self, body: str) -> None:
        assert encode_text(Message(body=body.encode())).body == body

    @pytest.mark.parametrize("body", [b"\x00", b"\xff", b"a\x0bb", "\ufffe".encode()])
    def test_turns_the_rest_into_base64(self, body: bytes) -> None:
        assert base64.b64decode(encode_text(Message(body=body)).body) == body

    def test_reads_what_other_tools_sent_as_it_is(self) -> None:
        found = decode_text("bWVzc2FnZQ==", {"a": "b"}, fallback_id="f1", session_id="s1")

        assert found.problem is None
        assert found.message == Message(body=b"bWVzc2FnZQ==", id="f1", session_id="s1", attributes={"a": "b"})

    def test_prefers_the_session_that_the_message_names(self) -> None:
        sent = encode_text(Message(body=b"x", session_id="mine"))

        assert (
            decode_text(sent.body, sent.attributes, fallback_id="f", session_id="theirs").message.session_id
            == "mine"
        )

    @pytest.mark.parametrize(
        "ours",
        [
            "not json",
            "[]",
            "null",
            "7",
            '{"enc":"base64"}',
            '{"id":""}',
            '{"id":"a\\nb"}',
            '{"sid":"' + "x" * 2000 + '"}',
            '{"attrs":{"bad name":"x"}}',
            "[" * 100_000,
            '{"a":' * 100_000,
            "9" * 5_000,
        ],
        ids=lambda ours: ours[:20],
    )
    def test_shows_a_message_with_a_forged_attribute_as_it_came_and_says_what_is_wrong(
        self, ours: str
    ) -> None:
        found = decode_text("the body!", {RESERVED_ATTRIBUTE: ours}, fallback_id="f1")

        assert found.message.body == b"the body!"
        assert found.problem

    @given(
        st.dictionaries(
            st.sampled_from(["id", "sid", "ct", "cid", "enc", "attrs", "dl", "x"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                lambda items: st.lists(items) | st.dictionaries(st.text(max_size=5), items),
            ),
        )
    )
    def test_never_raises(self, ours: dict[str, Any]) -> None:
        found = decode_text("x", {RESERVED_ATTRIBUTE: json.dumps(ours)}, fallback_id="f1")

        assert found.message.id

    @pytest.mark.parametrize("record", [7, [], {}, {"reason": 7}, {"reason": None}])
    def test_a_dead_letter_record_without_a_reason_is_none(self, record: object) -> None:
        found = decode_text("x", {RESERVED_ATTRIBUTE: json.dumps({"dl": record})}, fallback_id="f")

        assert found.dead_letter is None

    def test_a_dead_letter_record_loses_the_fields_of_the_wrong_type(self) -> None:
        record = {"reason": "Timeout", "attempts": "many", "sequence": 5, "host": ["h"], "new": 1}
        found = decode_text("x", {RESERVED_ATTRIBUTE: json.dumps({"dl": record})}, fallback_id="f")

        assert found.dead_letter == DeadLetterInfo(reason="Timeout", sequence=5)


class TestAShortId:
    legal = re.compile(r"[a-z0-9]+")

    def test_is_the_id_where_the_broker_takes_it(self) -> None:
        assert short_id("abc", limit=3, legal=self.legal) == "abc"

    @pytest.mark.parametrize("value", ["abcd", "A", "", "é"])
    def test_is_a_prefix_and_a_hash_otherwise(self, value: str) -> None:
        assert re.fullmatch(r"q-[0-9a-f]{64}", short_id(value, limit=3, legal=self.legal))

    @given(ids, ids)
    def test_differs_for_different_ids(self, one: str, other: str) -> None:
        same = short_id(one, limit=8, legal=self.legal) == short_id(other, limit=8, legal=self.legal)

        assert same == (one == other)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class TestALease:
    def lease(self, clock: FakeClock, *, session: bool = False) -> Lease:
        return Lease(clock, until=clock.monotonic() + 30, length=30, what="message 'm1'", session=session)

    def test_runs_out(self, clock: FakeClock) -> None:
        lease = self.lease(clock)

        assert (lease.lost, lease.remaining()) == (False, 30)
        assert lease.until == clock.now() + timedelta(seconds=30)
        lease.check()
        clock.advance(30)
        assert (lease.lost, lease.remaining()) == (True, 0)

    def test_is_longer_when_it_was_renewed(self, clock: FakeClock) -> None:
        lease = self.lease(clock)
        clock.advance(20)
        lease.extend(clock.monotonic() + 30)
        clock.advance(20)

        assert lease.remaining() == 10

    def test_stays_lost_although_a_renewal_is_confirmed_afterwards(self, clock: FakeClock) -> None:
        lease = self.lease(clock)
        clock.advance(30)
        lease.extend(clock.monotonic() + 30)

        assert lease.lost

    def test_stays_lost_once_the_broker_has_said_so(self, clock: FakeClock) -> None:
        lease = self.lease(clock)
        lease.lose("received by another")
        lease.lose("some other reason")
        lease.extend(clock.monotonic() + 60)

        assert (lease.lost, lease.remaining()) == (True, 0)
        with pytest.raises(LeaseLost, match="the lease of message 'm1' is lost: received by another"):
            lease.check()

    def test_of_a_session_has_its_own_error(self, clock: FakeClock) -> None:
        lease = self.lease(clock, session=True)
        clock.advance(31)

        with pytest.raises(SessionLeaseLost, match="it ran out"):
            lease.check()

    def test_tells_its_state(self, clock: FakeClock) -> None:
        lease = self.lease(clock)

        assert repr(lease) == "<Lease of message 'm1' [30.0 s left]>"
        lease.lose("x")
        assert repr(lease) == "<Lease of message 'm1' [lost]>"


class TestAReceivedMessage:
    def received(self, **changes: Any) -> ReceivedMessage:
        clock = FakeClock()
        lease = Lease(clock, until=clock.monotonic() + 30, length=30, what="message")
        return ReceivedMessage(delivery(**changes), queue="jobs", lease=lease, owner=object())

    def test_gives_its_payload_with_and_without_a_type(self) -> None:
        received = self.received(message=Message.of({"n": 1}))

        assert received.payload() == {"n": 1}
        assert received.payload(dict[str, int]) == {"n": 1}
        with pytest.raises(DecodeError, match=r"payload\.n: expected str, got 1"):
            received.payload(dict[str, str])

    def test_that_could_not_be_decoded_says_so_when_its_payload_is_asked_for(self) -> None:
        received = self.received(
            message=Message(body=b"{}", id="m1"), problem="it is marked as base64 and is not"
        )

        assert received.body == b"{}"
        with pytest.raises(DecodeError, match="message 'm1': it is marked as base64"):
            received.payload()

    def test_gives_its_life_story(self) -> None:
        one = MessageView(delivery(Message(body=b"", time_to_live=60.0, replays=2)))

        assert (one.time_to_live, one.replays) == (60.0, 2)

    def test_expires_only_where_somebody_must_see_to_it(self) -> None:
        assert not delivery().expired(1e9)
        assert not delivery(expires=10.0).expired(9.9)
        assert delivery(expires=10.0).expired(10.0)

    def test_gives_its_text(self) -> None:
        assert self.received(message=Message.of("é")).text == "é"
        with pytest.raises(DecodeError, match="is not UTF-8"):
            _ = self.received(message=Message(body=b"\xff")).text

    def test_tells_its_state_and_keeps_its_receipt_to_itself(self) -> None:
        received = self.received(message=Message(body=b"hunter2", id="m1", session_id="s1"))

        assert repr(received) == "<ReceivedMessage 'm1' of session 's1' [held | attempt 1]>"
        received.settled_as = "completed"
        assert repr(received) == "<ReceivedMessage 'm1' of session 's1' [completed | attempt 1]>"
        assert "secret" not in repr(received.delivery)
        assert "hunter2" not in repr(received.delivery)

    def test_crosses_a_process_as_the_delivery_that_it_is(self) -> None:
        one = delivery(Message.of({"n": 1}), dead_letter=DeadLetterInfo(reason="r"))

        assert pickle.loads(pickle.dumps(one)) == one


def every_error() -> list[type[QueueError]]:
    found = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, QueueError)
    ]
    assert len(found) > 25
    return found


class TestErrors:
    @pytest.mark.parametrize("kind", every_error())
    def test_cross_a_process_with_what_they_carry(self, kind: type[QueueError]) -> None:
        error = kind("text", queue="q", operation="send", provider="sqs")
        copied = pickle.loads(pickle.dumps(error))

        assert (type(copied), str(copied), vars(copied)) == (kind, "text", vars(error))

    def test_with_facts_of_their_own_keep_them(self) -> None:
        clock = FakeClock()
        outcomes = (Outcome[str](value="a"), Outcome[str](error=Throttled("slow down")))

        too_large, still_open, failed = (
            pickle.loads(pickle.dumps(error))
            for error in (
                MessageTooLarge("x", actual=2, limit=1),
                CircuitOpen("x", retry_at=clock.now()),
                BatchFailed("x", outcomes),
            )
        )

        assert (too_large.actual, too_large.limit) == (2, 1)
        assert still_open.retry_at == clock.now()
        assert [outcome.ok for outcome in failed.outcomes] == [True, False]

    def test_that_may_be_retried_are_these(self) -> None:
        retryable = {kind.__name__ for kind in every_error() if kind.retryable}

        assert retryable == {"Throttled", "ConnectionFailed", "OperationTimeout", "OutcomeUnknown"}

    def test_keep_the_first_place_that_was_noted(self) -> None:
        error = Throttled("x", queue="q1")
        error.locate(queue="q2", operation="send", provider="sqs")

        assert (error.queue, error.operation, error.provider) == ("q1", "send", "sqs")
