"""Time-to-live on SQS: by the service's own clock, from when a message is due, and not among dead letters."""

from __future__ import annotations

import json
from typing import Any

import pytest

from queue_runtime.message import MAX_TIME_TO_LIVE, DeadLetterInfo, Message
from queue_runtime.provider import DeadLetter
from queue_runtime.providers.sqs.client import AwsSqsClient
from queue_runtime.providers.sqs.wire import SqsDelivery
from queue_runtime.testing import FakeClock
from tests.providers.sqs_edge import Edge, arn, provider_at, stored

SENT = 1_700_000_000.0


@pytest.fixture
def edge() -> Edge:
    edge = Edge()
    edge.queue("jobs", dead_letters="jobs-dlq")
    edge.queue("jobs-dlq")
    edge.queue("events.fifo")
    return edge


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def provider(edge: Edge, clock: FakeClock) -> AwsSqsClient:
    return provider_at(edge, clock)


def arriving(
    edge: Edge, provider: AwsSqsClient, message: Message, *, age: float, queue: str = "jobs", **facts: Any
) -> SqsDelivery:
    """*message* as it is received so many seconds after it was sent, by the service's clock."""
    edge.time = SENT + age
    edge.answers("ReceiveMessage", {"Messages": [stored(message, SentTimestamp=int(SENT * 1000), **facts)]})
    [delivery] = provider.receive(queue, 1, 0.0)
    assert isinstance(delivery, SqsDelivery)
    return delivery


def forged(edge: Edge, provider: AwsSqsClient, **ours: object) -> SqsDelivery:
    attributes = {"queue_runtime": {"DataType": "String", "StringValue": json.dumps({"id": "m1", **ours})}}
    return arriving(edge, provider, Message(body=b"x"), age=60.0, attributes=attributes)


@pytest.mark.parametrize("queue", ["jobs", "events.fifo"])
@pytest.mark.parametrize(("age", "left"), [(0.0, 60.0), (59.0, 1.0), (60.0, 0.0), (3600.0, -3540.0)])
def test_what_is_left_is_counted_from_when_it_was_sent(
    edge: Edge, provider: AwsSqsClient, clock: FakeClock, age: float, left: float, queue: str
) -> None:
    message = Message(body=b"x", id="m1", session_id="s", time_to_live=60.0)

    delivery = arriving(edge, provider, message, age=age, queue=queue)

    assert delivery.message.time_to_live == 60.0
    assert delivery.expires == clock.monotonic() + left
    assert delivery.expired(clock.monotonic()) == (left <= 0)


def test_this_machines_clock_has_no_say(edge: Edge, provider: AwsSqsClient, clock: FakeClock) -> None:
    clock.advance(10 * 365 * 86400.0)

    delivery = arriving(edge, provider, Message(body=b"x", time_to_live=60.0), age=59.0)

    assert not delivery.expired(clock.monotonic())


def test_without_the_services_time_it_lives_from_its_first_receive(
    edge: Edge, provider: AwsSqsClient, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queue_runtime.providers.sqs.client._date", lambda answer: None)
    first = int((SENT + 50.0) * 1000)

    delivery = arriving(
        edge,
        provider,
        Message(body=b"x", time_to_live=60.0),
        age=3600.0,
        ApproximateFirstReceiveTimestamp=first,
    )

    assert delivery.expires == clock.monotonic() + 10.0


def test_it_counts_from_when_a_delayed_message_is_due(
    edge: Edge, provider: AwsSqsClient, clock: FakeClock
) -> None:
    message = Message(body=b"x", delay=600.0, time_to_live=60.0)
    provider.send("jobs", [message])
    [entry] = edge.of("SendMessageBatch")[0]["Entries"]
    assert entry["DelaySeconds"] == 600

    delivery = arriving(edge, provider, message, age=610.0)

    assert delivery.due_in == 0
    assert delivery.expires == clock.monotonic() + 50.0


def test_one_without_a_time_to_live_does_not_expire(edge: Edge, provider: AwsSqsClient) -> None:
    assert arriving(edge, provider, Message(body=b"x"), age=1e9).expires is None


def test_one_that_the_broker_moved_to_the_dead_letters_does_not_expire(
    edge: Edge, provider: AwsSqsClient
) -> None:
    message = Message(body=b"x", time_to_live=60.0)

    delivery = arriving(
        edge, provider, message, age=3600.0, queue="jobs-dlq", DeadLetterQueueSourceArn=arn("jobs")
    )

    assert delivery.expires is None
    assert delivery.message.time_to_live == 60.0


class TestCopies:
    def buried(self, edge: Edge, provider: AwsSqsClient, message: Message) -> dict[str, Any]:
        """Dead-letter *message*; what its copy says of itself."""
        delivery = arriving(edge, provider, message, age=1.0)
        [outcome] = provider.settle("jobs", [DeadLetter(delivery, DeadLetterInfo(reason="because"))])
        assert outcome.error is None
        [entry] = edge.of("SendMessageBatch")[0]["Entries"]
        said: dict[str, Any] = json.loads(entry["MessageAttributes"]["queue_runtime"]["StringValue"])
        return said

    def test_a_copy_keeps_the_time_to_live_for_a_replay(self, edge: Edge, provider: AwsSqsClient) -> None:
        said = self.buried(edge, provider, Message(body=b"x", id="m1", time_to_live=60.0, replays=1))

        assert said == {"id": "m1", "ttl": 60.0, "re": 1, "dl": {"reason": "because"}}

    def test_a_copy_without_room_for_its_reason_says_nothing_of_times(
        self, edge: Edge, provider: AwsSqsClient
    ) -> None:
        message = Message(body=b"x", id="m1", time_to_live=60.0, delay=10.0, attributes={"a": "b"})
        edge.queue("jobs-dlq", MaximumMessageSize=len('x{"id":"m1","ttl":60.0,"wait":10.0}') + 35)

        assert self.buried(edge, provider, message) == {"id": "m1"}


class TestClaims:
    @pytest.mark.parametrize("life", ["60", 0, -1, True, None, [60], float("nan"), {}])
    def test_what_is_no_time_to_live_is_none(self, edge: Edge, provider: AwsSqsClient, life: object) -> None:
        delivery = forged(edge, provider, ttl=life)

        assert (delivery.message.time_to_live, delivery.expires, delivery.problem) == (None, None, None)

    @pytest.mark.parametrize("life", [1e300, 10**30, float("inf")])
    def test_an_endless_one_is_the_longest(self, edge: Edge, provider: AwsSqsClient, life: float) -> None:
        assert forged(edge, provider, ttl=life).message.time_to_live == MAX_TIME_TO_LIVE

    @pytest.mark.parametrize(
        ("said", "read"), [(3, 3), (-1, 0), (10**30, 1_000_000), (1.5, 0), ("3", 0), (True, 0)]
    )
    def test_replays_are_counted_within_bounds(
        self, edge: Edge, provider: AwsSqsClient, said: object, read: int
    ) -> None:
        assert forged(edge, provider, re=said).message.replays == read
