"""A local Service Bus, clients of the provider's to it, and what tests ask of them again and again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import Any, Generic, TypeVar

from azure.servicebus import ServiceBusClient, ServiceBusMessage

from queue_runtime.clock import SystemClock
from queue_runtime.config import ProviderSettings
from queue_runtime.errors import Outcome, QueueError
from queue_runtime.message import Delivery, Message
from queue_runtime.provider import Complete, ProviderSession, Settlement
from queue_runtime.providers.servicebus.client import AzureServiceBusClient, create
from queue_runtime.testing.servicebus import LocalServiceBus

PATIENCE = 10.0
"""Seconds for what must happen."""

T = TypeVar("T")


class House(ExitStack):
    """Clients that it has made are closed with it, and the broker is emptied."""

    def __init__(self, bus: LocalServiceBus) -> None:
        super().__init__()
        self.bus = bus
        self.callback(bus.delete_all)

    def client(self, connection_string: str | None = None, **options: str) -> AzureServiceBusClient:
        options["connection_string"] = connection_string or self.bus.connection_string
        made = create(ProviderSettings(provider="servicebus", options=options), SystemClock())
        self.callback(made.close)
        return made

    def queue(self, name: str = "jobs", **settings: Any) -> str:
        return self.bus.make_queue(name, **settings)

    def counts(self, queue: str = "jobs") -> dict[str, int]:
        counts: dict[str, int] = self.bus.stats()["queues"][queue]
        return {name: count for name, count in counts.items() if count}

    def until(self, counts: dict[str, int], queue: str = "jobs") -> None:
        """Wait until the queue has *counts*."""
        eventually(lambda: self.counts(queue) == counts, lambda: self.counts(queue))

    def fault(self, kind: str, **values: object) -> None:
        """Have the broker do something wrong, and wait until word of it has arrived at this process."""
        self.bus.fault(kind, **values)
        threading.Event().wait(0.1)

    def send_raw(self, queue: str, *messages: ServiceBusMessage) -> None:
        """As another program would, with the SDK alone."""
        with (
            ServiceBusClient.from_connection_string(self.bus.connection_string) as client,
            client.get_queue_sender(queue) as sender,
        ):
            for message in messages:
                sender.send_messages(message)


class Call(Generic[T]):
    """A call on another thread, and how long it takes."""

    def __init__(self, act: Callable[[], T]) -> None:
        self._future: Future[T] = Future()
        self._thread = threading.Thread(target=self._run, args=(act,), daemon=True)
        self.seconds = 0.0
        self._thread.start()

    def result(self) -> T:
        return self._future.result(PATIENCE)

    @property
    def done(self) -> bool:
        return self._future.done()

    def _run(self, act: Callable[[], T]) -> None:
        began = monotonic()
        try:
            value = act()
        except BaseException as exc:  # told to who asks for the result
            self.seconds = monotonic() - began
            self._future.set_exception(exc)
        else:
            self.seconds = monotonic() - began
            self._future.set_result(value)


def fill(
    client: AzureServiceBusClient, count: int, queue: str = "jobs", *, session: str | None = None
) -> None:
    """Send messages `m0`, `m1` …"""
    messages = [Message(body=b"x", id=f"m{n}", session_id=session) for n in range(count)]
    for outcome in client.send(queue, messages):
        assert outcome.error is None, outcome.error


def receive(client: AzureServiceBusClient, count: int = 1, queue: str = "jobs") -> list[Delivery]:
    """Exactly *count* messages."""
    found: list[Delivery] = []
    end = monotonic() + PATIENCE
    while len(found) < count:
        assert monotonic() < end, f"{len(found)} of {count} came"
        found += client.receive(queue, count - len(found), 1.0)
    return found


def head(session: ProviderSession) -> Delivery:
    [delivery] = session.receive(1, PATIENCE)
    return delivery


def accept(client: AzureServiceBusClient, queue: str = "jobs") -> ProviderSession:
    end = monotonic() + PATIENCE
    while monotonic() < end:
        for session in client.accept_sessions(queue, 1, 1.0):
            return session
    raise AssertionError("no session came")


def error_of(outcomes: Sequence[Outcome[Any]]) -> QueueError | None:
    [outcome] = outcomes
    return outcome.error


def settled(client: AzureServiceBusClient, settlement: Settlement, queue: str = "jobs") -> QueueError | None:
    """What went wrong."""
    return error_of(client.settle(queue, [settlement]))


def drained(client: AzureServiceBusClient, queue: str = "jobs", *, quiet: float = 0.5) -> list[Delivery]:
    """All messages that come until none has come for *quiet* seconds, completed."""
    found: list[Delivery] = []
    while deliveries := client.receive(queue, 8, quiet):
        for outcome in client.settle(queue, [Complete(each) for each in deliveries]):
            assert outcome.error is None, outcome.error
        found += deliveries
    return found


def ids(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.message.id for delivery in deliveries]


def eventually(condition: Callable[[], bool], told: Callable[[], object] = lambda: "") -> None:
    """Wait until *condition*, of another process's, is true."""
    pause, end = threading.Event(), monotonic() + PATIENCE
    while not condition():
        assert monotonic() < end, told()
        pause.wait(0.02)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail if the block takes longer."""
    began = monotonic()
    yield
    took = monotonic() - began
    assert took < seconds, f"it took {took:.2f} s, not {seconds} s at most"
