"""A queue's dead letters: look at them, count them, send them back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from queue_runtime.errors import BatchFailed, Outcome, UnsupportedOperation
from queue_runtime.leases import Held
from queue_runtime.message import DeadLettered, Delivery, Lease, Message
from queue_runtime.provider import Abandon, Complete, Settlement
from queue_runtime.runtime import QueueLane, Runtime
from queue_runtime.sending import send
from queue_runtime.strategies import no_session

ROUND = 1000
"""Dead letters held at once by a replay: they are put in order before they are sent."""

LOOK = 30.0
"""Seconds that a dead letter is hidden from others while it is looked at or sent back."""


class DeadLetters:
    """The dead-letter queue of one queue, made by `QueueClient.dead_letters`. Any thread may use it."""

    def __init__(self, runtime: Runtime, queue: str) -> None:
        self._runtime = runtime
        self.queue = queue

    def count(self) -> int:
        """How many there are, as the broker tells it: on the clouds up to a minute old."""
        self._runtime.check_open()
        found = self._runtime.retrying(
            "describe", self._target, lambda: self._runtime.provider.describe(self._dead)
        )
        return found.active + found.leased + found.delayed

    def list(self, limit: int = 100) -> list[DeadLettered]:
        """Look at up to *limit* of them; they stay where they are.

        On SQS, which cannot be looked into, they are received and released, so their delivery counts rise;
        of a message group that the broker itself moved there, only the first ten can be seen.
        """
        self._runtime.check_open()
        dead = self._dead
        if limit < 1:
            return []
        if self._runtime.capabilities(dead).peek:
            found = self._runtime.retrying("peek", dead, lambda: self._runtime.provider.peek(dead, limit))
            return [DeadLettered(delivery) for delivery in found]
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
        confirmed it. Those of a session go back in their order, behind whatever the session has now. Raises
        `BatchFailed` if some could not be sent or removed: those are in the dead-letter queue still, and of
        the ones only not removed there is a copy in the queue too.
        """
        self._runtime.check_open()
        held = _Holding(self._runtime, self._dead)
        replayed = 0
        try:
            while limit is None or replayed < limit:
                arrived = held.take(ROUND)
                if not arrived:
                    break
                chosen = [delivery for delivery in arrived if where(DeadLettered(delivery))]
                chosen.sort(key=_place)
                if limit is not None:
                    chosen = chosen[: limit - replayed]
                self._send_back(held, chosen)
                replayed += len(chosen)
        finally:
            held.release()
        return replayed

    def _send_back(self, held: _Holding, chosen: Sequence[Delivery]) -> None:
        if not chosen:
            return
        copies = [_copy(delivery) for delivery in chosen]
        sent = send(self._runtime, self.queue, copies, no_session)
        confirmed = [delivery for delivery, outcome in zip(chosen, sent, strict=True) if outcome.ok]
        removed = dict(zip([d.broker_id for d in confirmed], held.complete(confirmed), strict=True))
        outcomes = [
            Outcome(copy.id, outcome.error or removed[delivery.broker_id].error)
            for copy, delivery, outcome in zip(copies, chosen, sent, strict=True)
        ]
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        if errors:
            raise BatchFailed(
                f"replay to {self.queue!r}: {len(errors)} of {len(chosen)} dead letters stayed, the first "
                f"because: {errors[0]}",
                outcomes,
                queue=self.queue,
                operation="replay",
                provider=errors[0].provider,
            ) from errors[0]

    @property
    def _target(self) -> str:
        return self._runtime.target(self.queue)

    @property
    def _dead(self) -> str:
        """The broker's name of the dead-letter queue."""
        found = self._runtime.retrying(
            "describe", self._target, lambda: self._runtime.provider.describe(self._target)
        )
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
        self._lane = QueueLane(runtime.provider, dead)
        self._held: dict[str, tuple[Delivery, Lease]] = {}

    def take(self, most: int) -> Sequence[Delivery]:
        """Up to *most* that are not held yet; fewer only if no more can be had."""
        taken: list[Delivery] = []
        capabilities = self._runtime.capabilities(self._dead)
        # A short poll asks only some of SQS's servers; one that can be looked into answers for all it has.
        wait = 0.0 if capabilities.peek else 1.0
        while len(taken) < most:
            want = min(capabilities.max_batch, most - len(taken))
            receive = partial(self._runtime.provider.receive, self._dead, want, wait, lease=LOOK)
            arrived = self._runtime.retrying("receive", self._dead, receive)
            if not arrived:
                break
            for delivery in arrived:
                self._hold(delivery)
            taken += arrived
        return taken

    def complete(self, deliveries: Sequence[Delivery]) -> Sequence[Outcome[None]]:
        leases = [self._held[delivery.broker_id][1] for delivery in deliveries]
        self._runtime.leases.settling(leases, True)
        try:
            outcomes = self._settle([Complete(delivery) for delivery in deliveries])
            for delivery, outcome in zip(deliveries, outcomes, strict=True):
                if outcome.ok:
                    _, lease = self._held.pop(delivery.broker_id)
                    self._runtime.leases.forget(lease)
        finally:
            self._runtime.leases.settling(leases, False)
        return outcomes

    def release(self) -> None:
        """Show the rest to others again. What the broker does not hear of comes back when its lease ends."""
        for _, lease in self._held.values():
            self._runtime.leases.forget(lease, join=True)
        self._settle([Abandon(delivery) for delivery, lease in self._held.values() if not lease.lost])
        self._held.clear()

    def _settle(self, settlements: Sequence[Settlement]) -> Sequence[Outcome[None]]:
        def act(chosen: list[int]) -> Sequence[Outcome[None]]:
            return self._runtime.provider.settle(self._dead, [settlements[i] for i in chosen])

        return self._runtime.outcomes("settle", self._dead, len(settlements), act)

    def _hold(self, delivery: Delivery) -> None:
        what = f"dead letter {delivery.message.id!r}"
        lease = Lease(self._runtime.clock, until=delivery.leased_until, length=delivery.lease, what=what)
        self._held[delivery.broker_id] = delivery, lease
        self._runtime.leases.watch(
            Held(lease=lease, lane=self._lane, queue=self._runtime.name_of(self._dead), delivery=delivery)
        )


def _place(delivery: Delivery) -> tuple[str, int]:
    """Sessions together, each in the order in which its messages were sent at first."""
    info = delivery.dead_letter
    session = (info.session_id if info else None) or delivery.message.session_id or ""
    sequence = info.sequence if info and info.sequence is not None else delivery.sequence
    return session, sequence or 0


def _copy(delivery: Delivery) -> Message:
    """What goes back: the message, with a deduplication id that the queue cannot have seen."""
    message, info = delivery.message, delivery.dead_letter
    return Message(
        body=message.body,
        id=message.id,
        session_id=(info.session_id if info else None) or message.session_id,
        attributes=message.attributes,
        content_type=message.content_type,
        correlation_id=message.correlation_id,
        deduplication_id=f"re-{delivery.broker_id}",
    )
