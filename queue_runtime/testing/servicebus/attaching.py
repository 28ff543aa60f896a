"""Decides what link a client's attach makes: by its address, its direction, and what the client may do."""

from __future__ import annotations

from functools import partial

from queue_runtime.testing.servicebus import cbs, management
from queue_runtime.testing.servicebus.errors import (
    INVALID_FIELD,
    NOT_ALLOWED,
    NOT_FOUND,
    UNAUTHORIZED,
    AmqpError,
)
from queue_runtime.testing.servicebus.hub import Hub
from queue_runtime.testing.servicebus.links import Channel, Link, RefusedLink
from queue_runtime.testing.servicebus.performatives import Attach
from queue_runtime.testing.servicebus.queues import DEAD_LETTER_SUFFIX, Refused
from queue_runtime.testing.servicebus.receivers import SESSION_FILTER, Receiver, SessionReceiver
from queue_runtime.testing.servicebus.requests import RequestLink, ResponseLink
from queue_runtime.testing.servicebus.senders import Sender

CBS = "$cbs"
MANAGEMENT_SUFFIX = "/$management"


def attach(channel: Channel, theirs: Attach) -> Link:
    """Return the link, its attach answered or, where a session is waited for, to be answered later."""
    try:
        link = _make(channel, theirs)
        link.start()
    except (AmqpError, Refused) as exc:
        return RefusedLink(channel, theirs, exc.condition, exc.description)
    return link


def entity_path(address: str) -> str:
    """Return the path in ``amqps://host:port/path``, or in a bare ``path``."""
    _, scheme, rest = address.partition("://")
    if scheme:
        _, _, address = rest.partition("/")
    return address.strip("/")


def _make(channel: Channel, theirs: Attach) -> Sender | Receiver | RequestLink | ResponseLink:
    end = theirs.source if theirs.role else theirs.target
    if end is None or not end.address:
        raise AmqpError(INVALID_FIELD, "the attach names no address; there are no dynamic nodes")
    path = entity_path(end.address)
    if path == CBS:
        if theirs.role:
            return ResponseLink(channel, theirs, path)
        return RequestLink(channel, theirs, path, cbs.put_token)
    entity = path[: -len(MANAGEMENT_SUFFIX)] if path.lower().endswith(MANAGEMENT_SUFFIX) else path
    hub = channel.broker.hub(entity)
    if hub is None:
        raise AmqpError(NOT_FOUND, f"there is no queue '{entity}'")
    if not cbs.may_use(channel.connection, entity):
        raise AmqpError(UNAUTHORIZED, f"the client has put no token for '{entity}', or it has expired")
    if entity != path:
        if theirs.role:
            return ResponseLink(channel, theirs, path)
        return RequestLink(channel, theirs, path, partial(management.handle, entity))
    if theirs.role:
        return _receiver(channel, theirs, hub)
    if entity.lower().endswith(DEAD_LETTER_SUFFIX.lower()):
        raise AmqpError(NOT_ALLOWED, f"nobody can send to '{entity}'; messages are dead-lettered")
    return Sender(channel, theirs, hub)


def _receiver(channel: Channel, theirs: Attach, hub: Hub) -> Receiver:
    assert theirs.source is not None
    with_session = SESSION_FILTER in (theirs.source.filter or {})
    queue = hub.queue
    if with_session and not queue.settings.sessions:
        raise AmqpError(NOT_ALLOWED, f"'{queue.path}' has no sessions; it needs a receiver without one")
    if not with_session and queue.settings.sessions:
        raise AmqpError(NOT_ALLOWED, f"'{queue.path}' has sessions; it needs a receiver that accepts one")
    return SessionReceiver(channel, theirs, hub) if with_session else Receiver(channel, theirs, hub)
