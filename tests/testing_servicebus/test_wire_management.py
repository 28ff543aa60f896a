"""$management of the local Service Bus: requests by hand, above all those that the SDK would not send."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from queue_runtime.testing.servicebus.amqp_types import Array, Int, Symbol, Timestamp, UInt
from queue_runtime.testing.servicebus.messages import Message
from queue_runtime.testing.servicebus.performatives import Accepted, Detach, Disposition
from queue_runtime.testing.servicebus.receivers import SESSION_FILTER
from tests.testing_servicebus.wire_client import Client, message, section
from tests.testing_servicebus.wire_house import House, running

YEAR_10000 = Timestamp(253_402_300_800_000)


@pytest.fixture(scope="module")
def shared_house() -> Iterator[House]:
    with running() as house:
        yield house


@pytest.fixture
def house(shared_house: House) -> House:
    shared_house.queue("q", max_delivery=3)
    shared_house.queue("s", sessions=True)
    return shared_house


@pytest.fixture
def client(house: House) -> Iterator[Client]:
    with Client(house) as client:
        yield client.ready()


def ask(client: Client, operation: str, body: Any, *, queue: str = "q") -> tuple[int, Any]:
    """Return the status, and the answer's body or the condition of the error."""
    answer = client.request(f"{queue}/$management", {"operation": f"com.microsoft:{operation}"}, body)
    properties = answer.read_application_properties()
    status = properties["statusCode"]
    return status, properties.get("errorCondition") or answer.read_value()


def fill(client: Client, *bodies: bytes, queue: str = "q", **properties: str) -> None:
    client.attach_sender(queue, handle=30)
    for body in bodies:
        client.transfer(message(body, **properties), handle=30)
        assert client.expect(Disposition).state == Accepted()
    client.send(Detach(handle=30, closed=True))
    client.expect(Detach)


def lock(client: Client, queue: str = "q", **options: Any) -> UUID:
    client.attach_receiver(queue, handle=31, **options)
    client.flow(31, delivery_count=0, link_credit=1)
    tag = client.receive()[0].delivery_tag
    assert tag is not None
    return UUID(bytes_le=tag)


def bodies(answer: Any) -> list[bytes]:
    return [b"".join(Message.parse(each["message"]).data()) for each in answer["messages"]]


def test_locks_are_renewed(client: Client) -> None:
    fill(client, b"1")
    token = lock(client)

    status, answer = ask(client, "renew-lock", {"lock-tokens": Array(UUID, [token])})

    assert status == 200
    assert 25 < answer["expirations"][0] / 1000 - time.time() < 31


@pytest.mark.parametrize(
    ("status", "place"),
    [("completed", None), ("abandoned", "active"), ("defered", "deferred"), ("suspended", "dead")],
)
def test_messages_are_settled_by_their_lock(
    house: House, client: Client, status: str, place: str | None
) -> None:
    fill(client, b"1")
    token = lock(client)

    body = {"lock-tokens": Array(UUID, [token]), "disposition-status": status}
    assert ask(client, "update-disposition", body) == (200, {})
    assert {name for name, count in house.counts().items() if count} == ({place} if place else set())
    assert ask(client, "update-disposition", body) == (410, "com.microsoft:message-lock-lost")


def test_a_lock_can_be_settled_on_another_connection(house: House, client: Client) -> None:
    fill(client, b"1")
    with Client(house) as gone:
        token = lock(gone.ready())

    body = {"lock-tokens": [str(token)], "disposition-status": "completed"}

    assert ask(client, "update-disposition", body) == (200, {})


def test_peeking_tells_the_state(client: Client) -> None:
    fill(client, b"1", b"2")
    later = Timestamp((time.time() + 60) * 1000)
    scheduled = section(0x72, {Symbol("x-opt-scheduled-enqueue-time"): later}) + message(b"3")
    ask(client, "schedule-message", {"messages": [{"message": scheduled, "message-id": "m"}]})

    status, answer = ask(client, "peek-message", {"from-sequence-number": 2, "message-count": Int(10)})

    assert (status, bodies(answer)) == (200, [b"2", b"3"])
    states = [Message.parse(each["message"]).annotation("x-opt-message-state") for each in answer["messages"]]
    assert states == [0, 2]
    assert ask(client, "peek-message", {"from-sequence-number": 4, "message-count": Int(1)}) == (204, None)


def test_scheduling_gives_numbers_to_cancel_by(house: House, client: Client) -> None:
    later = Timestamp((time.time() + 60) * 1000)
    scheduled = section(0x72, {Symbol("x-opt-scheduled-enqueue-time"): later}) + message(b"3")
    _, answer = ask(client, "schedule-message", {"messages": [{"message": scheduled}] * 2})
    numbers = Array(int, answer["sequence-numbers"])

    assert ask(client, "cancel-scheduled-message", {"sequence-numbers": numbers}) == (200, {})
    assert house.counts()["scheduled"] == 0
    error = ask(client, "cancel-scheduled-message", {"sequence-numbers": numbers})
    assert error == (404, "com.microsoft:message-not-found")


