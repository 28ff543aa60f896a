"""Settling, renewing and dead-lettering on SQS: in the order asked, an outcome for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from botocore import exceptions as boto

from queue_runtime import errors
from queue_runtime.message import DeadLetterInfo, Delivery, Message
from queue_runtime.provider import Abandon, Complete, DeadLetter, Settlement
from queue_runtime.providers.sqs.client import AwsSqsClient
from queue_runtime.providers.sqs.wire import short
from queue_runtime.testing import FakeClock
from tests.providers.sqs_edge import Body, Edge, all_well, failing, provider_at, stored

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

TIMEOUT = boto.ReadTimeoutError(endpoint_url="https://sqs", error="slow")
STALE = ("ReceiptHandleIsInvalid", "The input receipt handle is invalid.")
EXPIRED = ("InvalidParameterValue", "Reason: The receipt handle has expired.")
INFO = DeadLetterInfo(reason="Timeout", session_id="a", message_id="m0", sequence=7)
HOURS = 3600.0


@pytest.fixture
def edge() -> Edge:
    edge = Edge()
    for name in ("jobs", "events"):
        edge.queue(name, dead_letters=f"{name}-dlq")
        edge.queue(f"{name}-dlq")
        edge.queue(f"{name}.fifo", dead_letters=f"{name}-dlq.fifo")
        edge.queue(f"{name}-dlq.fifo")
    edge.queue("bare")
    return edge


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def provider(edge: Edge, clock: FakeClock) -> AwsSqsClient:
    return provider_at(edge, clock)


def received(
    edge: Edge, provider: AwsSqsClient, count: int, queue: str = "jobs", **message: Any
) -> Sequence[Delivery]:
    """*count* messages in hand, with receipts ``r0``, ``r1`` …"""
    taken: list[Delivery] = []
    body = message.pop("body", b"x")
    for n in range(count):
        one = Message(body=body, id=f"m{n}", **message)
        attributes = stored(
            one, broker_id=f"b{n}", receipt=f"r{n}", group=short(one.session_id or one.id), SequenceNumber=n
        )
        edge.answers("ReceiveMessage", {"Messages": [attributes]})
        taken += provider.receive(queue, 1, 0)
    return taken


def kinds(outcomes: Sequence[errors.Outcome[Any]]) -> list[type[Any]]:
    return [type(outcome.error) for outcome in outcomes]


def ours(entry: Body) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(entry["MessageAttributes"]["queue_runtime"]["StringValue"])
    return value


# Complete and abandon


def test_completing_deletes_ten_at_a_time_and_answers_in_order(edge: Edge, provider: AwsSqsClient) -> None:
    taken = received(edge, provider, 23)
    edge.does("DeleteMessageBatch", all_well)
    edge.does("DeleteMessageBatch", failing({4: STALE, 9: EXPIRED}))

    outcomes = provider.settle("jobs", [Complete(delivery) for delivery in taken])

    assert [len(body["Entries"]) for body in edge.of("DeleteMessageBatch")] == [10, 10, 3]
    assert {n: type(o.error) for n, o in enumerate(outcomes) if not o.ok} == {
        14: errors.InvalidReceipt,
        19: errors.LeaseLost,
    }
    assert len(outcomes) == 23


def test_an_entry_that_the_answer_leaves_out_is_unknown(edge: Edge, provider: AwsSqsClient) -> None:
    taken = received(edge, provider, 3)
    edge.answers("DeleteMessageBatch", {"Successful": [{"Id": "2"}], "Failed": [{"Id": "0", "Code": "X"}]})

    outcomes = provider.settle("jobs", [Complete(delivery) for delivery in taken])

    assert kinds(outcomes) == [errors.ProviderError, errors.OutcomeUnknown, type(None)]


def test_settlements_keep_their_order_inside_one_call(edge: Edge, provider: AwsSqsClient) -> None:
    taken = received(edge, provider, 5)
    done = len(edge.asked)

    outcomes = provider.settle(
        "jobs",
        [
            Complete(taken[0]),
            Abandon(taken[1], 5),
            Abandon(taken[2]),
            DeadLetter(taken[3], INFO),
            Complete(taken[4]),
        ],
    )

    assert all(outcome.ok for outcome in outcomes)
    requests = [asked for asked in edge.asked[done:] if "Entries" in asked.body]
    assert [asked.operation for asked in requests] == [
        "DeleteMessageBatch",
        "ChangeMessageVisibilityBatch",
        "SendMessageBatch",
        "DeleteMessageBatch",
        "DeleteMessageBatch",
    ]
    assert [(e["ReceiptHandle"], e["VisibilityTimeout"]) for e in requests[1].body["Entries"]] == [
        ("r1", 5),
        ("r2", 0),
    ]


def test_nothing_to_settle_asks_nothing(edge: Edge, provider: AwsSqsClient) -> None:
    assert provider.settle("jobs", []) == []
    assert provider.renew("jobs", []) == []
    assert [asked.operation for asked in edge.asked if "Entries" in asked.body] == []


@pytest.mark.parametrize(
    ("held_for", "delay", "visibility"),
    [(0, 0.1, 1), (0, 2.5, 3), (0, 99999, 43200), (11.5 * HOURS, 7200, 1800), (13 * HOURS, 60, 0)],
)
def test_a_delay_is_rounded_up_and_ends_within_twelve_hours(
    edge: Edge, provider: AwsSqsClient, clock: FakeClock, held_for: float, delay: float, visibility: int
) -> None:
    taken = received(edge, provider, 1)
    clock.advance(held_for)

    provider.settle("jobs", [Abandon(taken[0], delay)])

    [body] = edge.of("ChangeMessageVisibilityBatch")
    assert body["Entries"][0]["VisibilityTimeout"] == visibility


def test_the_same_message_twice_is_deleted_once_and_answered_twice(
    edge: Edge, provider: AwsSqsClient
) -> None:
    first, second = received(edge, provider, 2)
    edge.does("DeleteMessageBatch", failing({0: STALE}))

    outcomes = provider.settle("jobs", [Complete(first), Complete(second), Complete(first)])

    assert kinds(outcomes) == [errors.InvalidReceipt, type(None), errors.InvalidReceipt]
    assert [len(body["Entries"]) for body in edge.of("DeleteMessageBatch")] == [2]


# When a request fails as a whole


def test_an_error_that_stands_for_all_is_raised(edge: Edge, provider: AwsSqsClient) -> None:
    taken = received(edge, provider, 3)
    edge.fails("DeleteMessageBatch", TIMEOUT)

    with pytest.raises(errors.OutcomeUnknown):
        provider.settle("jobs", [Complete(delivery) for delivery in taken])


def test_what_stood_behind_an_unanswered_request_was_not_sent(edge: Edge, provider: AwsSqsClient) -> None:
    taken = received(edge, provider, 30)
    edge.does("DeleteMessageBatch", all_well)
    edge.fails("DeleteMessageBatch", TIMEOUT)

    outcomes = provider.settle("jobs", [Complete(delivery) for delivery in taken])

    assert (
        kinds(outcomes) == [type(None)] * 10 + [errors.OutcomeUnknown] * 10 + [errors.ConnectionFailed] * 10
    )
    assert len(edge.of("DeleteMessageBatch")) == 2


def test_a_throttle_holds_back_the_rest(edge: Edge, provider: AwsSqsClient) -> None:
    taken = received(edge, provider, 20)
    edge.refuses("DeleteMessageBatch", "ThrottlingException")

    outcomes = provider.settle("jobs", [Complete(delivery) for delivery in taken])

    assert kinds(outcomes) == [errors.Throttled] * 20
    assert len(edge.of("DeleteMessageBatch")) == 1


@pytest.mark.parametrize(
    ("lease", "timeout"), [(None, 5), (43200, 5), (18, 3), (12, 2), (11, 1), (3, 0.5), (1, 0.5)]
)
def test_a_request_about_a_lease_waits_at_most_a_sixth_of_it(
    edge: Edge,
    provider: AwsSqsClient,
    monkeypatch: pytest.MonkeyPatch,
    lease: float | None,
    timeout: float,
) -> None:
    edge.answers("ReceiveMessage", {"Messages": [stored(Message(body=b"x"))]})
    [delivery] = provider.receive("jobs", 1, 0, lease=lease)
    used: list[float] = []
    make = provider._sdk._client

    def noted(timeout: float) -> SQSClient:
        used.append(timeout)
        return make(timeout)

    monkeypatch.setattr(provider._sdk, "_client", noted)

    provider.renew("jobs", [delivery])
    provider.settle("jobs", [Complete(delivery)])

    assert used == [timeout, timeout]


# Renew


def test_a_renewal_dates_from_before_the_call(edge: Edge, provider: AwsSqsClient, clock: FakeClock) -> None:
    taken = received(edge, provider, 2)
    asked_at = clock.monotonic()

    def slow(body: Body) -> Body:
        clock.advance(3)
        return failing({1: EXPIRED})(body)

    edge.does("ChangeMessageVisibilityBatch", slow)

    renewed, lost = provider.renew("jobs", taken, lease=44.5)

    assert renewed.value == asked_at + 45
    assert type(lost.error) is errors.LeaseLost
    assert lost.value is None


def test_without_a_length_each_is_held_for_its_own(
    edge: Edge, provider: AwsSqsClient, clock: FakeClock
) -> None:
    edge.answers("ReceiveMessage", {"Messages": [stored(Message(body=b"x"))]})
    [short] = provider.receive("jobs", 1, 0, lease=7)
    [usual] = received(edge, provider, 1)

    outcomes = provider.renew("jobs", [short, usual])

    assert [outcome.value for outcome in outcomes] == [clock.monotonic() + 7, clock.monotonic() + 30]


def test_nothing_is_held_for_more_than_twelve_hours(
    edge: Edge, provider: AwsSqsClient, clock: FakeClock
) -> None:
    old = received(edge, provider, 1)
    first = clock.monotonic()
    clock.advance(12 * HOURS - 10.5)
    young = received(edge, provider, 1)

    last, fresh = provider.renew("jobs", [*old, *young])
    clock.advance(10)
    over, still = provider.renew("jobs", [*old, *young])

    assert last.value == first + 12 * HOURS - 0.5
    assert fresh.ok
    assert still.ok
    assert type(over.error) is errors.LeaseLost
    assert "twelve hours" in str(over.error)
    assert [len(body["Entries"]) for body in edge.of("ChangeMessageVisibilityBatch")] == [2, 1]


# Dead letters


@pytest.mark.parametrize("suffix", ["", ".fifo"])
def test_a_dead_letter_is_a_confirmed_copy_and_then_a_deletion(
    edge: Edge, provider: AwsSqsClient, suffix: str
) -> None:
    attributes = {"kind": "push"}
    taken = received(edge, provider, 1, f"jobs{suffix}", session_id="a", attributes=attributes)
    done = len(edge.asked)

    [outcome] = provider.settle(f"jobs{suffix}", [DeadLetter(taken[0], INFO)])

    assert outcome.ok
    changes = [asked for asked in edge.asked[done:] if "Entries" in asked.body]
    assert [asked.operation for asked in changes] == ["SendMessageBatch", "DeleteMessageBatch"]
    assert changes[0].body["QueueUrl"].endswith(f"/jobs-dlq{suffix}")
    [copy] = changes[0].body["Entries"]
    assert copy["MessageBody"] == "x"
    assert copy["MessageAttributes"]["kind"] == {"DataType": "String", "StringValue": "push"}
    assert ours(copy) == {
        "id": "m0",
        "sid": "a",
        "dl": {"reason": "Timeout", "session_id": "a", "message_id": "m0", "sequence": 7},
    }
    ids = (copy.get("MessageGroupId"), copy.get("MessageDeduplicationId"))
    assert ids == (("dl-b0", "dl-b0") if suffix else (None, None))


@pytest.mark.parametrize("session_id", ["a", "répo", None])
def test_a_copy_read_again_is_the_message_with_its_reason(
    edge: Edge, provider: AwsSqsClient, session_id: str | None
) -> None:
    taken = received(edge, provider, 1, "jobs.fifo", session_id=session_id, body=b"\x00")
    provider.settle("jobs.fifo", [DeadLetter(taken[0], INFO)])
    [copy] = edge.of("SendMessageBatch")[0]["Entries"]
    edge.answers(
        "ReceiveMessage",
        {
            "Messages": [
                {
                    "MessageId": "b-copy",
                    "ReceiptHandle": "r-copy",
                    "Body": copy["MessageBody"],
                    "MessageAttributes": copy["MessageAttributes"],
                    "Attributes": {
                        "MessageGroupId": copy["MessageGroupId"],
                        "MessageDeduplicationId": copy["MessageDeduplicationId"],
                    },
                }
            ]
        },
    )

    [dead] = provider.receive("jobs-dlq.fifo", 10, 0)

    assert dead.dead_letter == INFO
    assert replace(dead.message, deduplication_id=None) == taken[0].message


def test_a_refused_copy_leaves_the_message_and_its_neighbours_go(edge: Edge, provider: AwsSqsClient) -> None:
    taken = received(edge, provider, 3)
    edge.does("SendMessageBatch", failing({1: ("InvalidMessageContents", "no")}))

    outcomes = provider.settle("jobs", [DeadLetter(delivery, INFO) for delivery in taken])

    assert kinds(outcomes) == [type(None), errors.InvalidMessage, type(None)]
    [deleted] = edge.of("DeleteMessageBatch")
    assert [entry["ReceiptHandle"] for entry in deleted["Entries"]] == ["r0", "r2"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("AccessDenied", errors.AuthorizationFailed),
        ("RequestThrottled", errors.Throttled),
        ("AWS.SimpleQueueService.NonExistentQueue", errors.QueueNotFound),
    ],
)
def test_a_refusing_dead_letter_queue_leaves_everything_and_hides_no_other_answer(
    edge: Edge, provider: AwsSqsClient, code: str, kind: type[errors.QueueError]
) -> None:
    taken = received(edge, provider, 2)
    edge.refuses("SendMessageBatch", code)

    outcomes = provider.settle("jobs", [DeadLetter(taken[0], INFO), Complete(taken[1])])

    assert kinds(outcomes) == [kind, type(None)]
    assert "jobs-dlq" in str(outcomes[0].error)
    [deleted] = edge.of("DeleteMessageBatch")
    assert [entry["ReceiptHandle"] for entry in deleted["Entries"]] == ["r1"]


def test_an_unanswered_copy_is_unknown_and_nothing_is_deleted(edge: Edge, provider: AwsSqsClient) -> None:
    taken = received(edge, provider, 2)
    edge.fails("SendMessageBatch", TIMEOUT)

    outcomes = provider.settle("jobs", [DeadLetter(delivery, INFO) for delivery in taken])

    assert kinds(outcomes) == [errors.OutcomeUnknown] * 2
    assert edge.of("DeleteMessageBatch") == []


def test_a_copy_whose_original_stays_says_so_and_is_not_made_twice(
    edge: Edge, provider: AwsSqsClient
) -> None:
    taken = received(edge, provider, 2)
    settlements = [DeadLetter(delivery, INFO) for delivery in taken]
    edge.does("DeleteMessageBatch", failing({1: ("InternalError", "oops")}))

    first = provider.settle("jobs", settlements)
    second = provider.settle("jobs", settlements[1:])

    assert kinds(first) == [type(None), errors.OutcomeUnknown]
    assert kinds(second) == [type(None)]
    assert [len(body["Entries"]) for body in edge.of("SendMessageBatch")] == [2]
    assert [len(body["Entries"]) for body in edge.of("DeleteMessageBatch")] == [2, 1]


def test_a_deletion_that_fails_as_a_whole_remembers_its_copies(edge: Edge, provider: AwsSqsClient) -> None:
    taken = received(edge, provider, 2)
    settlements = [DeadLetter(delivery, INFO) for delivery in taken]
    edge.fails("DeleteMessageBatch", TIMEOUT)

    with pytest.raises(errors.OutcomeUnknown):
        provider.settle("jobs", settlements)
    again = provider.settle("jobs", settlements)

    assert all(outcome.ok for outcome in again)
    assert len(edge.of("SendMessageBatch")) == 1


def test_a_later_delivery_of_a_copied_message_is_copied_again(edge: Edge, provider: AwsSqsClient) -> None:
    [first] = received(edge, provider, 1)
    edge.does("DeleteMessageBatch", failing({0: STALE}))
    provider.settle("jobs", [DeadLetter(first, INFO)])

    provider.settle("jobs", [DeadLetter(replace(first, receipt="r-later"), INFO)])

    assert len(edge.of("SendMessageBatch")) == 2


def test_the_same_delivery_twice_in_one_call_is_copied_once(edge: Edge, provider: AwsSqsClient) -> None:
    [delivery] = received(edge, provider, 1)

    outcomes = provider.settle("jobs", [DeadLetter(delivery, INFO), DeadLetter(delivery, INFO)])

    assert [outcome.ok for outcome in outcomes] == [True, True]
    assert [len(body["Entries"]) for body in edge.of("SendMessageBatch")] == [1]


def test_without_a_dead_letter_queue_the_message_stays_and_the_policy_is_named(
    edge: Edge, provider: AwsSqsClient
) -> None:
    taken = received(edge, provider, 2, "bare")

    outcomes = provider.settle("bare", [DeadLetter(taken[0], INFO), Complete(taken[1])])

    assert kinds(outcomes) == [errors.UnsupportedOperation, type(None)]
    assert "RedrivePolicy" in str(outcomes[0].error)
    assert edge.of("SendMessageBatch") == []


def test_a_redrive_policy_given_later_is_found_without_a_restart(edge: Edge, provider: AwsSqsClient) -> None:
    [delivery] = received(edge, provider, 1, "bare")
    edge.queue("bare", dead_letters="jobs-dlq")

    [outcome] = provider.settle("bare", [DeadLetter(delivery, INFO)])

    assert outcome.ok


def test_a_dead_letter_queue_that_was_replaced_is_found(edge: Edge, provider: AwsSqsClient) -> None:
    taken = received(edge, provider, 2)
    provider.settle("jobs", [DeadLetter(taken[0], INFO)])
    edge.queue("jobs", dead_letters="events-dlq")
    edge.refuses("SendMessageBatch", "AWS.SimpleQueueService.NonExistentQueue")

    lost = provider.settle("jobs", [DeadLetter(taken[1], INFO)])
    found = provider.settle("jobs", [DeadLetter(taken[1], INFO)])

    assert kinds([*lost, *found]) == [errors.QueueNotFound, type(None)]
    assert edge.of("SendMessageBatch")[-1]["QueueUrl"].endswith("/events-dlq")


def test_a_dead_letter_queue_that_is_gone_leaves_the_message_and_another_is_found(
    edge: Edge, provider: AwsSqsClient
) -> None:
    edge.queue("jobs", dead_letters="gone")
    [delivery] = received(edge, provider, 1)
    [lost] = provider.settle("jobs", [DeadLetter(delivery, INFO)])
    edge.queue("jobs", dead_letters="events-dlq")

    [found] = provider.settle("jobs", [DeadLetter(delivery, INFO)])

    assert kinds([lost, found]) == [errors.QueueNotFound, type(None)]
    assert "gone" in str(lost.error)


def test_large_copies_travel_in_as_many_requests_as_they_need(edge: Edge, provider: AwsSqsClient) -> None:
    taken = received(edge, provider, 5, body=b"x" * 400_000)

    outcomes = provider.settle("jobs", [DeadLetter(delivery, INFO) for delivery in taken])

    assert all(outcome.ok for outcome in outcomes)
    assert [len(body["Entries"]) for body in edge.of("SendMessageBatch")] == [2, 2, 1]
    assert [[e["Id"] for e in body["Entries"]] for body in edge.of("SendMessageBatch")][1] == ["0", "1"]
    assert [len(body["Entries"]) for body in edge.of("DeleteMessageBatch")] == [5]


# What the copy carries


def copied(edge: Edge, provider: AwsSqsClient, delivery: Delivery, info: DeadLetterInfo) -> Body:
    settlements: list[Settlement] = [DeadLetter(delivery, info)]
    [outcome] = provider.settle("jobs", settlements)
    assert outcome.ok, outcome.error
    entry: Body = edge.of("SendMessageBatch")[-1]["Entries"][0]
    return entry


def test_the_largest_message_that_can_be_sent_is_dead_lettered_with_its_reason(
    edge: Edge, provider: AwsSqsClient
) -> None:
    limit = provider.capabilities("jobs").max_message_size
    room = limit - provider.size("jobs", Message(body=b"", id="m0"))
    [delivery] = received(edge, provider, 1, body=b"x" * room)
    info = replace(INFO, description="d" * 500, traceback="t" * 50_000 + "ValueError: the end")

    dead = ours(copied(edge, provider, delivery, info))["dl"]

    assert dead["reason"] == "Timeout"
    assert dead["description"] == "d" * 500
    assert dead["traceback"].endswith("ValueError: the end")
    assert len(dead["traceback"]) > 1000


def test_info_is_trimmed_down_to_the_reason(edge: Edge, provider: AwsSqsClient) -> None:
    edge.queue("jobs-dlq", MaximumMessageSize=1024)
    [delivery] = received(edge, provider, 1, body=b"x" * 880)
    info = replace(
        INFO,
        reason="r" * 300,
        description="d" * 500,
        traceback="t" * 5000,
        exception="E" * 100,
        host="h" * 64,
    )

    dead = ours(copied(edge, provider, delivery, info))["dl"]

    assert set(dead) == {"reason", "sequence"}
    assert dead["reason"].startswith("rrr")


def test_where_nothing_of_ours_fits_the_message_still_goes(edge: Edge, provider: AwsSqsClient) -> None:
    edge.queue("jobs-dlq", MaximumMessageSize=1024)
    theirs = stored(Message(body=b"x" * 1024), attributes={})
    edge.answers("ReceiveMessage", {"Messages": [theirs]})
    [delivery] = provider.receive("jobs", 1, 0)

    entry = copied(edge, provider, delivery, INFO)

    assert entry["MessageBody"] == "x" * 1024
    assert entry["MessageAttributes"] == {}


def test_a_message_larger_than_its_dead_letter_queue_takes_stays(edge: Edge, provider: AwsSqsClient) -> None:
    edge.queue("jobs-dlq", MaximumMessageSize=1024)
    taken = received(edge, provider, 2, body=b"x" * 2000)

    outcomes = provider.settle("jobs", [DeadLetter(delivery, INFO) for delivery in taken])

    assert kinds(outcomes) == [errors.MessageTooLarge] * 2
    error = outcomes[0].error
    assert isinstance(error, errors.MessageTooLarge)
    assert error.limit == 1024
    assert error.actual > 2000
    assert "jobs-dlq" in str(error)
    assert edge.of("DeleteMessageBatch") == []


def test_attributes_of_other_tools_keep_their_types(edge: Edge, provider: AwsSqsClient) -> None:
    attributes: dict[str, Any] = {
        "size": {"DataType": "Number", "StringValue": "42"},
        "blob": {"DataType": "Binary", "BinaryValue": "AAE="},
    }
    edge.answers("ReceiveMessage", {"Messages": [stored(Message(body=b"x"), attributes=attributes)]})
    [delivery] = provider.receive("jobs", 1, 0)

    entry = copied(edge, provider, delivery, INFO)

    assert {n: v for n, v in entry["MessageAttributes"].items() if n != "queue_runtime"} == attributes


def test_ten_attributes_of_another_tool_are_packed_beside_the_reason(
    edge: Edge, provider: AwsSqsClient
) -> None:
    attributes: dict[str, Any] = {f"a{n}": {"DataType": "String", "StringValue": str(n)} for n in range(10)}
    edge.answers("ReceiveMessage", {"Messages": [stored(Message(body=b"x"), attributes=attributes)]})
    [delivery] = provider.receive("jobs", 1, 0)

    entry = copied(edge, provider, delivery, INFO)

    assert set(entry["MessageAttributes"]) == {"queue_runtime"}
    assert ours(entry)["attrs"] == {f"a{n}": str(n) for n in range(10)}
    assert ours(entry)["dl"]["reason"] == "Timeout"
