"""The conformance rows on any SQS endpoint, or on a real account.

``QUEUE_RUNTIME_TEST_SQS_ENDPOINT=http://127.0.0.1:PORT`` names an endpoint; credentials are made up if there
are none. ``QUEUE_RUNTIME_TEST_SQS=aws`` asks for the account and the region of the environment: queues named
``qr-...`` are made there and deleted again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from queue_runtime.testing.conformance import *  # noqa: F403  # the rows: pytest collects what is here
from queue_runtime.testing.sqs import CREDENTIALS, REGION
from tests.conformance.sqs_harness import SqsHarness

ENDPOINT = os.environ.get("QUEUE_RUNTIME_TEST_SQS_ENDPOINT", "")
AWS = os.environ.get("QUEUE_RUNTIME_TEST_SQS", "") == "aws"

if not ENDPOINT and not AWS:
    pytest.skip(
        "QUEUE_RUNTIME_TEST_SQS_ENDPOINT names no endpoint, and QUEUE_RUNTIME_TEST_SQS is not 'aws'",
        allow_module_level=True,
    )


@pytest.fixture(scope="module")
def harness() -> Iterator[SqsHarness]:
    region = os.environ.get("AWS_DEFAULT_REGION", REGION)
    if not ENDPOINT:
        with SqsHarness(f"sqs on aws, {region}", region, look=1.0, counts_lag=90.0) as made:
            yield made
        return
    with pytest.MonkeyPatch.context() as environment:
        for name, value in CREDENTIALS.items():
            if name not in os.environ:
                environment.setenv(name, value)
        with SqsHarness(f"sqs on {ENDPOINT}", region, ENDPOINT, look=1.0, counts_lag=10.0) as made:
            yield made
