"""Calls of many threads at the same moment, so that those that can share a request do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from queue_runtime.events import Event, ProviderCalled
from queue_runtime.testing.clock import PATIENCE
from queue_runtime.testing.conformance.kit import Job, Kit

T = TypeVar("T")

THREADS = 16

GATHER = 0.3
"""Real seconds for the other threads to make their calls: the first request is held no longer than that, for
after a second nobody waits for it any more."""


class Gate:
    """A listener that holds up the first request of one kind, after its answer, until it is opened: what
    other threads ask for meanwhile waits, where it may travel together. (In a program it must be quick.)"""

    def __init__(self, operation: str) -> None:
        self._operation = operation
        self._reached = threading.Event()
        self._open = threading.Event()

    def __call__(self, event: Event) -> None:
        if not isinstance(event, ProviderCalled) or event.operation != self._operation:
            return
        if not self._reached.is_set():
            self._reached.set()
            self._open.wait(PATIENCE)

    def wait_until_reached(self) -> None:
        assert self._reached.wait(PATIENCE), f"there was no request to {self._operation}"

    def open(self) -> None:
        self._open.set()


def behind(gate: Gate, kit: Kit, first: Callable[[], T], rest: Sequence[Callable[[], T]]) -> list[Job[T]]:
    """Start *first*, whose request *gate* holds up, and then *rest*, each on a thread of its own."""
    jobs = [kit.start(first)]
    gate.wait_until_reached()
    return jobs + [kit.start(each) for each in rest]


def at_once(kit: Kit, gate: Gate, calls: Sequence[Callable[[], T]], *, within: float = 30.0) -> list[T]:
    """Make *calls* at the same time; what they returned, in their order. Raises what one of them raised."""
    jobs = behind(gate, kit, calls[0], calls[1:])
    threading.Event().wait(GATHER)
    gate.open()
    for job in jobs:
        job.thread.join(GATHER)  # before time is moved: the requests take none of it
    kit.join(*jobs, within=within)
    return [job.result() for job in jobs]
