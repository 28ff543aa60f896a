"""Links on which clients send messages to a queue."""

from __future__ import annotations

import time
from uuid import UUID

from queue_runtime.testing.servicebus.amqp_types import Symbol, ULong
from queue_runtime.testing.servicebus.errors import MESSAGE_SIZE_EXCEEDED, AmqpError
from queue_runtime.testing.servicebus.hub import Hub
from queue_runtime.testing.servicebus.links import Channel, Delivery, IncomingLink
from queue_runtime.testing.servicebus.messages import BATCH_FORMAT, Message
from queue_runtime.testing.servicebus.performatives import Accepted, Attach
from queue_runtime.testing.servicebus.queues import Incoming, Refused


class Sender(IncomingLink):
    """A link to a queue. Each delivery, a message or a batch of them, is taken whole or rejected."""

    def __init__(self, channel: Channel, theirs: Attach, hub: Hub) -> None:
        settings = hub.queue.settings
        largest = max(settings.max_message_size, settings.max_batch_size)
        super().__init__(channel, theirs, hub.queue.path, max_message_size=largest)
        self._hub = hub

    def start(self) -> None:
        settings = self._hub.queue.settings
        self.confirm(
            max_message_size=settings.max_message_size,
            properties={Symbol("com.microsoft:max-message-batch-size"): ULong(settings.max_batch_size)},
        )
        self.grant()

    def received(self, delivery: Delivery) -> None:
        faults = self.channel.broker.namespace.faults
        if condition := faults.take("send", self.entity):
            self.reject(delivery, str(condition), "the broker was told to refuse this")
            return
        if faults.take("lose_disposition", self.entity):
            return
        try:
            self._hub.queue.send(self._read(delivery), time.time())
        except (AmqpError, Refused) as exc:
            self.reject(delivery, exc.condition, exc.description)
            return
        self._hub.touched()
        if not faults.take("drop_disposition", self.entity):
            self.settle(delivery, Accepted())

    def _read(self, delivery: Delivery) -> list[Incoming]:
        settings = self._hub.queue.settings
        batch = delivery.message_format == BATCH_FORMAT
        limit = settings.max_batch_size if batch else settings.max_message_size
        if delivery.payload is None or len(delivery.payload) > limit:
            kind = "batch" if batch else "message"
            raise AmqpError(MESSAGE_SIZE_EXCEEDED, f"a {kind} has at most {limit} bytes on '{self.entity}'")
        if not batch:
            return [incoming(Message.parse(delivery.payload))]
        return [incoming(Message.parse(each)) for each in Message.parse(delivery.payload).data()]


def incoming(message: Message) -> Incoming:
    """Read from a message what a queue goes by; raises `DecodeError`."""
    properties = message.read_properties()
    scheduled = message.annotation("x-opt-scheduled-enqueue-time")
    partition_key = message.annotation("x-opt-partition-key")
    ttl = message.header.ttl
    return Incoming(
        message_id=_text(properties.message_id),
        session_id=properties.group_id,
        ttl=None if ttl is None else ttl / 1000,
        scheduled_at=scheduled / 1000 if isinstance(scheduled, int) else None,
        partition_key=partition_key if isinstance(partition_key, str) else None,
        content=message,
    )


def _text(message_id: str | int | bytes | UUID | None) -> str | None:
    if message_id is None:
        return None
    return message_id.hex() if isinstance(message_id, bytes) else str(message_id)
