"""A replay: dead letters go back to their queue, and are removed when their copies are confirmed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from queue_runtime.deadletter.carrier import Carrier, ends_all
from queue_runtime.deadletter.copies import copy_of, in_order, replay_id, session_of
from queue_runtime.deadletter.holding import ROUND, Holding, Place
from queue_runtime.deadletter.looking import PAGE, peeked
from queue_runtime.deadletter.reports import Ended, FailedLetter, ReplayReport
from queue_runtime.errors import LeaseLost, OutcomeUnknown, QueueError
from queue_runtime.message import DeadLettered, Delivery

log = logging.getLogger("queue_runtime")

HELD_FOR = 600.0
"""Seconds for which a round is in hand, at most, while its messages wait for their turn at a slow rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be replayed, and how."""

    where: Callable[[DeadLettered], bool]
    limit: int | None
    rate: float | None
    max_replays: int | None
    dry_run: bool

    @property
    def round(self) -> int:
        return ROUND if self.rate is None else max(1, min(ROUND, int(self.rate * HELD_FOR)))


@dataclass(slots=True)
class Replay:
    """One replay, for one thread: what it has done so far."""

    place: Place
    wanted: Wanted
    replayed: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    looping: list[str] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    failed: dict[str, FailedLetter] = field(default_factory=dict)
    """By the broker's id: one that comes again may go well."""
    left: list[str] = field(default_factory=list)
    tried: int = 0
    _copied: set[str] = field(default_factory=set)
    """Broker's ids of those whose copies are confirmed: they are only to be removed."""
    _sent: set[tuple[str, int]] = field(default_factory=set)
    """Ids of copies, with their counts of replays."""

    def run(self) -> ReplayReport:
        if self.wanted.limit == 0:
            return self._report("limit")
        try:
            if self.wanted.dry_run and self.place.capabilities.peek:
                return self._go_through(peeked(self.place, PAGE), None)
            with Holding(self.place) as held:
                return self._go_through(held.rounds(self.wanted.round), held)
        except BaseException as exc:
            # Also where a person breaks it off: what was done must not be a secret.
            exc.add_note(f"replay to {self.place.queue!r}: {len(self.replayed)} were sent back before this")
            raise

    def _go_through(self, rounds: Iterable[Sequence[Delivery]], held: Holding | None) -> ReplayReport:
        carrier = Carrier(self.place.runtime, self.place.queue, rate=self.wanted.rate)
        coming = iter(rounds)
        while True:
            try:
                arrived = next(coming, None)
            except QueueError as exc:
                if not self._has_met_any():
                    raise
                return self._report("error", exc)
            if arrived is None:
                return self._report(held.ended if held is not None else "all")
            chosen = self._choose(arrived, held)
            error = self._carry(chosen, held, carrier)
            self._tell()
            if error is not None:
                return self._report("error", error)
            if self.wanted.limit is not None and self.tried >= self.wanted.limit:
                return self._report("limit")

    def _choose(self, arrived: Sequence[Delivery], held: Holding | None) -> list[Delivery]:
        """Those of *arrived* that go back, in order, as many as may. The others stay in hand."""
        chosen: list[Delivery] = []
        for delivery in arrived:
            if held is not None and delivery.broker_id in self._copied:
                self._remove([delivery], held)
                continue
            verdict = self._verdict(delivery)
            if verdict is None:
                chosen.append(delivery)
            else:
                verdict.append(delivery.message.id)
        chosen = in_order(chosen)
        if self.wanted.limit is not None:
            most = self.wanted.limit - self.tried
            self.left += _ids(chosen[most:])
            chosen = chosen[:most]
        self.tried += len(chosen)
        return chosen

    def _verdict(self, delivery: Delivery) -> list[str] | None:
        """Where the id of one that stays is noted; None for one that goes back."""
        replays = delivery.message.replays
        if (delivery.message.id, replays) in self._sent:
            return self.returned
        if not self.wanted.where(DeadLettered(delivery)):
            return self.refused
        if self.wanted.max_replays is not None and replays >= self.wanted.max_replays:
            return self.looping
        return None

    def _carry(self, chosen: Sequence[Delivery], held: Holding | None, carrier: Carrier) -> QueueError | None:
        """Send and remove *chosen*, a chunk at a time; returns what ends the replay, if something does."""
        if held is None or self.wanted.dry_run:
            self.replayed += _ids(chosen)
            return None
        for start in range(0, len(chosen), carrier.chunk):
            chunk = chosen[start : start + carrier.chunk]
            error = self._send_back(chunk, held, carrier)
            if error is not None:
                self.left += _ids(chosen[start + carrier.chunk :])
                return error
        return None

    def _send_back(self, chunk: Sequence[Delivery], held: Holding, carrier: Carrier) -> QueueError | None:
        mine, copies = [], []
        for delivery in chunk:
            try:
                if held.lost(delivery):
                    raise _lost(delivery)
                copies.append(copy_of(delivery.message, delivery.dead_letter, replay_id(delivery.broker_id)))
                mine.append(delivery)
            except QueueError as exc:  # of this one alone, as where it has what no message may have
                carrier.block(session_of(delivery))
                self._note(delivery, exc, copied=False)
        try:
            outcomes = carrier.send(copies)
        except QueueError as exc:  # before any of them was sent
            self.left += _ids(mine)
            return exc
        confirmed = []
        for delivery, copy, outcome in zip(mine, copies, outcomes, strict=True):
            if outcome.error is None:
                confirmed.append(delivery)
                self._copied.add(delivery.broker_id)
            else:
                unknown = isinstance(outcome.error, OutcomeUnknown)
                self._note(delivery, outcome.error, copied=None if unknown else False)
            self._sent.add((copy.id, copy.replays))
        errors = [outcome.error for outcome in outcomes] + self._remove(confirmed, held)
        return next((error for error in errors if ends_all(error)), None)

    def _remove(self, confirmed: Sequence[Delivery], held: Holding) -> list[QueueError | None]:
        errors = held.complete(confirmed)
        for delivery, error in zip(confirmed, errors, strict=True):
            if error is None:
                self.failed.pop(delivery.broker_id, None)
                self.replayed.append(delivery.message.id)
            else:
                self._note(delivery, error, copied=True)
        return errors

    def _note(self, delivery: Delivery, error: QueueError, *, copied: bool | None) -> None:
        self.failed[delivery.broker_id] = FailedLetter(id=delivery.message.id, error=error, copied=copied)

    def _has_met_any(self) -> bool:
        return any((self.replayed, self.refused, self.looping, self.returned, self.failed, self.left))

    def _tell(self) -> None:
        counts = {name: len(getattr(self, name)) for name in ("replayed", "refused", "failed")}
        log.info("dead_letters.replay", extra={"queue": self.place.queue, **counts})

    def _report(self, ended: Ended, error: QueueError | None = None) -> ReplayReport:
        return ReplayReport(
            queue=self.place.queue,
            dry_run=self.wanted.dry_run,
            replayed=tuple(self.replayed),
            refused=tuple(self.refused),
            looping=tuple(self.looping),
            returned=tuple(self.returned),
            failed=tuple(self.failed.values()),
            left=tuple(self.left),
            ended=ended,
            error=error,
        )


def _ids(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.message.id for delivery in deliveries]


def _lost(delivery: Delivery) -> LeaseLost:
    return LeaseLost(f"dead letter {delivery.message.id!r} was not sent back: the hold on it was lost")
