"""The senders of one queue: a few, each for one thread at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TypeVar

from azure.servicebus import ServiceBusMessage, ServiceBusMessageBatch, ServiceBusSender

from queue_runtime.condition import Condition
from queue_runtime.errors import (
    Closed,
    ConnectionFailed,
    InvalidReceipt,
    MessageTooLarge,
    OperationTimeout,
    OutcomeUnknown,
    ProviderError,
    QueueError,
)
from queue_runtime.providers.servicebus import handlers, sdk
from queue_runtime.providers.servicebus.connecting import Connector
from queue_runtime.providers.servicebus.errors import PROVIDER, SDK_ERRORS, translate

T = TypeVar("T")


class Senders:
    """Any thread may call; one that finds all senders busy waits. Connects on first use."""

    def __init__(self, queue: str, connector: Connector) -> None:
        self._queue = queue
        self._connector = connector
        self._clock = connector.clock
        self._most = connector.options.senders
        self._timeout = connector.options.request_timeout
        # For the service's answer; what the SDK takes longer than it is told comes on top.
        self._answer = max(self._timeout / 2, self._timeout - 2 * handlers.SEND_SOCKET_TIMEOUT)
        self._changed = Condition()
        # guarded by _changed
        self._idle: list[ServiceBusSender] = []
        self._made = 0
        self._closed = False

    def sizes(self) -> tuple[int, int]:
        """Bytes of a message and of a batch that the service takes."""
        with self._sender() as sender:
            return sdk.link_sizes(sender)

    def send(self, messages: Sequence[ServiceBusMessage]) -> None:
        """Store all of *messages* or none, in one request. Raises `MessageTooLarge` for too many bytes."""
        self._ask(lambda sender: sender.send_messages(_packed(sender, messages), timeout=self._answer))

    def schedule(self, message: ServiceBusMessage, due_at: datetime) -> int:
        """Store *message* to be delivered at *due_at*; returns what `cancel` takes."""
        (sequence,) = self._ask(
            lambda sender: sender.schedule_messages(message, due_at, timeout=self._answer)
        )
        return sequence

    def cancel(self, sequence: int) -> None:
        """Raises `InvalidReceipt` if it is due already, or gone."""
        try:
            self._ask(lambda sender: sender.cancel_scheduled_messages(sequence, timeout=self._answer))
        except ProviderError as exc:
            if exc.retryable:
                raise
            raise InvalidReceipt(
                f"scheduled message {sequence} is due already, or gone: {exc}", provider=PROVIDER
            ) from exc

    def close(self) -> None:
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for sender in idle:
            self._connector.soon(sender.close)

    def _ask(self, act: Callable[[ServiceBusSender], T]) -> T:
        with self._sender() as sender:
            try:
                return act(sender)
            except SDK_ERRORS as exc:
                error = translate(exc, changes=True, queue=self._queue)
            if isinstance(error, MessageTooLarge):
                error.limit = max(sdk.link_sizes(sender))
            raise error

    @contextmanager
    def _sender(self) -> Iterator[ServiceBusSender]:
        """A sender for this thread alone. One whose state is not known any more is replaced."""
        sender = self._take()
        usable = False
        try:
            yield sender
            usable = True
        except (OutcomeUnknown, ConnectionFailed, OperationTimeout):
            raise  # an answer that comes late would be taken for another's
        except QueueError:
            usable = True
            raise
        finally:
            self._put_back(sender, usable)

    def _take(self) -> ServiceBusSender:
        """One that is well: on another it would not be known whether what was sent has arrived."""
        while True:
            sender = self._take_any()
            if sender is None:
                break
            if sdk.is_well(sender):
                return sender
            self._put_back(sender, usable=False)
        try:
            made = handlers.make_sender(self._connector.sdk, self._queue, self._clock)
            with self._connector.in_time(made, self._timeout):
                handlers.open_sender(made)
            return made
        except SDK_ERRORS as exc:
            error = translate(exc, changes=False, queue=self._queue)
        self._forget_one()
        raise error

    def _take_any(self) -> ServiceBusSender | None:
        """An idle one; None: a new one may be made, and is counted already."""
        with self._changed:
            free = self._clock.wait_for(
                self._changed,
                lambda: self._closed or bool(self._idle) or self._made < self._most,
                self._timeout,
            )
            if self._closed:
                raise Closed("the client is closed", provider=PROVIDER)
            if not free:
                raise ConnectionFailed(
                    f"all {self._most} senders of queue {self._queue!r} were busy for {self._timeout:g} s; "
                    "nothing was sent",
                    provider=PROVIDER,
                )
            if self._idle:
                return self._idle.pop()
            self._made += 1
            return None

    def _put_back(self, sender: ServiceBusSender, usable: bool) -> None:
        with self._changed:
            if usable and not self._closed:
                self._idle.append(sender)
                self._changed.notify_all()
                return
        self._forget_one()
        self._connector.soon(sender.close)

    def _forget_one(self) -> None:
        with self._changed:
            self._made -= 1
            self._changed.notify_all()


def _packed(
    sender: ServiceBusSender, messages: Sequence[ServiceBusMessage]
) -> ServiceBusMessage | ServiceBusMessageBatch:
    """One message as it is, for it may be larger than a batch; several as a batch."""
    if len(messages) == 1:
        return messages[0]
    batch = sender.create_message_batch()
    for message in messages:
        batch.add_message(message)
    return batch
