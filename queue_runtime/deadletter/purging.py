"""A purge in two steps: a plan to look at, and its confirmation."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from queue_runtime.deadletter.holding import Place
from queue_runtime.deadletter.looking import PAGE, pages, peeked
from queue_runtime.deadletter.removing import Removal
from queue_runtime.errors import BatchFailed
from queue_runtime.message import DeadLettered, Delivery

SAMPLES = 5
"""Dead letters that a plan shows."""


class PurgePlan:
    """What a purge would remove, made by `DeadLetters.purge`. Nothing is removed until `confirm`."""

    def __init__(
        self,
        place: Place,
        *,
        count: int,
        samples: tuple[DeadLettered, ...],
        made_at: datetime,
        there: frozenset[str] | None,
    ) -> None:
        self._place = place
        self._there = there
        """Broker's ids of what was there; None where they cannot be looked at without taking them."""
        self.queue = place.queue
        self.count = count
        """How many there were: exactly where the broker can be looked into, else as it tells (SQS: up to a
        minute old)."""
        self.samples = samples
        """The first five, to see that it is the right queue."""
        self.made_at = made_at

    def confirm(self, *, everything: bool = False) -> int:
        """Remove what was there when the plan was made; returns how many.

        What has come since stays, where that can be known: exactly on a broker that can be looked into; on
        SQS by the time at which a dead letter was stored, which of those that the broker moved there by
        itself is when they were first sent, so that they go too.

        They are received and completed, a thousand at a time. With *everything* what has come since goes as
        well: by the broker's own purge where it has one (`Capabilities.purge`), which is one request and does
        not tell how many there were, so the broker's count from before is returned.

        Confirming again removes what is left of the plan. Raises `BatchFailed` if some could not be removed,
        and the error that broke it off otherwise; both tell how many were removed.
        """
        runtime = self._place.runtime
        runtime.check_open()
        if everything and self._place.capabilities.purge:
            before = told(self._place)
            purge = partial(runtime.provider.purge, self._place.dead)
            runtime.retrying("purge", self._place.dead, purge)
            return self.count if before is None else before
        wanted = _any if everything else self._was_there
        removal = Removal(self._place, wanted=wanted, ids=None, limit=None, dry_run=False)
        report = removal.run()
        if report.failed or report.error is not None:
            try:
                report.raise_failed()
            except BatchFailed:
                raise
            except Exception as exc:
                exc.add_note(f"purge of {self.queue!r}: {len(report.removed)} were removed before this")
                raise
        return len(report.removed)

    def _was_there(self, delivery: Delivery) -> bool:
        if self._there is not None:
            return delivery.broker_id in self._there
        return delivery.enqueued_at is None or delivery.enqueued_at <= self.made_at

    def __repr__(self) -> str:
        return f"<PurgePlan {self.queue!r} [{self.count} dead letters | {self.made_at:%Y-%m-%d %H:%M:%S}]>"


def plan(place: Place) -> PurgePlan:
    made_at = place.runtime.clock.now()
    if not place.capabilities.peek:
        samples = [d for page in pages(place, SAMPLES, SAMPLES) for d in page]
        count = told(place)
        return PurgePlan(
            place,
            count=len(samples) if count is None else count,
            samples=tuple(map(DeadLettered, samples)),
            made_at=made_at,
            there=None,
        )
    there, first = set[str](), list[Delivery]()
    for page in peeked(place, PAGE):
        there.update(delivery.broker_id for delivery in page)
        first += page[: SAMPLES - len(first)]
    return PurgePlan(
        place,
        count=len(there),
        samples=tuple(map(DeadLettered, first)),
        made_at=made_at,
        there=frozenset(there),
    )


def told(place: Place) -> int | None:
    """How many the broker says there are; None if it does not."""
    found = place.runtime.describe(place.dead)
    if found.active is None or found.leased is None or found.delayed is None:
        return None
    return found.active + found.leased + found.delayed


def _any(delivery: Delivery) -> bool:
    return True
