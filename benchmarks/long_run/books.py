"""Reads the journal of a long run: what was sent, what ran, what the worker said, how each process ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from demo_parts.checker import Run
from demo_parts.journal import Reader, Record

from .history import History, Life, Sent, Settled, Trouble


@dataclass(slots=True)
class Books:
    """One journal, read once it is whole."""

    sent: list[Sent] = field(default_factory=list)
    runs: dict[tuple[int, int], Run] = field(default_factory=dict)
    settled: list[Settled] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    reports: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    """Requests to the broker, by operation, of the worker and of the producer."""
    failures: Counter[str] = field(default_factory=Counter)
    """What handlers raised, by its class."""
    events: Counter[str] = field(default_factory=Counter)
    """Everything the worker told, by the class of the event."""

    def history(
        self, *, dead: Sequence[tuple[str, str]], left: int, max_attempts: int, deadline: float
    ) -> History:
        lives = [replace(life, report=self.reports.get(number)) for number, life in enumerate(self.lives)]
        return History(
            sent=self.sent,
            runs=list(self.runs.values()),
            settled=self.settled,
            lives=lives,
            dead=dead,
            troubles=self.troubles,
            left=left,
            max_attempts=max_attempts,
            deadline=deadline,
        )

    # One for each kind of record.

    def was_sent(self, record: Record) -> None:
        self.sent.append(Sent(record["message"], record["session"], record["fate"], record["since"]))

    def started(self, record: Record) -> None:
        self.runs[record["life"], record["run"]] = Run(
            delivery=record["message"],
            session=record["session"],
            attempt=record["attempt"],
            started=record["clock"],
            ended=None,
            done=False,
            life=record["life"],
        )

    def ended(self, record: Record) -> None:
        key = record["life"], record["run"]
        error = record["error"]
        self.runs[key] = replace(self.runs[key], ended=record["clock"], done=error is None)
        if error is not None:
            self.failures[error] += 1

    def was_settled(self, record: Record) -> None:
        self.settled.append(
            Settled(
                record["message_id"],
                record["life"],
                record["clock"],
                dead=record["kind"] == "MessageDeadLettered",
            )
        )

    def not_settled(self, record: Record) -> None:
        cause = f"its settlement failed ({record['error']})"
        self.troubles.append(Trouble(record["life"], cause, record["message_id"], record["session_id"]))

    def lost(self, record: Record) -> None:
        cause = f"its lease was lost ({record['reason']})"
        self.troubles.append(Trouble(record["life"], cause, record["message_id"], record["session_id"]))

    def called(self, record: Record) -> None:
        self.requests[record["operation"]] += 1

    def stopped(self, record: Record) -> None:
        self.reports[record["life"]] = record["report"]

    def was_over(self, record: Record) -> None:
        self.lives.append(Life(record["ended_by"], record["asked"], record["clock"], record["status"]))


_TAKE: Mapping[str, Callable[[Books, Record], None]] = {
    "sent": Books.was_sent,
    "started": Books.started,
    "ended": Books.ended,
    "MessageCompleted": Books.was_settled,
    "MessageDeadLettered": Books.was_settled,
    "SettlementFailed": Books.not_settled,
    "LostLease": Books.lost,
    "ProviderCalled": Books.called,
    "stopped": Books.stopped,
    "life": Books.was_over,
}


def read(journal: Path) -> Books:
    """All whole lines of *journal*; what a killed process had half written is no line."""
    books = Books()
    for record in Reader(journal).new():
        kind = record["kind"]
        if kind[0].isupper():
            books.events[kind] += 1
        if take := _TAKE.get(kind):
            take(books, record)
    return books
