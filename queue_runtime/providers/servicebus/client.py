"""The Service Bus provider: queues with and without sessions behind the contract."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from queue_runtime.clock import Clock
from queue_runtime.config import ProviderSettings
from queue_runtime.errors import Outcome, UnsupportedOperation
from queue_runtime.message import Delivery, Message
from queue_runtime.provider import (
    Cancelled,
    Capabilities,
    ProviderClient,
    ProviderSession,
    QueueDescription,
    Settlement,
    never,
)
from queue_runtime.providers.servicebus import wire
from queue_runtime.providers.servicebus.connecting import Connector
from queue_runtime.providers.servicebus.errors import PROVIDER
from queue_runtime.providers.servicebus.facts import Administration
from queue_runtime.providers.servicebus.options import ServiceBusOptions
from queue_runtime.providers.servicebus.queue import ServiceBusQueue, outcome_of


def create(settings: ProviderSettings, clock: Clock) -> AzureServiceBusClient:
    """``servicebus://NAMESPACE?credential=default``, or a connection string; see `ServiceBusOptions`.

    Connects to nothing; raises `ConfigurationError` naming the option.
    """
    return AzureServiceBusClient(ServiceBusOptions.of(settings, clock), clock)


class AzureServiceBusClient(ProviderClient):
    """Queues of one namespace, by their paths.

    The identity in use needs the right to listen, to send, or both; with the right to manage, `describe`
    tells counts, lock duration and delivery limit. The first request to a queue opens its links, which takes
    some ten round trips each.

    Locks last as long as the queue says (5 s to 5 min); a receive cannot ask for another length. A session is
    lost with its connection; a message outside sessions is not, and is settled through another.
    """

    name: ClassVar[str] = PROVIDER

    def __init__(self, options: ServiceBusOptions, clock: Clock) -> None:
        self._connector = Connector(options, clock)
        self._administration = Administration(options.administration())
        self._lock = threading.Lock()
        # guarded by _lock
        self._queues: dict[str, ServiceBusQueue] = {}

    def describe(self, queue: str) -> QueueDescription:
        return self._queue(queue).describe()

    def capabilities(self, queue: str) -> Capabilities:
        return self._queue(queue).capabilities

    def size(self, queue: str, message: Message) -> int:
        return wire.size(message)

    def send(self, queue: str, messages: Sequence[Message]) -> Sequence[Outcome[None]]:
        """Those without a delay as one batch; those with one are scheduled, one after the other."""
        outcomes: dict[int, Outcome[None]] = {}
        at_once = [n for n, message in enumerate(messages) if not message.delay]
        if at_once:
            sent = outcome_of(partial(self._queue(queue).send, [messages[n] for n in at_once]))
            outcomes.update(dict.fromkeys(at_once, sent))
        later = [n for n in range(len(messages)) if n not in outcomes]
        scheduled = self.schedule(queue, [messages[n] for n in later])
        outcomes.update((n, Outcome(error=one.error)) for n, one in zip(later, scheduled, strict=True))
        return [outcomes[n] for n in range(len(messages))]

    def schedule(self, queue: str, messages: Sequence[Message]) -> Sequence[Outcome[str]]:
        found = self._queue(queue)
        return [outcome_of(partial(found.send_later, message)) for message in messages]

    def cancel(self, queue: str, receipts: Sequence[str]) -> Sequence[Outcome[None]]:
        found = self._queue(queue)
        return [outcome_of(partial(found.cancel, receipt)) for receipt in receipts]

    def receive(
        self,
        queue: str,
        max_messages: int,
        wait: float,
        *,
        lease: float | None = None,
        cancelled: Cancelled = never,
    ) -> Sequence[Delivery]:
        found = self._queue(queue)
        if found.capabilities.sessions != "none":
            raise UnsupportedOperation(
                f"queue {queue!r} has sessions: accept one instead, or run a worker", provider=PROVIDER
            )
        return found.receivers.receive(max_messages, wait, cancelled)

    def accept_sessions(
        self, queue: str, most: int, wait: float, *, cancelled: Cancelled = never
    ) -> Sequence[ProviderSession]:
        found = self._queue(queue)
        found.check_sessions()
        return found.openings.accept(most, wait, cancelled)

    def accept_session(self, queue: str, session_id: str) -> ProviderSession:
        return self._queue(queue).session(session_id)

    def settle(self, queue: str, settlements: Sequence[Settlement]) -> Sequence[Outcome[None]]:
        return self._queue(queue).settle(settlements)

    def renew(
        self, queue: str, deliveries: Sequence[Delivery], *, lease: float | None = None
    ) -> Sequence[Outcome[float]]:
        return self._queue(queue).receivers.renew(deliveries)

    def peek(self, queue: str, max_messages: int, *, after: int = 0) -> Sequence[Delivery]:
        return self._queue(queue).receivers.peek(max_messages, after)

    def wake(self, queue: str) -> None:
        with self._lock:
            found = self._queues.get(queue)
        if found is not None:
            found.wake()

    def close(self) -> None:
        """A blocked receive ends within a slice of 50 ms, and what it brought goes back. Sessions that are
        being opened are let go when they come. Links close beside each other, which takes a second or two."""
        if not self._connector.refuse():
            return
        with self._lock:
            queues = list(self._queues.values())
        for queue in queues:
            queue.close()
        self._connector.close()
        self._administration.close()
        self._connector.options.close()

    def _queue(self, name: str) -> ServiceBusQueue:
        self._connector.check_open()
        with self._lock:
            found = self._queues.get(name)
            if found is None:
                found = self._queues[name] = ServiceBusQueue(name, self._connector, self._administration)
            return found
