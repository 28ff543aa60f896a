"""A handler of ten lease lengths finishes once, on brokers behind a socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from queue_runtime import Message, QueueClient, ReceivedMessage, Worker, connect
from queue_runtime.events import Event, LostLease, MessageCompleted
from queue_runtime.testing.servicebus import LocalServiceBus
from queue_runtime.testing.sqs import LocalSqs, make_queue

LEASE = 5
"""Seconds; shorter ones run out on a machine that is busy with other tests, rightly."""
PATIENCE = 15.0


@pytest.fixture
def targets(endpoint: LocalSqs) -> Iterator[dict[str, str]]:
    """A queue `events` of each kind, whose leases last five seconds."""
    sqs = endpoint.client()
    fifo = make_queue(sqs, "long-fifo", fifo=True, lease=LEASE).name
    standard = make_queue(sqs, "long-standard", lease=LEASE).name
    sqs.close()
    with LocalServiceBus() as bus:
        yield {
            "SQS FIFO": endpoint.target(events=fifo),
            "SQS standard": endpoint.target(events=standard),
            "Service Bus": bus.target(events=bus.make_queue("plain", lock=LEASE)),
            "Service Bus, sessions": bus.target(events=bus.make_queue("sessions", lock=LEASE, sessions=True)),
        }


class Hall:
    """One worker, whose handler takes ten lease lengths for the first message and no time for the second."""

    def __init__(self, target: str) -> None:
        self._changed = threading.Condition()
        self.started: list[tuple[str, int]] = []
        self.completed: list[str] = []
        self.lost = 0
        self.client: QueueClient = connect(target, listeners=[self._told])

    def handler(self, message: ReceivedMessage) -> None:
        with self._changed:
            self.started.append((message.text, message.delivery_count))
            if message.text == "long":
                self._changed.wait_for(lambda: bool(self.lost), 10.0 * LEASE)
        message.lease.check()

    def wait(self) -> None:
        with self._changed:
            over = self._changed.wait_for(lambda: len(self.completed) == 2, 10.0 * LEASE + PATIENCE)
            assert over, self.started

    def _told(self, event: Event) -> None:
        with self._changed:
            self.lost += isinstance(event, LostLease)
            if isinstance(event, MessageCompleted):
                self.completed.append(event.message_id)
            self._changed.notify_all()


@pytest.mark.timeout(180)  # it takes ten leases
def test_a_handler_of_ten_lease_lengths_finishes_once(targets: dict[str, str]) -> None:
    """On all kinds of queues at the same time, for it takes its time."""
    halls = {kind: Hall(target) for kind, target in targets.items()}
    with ExitStack() as everything:
        for hall in halls.values():
            everything.enter_context(hall.client)
            hall.client.send_batch(
                "events", [Message.of(text, id=text, session_id="s") for text in ("long", "next")]
            )
            everything.enter_context(Worker(hall.client, "events", hall.handler, concurrency=2, poll=1.0))
        for hall in halls.values():
            hall.wait()
        left = [hall.client.describe("events") for hall in halls.values()]

    # A second time would have come by then: ten leases have passed.
    assert {kind: sorted(hall.started) for kind, hall in halls.items()} == {
        kind: [("long", 1), ("next", 1)] for kind in halls
    }
    assert [hall.lost for hall in halls.values()] == [0, 0, 0, 0]
    assert [(found.active or 0, found.leased or 0) for found in left] == [(0, 0)] * 4
    for kind in ("SQS FIFO", "Service Bus, sessions"):
        assert halls[kind].completed == ["long", "next"]
