"""Finds the promises that a history breaks: pure functions, from what happened to what must not have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Fate = Literal["handled", "poison", "undecodable"]
"""What a delivery should come to: handled; dead-lettered after every attempt, and handled when it is
replayed after the fix; or dead-lettered at once, to stay there."""


@dataclass(frozen=True, slots=True)
class Posted:
    """A delivery that the app has taken. A history lists those of a session in the order in which it did."""

    delivery: str
    session: str | None
    fate: Fate = "handled"


@dataclass(frozen=True, slots=True)
class Run:
    """One entry into the handler. Times are seconds on one clock; `life` counts the worker's starts from 0.

    One that was cut short, by the end of its process, has no end.
    """

    delivery: str
    session: str | None
    attempt: int
    started: float
    ended: float | None
    done: bool
    life: int = 0

    @property
    def until(self) -> float:
        return self.started if self.ended is None else self.ended


@dataclass(frozen=True, slots=True)
class History:
    """All that is known of one run of the demo."""

    posted: Sequence[Posted]
    runs: Sequence[Run]
    dead: Mapping[str, str] = field(default_factory=dict)
    """Delivery -> reason, as the dead-letter queue had them before the fix."""
    left: frozenset[str] = frozenset()
    """What lies in the dead-letter queue at the end."""
    refused: frozenset[str] = frozenset()
    """Forged deliveries: no handler may ever see them."""
    untaken: Mapping[str, int] = field(default_factory=dict)
    """Deliveries that the app should have taken and has not -> its last answer."""
    excused: frozenset[str] = frozenset()
    """Deliveries of which the worker reported that a lease or a settlement was lost: the promise for them is
    at least once, so they may come again, and overlap with themselves."""
    stops: Sequence[Mapping[str, Any]] = ()
    """The worker's `StopReport`s."""
    max_attempts: int = 5


@dataclass(frozen=True, slots=True)
class Broken:
    """One broken promise: its name, the delivery that shows it, and how."""

    promise: str
    delivery: str
    how: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.delivery} {self.how}"


def broken_promises(history: History) -> list[Broken]:
    """Every promise that *history* breaks; empty if all were kept."""
    rules = (
        _not_taken,
        _lost,
        _unordered,
        _overlapping,
        _repeated,
        _dead_lettered,
        _not_replayed,
        _astray,
        _stopped_badly,
    )
    return [broken for rule in rules for broken in rule(history)]


def excused_repeats(history: History) -> list[Run]:
    """Runs of what had been done before, with a known cause: allowed, and worth counting."""
    return [run for run in _repeats(history) if run.delivery in history.excused]


def _not_taken(history: History) -> Iterator[Broken]:
    for delivery, status in history.untaken.items():
        yield Broken("not taken", delivery, f"was answered {status or 'not at all'}")


def _lost(history: History) -> Iterator[Broken]:
    done = {run.delivery for run in history.runs if run.done}
    for each in history.posted:
        if each.delivery not in done and each.delivery not in history.left:
            yield Broken("lost", each.delivery, "was taken, and is neither handled nor a dead letter")


def _unordered(history: History) -> Iterator[Broken]:
    """A delivery must not start before all earlier ones of its session came to their end.

    Each life of the worker is judged by itself: what is replayed after the fix comes after its successors.
    """
    places = {each.delivery: place for place, each in enumerate(history.posted)}
    for runs in _grouped(history.runs).values():
        firsts: dict[str, list[Run]] = defaultdict(list)
        for run in runs:
            if run.delivery in places and not any(earlier.done for earlier in firsts[run.delivery]):
                firsts[run.delivery].append(run)
        ended, last = float("-inf"), ""
        for delivery in sorted((name for name in firsts if firsts[name]), key=places.__getitem__):
            if firsts[delivery][0].started < ended:
                yield Broken("out of order", delivery, f"started before {last} had come to its end")
            end = max(run.until for run in firsts[delivery])
            if end >= ended:
                ended, last = end, delivery


