"""Found by a randomised model of the worker: pauses, retries and stops that crossed each other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from unittest.mock import patch

import pytest

from queue_runtime import HandlerPolicy, Message, QueueClient, ReceivedMessage, Retry, Worker
from queue_runtime.breaker import BreakerPolicy
from queue_runtime.events import Event, MessageDeadLettered, ProcessingPaused, ProcessingResumed
from queue_runtime.testing import FakeClock
from queue_runtime.worker.in_hand import InHand, Run
from tests.fakes import Script, scripted
from tests.worker.hands import ANY_QUEUE, SESSIONS, Desk, let_time_pass, of, send, wait_until

AT_ONCE = BreakerPolicy(failure_rate=0.5, minimum_calls=1, open_for=2.0)
"""Pauses with the first failure."""


@ANY_QUEUE
def test_a_pause_whose_probe_is_gone_before_the_next_is_due_ends_by_itself(
    client: QueueClient, queue: str, clock: FakeClock, events: list[Event], desk: Desk
) -> None:
    policy = HandlerPolicy(max_attempts=1, breaker=AT_ONCE)
    desk.fail["a1"] = [RuntimeError("for the last time")]  # it pauses the worker and is dead-lettered then
    send(client, queue, "a1", "b1")
    with Worker(client, queue, desk, concurrency=1, policy=policy) as worker:
        wait_until(lambda: bool(of(events, MessageDeadLettered)) and worker.status().held == 0)
        assert of(events, ProcessingPaused)

        let_time_pass(clock, until=lambda: worker.status().completed == 1)

        assert of(events, ProcessingResumed)


@pytest.fixture
def copying(clock: FakeClock) -> Iterator[QueueClient]:
    """A client whose broker would copy a message to delay it, so that retries wait here."""
    with scripted(Script(), "memory://?queues=plain&lease=30", clock=clock, copied_delays=True) as made:
        yield made


def test_a_retry_at_once_is_in_line_only_when_its_last_attempt_has_left_it(
    copying: QueueClient, desk: Desk
) -> None:
    """If leaving came last it would take the new place with it: nobody would handle the message again."""
    desk.fail["a"] = [Retry(0)]
    lined_up = threading.Event()
    leave, line_up = InHand.leave, InHand.line_up

    def late(self: InHand, run: Run, *, lane: bool = False) -> None:
        if lane:
            lined_up.wait(0.3)  # what overtakes it has the time for that
        leave(self, run, lane=lane)

    def noted(self: InHand, run: Run, go: Callable[[], None], lane: object = None) -> bool:
        now = line_up(self, run, go, lane)
        if desk.calls:
            lined_up.set()
        return now

    copying.send("plain", Message.of("a"))
    with (
        patch.object(InHand, "leave", late),
        patch.object(InHand, "line_up", noted),
        Worker(copying, "plain", desk, concurrency=1) as worker,
    ):
        wait_until(lambda: worker.status().completed == 1)
    assert desk.calls == [("a", 1), ("a", 2)]


def test_a_handler_that_gives_its_message_back_and_fails_is_not_called_with_that_delivery_again(
    copying: QueueClient, clock: FakeClock
) -> None:
    deliveries: list[int] = []

    def handle(message: ReceivedMessage) -> None:
        deliveries.append(message.delivery_count)
        if len(deliveries) == 1:
            copying.abandon(message, delay=2.0)
            raise RuntimeError("after it was given back")

    copying.send("plain", Message.of("a"))
    with Worker(copying, "plain", handle) as worker:
        wait_until(lambda: worker.status().retried == 1 and worker.status().held == 0)

        let_time_pass(clock, until=lambda: worker.status().completed == 1)

    assert deliveries == [1, 2]


@SESSIONS
def test_a_session_that_a_pause_gives_back_with_its_backoff_is_waited_for_by_run_until_idle(
    client: QueueClient, queue: str, clock: FakeClock, events: list[Event], desk: Desk
) -> None:
    breaker = BreakerPolicy(failure_rate=1.0, minimum_calls=2, open_for=1.0)
    policy = HandlerPolicy(base=40.0, cap=40.0, breaker=breaker)
    desk.fail["a1"] = [Retry(30.0)]  # waits here for its backoff, when the others pause the worker
    desk.fail["b1"] = [RuntimeError("x")]
    desk.fail["c1"] = [RuntimeError("x")]
    desk.hold("b1", "c1")
    send(client, queue, "a1", "b1", "c1")
    worker = Worker(client, queue, desk, concurrency=3, policy=policy)
    reports: list[str] = []
    runner = threading.Thread(target=lambda: reports.append(worker.run_until_idle().reason))
    runner.start()
    try:
        desk.wait_for(lambda: len(desk.calls) == 3)
        wait_until(lambda: worker.status().retried == 1)
        desk.let_go("b1", "c1")
        wait_until(lambda: bool(of(events, ProcessingPaused)))
        let_time_pass(clock, until=lambda: not runner.is_alive())
    finally:
        worker.stop()
        runner.join()
    assert (reports, worker.status().completed) == (["idle"], 3)
