"""A client on memory with one queue of each kind, its clock, its events, and a desk to handle at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from queue_runtime import (
    QueueClient,
    connect,
)
from queue_runtime.events import (
    Event,
)
from queue_runtime.testing import FakeClock
from tests.worker.hands import URL, Desk, left_over, wait_until


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def client(clock: FakeClock, events: list[Event]) -> Iterator[QueueClient]:
    others = set(left_over())
    with connect(URL, clock=clock, listeners=[events.append]) as made:
        yield made
    wait_until(lambda: others.issuperset(left_over()))  # a closed client leaves no thread but one given up


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.let_go(*desk.held)
