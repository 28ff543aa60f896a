"""A queue's dead letters: look at them, count them, send them back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from queue_runtime.errors import BatchFailed, InvalidArgument, Outcome, QueueError, UnsupportedOperation
from queue_runtime.message import DeadLettered, Delivery, Message, ReceivedMessage
from queue_runtime.provider import Abandon, Complete, Settlement
from queue_runtime.runtime import Runtime
from queue_runtime.sending import send_back
from queue_runtime.settling import settle

ROUND = 1000
"""Dead letters that are put in order, and sent, together."""

MOST_HELD = 10_000
"""Dead letters that one replay holds, at most, because they are not to be sent: they are in memory, and SQS
has 20,000 of a FIFO queue in flight at most.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-queues.html"""

PAGE = 100
"""Dead letters that one request looks at."""

LOOK = 30.0
"""Seconds that a dead letter is hidden from others while it is looked at or sent back, where that can be
chosen; after as many no more are taken for one round."""


class DeadLetters:
    """The dead-letter queue of one queue, made by `QueueClient.dead_letters`. Any thread may use it."""

    def __init__(self, runtime: Runtime, queue: str) -> None:
        self._runtime = runtime
        self.queue = queue

    def count(self) -> int:
        """How many there are, as the broker tells it: on the clouds up to a minute old.

        Where it does not tell (on Service Bus to credentials that may not manage), they are looked at page by
        page and counted: one request for each hundred, and no more than those in memory.
        """
        self._runtime.check_open()
        dead = self._ask_where()
        found = self._runtime.describe(dead)
        if found.active is None or found.leased is None or found.delayed is None:
            return sum(len(page) for page in self._pages(dead))
        return found.active + found.leased + found.delayed

    def list(self, limit: int = 100) -> list[DeadLettered]:
        """Look at up to *limit* of them; they stay where they are.

        On SQS, which cannot be looked into, they are received and released, so their delivery counts rise;
        of a message group that the broker itself moved there, only the first ten can be seen.
        """
        self._runtime.check_open()
        _check_limit(limit)
        dead = self._ask_where()
        if self._runtime.capabilities(dead).peek:
            return [DeadLettered(delivery) for page in self._pages(dead, limit) for delivery in page]
        held = _Holding(self._runtime, dead)
        try:
            return [DeadLettered(delivery) for delivery in held.take(limit)]
        finally:
            held.release()

    def replay(
        self, *, where: Callable[[DeadLettered], bool] = lambda message: True, limit: int | None = None
    ) -> int:
        """Send those back to the queue for which *where* is true, at most *limit*; returns how many.

        Each keeps its id, session, attributes and body; it leaves the dead-letter queue when the queue has
        confirmed it. Those of a session go back in their order, a thousand dead letters at a time, behind
        whatever the session has now. What *where* refuses is held until the end; at ten thousand of those
        the replay ends.

        Raises `BatchFailed` if some could not be sent or removed: those are in the dead-letter queue still,
        and of the ones only not removed there is a copy in the queue too. Its text says how many had been
        sent back before.
        """
        self._runtime.check_open()
        most = float("inf") if limit is None else _check_limit(limit)
        held = _Holding(self._runtime, self._ask_where())
        replayed, ids = 0, set[str]()
        try:
            more = most > 0
            while more:
                arrived = held.take(ROUND)
                chosen = [
                    delivery
                    for delivery in arrived
                    # What a worker has given up again meanwhile would go round and round.
                    if delivery.message.id not in ids and where(DeadLettered(delivery))
                ]
                chosen.sort(key=_place)
                if limit is not None:
                    chosen = chosen[: limit - replayed]
                self._send_back(held, chosen, replayed)
                replayed += len(chosen)
                ids.update(delivery.message.id for delivery in chosen)
                more = len(arrived) == ROUND and replayed < most and len(held) < MOST_HELD
        finally:
            held.release()
        return replayed

    def _pages(self, dead: str, limit: int | None = None) -> Iterator[Sequence[Delivery]]:
        """Look at all of them, or at the first *limit*, in pieces: a broker may show fewer than asked for."""
        left = math.inf if limit is None else limit
        after = 0
        while left > 0:
            peek = partial(self._runtime.provider.peek, dead, int(min(PAGE, left)), after=after)
            page = self._runtime.retrying("peek", dead, peek)
            yield page
            places = [delivery.sequence for delivery in page if delivery.sequence is not None]
            if not places or max(places) <= after:
                return
            after = max(places)
            left -= len(page)

    def _send_back(self, held: _Holding, chosen: Sequence[Delivery], before: int) -> None:
        copies = [_copy(delivery) for delivery in chosen]
        sent = send_back(self._runtime, self.queue, copies)
        confirmed = [delivery for delivery, outcome in zip(chosen, sent, strict=True) if outcome.ok]
        removed = dict(zip([d.broker_id for d in confirmed], held.complete(confirmed), strict=True))
        outcomes = [
            Outcome(copy.id, outcome.error or removed[delivery.broker_id])
            for copy, delivery, outcome in zip(copies, chosen, sent, strict=True)
        ]
        BatchFailed.raise_for(
            f"replay to {self.queue!r}, {before} sent back before",
            outcomes,
            queue=self.queue,
            operation="replay",
        )

    def _ask_where(self) -> str:
        """Ask the broker for its name of the dead-letter queue."""
        found = self._runtime.describe(self._runtime.target(self.queue))
        if found.dead_letter_queue is None:
            raise UnsupportedOperation(
                f"queue {self.queue!r} has no dead-letter queue; give it one (on SQS: a RedrivePolicy)",
                queue=self.queue,
                operation="dead_letters",
            )
        return found.dead_letter_queue


class _Holding:
    """Dead letters held under leases that are kept alive until they are completed or released."""

    def __init__(self, runtime: Runtime, dead: str) -> None:
        self._runtime = runtime
        self._dead = dead
        self._held: dict[str, ReceivedMessage] = {}

    def __len__(self) -> int:
        return len(self._held)

    def take(self, most: int) -> Sequence[Delivery]:
        """Up to *most* that are not held yet; fewer if no more can be had, or not in time."""
        taken: list[Delivery] = []
        capabilities = self._runtime.capabilities(self._dead)
        # A short poll asks only some of SQS's servers; one that can be looked into answers for all it has.
        wait = 0.0 if capabilities.peek else 1.0
        clock = self._runtime.clock
        give_up_at = clock.monotonic() + LOOK  # others may put in as fast as this takes out
        while len(taken) < most and clock.monotonic() < give_up_at:
            want = min(capabilities.max_batch, most - len(taken))
            lease = LOOK if capabilities.chosen_lease else None
            receive = partial(self._runtime.provider.receive, self._dead, want, wait, lease=lease)
            arrived = self._runtime.retrying("receive", self._dead, receive)
            if not arrived:
                break
            for delivery in arrived:
                message = self._runtime.received(self._runtime.name_of(self._dead), delivery)
                self._held[delivery.broker_id] = message
                self._runtime.keep_alive(message)
            taken += arrived
        return taken

    def complete(self, deliveries: Sequence[Delivery]) -> Sequence[QueueError | None]:
        """Remove *deliveries*; what went wrong, aligned with them."""
        messages = [self._held[delivery.broker_id] for delivery in deliveries]
        errors = self._settle(messages, lambda message: Complete(message.delivery))
        for delivery, error in zip(deliveries, errors, strict=True):
            if error is None:
                del self._held[delivery.broker_id]
        return errors

    def release(self) -> None:
        """Show the rest to others again. What the broker does not hear of comes back when its lease ends."""
        left = list(self._held.values())
        self._settle(left, lambda message: Abandon(message.delivery))
        for message in left:
            self._runtime.leases.forget(message.lease)
        self._held.clear()

    def _settle(
        self, messages: Sequence[ReceivedMessage], make: Callable[[ReceivedMessage], Settlement]
    ) -> Sequence[QueueError | None]:
        call = partial(self._runtime.provider.settle, self._dead)
        return settle(self._runtime, self._runtime, messages, make, call)


def _check_limit(limit: int) -> int:
    if limit < 0:
        raise InvalidArgument(f"limit must be a number from 0 on, it is {limit}")
    return limit


def _place(delivery: Delivery) -> tuple[str, int]:
    """Sessions together, each in the order in which its messages were sent at first."""
    info = delivery.dead_letter
    session = delivery.message.session_id or (info.session_id if info else None) or ""
    sequence = info.sequence if info and info.sequence is not None else delivery.sequence
    return session, sequence or 0


def _copy(delivery: Delivery) -> Message:
    """What goes back: the message, with a deduplication id that the queue cannot have seen."""
    message, info = delivery.message, delivery.dead_letter
    return Message(
        body=message.body,
        id=message.id,
        # The message's own first: a record is trimmed where it would not fit.
        session_id=message.session_id or (info.session_id if info else None),
        attributes=message.attributes,
        content_type=message.content_type,
        correlation_id=message.correlation_id,
        deduplication_id=f"re-{delivery.broker_id}",
    )
