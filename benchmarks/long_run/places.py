"""The brokers that a long run can be on: each a process of its own, which a killed worker leaves alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from queue_runtime.testing.servicebus import LocalServiceBus
from queue_runtime.testing.sqs import CREDENTIALS, LocalSqs, make_queue

MAX_RECEIVES = 100
"""Deliveries after which the broker itself gives a message up: none comes near it."""


@contextmanager
def sqs(lease: int) -> Iterator[str]:
    os.environ.update(CREDENTIALS)
    with LocalSqs() as endpoint:
        sdk = endpoint.client()
        made = make_queue(sdk, "endurance.fifo", fifo=True, lease=lease, max_receives=MAX_RECEIVES)
        sdk.close()
        yield endpoint.target(events=made.name)


@contextmanager
def servicebus(lease: int) -> Iterator[str]:
    with LocalServiceBus() as broker:
        made = broker.make_queue("endurance", sessions=True, lock=lease, max_delivery=MAX_RECEIVES)
        yield broker.target(events=made)


PLACES: Mapping[str, Callable[[int], AbstractContextManager[str]]] = {"sqs": sqs, "servicebus": servicebus}
"""By name: given the seconds of a lease, the URL of a broker with an empty queue `events`."""
