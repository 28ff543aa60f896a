"""A handler that gives its message back by itself: the message comes again, and is neither done nor dead."""

from __future__ import annotations

import threading

import pytest

from queue_runtime import HandlerPolicy, Message, QueueClient, ReceivedMessage, SessionClient, Worker
from queue_runtime.events import Event, MessageCompleted, MessageDeadLettered
from queue_runtime.testing import FakeClock
from queue_runtime.worker.context import Context
from queue_runtime.worker.verdict import Verdict
from tests.worker.hands import ANY_QUEUE, SOON, of, send, wait_until
from tests.worker.resting import let_pass

POLL = 3.0


def give_back(client: QueueClient, message: ReceivedMessage) -> None:
    owner = message.owner
    if isinstance(owner, SessionClient):
        owner.abandon(message)
    else:
        client.abandon(message)


@ANY_QUEUE
def test_is_not_told_as_completed_and_is_handled_again(
    client: QueueClient, queue: str, clock: FakeClock, events: list[Event]
) -> None:
    calls: list[tuple[str, int]] = []

    def handler(message: ReceivedMessage) -> None:
        calls.append((message.text, message.attempt))
        if len(calls) == 1:
            give_back(client, message)

    send(client, queue, "a1", "a2")
    with Worker(client, queue, handler, poll=POLL) as worker:
        let_pass(client, clock, until=lambda: worker.status().completed == 2)
        assert worker.status().retried == 1

    if queue == "plain":
        assert sorted(calls) == [("a1", 1), ("a1", 2), ("a2", 1)]
    else:
        assert calls == [("a1", 1), ("a1", 2), ("a2", 1)]
    assert len(of(events, MessageCompleted)) == 2


@ANY_QUEUE
def test_and_fails_then_is_dead_lettered_after_its_attempts_and_told_once(
    client: QueueClient, queue: str, clock: FakeClock, events: list[Event]
) -> None:
    calls: list[int] = []

    def handler(message: ReceivedMessage) -> None:
        calls.append(message.attempt)
        give_back(client, message)
        raise RuntimeError("and fails")

    policy = HandlerPolicy(max_attempts=2, base=0.5, cap=0.5, breaker=None)
    send(client, queue, "a1")
    with Worker(client, queue, handler, policy=policy, poll=POLL) as worker:
        let_pass(client, clock, until=lambda: worker.status().dead_lettered == 1)

    assert calls == [1, 2]
    [letter] = client.dead_letters(queue).list()
    assert (letter.dead_letter.reason, letter.dead_letter.attempts) == ("MaxAttemptsExceeded", 2)
    assert len(of(events, MessageDeadLettered)) == 1


def test_is_not_taken_for_done_when_it_comes_again_before_the_first_run_has_ended(
    client: QueueClient, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = threading.Event(), threading.Event()
    ended = Context.settlement

    def late(self: Context, message: ReceivedMessage, decision: Verdict) -> object:
        found = ended(self, message, decision)
        if not reached.is_set():
            reached.set()
            assert go_on.wait(SOON)
        return found

    monkeypatch.setattr(Context, "settlement", late)
    calls: list[str] = []

    def handler(message: ReceivedMessage) -> None:
        calls.append(message.text)
        if len(calls) == 1:
            client.abandon(message)

    client.send("plain", Message.of("m1"))
    with Worker(client, "plain", handler, poll=POLL) as worker:
        assert reached.wait(SOON)
        wait_until(lambda: worker.status().completed == 1)
        go_on.set()
        wait_until(lambda: worker.status().held == 0)

    assert calls == ["m1", "m1"]
