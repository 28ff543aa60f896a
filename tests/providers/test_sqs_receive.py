"""Receiving from SQS: what a delivery says, how long it is held, and what comes after close."""

from __future__ import annotations

import base64
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore import exceptions as boto

from queue_runtime import errors
from queue_runtime.message import DeadLetterInfo, Message
from queue_runtime.providers.sqs.client import AwsSqsClient
from queue_runtime.testing import FakeClock
from tests.providers.sqs_edge import Body, Edge, all_well, arn, failing, provider_at, stored

TIMEOUT = boto.ReadTimeoutError(endpoint_url="https://sqs", error="slow")


@pytest.fixture
def edge() -> Edge:
    edge = Edge()
    edge.queue("jobs")
    edge.queue("events.fifo")
    return edge


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def provider(edge: Edge, clock: FakeClock) -> AwsSqsClient:
    return provider_at(edge, clock)


def brings(edge: Edge, *messages: Body, clock: FakeClock | None = None, after: float = 0) -> None:
    """The next receive answers with *messages*, *after* so many seconds."""

    def act(_: Body) -> Body:
        if clock is not None:
            clock.advance(after)
        return {"Messages": list(messages)}

    edge.does("ReceiveMessage", act)


def of_group(group: str, number: int) -> dict[str, Any]:
    return stored(
        Message(body=b"x", id=f"{group}-{number}", session_id=group),
        broker_id=f"b-{group}-{number}",
        receipt=f"r-{group}-{number}",
        group=group,
        SequenceNumber=f"{number:020}",
    )


# What a delivery says


def test_a_delivery_says_what_the_broker_says(edge: Edge, provider: AwsSqsClient, clock: FakeClock) -> None:
    message = Message(
        body=b"\x00\xff",
        id="m1",
        session_id="répo",
        attributes={"kind": "push", "empty": ""},
        content_type="application/x",
        correlation_id="c1",
    )
    brings(
        edge,
        stored(message, group="tenant", ApproximateReceiveCount=3, SequenceNumber="00000000000000000042"),
    )

    [delivery] = provider.receive("jobs", 1, 0)

    assert delivery.message == message
    assert (delivery.broker_id, delivery.receipt, delivery.delivery_count) == ("b1", "r1", 3)
    assert delivery.sequence == 42
    assert delivery.enqueued_at == datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)
    assert (delivery.lease, delivery.leased_until) == (30.0, clock.monotonic() + 30)
    assert (delivery.dead_letter, delivery.problem, delivery.follows) == (None, None, False)
    assert "r1" not in repr(delivery)


def test_a_message_of_another_tool_is_shown_as_it_came(edge: Edge, provider: AwsSqsClient) -> None:
    attributes: dict[str, Any] = {
        "size": {"DataType": "Number.int", "StringValue": "42"},
        "blob": {"DataType": "Binary", "BinaryValue": base64.b64encode(b"\x00\x01").decode()},
        "text": {"DataType": "String", "StringValue": "héllo"},
    }
    theirs = stored(Message(body=b'{"a": 1}'), attributes=attributes)
    del theirs["Attributes"]["SentTimestamp"]
    brings(edge, theirs)

    [delivery] = provider.receive("jobs", 1, 0)

    assert delivery.message.id == "b1"
    assert delivery.message.body == b'{"a": 1}'
    assert dict(delivery.message.attributes) == {"size": "42", "blob": "AAE=", "text": "héllo"}
    assert (delivery.message.session_id, delivery.sequence, delivery.enqueued_at) == (None, None, None)


def test_a_message_without_attributes_at_all_is_received(edge: Edge, provider: AwsSqsClient) -> None:
    brings(edge, {"MessageId": "b1", "ReceiptHandle": "r1", "Body": "plain"})

    [delivery] = provider.receive("jobs", 1, 0)

    assert delivery.message.body == b"plain"
    assert delivery.delivery_count == 1


