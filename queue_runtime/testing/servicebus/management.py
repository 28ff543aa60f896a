"""What is asked of a queue at its $management node, rather than done on a link of its own.

https://learn.microsoft.com/azure/service-bus-messaging/service-bus-amqp-request-response
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from queue_runtime.testing.servicebus.amqp_types import Array, Int, Symbol, Timestamp
from queue_runtime.testing.servicebus.broker import Client
from queue_runtime.testing.servicebus.delivering import payload_of, timestamp
from queue_runtime.testing.servicebus.errors import (
    ARGUMENT_ERROR,
    DECODE_ERROR,
    INTERNAL_ERROR,
    MESSAGE_LOCK_LOST,
    MESSAGE_NOT_FOUND,
    NOT_ALLOWED,
    NOT_FOUND,
    NOT_IMPLEMENTED,
    SERVER_BUSY,
    SESSION_CANNOT_BE_LOCKED,
    SESSION_LOCK_LOST,
    TIMEOUT,
    UNAUTHORIZED,
    AmqpError,
)
from queue_runtime.testing.servicebus.messages import Message
from queue_runtime.testing.servicebus.queues import Queue, Refused, Session
from queue_runtime.testing.servicebus.receivers import SessionReceiver, properties_to_modify
from queue_runtime.testing.servicebus.requests import Answer, Request
from queue_runtime.testing.servicebus.senders import incoming
from queue_runtime.testing.servicebus.stored import Outcome, Stored

_PREFIX = "com.microsoft:"

MAX_MESSAGES = 1000
"""That one answer brings, of those that were asked for."""

_STATUS = {
    ARGUMENT_ERROR: 400,
    DECODE_ERROR: 400,
    UNAUTHORIZED: 401,
    NOT_ALLOWED: 403,
    NOT_FOUND: 404,
    MESSAGE_NOT_FOUND: 404,
    TIMEOUT: 408,
    SESSION_CANNOT_BE_LOCKED: 409,
    MESSAGE_LOCK_LOST: 410,
    SESSION_LOCK_LOST: 410,
    INTERNAL_ERROR: 500,
    NOT_IMPLEMENTED: 501,
    SERVER_BUSY: 503,
}
_OTHER_ERROR = 500

_OUTCOMES: Mapping[str, Outcome] = {
    "completed": "completed",
    "abandoned": "abandoned",
    "defered": "deferred",  # spelled so by the service
    "suspended": "dead-lettered",
}

_EVER = 253_402_300_800_000
"""Milliseconds: the year 10000, with which the SDK asks for the sessions of all times."""

T = TypeVar("T")


def handle(entity: str, request: Request) -> Answer:
    """Do what *request* asks of the queue; an error is an answer too."""
    broker = request.connection.broker
    try:
        hub = broker.hub(entity)
        if hub is None:
            raise AmqpError(NOT_FOUND, f"there is no queue '{entity}'")
        if condition := broker.namespace.faults.take("mgmt", hub.queue.path):
            raise AmqpError(str(condition), "the broker was told to refuse this")
        operation = str(request.properties.get("operation"))
        act = _OPERATIONS.get(operation.removeprefix(_PREFIX))
        if act is None:
            raise AmqpError(NOT_IMPLEMENTED, f"there is no operation {operation!r:.100}")
        body = act(_Operation(hub.queue, request, time.time()))
        hub.touched()
    except (AmqpError, Refused) as exc:
        status = {
            "statusCode": Int(_STATUS.get(exc.condition, _OTHER_ERROR)),
            "statusDescription": exc.description,
            "errorCondition": Symbol(exc.condition),
        }
        return Answer(status)
    if body is None:
        return Answer({"statusCode": Int(204), "statusDescription": "No Content"})
    return Answer({"statusCode": Int(200), "statusDescription": "OK"}, body)


@dataclass(frozen=True, slots=True)
class _Operation:
    """A request to a queue. The methods read its body, and raise `AmqpError` if they find something else."""

    queue: Queue
    request: Request
    now: float

    def get(self, name: str, kind: type[T]) -> T:
        value = self.optional(name, kind)
        if value is None:
            raise AmqpError(ARGUMENT_ERROR, f"the request lacks {name}")
        return value

    def optional(self, name: str, kind: type[T]) -> T | None:
        body = self.request.body
        value = body.get(name) if isinstance(body, dict) else None
        if value is not None and not isinstance(value, kind):
            raise AmqpError(ARGUMENT_ERROR, f"{name} cannot be {value!r:.100}")
        return value

    def items(self, name: str, kind: type[T]) -> list[T]:
        values = self.get(name, list)
        for value in values:
            if not isinstance(value, kind):
                raise AmqpError(ARGUMENT_ERROR, f"{name} cannot hold {value!r:.100}")
        return values

    def lock_tokens(self) -> list[UUID]:
        try:
            return [UUID(str(value)) for value in self.get("lock-tokens", list)]
        except ValueError as exc:
            raise AmqpError(ARGUMENT_ERROR, f"a lock token is a UUID: {exc}") from exc

    def holder(self, session_id: str) -> Hashable:
        """Who asks: the client's link to that session, else the connection, which holds none."""
        return _session_link(self.request.connection, session_id) or self.request.connection


