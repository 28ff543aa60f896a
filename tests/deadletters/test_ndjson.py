"""A dead letter is one line of JSON, and is read back as it was."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_runtime import DeadLetterInfo, Message
from queue_runtime.deadletter.ndjson import read, written
from queue_runtime.errors import DecodeError
from queue_runtime.message import Delivery

MOMENT = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)


def delivery(message: Message, info: DeadLetterInfo | None = None, **facts: Any) -> Delivery:
    known: dict[str, Any] = {
        "broker_id": "b-1",
        "delivery_count": 7,
        "sequence": 12,
        "enqueued_at": MOMENT,
        "problem": None,
    }
    return Delivery(
        message=message,
        receipt="secret",
        leased_until=5.0,
        lease=30.0,
        dead_letter=info,
        **(known | facts),
    )


WHOLE = Message(
    body="täxt\n".encode(),
    id="id 🐙",
    session_id="octo/repo#1",
    attributes={"kind": "🐙"},
    content_type="application/json",
    correlation_id="c",
    deduplication_id="d",
    time_to_live=12.5,
    replays=2,
)
INFO = DeadLetterInfo(
    reason="Timeout",
    description="it took\ntoo long",
    exception="TimeoutError",
    traceback="Traceback …\nTimeoutError",
    attempts=5,
    first_seen_at=MOMENT,
    queue="events",
    session_id="octo/repo#1",
    message_id="id 🐙",
    sequence=3,
    host="worker-1",
)


def test_a_line_has_everything_that_is_known() -> None:
    line = written(delivery(WHOLE, INFO))

    assert line.isascii()
    assert "\n" not in line
    assert "secret" not in line
    assert json.loads(line) == {
        "id": "id 🐙",
        "session_id": "octo/repo#1",
        "content_type": "application/json",
        "correlation_id": "c",
        "deduplication_id": "d",
        "body": "täxt\n",
        "attributes": {"kind": "🐙"},
        "time_to_live": 12.5,
        "replays": 2,
        "dead_letter": {
            "reason": "Timeout",
            "description": "it took\ntoo long",
            "exception": "TimeoutError",
            "traceback": "Traceback …\nTimeoutError",
            "attempts": 5,
            "first_seen_at": "2024-05-06T07:08:09.123456+00:00",
            "queue": "events",
            "session_id": "octo/repo#1",
            "message_id": "id 🐙",
            "sequence": 3,
            "host": "worker-1",
        },
        "broker_id": "b-1",
        "sequence": 12,
        "delivery_count": 7,
        "enqueued_at": "2024-05-06T07:08:09.123456+00:00",
    }


def test_a_line_is_read_back_as_it_was() -> None:
    before = delivery(WHOLE, INFO)

    after = read(written(before))

    assert (after.message, after.dead_letter) == (WHOLE, INFO)
    assert (after.broker_id, after.sequence, after.delivery_count) == ("b-1", 12, 7)
    assert (after.enqueued_at, after.problem) == (MOMENT, None)


def test_what_cannot_be_decoded_is_kept_with_the_reason() -> None:
    before = delivery(
        Message(body=b"\xff", id="x"), problem="it is not base64", sequence=None, enqueued_at=None
    )

    after = read(written(before))

    assert json.loads(written(before))["body_base64"] == "/w=="
    assert (after.message.body, after.problem, after.sequence) == (b"\xff", "it is not base64", None)


@given(
    st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.dictionaries(
        st.from_regex(r"[a-z]{1,9}", fullmatch=True), st.text(st.characters(exclude_categories=["Cs"]))
    ),
)
def test_any_body_and_attribute_survive(body: bytes, attributes: dict[str, str]) -> None:
    message = Message(body=body, attributes=attributes)

    line = written(delivery(message))

    assert len(line.splitlines()) == 1
    assert read(line).message == message


def test_a_line_written_by_hand_needs_an_id_and_a_body() -> None:
    found = read('{"id": "a", "body": "", "note": "mine"}')

    assert (found.message.id, found.message.body, found.message.replays) == ("a", b"", 0)
    assert found.broker_id.startswith("line-")
    assert found.broker_id == read('{"id": "a", "body": "", "note": "mine"}\n').broker_id
    assert found.broker_id != read('{"id": "a", "body": "x"}').broker_id


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("id,body", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[1]", "it is not a JSON object but a list"),
        ('{"body": "x"}', "id is missing"),
        ('{"id": 7, "body": "x"}', "id must be a text, it is 7"),
        ('{"id": "a"}', "one of body and body_base64 is needed"),
        ('{"id": "a", "body": "x", "body_base64": "eA=="}', "and not both"),
        ('{"id": "a", "body_base64": "%"}', "body_base64 is not base64"),
        ('{"id": "a", "body": "\\ud800"}', "half a surrogate pair"),
        ('{"id": "", "body": "x"}', "message id must have 1 to"),
        ('{"id": "a", "body": "x", "attributes": {"k": 1}}', "names and values are str"),
        ('{"id": "a", "body": "x", "attributes": []}', "attributes must be an object of texts"),
        ('{"id": "a", "body": "x", "replays": -1}', "replays must be a number from 0"),
        ('{"id": "a", "body": "x", "replays": true}', "replays must be a whole number, it is True"),
        ('{"id": "a", "body": "x", "time_to_live": true}', "time_to_live must be a number"),
        ('{"id": "a", "body": "x", "time_to_live": 0}', "time_to_live must be seconds above 0"),
        ('{"id": "a", "body": "x", "session_id": 3}', "session_id must be a text"),
        ('{"id": "a", "body": "x", "session_id": "a\\u0000"}', "control character"),
        ('{"id": "a", "body": "x", "enqueued_at": "today"}', "enqueued_at is no instant"),
        ('{"id": "a", "body": "x", "dead_letter": {"attempts": 3}}', "not an object with a reason"),
        ('{"id": "a", "body": "x", "broker_id": "a\\u0000"}', "broker_id, .* has a control character"),
        (f'{{"id": "a", "body": "x", "broker_id": "{"z" * 1022}"}}', "broker_id, .* must have 1 to 1024"),
    ],
)
def test_a_line_that_cannot_be_read_says_what_is_wrong(line: str, why: str) -> None:
    with pytest.raises(DecodeError, match=why):
        read(line)
