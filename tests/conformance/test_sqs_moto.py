"""The conformance rows on SQS standard queues, over real sockets to a local moto server.

FIFO is left out: moto keeps neither order nor exclusivity. Its harness makes standard queues only, so the
rows for sessions skip by their queue's capabilities.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from moto.server import ThreadedMotoServer

from queue_runtime.testing.conformance import *  # noqa: F403  # the rows: pytest collects what is here
from queue_runtime.testing.sqs import CREDENTIALS, REGION
from tests.conformance.sqs_harness import SqsHarness

FAULTS = {
    "test_a_stale_receipt_does_not_take_the_message_from_its_new_holder": (
        "moto deletes a message for the receipt of an earlier receive; AWS agrees and deletes nothing"
    ),
}


@pytest.fixture(scope="module")
def harness() -> Iterator[SqsHarness]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        with pytest.MonkeyPatch.context() as environment:
            for name, value in CREDENTIALS.items():
                environment.setenv(name, value)
            with SqsHarness(
                "sqs on moto", REGION, f"http://{host}:{port}", fifo=False, faults=FAULTS
            ) as made:
                yield made
    finally:
        server.stop()
