"""Sending to SQS: what travels, and an outcome for each entry."""

from __future__ import annotations

import json
from unittest.mock import patch

import pytest

from queue_runtime import client as client_module
from queue_runtime import connect, errors
from queue_runtime.message import Message
from queue_runtime.providers.sqs.client import AwsSqsClient
from queue_runtime.testing import FakeClock
from tests.providers.sqs_edge import REGION, Edge, failing, provider_at


@pytest.fixture
def edge() -> Edge:
    edge = Edge()
    edge.queue("jobs")
    edge.queue("events.fifo")
    return edge


@pytest.fixture
def provider(edge: Edge) -> AwsSqsClient:
    return provider_at(edge, FakeClock())


def entries_of(edge: Edge) -> list[dict[str, object]]:
    [body] = edge.of("SendMessageBatch")
    return list(body["Entries"])


def test_a_message_travels_as_text_with_one_attribute_of_ours(edge: Edge, provider: AwsSqsClient) -> None:
    message = Message(
        body="grüße 🎈".encode(), id="m1", attributes={"kind": "push"}, content_type="text/plain"
    )

    [outcome] = provider.send("jobs", [message])

    [entry] = entries_of(edge)
    assert outcome.ok
    assert entry["MessageBody"] == "grüße 🎈"
    attributes = entry["MessageAttributes"]
    assert isinstance(attributes, dict)
    assert attributes["kind"] == {"DataType": "String", "StringValue": "push"}
    assert json.loads(attributes["queue_runtime"]["StringValue"]) == {"id": "m1", "ct": "text/plain"}
    assert set(entry) == {"Id", "MessageBody", "MessageAttributes"}


def test_outcomes_stand_in_the_order_of_the_messages(edge: Edge, provider: AwsSqsClient) -> None:
    def shuffled(body: dict[str, list[dict[str, str]]]) -> dict[str, object]:
        ids = [entry["Id"] for entry in body["Entries"]]
        return {
            "Successful": [{"Id": id} for id in (ids[3], ids[0])],
            "Failed": [{"Id": ids[2], "Code": "InvalidMessageContents", "SenderFault": True}],
        }

    edge.does("SendMessageBatch", shuffled)  # type: ignore[arg-type]

    outcomes = provider.send("jobs", [Message(body=b"%d" % n) for n in range(4)])

    assert [type(outcome.error) for outcome in outcomes] == [
        type(None),
        errors.OutcomeUnknown,
        errors.InvalidMessage,
        type(None),
    ]


@pytest.mark.parametrize("answer", [{}, {"Successful": None, "Failed": None}])
def test_an_empty_answer_leaves_every_entry_unknown(
    edge: Edge, provider: AwsSqsClient, answer: dict[str, object]
) -> None:
    edge.answers("SendMessageBatch", answer)

    outcomes = provider.send("jobs", [Message(body=b"x"), Message(body=b"y")])

    assert [type(outcome.error) for outcome in outcomes] == [errors.OutcomeUnknown] * 2


def test_what_cannot_be_sent_never_fails_its_neighbours(edge: Edge, provider: AwsSqsClient) -> None:
    edge.queue("small", MaximumMessageSize=64 * 1024)
    limit = 64 * 1024
    edge.does("SendMessageBatch", failing({1: ("InvalidMessageContents", "illegal")}))

    outcomes = provider.send(
        "small",
        [
            Message(body=b"x" * limit),
            Message(body=b"fine"),
            Message(body=b"late", delay=604801),
            Message(body=b"illegal"),
        ],
    )

    too_large, fine, late, illegal = (outcome.error for outcome in outcomes)
    assert isinstance(too_large, errors.MessageTooLarge)
    assert too_large.limit == limit
    assert too_large.actual == provider.size("small", Message(body=b"x" * limit)) > limit
    assert fine is None
    assert type(late) is errors.InvalidMessage
    assert "604801 s" in str(late)
    assert type(illegal) is errors.InvalidMessage
    assert [entry["MessageBody"] for entry in entries_of(edge)] == ["fine", "illegal"]


def test_a_failed_request_keeps_what_was_refused_before_it(edge: Edge, provider: AwsSqsClient) -> None:
    edge.refuses("SendMessageBatch", "ThrottlingException")

    outcomes = provider.send("events.fifo", [Message(body=b"x", delay=5), Message(body=b"y")])

    assert [type(outcome.error) for outcome in outcomes] == [errors.UnsupportedOperation, errors.Throttled]
    assert "FIFO" in str(outcomes[0].error)


def test_nothing_is_asked_when_nothing_can_be_sent(edge: Edge, provider: AwsSqsClient) -> None:
    [outcome] = provider.send("events.fifo", [Message(body=b"x", delay=5)])

    assert not outcome.ok
    assert edge.of("SendMessageBatch") == []


