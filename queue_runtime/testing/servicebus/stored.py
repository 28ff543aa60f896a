"""What the queues of the local Service Bus keep and answer with."""

from __future__ import annotations

import uuid
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Literal

LOCK_LOST = "com.microsoft:message-lock-lost"
SESSION_LOCK_LOST = "com.microsoft:session-lock-lost"
SESSION_TAKEN = "com.microsoft:session-cannot-be-locked"
NOT_FOUND = "com.microsoft:message-not-found"
NOT_ALLOWED = "amqp:not-allowed"

# Standard tier, https://learn.microsoft.com/azure/service-bus-messaging/service-bus-quotas
MAX_SIZE = 256 * 1024

State = Literal["active", "deferred", "scheduled"]

Outcome = Literal["completed", "abandoned", "deferred", "dead-lettered", "released"]


class Refused(Exception):
    """The service's answer where it does not do what was asked: an AMQP error condition and its text."""

    def __init__(self, condition: str, description: str) -> None:
        super().__init__(f"{condition}: {description}")
        self.condition = condition
        self.description = description


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """How a queue behaves. Times in seconds, sizes in bytes; a *ttl* or *duplicate_window* of 0: none.

    *max_delivery* is the number of failed deliveries at which a message is dead-lettered.
    """

    lock: float = 30.0
    sessions: bool = False
    max_delivery: int = 10
    dead_letter_on_expire: bool = False
    duplicate_window: float = 0.0
    ttl: float = 0.0
    max_message_size: int = MAX_SIZE
    max_batch_size: int = MAX_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A message as it is sent. *ttl* in seconds, *scheduled_at* in Unix seconds; *content* is opaque."""

    message_id: str | None = None
    session_id: str | None = None
    ttl: float | None = None
    scheduled_at: float | None = None
    partition_key: str | None = None
    content: Any = None


@dataclass(frozen=True, slots=True)
class Lock:
    """Who holds a message, and until when (Unix seconds)."""

    token: uuid.UUID
    until: float
    holder: Hashable


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why a message was put aside, and in which queue."""

    reason: str | None
    description: str | None
    source: str


@dataclass(slots=True, kw_only=True, eq=False)
class Stored:
    """A message in a queue. *delivery_count* counts the deliveries that failed: 0 at the first one.

    *properties* are what settlements changed of its application properties. Others read, the queue writes.
    """

    sequence: int
    enqueued_at: float
    message_id: str | None
    session_id: str | None
    partition_key: str | None
    ttl: float | None
    expires_at: float | None
    scheduled_at: float | None
    content: Any
    state: State = "active"
    delivery_count: int = 0
    lock: Lock | None = None
    dead_letter: DeadLetter | None = None
    properties: dict[Any, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Session:
    """The right to a session's messages, from `Queue.accept` until it is released or *lost*."""

    id: str
    holder: Hashable
    until: float
    lost: bool = False
