"""Messages on their way to one queue: in order within each session, tried again one by one, sent together."""

from __future__ import annotations

import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

from queue_runtime.batching import BatchPolicy, Lane, Load, Parcel, Told
from queue_runtime.clock import Clock
from queue_runtime.condition import Condition
from queue_runtime.errors import Closed, NotAttempted, Outcome, OutcomeUnknown, QueueError
from queue_runtime.executor import SessionExecutor
from queue_runtime.message import Message
from queue_runtime.provider import Capabilities
from queue_runtime.retry import RetryPolicy
from queue_runtime.scheduler import Scheduler

log = logging.getLogger("queue_runtime")

Retrying = Callable[[int, float, QueueError], object]
"""Told that messages are tried again: the number of the try that failed, the delay, the error."""


@dataclass(slots=True, eq=False)
class Entry:
    """One message, until it is stored or has failed for good."""

    message: Message
    size: int
    batch: Batch
    index: int
    line: Hashable
    """The session whose order it keeps, or a line of its own."""
    attempts: int = 0
    first_tried: float | None = None
    unknown: OutcomeUnknown | None = None
    """What became of one try is not known: that a later one fails says nothing of it."""
    last: QueueError | None = None
    deserted: bool = False
    """Nobody waits for it any more; it is only still under way."""


class Batch:
    """Messages that were given together. Told of each of them, once."""

    def __init__(self, count: int, *, deadline: float, spent: float = 0.0) -> None:
        self.count = count
        self.deadline = deadline
        self.spent = spent
        """Seconds that the time limit of each message has lost to questions about the queue."""
        self.changed = Condition()
        # guarded by changed
        self._outcomes: dict[int, Outcome[str]] = {}

    calls_back: ClassVar[bool] = False
    """Telling it may run other people's code, which may take long."""

    def begin(self, entry: Entry) -> bool:
        """*entry* is about to leave for the first time; False if it is not wanted any more."""
        return True

    def tell(self, entry: Entry, error: QueueError | None) -> None:
        """*entry* is stored, or has failed for good. The first word counts."""
        with self.changed:
            self._outcomes.setdefault(entry.index, Outcome(entry.message.id, error))
            if self.is_over():
                self.changed.notify_all()

    def is_over(self) -> bool:
        return len(self._outcomes) == self.count

    def outcomes(self) -> list[Outcome[str]]:
        """Of a batch that is over, in the order in which its messages were given."""
        return [self._outcomes[index] for index in range(self.count)]


@dataclass(slots=True)
class _Line:
    """Messages that keep their order. While it is busy its first ones travel, or rest before the next try."""

    entries: OrderedDict[Entry, None] = field(default_factory=OrderedDict)
    busy: bool = False
    travels: Parcel[Entry] | None = None


Ended = list[tuple[Entry, QueueError | None]]


