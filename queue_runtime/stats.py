"""What a client has asked of its broker: counted, for cost and for a look at what it is doing."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from queue_runtime.events import Event, ProviderCalled

TAKING = ("receive", "accept_session")
"""Operations whose answer may be that there is nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationStats:
    """One kind of call to the provider."""

    calls: int = 0
    messages: int = 0
    """Entries sent, settled or renewed; messages received; sessions accepted."""
    empty: int = 0
    """Questions for messages or sessions that were answered with nothing."""
    failed: int = 0
    """Calls that ended with an error, and batches of which nothing went well."""
    seconds: float = 0.0
    """In all; calls of several threads at the same time count each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientStats:
    """What a client has done up to now, for all of its queues and threads, since it was made or its process
    forked."""

    operations: Mapping[str, OperationStats] = field(default_factory=dict)
    """By the library's names: `send`, `receive`, `accept_session`, `settle`, `renew`, `describe`, ..."""
    broker_requests: Mapping[str, int] = field(default_factory=dict)
    """By the broker's names, where they are counted (SQS, which bills them): `SendMessageBatch`, ..."""

    @property
    def requests(self) -> int:
        """Requests to the broker: those it counts, or else the calls to the provider."""
        return sum(self.broker_requests.values()) or sum(each.calls for each in self.operations.values())

    @property
    def empty_receives(self) -> int:
        """Questions for messages or sessions that were answered with nothing: what idle costs."""
        return sum(self._of(operation).empty for operation in TAKING)

    @property
    def sent(self) -> int:
        """Messages in calls that sent, those tried again included."""
        return self._of("send").messages + self._of("schedule").messages

    @property
    def received(self) -> int:
        return self._of("receive").messages

    @property
    def settled(self) -> int:
        """Messages in calls that completed, abandoned or dead-lettered."""
        return self._of("settle").messages

    @property
    def requests_per_message(self) -> float:
        """Requests for each message that went through this client: sent, or received, whichever are more.
        0 if none did."""
        messages = max(self.sent, self.received, self.settled)
        return self.requests / messages if messages else 0.0

    def _of(self, operation: str) -> OperationStats:
        return self.operations.get(operation, OperationStats())


class StatsBook:
    """A listener that counts. Any thread may tell and ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # guarded by _lock
        self._operations: dict[str, OperationStats] = {}

    def __call__(self, event: Event) -> None:
        if not isinstance(event, ProviderCalled):
            return
        failed = event.error is not None
        with self._lock:
            was = self._operations.get(event.operation, OperationStats())
            self._operations[event.operation] = OperationStats(
                calls=was.calls + 1,
                messages=was.messages + event.messages,
                empty=was.empty + (event.operation in TAKING and not failed and event.messages == 0),
                failed=was.failed + failed,
                seconds=was.seconds + event.seconds,
            )

    def stats(self, broker_requests: Mapping[str, int]) -> ClientStats:
        with self._lock:
            operations = dict(self._operations)
        return ClientStats(
            operations=MappingProxyType(operations), broker_requests=MappingProxyType(dict(broker_requests))
        )
