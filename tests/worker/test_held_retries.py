"""Retries outside sessions where the broker has no delay for a message in hand: short ones are held here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from queue_runtime import HandlerPolicy, QueueClient, Retry, Worker
from queue_runtime.events import Event, HandlerFailed, MessageCompleted
from queue_runtime.testing import FakeClock
from queue_runtime.worker.message_run import HELD_DELAY
from tests.fakes import Script, scripted
from tests.worker.hands import URL, Desk, of, send, wait_until
from tests.worker.resting import busy_threads


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def client(script: Script, clock: FakeClock, events: list[Event]) -> Iterator[QueueClient]:
    with scripted(script, URL, clock=clock, listeners=[events.append], copied_delays=True) as made:
        yield made


def leased(client: QueueClient) -> tuple[int | None, int | None, int | None]:
    found = client.describe("plain")
    return found.active, found.leased, found.delayed


def test_a_short_backoff_is_waited_for_here_without_a_thread(
    client: QueueClient, script: Script, clock: FakeClock, desk: Desk, events: list[Event]
) -> None:
    desk.fail["a1"] = [Retry(HELD_DELAY)]
    send(client, "plain", "a1")

    with Worker(client, "plain", desk, concurrency=3) as worker:
        wait_until(lambda: bool(of(events, HandlerFailed)) and worker.status().handlers == 0)
        wait_until(lambda: busy_threads(client.runtime().executor) == 0)
        assert (leased(client), worker.status().held) == ((0, 1, 0), 1)
        clock.block_until(2)
        clock.advance(HELD_DELAY)
        wait_until(lambda: bool(of(events, MessageCompleted)))
        assert (worker.status().held, worker.status().retried) == (0, 1)

    assert desk.calls == [("a1", 1), ("a1", 2)]
    assert len(script.calls("settle")) == 1, "nothing but the completion"


def test_its_lease_is_kept_alive_meanwhile(
    client: QueueClient, clock: FakeClock, desk: Desk, events: list[Event]
) -> None:
    desk.fail["a1"] = [Retry(HELD_DELAY) for _ in range(4)]
    send(client, "plain", "a1")

    with Worker(client, "plain", desk):
        for failed in range(1, 5):
            wait_until(lambda n=failed: len(of(events, HandlerFailed)) == n)  # type: ignore[misc]
            for _ in range(2):
                clock.block_until(2)
                clock.advance(HELD_DELAY / 2)
                # Due with 15 s left, or less where the last renewal was still under way when time went on.
                wait_until(lambda: desk.leases[0].remaining() > 10.0 or bool(of(events, MessageCompleted)))
        wait_until(lambda: bool(of(events, MessageCompleted)))

    assert desk.calls == [("a1", attempt) for attempt in range(1, 6)]
    assert not desk.lost


def test_a_longer_one_goes_back_with_its_delay(
    client: QueueClient, clock: FakeClock, desk: Desk, events: list[Event]
) -> None:
    desk.fail["a1"] = [Retry(HELD_DELAY + 1.0)]
    send(client, "plain", "a1")

    with Worker(client, "plain", desk) as worker:
        wait_until(lambda: leased(client) == (0, 0, 1) and worker.status().held == 0)
        clock.block_until(1)
        clock.advance(HELD_DELAY + 1.0)
        wait_until(lambda: bool(of(events, MessageCompleted)))

    assert desk.calls == [("a1", 1), ("a1", 2)]


def test_a_stop_gives_it_back_at_once(
    client: QueueClient, script: Script, desk: Desk, events: list[Event]
) -> None:
    desk.fail["a1"] = [Retry(HELD_DELAY)]
    send(client, "plain", "a1")
    worker = Worker(client, "plain", desk)
    worker.start()
    wait_until(lambda: worker.status().retried == 1)

    report = worker.stop()

    assert (report.released, report.overdue, report.unknown) == (1, 0, 0)
    assert leased(client) == (1, 0, 0), "free, without a delay: it would cost a copy"


def test_a_handler_that_fails_while_its_worker_stops_leaves_nothing_behind(
    client: QueueClient, desk: Desk
) -> None:
    desk.fail["a1"] = [Retry(HELD_DELAY)]
    desk.hold("a1")
    send(client, "plain", "a1")
    worker = Worker(client, "plain", desk)
    worker.start()
    desk.wait_for_calls("a1")
    for run in worker._work.in_hand.stop():  # type: ignore[union-attr]
        run.stop()

    desk.let_go("a1")
    report = worker.stop()

    assert (report.overdue, report.unknown) == (0, 0)
    assert leased(client) == (1, 0, 0)


def test_one_whose_lease_is_lost_meanwhile_is_not_entered_again(
    client: QueueClient, clock: FakeClock, desk: Desk
) -> None:
    desk.fail["a1"] = [Retry(5.0)]
    send(client, "plain", "a1")

    with Worker(client, "plain", desk) as worker:
        wait_until(lambda: worker.status().retried == 1)
        desk.leases[0].lose("the broker says so")
        clock.block_until(2)
        clock.advance(5.0)
        wait_until(lambda: worker.status().held == 0)
        assert desk.calls == [("a1", 1)]
        clock.advance(25.0)
        desk.wait_for_calls("a1", "a1")

    assert desk.calls == [("a1", 1), ("a1", 2)], "attempts are remembered"


def test_the_last_attempt_ends_it_as_anywhere(client: QueueClient, desk: Desk) -> None:
    desk.fail["a1"] = [Retry(0.0), ValueError("for good")]
    send(client, "plain", "a1")

    Worker(client, "plain", desk, policy=HandlerPolicy(max_attempts=2)).run_until_idle()

    (dead,) = client.dead_letters("plain").list()
    assert (dead.dead_letter.reason, dead.dead_letter.attempts) == ("MaxAttemptsExceeded", 2)


def test_where_the_broker_delays_what_is_in_hand_nothing_is_held(
    script: Script, clock: FakeClock, desk: Desk
) -> None:
    desk.fail["a1"] = [Retry(1.0)]
    with scripted(script, URL, clock=clock, copied_delays=False) as client:
        send(client, "plain", "a1")
        with Worker(client, "plain", desk) as worker:
            wait_until(lambda: leased(client) == (0, 0, 1) and worker.status().held == 0)
