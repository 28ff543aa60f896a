"""Messages that are not due yet: what is scheduled comes, what is cancelled does not."""

from __future__ import annotations

import pickle
from datetime import timedelta
from typing import Any

import pytest

from queue_runtime import Message, QueueClient, ScheduledMessage
from queue_runtime.errors import (
    InvalidArgument,
    InvalidMessage,
    InvalidReceipt,
    MessageTooLarge,
    OutcomeUnknown,
    QueueError,
    Throttled,
    UnsupportedOperation,
)
from queue_runtime.testing import FakeClock
from tests.client.hands import URL
from tests.fakes import Script, fails, loses, scripted, stored

each_queue = pytest.mark.parametrize("queue", ["jobs", "events"])


def message(name: str = "m", *, delay: float = 60.0, **fields: Any) -> Message:
    return Message(body=name.encode(), id=name, session_id="s", delay=delay, **fields)


@each_queue
def test_a_scheduled_message_says_when_it_is_due_and_comes_then(
    client: QueueClient, clock: FakeClock, queue: str
) -> None:
    scheduled = client.schedule(queue, message())

    assert (scheduled.queue, scheduled.message_id) == (queue, "m")
    assert scheduled.due_at == clock.now() + timedelta(seconds=60)
    assert client.describe(queue).delayed == 1
    clock.advance(60.0)
    assert client.describe(queue).active == 1


@each_queue
def test_a_cancelled_one_is_gone_and_no_other(client: QueueClient, queue: str) -> None:
    first, second = client.schedule(queue, message("first")), client.schedule(queue, message("second"))

    client.cancel(first)

    assert stored(client, queue) == ["second"]
    client.cancel(second)
    assert stored(client, queue) == []


@each_queue
def test_what_is_due_or_gone_is_not_cancelled(client: QueueClient, clock: FakeClock, queue: str) -> None:
    gone, due = client.schedule(queue, message("gone")), client.schedule(queue, message("due"))
    client.cancel(gone)
    clock.advance(60.0)

    for each in (gone, due):
        with pytest.raises(InvalidReceipt) as caught:
            client.cancel(each)
        assert (caught.value.queue, caught.value.operation) == (queue, "cancel")
    assert stored(client, queue) == ["due"]


def test_an_abandoned_message_that_waits_for_its_delay_is_no_scheduled_one(
    client: QueueClient, clock: FakeClock
) -> None:
    scheduled = client.schedule("jobs", message())
    clock.advance(60.0)
    client.abandon(client.receive("jobs"), delay=60.0)

    with pytest.raises(InvalidReceipt):
        client.cancel(scheduled)


def test_it_is_plain_data_and_keeps_its_receipt_to_itself(client: QueueClient) -> None:
    scheduled = client.schedule("jobs", message())

    assert "receipt" not in repr(scheduled)
    client.cancel(pickle.loads(pickle.dumps(scheduled)))
    assert stored(client, "jobs") == []


@each_queue
def test_a_call_that_may_go_well_yet_is_made_again(client: QueueClient, script: Script, queue: str) -> None:
    script.then("schedule", fails(Throttled))
    script.then("cancel", fails(Throttled))

    client.cancel(client.schedule(queue, message()))

    assert stored(client, queue) == []


def test_a_lost_answer_on_a_queue_that_knows_repetitions_leaves_it_cancellable(
    client: QueueClient, script: Script
) -> None:
    script.then("schedule", loses())

    client.cancel(client.schedule("events", message()))

    assert stored(client, "events") == []


@pytest.mark.parametrize("later", [None, Throttled])
def test_a_lost_answer_on_any_other_queue_is_not_asked_for_again(
    client: QueueClient, script: Script, later: type[QueueError] | None
) -> None:
    """There would be two, and `cancel` would take back one of them."""
    if later is not None:
        script.then("schedule", fails(later))
    script.then("schedule", loses())

    with pytest.raises(OutcomeUnknown):
        client.schedule("jobs", message())

    assert stored(client, "jobs") == ["m"]


def test_a_cancel_whose_answer_was_lost_is_not_taken_for_too_late(
    client: QueueClient, script: Script
) -> None:
    scheduled = client.schedule("jobs", message())
    script.then("cancel", loses())

    with pytest.raises(OutcomeUnknown):
        client.cancel(scheduled)


def test_a_message_gets_its_session_as_when_it_is_sent(script: Script) -> None:
    with scripted(script, URL, strategy=lambda message: "chosen") as client:
        client.schedule("events", Message(body=b"", delay=1.0))
        runtime = client.runtime()
        assert [d.message.session_id for d in runtime.provider.peek("events", 1)] == ["chosen"]


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        (message(delay=0.0), InvalidArgument, "'m' has no delay, so there is nothing to cancel"),
        ({"n": 1}, InvalidArgument, "schedule takes a Message, not a dict"),
        (message(delay=1e9), InvalidMessage, "delay=1e"),
        (Message(body=b"x" * 300_000, delay=1.0), MessageTooLarge, "300000 bytes"),
    ],
)
def test_what_cannot_be_scheduled_is_refused_before_anything_is_sent(
    client: QueueClient, script: Script, wrong: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        client.schedule("jobs", wrong)

    assert script.calls("schedule") == []


def test_on_a_queue_that_takes_nothing_back_nothing_is_sent(client: QueueClient, script: Script) -> None:
    scheduled = client.schedule("jobs", message())

    with pytest.raises(UnsupportedOperation, match="'groups' cannot take back a message"):
        client.schedule("groups", message())
    with pytest.raises(UnsupportedOperation, match="'groups' cannot take back a message"):
        client.cancel(ScheduledMessage(queue="groups", message_id="m", due_at=scheduled.due_at, receipt="1"))
    assert len(script.calls("schedule")) == 1
    assert script.calls("cancel") == script.calls("send") == []


def test_only_what_was_scheduled_can_be_cancelled(client: QueueClient) -> None:
    with pytest.raises(InvalidArgument, match="cancel takes what schedule returned, not a str"):
        client.cancel("receipt")  # type: ignore[arg-type]


def test_a_receipt_of_another_broker_is_refused(client: QueueClient) -> None:
    scheduled = client.schedule("jobs", message())

    with pytest.raises(InvalidReceipt):
        client.cancel(
            ScheduledMessage(queue="jobs", message_id="m", due_at=scheduled.due_at, receipt="no-number")
        )
