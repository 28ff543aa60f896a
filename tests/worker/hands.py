"""A handler that a test steers, and what the tests of the worker share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import pytest

from queue_runtime import (
    Lease,
    Message,
    QueueClient,
    ReceivedMessage,
)
from queue_runtime.events import (
    Event,
)
from queue_runtime.testing import FakeClock

SOON = 5.0
"""Real seconds that a thread gets to do what it can do at once."""

URL = "memory://?queues=plain,sessions:sessions,groups:groups&lease=30"

FETCH = {"plain": "receive", "sessions": "accept_sessions", "groups": "receive"}
SETTLE = {"plain": "settle", "sessions": "session.settle", "groups": "settle"}

SESSIONS = pytest.mark.parametrize("queue", ["sessions", "groups"])
ANY_QUEUE = pytest.mark.parametrize("queue", ["plain", "sessions", "groups"])


@dataclass
class Job:
    number: int


def left_over() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("queue_runtime")]


class Desk:
    """A handler that a test steers: what it was called with, how each call ends, and when.

    Leaving its `with` block lets go of all: a worker around it can stop, also where a test has failed.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.calls: list[tuple[str, int]] = []
        self.leases: list[Lease] = []
        self.deliveries: list[int] = []
        self.running = 0
        self.most_running = 0
        self.fail: dict[str, list[Exception]] = {}
        self.held: set[str] = set()
        self.lost: list[str] = []

    def __call__(self, message: ReceivedMessage) -> None:
        with self._changed:
            self.calls.append((message.text, message.attempt))
            self.leases.append(message.lease)
            self.deliveries.append(message.delivery_count)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            self._changed.notify_all()
            self._changed.wait_for(lambda: message.text not in self.held)
            self.running -= 1
            self._changed.notify_all()
            errors = self.fail.get(message.text)
            error = errors.pop(0) if errors else None
        if message.lease.lost:
            self.lost.append(message.text)
        if error is not None:
            raise error

    def hold(self, *texts: str) -> None:
        with self._changed:
            self.held.update(texts)

    def let_go(self, *texts: str) -> None:
        with self._changed:
            self.held.difference_update(texts)
            self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.let_go(*self.held)

    def wait_for(self, fact: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(fact, SOON), f"it did not come; calls: {self.calls}"

    def wait_for_calls(self, *texts: str) -> None:
        self.wait_for(lambda: [text for text, _ in self.calls] == list(texts))


def send(client: QueueClient, queue: str, *texts: str) -> None:
    """Each text is a session's letter and a number: ``a1``."""
    client.send_batch(queue, [Message.of(text, session_id=text[0]) for text in texts])


def wait_until(fact: Callable[[], bool]) -> None:
    """Wait for what other threads do at once."""
    changed = threading.Condition()
    with changed:
        for _ in range(int(SOON / 0.005)):
            if fact():
                return
            changed.wait(0.005)
    raise AssertionError("it did not come")


def let_time_pass(clock: FakeClock, *, until: Callable[[], bool]) -> None:
    """Three seconds at a time, whenever somebody waits for something within them."""

    def somebody_waits() -> bool:
        due = clock.next_deadline()
        return due is not None and due - clock.monotonic() <= 3.0

    for _ in range(100):
        wait_until(lambda: until() or somebody_waits())
        if until():
            return
        clock.advance(3.0)
    raise AssertionError("it did not come")


def of(events: list[Event], kind: type[Event]) -> list[Event]:
    return [event for event in list(events) if type(event) is kind]
