"""Requests and responses: a node that is asked on one link and answers on another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from queue_runtime.testing.servicebus.amqp_types import ULong
from queue_runtime.testing.servicebus.broker import Client
from queue_runtime.testing.servicebus.errors import (
    MESSAGE_SIZE_EXCEEDED,
    NOT_FOUND,
    RESOURCE_LIMIT,
    AmqpError,
)
from queue_runtime.testing.servicebus.links import Channel, Delivery, IncomingLink, OutgoingLink
from queue_runtime.testing.servicebus.messages import Message, Properties, response
from queue_runtime.testing.servicebus.performatives import Accepted, Attach

MAX_REQUEST = 4 * 1024 * 1024
"""Bytes; many scheduled messages may come in one request."""

MAX_WAITING = 1000
"""Answers for which a client has given no credit yet."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks; *properties* are the message's application properties, *body* its one value."""

    connection: Client
    properties: Mapping[Any, Any]
    body: Any


@dataclass(frozen=True, slots=True)
class Answer:
    """The application properties and the value of a response."""

    properties: Mapping[str, Any]
    body: Any = None


Handler = Callable[[Request], Answer]


class RequestLink(IncomingLink):
    """The link that requests come in by. *handler* answers each at once."""

    def __init__(self, channel: Channel, theirs: Attach, node: str, handler: Handler) -> None:
        super().__init__(channel, theirs, node, max_message_size=MAX_REQUEST)
        self._handler = handler

    def start(self) -> None:
        self.confirm()
        self.grant()

    def received(self, delivery: Delivery) -> None:
        if delivery.payload is None:
            self.reject(delivery, MESSAGE_SIZE_EXCEEDED, f"a request has at most {MAX_REQUEST} bytes")
            return
        try:
            message = Message.parse(delivery.payload)
            properties = message.read_properties()
            way_back = self._way_back(properties)
            request = Request(
                self.channel.connection, message.read_application_properties(), message.read_value()
            )
        except AmqpError as exc:
            self.reject(delivery, exc.condition, exc.description)
            return
        self.settle(delivery, Accepted())
        answer = self._handler(request)
        correlation = properties.message_id
        if isinstance(correlation, int):
            correlation = ULong(correlation)
        way_back.answer(response(correlation, answer.properties, answer.body))

    def _way_back(self, properties: Properties) -> ResponseLink:
        """The link that the request names in reply-to, else the one from the same node: $cbs names none."""
        links = [
            link
            for link in self.channel.links
            if isinstance(link, ResponseLink) and link.attached and link.entity == self.entity
        ]
        for link in links:
            if properties.reply_to == link.reply_to:
                return link
        if not links:
            raise AmqpError(NOT_FOUND, f"no link is attached to get the answers of '{self.entity}' by")
        return links[0]


class ResponseLink(OutgoingLink):
    """The link that answers go out by; they wait for the client's credit."""

    def __init__(self, channel: Channel, theirs: Attach, node: str) -> None:
        super().__init__(channel, theirs, node)
        self.reply_to = theirs.target.address if theirs.target else None
        self._answers: deque[bytes] = deque()

    def start(self) -> None:
        self.confirm()

    def answer(self, payload: bytes) -> None:
        if len(self._answers) == MAX_WAITING:
            self.detach(
                RESOURCE_LIMIT, f"{MAX_WAITING} answers wait for credit; the client asks and gives none"
            )
            return
        self._answers.append(payload)
        self.offer()

    def offer(self) -> None:
        while self._answers and self.ready:
            self.deliver(self._answers.popleft(), tag=b"", settled=True)
        if not self._answers:
            self.drained()
