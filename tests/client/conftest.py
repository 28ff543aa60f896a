"""A client of a scripted broker, on a clock that stands still."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from queue_runtime import QueueClient
from queue_runtime.events import Event
from queue_runtime.testing import FakeClock
from tests.client.hands import URL, Keeping
from tests.fakes import Script, our_threads, scripted


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def client(script: Script, clock: FakeClock, events: list[Event]) -> Iterator[QueueClient]:
    with scripted(script, URL, clock=clock, listeners=[events.append]) as made:
        yield made
    assert our_threads() == []


@pytest.fixture
def time(client: QueueClient, clock: FakeClock, script: Script) -> Keeping:
    return Keeping(client, clock, script)
