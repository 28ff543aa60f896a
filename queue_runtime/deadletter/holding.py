"""Dead letters taken in rounds, and held so that they do not come twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from queue_runtime.deadletter.reports import Ended
from queue_runtime.errors import InvalidReceipt, LeaseLost, QueueError, UnsupportedOperation
from queue_runtime.message import Delivery, ReceivedMessage
from queue_runtime.provider import Abandon, Capabilities, Complete, Settlement
from queue_runtime.runtime import Runtime
from queue_runtime.settling import settle

ROUND = 1000
"""Dead letters that are taken, and put in order, together."""

ROUND_BYTES = 64 * 2**20
"""Bytes of bodies at which a round ends earlier."""

MOST_HELD = 10_000
"""Dead letters that are held, at most, because they stay where they are. SQS has 120,000 of a queue in flight
at most, of a FIFO queue 20,000 before November 2024.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-fifo.html"""

MOST_HELD_BYTES = 256 * 2**20
"""Bytes of their bodies, at most: they are in memory."""

LOOK = 30.0
"""Seconds that a dead letter is hidden from others while it is looked at or sent back, where that can be
chosen; after as many no more are taken for one round."""

LONG_LOOK = 300.0
"""Seconds likewise once `ROUND` of them are held: with ten thousand, renewing is what takes the requests."""


@dataclass(frozen=True, slots=True)
class Place:
    """A queue, by the program's name, and its dead-letter queue, by the broker's."""

    runtime: Runtime
    queue: str
    dead: str

    @property
    def capabilities(self) -> Capabilities:
        """Of the dead-letter queue."""
        return self.runtime.capabilities(self.dead)


def find(runtime: Runtime, queue: str) -> Place:
    """Ask the broker where they are. Raises `UnsupportedOperation` if *queue* has no dead-letter queue."""
    runtime.check_open()
    found = runtime.describe(runtime.target(queue))
    if found.dead_letter_queue is None:
        raise UnsupportedOperation(
            f"queue {queue!r} has no dead-letter queue; give it one (on SQS: a RedrivePolicy)",
            queue=queue,
            operation="dead_letters",
        )
    return Place(runtime, queue, found.dead_letter_queue)


class Holding:
    """Dead letters under leases that are kept alive until they are completed or released.

    For one thread. What is held when its process ends comes back when its lease does: on SQS within five
    minutes, elsewhere after the queue's own lease.
    """

    def __init__(self, place: Place) -> None:
        self._runtime = place.runtime
        self._dead = place.dead
        self._capabilities = place.capabilities
        self._held: dict[str, ReceivedMessage] = {}
        self._bytes = 0
        self.ended: Ended = "all"
        """Why `rounds` ended; while it goes on it means nothing."""

    def __enter__(self) -> Holding:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def rounds(self, most: int, limit: int | None = None) -> Iterator[list[Delivery]]:
        """Up to *most* at a time that are not held yet, and *limit* in all.

        None of them is empty. What the caller leaves in hand stays so until `release`.
        """
        left = limit
        while left is None or left > 0:
            taken, ended = self._take(most if left is None else min(most, left))
            if taken:
                yield taken
            if ended is None and (len(self._held) >= MOST_HELD or self._bytes >= MOST_HELD_BYTES):
                ended = "held"
            if ended is not None:
                self.ended = ended
                return
            left = None if left is None else left - len(taken)
        self.ended = "limit"

    def lost(self, delivery: Delivery) -> bool:
        """True if somebody else may have it by now."""
        held = self._held.get(delivery.broker_id)
        return held is None or held.lease.lost

    def complete(self, deliveries: Sequence[Delivery]) -> list[QueueError | None]:
        """Remove *deliveries*; what went wrong, aligned with them."""
        messages = [self._held[delivery.broker_id] for delivery in deliveries]
        errors = self._settle(messages, lambda message: Complete(message.delivery))
        for delivery, error in zip(deliveries, errors, strict=True):
            if error is None or isinstance(error, LeaseLost | InvalidReceipt):  # it may come again
                gone = self._held.pop(delivery.broker_id)
                self._runtime.leases.forget(gone.lease)
                self._bytes -= len(delivery.message.body)
        return errors

    def release(self) -> None:
        """Show the rest to others again. What the broker does not hear of comes back when its lease ends."""
        left = list(self._held.values())
        self._settle(left, lambda message: Abandon(message.delivery))
        for message in left:
            self._runtime.leases.forget(message.lease)
        self._held.clear()
        self._bytes = 0

    def _take(self, most: int) -> tuple[list[Delivery], Ended | None]:
        """Up to *most*, and why there are not more: None if there may be."""
        taken: list[Delivery] = []
        size = 0
        # A short poll asks only some of SQS's servers; one that can be looked into answers for all it has.
        wait = 0.0 if self._capabilities.peek else 1.0
        clock = self._runtime.clock
        give_up_at = clock.monotonic() + LOOK  # others may put in as fast as this takes out
        while len(taken) < most and size < ROUND_BYTES:
            if clock.monotonic() >= give_up_at:
                return taken, "time"
            want = min(self._capabilities.max_batch, most - len(taken))
            arrived = self._receive(want, wait)
            if not arrived:
                return taken, "all"
            new = [delivery for delivery in arrived if self._hold(delivery)]
            taken += new
            size += sum(len(delivery.message.body) for delivery in new)
        return taken, None

    def _receive(self, want: int, wait: float) -> Sequence[Delivery]:
        lease = None
        if self._capabilities.chosen_lease:
            lease = LOOK if len(self._held) < ROUND else LONG_LOOK
        receive = partial(self._runtime.provider.receive, self._dead, want, wait, lease=lease)
        return self._runtime.retrying("receive", self._dead, receive)

    def _hold(self, delivery: Delivery) -> bool:
        """Keep *delivery*. False if it was in hand already, and came again: its lease had ended, or the
        broker delivers twice by its nature."""
        before = self._held.get(delivery.broker_id)
        if before is not None:
            self._runtime.leases.forget(before.lease)
        message = self._runtime.received(self._runtime.name_of(self._dead), delivery)
        self._held[delivery.broker_id] = message
        self._runtime.keep_alive(message, target=self._dead)
        if before is None:
            self._bytes += len(delivery.message.body)
        return before is None

    def _settle(
        self, messages: Sequence[ReceivedMessage], make: Callable[[ReceivedMessage], Settlement]
    ) -> list[QueueError | None]:
        call = partial(self._runtime.provider.settle, self._dead)
        return settle(self._runtime, self._runtime, messages, make, call)