@pytest.mark.parametrize(("mode", "left"), [(0, "none"), (1, "locked")])
def test_deferred_messages_are_received_by_number(house: House, client: Client, mode: int, left: str) -> None:
    fill(client, b"1")
    token = lock(client)
    ask(client, "update-disposition", {"lock-tokens": [token], "disposition-status": "defered"})
    body = {"sequence-numbers": Array(int, [1]), "receiver-settle-mode": UInt(mode)}

    status, answer = ask(client, "receive-by-sequence-number", body)

    assert (status, bodies(answer)) == (200, [b"1"])
    assert ("lock-token" in answer["messages"][0]) == (mode == 1)
    assert house.counts().get(left, 0) == mode


class TestSessions:
    @pytest.fixture
    def client(self, house: House) -> Iterator[Client]:
        with Client(house) as client:
            client.ready()
            fill(client, b"1", queue="s", group_id="a")
            yield client

    def test_the_holder_renews_and_keeps_state(self, client: Client) -> None:
        client.attach_receiver("s", filter={Symbol(SESSION_FILTER): "a"})

        status, answer = ask(client, "renew-session-lock", {"session-id": "a"}, queue="s")
        assert status == 200
        assert 25 < answer["expiration"] / 1000 - time.time() < 31
        set_state = {"session-id": "a", "session-state": b"state"}
        assert ask(client, "set-session-state", set_state, queue="s") == (200, {})
        got = ask(client, "get-session-state", {"session-id": "a"}, queue="s")
        assert got == (200, {"session-state": b"state"})
        ask(client, "set-session-state", {"session-id": "a", "session-state": None}, queue="s")
        assert ask(client, "get-session-state", {"session-id": "a"}, queue="s")[1] == {"session-state": None}

    @pytest.mark.parametrize("operation", ["renew-session-lock", "get-session-state", "set-session-state"])
    def test_who_does_not_hold_it_may_not(self, house: House, client: Client, operation: str) -> None:
        with Client(house) as holder:
            holder.ready().attach_receiver("s", filter={Symbol(SESSION_FILTER): "a"})

            error = ask(client, operation, {"session-id": "a"}, queue="s")

        assert error == (410, "com.microsoft:session-lock-lost")

    def test_its_messages_are_settled_in_its_name(self, client: Client) -> None:
        token = lock(client, "s", filter={Symbol(SESSION_FILTER): "a"})
        body = {"lock-tokens": [token], "disposition-status": "completed", "session-id": "a"}

        assert ask(client, "update-disposition", body, queue="s") == (200, {})

    def test_sessions_are_listed(self, client: Client) -> None:
        fill(client, b"1", queue="s", group_id="b")

        def listed(**changes: Any) -> tuple[int, Any]:
            usual = {"last-updated-time": YEAR_10000, "skip": Int(0), "top": Int(100)}
            return ask(client, "get-message-sessions", {**usual, **changes}, queue="s")

        assert listed() == (200, {"sessions-ids": ["a", "b"]})
        assert listed(skip=Int(1)) == (200, {"sessions-ids": ["b"]})
        assert listed(skip=Int(2)) == (204, None)
        assert listed(**{"last-updated-time": Timestamp(0)}) == (204, None)


@pytest.mark.parametrize(
    ("operation", "body", "error"),
    [
        ("invent", {}, (501, "amqp:not-implemented")),
        ("renew-lock", {}, (400, "com.microsoft:argument-error")),
        ("renew-lock", None, (400, "com.microsoft:argument-error")),
        ("renew-lock", "text", (400, "com.microsoft:argument-error")),
        ("renew-lock", {"lock-tokens": ["no uuid"]}, (400, "com.microsoft:argument-error")),
        ("renew-lock", {"lock-tokens": [uuid4()]}, (410, "com.microsoft:message-lock-lost")),
        ("peek-message", {"from-sequence-number": "one"}, (400, "com.microsoft:argument-error")),
        ("schedule-message", {"messages": [{}]}, (400, "com.microsoft:argument-error")),
        ("schedule-message", {"messages": [{"message": b"\xff"}]}, (400, "amqp:decode-error")),
        ("cancel-scheduled-message", {"sequence-numbers": ["1"]}, (400, "com.microsoft:argument-error")),
        (
            "update-disposition",
            {"lock-tokens": [], "disposition-status": "burnt"},
            (400, "com.microsoft:argument-error"),
        ),
        ("renew-session-lock", {"session-id": "a"}, (403, "amqp:not-allowed")),
        (
            "receive-by-sequence-number",
            {"sequence-numbers": [5], "receiver-settle-mode": UInt(1)},
            (404, "com.microsoft:message-not-found"),
        ),
    ],
)
def test_what_cannot_be_done_is_answered(
    client: Client, operation: str, body: Any, error: tuple[int, str]
) -> None:
    assert ask(client, operation, body) == error


def test_a_queue_that_went_away_is_not_found(house: House, client: Client) -> None:
    client.attach_receiver("q/$management", handle=11, reply_to="back")
    client.attach_sender("q/$management", handle=10)
    house.do(house.namespace.delete_all)
    client.flow(11, delivery_count=0, link_credit=1)

    from_nothing = section(0x74, {"operation": "com.microsoft:peek-message"})
    client.transfer(from_nothing, handle=10, settled=True)

    answer = Message.parse(client.receive()[1])
    assert answer.read_application_properties()["statusCode"] == 404
