"""A hot session starves nobody: the small ones finish within twice the time that they take alone.

Time is the fake clock's: it moves when all handlers that can run do, or everybody waits for it, so that a
slow machine changes nothing.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

import pytest

from queue_runtime import Message, QueueClient, ReceivedMessage, Worker, connect
from queue_runtime.testing import FakeClock
from tests.worker.resting import is_at_rest

HOT = "hot"
PACE = 0.01
"""Seconds of one handler."""

LOOK = 0.05
"""Real seconds between two looks whether everybody waits for time, while handlers could begin."""


class Office:
    """A handler that takes `PACE` of the clock, and moves the clock when everybody who can be is in."""

    def __init__(self, clock: FakeClock, small: Sequence[Message], *, hot: bool, concurrency: int) -> None:
        self._clock = clock
        self._places = concurrency
        self._changed = threading.Condition()
        # guarded by _changed
        self._left = Counter(message.session_id for message in small)
        self._sessions = len(self._left) + hot
        self._inside = 0
        self._over = False
        self.hot_handled = 0

    def __call__(self, message: ReceivedMessage) -> None:
        with self._changed:
            self._inside += 1
            self._changed.notify_all()
            self._clock.wait_for(self._changed, lambda: self._over, PACE)
            self._inside -= 1
            if message.session_id == HOT:
                self.hot_handled += 1
            else:
                self._left[message.session_id] -= 1
                self._sessions -= self._left[message.session_id] == 0
            self._changed.notify_all()

    def work_until_small_are_done(self, client: QueueClient) -> float:
        """Let time pass until they are; returns the seconds."""
        began = self._clock.monotonic()
        while not self._all_done():
            while not self._all_are_in() and not is_at_rest(client, self._clock):
                pass
            due = self._clock.next_deadline()
            if due is not None:
                self._clock.advance(due - self._clock.monotonic())
        with self._changed:
            self._over = True  # the worker is to stop, and waits for those inside
            self._changed.notify_all()
        return self._clock.monotonic() - began

    def _all_done(self) -> bool:
        with self._changed:
            return not +self._left

    def _all_are_in(self) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._inside >= min(self._places, self._sessions), LOOK)


def small_ones(sessions: int, each: int) -> list[Message]:
    """Every session's first message, then every session's second, and so on."""
    return [
        Message(body=b"x", session_id=f"small-{number}") for _ in range(each) for number in range(sessions)
    ]


def turns(queue: str, *, hot: int, concurrency: int, sessions: int = 200, each: int = 10) -> int:
    """How many times `PACE` a worker takes for the small ones behind so many messages of the hot session."""
    clock = FakeClock()
    with connect(f"memory://?queues={queue}:{queue}", clock=clock) as client:
        fill(client, queue, hot)
        small = small_ones(sessions, each)
        client.send_batch(queue, small)
        office = Office(clock, small, hot=hot > 0, concurrency=concurrency)
        with Worker(client, queue, office, concurrency=concurrency):
            return round(office.work_until_small_are_done(client) / PACE)


def fill(client: QueueClient, queue: str, hot: int) -> None:
    client.send_batch(queue, [Message(body=b"x", session_id=HOT) for _ in range(hot)])


@pytest.mark.timeout(180)  # ten thousand messages, on a machine that does other things too
@pytest.mark.parametrize("queue", ["sessions", "groups"])
@pytest.mark.parametrize(("concurrency", "hot"), [(2, 3_000), (8, 3_000), (16, 10_000)])
def test_small_sessions_finish_beside_a_hot_one_within_twice_their_time(
    queue: str, concurrency: int, hot: int
) -> None:
    """So many hot messages as are not handled meanwhile: more of them would change nothing."""
    alone = turns(queue, hot=0, concurrency=concurrency)

    beside = turns(queue, hot=hot, concurrency=concurrency)

    assert beside <= 2 * alone + 1


@pytest.mark.parametrize("queue", ["sessions", "groups"])
@pytest.mark.parametrize("concurrency", [2, 8, 16])
def test_no_place_stays_empty_while_a_session_has_messages(queue: str, concurrency: int) -> None:
    took = turns(queue, hot=0, concurrency=concurrency)

    assert took <= 1.1 * 200 * 10 / concurrency
