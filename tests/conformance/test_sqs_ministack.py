"""The conformance rows on SQS, standard and FIFO, over real sockets to a local ministack."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from queue_runtime.testing.conformance import *  # noqa: F403  # the rows: pytest collects what is here
from queue_runtime.testing.sqs import CREDENTIALS, REGION, LocalSqs
from tests.conformance.sqs_harness import SqsHarness


@pytest.fixture(scope="module")
def harness() -> Iterator[SqsHarness]:
    with pytest.MonkeyPatch.context() as environment, LocalSqs() as server:
        for name, value in CREDENTIALS.items():
            environment.setenv(name, value)
        with SqsHarness("sqs on ministack", REGION, server.url) as made:
            yield made
