"""Delays beyond 15 minutes on SQS: hops that nobody sees, never early, by the service's own clock."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from botocore import exceptions as boto

from queue_runtime.errors import InvalidMessage, UnsupportedOperation
from queue_runtime.message import Message
from queue_runtime.providers.sqs.client import AwsSqsClient
from queue_runtime.providers.sqs.limits import MAX_HOPPED_DELAY
from queue_runtime.testing import FakeClock
from tests.providers.sqs_edge import Edge, arn, failing, provider_at, stored
from tests.providers.standing_queue import StandingQueue, binary

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

HOUR = 3600.0


@pytest.fixture
def sqs() -> StandingQueue:
    return StandingQueue("jobs")


@pytest.fixture
def provider(sqs: StandingQueue) -> AwsSqsClient:
    return provider_at(sqs, FakeClock())


def send(provider: AwsSqsClient, delay: float, **fields: Any) -> Message:
    message = Message(body=b"body", id="m1", delay=delay, **fields)
    [outcome] = provider.send("jobs", [message])
    assert outcome.error is None
    return message


def receive(provider: AwsSqsClient) -> list[str]:
    return [delivery.message.id for delivery in provider.receive("jobs", 10, 0.0)]


def travel(sqs: StandingQueue, provider: AwsSqsClient, most: int = 1000) -> tuple[float, int]:
    """Receive whenever something is visible until a message is handed out; how long that took by the clock of
    the service, and how many times it was sent on."""
    began = sqs.time
    for hops in range(most):
        sqs.time = max(sqs.time, sqs.next_change())
        if receive(provider) == ["m1"]:
            return sqs.time - began, hops
    raise AssertionError(f"it was not handed out in {most} receives")


def test_what_is_due_later_is_sent_with_the_longest_timer_and_says_when(
    sqs: StandingQueue, provider: AwsSqsClient
) -> None:
    send(provider, HOUR)

    [entry] = sqs.of("SendMessageBatch")[0]["Entries"]
    assert entry["DelaySeconds"] == 900
    assert sqs.ours() == [{"id": "m1", "wait": HOUR}]


@pytest.mark.parametrize("delay", [0.0, 0.5, 900.0])
def test_what_sqs_keeps_by_itself_says_nothing(
    sqs: StandingQueue, provider: AwsSqsClient, delay: float
) -> None:
    send(provider, delay)

    assert sqs.ours() == [{"id": "m1"}]


@pytest.mark.parametrize("delay", [900.5, 901.0, 1800.0, 1800.75, HOUR, 10 * HOUR + 0.25])
@pytest.mark.parametrize("offset", [0.0, 0.001, 0.5, 0.999])
def test_it_comes_when_it_is_due_and_never_before(
    sqs: StandingQueue, provider: AwsSqsClient, delay: float, offset: float
) -> None:
    sqs.time += offset
    send(provider, delay)

    took, hops = travel(sqs, provider)

    assert delay - 0.001 <= took <= delay + 2.0  # SQS stamps milliseconds, and waits whole seconds
    assert hops == pytest.approx(delay / 900, abs=1)


def test_the_longest_delay_takes_a_week_to_the_second(sqs: StandingQueue, provider: AwsSqsClient) -> None:
    send(provider, float(MAX_HOPPED_DELAY))

    took, hops = travel(sqs, provider)

    assert MAX_HOPPED_DELAY - 0.001 <= took <= MAX_HOPPED_DELAY + 2.0
    assert hops == pytest.approx(MAX_HOPPED_DELAY / 900, abs=2)
    assert len(sqs.standing) == 1


def test_a_hop_that_nobody_receives_for_long_is_late_and_not_lost(
    sqs: StandingQueue, provider: AwsSqsClient
) -> None:
    send(provider, HOUR)
    sqs.time += 5 * HOUR

    assert receive(provider) == ["m1"]


def test_without_the_services_time_it_is_late_rather_than_early(
    sqs: StandingQueue, provider: AwsSqsClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queue_runtime.providers.sqs.client._date", lambda answer: None)
    send(provider, HOUR)

    took, _ = travel(sqs, provider)

    assert HOUR <= took <= HOUR + 900.0


def test_a_hop_is_the_same_message_but_for_its_times(sqs: StandingQueue, provider: AwsSqsClient) -> None:
    send(provider, HOUR, session_id="tenant", attributes={"kind": "push"}, time_to_live=60.0, replays=2)
    [first] = sqs.standing
    first.entry["MessageAttributes"]["theirs"] = binary(b"\0\xff")
    trace = {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1"}}
    first.entry = {**first.entry, "MessageSystemAttributes": trace}
    sqs.time += 900

    assert receive(provider) == []

    [second] = sqs.standing
    assert second.entry["MessageBody"] == first.entry["MessageBody"]
    for name in ("kind", "theirs"):
        assert second.entry["MessageAttributes"][name] == first.entry["MessageAttributes"][name]
    assert second.entry["MessageGroupId"] == "tenant"
    assert second.entry["MessageSystemAttributes"] == first.entry["MessageSystemAttributes"]
    sent = int(first.sent * 1000)
    assert sqs.ours() == [{"id": "m1", "sid": "tenant", "ttl": 60.0, "re": 2, "wait": HOUR, "sent": sent}]


def test_the_hop_is_confirmed_before_the_message_is_removed(
    sqs: StandingQueue, provider: AwsSqsClient
) -> None:
    send(provider, HOUR)
    sqs.time += 900
    del sqs.asked[:]

    receive(provider)

    asked = [request.operation for request in sqs.asked]
    assert asked[:3] == ["ReceiveMessage", "SendMessageBatch", "DeleteMessageBatch"]


class TestWhatFails:
    def test_one_that_cannot_be_sent_on_stays_and_comes_again(
        self, sqs: StandingQueue, provider: AwsSqsClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        send(provider, HOUR)
        sqs.time += 900
        sqs.refuses("SendMessageBatch", "AccessDenied", status=403)

        with caplog.at_level(logging.WARNING):
            assert receive(provider) == []

        assert [record.message for record in caplog.records] == ["sqs.hop.failed"]
        assert sqs.of("DeleteMessageBatch") == []
        assert len(sqs.standing) == 1
        took, _ = travel(sqs, provider)
        assert took == pytest.approx(HOUR - 900, abs=2.0)

    def test_one_of_several_fails_alone(self, sqs: StandingQueue, provider: AwsSqsClient) -> None:
        for _ in range(3):
            send(provider, HOUR)
        sqs.time += 900
        sqs.does("SendMessageBatch", failing({1: ("InternalError", "no")}, mine=False))

        assert receive(provider) == []

        [removal] = sqs.of("DeleteMessageBatch")
        assert [entry["ReceiptHandle"] for entry in removal["Entries"]] == ["b1/1", "b3/1"]

    def test_one_of_which_the_outcome_is_unknown_is_not_removed(
        self, sqs: StandingQueue, provider: AwsSqsClient
    ) -> None:
        send(provider, HOUR)
        sqs.time += 900
        sqs.fails("SendMessageBatch", boto.ReadTimeoutError(endpoint_url="https://sqs", error="slow"))

        assert receive(provider) == []

        assert sqs.of("DeleteMessageBatch") == []

    def test_one_that_cannot_be_removed_is_not_sent_on_twice(
        self, sqs: StandingQueue, provider: AwsSqsClient
    ) -> None:
        send(provider, HOUR)
        sqs.time += 900
        sqs.refuses("DeleteMessageBatch", "ThrottlingException")
        receive(provider)
        assert len(sqs.standing) == 2

        sqs.time += 30
        assert receive(provider) == []

        [hop] = sqs.standing
        assert hop.broker_id == "b2"


class TestWhatComesWithIt:
    def test_what_is_due_is_handed_out_at_once(self, sqs: StandingQueue, provider: AwsSqsClient) -> None:
        send(provider, HOUR)
        sqs.time += 900
        provider.send("jobs", [Message(body=b"now", id="now")])

        assert receive(provider) == ["now"]

    def test_what_is_behind_more_than_one_answer_is_found(
        self, sqs: StandingQueue, provider: AwsSqsClient
    ) -> None:
        for _ in range(25):
            send(provider, HOUR)
        sqs.time += 900
        provider.send("jobs", [Message(body=b"now", id="now")])

        assert receive(provider) == ["now"]

    def test_a_cancelled_receive_asks_no_further(self, sqs: StandingQueue, provider: AwsSqsClient) -> None:
        for _ in range(25):
            send(provider, HOUR)
        sqs.time += 900
        told = iter([False, True])

        assert provider.receive("jobs", 10, 20.0, cancelled=lambda: next(told)) == []

        assert len(sqs.of("ReceiveMessage")) == 1


class TestClaims:
    """What a message says of its own times is clamped: a forged one harms only itself."""

    def forged(self, sqs: StandingQueue, provider: AwsSqsClient, **ours: object) -> None:
        send(provider, 0.0)
        attribute = sqs.standing[0].entry["MessageAttributes"]["queue_runtime"]
        attribute["StringValue"] = json.dumps({"id": "m1", **ours})

    @pytest.mark.parametrize("wait", [1e300, 10**30, float("inf")])
    def test_an_endless_wait_ends_after_a_week(
        self, sqs: StandingQueue, provider: AwsSqsClient, wait: float
    ) -> None:
        self.forged(sqs, provider, wait=wait)
        sqs.time += MAX_HOPPED_DELAY - HOUR

        took, hops = travel(sqs, provider)

        assert HOUR - 1.0 <= took <= HOUR + 2.0
        assert hops in (4, 5)

    def test_a_beginning_in_the_future_is_none(self, sqs: StandingQueue, provider: AwsSqsClient) -> None:
        self.forged(sqs, provider, wait=HOUR, sent=int((sqs.time + 1000 * HOUR) * 1000))

        took, _ = travel(sqs, provider)

        assert took <= HOUR + 2.0

    @pytest.mark.parametrize("wait", ["3600", -1, 0, True, None, [3600], float("nan")])
    def test_what_is_no_duration_is_none(
        self, sqs: StandingQueue, provider: AwsSqsClient, wait: object
    ) -> None:
        self.forged(sqs, provider, wait=wait)

        assert receive(provider) == ["m1"]

    @pytest.mark.parametrize("sent", ["1", -1, 1.5, None])
    def test_what_is_no_beginning_is_none(
        self, sqs: StandingQueue, provider: AwsSqsClient, sent: object
    ) -> None:
        self.forged(sqs, provider, wait=HOUR, sent=sent)

        took, _ = travel(sqs, provider)

        assert took == pytest.approx(HOUR, abs=2.0)

    def test_a_fifo_queue_delays_no_single_message_whatever_one_claims(self) -> None:
        edge = Edge()
        edge.time = 1_700_000_001.0
        edge.queue("events.fifo")
        forged = {"queue_runtime": {"DataType": "String", "StringValue": json.dumps({"wait": HOUR})}}
        message = stored(Message(body=b"x", id="m1"), attributes=forged, group="g")
        edge.answers("ReceiveMessage", {"Messages": [message]})

        [delivery] = provider_at(edge, FakeClock()).receive("events.fifo", 1, 0.0)

        assert delivery.broker_id == "b1"

    def test_in_a_dead_letter_queue_nothing_waits(self) -> None:
        edge = Edge()
        edge.time = 1_700_000_001.0
        edge.queue("jobs-dlq")
        message = stored(Message(body=b"x", id="m1", delay=HOUR), DeadLetterQueueSourceArn=arn("jobs"))
        edge.answers("ReceiveMessage", {"Messages": [message]})

        [delivery] = provider_at(edge, FakeClock()).receive("jobs-dlq", 1, 0.0)

        assert delivery.message.id == "m1"
        assert edge.of("SendMessageBatch") == []


class TestBounds:
    def test_a_delay_that_hops_may_not_bridge_is_refused(
        self, sqs: StandingQueue, provider: AwsSqsClient
    ) -> None:
        assert provider.capabilities("jobs").max_delay == MAX_HOPPED_DELAY
        [outcome] = provider.send("jobs", [Message(body=b"x", delay=MAX_HOPPED_DELAY + 1.0)])

        assert type(outcome.error) is InvalidMessage
        assert "604801 s" in str(outcome.error)

    def test_a_queue_that_forgets_soon_takes_what_sqs_keeps_and_no_more(self) -> None:
        sqs = StandingQueue("jobs")
        sqs.queue("jobs", MessageRetentionPeriod=1799)
        provider = provider_at(sqs, FakeClock())

        assert provider.capabilities("jobs").max_delay == 900.0
        [outcome] = provider.send("jobs", [Message(body=b"x", delay=901.0)])
        assert type(outcome.error) is InvalidMessage

    def test_a_fifo_queue_takes_none(self, sqs: StandingQueue, provider: AwsSqsClient) -> None:
        sqs.queue("events.fifo")

        [outcome] = provider.send("events.fifo", [Message(body=b"x", delay=1.0)])

        assert type(outcome.error) is UnsupportedOperation


@pytest.mark.parametrize(("lease", "timeout"), [(None, 5.0), (18.0, 3.0), (12.0, 2.0), (3.0, 0.5)])
def test_a_hop_waits_for_its_answers_for_at_most_a_sixth_of_the_lease(
    sqs: StandingQueue,
    provider: AwsSqsClient,
    monkeypatch: pytest.MonkeyPatch,
    lease: float | None,
    timeout: float,
) -> None:
    send(provider, HOUR)
    sqs.time = sqs.next_change()
    used: list[float] = []
    make = provider._sdk._client

    def noted(timeout: float) -> SQSClient:
        used.append(timeout)
        return make(timeout)

    monkeypatch.setattr(provider._sdk, "_client", noted)

    before = len(sqs.asked)

    assert provider.receive("jobs", 10, 0.0, lease=lease) == []

    asked = [each.operation for each in sqs.asked[before:]]
    taken = [each for each in zip(asked, used, strict=True) if each[0] != "ReceiveMessage"]
    assert taken == [("SendMessageBatch", timeout), ("DeleteMessageBatch", timeout)]
