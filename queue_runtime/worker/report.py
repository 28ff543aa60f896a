"""What a worker says of itself: how it is, and how it stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["new", "running", "stopping", "stopped", "forked"]
"""`forked`: it runs in the parent of this process, and not here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """A worker at one moment; the counts are since its last start."""

    queue: str
    state: State
    concurrency: int
    handlers: int = 0
    """Handlers running now."""
    held: int = 0
    """Messages, or sessions, in hand; those that wait for a retry included."""
    leases: int = 0
    """Leases that the client keeps alive, those of its other workers included."""
    completed: int = 0
    retried: int = 0
    dead_lettered: int = 0
    lost: int = 0
    """Messages whose lease or session was lost before they were settled."""
    unknown: int = 0
    """Messages whose settlement the broker never answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopReport:
    """How a worker stopped. Nothing of it is lost: what was not finished is delivered again."""

    completed: int
    """Messages whose handler returned, since the worker started."""
    dead_lettered: int
    """Messages that went to the dead-letter queue, since the worker started."""
    finished: int
    """Messages completed or dead-lettered after the stop was asked for."""
    released: int
    """Messages, or sessions, given back for others to take at once."""
    overdue: int
    """Messages, or sessions, whose handlers were still running at the deadline; their leases run out."""
    unknown: int
    """Messages whose settlement was not answered before the deadline."""
    threads_left: tuple[str, ...]
    """Threads that had not ended: stuck handlers, or a long poll that cannot be woken."""


NOTHING_TO_STOP = StopReport(
    completed=0, dead_lettered=0, finished=0, released=0, overdue=0, unknown=0, threads_left=()
)
