"""What tests of the memory provider do again and again."""

from __future__ import annotations

from collections.abc import Sequence

from queue_runtime.config import parse_url
from queue_runtime.message import Delivery, Message
from queue_runtime.provider import ProviderSession
from queue_runtime.providers.memory import InMemoryClient, create
from queue_runtime.testing import FakeClock

DEAD = "/$DeadLetterQueue"


def made(url: str, clock: FakeClock | None = None) -> InMemoryClient:
    return create(parse_url(url).provider, clock or FakeClock())


def send(client: InMemoryClient, queue: str, *names: str, delay: float = 0.0) -> None:
    """The first letter is the session."""
    client.send(queue, [Message(body=n.encode(), id=n, session_id=n[0], delay=delay) for n in names])


def names(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.message.id for delivery in deliveries]


def receive(client: InMemoryClient, queue: str, most: int = 10) -> list[str]:
    return names(client.receive(queue, most, 0.0))


def accept(client: InMemoryClient, queue: str = "events") -> ProviderSession:
    found = client.accept_sessions(queue, 1, 0.0)
    assert found
    return found[0]
