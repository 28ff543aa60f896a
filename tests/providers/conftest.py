"""One local Service Bus for the tests of its provider that need a real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from queue_runtime.testing.servicebus import LocalServiceBus
from queue_runtime.testing.servicebus.fixtures import local_service_bus
from tests.providers.servicebus_house import House

__all__ = ["local_service_bus"]


@pytest.fixture
def house(local_service_bus: LocalServiceBus) -> Iterator[House]:
    """The broker, empty, with clients that are closed after the test."""
    with House(local_service_bus) as made:
        yield made
