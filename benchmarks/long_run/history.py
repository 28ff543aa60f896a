"""What is known of a long run: what was sent, what ran, what the worker said, how each process ended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from demo_parts.checker import Run

Fate = Literal["handled", "rejected", "exhausted"]
"""What a message should come to: handled at last, or dead-lettered, at once or after all its attempts."""

REASONS: Mapping[Fate, str] = {"rejected": "Planned", "exhausted": "MaxAttemptsExceeded"}
"""What the dead letter of a message says that was to become one."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that the broker has taken. Those of a session are listed in the order of their sending."""

    message: str
    session: str
    fate: Fate = "handled"
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Settled:
    """The worker's word that the broker has removed a message: completed, or *dead*-lettered."""

    message: str
    life: int
    at: float
    dead: bool = False


@dataclass(frozen=True, slots=True)
class Trouble:
    """The worker's word that it lost a hold, or that a settlement failed: of a message, or of a session."""

    life: int
    cause: str
    message: str | None
    session: str | None


@dataclass(frozen=True, slots=True)
class Life:
    """One process of the worker: the signal that ended it, when that was sent, and when it was gone."""

    ended_by: Literal["SIGTERM", "SIGKILL", "itself"]
    asked: float
    ended: float
    status: int = 0
    report: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class History:
    """All that is known of one run. Times are seconds on one clock."""

    sent: Sequence[Sent]
    runs: Sequence[Run]
    settled: Sequence[Settled]
    lives: Sequence[Life]
    dead: Sequence[tuple[str, str]] = ()
    """Message and reason of each dead letter at the end, the same message as often as it lies there."""
    troubles: Sequence[Trouble] = ()
    left: int = 0
    """Messages in the queue at the end, in somebody's hands or not."""
    max_attempts: int = 4
    deadline: float = 25.0
    """Seconds that a stop may last."""

    @cached_property
    def by_message(self) -> Mapping[str, Sequence[Run]]:
        """The runs of each message, by their start."""
        return _grouped(self.runs, "delivery")

    @cached_property
    def by_session(self) -> Mapping[str, Sequence[Run]]:
        return _grouped(self.runs, "session")

    @cached_property
    def first_done(self) -> Mapping[str, float]:
        """When a handler first returned from a message, of those from which one did."""
        done = [(run.ended, run.delivery) for run in self.runs if run.done and run.ended is not None]
        return {message: ended for ended, message in sorted(done, reverse=True)}

    @cached_property
    def removed(self) -> Mapping[tuple[str, int], Settled]:
        """What the worker has said to be settled, by message and life."""
        return {(each.message, each.life): each for each in self.settled}

    @cached_property
    def causes(self) -> Mapping[tuple[int, str], str]:
        """Why something may come again, by life and the message, or the session, of which it is true."""
        found: dict[tuple[int, str], str] = {}
        for each in self.troubles:
            found.setdefault((each.life, each.message or f"session {each.session}"), each.cause)
        return found

    def until(self, run: Run) -> float:
        """Its end; one that was cut short lasted as long as its process."""
        return self.lives[run.life].ended if run.ended is None else run.ended

    def late(self, run: Run) -> bool:
        """It was still running at the deadline of its worker's stop."""
        life = self.lives[run.life]
        return life.ended_by == "SIGTERM" and self.until(run) >= life.asked + self.deadline


def _grouped(runs: Sequence[Run], name: str) -> Mapping[str, Sequence[Run]]:
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.started):
        groups[getattr(run, name)].append(run)
    return groups
