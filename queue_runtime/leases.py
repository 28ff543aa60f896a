"""Keeps leases alive: decides on the scheduler's thread, renews in batches on a pool of its own."""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from queue_runtime.clock import Clock
from queue_runtime.condition import Condition
from queue_runtime.errors import Closed, LeaseLost, Outcome, QueueError
from queue_runtime.events import Events, LostLease
from queue_runtime.executor import SessionExecutor
from queue_runtime.message import Delivery, Lease
from queue_runtime.provider import ProviderClient
from queue_runtime.scheduler import Scheduler, Timer

log = logging.getLogger("queue_runtime")

RETRY_AFTER = 0.5
"""Seconds between tries of a renewal that failed for a passing reason."""

SOON = 0.1
"""The part of its length by which a lease may be renewed before it is due."""

TICK = 0.25
"""Seconds. Those of many lanes that are due within one tick are looked at together: what costs most is waking
the scheduler, and thousands of sessions would wake it for each."""


def renew_at(until: float, length: float) -> float:
    """When a lease that ends at *until* is due: with half of it left, or ten seconds for a short one,
    but never before a third of it has passed."""
    return until - max(length / 2, min(10.0, 2 * length / 3))


def look_at(due: float, length: float) -> float:
    """When to look at a lease that is due at *due*: at the tick before, or then if a tick is much of it."""
    return math.floor(due / TICK) * TICK if length * SOON >= TICK else due


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
    since: float | None = None
    """When it was first watched."""
    due: float = 0.0
    """When it is to be renewed next; one that travels along may be early."""
    not_before: float = 0.0
    """When it may be tried again, after a try that failed."""
    renewing: bool = False
    settling: int = 0
    """Settlements under way: that it cannot be renewed any more may be due to the success of one."""
    timer: Timer | None = field(default=None, repr=False)


