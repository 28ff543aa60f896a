"""What is asked of the SDK behind its public names, each with the reason.

Written for azure-servicebus 7.15; the tests of this package run every line of it on a real link.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable, Sequence
from typing import Any

from azure.servicebus import (
    ServiceBusReceivedMessage,
    ServiceBusReceiver,
    ServiceBusSender,
)
from azure.servicebus._common import mgmt_handlers
from azure.servicebus._common.constants import (
    MGMT_REQUEST_FROM_SEQUENCE_NUMBER,
    MGMT_REQUEST_MAX_MESSAGE_COUNT,
    REQUEST_RESPONSE_PEEK_OPERATION,
)
from azure.servicebus._pyamqp.constants import ConnectionState, LinkState

from queue_runtime.clock import Clock
from queue_runtime.providers.servicebus import salvage
from queue_runtime.providers.servicebus.limits import DEAD_LETTERS

SLICE = 0.05
"""Seconds of one turn of receiving, and of one read of the socket: a settlement or a renewal waits for it."""

FRAMES = 32
"""Frames that are read at most to see whether a link is well."""

_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


def is_dead_letters(queue: str) -> bool:
    return queue.lower().endswith(DEAD_LETTERS)


def confirm_within(receiver: ServiceBusReceiver, timeout: float) -> None:
    """Have settlements through *receiver* take *timeout* seconds: half for the service's word on the link,
    half for asking once more on the management link. It is a setting of the receiver, made before it is known
    how long its locks last."""
    receiver._config.timeout = timeout / 2
    receiver._config.try_timeout = timeout / 2


class Credit:
    """Takes back the right to send messages that a receive has left over.

    What comes by it after the receive lies in the socket, locked and unseen, until somebody reads it. The
    SDK takes nothing back while a receiver is open, and does not hear the service's answer.
    """

    def __init__(self, receiver: Any, clock: Clock) -> None:
        self._receiver = receiver
        self._clock = clock
        self._answered = True
        self._answers = False
        """The service has answered before: if it does not any more, the link is broken."""
        self._link: Any = receiver._handler._link
        self._connection: Any = receiver._handler._connection
        self._link._incoming_flow = self._hear

    def take_back(self, timeout: float) -> Sequence[ServiceBusReceivedMessage]:
        """Returns what was on its way, when nothing more can come. Raises `TimeoutError` where the service
        always answered, and does not within *timeout* seconds."""
        if self._link.current_link_credit > 0:
            self._answered = False
            self._link.flow(link_credit=0, drain=True, echo=True)
            # A service with no sense for `drain` and `echo` never answers: receives must not pay for that.
            end = self._clock.monotonic() + (timeout if self._answers else SLICE)
            while not self._answered and self._clock.monotonic() < end:
                self._connection.listen(wait=SLICE)
                self._link.get_state()
            if not self._answered and self._answers:
                raise TimeoutError("the service does not answer on this link any more")
            self._answers = self._answered
        there = self._receiver._handler._received_messages.qsize()
        # What is there already is not waited for, and gives no new right.
        found: Sequence[ServiceBusReceivedMessage] = (
            self._receiver.receive_messages(there, SLICE) if there else []
        )
        return found

    def _hear(self, frame: Sequence[Any]) -> None:
        self._answered = True


def is_well(handler: ServiceBusReceiver | ServiceBusSender) -> bool:
    """False if its link or its connection has ended, as far as that can be seen without asking the service.

    The SDK notices when it uses them next, and then cannot say whether what it wrote has arrived.
    """
    inner: Any = handler._handler
    try:
        for _ in range(FRAMES):
            if not _is_readable(inner._connection._transport.sock):
                break
            inner._connection.listen(wait=False)
        connection = inner._connection
        return (
            not inner._shutdown
            and connection._error is None
            and connection.state is ConnectionState.OPENED
            and inner._link.get_state() is LinkState.ATTACHED
        )
    except Exception:  # whatever the SDK makes of what it reads there
        return False


def is_shut_down(receiver: ServiceBusReceiver) -> bool:
    """True if *receiver* has ended without saying so: from then on every receive is empty."""
    return bool(getattr(receiver._handler, "_shutdown", True))


def release(receiver: ServiceBusReceiver, message: ServiceBusReceivedMessage) -> None:
    """Give *message* back without counting a delivery: only the SDK itself has a use for that."""
    receiver._handler.settle_messages(message._delivery_id, message._delivery_tag, "released")


def peek(receiver: Any, most: int, first: int, timeout: float) -> Sequence[ServiceBusReceivedMessage]:
    """As the SDK's `peek_messages`, which fails on a message that it cannot decode."""

    def read(status: int, response: Any, description: Any, amqp_transport: Any) -> Any:
        if status == 200:
            payloads = [entry[b"message"] for entry in response.value[b"messages"]]
            return [
                ServiceBusReceivedMessage(salvage.decode(payload), receiver=receiver, is_peeked_message=True)
                for payload in payloads
            ]
        otherwise: Callable[..., Any] = mgmt_handlers.peek_op
        return otherwise(status, response, description, receiver=receiver, amqp_transport=amqp_transport)

    request = {
        MGMT_REQUEST_FROM_SEQUENCE_NUMBER: receiver._amqp_transport.AMQP_LONG_VALUE(first),
        MGMT_REQUEST_MAX_MESSAGE_COUNT: most,
    }
    receiver._populate_message_properties(request)
    found: Sequence[ServiceBusReceivedMessage] = receiver._mgmt_request_response_with_retry(
        REQUEST_RESPONSE_PEEK_OPERATION, request, read, timeout=timeout
    )
    return found


def problem(message: ServiceBusReceivedMessage) -> str | None:
    """Why *message* does not show all that was sent; None if it does."""
    return salvage.problem(message._message)


def link_sizes(sender: ServiceBusSender) -> tuple[int, int]:
    """Bytes of a message and of a batch that the service takes on this link, as it said at the opening."""
    return sender._max_message_size_on_link, sender._max_batch_size_on_link


def _is_readable(connected: Any) -> bool:
    if getattr(connected, "pending", None) is not None and connected.pending():  # it has left the network
        return True
    with _Selector() as selector:
        selector.register(connected, selectors.EVENT_READ)
        return bool(selector.select(0))
