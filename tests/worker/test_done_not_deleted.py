"""Done but not deleted: what a handler is done with is not handled again because its broker did not agree."""

from __future__ import annotations

import pytest

from queue_runtime import HandlerPolicy, Message, Reject, Worker
from queue_runtime.errors import LeaseLost, OutcomeUnknown, QueueError, QueueNotFound
from queue_runtime.events import (
    Event,
    MessageCompleted,
    MessageDeadLettered,
    MessageDropped,
    SettlementFailed,
)
from queue_runtime.testing import FakeClock
from tests.fakes import Script, Step, fails, loses, scripted
from tests.worker.hands import ANY_QUEUE, SETTLE, URL, Desk, of, send, wait_until
from tests.worker.resting import let_pass

POLL = 3.0
"""Seconds: time goes on by as many whenever the poll is parked."""

RENEW = {"plain": "renew", "sessions": "session.renew", "groups": "renew"}

HOWEVER = pytest.mark.parametrize(
    "never_agrees",
    [
        pytest.param(fails(QueueNotFound), id="refused"),
        pytest.param(fails(LeaseLost), id="its lease was lost meanwhile"),
        pytest.param(fails(OutcomeUnknown), id="not answered"),
    ],
)


def until_given_up(script: Script, queue: str, step: Step) -> None:
    """No settlement goes well, and no lease gets longer."""
    script.always(SETTLE[queue], step)
    script.always(RENEW[queue], fails(OutcomeUnknown))


def all_well(script: Script, queue: str) -> None:
    script.always(SETTLE[queue])
    script.always(RENEW[queue])


@ANY_QUEUE
@HOWEVER
def test_a_message_whose_completion_failed_is_completed_when_it_comes_again(
    queue: str, never_agrees: Step, clock: FakeClock, desk: Desk, events: list[Event]
) -> None:
    script = Script()
    until_given_up(script, queue, never_agrees)
    with scripted(script, URL, clock=clock, listeners=[events.append]) as client:
        send(client, queue, "a1")
        with Worker(client, queue, desk, poll=POLL) as worker:
            let_pass(client, clock, until=lambda: bool(of(events, SettlementFailed)))
            all_well(script, queue)
            let_pass(client, clock, until=lambda: bool(of(events, MessageCompleted)))
            status = worker.status()
        left = client.describe(queue)

    assert desk.calls == [("a1", 1)]
    [completed] = of(events, MessageCompleted)
    assert isinstance(completed, MessageCompleted)
    assert (completed.repeated, completed.attempt) == (True, 1)
    assert status.completed == 1
    assert (left.active, left.leased, left.delayed) == (0, 0, 0)


@ANY_QUEUE
def test_a_completion_whose_answer_was_lost_leaves_nothing_to_do(
    queue: str, clock: FakeClock, desk: Desk, events: list[Event]
) -> None:
    script = Script()
    script.then(SETTLE[queue], loses(OutcomeUnknown))
    with scripted(script, URL, clock=clock, listeners=[events.append]) as client:
        send(client, queue, "a1", "a2")
        with Worker(client, queue, desk, poll=POLL):
            let_pass(client, clock, until=lambda: "a2" in [text for text, _ in desk.calls])

    assert desk.calls == [("a1", 1), ("a2", 1)]


@ANY_QUEUE
@HOWEVER
def test_a_message_that_could_not_be_dead_lettered_is_when_it_comes_again(
    queue: str, never_agrees: Step, clock: FakeClock, desk: Desk, events: list[Event]
) -> None:
    script = Script()
    until_given_up(script, queue, never_agrees)
    desk.fail["a1"] = [Reject("Spam", "it sells watches")]
    with scripted(script, URL, clock=clock, listeners=[events.append]) as client:
        send(client, queue, "a1")
        with Worker(client, queue, desk, poll=POLL) as worker:
            let_pass(client, clock, until=lambda: bool(of(events, SettlementFailed)))
            all_well(script, queue)
            let_pass(client, clock, until=lambda: bool(of(events, MessageDeadLettered)))
            assert worker.status().dead_lettered == 1
        [letter] = client.dead_letters(queue).list()

    assert desk.calls == [("a1", 1)]
    assert (letter.dead_letter.reason, letter.dead_letter.description) == ("Spam", "it sells watches")
    assert of(events, MessageCompleted) == []


@ANY_QUEUE
def test_a_message_that_could_not_be_dropped_is_dropped_when_it_comes_again_and_told_as_that(
    queue: str, clock: FakeClock, desk: Desk, events: list[Event]
) -> None:
    script = Script()
    until_given_up(script, queue, fails(QueueNotFound))
    desk.fail["a1"] = [Reject("Spam", "it sells watches")]
    with scripted(script, URL, clock=clock, listeners=[events.append]) as client:
        send(client, queue, "a1")
        with Worker(client, queue, desk, poll=POLL, policy=HandlerPolicy(on_exhausted="drop")) as worker:
            let_pass(client, clock, until=lambda: bool(of(events, SettlementFailed)))
            all_well(script, queue)
            let_pass(client, clock, until=lambda: bool(of(events, MessageDropped)))
            status = worker.status()

    assert desk.calls == [("a1", 1)]
    assert (status.dropped, status.completed) == (1, 0)
    [dropped] = of(events, MessageDropped)
    assert isinstance(dropped, MessageDropped)
    assert (dropped.reason, dropped.text) == ("Spam", "it sells watches")
    assert of(events, MessageCompleted) == []


