"""Dead letters into a file, one line of JSON each; removed when they are in it, if that is wanted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TextIO

from queue_runtime.deadletter.carrier import CHUNK, ends_all
from queue_runtime.deadletter.copies import in_order
from queue_runtime.deadletter.holding import Holding, Place
from queue_runtime.deadletter.looking import PAGE, peeked
from queue_runtime.deadletter.ndjson import written
from queue_runtime.deadletter.reports import Ended, ExportReport, FailedLetter
from queue_runtime.errors import QueueError
from queue_runtime.message import DeadLettered, Delivery


@dataclass(slots=True)
class Export:
    """One export, for one thread: what it has done so far."""

    place: Place
    file: TextIO
    where: Callable[[DeadLettered], bool]
    limit: int | None
    remove: bool
    exported: int = 0
    refused: int = 0
    failed: dict[str, FailedLetter] = field(default_factory=dict)
    """By the broker's id: one that comes again is only to be removed."""

    def run(self) -> ExportReport:
        if self.limit == 0:
            return self._report("limit")
        try:
            if self.place.capabilities.peek and not self.remove:
                with closing(peeked(self.place, PAGE)) as pages:
                    return self._go_through(pages, None)
            with Holding(self.place) as held:
                return self._go_through(held.rounds(CHUNK), held)
        except BaseException as exc:
            # Also where a person breaks it off: what is in the file is whole.
            exc.add_note(f"export of {self.place.queue!r}: {self.exported} were exported before this")
            raise

    def _go_through(self, pages: Iterable[Sequence[Delivery]], held: Holding | None) -> ExportReport:
        coming = iter(pages)
        while True:
            try:
                page = next(coming, None)
            except QueueError as exc:
                if not self.exported and not self.refused:
                    raise
                return self._report("error", exc)
            if page is None:
                return self._report(held.ended if held is not None else "all")
            error = self._write(self._choose(page), held)
            if error is not None:
                return self._report("error", error)
            if self.limit is not None and self.exported >= self.limit:
                return self._report("limit")

    def _choose(self, page: Sequence[Delivery]) -> Sequence[Delivery]:
        chosen = [delivery for delivery in page if self.where(DeadLettered(delivery))]
        self.refused += len(page) - len(chosen)
        chosen = in_order(chosen)
        return chosen if self.limit is None else chosen[: self.limit - self.exported]

    def _write(self, chosen: Sequence[Delivery], held: Holding | None) -> QueueError | None:
        new = [delivery for delivery in chosen if delivery.broker_id not in self.failed]
        for delivery in new:
            self.file.write(written(delivery) + "\n")
        self.exported += len(new)
        if held is None or not self.remove:
            return None
        _keep(self.file)
        errors = held.complete(chosen)
        for delivery, error in zip(chosen, errors, strict=True):
            if error is None:
                self.failed.pop(delivery.broker_id, None)
            else:
                failed = FailedLetter(id=delivery.message.id, error=error, copied=True)
                self.failed[delivery.broker_id] = failed
        return next((error for error in errors if ends_all(error)), None)

    def _report(self, ended: Ended, error: QueueError | None = None) -> ExportReport:
        return ExportReport(
            queue=self.place.queue,
            exported=self.exported,
            refused=self.refused,
            failed=tuple(self.failed.values()),
            ended=ended,
            error=error,
        )


def _keep(file: TextIO) -> None:
    """Have what was written reach the disk, where there is one."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError:  # text in memory has no number, a pipe has no disk
        return
