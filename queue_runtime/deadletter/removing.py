"""A removal: dead letters that nobody wants any more are completed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from queue_runtime.deadletter.carrier import ends_all
from queue_runtime.deadletter.holding import ROUND, Holding, Place
from queue_runtime.deadletter.looking import PAGE, peeked
from queue_runtime.deadletter.reports import Ended, FailedLetter, RemovalReport
from queue_runtime.errors import QueueError
from queue_runtime.message import Delivery

log = logging.getLogger("queue_runtime")


@dataclass(slots=True)
class Removal:
    """One removal, for one thread: what it has done so far."""

    place: Place
    wanted: Callable[[Delivery], bool]
    ids: frozenset[str] | None
    """Those that *wanted* chooses, if it chooses by id."""
    limit: int | None
    dry_run: bool
    removed: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    failed: dict[str, FailedLetter] = field(default_factory=dict)
    """By the broker's id: one that comes again may go well."""
    left: list[str] = field(default_factory=list)
    tried: int = 0

    def run(self) -> RemovalReport:
        if self.limit == 0:
            return self._report("limit")
        try:
            if self.dry_run and self.place.capabilities.peek:
                return self._go_through(peeked(self.place, PAGE), None)
            with Holding(self.place) as held:
                return self._go_through(held.rounds(ROUND), held)
        except BaseException as exc:
            # Also where a person breaks it off: what was done must not be a secret.
            exc.add_note(
                f"dead letters of {self.place.queue!r}: {len(self.removed)} were removed before this"
            )
            raise

    def _go_through(self, rounds: Iterable[Sequence[Delivery]], held: Holding | None) -> RemovalReport:
        coming = iter(rounds)
        while True:
            try:
                arrived = next(coming, None)
            except QueueError as exc:
                if not any((self.removed, self.refused, self.failed)):
                    raise
                return self._report("error", exc)
            if arrived is None:
                return self._report(held.ended if held is not None else "all")
            error = self._remove(self._choose(arrived), held)
            log.info("dead_letters.remove", extra={"queue": self.place.queue, "removed": len(self.removed)})
            if error is not None:
                return self._report("error", error)
            if self.limit is not None and self.tried >= self.limit:
                return self._report("limit")

    def _choose(self, arrived: Sequence[Delivery]) -> Sequence[Delivery]:
        chosen: list[Delivery] = []
        for delivery in arrived:
            if not self.wanted(delivery):
                self.refused.append(delivery.message.id)
            elif self.limit is not None and self.tried >= self.limit:
                self.left.append(delivery.message.id)
            else:
                self.tried += 1
                chosen.append(delivery)
        return chosen

    def _remove(self, chosen: Sequence[Delivery], held: Holding | None) -> QueueError | None:
        """Returns what ends the removal, if something does."""
        errors = [None] * len(chosen) if held is None or self.dry_run else held.complete(chosen)
        for delivery, error in zip(chosen, errors, strict=True):
            if error is None:
                self.failed.pop(delivery.broker_id, None)
                self.removed.append(delivery.message.id)
            else:
                failed = FailedLetter(id=delivery.message.id, error=error, copied=False)
                self.failed[delivery.broker_id] = failed
        return next((error for error in errors if ends_all(error)), None)

    def _report(self, ended: Ended, error: QueueError | None = None) -> RemovalReport:
        met = {*self.removed, *self.left, *(each.id for each in self.failed.values())}
        return RemovalReport(
            queue=self.place.queue,
            dry_run=self.dry_run,
            removed=tuple(self.removed),
            refused=tuple(self.refused),
            missing=tuple(sorted((self.ids or frozenset()) - met)),
            failed=tuple(self.failed.values()),
            left=tuple(self.left),
            ended=ended,
            error=error,
        )