def test_a_message_that_cannot_be_decoded_says_why(edge: Edge, provider: AwsSqsClient) -> None:
    forged = {"queue_runtime": {"DataType": "String", "StringValue": '{"enc": "base64"}'}}
    brings(edge, stored(Message(body=b"not base64!"), attributes=forged))

    [delivery] = provider.receive("jobs", 1, 0)

    assert delivery.problem is not None
    assert "base64" in delivery.problem
    assert delivery.message.body == b"not base64!"


def test_later_messages_of_a_group_in_one_answer_follow(edge: Edge, provider: AwsSqsClient) -> None:
    brings(edge, of_group("a", 1), of_group("a", 2), of_group("b", 3), of_group("a", 4))

    taken = provider.receive("events.fifo", 10, 0)

    assert [delivery.follows for delivery in taken] == [False, True, False, True]
    assert [delivery.sequence for delivery in taken] == [1, 2, 3, 4]


def test_the_lone_head_of_a_group_comes_early_and_follows_nothing(edge: Edge, provider: AwsSqsClient) -> None:
    """Given back while later ones are in flight, it is handed out at once, alone."""
    brings(edge, of_group("a", 1), of_group("a", 2))
    again = of_group("a", 1) | {"ReceiptHandle": "r-again"}
    again["Attributes"] = again["Attributes"] | {"ApproximateReceiveCount": "2"}
    brings(edge, again)
    first = provider.receive("events.fifo", 10, 0)

    [head] = provider.receive("events.fifo", 10, 0)

    assert head.broker_id == first[0].broker_id
    assert head.receipt != first[0].receipt
    assert (head.delivery_count, head.follows, head.sequence) == (2, False, 1)


def test_groups_of_a_standard_queue_say_nothing_about_order(edge: Edge, provider: AwsSqsClient) -> None:
    brings(edge, of_group("a", 1), of_group("a", 2))

    taken = provider.receive("jobs", 10, 0)

    assert [delivery.follows for delivery in taken] == [False, False]


def test_a_message_without_a_session_comes_back_without_one(edge: Edge, provider: AwsSqsClient) -> None:
    provider.send("events.fifo", [Message(body=b"x", id="m1")])
    [sent] = edge.of("SendMessageBatch")[0]["Entries"]
    brings(
        edge,
        stored(
            Message(body=b"x", id="m1"),
            group=sent["MessageGroupId"],
            MessageDeduplicationId=sent["MessageDeduplicationId"],
        ),
    )

    [delivery] = provider.receive("events.fifo", 1, 0)

    assert delivery.message == Message(body=b"x", id="m1")


def test_a_group_of_another_tool_is_a_session(edge: Edge, provider: AwsSqsClient) -> None:
    brings(edge, stored(Message(body=b"x"), group="theirs", attributes={}))

    [delivery] = provider.receive("events.fifo", 1, 0)

    assert delivery.message.session_id == "theirs"


def test_a_session_named_as_its_message_stays_one(edge: Edge, provider: AwsSqsClient) -> None:
    brings(edge, stored(Message(body=b"x", id="m1", session_id="m1"), group="m1"))

    [delivery] = provider.receive("events.fifo", 1, 0)

    assert delivery.message.session_id == "m1"


def test_the_group_that_orders_holds_against_a_session_that_is_claimed(
    edge: Edge, provider: AwsSqsClient
) -> None:
    """A copy of ours that another tool put into a group of its own."""
    brings(edge, stored(Message(body=b"x", id="m1", session_id="a"), group="theirs"))

    [delivery] = provider.receive("events.fifo", 1, 0)

    assert delivery.message.session_id == "theirs"


def test_a_given_deduplication_id_is_shown(edge: Edge, provider: AwsSqsClient) -> None:
    brings(edge, stored(Message(body=b"x", id="m1"), group="m1", MessageDeduplicationId="order-7"))

    [delivery] = provider.receive("events.fifo", 1, 0)

    assert delivery.message.deduplication_id == "order-7"


