"""The conformance rows on SQS standard queues, over real sockets to a local moto server.

FIFO is left out: moto keeps neither order nor exclusivity. Its harness makes standard queues only, so the
rows for sessions skip by their queue's capabilities.

moto's receives look and take in two steps, between which another thread may take the same; here they come one
at a time, and wait outside.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from moto.server import ThreadedMotoServer
from moto.sqs.models import Message, SQSBackend

from queue_runtime.testing.conformance import *  # noqa: F403  # the rows: pytest collects what is here
from queue_runtime.testing.sqs import CREDENTIALS, REGION
from tests.conformance.sqs_harness import SqsHarness

FAULTS = {
    "test_a_stale_receipt_does_not_take_the_message_from_its_new_holder": (
        "moto deletes a message for the receipt of an earlier receive; AWS agrees and deletes nothing"
    ),
}


POLL = 0.05
"""Seconds between two looks of a receive that waits."""


def one_at_a_time(patch: pytest.MonkeyPatch) -> None:
    true = SQSBackend.receive_message
    turn, never = threading.Lock(), threading.Event()

    def receive_message(
        backend: SQSBackend, queue_name: str, count: int, wait_seconds_timeout: int, *rest: Any
    ) -> list[Message]:
        end = monotonic() + wait_seconds_timeout
        while True:
            with turn:
                found = true(backend, queue_name, count, 0, *rest)
            if found or monotonic() >= end:
                return found
            never.wait(POLL)

    patch.setattr(SQSBackend, "receive_message", receive_message)


@pytest.fixture(scope="module")
def harness() -> Iterator[SqsHarness]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        with pytest.MonkeyPatch.context() as patch:
            one_at_a_time(patch)
            for name, value in CREDENTIALS.items():
                patch.setenv(name, value)
            with SqsHarness(
                "sqs on moto", REGION, f"http://{host}:{port}", fifo=False, faults=FAULTS
            ) as made:
                yield made
    finally:
        server.stop()
