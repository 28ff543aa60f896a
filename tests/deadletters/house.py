"""Queues whose messages are buried, before a client that follows a script."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from queue_runtime import Message, QueueClient
from queue_runtime.errors import InvalidReceipt
from queue_runtime.events import Event
from queue_runtime.provider import Abandon
from queue_runtime.testing import FakeClock
from tests.fakes import Act, Script, fails_for, scripted, stored

URL = "memory://?queues=events:sessions,groups:groups,jobs,mails"
DEAD = "/$DeadLetterQueue"

LOOKED_INTO: dict[str, Any] = {}
"""What the memory broker can do, and Service Bus."""

NOT_LOOKED_INTO: dict[str, Any] = {"peek": False, "max_batch": 10}
"""SQS cannot be looked into, and hands out ten at once."""


@contextmanager
def house(
    script: Script, clock: FakeClock, events: list[Event], **capabilities: Any
) -> Iterator[QueueClient]:
    with scripted(script, URL, clock=clock, listeners=[events.append], **capabilities) as made:
        yield made


def bury(client: QueueClient, queue: str, *names: str, reason: str = "bad", replays: int = 0) -> None:
    """On queues with sessions the first letter is the session."""
    client.send_batch(
        queue, [Message(body=n.encode(), id=n, session_id=n[0], replays=replays) for n in names]
    )
    bury_all(client, queue, len(names), reason=reason)


def bury_all(client: QueueClient, queue: str, left: int, *, reason: str = "bad") -> None:
    """Dead-letter so many, all that are there."""
    if queue in ("jobs", "mails"):
        while found := client.receive(queue, max_messages=100):
            client.dead_letter(found, reason=reason)
        return
    while left:
        session = client.accept_session(queue)
        assert session is not None
        with session:
            while found := session.receive():
                session.dead_letter(found, reason=reason)
                left -= len(found)


def buried(client: QueueClient, queue: str) -> list[str]:
    return stored(client, queue + DEAD)


def free(client: QueueClient, queue: str) -> int | None:
    return client.describe(queue + DEAD).active


def gives_back(client: QueueClient, message_id: str) -> Any:
    """A step: the broker gives this one to others, as after a lease that ran out, and refuses its receipt."""

    def step(act: Act) -> Any:
        runtime = client.runtime()
        found = [held.delivery for held in runtime.leases._held.values() if held.delivery]
        mine = [Abandon(delivery) for delivery in found if delivery.message.id == message_id]
        runtime.provider.settle("jobs" + DEAD, mine)
        return fails_for({message_id: InvalidReceipt})(act)

    return step