def test_a_dead_letter_that_the_broker_moved_has_its_reason(edge: Edge, provider: AwsSqsClient) -> None:
    message = Message(body=b"x", id="m1", session_id="a")
    brings(edge, stored(message, group="a", DeadLetterQueueSourceArn=arn("events.fifo")))

    [delivery] = provider.receive("events.fifo", 1, 0)

    assert delivery.dead_letter == DeadLetterInfo(
        reason="MaxReceivesExceeded", queue="events.fifo", session_id="a", message_id="m1"
    )


# How it is asked


@pytest.mark.parametrize(
    ("wait", "seconds"), [(0, 0), (0.7, 0), (0.75, 1), (1, 1), (2.7, 2), (20, 20), (60, 20), (-1, 0)]
)
def test_a_wait_is_whole_seconds_rounded_down_but_for_a_quarter(
    edge: Edge, provider: AwsSqsClient, wait: float, seconds: int
) -> None:
    provider.receive("jobs", 99, wait)

    [body] = edge.of("ReceiveMessage")
    assert body["WaitTimeSeconds"] == seconds
    assert body["MaxNumberOfMessages"] == 10
    assert body["MessageSystemAttributeNames"] == ["All"]
    assert body["MessageAttributeNames"] == ["All"]


@pytest.mark.parametrize(
    ("lease", "visibility"), [(None, 30), (5, 5), (0.5, 1), (2.1, 3), (43200, 43200), (99999, 43200)]
)
def test_the_lease_is_asked_for_and_rounded_up(
    edge: Edge, provider: AwsSqsClient, clock: FakeClock, lease: float | None, visibility: int
) -> None:
    brings(edge, stored(Message(body=b"x")))

    [delivery] = provider.receive("jobs", 1, 0, lease=lease)

    assert edge.of("ReceiveMessage")[0]["VisibilityTimeout"] == visibility
    assert delivery.lease == visibility
    assert delivery.leased_until == clock.monotonic() + visibility


def test_a_queue_that_hides_nothing_is_asked_to(edge: Edge, provider: AwsSqsClient) -> None:
    edge.queue("open", VisibilityTimeout=0)

    provider.receive("open", 1, 0)

    assert edge.of("ReceiveMessage")[0]["VisibilityTimeout"] == 30


# How long it is held on arrival


def test_a_lease_dates_from_before_the_call(edge: Edge, provider: AwsSqsClient, clock: FakeClock) -> None:
    asked_at = clock.monotonic()
    brings(edge, stored(Message(body=b"x")), clock=clock, after=14)

    [delivery] = provider.receive("jobs", 1, 20)

    assert delivery.leased_until == asked_at + 30
    assert edge.of("ChangeMessageVisibilityBatch") == []


def test_what_comes_late_is_held_anew_before_it_is_handed_over(
    edge: Edge, provider: AwsSqsClient, clock: FakeClock
) -> None:
    brings(edge, *[of_group("a", n) for n in range(3)], clock=clock, after=16)

    taken = provider.receive("events.fifo", 10, 20)

    [body] = edge.of("ChangeMessageVisibilityBatch")
    assert [entry["VisibilityTimeout"] for entry in body["Entries"]] == [30, 30, 30]
    assert {delivery.leased_until for delivery in taken} == {clock.monotonic() + 30}
    assert [delivery.sequence for delivery in taken] == [0, 1, 2]


