"""The conformance rows on Service Bus, over real sockets to the local broker, in the clear and by TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from queue_runtime.testing.conformance import *  # noqa: F403  # the rows: pytest collects what is here
from queue_runtime.testing.servicebus import LocalServiceBus
from tests.conformance.servicebus_harness import ServiceBusHarness
from tests.testing_servicebus.certificates import self_signed


@pytest.fixture(scope="module", params=["in the clear", "by TLS"])
def harness(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceBusHarness]:
    with _broker(request.param, tmp_path_factory.mktemp("tls")) as bus:
        yield ServiceBusHarness(f"servicebus {request.param}", bus, bus.target())
        violations = bus.stats()["delivery_id_violations"]
    assert violations == 0, "a receiver was used by two threads at once"


def _broker(how: str, place: Path) -> LocalServiceBus:
    if how == "in the clear":
        return LocalServiceBus()
    certificate, key = self_signed(place)
    return LocalServiceBus(certificate=certificate, key=key)
