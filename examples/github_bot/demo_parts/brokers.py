"""The brokers that the demo runs on: how each is started, gets its queue, and is named by a URL.

Nothing else in the demo knows one broker from another.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol
from uuid import uuid4

from queue_runtime.testing.servicebus import LocalServiceBus
from queue_runtime.testing.sqs import CREDENTIALS, LocalSqs, make_queue

LEASE = 30
"""Seconds for which a session, or a message, is held before it must be renewed."""

DUPLICATES = 300
"""Seconds in which a delivery that comes again is dropped; an SQS FIFO queue cannot do otherwise."""

MAX_DELIVERIES = 100
"""Deliveries after which the broker itself gives up a message: more than the bot ever needs."""


class Broker(Protocol):
    name: str
    where: str
    """What runs, for the reader."""
    shared: bool
    """Other processes can use it; if not, the bot is a thread of this one."""

    def running(self) -> AbstractContextManager[str]:
        """Start it with an empty queue for `events` and its dead letters; the block's value is the URL for
        `connect`, in this process and in its children."""


class Memory:
    name = "memory"
    where = "memory, everything in one process"
    shared = False

    @contextmanager
    def running(self) -> Iterator[str]:
        # A name of its own each time: what has one is shared by all of the process that know it.
        yield f"memory://github-bot-demo-{uuid4().hex}?queues=events:sessions"


class Sqs:
    name = "sqs"
    where = "SQS FIFO on a local endpoint, the bot in a process of its own"
    shared = True

    @contextmanager
    def running(self) -> Iterator[str]:
        with LocalSqs() as endpoint:
            sdk = endpoint.client()
            try:
                made = make_queue(
                    sdk, "github-events.fifo", fifo=True, lease=LEASE, max_receives=MAX_DELIVERIES
                )
            finally:
                sdk.close()
            with _environment(CREDENTIALS):
                yield endpoint.target(events=made.name)


class ServiceBus:
    name = "servicebus"
    where = "Service Bus sessions on a local broker, the bot in a process of its own"
    shared = True

    @contextmanager
    def running(self) -> Iterator[str]:
        with LocalServiceBus() as broker:
            made = broker.make_queue(
                "github-events",
                sessions=True,
                lock=LEASE,
                duplicate_window=DUPLICATES,
                max_delivery=MAX_DELIVERIES,
            )
            yield broker.target(events=made)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """*values* in this process's environment, for as long as the block lasts."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


_ALL: Sequence[Broker] = (Memory(), Sqs(), ServiceBus())

BROKERS = {each.name: each for each in _ALL}
"""By name, in the order in which `all` runs them."""
