"""Purging a queue of SQS: one request, and what it says to the second one in a minute."""

from __future__ import annotations

import pytest

from queue_runtime.errors import ProviderError, QueueNotFound
from queue_runtime.providers.sqs.client import AwsSqsClient
from queue_runtime.testing import FakeClock
from tests.providers.sqs_edge import BASE, Edge, provider_at


@pytest.fixture
def edge() -> Edge:
    edge = Edge()
    edge.queue("jobs")
    return edge


@pytest.fixture
def provider(edge: Edge) -> AwsSqsClient:
    return provider_at(edge, FakeClock())


def test_it_is_one_request(edge: Edge, provider: AwsSqsClient) -> None:
    edge.answers("PurgeQueue", {})

    provider.purge("jobs")

    assert edge.of("PurgeQueue") == [{"QueueUrl": f"{BASE}/jobs"}]


def test_a_second_one_in_a_minute_is_refused_and_not_tried_again(edge: Edge, provider: AwsSqsClient) -> None:
    edge.refuses(
        "PurgeQueue",
        "AWS.SimpleQueueService.PurgeQueueInProgress",
        "Only one PurgeQueue operation on jobs is allowed every 60 seconds.",
        status=403,
    )

    with pytest.raises(ProviderError, match=r"PurgeQueue on 'jobs': Only one .* every 60 seconds") as caught:
        provider.purge("jobs")

    assert not caught.value.retryable


def test_a_queue_that_is_not_there_is_not_found(edge: Edge, provider: AwsSqsClient) -> None:
    with pytest.raises(QueueNotFound):
        provider.purge("nothing")
