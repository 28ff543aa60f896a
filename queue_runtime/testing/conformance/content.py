"""Rows: what goes in comes out, on queues of either kind."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from queue_runtime import Message
from queue_runtime.message import MAX_ID_LENGTH
from queue_runtime.testing.conformance.kit import Kind, Kit, Rows, both_kinds

BODIES = {
    "text": b"plain text",
    "empty": b"",
    "binary": bytes(range(256)),
    "null": b"\0",
    "control-characters": bytes(range(32)) + b"\x7f",
    "emoji": "🐙 émigré 漢字 \U0001f9d1\u200d\U0001f680".encode(),
    "not-characters": "\ufffe\uffff".encode(),
    "half-a-surrogate": b"\xed\xa0\x80",
    "cut-utf8": "é".encode()[:1],
    "line-ends": b"\r\na\rb\nc\r\n",
    "white-space-around": b" \t text \n ",
    "markup": b'<a href="x">&amp;</a> ]]> <!-- -->',
    "json": b'{"a": [1, 2.5, null], "b": "\\u0000"}',
    "base64": base64.b64encode(b"is this encoded?"),
    "in-brackets": b"(empty)",
}

ATTRIBUTES = {
    "plain": "value",
    "empty": "",
    "space": "  a b  ",
    "emoji": "🐙 漢字",
    "control": "\x00\x01\x1f",
    "lines": "a\r\nb",
    "dotted.name-1_x": "markup <&> \"'",
}

IDS = {
    "plain": "delivery-1",
    "uuid": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
    "path": "octo/hello world#42",
    "foreign": "né-漢字-🐙",
    "long": "x" * MAX_ID_LENGTH,
}


@dataclass
class Author:
    name: str
    id: UUID


@dataclass
class Commit:
    sha: str
    author: Author
    at: datetime
    price: Decimal
    ratio: float
    files: list[str] = field(default_factory=list)
    note: str | None = None


@both_kinds
class TestContent(Rows):
    @pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
    def test_a_body_comes_out_as_it_went_in(self, kit: Kit, kind: Kind, body: bytes) -> None:
        desk = kit.desk(kind)

        desk.send(desk.message(body))

        assert desk.one().body == body

    def test_attributes_come_out_as_they_went_in(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)

        desk.send(desk.message(attributes=ATTRIBUTES))

        assert dict(desk.one().attributes) == ATTRIBUTES

    @pytest.mark.parametrize("text", IDS.values(), ids=IDS.keys())
    def test_ids_come_out_as_they_went_in(self, kit: Kit, kind: Kind, text: str) -> None:
        desk = kit.desk(kind)

        sent = desk.send(desk.message(id=text, correlation_id=text, session_id=text))

        received = desk.one()
        assert sent == [text]
        assert received.id == text
        assert received.correlation_id == text
        assert received.session_id == (text if kind == "sessions" else None)

    def test_the_content_type_travels(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)

        desk.send(desk.message(content_type="application/vnd.github+json; charset=utf-8"))

        assert desk.one().content_type == "application/vnd.github+json; charset=utf-8"

    def test_what_was_not_given_is_not_there(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)

        desk.send(desk.message())

        received = desk.one()
        assert dict(received.attributes) == {}
        assert received.content_type is None
        assert received.correlation_id is None
        assert received.dead_letter is None

    def test_a_typed_payload_comes_out_as_the_same_object(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        commit = Commit(
            sha="d6fde92",
            author=Author("Mona 🐙", UUID("72d3162e-cc78-11e3-81ab-4c9367dc0958")),
            at=datetime(2024, 5, 1, 12, 30, 15, 250000, tzinfo=UTC),
            price=Decimal("19.90"),
            ratio=0.1,
            files=["a.py", "b.py"],
        )

        desk.client.send(desk.queue, Message.of(commit, session_id="session" if kind == "sessions" else None))

        received = desk.one()
        assert received.payload(Commit) == commit
        assert received.content_type == "application/json"

    def test_the_first_delivery_says_so(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)

        desk.send(desk.message())

        received = desk.one()
        assert received.delivery_count == 1
        assert received.attempt == 1
        assert received.queue == desk.queue

    def test_the_time_of_sending_is_aware_and_about_now(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)

        desk.send(desk.message())

        sent_at = desk.one().enqueued_at
        if sent_at is not None:  # not every broker tells
            assert sent_at.utcoffset() == timedelta(0)
            assert abs(kit.time.clock.now() - sent_at) < timedelta(minutes=5)

    def test_a_batch_larger_than_a_request_arrives_whole(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        batch = [desk.message(b"%d" % n, session_id=f"session-{n}") for n in range(25)]

        sent = desk.send(*batch)

        assert sent == [message.id for message in batch]
        assert sorted(desk.drain(25).ids) == sorted(sent)

    def test_an_empty_batch_is_harmless(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)

        assert desk.send() == []


class TestSessionIdOnAPlainQueue(Rows):
    def test_a_session_id_travels_on_a_queue_without_sessions(self, kit: Kit) -> None:
        desk = kit.desk()

        desk.send(Message(body=b"body", session_id="octo/hello world#42"))

        assert desk.one().session_id == "octo/hello world#42"
