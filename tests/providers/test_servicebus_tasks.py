"""Background threads of the provider: as many as are needed, none that stays for ever."""

from __future__ import annotations

import logging
import threading

import pytest

from queue_runtime.providers.servicebus.tasks import IDLE, Tasks
from queue_runtime.testing import FakeClock


def test_tasks_run_beside_each_other_up_to_the_limit() -> None:
    tasks = Tasks("test", 2, FakeClock())
    both = threading.Barrier(2)
    third = threading.Event()

    tasks.submit(lambda: both.wait(5.0))
    tasks.submit(lambda: both.wait(5.0))
    tasks.submit(third.set)

    assert third.wait(5.0)
    assert not both.broken
    assert len([t for t in threading.enumerate() if t.name.startswith("queue_runtime-test-")]) <= 2
    tasks.close(5.0)


def test_a_task_that_fails_is_logged_and_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks("test", 1, FakeClock())
    after = threading.Event()

    def fail() -> None:
        raise RuntimeError("this one")

    with caplog.at_level(logging.ERROR, "queue_runtime.servicebus"):
        tasks.submit(fail)
        tasks.submit(after.set)
        assert after.wait(5.0)

    assert [record.message for record in caplog.records] == ["servicebus.task_failed"]
    tasks.close(5.0)


def test_a_thread_without_work_ends() -> None:
    clock = FakeClock()
    tasks = Tasks("idle", 1, clock)
    done = threading.Event()
    tasks.submit(done.set)
    assert done.wait(5.0)
    clock.block_until(1)
    (thread,) = [t for t in threading.enumerate() if t.name.startswith("queue_runtime-idle-")]

    clock.advance(IDLE)

    thread.join(5.0)
    assert not thread.is_alive()


def test_closing_runs_what_waits_and_takes_nothing_new() -> None:
    clock = FakeClock()
    tasks = Tasks("test", 1, clock)
    ran: list[int] = []
    go = threading.Event()
    tasks.submit(lambda: go.wait(5.0))
    for number in range(3):
        tasks.submit(lambda number=number: ran.append(number))  # type: ignore[misc]

    go.set()
    tasks.close(5.0)

    assert ran == [0, 1, 2]
    assert not tasks.submit(lambda: ran.append(9))


def test_together_returns_when_all_have_ended() -> None:
    tasks = Tasks("test", 4, FakeClock())
    met = threading.Barrier(3)
    ended: list[int] = []

    def work(number: int) -> None:
        met.wait(5.0)
        ended.append(number)

    tasks.together([lambda: work(1), lambda: work(2), lambda: work(3)])

    assert sorted(ended) == [1, 2, 3]
    tasks.close(5.0)
    tasks.together([lambda: ended.append(4), lambda: ended.append(5)])
    assert sorted(ended) == [1, 2, 3, 4, 5], "with the threads gone, the caller does it all"