def test_what_cannot_be_held_anew_goes_back_with_what_follows_it(
    edge: Edge, provider: AwsSqsClient, clock: FakeClock
) -> None:
    messages = [of_group("a", 1), of_group("a", 2), of_group("b", 3), of_group("a", 4)]
    brings(edge, *messages, clock=clock, after=16)
    edge.does("ChangeMessageVisibilityBatch", failing({1: ("ReceiptHandleIsInvalid", "stale")}))

    taken = provider.receive("events.fifo", 10, 20)

    assert [delivery.sequence for delivery in taken] == [1, 3]
    _, release = edge.of("ChangeMessageVisibilityBatch")
    assert [(e["ReceiptHandle"], e["VisibilityTimeout"]) for e in release["Entries"]] == [
        ("r-a-2", 0),
        ("r-a-4", 0),
    ]


def test_messages_without_a_session_do_not_take_each_other_back(
    edge: Edge, provider: AwsSqsClient, clock: FakeClock
) -> None:
    alone = [
        stored(Message(body=b"x", id=f"m{n}"), broker_id=f"b{n}", receipt=f"r{n}", group=f"m{n}")
        for n in range(3)
    ]
    brings(edge, *alone, clock=clock, after=16)
    edge.does("ChangeMessageVisibilityBatch", failing({0: ("ReceiptHandleIsInvalid", "stale")}))

    taken = provider.receive("events.fifo", 10, 20)

    assert [delivery.message.id for delivery in taken] == ["m1", "m2"]


def test_on_a_standard_queue_nothing_follows(edge: Edge, provider: AwsSqsClient, clock: FakeClock) -> None:
    brings(edge, of_group("a", 1), of_group("a", 2), clock=clock, after=16)
    edge.does("ChangeMessageVisibilityBatch", failing({0: ("ReceiptHandleIsInvalid", "stale")}))

    taken = provider.receive("jobs", 10, 20)

    assert [delivery.sequence for delivery in taken] == [2]


def test_a_renewal_on_arrival_that_fails_as_a_whole_drops_everything(
    edge: Edge, provider: AwsSqsClient, clock: FakeClock
) -> None:
    brings(edge, of_group("a", 1), of_group("b", 2), clock=clock, after=16)
    edge.refuses("ChangeMessageVisibilityBatch", "RequestThrottled")
    edge.refuses("ChangeMessageVisibilityBatch", "RequestThrottled")

    taken = provider.receive("events.fifo", 10, 20)

    assert taken == []
    assert len(edge.of("ChangeMessageVisibilityBatch")) == 2


# Lost answers


def test_a_lost_receive_on_a_fifo_queue_is_asked_for_again(edge: Edge, provider: AwsSqsClient) -> None:
    edge.fails("ReceiveMessage", TIMEOUT)
    with pytest.raises(errors.OperationTimeout):
        provider.receive("events.fifo", 10, 5)

    provider.receive("events.fifo", 10, 5)
    provider.receive("events.fifo", 10, 5)

    lost, again, fresh = (body["ReceiveRequestAttemptId"] for body in edge.of("ReceiveMessage"))
    assert lost == again
    assert fresh != lost


def test_after_a_throttle_a_receive_is_a_new_one(edge: Edge, provider: AwsSqsClient) -> None:
    edge.refuses("ReceiveMessage", "ThrottlingException")
    with pytest.raises(errors.Throttled):
        provider.receive("events.fifo", 10, 5)

    provider.receive("events.fifo", 10, 5)

    throttled, fresh = (body["ReceiveRequestAttemptId"] for body in edge.of("ReceiveMessage"))
    assert throttled != fresh


@pytest.mark.parametrize(("most", "lease", "later"), [(5, None, 0), (10, 60, 0), (10, None, 31)])
def test_another_question_or_a_late_one_is_not_a_repetition(
    edge: Edge, provider: AwsSqsClient, clock: FakeClock, most: int, lease: float | None, later: float
) -> None:
    edge.fails("ReceiveMessage", TIMEOUT)
    with pytest.raises(errors.OperationTimeout):
        provider.receive("events.fifo", 10, 5)
    clock.advance(later)

    provider.receive("events.fifo", most, 5, lease=lease)

    lost, fresh = (body["ReceiveRequestAttemptId"] for body in edge.of("ReceiveMessage"))
    assert lost != fresh


