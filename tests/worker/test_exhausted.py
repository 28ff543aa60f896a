"""`on_exhausted`: what becomes of a message that can never be handled, instead of being dead-lettered."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from queue_runtime import HandlerPolicy, Message, QueueClient, ReceivedMessage, Reject, Worker
from queue_runtime.errors import ConfigurationError
from queue_runtime.events import (
    Event,
    HandlerFailed,
    MessageBlocked,
    MessageCompleted,
    MessageDeadLettered,
    MessageDropped,
)
from queue_runtime.testing import FakeClock
from tests.fakes import Act, Script, scripted
from tests.worker.hands import ANY_QUEUE, SESSIONS, URL, Desk, Job, of, send, wait_until
from tests.worker.resting import let_pass

POLL = 3.0

DROP = HandlerPolicy(max_attempts=2, base=0.5, cap=0.5, on_exhausted="drop")
BLOCK = HandlerPolicy(max_attempts=1, base=1.0, cap=6.0, max_hold=15.0, on_exhausted="block", breaker=None)


def without_dead_letters(act: Act) -> Any:
    return replace(act.run(), dead_letter_queue=None)


@pytest.fixture
def client(clock: FakeClock, events: list[Event]) -> Iterator[QueueClient]:
    """Its queues have no dead-letter queue."""
    script = Script()
    script.always("describe", without_dead_letters)
    with scripted(script, URL, clock=clock, listeners=[events.append]) as made:
        yield made


def fail(desk: Desk, text: str, times: int) -> None:
    desk.fail[text] = [RuntimeError("never") for _ in range(times)]


@ANY_QUEUE
class TestWithoutADeadLetterQueue:
    def test_a_worker_refuses_to_start_and_says_what_to_do(
        self, client: QueueClient, queue: str, desk: Desk
    ) -> None:
        worker = Worker(client, queue, desk)

        with pytest.raises(ConfigurationError) as caught:
            worker.start()

        said = str(caught.value)
        assert queue in said
        assert "no dead-letter queue" in said
        assert 'HandlerPolicy(on_exhausted="drop") or "block"' in said
        assert worker.status().state == "new"
        client.runtime().executor.claim(client.runtime().executor.max_workers)  # it has taken no thread

    @pytest.mark.parametrize("policy", [DROP, BLOCK], ids=["drop", "block"])
    def test_it_starts_where_the_policy_needs_none(
        self, client: QueueClient, queue: str, desk: Desk, policy: HandlerPolicy
    ) -> None:
        send(client, queue, "a1")
        with Worker(client, queue, desk, policy=policy):
            desk.wait_for_calls("a1")


@ANY_QUEUE
class TestDrop:
    def test_a_message_that_failed_too_often_is_completed_and_told(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        fail(desk, "a1", 5)
        send(client, queue, "a1", "a2")
        worker = Worker(client, queue, desk, policy=DROP, poll=POLL)
        with worker:
            let_pass(client, clock, until=lambda: worker.status().completed + worker.status().dropped == 2)
            status = worker.status()
            report = worker.stop()

        assert [call for call in desk.calls if call[0] == "a1"] == [("a1", 1), ("a1", 2)]
        assert (status.dropped, status.completed, status.dead_lettered) == (1, 1, 0)
        assert (report.dropped, report.completed, report.dead_lettered) == (1, 1, 0)
        [dropped] = of(events, MessageDropped)
        assert isinstance(dropped, MessageDropped)
        assert (dropped.queue, dropped.reason, dropped.text) == (queue, "MaxAttemptsExceeded", "never")
        assert dropped.session_id == "a"
        assert len(of(events, MessageCompleted)) == 1, "that of a2"
        assert of(events, MessageDeadLettered) == []
        left = client.describe(queue)
        assert (left.active, left.leased, left.delayed) == (0, 0, 0)

    def test_what_is_rejected_or_cannot_be_decoded_is_dropped_at_once(
        self, client: QueueClient, queue: str, events: list[Event]
    ) -> None:
        def handler(job: Job, message: ReceivedMessage) -> None:
            raise Reject("Spam")

        client.send(queue, Message(body=b"no json", session_id="a"))
        client.send(queue, Message.of(Job(1), session_id="b"))
        with Worker(client, queue, handler, payload=Job, policy=DROP) as worker:
            wait_until(lambda: worker.status().dropped == 2)

        assert sorted(event.reason for event in of(events, MessageDropped)) == ["DecodeError", "Spam"]  # type: ignore[attr-defined]

    def test_a_drop_after_the_stop_was_asked_for_is_among_what_was_finished(
        self, client: QueueClient, queue: str, desk: Desk
    ) -> None:
        desk.fail["a1"] = [Reject("Spam")]
        desk.hold("a1")
        send(client, queue, "a1")
        worker = Worker(client, queue, desk, policy=DROP)
        worker.start()
        desk.wait_for_calls("a1")
        # The handler goes on as soon as the worker stops.
        let_go_at_stop(worker, desk)

        report = worker.stop()

        assert (report.finished, report.dropped, report.completed, report.unknown) == (1, 1, 0, 0)


class TestBlock:
    @ANY_QUEUE
    def test_a_message_stays_and_is_tried_again_every_cap_seconds(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        began: list[float] = []

        def handler(message: ReceivedMessage) -> None:
            began.append(clock.monotonic())
            desk(message)

        fail(desk, "a1", 6)
        send(client, queue, "a1")
        with Worker(client, queue, handler, policy=BLOCK, poll=POLL) as worker:
            let_pass(client, clock, until=lambda: worker.status().completed == 1)

        assert [text for text, _ in desk.calls] == ["a1"] * 7
        gaps = [after - before for before, after in itertools.pairwise(began)]
        assert min(gaps) >= BLOCK.cap
        blocked = of(events, MessageBlocked)
        assert {(event.reason, event.delay) for event in blocked} == {("MaxAttemptsExceeded", 6.0)}  # type: ignore[attr-defined]
        assert len(blocked) == len(of(events, HandlerFailed)) == 6
        assert of(events, MessageDropped) == of(events, MessageDeadLettered) == []

    @SESSIONS
    def test_in_a_session_nothing_passes_it(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk
    ) -> None:
        fail(desk, "a1", 6)
        send(client, queue, "a1", "a2", "b1")
        with Worker(client, queue, desk, policy=BLOCK, poll=POLL) as worker:
            let_pass(client, clock, until=lambda: worker.status().completed == 3)

        assert [text for text, _ in desk.calls if text[0] == "a"] == ["a1"] * 7 + ["a2"]
        assert [text for text, _ in desk.calls].index("b1") < 3, "another session does not wait for it"

    @ANY_QUEUE
    def test_what_is_rejected_waits_for_a_better_handler(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        desk.fail["a1"] = [Reject("UnknownKind")]
        send(client, queue, "a1")
        with Worker(client, queue, desk, policy=BLOCK, poll=POLL):
            wait_until(lambda: bool(of(events, MessageBlocked)))
        with Worker(client, queue, desk, policy=BLOCK, poll=POLL) as worker:
            let_pass(client, clock, until=lambda: worker.status().completed == 1)

        assert [text for text, _ in desk.calls] == ["a1", "a1"]

    def test_a_process_that_was_handed_it_out_often_tries_it_all_the_same(
        self, client: QueueClient, clock: FakeClock, desk: Desk
    ) -> None:
        send(client, "plain", "a1")
        for _ in range(2 * BLOCK.delivery_limit):
            client.abandon(client.receive("plain"))

        with Worker(client, "plain", desk, policy=BLOCK, poll=POLL) as worker:
            let_pass(client, clock, until=lambda: worker.status().completed == 1)

        assert [text for text, _ in desk.calls] == ["a1"]


def let_go_at_stop(worker: Worker, desk: Desk) -> None:
    def run() -> None:
        wait_until(lambda: worker.status().state == "stopping")
        desk.let_go("a1")

    threading.Thread(target=run, daemon=True).start()