def _session_link(connection: Client, session_id: str) -> SessionReceiver | None:
    for link in connection.links():
        if isinstance(link, SessionReceiver) and link.session and link.session.id == session_id:
            return link
    return None


def _session(operation: _Operation) -> Session | None:
    session_id = operation.optional("session-id", str)
    if session_id is None:
        return None
    return operation.queue.held_session(session_id, operation.holder(session_id), operation.now)


# -- messages -----------------------------------------------------------------------------------------


def _renew_lock(operation: _Operation) -> dict[str, Any]:
    untils = operation.queue.renew(operation.lock_tokens(), operation.now)
    return {"expirations": Array(Timestamp, map(timestamp, untils))}


def _peek_message(operation: _Operation) -> dict[str, Any] | None:
    found = operation.queue.peek(
        operation.get("from-sequence-number", int),
        min(operation.get("message-count", int), MAX_MESSAGES),
        session_id=operation.optional("session-id", str),
        now=operation.now,
    )
    return {"messages": [{"message": payload_of(each, tell_state=True)} for each in found]} if found else None


def _receive_by_sequence_number(operation: _Operation) -> dict[str, Any] | None:
    session_id = operation.optional("session-id", str)
    found = operation.queue.receive_deferred(
        operation.items("sequence-numbers", int),
        delete=operation.get("receiver-settle-mode", int) == 0,
        session_id=session_id,
        holder=operation.holder(session_id) if session_id is not None else operation.request.connection,
        now=operation.now,
    )
    return {"messages": list(map(_deferred, found))} if found else None


def _deferred(stored: Stored) -> dict[str, Any]:
    entry: dict[str, Any] = {"message": payload_of(stored, tell_state=True)}
    if stored.lock is not None:
        entry["lock-token"] = stored.lock.token
    return entry


def _update_disposition(operation: _Operation) -> dict[str, Any]:
    status = operation.get("disposition-status", str)
    outcome = _OUTCOMES.get(status)
    if outcome is None:
        raise AmqpError(ARGUMENT_ERROR, f"disposition-status is {', '.join(_OUTCOMES)}, not {status!r:.100}")
    session = _session(operation)
    for token in operation.lock_tokens():
        operation.queue.settle(
            token,
            outcome,
            operation.now,
            session=session,
            properties=properties_to_modify(operation.optional("properties-to-modify", dict)),
            reason=operation.optional("deadletter-reason", str),
            description=operation.optional("deadletter-description", str),
        )
    return {}


def _schedule_message(operation: _Operation) -> dict[str, Any]:
    messages = []
    for entry in operation.items("messages", dict):
        encoded = entry.get("message")
        if not isinstance(encoded, bytes):
            raise AmqpError(ARGUMENT_ERROR, "each of messages has a message, encoded")
        messages.append(incoming(Message.parse(encoded)))
    return {"sequence-numbers": Array(int, operation.queue.schedule(messages, operation.now))}


def _cancel_scheduled_message(operation: _Operation) -> dict[str, Any]:
    operation.queue.cancel(operation.items("sequence-numbers", int), operation.now)
    return {}


# -- sessions -----------------------------------------------------------------------------------------


def _renew_session_lock(operation: _Operation) -> dict[str, Any]:
    session_id = operation.get("session-id", str)
    until = operation.queue.renew_session(session_id, operation.holder(session_id), operation.now)
    return {"expiration": timestamp(until)}


def _get_session_state(operation: _Operation) -> dict[str, Any]:
    session_id = operation.get("session-id", str)
    state = operation.queue.get_state(session_id, operation.holder(session_id), operation.now)
    return {"session-state": state}


def _set_session_state(operation: _Operation) -> dict[str, Any]:
    session_id = operation.get("session-id", str)
    state = operation.optional("session-state", bytes)
    operation.queue.set_state(session_id, state, operation.holder(session_id), operation.now)
    return {}


def _get_message_sessions(operation: _Operation) -> dict[str, Any] | None:
    updated = operation.get("last-updated-time", int)
    found = operation.queue.session_ids(
        None if updated >= _EVER else updated / 1000,
        max(operation.get("skip", int), 0),
        min(max(operation.get("top", int), 0), MAX_MESSAGES),
    )
    return {"sessions-ids": found} if found else None


_OPERATIONS: Mapping[str, Callable[[_Operation], dict[str, Any] | None]] = {
    "renew-lock": _renew_lock,
    "peek-message": _peek_message,
    "receive-by-sequence-number": _receive_by_sequence_number,
    "update-disposition": _update_disposition,
    "schedule-message": _schedule_message,
    "cancel-scheduled-message": _cancel_scheduled_message,
    "renew-session-lock": _renew_session_lock,
    "get-session-state": _get_session_state,
    "set-session-state": _set_session_state,
    "get-message-sessions": _get_message_sessions,
}
