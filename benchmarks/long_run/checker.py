"""Finds the promises that a long run broke, and says why what came twice did: pure functions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from demo_parts.checker import Broken, Run

from .history import REASONS, History
from .stops import stopped_badly


@dataclass(frozen=True, slots=True)
class Repeat:
    """Something that happened again, or at the same time, and is explained by *cause*."""

    message: str
    cause: str


@dataclass(slots=True)
class Findings:
    """What a history comes to."""

    broken: list[Broken] = field(default_factory=list)
    duplicates: list[Repeat] = field(default_factory=list)
    """Entries into a handler after one had ended well."""
    overlaps: list[Repeat] = field(default_factory=list)
    """Two handlers in one session at one time."""
    dead_again: list[Repeat] = field(default_factory=list)
    """Dead letters beyond the first of a message."""


def judged(history: History) -> Findings:
    """Every promise that *history* breaks, and every repetition that has its cause."""
    found = Findings()
    for rule in (_lost, _unordered, _dead_lettered, _astray, _removed_unhandled, stopped_badly):
        found.broken += rule(history)
    _sort(_duplicates(history), found.duplicates, "duplicate", found.broken)
    _sort(_overlaps(history), found.overlaps, "two at once", found.broken)
    _sort(_dead_again(history), found.dead_again, "dead letter again", found.broken)
    return found


def _sort(
    what: Iterator[tuple[str, str | None, str]], explained: list[Repeat], promise: str, broken: list[Broken]
) -> None:
    """Of each message, cause and story: with a cause it is *explained*, without one it is *broken*."""
    for message, cause, how in what:
        if cause is None:
            broken.append(Broken(promise, message, how))
        else:
            explained.append(Repeat(message, cause))


def _lost(history: History) -> Iterator[Broken]:
    dead = {message for message, _ in history.dead}
    for each in history.sent:
        runs = history.by_message.get(each.message, ())
        if each.message not in dead and not any(run.done for run in runs):
            how = f"was sent, ran {len(runs)} times, and is neither handled nor a dead letter"
            yield Broken("lost", each.message, how)
    if history.left:
        yield Broken("left behind", "the queue", f"still has {history.left} messages")


def _unordered(history: History) -> Iterator[Broken]:
    """No message may start before all earlier ones of its session came to their end for good."""
    sessions: dict[str, list[str]] = defaultdict(list)
    for each in history.sent:
        sessions[each.session].append(each.message)
    dead = {each.message: each.at for each in history.settled if each.dead}
    for messages in sessions.values():
        ended, last = float("-inf"), ""
        for message in messages:
            runs = history.by_message.get(message, ())
            if runs and runs[0].started < ended:
                how = f"started {ended - runs[0].started:.3f} s before {last} had come to its end"
                yield Broken("out of order", message, how)
            end = _end_for_good(history, runs, dead.get(message))
            if end > ended:
                ended, last = end, message


def _end_for_good(history: History, runs: Sequence[Run], dead: float | None) -> float:
    """When a message was first done; of one that never was, when its last attempt was over."""
    done = [run.ended for run in runs if run.done and run.ended is not None]
    if done:
        return min(done)
    return max((history.until(run) for run in runs), default=dead if dead is not None else float("-inf"))


def _dead_lettered(history: History) -> Iterator[Broken]:
    fates = {each.message: each.fate for each in history.sent}
    for message, reason in dict(history.dead).items():
        fate = fates.get(message)
        runs = history.by_message.get(message, ())
        if fate is None:
            yield Broken("unknown", message, f"is a dead letter ({reason}) and was never sent")
        elif fate == "handled":
            how = f"became a dead letter ({reason}) after {len(runs)} attempts, and was to be handled"
            yield Broken("wrongly dead-lettered", message, how)
        elif reason != REASONS[fate]:
            yield Broken("wrong reason", message, f"was {fate}, and its dead letter says {reason}")
        elif fate == "exhausted" and _most_in_a_life(runs) < history.max_attempts:
            how = f"became a dead letter after {_most_in_a_life(runs)} of {history.max_attempts} attempts"
            yield Broken("wrongly dead-lettered", message, how)
    for message, fate in fates.items():
        if fate != "handled" and any(run.done for run in history.by_message.get(message, ())):
            yield Broken("not set aside", message, f"was to be {fate}, and was handled")


def _most_in_a_life(runs: Sequence[Run]) -> int:
    """A worker counts attempts for itself."""
    return max(Counter(run.life for run in runs).values(), default=0)


def _astray(history: History) -> Iterator[Broken]:
    sessions = {each.message: each.session for each in history.sent}
    for message, runs in history.by_message.items():
        if message not in sessions:
            yield Broken("unknown", message, "ran and was never sent")
        elif wrong := {run.session for run in runs} - {sessions[message]}:
            yield Broken("wrong session", message, f"of {sessions[message]} ran in {sorted(map(str, wrong))}")


def _removed_unhandled(history: History) -> Iterator[Broken]:
    dead = {message for message, _ in history.dead}
    for each in history.settled:
        done = any(run.done for run in history.by_message.get(each.message, ()))
        if not each.dead and not done:
            yield Broken("removed unhandled", each.message, f"was completed in life {each.life}")
        if each.dead and each.message not in dead:
            yield Broken("dead letter gone", each.message, f"was dead-lettered in life {each.life}")


def _duplicates(history: History) -> Iterator[tuple[str, str | None, str]]:
    for message, runs in history.by_message.items():
        before: Run | None = None
        for run in runs:
            if before is not None:
                how = f"ran again in life {run.life} after it was done in life {before.life}"
                yield message, _why_again(history, before), how
            if run.done:
                before = run


def _why_again(history: History, done: Run) -> str | None:
    """Why a message that was *done* came again; None where there is no excuse."""
    if (done.delivery, done.life) in history.removed:
        return None
    if cause := _trouble(history, done):
        return cause
    if history.lives[done.life].ended_by == "SIGKILL":
        return "kill -9 between the handler's end and the completion"
    if history.late(done):
        return "its handler outlasted the deadline of the stop"
    return None


def _trouble(history: History, run: Run) -> str | None:
    whose = (run.life, run.delivery), (run.life, f"session {run.session}")
    return next((history.causes[key] for key in whose if key in history.causes), None)


def _overlaps(history: History) -> Iterator[tuple[str, str | None, str]]:
    for runs in history.by_session.values():
        current, *later = runs
        for run in later:
            if run.started < history.until(current):
                cause = _trouble(history, current)
                if cause is None and run.life != current.life and history.late(current):
                    cause = "its handler outlasted the deadline of the stop"
                yield run.delivery, cause, f"ran while {current.delivery} did"
            current = max(current, run, key=history.until)


def _dead_again(history: History) -> Iterator[tuple[str, str | None, str]]:
    for message, number in Counter(message for message, _ in history.dead).items():
        runs = history.by_message.get(message, ())
        cause = next(filter(None, (_why_dead_again(history, run) for run in runs)), None)
        for _ in range(number - 1):
            yield message, cause, f"lies {number} times in the dead-letter queue"


def _why_dead_again(history: History, run: Run) -> str | None:
    if (run.delivery, run.life) in history.removed:
        return None
    if history.lives[run.life].ended_by == "SIGKILL":
        return "kill -9 between the copy and the removal"
    return _trouble(history, run)
