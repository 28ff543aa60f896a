"""Keeps leases alive: decides on the scheduler's thread, renews in batches on a pool of its own."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from queue_runtime.clock import Clock
from queue_runtime.errors import Closed, Outcome, QueueError
from queue_runtime.events import Events, LeaseLostEvent
from queue_runtime.executor import SessionExecutor
from queue_runtime.message import Delivery, Lease
from queue_runtime.scheduler import Scheduler, Timer

RETRY_AFTER = 0.5
"""Seconds between tries of a renewal that failed for a passing reason."""


def renew_at(until: float, length: float) -> float:
    """When a lease that ends at *until* is due: with half of it left, or ten seconds for a short one,
    but never before a third of it has passed."""
    return until - max(length / 2, min(10.0, 2 * length / 3))


class Lane(Protocol):
    """Where renewals travel together. Those of one lane are renewed by one call, one call at a time."""

    @property
    def key(self) -> Hashable: ...

    def renew(self, held: Sequence[Held]) -> Sequence[Outcome[float]]:
        """The new ends on the monotonic scale, aligned with *held*."""


@dataclass(slots=True, eq=False)
class Held:
    """One lease to keep alive, and what it is a lease of."""

    lease: Lease
    lane: Lane
    queue: str
    delivery: Delivery | None = None
    """None: a whole session is held."""
    session_id: str | None = None
    since: float = 0.0
    renewing: bool = False
    settling: bool = False
    """A settlement is under way: that it cannot be renewed any more may be due to its success."""
    timer: Timer | None = field(default=None, repr=False)


class LeaseRenewer:
    """Watches leases until they are forgotten or lost.

    A transient failure is tried again until the lease ends; a definite loss, or the end, marks the lease
    lost and tells the listeners. No lease is kept for longer than *max_lease* seconds.
    """

    def __init__(
        self, clock: Clock, scheduler: Scheduler, pool: SessionExecutor, events: Events, *, max_lease: float
    ) -> None:
        self._clock = clock
        self._scheduler = scheduler
        self._pool = pool
        self._events = events
        self._max_lease = max_lease
        self._changed = threading.Condition()
        # guarded by _changed
        self._held: dict[Lease, Held] = {}
        self._lanes: dict[Hashable, set[Held]] = {}

    def watch(self, held: Held) -> None:
        """Keep *held* alive from now on. Watching a lease that is watched already changes nothing."""
        held.since = self._clock.monotonic()
        with self._changed:
            if held.lease in self._held:
                return
            self._held[held.lease] = held
            self._lanes.setdefault(held.lane.key, set()).add(held)
            self._arm(held, renew_at(held.lease.deadline, held.lease.length))

    def forget(self, lease: Lease, *, join: bool = False) -> None:
        """Renew *lease* no more. *join* waits for a renewal of it that is under way, at most until it ends:
        a visibility set after this must not be overwritten. Forgetting twice is harmless."""
        with self._changed:
            held = self._held.get(lease)
            if held is not None:
                self._drop(held)
                if join:
                    self._clock.wait_for(self._changed, lambda: not held.renewing, lease.remaining())

    def settling(self, leases: Iterable[Lease], under_way: bool) -> None:
        """Note that settlements of *leases* have begun or ended; they are renewed meanwhile."""
        with self._changed:
            for lease in leases:
                held = self._held.get(lease)
                if held is not None:
                    held.settling = under_way

    def __len__(self) -> int:
        with self._changed:
            return len(self._held)

    def _on_time(self, held: Held) -> None:
        """A lease is due, or it has ended."""
        now = self._clock.monotonic()
        with self._changed:
            if not self._is_watched(held):
                return
            ended = held.lease.remaining() <= 0
            if ended:
                self._drop(held)
                due = []
            elif held.renewing or now - held.since + held.lease.length > self._max_lease:
                self._arm(held, held.lease.deadline)
                return
            else:
                due = self._take_due(held.lane.key, now)
        if ended:
            self._tell_lost(held, "it ran out before it could be renewed")
        elif due:
            self._submit(held.lane, due)

    def _submit(self, lane: Lane, due: list[Held]) -> None:
        with suppress(Closed):  # the client is closing: it has no more use for its leases
            self._pool.submit_in(lane.key, self._renew, lane, due)

    def _renew(self, lane: Lane, due: list[Held]) -> None:
        try:
            outcomes = lane.renew(due)
        except QueueError as exc:
            outcomes = [Outcome(error=exc)] * len(due)
        lost: list[tuple[Held, str]] = []
        with self._changed:
            for held, outcome in zip(due, outcomes, strict=True):
                held.renewing = False
                if self._is_watched(held) and not self._note(held, outcome):
                    self._drop(held)
                    lost.append((held, str(outcome.error)))
            self._changed.notify_all()
        for held, reason in lost:
            self._tell_lost(held, reason)

    def _tell_lost(self, held: Held, reason: str) -> None:
        held.lease.lose(reason)
        message_id = held.delivery.message.id if held.delivery else None
        self._events(
            LeaseLostEvent(queue=held.queue, message_id=message_id, session_id=held.session_id, reason=reason)
        )

    # Requires _changed to be held.

    def _is_watched(self, held: Held) -> bool:
        return self._held.get(held.lease) is held

    def _take_due(self, key: Hashable, now: float) -> list[Held]:
        """All of a lane that are due, and those that soon will be: they share the request."""
        due = []
        for held in self._lanes[key]:
            soon = held.lease.length / 10
            if not held.renewing and renew_at(held.lease.deadline, held.lease.length) <= now + soon:
                held.renewing = True
                self._arm(held, held.lease.deadline)
                due.append(held)
        return due

    def _note(self, held: Held, outcome: Outcome[float]) -> bool:
        """Act on a renewal's answer; False means the lease is lost."""
        now = self._clock.monotonic()
        if outcome.value is not None:
            held.lease.extend(outcome.value)
            self._arm(held, renew_at(outcome.value, held.lease.length))
            return True
        error = outcome.error
        if error is None or error.retryable or held.settling:
            self._arm(held, min(now + RETRY_AFTER, held.lease.deadline))
            return True
        return False

    def _arm(self, held: Held, when: float) -> None:
        if held.timer is not None:
            held.timer.cancel()
        try:
            held.timer = self._scheduler.call_at(when, lambda: self._on_time(held))
        except Closed:
            held.timer = None

    def _drop(self, held: Held) -> None:
        if held.timer is not None:
            held.timer.cancel()
        del self._held[held.lease]
        lane = self._lanes.get(held.lane.key)
        if lane is not None:
            lane.discard(held)
            if not lane:
                del self._lanes[held.lane.key]
