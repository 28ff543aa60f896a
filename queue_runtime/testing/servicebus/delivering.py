"""What a message looks like when it leaves the broker.

https://learn.microsoft.com/azure/service-bus-messaging/service-bus-amqp-protocol-guide#messages
"""

from __future__ import annotations

from typing import Any, cast

from queue_runtime.testing.servicebus.amqp_types import Int, Timestamp
from queue_runtime.testing.servicebus.messages import Message
from queue_runtime.testing.servicebus.queues import Stored

_STATES = {"active": 0, "deferred": 1, "scheduled": 2}


def timestamp(seconds: float) -> Timestamp:
    return Timestamp(round(seconds * 1000))


def payload_of(stored: Stored, *, tell_state: bool = False) -> bytes:
    """Return the message as its sender wrote it, with what the broker knows of it.

    *tell_state* says whether it is active, deferred or scheduled: that is for peeking and for deferred
    messages.
    """
    message = cast(Message, stored.content)
    properties = dict(stored.properties)
    annotations: dict[str, Any] = {
        "x-opt-sequence-number": stored.sequence,
        "x-opt-enqueued-time": timestamp(stored.enqueued_at),
    }
    delivery_annotations: dict[str, Any] = {}
    if stored.lock is not None:
        annotations["x-opt-locked-until"] = timestamp(stored.lock.until)
        delivery_annotations["x-opt-lock-token"] = stored.lock.token
    if tell_state:
        annotations["x-opt-message-state"] = Int(_STATES[stored.state])
    if stored.dead_letter is not None:
        annotations["x-opt-deadletter-source"] = stored.dead_letter.source
        if stored.dead_letter.reason is not None:
            properties["DeadLetterReason"] = stored.dead_letter.reason
        if stored.dead_letter.description is not None:
            properties["DeadLetterErrorDescription"] = stored.dead_letter.description
    if properties:
        message = message.with_application_properties(properties)
    return message.encode(
        delivery_count=stored.delivery_count,
        delivery_annotations=delivery_annotations,
        message_annotations=annotations,
    )