class Outbox:
    """All that goes to one queue goes through here, from any thread.

    Of a session one request at most is under way, and a message is not sent before the one ahead of it is
    stored, or has failed for good; then the rest of its batch is `NotAttempted`. A request that can fail in
    part carries one message of a session, for a second one would overtake a first one that failed. What may
    go well yet is tried again by the retry policy: no thread sleeps for that, and no other session waits.
    """

    def __init__(
        self,
        request: Callable[[Sequence[Message]], Sequence[Outcome[None]]],
        capabilities: Capabilities,
        *,
        retry: RetryPolicy,
        policy: BatchPolicy,
        clock: Clock,
        scheduler: Scheduler,
        carriers: SessionExecutor,
        retrying: Retrying,
    ) -> None:
        self._ordered = capabilities.sessions != "none"
        self._run = capabilities.max_batch if capabilities.atomic_batch else 1
        self._load = Load(items=capabilities.max_batch, size=capabilities.max_batch_size)
        self._retry = retry
        self._clock = clock
        self._scheduler = scheduler
        self._retrying = retrying
        self._carriers = carriers
        self._most = policy.max_pending
        self._lane: Lane[Entry, None] = Lane(
            lambda entries: request([entry.message for entry in entries]),
            self._answered,
            policy=policy,
            load=self._load,
            clock=clock,
            scheduler=scheduler,
            carriers=carriers,
        )
        self._changed = Condition()
        # guarded by _changed
        self._closed = False
        self._open: dict[Entry, None] = {}
        """All that is not answered, in the order in which it came."""
        self._submitted = 0
        """Those of them that nobody waits for."""
        self._lines: dict[Hashable, _Line] = {}
        """Those that have something to send. One that rests, and was given up, goes on when it has rested."""

    def send(self, messages: Sequence[Message], sizes: Sequence[int], batch: Batch) -> list[Outcome[str]]:
        """Send *messages* and wait for what becomes of them, at most until the batch's deadline.

        What has left by then and is not answered is `OutcomeUnknown`; what has not left fails with the error
        of its last try, or is `NotAttempted`. The requests are made by carriers, for one may take longer than
        the deadline allows, however it is limited. Only a carrier, in what it calls back, makes them itself:
        if all waited for each other, none would be made.
        """

        def wanted() -> bool:
            return not batch.is_over() and self._clock.monotonic() < batch.deadline

        entries = self.post(messages, sizes, batch, wanted=wanted if self._carriers.runs_here() else None)
        try:
            with batch.changed:
                self._clock.wait_until(batch.changed, batch.is_over, batch.deadline)
        finally:  # also where a person breaks it off
            if not batch.is_over():
                self.give_up(entries)
        return batch.outcomes()

    def post(
        self,
        messages: Sequence[Message],
        sizes: Sequence[int],
        batch: Batch,
        *,
        wanted: Callable[[], bool] | None = None,
        room_until: float | None = None,
    ) -> list[Entry]:
        """Take *messages*, of each of which *batch* is told. With *wanted* this thread makes requests itself,
        for as long as that is true.

        With *room_until*, a moment on the monotonic scale, it waits for that while `max_pending` messages
        that nobody waits for are on their way, and then raises `NotAttempted`. Raises `Closed` after `close`.
        """
        entries = [
            Entry(message, size, batch, index, self._line_of(message))
            for index, (message, size) in enumerate(zip(messages, sizes, strict=True))
        ]
        try:
            with self._changed:
                if room_until is not None:
                    self._wait_for_room(room_until)
                if self._closed:
                    raise Closed("the client is closed")
                self._open.update(dict.fromkeys(entries))
                self._submitted += len(entries) if batch.calls_back else 0
                for entry in entries:
                    self._lines.setdefault(entry.line, _Line()).entries[entry] = None
                parcels = self._launch(entry.line for entry in entries)
            self._lane.add(parcels, wanted=wanted)
        except BaseException:  # the thread is interrupted: its caller hears of no entries
            self.give_up(entries)
            raise
        return entries

    def give_up(self, entries: Iterable[Entry]) -> None:
        """Nobody waits for *entries* any more: what has not left is not sent."""
        gone: Ended = []
        with self._changed:
            for entry in entries:
                if entry in self._open and not entry.deserted:
                    gone.append((entry, self._desert(entry)))
            parcels = self._launch([entry.line for entry, _ in gone])
            calls = _tell(gone)
            self._changed.notify_all()
        self._lane.add(parcels)
        self._call_back(calls)

    def close(self, timeout: float) -> None:
        """Take no more, and wait until all is answered; what is not after *timeout* seconds is given up."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._clock.wait_for(self._changed, lambda: not self._open, timeout)
            left = list(self._open)
        self.give_up(left)

    def __len__(self) -> int:
        """Messages on their way."""
        with self._changed:
            return len(self._open)

    def _line_of(self, message: Message) -> Hashable:
        return message.session_id if self._ordered and message.session_id is not None else object()

    def _answered(self, told: Told[Entry, None], began: float) -> None:
        """A request has ended; on the thread that made it."""
        now = self._clock.monotonic()
        jitter = random.random()  # one for all: what was refused together travels together again
        ended: Ended = []
        rests: dict[float, list[tuple[Hashable, Entry]]] = {}
        with self._changed:
            for parcel, outcomes in told:
                line = parcel.items[0].line
                for entry in parcel.items:
                    entry.first_tried = began if entry.first_tried is None else entry.first_tried
                answered, kept = self._sort(parcel, outcomes, now, jitter)
                ended += answered
                if kept is None:
                    self._lines[line].busy = False
                else:
                    rests.setdefault(kept[0], []).append((line, kept[1]))
            parcels = self._launch(parcel.items[0].line for parcel, _ in told)
            calls = _tell(ended)
            self._changed.notify_all()
        for delay, resting in rests.items():
            self._rest(delay, [line for line, _ in resting])
        self._lane.add(parcels)
        # All is on its way: what is told now may run other people's code.
        self._call_back(calls)
        for delay, ((_, first), *_) in rests.items():
            self._retrying(first.attempts, delay, first.last or QueueError())

    def _call_back(self, ended: Ended) -> None:
        """With no lock held."""
        if ended:
            self._lane.call_back(partial(_call_back, ended))

    def _rest(self, delay: float, lines: Sequence[Hashable]) -> None:
        if delay <= 0:
            self._rested(lines)
            return
        try:
            with suppress(Closed):  # what is on its way is given up by `close`
                self._scheduler.call_later(delay, partial(self._rested, lines))
        except RuntimeError:  # no thread is to be had that waits: better early than never
            self._rested(lines)

    def _rested(self, lines: Sequence[Hashable]) -> None:
        """Try again what heads these lines."""
        with self._changed:
            for line in lines:
                if line in self._lines:
                    self._lines[line].busy = False
            parcels = self._launch(lines)
            self._changed.notify_all()  # what was cancelled meanwhile has made room
        self._lane.add(parcels)

    # Requires _changed to be held.

    def _wait_for_room(self, until: float) -> None:
        if not self._clock.wait_until(self._changed, self._has_room, until):
            raise NotAttempted(
                f"the message was not sent: {self._submitted} are on their way (batching.max_pending), and "
                "there was no room in time; the broker is slower than what is given to it"
            )

    def _has_room(self) -> bool:
        return self._closed or self._submitted < self._most

    def _launch(self, lines: Iterable[Hashable]) -> list[Parcel[Entry]]:
        """What heads those of *lines* that are not busy, a parcel each, to be given to the lane."""
        parcels = []
        for key in lines:
            line = self._lines.get(key)
            if line is None or line.busy:
                continue
            run = self._head_of(line)
            if not run:
                del self._lines[key]
                continue
            line.travels = Parcel(run, sum(entry.size for entry in run))
            line.busy = True
            parcels.append(line.travels)
        return parcels

    def _head_of(self, line: _Line) -> list[Entry]:
        """The first of *line* that go together; what is not wanted any more is dropped on the way."""
        run: list[Entry] = []
        unwanted: list[Entry] = []
        size = 0
        for entry in line.entries:
            size += entry.size
            if len(run) == self._run or (run and size > self._load.size):
                break
            if entry.attempts or entry.batch.begin(entry):
                run.append(entry)
            else:
                unwanted.append(entry)
                size -= entry.size
        for entry in unwanted:
            self._take_out(entry)
        return run

    def _take_out(self, entry: Entry) -> None:
        """Harmless for one that is out already, or was interrupted on its way in."""
        if entry.line in self._lines:
            self._lines[entry.line].entries.pop(entry, None)
        if entry in self._open:
            del self._open[entry]
            self._submitted -= entry.batch.calls_back

    def _sort(
        self, parcel: Parcel[Entry], outcomes: Sequence[Outcome[None]], now: float, jitter: float
    ) -> tuple[Ended, tuple[float, Entry] | None]:
        """Which of *parcel* have come to their end; and the delay until the rest travels again, with its
        first."""
        line = self._lines[parcel.items[0].line]
        line.travels = None
        ended: Ended = []
        kept: list[tuple[float, Entry]] = []
        failed: set[Batch] = set()
        for entry, outcome in zip(parcel.items, outcomes, strict=True):
            delay = self._delay(entry, outcome.error, now, jitter)
            if delay is not None:
                kept.append((delay, entry))
                continue
            error = outcome.error
            if error is not None:
                error = entry.unknown or error
                failed.add(entry.batch)
            ended.append((entry, error))
            self._take_out(entry)
        ended += self._stop_behind(line, failed)
        return ended, next((each for each in kept if each[1] in self._open), None)

    def _delay(self, entry: Entry, error: QueueError | None, now: float, jitter: float) -> float | None:
        """Seconds until *entry* is tried again; None if it is not."""
        entry.attempts += 1
        entry.last = error
        if isinstance(error, OutcomeUnknown):
            entry.unknown = error
        if error is None or entry.deserted:
            return None
        elapsed = now - (entry.first_tried or now) + entry.batch.spent
        delay = self._retry.delay(entry.attempts, error, elapsed, lambda: jitter)
        return delay if delay is not None and now + delay < entry.batch.deadline else None

    def _stop_behind(self, line: _Line, failed: Collection[Batch]) -> Ended:
        """Order comes first: what is behind one that failed for good, in its own batch, is not sent."""
        many = {batch for batch in failed if batch.count > 1}
        if not self._ordered or not many:
            return []
        behind = [entry for entry in line.entries if entry.batch in many]
        for entry in behind:
            self._take_out(entry)
        return [(entry, entry.unknown or NotAttempted(_behind(entry))) for entry in behind]

    def _desert(self, entry: Entry) -> QueueError:
        """Take *entry* out, unless it is under way; what its sender is told."""
        line = self._lines.get(entry.line)
        travels = line.travels if line is not None else None
        if line is not None and travels is not None and entry in travels.items:
            if not self._lane.withdraw(travels):
                entry.deserted = True  # its line goes on when it is answered
                return OutcomeUnknown(f"message {entry.message.id!r} left and was not answered in time")
            line.busy, line.travels = False, None
        self._take_out(entry)
        return entry.unknown or entry.last or NotAttempted(_too_late(entry))


def _tell(ended: Ended) -> Ended:
    """Tell those who wait in `send`, whatever others do; returns those that call back."""
    for entry, error in ended:
        if not entry.batch.calls_back:
            entry.batch.tell(entry, error)
    return [(entry, error) for entry, error in ended if entry.batch.calls_back]


def _call_back(ended: Ended) -> None:
    """Tell all of them, though what is called back may exit."""
    interrupt: KeyboardInterrupt | None = None
    for entry, error in ended:
        try:
            entry.batch.tell(entry, error)
        except BaseException as exc:  # the next one is to be told too
            log.critical("a callback of message %r ended badly", entry.message.id, exc_info=True)
            interrupt = exc if isinstance(exc, KeyboardInterrupt) else interrupt
    if interrupt is not None:
        raise interrupt


def _behind(entry: Entry) -> str:
    message = entry.message
    return (
        f"message {message.id!r} was not sent: an earlier one of session {message.session_id!r} failed, "
        "and order comes first"
    )


def _too_late(entry: Entry) -> str:
    return f"message {entry.message.id!r} was not sent: its time ran out while others were under way"
