"""A local SQS endpoint, queues on it, and a relay before it that remembers who sent what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from urllib.parse import urlsplit

import pytest

from queue_runtime.testing.sqs import CREDENTIALS, LocalSqs, make_queue
from tests.web.marks import MARK
from tests.web.relay import Relay

_numbers = count(1)

MOST_RECEIVES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """The queues `events` and `jobs` of one test, reached through `relay`."""

    endpoint: LocalSqs
    relay: Relay
    events: str
    jobs: str

    @property
    def target(self) -> str:
        """For `connect`."""
        endpoint = f"http%3A%2F%2F127.0.0.1%3A{self.relay.port}"
        return f"sqs://eu-west-1?endpoint_url={endpoint}&queue.events={self.events}&queue.jobs={self.jobs}"

    def drain(self) -> Counter[str]:
        """Take everything that is on `events`, with the SDK; how often each id was there."""
        client = self.endpoint.client()
        found: Counter[str] = Counter()
        try:
            url = client.get_queue_url(QueueName=self.events)["QueueUrl"]
            for _ in range(MOST_RECEIVES):
                batch = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
                if not batch:
                    return found
                for each in batch:
                    mark = MARK.search(each["Body"].encode())
                    assert mark is not None, each["Body"]
                    found[mark["id"].decode()] += 1
                client.delete_message_batch(
                    QueueUrl=url,
                    Entries=[
                        {"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(batch)
                    ],
                )
        finally:
            client.close()
        raise AssertionError(f"the queue is not empty after {MOST_RECEIVES} receives")


@pytest.fixture(scope="session")
def endpoint() -> Iterator[LocalSqs]:
    with LocalSqs() as running:
        yield running


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def relay(endpoint: LocalSqs) -> Iterator[Relay]:
    """Not open yet."""
    port = urlsplit(endpoint.url).port
    assert port is not None
    with Relay(port) as made:
        yield made


@pytest.fixture(params=[True], ids=["fifo"])
def fifo(request: pytest.FixtureRequest) -> bool:
    """Whether `events` is a FIFO queue."""
    chosen: bool = request.param
    return chosen


@pytest.fixture
def broker_down(endpoint: LocalSqs, relay: Relay, fifo: bool) -> Broker:
    """Its relay refuses connections until it is opened."""
    number = next(_numbers)
    client = endpoint.client()
    try:
        events = make_queue(client, f"events{number}", fifo=fifo, lease=60).name
        jobs = make_queue(client, f"jobs{number}", lease=60).name
    finally:
        client.close()
    return Broker(endpoint=endpoint, relay=relay, events=events, jobs=jobs)


@pytest.fixture
def broker(broker_down: Broker) -> Broker:
    broker_down.relay.open()
    return broker_down