def test_a_standard_queue_has_no_such_ids(edge: Edge, provider: AwsSqsClient) -> None:
    provider.receive("jobs", 1, 0)

    assert "ReceiveRequestAttemptId" not in edge.of("ReceiveMessage")[0]


# Close


class LongPoll:
    """A receive on a thread of its own, whose answer comes when the test says so."""

    def __init__(self, edge: Edge, provider: AwsSqsClient, *messages: Mapping[str, Any]) -> None:
        self._begun = threading.Event()
        self._answer = threading.Event()
        self._messages = list(messages)
        self._provider = provider
        self.error: BaseException | None = None
        self.fails_with: Exception | None = None
        edge.does("ReceiveMessage", self._act)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._begun.wait(10)

    def ends(self) -> None:
        self._answer.set()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _act(self, _: Body) -> Body:
        self._begun.set()
        assert self._answer.wait(10)
        if self.fails_with is not None:
            raise self.fails_with
        return {"Messages": self._messages}

    def _run(self) -> None:
        try:
            self._provider.receive("events.fifo", 10, 20)
        except errors.QueueError as exc:
            self.error = exc


def test_what_a_long_poll_brings_after_close_is_released(edge: Edge, provider: AwsSqsClient) -> None:
    poll = LongPoll(edge, provider, of_group("a", 1), of_group("b", 2))

    provider.close()
    provider.close()
    poll.ends()

    assert type(poll.error) is errors.Closed
    [release] = edge.of("ChangeMessageVisibilityBatch")
    assert [(e["ReceiptHandle"], e["VisibilityTimeout"]) for e in release["Entries"]] == [
        ("r-a-1", 0),
        ("r-b-2", 0),
    ]


def test_a_long_poll_that_fails_after_close_says_closed(edge: Edge, provider: AwsSqsClient) -> None:
    poll = LongPoll(edge, provider)
    poll.fails_with = TIMEOUT

    provider.close()
    poll.ends()

    assert type(poll.error) is errors.Closed


def test_a_release_that_fails_after_close_is_left_to_the_broker(edge: Edge, provider: AwsSqsClient) -> None:
    poll = LongPoll(edge, provider, of_group("a", 1))
    edge.refuses("ChangeMessageVisibilityBatch", "RequestThrottled")

    provider.close()
    poll.ends()

    assert type(poll.error) is errors.Closed


def test_the_connections_outlive_the_last_call_under_way(
    edge: Edge, provider: AwsSqsClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[object] = []
    monkeypatch.setattr("botocore.httpsession.URLLib3Session.close", lambda it: closed.append(it))
    poll = LongPoll(edge, provider, of_group("a", 1))

    provider.close()
    still_open = not closed
    poll.ends()

    assert still_open
    assert len(closed) == 2  # one for requests, one for the long poll


def test_after_close_every_call_says_closed(edge: Edge, provider: AwsSqsClient) -> None:
    brings(edge, of_group("a", 1))
    taken = provider.receive("events.fifo", 1, 0)
    provider.close()
    before = len(edge.asked)

    for call in (
        lambda: provider.describe("jobs"),
        lambda: provider.capabilities("jobs"),
        lambda: provider.send("jobs", [Message(body=b"x")]),
        lambda: provider.receive("jobs", 1, 0),
        lambda: provider.settle("events.fifo", []),
        lambda: provider.renew("events.fifo", taken),
    ):
        with pytest.raises(errors.Closed):
            call()

    assert len(edge.asked) == before


def test_settling_does_not_wait_for_a_blocked_receive(edge: Edge, provider: AwsSqsClient) -> None:
    edge.does("SendMessageBatch", all_well)
    poll = LongPoll(edge, provider)

    [outcome] = provider.send("events.fifo", [Message(body=b"x", session_id="a")])

    assert outcome.ok
    poll.ends()
    assert poll.error is None