class QueueLane:
    """Renews messages of one queue, outside of sessions."""

    def __init__(self, provider: ProviderClient, queue: str) -> None:
        self._provider = provider
        self._queue = queue
        self.key: Hashable = queue

    def renew(self, held: Sequence[Held]) -> Sequence[Outcome[float]]:
        deliveries = [one.delivery for one in held if one.delivery is not None]
        return self._provider.renew(self._queue, deliveries)


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
        self._changed = Condition()
        # guarded by _changed
        self._held: dict[Lease, Held] = {}
        self._lanes: dict[Hashable, set[Held]] = {}
        self._aside: dict[Lease, Held] = {}
        """Those that are not renewed while it is open whether they are given back."""
        self._under_way: set[Lease] = set()
        """Those that the broker is being asked for at this moment, forgotten ones included."""

    def watch(self, held: Held) -> bool:
        """Keep *held* alive from now on. False if its lease is watched already: nothing changes, and it is
        the other's to forget."""
        with self._changed:
            return self._watch(held)

    def forget(self, lease: Lease, *, join: bool = False) -> None:
        """Renew *lease* no more. *join* waits for a renewal of it that is under way, at most for its length:
        a visibility set after this must not be overwritten."""
        with self._changed:
            self._aside.pop(lease, None)
            held = self._held.get(lease)
            if held is not None:
                self._drop(held)
            if join:
                self._join(lease)

    def set_aside(self, lease: Lease) -> bool:
        """Do not renew *lease* until it is taken up again, or for good if it is forgotten meanwhile; waits as
        `forget` does. False if it was not watched."""
        with self._changed:
            held = self._held.get(lease)
            if held is not None:
                self._drop(held)
                self._aside[lease] = held
            self._join(lease)
        return held is not None

    def take_up(self, lease: Lease) -> None:
        """Keep *lease* alive again, unless it was forgotten while it was set aside."""
        with self._changed:
            held = self._aside.pop(lease, None)
            if held is not None:
                self._watch(held)

    def renewed(self, lease: Lease) -> None:
        """Note that *lease* was renewed by hand: it is due by its new end."""
        with self._changed:
            held = self._held.get(lease)
            if held is not None:
                held.due = renew_at(lease.deadline, min(lease.length, lease.remaining()))
                self._arm_next(held, self._clock.monotonic())

    def settling(self, leases: Iterable[Lease], under_way: bool) -> None:
        """Note that settlements of *leases* have begun or ended; they are renewed meanwhile."""
        with self._changed:
            for lease in leases:
                held = self._held.get(lease) or self._aside.get(lease)
                if held is not None:
                    held.settling = max(0, held.settling + (1 if under_way else -1))

    def settled(self, leases: Iterable[Lease]) -> None:
        """Note that a message of each lease is settled: forget those that are of one message alone."""
        with self._changed:
            for lease in leases:
                held = self._held.get(lease)
                if held is not None and held.delivery is not None:
                    self._drop(held)

    def __len__(self) -> int:
        with self._changed:
            return len(self._held)

    def _on_time(self, held: Held) -> None:
        """A lease is due, or it has ended."""
        now = self._clock.monotonic()
        due: list[Held] = []
        with self._changed:
            if not self._is_watched(held):
                return
            ended = held.lease.remaining() <= 0
            if ended:
                self._drop(held)
            else:
                due = self._take_due(held.lane.key, now)
                if held not in due:
                    self._arm_next(held, now)
        if ended:
            self._tell_lost(held, _why_ended(held.lease, now))
        elif due:
            self._submit(held.lane, due)

    def _submit(self, lane: Lane, due: list[Held]) -> None:
        try:
            self._pool.submit_in(lane.key, self._renew, lane, due)
        except Closed:
            pass  # the client is closing: it has no more use for its leases
        except RuntimeError:  # no thread is to be had: the interpreter ends, and handlers still have time
            self._renew(lane, due)

    def _renew(self, lane: Lane, due: list[Held]) -> None:
        with self._changed:
            due = [held for held in due if self._is_watched(held)]  # else it was forgotten in the queue
            self._under_way |= {held.lease for held in due}
        if not due:
            return
        answers = self._ask(lane, due)
        lost: list[tuple[Held, str]] = []
        with self._changed:
            for held, outcome in answers:
                held.renewing = False
                self._under_way.discard(held.lease)
                if self._is_watched(held) and not self._note(held, outcome):
                    self._drop(held)
                    lost.append((held, str(outcome.error)))
            self._changed.notify_all()
        for held, reason in lost:
            self._tell_lost(held, reason)

    def _ask(self, lane: Lane, due: list[Held]) -> list[tuple[Held, Outcome[float]]]:
        try:
            return list(zip(due, lane.renew(due), strict=True))
        except QueueError as exc:
            return [(held, Outcome(error=exc)) for held in due]
        except Exception:  # a provider's bug is no loss: the leases live on as long as tries may help
            log.exception("renewing %d leases failed", len(due))
            return [(held, Outcome()) for held in due]

    def _tell_lost(self, held: Held, reason: str) -> None:
        held.lease.lose(reason)
        message_id = held.delivery.message.id if held.delivery else None
        self._events(
            LostLease(queue=held.queue, message_id=message_id, session_id=held.session_id, reason=reason)
        )

    # Requires _changed to be held.

    def _watch(self, held: Held) -> bool:
        if held.lease in self._held:
            return False
        if held.since is None:  # else it is watched again, and has been held all the time
            held.since = self._clock.monotonic()
        held.due = renew_at(held.lease.deadline, held.lease.length)
        held.renewing = False
        self._held[held.lease] = held
        self._lanes.setdefault(held.lane.key, set()).add(held)
        self._arm(held, look_at(held.due, held.lease.length))
        return True

    def _join(self, lease: Lease) -> None:
        self._clock.wait_for(self._changed, lambda: lease not in self._under_way, lease.length)

    def _is_watched(self, held: Held) -> bool:
        return self._held.get(held.lease) is held

    def _take_due(self, key: Hashable, now: float) -> list[Held]:
        """All of a lane that are due, and those that soon will be: they share the request."""
        due = []
        for held in self._lanes[key]:
            soon = now + held.lease.length * SOON
            if self._may_renew(held, now) and held.due <= soon and held.not_before <= now:
                held.renewing = True
                self._arm(held, held.lease.deadline)
                due.append(held)
        return due

    def _may_renew(self, held: Held, now: float) -> bool:
        """Nobody is at it, its holder has not lost it, and it would not be held for longer than it may be."""
        since = now if held.since is None else held.since
        in_time = now - since + held.lease.length <= self._max_lease
        return in_time and not held.renewing and not held.lease.lost

    def _note(self, held: Held, outcome: Outcome[float]) -> bool:
        """Act on a renewal's answer; False means the lease is lost."""
        now = self._clock.monotonic()
        if outcome.value is not None:
            held.lease.extend(outcome.value)
            # The broker may give less than it was asked for.
            held.due = renew_at(outcome.value, min(held.lease.length, outcome.value - now))
            held.not_before = 0.0
        elif outcome.error is None or outcome.error.retryable or held.settling:
            held.not_before = now + RETRY_AFTER
        else:
            return False
        self._arm_next(held, now)
        return True

    def _arm_next(self, held: Held, now: float) -> None:
        """Look at *held* again when it is due and may be renewed, at the latest at its end."""
        when = held.lease.deadline
        if self._may_renew(held, now):
            when = min(when, max(look_at(held.due, held.lease.length), held.not_before))
        self._arm(held, when)

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


def _why_ended(lease: Lease, now: float) -> str:
    reason = "it ran out before it could be renewed"
    if lease.deadline > now:
        try:
            lease.check()
        except LeaseLost as exc:
            reason = str(exc)  # its session knew before
    return reason