def test_users_leave_room_for_dead_letter_info_and_what_comes_back_from_there_need_not(
    edge: Edge, provider: AwsSqsClient
) -> None:
    limit = 1024 * 1024
    overhead = provider.size("jobs", Message(body=b"x", id="m" * 32)) - 1
    fits = Message(body=b"x" * (limit - overhead), id="m" * 32)
    over = Message(body=b"x" * (limit - overhead + 1), id="m" * 32)

    outcomes = provider.send("jobs", [fits]), provider.send("jobs", [over])

    assert [outcome.ok for [outcome] in outcomes] == [True, False]
    assert provider.capabilities("jobs").max_message_size == limit - 4096


def test_a_queue_of_the_smallest_kind_still_takes_messages(edge: Edge, provider: AwsSqsClient) -> None:
    edge.queue("tiny", MaximumMessageSize=1024)

    assert provider.capabilities("tiny").max_message_size == 768


def test_size_counts_bytes_of_names_types_and_values(provider: AwsSqsClient) -> None:
    plain = provider.size("jobs", Message(body="é".encode(), id="m"))
    more = provider.size("jobs", Message(body="é".encode(), id="m", attributes={"name": "ö"}))

    assert plain == 2 + len("queue_runtime") + len("String") + len('{"id":"m"}')
    assert more - plain == len("name") + len("String") + 2


def test_a_fifo_message_names_its_group_and_its_deduplication_id(edge: Edge, provider: AwsSqsClient) -> None:
    provider.send(
        "events.fifo",
        [
            Message(body=b"a", id="m1", session_id="repo-7"),
            Message(body=b"b", id="m2"),
            Message(body=b"c", id="m3", session_id="repo-8", deduplication_id="d3"),
        ],
    )

    assert [(e["MessageGroupId"], e["MessageDeduplicationId"]) for e in entries_of(edge)] == [
        ("repo-7", "m1"),
        ("m2", "m2"),
        ("repo-8", "d3"),
    ]


def test_ids_that_sqs_refuses_are_shortened_and_travel_beside(edge: Edge, provider: AwsSqsClient) -> None:
    long, strange = "s" * 129, "répo 7"

    provider.send(
        "events.fifo",
        [
            Message(body=b"a", id=long, session_id=strange),
            Message(body=b"b", id="m2", session_id="s" * 128),
        ],
    )

    first, second = entries_of(edge)
    attributes = first["MessageAttributes"]
    assert isinstance(attributes, dict)
    assert json.loads(attributes["queue_runtime"]["StringValue"]) == {"id": long, "sid": strange}
    for name in ("MessageGroupId", "MessageDeduplicationId"):
        assert str(first[name]).startswith("q-")
        assert len(str(first[name])) <= 128
    assert second["MessageGroupId"] == "s" * 128


def test_on_a_standard_queue_the_session_makes_it_fair(edge: Edge, provider: AwsSqsClient) -> None:
    provider.send("jobs", [Message(body=b"a", session_id="tenant-1"), Message(body=b"b")])

    first, second = entries_of(edge)
    assert first["MessageGroupId"] == "tenant-1"
    assert "MessageDeduplicationId" not in first
    assert "MessageGroupId" not in second


@pytest.mark.parametrize(("delay", "seconds"), [(0.2, 1), (1.0, 1), (1.1, 2), (900, 900)])
def test_a_delay_is_rounded_up(edge: Edge, provider: AwsSqsClient, delay: float, seconds: int) -> None:
    provider.send("jobs", [Message(body=b"a", delay=delay)])

    assert entries_of(edge)[0]["DelaySeconds"] == seconds


def test_more_attributes_than_sqs_takes_travel_together(edge: Edge, provider: AwsSqsClient) -> None:
    nine = {f"a{n}": str(n) for n in range(9)}
    ten = {f"a{n}": str(n) for n in range(10)}

    provider.send("jobs", [Message(body=b"a", attributes=nine), Message(body=b"b", attributes=ten)])

    plain, packed = (entry["MessageAttributes"] for entry in entries_of(edge))
    assert isinstance(plain, dict)
    assert isinstance(packed, dict)
    assert len(plain) == 10
    assert set(packed) == {"queue_runtime"}
    assert json.loads(packed["queue_runtime"]["StringValue"])["attrs"] == ten


def test_ten_messages_of_two_hundred_kibibytes_are_split_by_what_one_request_takes(edge: Edge) -> None:
    messages = [Message(body=b"x" * 200 * 1024, id=f"m{number}") for number in range(10)]

    with (
        patch.object(client_module, "find", lambda name: lambda settings, clock: provider_at(edge, clock)),
        connect(f"sqs://{REGION}", clock=FakeClock()) as client,
    ):
        client.send_batch("jobs", messages)

    requests = [body["Entries"] for body in edge.of("SendMessageBatch")]
    assert [len(entries) for entries in requests] == [5, 5]
    assert all(sum(len(entry["MessageBody"]) for entry in entries) <= 1024 * 1024 for entries in requests)
    told = [json.loads(e["MessageAttributes"]["queue_runtime"]["StringValue"]) for es in requests for e in es]
    assert sorted(each["id"] for each in told) == sorted(message.id for message in messages)
