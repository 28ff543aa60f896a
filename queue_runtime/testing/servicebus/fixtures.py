"""A pytest fixture for tests that need a Service Bus: import it into a ``conftest.py``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from queue_runtime.testing.servicebus.local import LocalServiceBus


@pytest.fixture(scope="session")
def local_service_bus() -> Iterator[LocalServiceBus]:
    """One broker for all tests of the run; each makes queues of its own names."""
    with LocalServiceBus() as broker:
        yield broker
