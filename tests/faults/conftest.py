"""A FIFO queue behind weather."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from urllib.parse import urlsplit

import pytest

from queue_runtime.testing.sqs import CREDENTIALS, LocalSqs, make_queue
from tests.faults.weather import Weather

_numbers = count(1)


@pytest.fixture(scope="session")
def endpoint() -> Iterator[LocalSqs]:
    with LocalSqs() as running:
        yield running


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def weather(endpoint: LocalSqs) -> Iterator[Weather]:
    port = urlsplit(endpoint.url).port
    assert port is not None
    with Weather(port) as made:
        yield made


@pytest.fixture
def fifo(endpoint: LocalSqs) -> str:
    """The name of a new FIFO queue whose leases last three seconds."""
    client = endpoint.client()
    try:
        return make_queue(client, f"weather{next(_numbers)}", fifo=True, lease=3).name
    finally:
        client.close()


@pytest.fixture
def target(weather: Weather, fifo: str) -> str:
    """The queue `events`, reached through the weather."""
    endpoint = f"http%3A%2F%2F127.0.0.1%3A{weather.port}"
    return f"sqs://eu-west-1?endpoint_url={endpoint}&request_timeout=1&queue.events={fifo}"
