"""Throws away what is in queues of a Service Bus namespace, with the SDK."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from azure.servicebus import (
    ServiceBusClient,
    ServiceBusMessageState,
    ServiceBusReceivedMessage,
    ServiceBusReceiveMode,
    ServiceBusReceiver,
    ServiceBusSubQueue,
)

from queue_runtime.clock import SystemClock

PATIENCE = 330.0
"""Seconds that it may take: locks last five minutes at most, and what is locked is waited for."""

MANY = 100
"""Messages in one request for them."""


class Emptying:
    """Each call ends when the queue is empty, and fails if it does not become so. One thread at a time.

    What is there is seen through a receiver that takes nothing and stays; one that takes is closed at once,
    because it would swallow the messages of the next row.
    """

    def __init__(self, connection_string: str) -> None:
        self._clock = SystemClock()
        self._stack = ExitStack()
        self._sdk = self._stack.enter_context(ServiceBusClient.from_connection_string(connection_string))
        self._watchers: dict[str, ServiceBusReceiver] = {}

    def close(self) -> None:
        self._stack.close()

    def queue(self, name: str) -> None:
        """One without sessions. What is scheduled is cancelled."""
        self._take_all(name, None)

    def dead_letters(self, name: str) -> None:
        """Those of any queue."""
        self._take_all(name, ServiceBusSubQueue.DEAD_LETTER)

    def sessions(self, name: str) -> None:
        """One with sessions: messages and states. The service does not show what is scheduled in them."""
        for session_id in self._sdk.list_queue_sessions(name):
            with self._sdk.get_queue_receiver(
                name, session_id=session_id, receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE
            ) as taker:
                for _ in self._seen(taker, name):
                    taker.receive_messages(MANY, max_wait_time=1)
                taker.session.set_state(None)

    def _take_all(self, name: str, part: ServiceBusSubQueue | None) -> None:
        watcher = self._watcher(name, part)
        for seen in self._seen(watcher, name):
            scheduled = [
                message.sequence_number
                for message in seen
                if message.state == ServiceBusMessageState.SCHEDULED and message.sequence_number is not None
            ]
            if scheduled:
                with self._sdk.get_queue_sender(name) as sender:
                    sender.cancel_scheduled_messages(scheduled)
            with self._sdk.get_queue_receiver(
                name, sub_queue=part, receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE
            ) as taker:
                taker.receive_messages(MANY, max_wait_time=1)

    def _watcher(self, name: str, part: ServiceBusSubQueue | None) -> ServiceBusReceiver:
        key = f"{name}/{part}"
        if key not in self._watchers:
            receiver = self._sdk.get_queue_receiver(name, sub_queue=part)
            self._watchers[key] = self._stack.enter_context(receiver)
        return self._watchers[key]

    def _seen(self, watcher: ServiceBusReceiver, name: str) -> Iterator[list[ServiceBusReceivedMessage]]:
        """What is there, again and again, until nothing is."""
        deadline = self._clock.monotonic() + PATIENCE
        while seen := watcher.peek_messages(MANY, sequence_number=1):
            assert self._clock.monotonic() < deadline, (
                f"queue {name!r} does not become empty; does somebody else use it?"
            )
            yield seen
