"""Rows: what a queue cannot take is refused before anything is sent, with the numbers."""

from __future__ import annotations

import os
from typing import Any

import pytest

from queue_runtime import Message
from queue_runtime.errors import InvalidMessage, InvalidName, MessageTooLarge, UnsupportedOperation
from queue_runtime.testing.conformance.kit import Desk, Kind, Kit, Rows, both_kinds

ID = "a-message-that-fills-the-limit"


def excess(desk: Desk, body: bytes, **fields: Any) -> MessageTooLarge | None:
    """Send it; how it was refused, or None."""
    try:
        desk.send(desk.message(body, id=ID, **fields))
    except MessageTooLarge as error:
        return error
    return None


def room(desk: Desk, **fields: Any) -> int:
    """Bytes of plain text that one message of this queue can carry."""
    limit = desk.kit.capabilities(desk.queue).max_message_size
    refused = excess(desk, b"x" * (limit + 1), **fields)
    assert refused is not None, f"{limit + 1} bytes were taken; the limit is {limit}"
    assert refused.limit == limit
    return limit - (refused.actual - (limit + 1))


@both_kinds
class TestSize(Rows):
    def test_a_message_that_fills_the_limit_arrives(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        body = b"x" * room(desk)

        assert excess(desk, body) is None

        assert desk.one().body == body

    def test_one_byte_more_is_refused_with_both_numbers(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)

        refused = excess(desk, b"x" * (room(desk) + 1))

        assert refused is not None
        limit = kit.capabilities(desk.queue).max_message_size
        assert (refused.actual, refused.limit) == (limit + 1, limit)
        assert refused.queue == desk.queue
        assert desk.nothing()

    def test_attributes_count(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        attributes = {"name": "v" * 1000}
        body = b"x" * room(desk, attributes=attributes)

        assert room(desk) - len(body) >= len("name") + 1000
        assert excess(desk, body + b"x", attributes=attributes) is not None
        assert excess(desk, body, attributes=attributes) is None

        received = desk.one()
        assert received.body == body
        assert dict(received.attributes) == attributes

    def test_bytes_count_and_not_characters(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        most = room(desk)

        assert excess(desk, "🐙".encode() * (most // 4 + 1)) is not None
        assert excess(desk, "🐙".encode() * (most // 4)) is None

        assert desk.one().text == "🐙" * (most // 4)

    def test_what_is_let_through_arrives_however_it_has_to_travel(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        body = os.urandom(room(desk) + 1)
        while (refused := excess(desk, body)) is not None:
            body = body[: -max(1, (refused.actual - refused.limit) * 3 // 4)]

        assert desk.one().body == body

    def test_a_batch_with_one_too_large_is_not_sent_at_all(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        limit = kit.capabilities(desk.queue).max_message_size

        with pytest.raises(MessageTooLarge):
            desk.send(desk.message(b"good"), desk.message(b"x" * (limit + 1)), desk.message(b"good"))

        assert desk.nothing()

    def test_a_batch_larger_than_a_request_in_bytes_arrives_whole(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        third = room(desk) // 3

        sent = desk.send(*(desk.message(b"x" * third, session_id=f"session-{n}") for n in range(7)))

        assert sorted(desk.drain(7).ids) == sorted(sent)


@both_kinds
class TestAttributes(Rows):
    def most(self, kit: Kit, desk: Desk) -> int:
        most = kit.capabilities(desk.queue).max_attributes
        if most is None:
            pytest.skip("Capabilities.max_attributes is None")
        return most

    def test_as_many_attributes_as_the_queue_takes_arrive(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        attributes = {f"name-{n}": f"value {n}" for n in range(self.most(kit, desk))}

        desk.send(desk.message(attributes=attributes, content_type="text/plain", correlation_id="c"))

        assert dict(desk.one().attributes) == attributes

    def test_one_more_is_refused_with_both_numbers(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        most = self.most(kit, desk)

        with pytest.raises(InvalidMessage, match=rf"{most + 1} attributes.*\b{most}\b"):
            desk.send(desk.message(attributes={f"name-{n}": "v" for n in range(most + 1)}))

        assert desk.nothing()


@both_kinds
class TestDelay(Rows):
    def test_a_delay_longer_than_the_queue_can_is_refused(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        longest = kit.capabilities(desk.queue).max_delay

        with pytest.raises((InvalidMessage, UnsupportedOperation)) as caught:
            desk.send(desk.message(delay=longest + 1))

        assert isinstance(caught.value, UnsupportedOperation) == (longest == 0)
        assert caught.value.queue == desk.queue
        assert desk.nothing()

    def test_the_longest_delay_is_taken_and_the_message_waits(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        longest = kit.capabilities(desk.queue).max_delay
        if longest < 600.0:
            pytest.skip(f"Capabilities.max_delay is {longest:g}")

        desk.send(desk.message(delay=longest))

        assert desk.nothing()


class TestNames(Rows):
    @pytest.mark.parametrize("name", ["", "with space", "line\nend", "x" * (1024 + 1)])
    def test_a_queue_name_that_cannot_be_is_refused(self, kit: Kit, name: str) -> None:
        with pytest.raises(InvalidName):
            kit.client.send(name, Message(body=b"body"))
