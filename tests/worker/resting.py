"""When nobody in a client has anything to do before time goes on, and time that goes on only then."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from queue_runtime import QueueClient
from queue_runtime.executor import SessionExecutor
from queue_runtime.testing import FakeClock
from queue_runtime.worker.work import Work
from tests.worker.hands import wait_until

STEP = 3.0
"""Seconds; shorter than any lease."""


def is_at_rest(client: QueueClient, clock: FakeClock, *threads: threading.Thread, stuck: int = 0) -> bool:
    """All threads of *client*, of its workers, and *threads* wait for time, or for each other; so many
    handlers are *stuck*."""
    version = clock._version
    # Twice: one that was busy when it was looked at may have given work to one that was not.
    return all(_rest(client, clock, threads, stuck) for _ in range(2)) and version == clock._version


def _rest(client: QueueClient, clock: FakeClock, threads: Iterable[threading.Thread], stuck: int) -> bool:
    runtime = client.runtime()
    with runtime._changed:
        works = [action.__self__ for action, _ in runtime._closing if isinstance(_owner(action), Work)]  # type: ignore[attr-defined]
    waiting = {*threads, *(thread for work in works for thread in work._fetcher.threads())}
    if runtime.scheduler._thread is not None:
        waiting.add(runtime.scheduler._thread)
    return (
        _idles(runtime.executor, clock, but=stuck)
        and _idles(runtime.pool, clock)
        and _idles(runtime.carriers, clock)
        and clock.is_parked(*(thread for thread in waiting if thread.is_alive()))
    )


def let_pass(
    client: QueueClient,
    clock: FakeClock,
    *threads: threading.Thread,
    until: Callable[[], bool],
    stuck: Callable[[], int] = lambda: 0,
) -> None:
    """A step at a time, whenever all are at rest, *threads* too, but so many handlers that are *stuck*."""
    for _ in range(200):
        wait_until(lambda: until() or is_at_rest(client, clock, *threads, stuck=stuck()))
        if until():
            return
        clock.advance(STEP)
    raise AssertionError("it did not come")


def busy_threads(executor: SessionExecutor) -> int:
    """Threads of *executor* that run a task, or are about to."""
    with executor._changed:
        return len(executor._threads) - executor._idle + len(executor._ready)


def _owner(action: object) -> object:
    return getattr(action, "__self__", None)


def _idles(executor: SessionExecutor, clock: FakeClock, *, but: int = 0) -> bool:
    """All its threads wait: for a task, for time to go on, or, so many, inside a handler."""
    with executor._changed:
        ready, threads, idle = len(executor._ready), set(executor._threads), executor._idle
    return not ready and idle + sum(map(clock.is_parked, threads)) + but == len(threads)
