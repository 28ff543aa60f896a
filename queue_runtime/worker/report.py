"""What a worker says of itself: how it is, and how it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from queue_runtime.events import WorkerStopped

State = Literal["new", "starting", "running", "stopping", "stopped", "forked"]
"""`starting`: `run` waits for its broker. `forked`: it runs in the parent of this process, and not here."""

Reason = Literal["asked", "idle", "closed", "provider lost"]
"""Why a worker stopped: `stop` or a signal; nothing was left for `run_until_idle`; its client was closed; the
broker has not answered for `give_up_after`."""

PROVIDER_LOST = 2
"""Exit code; 0 is a stop that was asked for, and 1 Python's own, say for a `ConfigurationError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """Why a worker asks its broker for nothing at the moment."""

    by: Literal["handlers", "provider"]
    """`handlers`: they keep failing, see `HandlerPolicy.breaker`. `provider`: the broker does not answer."""
    why: str
    retry_at: datetime
    """When it tries again: with one message, or with a question to the broker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """A worker at one moment; the counts are since its last start."""

    queue: str
    """By the program's name."""
    state: State
    """`new`, `starting` (`run` waits for its broker), `running`, `stopping`, `stopped`, or `forked`: it runs
    in the parent of this process."""
    concurrency: int
    """Handlers that may run at once."""
    handlers: int = 0
    """Handlers running now."""
    held: int = 0
    """Messages, or sessions, in hand; those that wait for a retry included."""
    prefetch: int = 0
    """How many it may have in hand."""
    pollers: int = 0
    """Questions to the broker that may be under way at once."""
    ordering: Literal["sessions", "best-effort"] | None = None
    """`best-effort`: the queue keeps no order; messages of one session are handled one at a time here. None:
    the queue was not looked at yet."""
    paused: Paused | None = None
    """Why nothing is fetched at the moment, and until when; None: it is, as far as there is room."""
    leases: int = 0
    """Leases that the client keeps alive, those of its other workers included."""
    completed: int = 0
    """Messages whose handler returned and whose completion the broker confirmed."""
    retried: int = 0
    """Attempts that failed and were to be repeated."""
    dead_lettered: int = 0
    """Messages that went to the dead-letter queue."""
    dropped: int = 0
    """Messages that `on_exhausted="drop"` completed."""
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
    dropped: int = 0
    """Messages that `on_exhausted="drop"` completed, since the worker started."""
    finished: int
    """Messages completed, dead-lettered or dropped after the stop was asked for."""
    released: int
    """Messages, or sessions, given back for others to take at once."""
    overdue: int
    """Messages, or sessions, whose handlers were still running at the deadline; their leases run out."""
    unknown: int
    """Messages whose settlement was not answered before the deadline."""
    threads_left: tuple[str, ...]
    """Threads that had not ended: stuck handlers, or a long poll that cannot be woken."""
    in_hand: int = 0
    """Messages, or sessions, that are still on their way: of a stop asked for inside a handler, which goes on
    behind this report. 0 at the end of any other."""
    reason: Reason = "asked"
    """`asked` (`stop` or a signal), `idle` (nothing was left for `run_until_idle`), `closed` (its client
    was), or `provider lost` (the broker has not answered for `give_up_after`)."""

    @property
    def exit_code(self) -> int:
        """For ``sys.exit``: 0, or 2 if the broker was lost for `give_up_after`, which a supervisor may want
        to tell apart."""
        return PROVIDER_LOST if self.reason == "provider lost" else 0


NOTHING_TO_STOP = StopReport(
    completed=0, dead_lettered=0, finished=0, released=0, overdue=0, unknown=0, threads_left=()
)


_ASKED_BY: Mapping[Reason, str] = {
    "asked": "stop() was called",
    "idle": "nothing was left to do",
    "closed": "its client was closed",
    "provider lost": "the broker answered nothing",
}


def stopped(queue: str, report: StopReport, text: str | None = None) -> WorkerStopped:
    """What the log is told of the end of a worker; *text* says why in more words than *report* does."""
    return WorkerStopped(
        queue=queue,
        reason=report.reason,
        text=text or _ASKED_BY[report.reason],
        completed=report.completed,
        dead_lettered=report.dead_lettered,
        dropped=report.dropped,
        finished=report.finished,
        released=report.released,
        overdue=report.overdue,
        unknown=report.unknown,
        threads_left=report.threads_left,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerHealth:
    """Whether a worker does its work, at one moment. Durations are seconds; None: not known (yet)."""

    queue: str
    """By the program's name."""
    state: State
    """As in `WorkerStatus`."""
    alive: bool
    """It was started and its fetching thread lives, or it is stopping within its deadline."""
    fetching: bool
    """It asks the broker for messages; not while it is paused, backs off after a failure, or stops."""
    last_progress: float | None = None
    """Seconds since a message was last settled or the broker last answered, whichever is later."""
    last_answer: float | None = None
    """Seconds since the broker last answered a fetch well, with or without messages."""
    lag: float | None = None
    """Seconds between the sending of a message and its start, of the newest that was started."""
    paused: str | None = None
    """Why it fetches nothing for now; None: it is not paused."""
