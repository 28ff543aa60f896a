"""Calls that are made again: for how long, and when the broker says when."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from queue_runtime import Message, QueueClient
from queue_runtime.errors import Outcome, Throttled
from queue_runtime.events import Event, RetryScheduled
from queue_runtime.retry import RetryPolicy
from queue_runtime.testing import FakeClock
from tests.fakes import REAL, Act, Script, fails, scripted

TWICE = RetryPolicy(max_attempts=2, base=0.0, cap=0.0, time_limit=4.0)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def aside() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def client(script: Script, clock: FakeClock, events: list[Event]) -> Iterator[QueueClient]:
    with scripted(script, clock=clock, retry=TWICE, listeners=[events.append]) as made:
        yield made


def delays(events: list[Event]) -> list[float]:
    return [event.delay for event in events if isinstance(event, RetryScheduled)]


def throttled(seconds: float) -> Outcome[Any]:
    return Outcome(error=Throttled("scripted", retry_after=seconds))


def test_entries_wait_for_as_long_as_the_one_that_is_asked_to_wait_longest(
    client: QueueClient, script: Script, clock: FakeClock, events: list[Event], aside: ThreadPoolExecutor
) -> None:
    client.send_batch("jobs", [Message.of("m") for _ in range(3)])
    messages = client.receive("jobs", max_messages=3)
    script.then("settle", lambda act: [throttled(1.0), throttled(3.0), throttled(2.0)])
    settling = aside.submit(client.complete, messages)
    clock.block_until(1)

    clock.advance(3.0)

    settling.result(REAL)
    assert delays(events) == [3.0]


@pytest.mark.parametrize(
    ("timeout", "began", "tries"), [(2.1, 0.0, 2), (2.0, 0.0, 1), (3.1, 1.0, 2), (3.0, 1.0, 1)]
)
def test_no_try_begins_when_the_time_of_the_caller_is_up(
    client: QueueClient, clock: FakeClock, aside: ThreadPoolExecutor, timeout: float, began: float, tries: int
) -> None:
    """It is asked to wait for two seconds, and began so many seconds ago."""
    made: list[float] = []

    def act() -> None:
        made.append(clock.monotonic())
        raise Throttled("scripted", retry_after=2.0)

    since = clock.monotonic() - began
    asking = aside.submit(client.runtime().retrying, "describe", "jobs", act, since=since, timeout=timeout)
    if tries == 2:
        clock.block_until(1)
        clock.advance(2.0)

    assert isinstance(asking.exception(REAL), Throttled)
    assert len(made) == tries


@pytest.mark.parametrize(("asking", "tries"), [(2.0, 2), (3.0, 1)])
def test_what_is_asked_about_the_queue_is_of_the_time_limit_of_a_send(
    client: QueueClient,
    script: Script,
    clock: FakeClock,
    aside: ThreadPoolExecutor,
    asking: float,
    tries: int,
) -> None:
    def slow(act: Act) -> Any:
        clock.advance(asking)
        return act.run()

    script.then("capabilities", slow)
    script.then("send", lambda act: [throttled(1.5)], fails(Throttled))
    sending = aside.submit(client.send, "jobs", Message.of("m"))
    if tries == 2:
        clock.block_until(2)  # the sender, and the scheduler
        clock.advance(1.5)

    assert isinstance(sending.exception(REAL), Throttled)
    assert len(script.calls("send")) == tries
