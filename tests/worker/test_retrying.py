"""Failures of handlers: retries in place and outside sessions, dead letters with their record."""

from __future__ import annotations

from enum import Enum

import pytest

from queue_runtime import (
    HandlerPolicy,
    Message,
    QueueClient,
    ReceivedMessage,
    Reject,
    Retry,
    SessionClient,
    Worker,
)
from queue_runtime.events import (
    Event,
    HandlerFailed,
    MessageCompleted,
    MessageDeadLettered,
)
from queue_runtime.testing import FakeClock
from tests.worker.hands import ANY_QUEUE, SESSIONS, Desk, Job, of, send, wait_until
from tests.worker.resting import busy_threads


class TestRetrying:
    def test_outside_sessions_a_failed_message_comes_again_after_its_backoff(
        self, client: QueueClient, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        desk.fail["a1"] = [ValueError("once")]
        send(client, "plain", "a1")

        with Worker(client, "plain", desk, policy=HandlerPolicy(base=1.0)):
            wait_until(lambda: client.describe("plain").delayed == 1)
            assert desk.calls == [("a1", 1)]
            clock.advance(2.0)
            desk.wait_for_calls("a1", "a1")
            wait_until(lambda: bool(of(events, MessageCompleted)))

        assert desk.calls == [("a1", 1), ("a1", 2)]

    @SESSIONS
    def test_in_a_session_a_failed_head_is_retried_in_place_and_the_rest_waits(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        desk.fail["a1"] = [ValueError("once"), ValueError("twice")]
        send(client, queue, "a1", "a2")
        send(client, queue, "b1")
        # b waits for nothing more: a's wait is the only one.
        worker = Worker(client, queue, desk, policy=HandlerPolicy(base=1.0), session_idle=0.0)

        with worker:
            wait_until(lambda: len(of(events, HandlerFailed)) == 1 and len(of(events, MessageCompleted)) == 1)
            assert ("a2", 1) not in desk.calls
            assert worker.status().handlers == 0
            wait_until(lambda: busy_threads(client.runtime().executor) == 0)  # none is held by the wait
            assert (worker.status().held, desk.calls.count(("a1", 2))) == (1, 0)
            for attempt in (1, 2):
                wait_until(lambda seen=attempt: len(of(events, HandlerFailed)) == seen)  # type: ignore[misc]
                clock.block_until(2)
                clock.advance(2.2)
            desk.wait_for(lambda: ("a2", 1) in desk.calls)

        assert [call for call in desk.calls if call[0] != "b1"] == [
            ("a1", 1),
            ("a1", 2),
            ("a1", 3),
            ("a2", 1),
        ]

    @SESSIONS
    def test_a_retry_in_place_does_not_raise_the_delivery_count(
        self, client: QueueClient, queue: str
    ) -> None:
        counts: list[tuple[int, int]] = []

        def handler(message: ReceivedMessage) -> None:
            counts.append((message.attempt, message.delivery_count))
            if message.attempt == 1:
                raise Retry(0.0)

        send(client, queue, "a1")
        Worker(client, queue, handler).run_until_idle()

        assert counts == [(1, 1), (2, 1)]

    @ANY_QUEUE
    def test_reject_goes_to_the_dead_letters_with_its_record(
        self, client: QueueClient, queue: str, desk: Desk, events: list[Event]
    ) -> None:
        desk.fail["a1"] = [Reject("Spam", "from a bot")]
        send(client, queue, "a1", "a2")

        Worker(client, queue, desk).run_until_idle()

        (dead,) = client.dead_letters(queue).list()
        info = dead.dead_letter
        assert info is not None
        assert (info.reason, info.description, info.attempts) == ("Spam", "from a bot", 1)
        assert (info.queue, info.session_id, info.message_id) == (queue, "a", dead.id)
        assert ("a2", 1) in desk.calls, "its neighbours go on"
        assert len(of(events, MessageDeadLettered)) == 1

    @SESSIONS
    def test_after_the_last_attempt_the_session_goes_on_without_the_message(
        self, client: QueueClient, queue: str, desk: Desk
    ) -> None:
        desk.fail["a1"] = [Retry(0.0), Retry(0.0), ValueError("for good")]
        send(client, queue, "a1", "a2")

        Worker(client, queue, desk, policy=HandlerPolicy(max_attempts=3)).run_until_idle()

        (dead,) = client.dead_letters(queue).list()
        assert dead.dead_letter is not None
        assert (dead.dead_letter.reason, dead.dead_letter.attempts) == ("MaxAttemptsExceeded", 3)
        assert desk.calls == [("a1", 1), ("a1", 2), ("a1", 3), ("a2", 1)]

    @ANY_QUEUE
    def test_a_body_that_cannot_be_decoded_is_dead_lettered_at_once(
        self, client: QueueClient, queue: str
    ) -> None:
        called: list[Job] = []
        client.send(queue, Message.of({"number": "seven"}, session_id="a"))

        def handler(job: Job, message: ReceivedMessage) -> None:
            called.append(job)

        Worker(client, queue, handler, payload=Job).run_until_idle()

        (dead,) = client.dead_letters(queue).list()
        assert dead.dead_letter is not None
        assert dead.dead_letter.reason == "DecodeError"
        assert "payload.number" in str(dead.dead_letter.description)
        assert not called

    def test_what_kept_ending_its_processes_is_dead_lettered_without_running(
        self, client: QueueClient, desk: Desk
    ) -> None:
        send(client, "plain", "a1")
        for _ in range(4):
            client.abandon(client.receive("plain"))

        Worker(client, "plain", desk, policy=HandlerPolicy(max_attempts=1)).run_until_idle()

        (dead,) = client.dead_letters("plain").list()
        assert dead.dead_letter is not None
        assert dead.dead_letter.reason == "MaxDeliveriesExceeded"
        assert not desk.calls

    @pytest.mark.parametrize(("before", "handled"), [(6, 1), (7, 0)])
    def test_of_its_processes_it_may_end_as_many_as_max_deliveries_says(
        self, client: QueueClient, desk: Desk, before: int, handled: int
    ) -> None:
        send(client, "plain", "a1")
        for _ in range(before):
            client.abandon(client.receive("plain"))

        policy = HandlerPolicy(max_attempts=1, max_deliveries=7)
        Worker(client, "plain", desk, policy=policy).run_until_idle()

        assert len(desk.calls) == handled
        assert client.dead_letters("plain").count() == 1 - handled


@SESSIONS
def test_attempts_are_remembered_when_the_session_comes_again(
    client: QueueClient, queue: str, clock: FakeClock, desk: Desk
) -> None:
    desk.fail["a1"] = [Retry(60.0)]
    send(client, queue, "a1")
    worker = Worker(client, queue, desk)
    with worker:
        wait_until(lambda: worker.status().retried == 1)
        client.runtime().dispatcher("groups")
        for run in list(worker._work.in_hand.runs()):  # type: ignore[union-attr]
            run.overdue()  # as if the session's lease were lost
        clock.advance(60.0)
        desk.wait_for_calls("a1", "a1")

    assert desk.calls == [("a1", 1), ("a1", 2)]


def test_a_reason_that_is_no_text_becomes_text(client: QueueClient, desk: Desk) -> None:
    class Why(Enum):
        SPAM = "spam"

    desk.fail["a1"] = [Reject(Why.SPAM)]  # type: ignore[arg-type]
    send(client, "plain", "a1")

    Worker(client, "plain", desk).run_until_idle()

    (dead,) = client.dead_letters("plain").list()
    assert dead.dead_letter.reason == "Why.SPAM"


@ANY_QUEUE
def test_a_handler_that_completes_its_message_and_then_fails_is_not_called_again(
    client: QueueClient, queue: str
) -> None:
    calls: list[str] = []

    def handler(message: ReceivedMessage) -> None:
        calls.append(message.text)
        complete(message)
        raise ValueError("after that")

    def complete(message: ReceivedMessage) -> None:
        owner = message.owner if isinstance(message.owner, SessionClient) else client
        owner.complete(message)

    send(client, queue, "a1", "a2")

    report = Worker(client, queue, handler).run_until_idle()

    assert calls == ["a1", "a2"]
    assert report.completed == 2
