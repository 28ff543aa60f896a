"""Shows the demo to its reader: progress while it runs, and the table at its end."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from demo_parts.books import Books
from demo_parts.checker import Broken, History, excused_repeats

EVERY = 2.0
"""Seconds between two lines of progress where there is no terminal."""


class Show:
    """Two bars on a terminal, a line now and then elsewhere (without control characters)."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._line, self._next_line = "", time.monotonic() + EVERY
        self._progress = Progress(
            TextColumn("{task.description:>9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._received = self._progress.add_task("received", total=total)
        self._settled = self._progress.add_task("settled", total=total)

    def __enter__(self) -> Show:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._console.print(escape(text), highlight=False, soft_wrap=True)

    def update(self, received: int, settled: int) -> None:
        self._progress.update(self._received, completed=received)
        self._progress.update(self._settled, completed=settled)
        line = f"  received {received}/{self._total}, settled {settled}"
        if not self._console.is_terminal and line != self._line and time.monotonic() >= self._next_line:
            self._line, self._next_line = line, time.monotonic() + EVERY
            self.say(line)


@dataclass(frozen=True, slots=True)
class Result:
    """All that the table is made of."""

    where: str
    requests: str
    """What a call to this provider is called."""
    books: Books
    history: History
    broken: Sequence[Broken]
    replayed: int
    seconds: float


def table(result: Result) -> Table:
    """The closing table."""
    shown = Table(title=f"github_bot on {result.where}", show_header=False, title_justify="left")
    shown.add_column("what", no_wrap=True)
    shown.add_column("came to")
    for what, text in _rows(result):
        shown.add_row(what, escape(text))
    return shown


def _rows(result: Result) -> list[tuple[str, str]]:
    books, history = result.books, result.history
    broken = Counter(each.promise for each in result.broken)
    repeated = books.posts - len(books.answers)
    forged = len(history.refused & books.answers.keys())
    return [
        (
            "received",
            f"{len(history.posted)} webhooks, {repeated} of them twice; {forged} forged ones refused",
        ),
        ("handled", f"{len(books.handled_at)}"),
        ("sessions", _sessions(history)),
        ("order verified", _verified(history, result.broken)),
        ("retried in place", f"{books.retried_in_place} attempts"),
        ("dead-lettered", _dead(history)),
        ("replayed after the fix", f"{result.replayed}, {len(history.left)} left where it belongs"),
        ("lost", f"{broken['lost'] + broken['not taken'] + broken['not replayed']}"),
        ("duplicates", f"{broken['duplicate']} ({len(excused_repeats(history))} more with a known cause)"),
        ("two at once", f"{broken['two at once']}"),
        ("webhook to handled", _latency(books, history)),
        (f"{result.requests} per message", _calls(books, len(history.posted))),
        ("duration", f"{result.seconds:.1f} s"),
    ]


def _sessions(history: History) -> str:
    sizes = Counter(each.session for each in history.posted if each.session is not None)
    alone = sum(each.session is None for each in history.posted)
    longest = max(sizes.values(), default=0)
    return f"{len(sizes)}, the longest of {longest} messages; outside sessions: {alone}"


def _verified(history: History, broken: Sequence[Broken]) -> str:
    sessions = {each.delivery: each.session for each in history.posted}
    sizes = Counter(session for session in sessions.values() if session is not None)
    wrong = {sessions.get(each.delivery) for each in broken if each.promise == "out of order"}
    several = {session for session, size in sizes.items() if size > 1}
    return f"{len(several - wrong)} of {len(several)} sessions with more than one message"


def _dead(history: History) -> str:
    reasons = Counter(history.dead.values())
    listed = ", ".join(f"{number} {reason}" for reason, number in sorted(reasons.items()))
    return f"{len(history.dead)}: {listed}" if reasons else "0"


def _latency(books: Books, history: History) -> str:
    """Of what was handled without being a dead letter first."""
    spans = [
        at - books.since[delivery]
        for delivery, at in books.handled_at.items()
        if delivery in books.since and delivery not in history.dead
    ]
    if len(spans) < 2:
        return "too few to say"
    cuts = statistics.quantiles(spans, n=20)
    return f"p50 {cuts[9] * 1000:.0f} ms, p95 {cuts[18] * 1000:.0f} ms"


def _calls(books: Books, messages: int) -> str:
    per = {operation: number / max(1, messages) for operation, number in books.calls.items()}
    parts = ", ".join(
        f"{operation} {share:.2f}" for operation, share in sorted(per.items()) if share >= 0.005
    )
    return f"{sum(per.values()):.2f} ({parts})"
