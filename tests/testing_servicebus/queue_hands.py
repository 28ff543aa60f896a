"""Short ways to a queue for the tests of its behaviour."""

from __future__ import annotations

import uuid

from queue_runtime.testing.servicebus.namespace import Namespace
from queue_runtime.testing.servicebus.queues import Incoming, Queue, QueueSettings, Session, Stored

NOW = 1_000_000.0


def made(settings: QueueSettings | None = None) -> Queue:
    return Namespace().put("q", settings or QueueSettings())


def incoming(*bodies: str, session: str | None = None) -> list[Incoming]:
    return [Incoming(content=body, session_id=session) for body in bodies]


def take(queue: Queue, now: float = NOW, session: Session | None = None) -> Stored:
    stored = queue.take(now, holder="me", session=session)
    assert stored is not None
    return stored


def take_all(queue: Queue, now: float = NOW, session: Session | None = None) -> list[str]:
    """Take whatever is ready, keeping the locks."""
    bodies = []
    while (stored := queue.take(now, holder="me", session=session)) is not None:
        bodies.append(stored.content)
    return bodies


def dead(queue: Queue, now: float = NOW) -> list[Stored]:
    assert queue.dead_letters is not None
    return queue.dead_letters.peek(0, 100, now=now)


def accepted(queue: Queue, session_id: str | None, now: float = NOW, holder: str = "me") -> Session:
    session = queue.accept(session_id, holder, now)
    assert session is not None
    return session


def token(stored: Stored) -> uuid.UUID:
    assert stored.lock is not None
    return stored.lock.token
