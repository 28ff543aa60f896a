"""The memory provider, on a clock that is moved, for the conformance rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from queue_runtime import QueueClient, connect, parse_url
from queue_runtime.events import Listener
from queue_runtime.testing import FakeClock
from queue_runtime.testing.conformance import FakeTime, QueueSpec

_names = (f"conformance-{n}" for n in count(1))


class MemoryHarness:
    """One broker, shared by its clients; queues are declared by a client that stays."""

    lease = 5.0
    look = 0.0
    counts_lag = 0.0
    opening = 0.0
    faults: Mapping[str, str] = {}

    def __init__(self, sessions: str) -> None:
        self.name = f"memory with {sessions}"
        self._sessions = sessions
        clock = FakeClock()
        self.time = FakeTime(clock)
        self._clock = clock
        self._broker = next(_names)
        self._owners: list[QueueClient] = []

    def make_queue(self, spec: QueueSpec) -> str:
        name = f"queue-{len(self._owners)}"
        kind = f":{self._sessions}" if spec.sessions else ""
        expired = "&dead_letter_expired=true" if spec.dead_letter_expired else ""
        declared = f"memory://{self._broker}?queues={name}{kind}&lease={spec.lease}{expired}"
        self._owners.append(connect(declared, clock=self._clock))
        # Every queue has a dead-letter queue here, except the dead-letter queues.
        return name if spec.dead_letters else f"{name}/$DeadLetterQueue"

    def connect(self, *, listeners: Sequence[Listener] = (), **settings: Any) -> QueueClient:
        target = replace(parse_url(f"memory://{self._broker}?max_message_size=65536"), **settings)
        return connect(target, listeners=listeners, clock=self._clock)

    def close(self) -> None:
        for owner in self._owners:
            owner.close()
