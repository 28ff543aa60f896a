"""The conformance rows on the memory provider, on a clock that the tests move."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from queue_runtime.errors import Closed
from queue_runtime.testing.conformance import *  # noqa: F403  # the rows: pytest collects what is here
from queue_runtime.testing.conformance.kit import Kit
from tests.conformance.memory_harness import MemoryHarness


@pytest.fixture(params=["sessions", "groups"])
def harness(request: pytest.FixtureRequest) -> Iterator[MemoryHarness]:
    """Sessions given out by the broker, as on Service Bus, and groups, as on SQS FIFO."""
    made = MemoryHarness(request.param)
    yield made
    made.close()


def test_a_blocked_receive_is_woken_by_the_close_of_its_client(harness: MemoryHarness) -> None:
    """More than the rows ask for: not every SDK can do it."""
    kit = Kit(harness)
    client = kit.connect()
    queue = kit.queue()
    blocked = kit.start(lambda: client.receive(queue, wait=30.0))
    kit.time.sleep(0.3)

    client.close()

    with pytest.raises(Closed):
        kit.join(blocked, within=0.0)
    kit.close()