@ANY_QUEUE
def test_a_handler_whose_lease_was_lost_before_it_returned_may_have_left_it_to_its_successor(
    queue: str, clock: FakeClock, desk: Desk, events: list[Event]
) -> None:
    script = Script()
    script.then(RENEW[queue], fails(LeaseLost))
    desk.hold("a1")
    with scripted(script, URL, clock=clock, listeners=[events.append]) as client:
        send(client, queue, "a1")
        with Worker(client, queue, desk, poll=POLL), desk:
            desk.wait_for_calls("a1")
            let_pass(client, clock, until=lambda: desk.leases[0].lost, stuck=lambda: 1)
            desk.let_go("a1")
            wait_until(lambda: desk.lost == ["a1"])
            let_pass(client, clock, until=lambda: bool(of(events, MessageCompleted)))

    assert [text for text, _ in desk.calls] == ["a1", "a1"], "it is handled again"
    [completed] = of(events, MessageCompleted)
    assert isinstance(completed, MessageCompleted)
    assert not completed.repeated


@ANY_QUEUE
def test_another_worker_of_the_client_knows_it_too(
    queue: str, clock: FakeClock, desk: Desk, events: list[Event]
) -> None:
    script = Script()
    script.then(SETTLE[queue], fails(QueueNotFound))
    other = Desk()
    with scripted(script, URL, clock=clock, listeners=[events.append]) as client:
        send(client, queue, "a1")
        with Worker(client, queue, desk, poll=POLL):
            wait_until(lambda: bool(of(events, SettlementFailed)))
        with Worker(client, queue, other, poll=POLL):
            let_pass(client, clock, until=lambda: bool(of(events, MessageCompleted)))

    assert (desk.calls, other.calls) == ([("a1", 1)], [])


@ANY_QUEUE
def test_a_worker_that_is_started_again_knows_it_still(
    queue: str, clock: FakeClock, desk: Desk, events: list[Event]
) -> None:
    script = Script()
    script.then(SETTLE[queue], fails(QueueNotFound))
    with scripted(script, URL, clock=clock, listeners=[events.append]) as client:
        send(client, queue, "a1")
        worker = Worker(client, queue, desk, poll=POLL)
        with worker:
            wait_until(lambda: bool(of(events, SettlementFailed)))
        with worker:
            let_pass(client, clock, until=lambda: bool(of(events, MessageCompleted)))

    assert desk.calls == [("a1", 1)]


def test_two_messages_with_one_id_are_two(clock: FakeClock, desk: Desk, events: list[Event]) -> None:
    script = Script()
    script.then("settle", fails(QueueNotFound))
    with scripted(script, URL, clock=clock, listeners=[events.append]) as client:
        client.send_batch("plain", [Message.of("a1", id="same"), Message.of("b1", id="same")])
        with Worker(client, "plain", desk, concurrency=1, poll=POLL):
            let_pass(client, clock, until=lambda: len(of(events, MessageCompleted)) == 2)

    assert desk.calls == [("a1", 1), ("b1", 1)]
    assert [event.repeated for event in of(events, MessageCompleted)] == [False, True]  # type: ignore[attr-defined]


def test_the_memory_of_one_queue_says_nothing_of_another(
    clock: FakeClock, desk: Desk, events: list[Event]
) -> None:
    script = Script()
    script.then("settle", fails(QueueNotFound))
    with scripted(
        script, "memory://?queues=one,two&lease=30", clock=clock, listeners=[events.append]
    ) as client:
        client.send("one", Message.of("a1", id="same"))
        with Worker(client, "one", desk, poll=POLL):
            wait_until(lambda: bool(of(events, SettlementFailed)))
        client.send("two", Message.of("b1", id="same"))
        with Worker(client, "two", desk, poll=POLL):
            desk.wait_for_calls("a1", "b1")


def test_what_was_tried_before_it_was_done_is_counted_in_what_is_told(
    clock: FakeClock, desk: Desk, events: list[Event]
) -> None:
    script = Script()
    script.then("settle", lambda act: act.run(), fails(QueueNotFound))
    desk.fail["a1"] = [RuntimeError("once")]
    with scripted(script, URL, clock=clock, listeners=[events.append]) as client:
        send(client, "plain", "a1")
        with Worker(client, "plain", desk, poll=POLL):
            let_pass(client, clock, until=lambda: bool(of(events, MessageCompleted)))
        assert len(client.runtime().history("plain")) == 0, "the broker has agreed"

    assert desk.calls == [("a1", 1), ("a1", 2)]
    [completed] = of(events, MessageCompleted)
    assert isinstance(completed, MessageCompleted)
    assert completed.repeated


def test_an_error_of_the_broker_is_told_once_for_each_time_it_came(
    clock: FakeClock, desk: Desk, events: list[Event]
) -> None:
    script = Script()
    kinds: list[type[QueueError]] = [QueueNotFound, LeaseLost]
    script.then("settle", *map(fails, kinds))
    with scripted(script, URL, clock=clock, listeners=[events.append]) as client:
        send(client, "plain", "a1")
        with Worker(client, "plain", desk, poll=POLL):
            let_pass(client, clock, until=lambda: bool(of(events, MessageCompleted)))

    assert desk.calls == [("a1", 1)]
    assert [event.error for event in of(events, SettlementFailed)] == ["QueueNotFound", "LeaseLost"]  # type: ignore[attr-defined]
