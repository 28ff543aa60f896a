"""Shows the demo to its reader: progress while it runs, and the table at its end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from demo_parts.figures import Figure, Row, rows

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


def table(runs: Mapping[str, Sequence[Figure]]) -> Table:
    """The closing table: a column for each of *runs*, by its broker's name. With several it also says whether
    they came to the same, where they must."""
    several = len(runs) > 1
    shown = Table(show_header=several)
    shown.add_column("", no_wrap=True)
    for name in runs:
        shown.add_column(name, justify="right" if several else "left")
    if several:
        shown.add_column("")
    compared = rows(list(runs.values()))
    for row, following in zip(compared, [*compared[1:], None], strict=True):
        cells = [("  " if row.part else "") + row.name, *row.texts]
        if several:
            cells.append(_verdict(row))
        ends = several and following is not None and following.same != row.same
        shown.add_row(*map(escape, cells), end_section=ends)
    return shown


def _verdict(row: Row) -> str:
    if not row.same:
        return ""
    return "DIFFERS" if row.differs else "="
