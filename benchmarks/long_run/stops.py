"""Finds where a worker's word of its stop is not what the books say; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from demo_parts.checker import Broken

from .history import History, Life

GRACE = 5.0
"""Seconds that the end of a process may take beyond the deadline of its worker's stop."""


def stopped_badly(history: History) -> Iterator[Broken]:
    """What each life said of its end is what the books say."""
    for number, life in enumerate(history.lives):
        for how in _nonsense(history, number, life):
            yield Broken("stopped badly", f"life {number}", how)


def _nonsense(history: History, number: int, life: Life) -> Iterator[str]:
    if life.ended_by == "itself":
        yield f"ended by itself, with status {life.status}"
        return
    report = life.report
    if life.ended_by == "SIGKILL":
        if report is not None:
            yield "reported its stop, and was killed"
        return
    if life.status != 0:
        yield f"ended with status {life.status}"
    if report is None:
        yield "left no report"
        return
    took = life.ended - life.asked
    if took > history.deadline + GRACE:
        yield f"took {took:.1f} s to stop, and had {history.deadline:g}"
    yield from _miscounted(history, number, life, report)


def _miscounted(history: History, number: int, life: Life, report: Mapping[str, Any]) -> Iterator[str]:
    mine = [each for each in history.settled if each.life == number]
    for name, is_dead in (("completed", False), ("dead_lettered", True)):
        told = sum(each.dead is is_dead for each in mine)
        if report[name] != told:
            yield f"reports {name}={report[name]}, and told of {told}"
    after = sum(each.at >= life.asked for each in mine)
    if report["finished"] > after:
        yield f"reports finished={report['finished']}, and {after} were settled after it was asked to stop"
    runs = [run for run in history.runs if run.life == number]
    late = sum(map(history.late, runs))
    if report["overdue"] != late:
        yield f"reports overdue={report['overdue']}, and {late} handlers outlasted the deadline"
    unsettled = sum((run.delivery, number) not in history.removed for run in runs if run.done)
    if report["unknown"] > unsettled + late:
        yield f"reports unknown={report['unknown']}, and {unsettled} were done and not settled"
    threads = [name for name in report["threads_left"] if "-fetch-" not in name]
    if len(threads) > late:
        yield f"left the threads {threads}"
