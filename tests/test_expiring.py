"""What a client does with expired messages where the broker leaves them to it, as SQS does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from queue_runtime import Message, QueueClient, ReceivedMessage, Worker, connect, parse_url, receiving
from queue_runtime.errors import InvalidReceipt, Outcome, OutcomeUnknown, SessionLeaseLost, Throttled
from queue_runtime.events import Event, MessageExpired, SettlementFailed
from queue_runtime.message import Delivery
from queue_runtime.providers.memory import InMemoryClient
from queue_runtime.providers.memory_queues import Queue, Stored
from queue_runtime.retry import RetryPolicy
from queue_runtime.testing import FakeClock

URL = "memory://?queues=jobs,groups:groups"
ONCE = RetryPolicy(max_attempts=1)

Connect = Callable[..., QueueClient]


@pytest.fixture(autouse=True)
def broker_leaves_it_to_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Stored.shown

    def with_its_end(stored: Stored, **hold: Any) -> Delivery:
        return replace(shown(stored, **hold), expires=None if stored.info else stored.expires)

    monkeypatch.setattr(Queue, "take_expired", lambda queue, now: [])
    monkeypatch.setattr(Stored, "shown", with_its_end)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def told() -> list[Event]:
    """What happened to expired messages."""
    return []


@pytest.fixture
def connected(clock: FakeClock, told: list[Event]) -> Iterator[Connect]:
    made: list[QueueClient] = []

    def listener(event: Event) -> None:
        if isinstance(event, MessageExpired | SettlementFailed):
            told.append(event)

    def make(**settings: Any) -> QueueClient:
        made.append(connect(replace(parse_url(URL), **settings), clock=clock, listeners=[listener]))
        return made[-1]

    yield make
    for client in made:
        client.close()


def send(client: QueueClient, queue: str, *ids: str) -> None:
    """Those whose id ends with "!" live for a minute."""
    for id in ids:
        life = 60.0 if id.endswith("!") else None
        client.send(queue, Message(body=b"x", id=id, session_id="s", time_to_live=life))


def ids(messages: list[ReceivedMessage]) -> list[str]:
    return [message.id for message in messages]


def handled(client: QueueClient) -> list[str]:
    """What comes of all sessions, one message after the other."""
    came: list[str] = []
    while session := client.accept_session("groups"):
        with session:
            while messages := session.receive(max_messages=1):
                came += ids(messages)
                session.complete(messages)
    return came


def failing_settles(patch: pytest.MonkeyPatch, *errors: Exception) -> None:
    """The next requests to settle fail; those after them go well."""
    true, left = InMemoryClient.settle, list(errors)

    def settle(client: InMemoryClient, queue: str, settlements: Any) -> Any:
        if left:
            raise left.pop(0)
        return true(client, queue, settlements)

    patch.setattr(InMemoryClient, "settle", settle)


class TestOutsideSessions:
    def test_one_that_expired_is_dropped_and_told_of(
        self, connected: Connect, clock: FakeClock, told: list[Event]
    ) -> None:
        client = connected()
        send(client, "jobs", "a!", "b")
        clock.advance(60.0)

        assert ids(client.receive("jobs", max_messages=10)) == ["b"]

        assert told == [MessageExpired(queue="jobs", message_id="a!", session_id="s", dead_lettered=False)]
        assert client.dead_letters("jobs").list() == []
        clock.advance(60.0)
        assert ids(client.receive("jobs", max_messages=10)) == ["b"]

    def test_or_dead_lettered_as_the_settings_say(
        self, connected: Connect, clock: FakeClock, told: list[Event]
    ) -> None:
        client = connected(expired="dead_letter")
        send(client, "jobs", "a!")
        clock.advance(61.0)

        assert client.receive("jobs") == []

        assert told == [MessageExpired(queue="jobs", message_id="a!", session_id="s", dead_lettered=True)]
        [dead] = client.dead_letters("jobs").list()
        info = dead.dead_letter
        assert info.reason == "TimeToLiveExpired"
        assert info.description == "it was not received in time: it had 60 s"
        assert (info.attempts, info.queue, info.message_id) == (None, "jobs", "a!")

    def test_what_is_behind_many_is_found(self, connected: Connect, clock: FakeClock) -> None:
        client = connected()
        send(client, "jobs", *(f"{n}!" for n in range(25)), "last")
        clock.advance(60.0)

        assert ids(client.receive("jobs", max_messages=2)) == ["last"]

    def test_a_cancelled_receive_asks_no_further(self, connected: Connect, clock: FakeClock) -> None:
        client = connected()
        send(client, "jobs", "a!", "b!", "c")
        clock.advance(60.0)
        asked = iter([False, True])
        runtime = client.runtime_for("jobs")

        found = receiving.receive(runtime, "jobs", 1, 0.0, cancelled=lambda: next(asked))

        assert found == []
        assert ids(client.receive("jobs")) == ["c"]

    def test_one_that_cannot_be_settled_is_handed_to_nobody_and_comes_again(
        self, connected: Connect, clock: FakeClock, told: list[Event], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = connected()
        send(client, "jobs", "a!")
        clock.advance(60.0)
        failing_settles(monkeypatch, Throttled("slow down"))

        assert client.receive("jobs") == []
        assert [type(event) for event in told] == [SettlementFailed]

        clock.advance(30.0)
        assert client.receive("jobs") == []
        assert [type(event) for event in told] == [SettlementFailed, MessageExpired]
        assert client.describe("jobs").active == 0

    def test_a_dead_letter_does_not_expire(self, connected: Connect, clock: FakeClock) -> None:
        client = connected()
        send(client, "jobs", "a!")
        [message] = client.receive("jobs")
        client.dead_letter(message, reason="because")
        clock.advance(1000.0)

        dead = client.describe("jobs").dead_letter_queue
        assert dead is not None
        assert ids(client.receive(dead)) == ["a!"]


class TestInSessions:
    def test_the_expired_head_is_settled_before_the_next_is_handed_out(
        self, connected: Connect, clock: FakeClock, told: list[Event]
    ) -> None:
        client = connected()
        send(client, "groups", "a!", "b", "c!", "d")
        clock.advance(60.0)

        assert handled(client) == ["b", "d"]
        assert [event.message_id for event in told if isinstance(event, MessageExpired)] == ["a!", "c!"]

    def test_one_that_expires_while_it_waits_for_those_before_it_is_not_handed_out(
        self, connected: Connect, clock: FakeClock
    ) -> None:
        client = connected()
        send(client, "groups", "a", "b!")
        session = client.accept_session("groups")
        assert session is not None
        [first] = session.receive(max_messages=1)
        for _ in range(4):
            clock.advance(15.0)
            session.renew()
        session.complete(first)

        assert session.receive() == []

        session.close()
        assert client.describe("groups").active == 0

    def test_a_settlement_that_fails_is_tried_again(
        self, connected: Connect, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = connected(retry=RetryPolicy(base=0.001))
        send(client, "groups", "a!", "b")
        clock.advance(60.0)
        failing_settles(monkeypatch, Throttled("slow down"))
        monkeypatch.setattr("random.random", lambda: 0.0)
        session = client.accept_session("groups")
        assert session is not None

        assert ids(session.receive()) == ["b"]

    @pytest.mark.parametrize("error", [Throttled("no"), OutcomeUnknown("no")])
    def test_if_it_fails_for_good_the_session_ends_and_nothing_passes(
        self,
        connected: Connect,
        clock: FakeClock,
        told: list[Event],
        monkeypatch: pytest.MonkeyPatch,
        error: Exception,
    ) -> None:
        client = connected(retry=ONCE)
        send(client, "groups", "a!", "b")
        clock.advance(60.0)
        failing_settles(monkeypatch, error)
        session = client.accept_session("groups")
        assert session is not None

        with pytest.raises(type(error)):
            session.receive()

        assert session.lease.lost
        assert session.receive() == []
        assert [type(event) for event in told] == [SettlementFailed]
        assert handled(client) == ["b"]

    def test_if_it_is_held_no_more_the_session_ends(
        self, connected: Connect, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = connected()
        send(client, "groups", "a!", "b")
        clock.advance(60.0)
        lost = Outcome[None](error=InvalidReceipt("no"))
        monkeypatch.setattr(InMemoryClient, "settle", lambda client, queue, wanted: [lost] * len(wanted))
        session = client.accept_session("groups")
        assert session is not None

        with pytest.raises(InvalidReceipt):
            session.receive()

        with pytest.raises(SessionLeaseLost):
            session.renew()


class TestWorkers:
    @pytest.mark.parametrize("queue", ["jobs", "groups"])
    def test_a_worker_starts_none_that_expired(
        self, connected: Connect, clock: FakeClock, queue: str
    ) -> None:
        client = connected()
        send(client, queue, "a!", "b", "c!", "d!", "e")
        clock.advance(60.0)
        started: list[str] = []

        def handler(message: ReceivedMessage) -> None:
            started.append(message.id)

        Worker(client, queue, handler).run_until_idle()

        assert sorted(started) == ["b", "e"]
        assert client.describe(queue).active == 0
