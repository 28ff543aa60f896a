"""The two kinds of brokers that every test of dead letters meets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from queue_runtime import QueueClient
from queue_runtime.events import Event
from queue_runtime.testing import FakeClock
from tests.deadletters.house import LOOKED_INTO, NOT_LOOKED_INTO, house
from tests.fakes import Script


@pytest.fixture
def script() -> Script:
    return Script(longest_wait=0.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture(params=[LOOKED_INTO, NOT_LOOKED_INTO], ids=["can be looked into", "cannot"])
def client(
    request: pytest.FixtureRequest, script: Script, clock: FakeClock, events: list[Event]
) -> Iterator[QueueClient]:
    with house(script, clock, events, **request.param) as made:
        yield made
