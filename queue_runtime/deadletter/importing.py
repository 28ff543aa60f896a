"""Lines of an export back to the queue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from queue_runtime.deadletter.carrier import Carrier, ends_all
from queue_runtime.deadletter.copies import copy_of, replay_id
from queue_runtime.deadletter.ndjson import read
from queue_runtime.deadletter.reports import Ended, FailedLine, ImportReport
from queue_runtime.errors import DecodeError, InvalidArgument, QueueError
from queue_runtime.message import DeadLettered, Delivery
from queue_runtime.runtime import Runtime

MOST_MALFORMED = 1000
"""Lines that cannot be read after which this is the wrong file."""

Line = tuple[int, Delivery]


@dataclass(slots=True)
class Import:
    """One import, for one thread: what it has done so far."""

    runtime: Runtime
    queue: str
    lines: Iterable[str]
    start: int
    where: Callable[[DeadLettered], bool]
    limit: int | None
    rate: float | None
    max_replays: int | None
    dry_run: bool
    sent: int = 0
    refused: int = 0
    looping: list[int] = field(default_factory=list)
    malformed: list[FailedLine] = field(default_factory=list)
    failed: list[FailedLine] = field(default_factory=list)
    tried: int = 0
    next_line: int = 1
    """Everything before it is done with."""
    _read_to: int = 1

    def run(self) -> ImportReport:
        self.next_line = self._read_to = self.start
        carrier = Carrier(self.runtime, self.queue, rate=self.rate)
        coming = self._wanted()
        try:
            while True:
                chunk = list(islice(coming, self._room(carrier.chunk)))
                error = self._carry(chunk, carrier) if chunk else None
                if error is not None:
                    return self._report("error", error)
                if len(chunk) < carrier.chunk:
                    return self._end()
        except BaseException as exc:
            # Also where a person breaks it off: it tells where to go on.
            exc.add_note(
                f"import to {self.queue!r}: {self.sent} were sent before this; go on at line {self.next_line}"
            )
            raise

    def _wanted(self) -> Iterator[Line]:
        """Lines that are to be sent; the others are noted."""
        for number, text in enumerate(self.lines, 1):
            if not isinstance(text, str):
                raise InvalidArgument(f"line {number} is {type(text).__name__}; open the file as text")
            if number >= self.start and text.strip():
                delivery = self._read(number, text)
                if delivery is not None and self._is_wanted(number, delivery):
                    self.tried += 1
                    self._read_to = number + 1
                    yield number, delivery
            self._read_to = number + 1
            if len(self.malformed) >= MOST_MALFORMED:
                return

    def _read(self, number: int, text: str) -> Delivery | None:
        try:
            return read(text.lstrip("\ufeff"))
        except DecodeError as exc:
            self.malformed.append(FailedLine(line=number, id=None, error=exc))
            return None

    def _is_wanted(self, number: int, delivery: Delivery) -> bool:
        if not self.where(DeadLettered(delivery)):
            self.refused += 1
            return False
        if self.max_replays is not None and delivery.message.replays >= self.max_replays:
            self.looping.append(number)
            return False
        return True

    def _carry(self, chunk: Sequence[Line], carrier: Carrier) -> QueueError | None:
        """Send *chunk*; returns what ends the import, if something does."""
        if self.dry_run:
            self.sent += len(chunk)
            self.next_line = self._read_to
            return None
        copies = [copy_of(d.message, d.dead_letter, replay_id(d.broker_id)) for _, d in chunk]
        try:
            outcomes = carrier.send(copies)
        except QueueError as exc:  # before any of them was sent
            self.next_line = chunk[0][0]
            return exc
        failed = [
            FailedLine(line=line, id=delivery.message.id, error=outcome.error)
            for (line, delivery), outcome in zip(chunk, outcomes, strict=True)
            if outcome.error is not None
        ]
        self.failed += failed
        self.sent += len(chunk) - len(failed)
        error = next((each.error for each in failed if ends_all(each.error)), None)
        self.next_line = self._read_to if error is None else failed[0].line
        return error

    def _end(self) -> ImportReport:
        if self.limit is not None and self.tried >= self.limit:
            return self._report("limit")
        self.next_line = self._read_to
        if len(self.malformed) < MOST_MALFORMED:
            return self._report("all")
        wrong = DecodeError(
            f"{MOST_MALFORMED} lines are malformed, the first with: {self.malformed[0].error}; is this "
            "a file that `export` wrote?"
        )
        return self._report("error", wrong)

    def _room(self, chunk: int) -> int:
        return chunk if self.limit is None else min(chunk, self.limit - self.tried)

    def _report(self, ended: Ended, error: QueueError | None = None) -> ImportReport:
        return ImportReport(
            queue=self.queue,
            dry_run=self.dry_run,
            sent=self.sent,
            refused=self.refused,
            looping=tuple(self.looping),
            malformed=tuple(self.malformed),
            failed=tuple(self.failed),
            next_line=self.next_line,
            ended=ended,
            error=error,
        )
