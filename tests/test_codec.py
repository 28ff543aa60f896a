"""What travels on a broker of text, and how it is read again."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queue_runtime.codec import decode_text, encode_text, short_id, without_times
from queue_runtime.message import (
    MAX_REPLAYS,
    MAX_TIME_TO_LIVE,
    RESERVED_ATTRIBUTE,
    DeadLetterInfo,
    Message,
)

# What SQS takes in a body or an attribute.
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
LEGAL = re.compile("[\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")

printable = st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff")
ids = st.text(printable, min_size=1, max_size=60)
legal_bodies = st.text(printable | st.sampled_from("\t\n\r"), max_size=60)
names = st.from_regex(r"[A-Za-z0-9_-]{1,12}(\.[A-Za-z0-9_-]{1,5})?", fullmatch=True).filter(
    lambda name: name != RESERVED_ATTRIBUTE and not name.lower().startswith(("aws.", "amazon."))
)
attributes = st.dictionaries(names, st.text(max_size=20), max_size=12)
bodies = st.one_of(st.binary(max_size=200), st.text(max_size=80).map(lambda t: t.encode("utf-8", "ignore")))
messages = st.builds(
    Message,
    body=bodies,
    id=ids,
    session_id=st.none() | ids,
    attributes=attributes,
    content_type=st.none() | ids,
    correlation_id=st.none() | ids,
    time_to_live=st.none() | st.floats(0.001, MAX_TIME_TO_LIVE),
    replays=st.integers(0, MAX_REPLAYS),
)
infos = st.builds(
    DeadLetterInfo,
    reason=st.text(max_size=20),
    description=st.none() | st.text(max_size=20),
    traceback=st.none() | st.text(max_size=40),
    attempts=st.none() | st.integers(0, 2**40),
    sequence=st.none() | st.integers(0, 2**70),
)

fast = settings(deadline=None, max_examples=100)


def back(text: Any, **facts: Any) -> Any:
    return decode_text(text.body, text.attributes, **{"fallback_id": "broker-id", **facts})


@fast
@given(messages, st.none() | infos, st.booleans())
def test_any_message_comes_back_as_it_was(message: Message, info: DeadLetterInfo | None, pack: bool) -> None:
    text = encode_text(message, dead_letter=info, pack_attributes=pack)

    decoded = back(text)

    assert decoded.message == message
    assert decoded.dead_letter == info
    assert decoded.problem is None


@fast
@given(messages, st.none() | infos, st.booleans())
def test_whatever_travels_is_legal_text(message: Message, info: DeadLetterInfo | None, pack: bool) -> None:
    text = encode_text(message, dead_letter=info, pack_attributes=pack)

    assert text.body
    assert all(value for value in text.attributes.values())
    assert [value for value in (text.body, *text.attributes.values()) if not LEGAL.fullmatch(value)] == []
    assert not pack or set(text.attributes) == {RESERVED_ATTRIBUTE}


@fast
@given(legal_bodies, attributes)
def test_anything_that_another_tool_sends_is_read_as_it_came(body: str, theirs: dict[str, str]) -> None:
    decoded = decode_text(body, theirs, fallback_id="broker-id", session_id="group")

    assert decoded.problem is None
    assert decoded.message.body == body.encode()
    assert dict(decoded.message.attributes) == theirs
    assert (decoded.message.id, decoded.message.session_id) == ("broker-id", "group")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
forged = st.one_of(
    st.text(max_size=30),
    json_values.map(json.dumps),
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("id", "sid", "ct", "cid", "enc", "attrs", "dl", "ttl", "re", "wait", "sent"), json_values
        ),
    ).map(json.dumps),
    st.fixed_dictionaries({"enc": st.just("base64"), "id": st.just("\x00"), "attrs": attributes}).map(
        json.dumps
    ),
)


@fast
@given(st.text(max_size=30), forged, attributes)
def test_a_forged_record_harms_only_itself(body: str, reserved: str, theirs: dict[str, str]) -> None:
    decoded = decode_text(body, {**theirs, RESERVED_ATTRIBUTE: reserved}, fallback_id="broker-id")

    assert RESERVED_ATTRIBUTE not in decoded.message.attributes
    assert decoded.message.id
    assert decoded.wait is None or 0 < decoded.wait <= MAX_TIME_TO_LIVE
    assert decoded.sent is None or decoded.sent >= 0


@pytest.mark.parametrize(
    ("body", "travels", "mark"),
    [
        (b"text", "text", None),
        ("grüße 🎈\t\r\n".encode(), "grüße 🎈\t\r\n", None),
        (b"\x00", "AA==", "base64"),
        (b"\xff", "/w==", "base64"),
        ("\ufffe".encode(), "77++", "base64"),
        (b"", "(empty)", "empty"),
        (b"(empty)", "(empty)", None),
    ],
)
def test_legal_text_travels_as_it_is_and_the_rest_with_a_mark(
    body: bytes, travels: str, mark: str | None
) -> None:
    text = encode_text(Message(body=body, id="m"))

    assert text.body == travels
    assert json.loads(text.attributes[RESERVED_ATTRIBUTE]).get("enc") == mark
    assert back(text).message.body == body


def test_attributes_that_a_broker_refuses_travel_in_ours() -> None:
    text = encode_text(Message(body=b"x", id="m", attributes={"plain": "1", "empty": "", "odd": "\x00"}))

    assert set(text.attributes) == {"plain", RESERVED_ATTRIBUTE}
    assert json.loads(text.attributes[RESERVED_ATTRIBUTE])["attrs"] == {"empty": "", "odd": "\x00"}


@pytest.mark.parametrize("reserved", ["{", "[]", "7", "null", '"text"', ""])
def test_a_record_that_is_none_says_so_and_shows_the_message(reserved: str) -> None:
    decoded = decode_text("body", {RESERVED_ATTRIBUTE: reserved, "kind": "x"}, fallback_id="b")

    assert decoded.problem is not None
    assert RESERVED_ATTRIBUTE in decoded.problem
    assert decoded.message.body == b"body"
    assert dict(decoded.message.attributes) == {"kind": "x"}


def test_a_body_that_is_not_what_its_mark_says_is_shown_as_it_came() -> None:
    decoded = decode_text("not base64!", {RESERVED_ATTRIBUTE: '{"enc":"base64"}'}, fallback_id="b")

    assert decoded.problem is not None
    assert decoded.message.body == b"not base64!"


def test_the_session_that_a_message_names_comes_before_its_brokers() -> None:
    ours = encode_text(Message(body=b"x", id="m", session_id="répo"))
    theirs = encode_text(Message(body=b"x", id="m"))

    assert back(ours, session_id="q-hash").message.session_id == "répo"
    assert back(theirs, session_id="group").message.session_id == "group"


@pytest.mark.parametrize(
    "record",
    [
        {"reason": 7},
        {"description": "without a reason"},
        "Timeout",
        None,
    ],
)
def test_a_dead_letter_record_without_a_reason_is_none(record: Any) -> None:
    decoded = decode_text("x", {RESERVED_ATTRIBUTE: json.dumps({"dl": record})}, fallback_id="b")

    assert decoded.dead_letter is None
    assert decoded.problem is None


def test_a_dead_letter_record_loses_only_the_fields_of_the_wrong_type() -> None:
    record = {
        "reason": "Timeout",
        "attempts": "five",
        "sequence": True,
        "host": 7,
        "queue": "jobs",
        "more": 1,
    }

    decoded = decode_text("x", {RESERVED_ATTRIBUTE: json.dumps({"dl": record})}, fallback_id="b")

    assert decoded.dead_letter == DeadLetterInfo(reason="Timeout", queue="jobs")


@pytest.mark.parametrize("session_id", ["", "a\n", "s" * 2000])
def test_a_dead_letter_record_loses_a_session_that_no_message_may_have(session_id: str) -> None:
    record = {"reason": "Timeout", "session_id": session_id, "queue": "jobs"}

    decoded = decode_text("x", {RESERVED_ATTRIBUTE: json.dumps({"dl": record})}, fallback_id="b")

    assert decoded.dead_letter == DeadLetterInfo(reason="Timeout", queue="jobs")


@given(ids, st.integers(20, 128))
@fast
def test_a_short_id_is_legal_and_the_same_every_time(value: str, limit: int) -> None:
    legal = re.compile("[a-z0-9-]+")

    short = short_id(value, limit=max(limit, 66), legal=legal)

    assert legal.fullmatch(short)
    assert len(short) <= max(limit, 66)
    assert short == short_id(value, limit=max(limit, 66), legal=legal)


def test_different_ids_stay_different_when_shortened() -> None:
    legal = re.compile("[a-z]+")

    shorts = {short_id(value, limit=70, legal=legal) for value in ("a" * 71, "a" * 72, "ä", "b c", "a")}

    assert len(shorts) == 5
    assert "a" in shorts


def test_when_it_is_due_travels_only_where_it_must() -> None:
    message = Message(body=b"x", id="m", delay=3600.0)

    assert back(encode_text(message)).wait is None
    assert back(encode_text(message, wait=3600.0)).wait == 3600.0
    assert back(encode_text(message, wait=3600.0)).message.delay == 0.0


def test_a_record_can_be_rid_of_its_times() -> None:
    message = Message(body=b"x", id="m", time_to_live=60.0, replays=1)
    record = encode_text(message, wait=3600.0).attributes[RESERVED_ATTRIBUTE]

    assert json.loads(without_times(record)) == {"id": "m", "re": 1}
    assert without_times("not JSON") == "not JSON"
