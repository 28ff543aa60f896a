"""Service Bus, at any broker that makes queues over the control port, for the conformance rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any
from uuid import uuid4

from queue_runtime import QueueClient, connect, load_settings
from queue_runtime.events import Listener
from queue_runtime.testing.conformance import QueueSpec, RealTime
from queue_runtime.testing.servicebus.control_port import Controlled

MAX_MESSAGE_SIZE = 64 * 1024
"""Bytes: the rows that fill it run faster than with the service's own, and show that the link's is kept."""

WINDOW = 600.0
"""Seconds for which the queues know the ids that they have had: rows send some of them twice."""


class ServiceBusHarness:
    """*broker* makes the queues, *target* is what clients connect to."""

    lease = 3.0
    look = 0.0
    counts_lag = 0.0
    opening = 2.0
    faults: Mapping[str, str] = {}

    def __init__(self, name: str, broker: Controlled, target: str) -> None:
        self.name = name
        self.time = RealTime()
        self._broker = broker
        self._target = target
        self._names = (f"qr-{uuid4().hex[:8]}-{n}" for n in count())

    def make_queue(self, spec: QueueSpec) -> str:
        name = self._broker.make_queue(
            next(self._names),
            lock=spec.lease,
            sessions=spec.sessions,
            max_delivery=spec.max_receives or 1000,
            dead_letter_on_expire=spec.dead_letter_expired,
            duplicate_window=WINDOW,
            max_message_size=MAX_MESSAGE_SIZE,
            max_batch_size=MAX_MESSAGE_SIZE,
        )
        # Every queue has a dead-letter queue here, except the dead-letter queues.
        return name if spec.dead_letters else f"{name}/$DeadLetterQueue"

    def connect(self, *, listeners: Sequence[Listener] = (), **settings: Any) -> QueueClient:
        return connect(replace(load_settings(self._target), **settings), listeners=listeners)