def _overlapping(history: History) -> Iterator[Broken]:
    for runs in _grouped(history.runs).values():
        current, *later = runs
        for run in later:
            excused = not history.excused.isdisjoint((run.delivery, current.delivery))
            if run.started < current.until and not excused:
                yield Broken("two at once", run.delivery, f"ran while {current.delivery} did")
            current = max(current, run, key=lambda each: each.until)


def _repeated(history: History) -> Iterator[Broken]:
    for run in _repeats(history):
        if run.delivery not in history.excused:
            yield Broken("duplicate", run.delivery, f"ran again (attempt {run.attempt}) after it was done")


def _dead_lettered(history: History) -> Iterator[Broken]:
    faulty_sessions = {each.session for each in history.posted if each.fate != "handled"}
    failures: dict[str, int] = defaultdict(int)
    for run in history.runs:
        failures[run.delivery] += run.life == 0 and not run.done
    for each in history.posted:
        reason = history.dead.get(each.delivery, "afterwards" if each.delivery in history.left else None)
        tries = failures[each.delivery]
        if each.fate == "handled" and reason is not None:
            blamed = each.session is not None and each.session in faulty_sessions
            promise = "neighbour blamed" if blamed else "wrongly dead-lettered"
            yield Broken(
                promise, each.delivery, f"became a dead letter ({reason}) after {tries} failed attempts"
            )
        elif each.fate != "handled" and each.delivery not in history.dead:
            yield Broken("not set aside", each.delivery, f"is {each.fate} and did not become a dead letter")
        elif each.fate == "poison" and tries != history.max_attempts:
            how = f"became a dead letter after {tries} of {history.max_attempts} attempts"
            yield Broken("wrongly dead-lettered", each.delivery, how)
        elif each.fate == "undecodable" and tries > 1:
            yield Broken("tried in vain", each.delivery, f"cannot be decoded and was tried {tries} times")


def _not_replayed(history: History) -> Iterator[Broken]:
    done = {run.delivery for run in history.runs if run.done and run.life > 0}
    for each in history.posted:
        if each.fate == "poison" and each.delivery in history.dead and each.delivery not in done:
            yield Broken("not replayed", each.delivery, "was not handled after the fix")
        if each.fate == "undecodable" and each.delivery in history.dead and each.delivery not in history.left:
            yield Broken("lost", each.delivery, "left the dead letters, where it was to stay")


def _astray(history: History) -> Iterator[Broken]:
    sessions = {each.delivery: each.session for each in history.posted}
    for run in history.runs:
        if run.delivery in history.refused:
            yield Broken("forged", run.delivery, "was forged, and ran all the same")
        elif run.delivery not in sessions:
            yield Broken("unknown", run.delivery, "ran and was never posted")
        elif run.session != sessions[run.delivery]:
            how = f"ran in session {run.session!r}, not in {sessions[run.delivery]!r}"
            yield Broken("wrong session", run.delivery, how)


def _stopped_badly(history: History) -> Iterator[Broken]:
    """An idle worker stops with nothing left; only a poll that cannot be woken may outlive it."""
    for life, report in enumerate(history.stops):
        threads = [name for name in report["threads_left"] if "-fetch-" not in name]
        if report["overdue"] or report["unknown"] or threads:
            yield Broken("stopped badly", f"worker {life}", f"reported {dict(report)}")


def _repeats(history: History) -> Iterator[Run]:
    done: set[str] = set()
    for run in sorted(history.runs, key=lambda run: run.started):
        if run.delivery in done:
            yield run
        elif run.done:
            done.add(run.delivery)


def _grouped(runs: Iterable[Run]) -> dict[tuple[str, int], list[Run]]:
    """The runs of each session in each life, by their start."""
    groups: dict[tuple[str, int], list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.started):
        if run.session is not None:
            groups[run.session, run.life].append(run)
    return groups
