"""What a worker has in hand: its permits, its runs, and how those that ended did."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from queue_runtime.clock import Clock

ROUNDED_UP = 1.0
"""Seconds by which a delay may be longer than it was asked for: SQS takes whole ones."""


class Run(Protocol):
    """One message outside sessions, or one session, on its way through the worker."""

    def stop(self) -> None:
        """The worker stops: go no further than the handler that is running, if one is."""

    def abort(self) -> None:
        """Something failed that must not fail: end it, settle nothing, and let its lease run out."""

    def overdue(self) -> bool:
        """The deadline has passed: the lease is lost from now on. True if a handler is still running."""


@dataclass(slots=True)
class Tally:
    """How many messages ended how, since the worker started."""

    completed: int = 0
    retried: int = 0
    dead_lettered: int = 0
    released: int = 0
    unknown: int = 0
    lost: int = 0


class InHand:
    """Permits and runs of one worker. A permit is the right to fetch one more; a run holds one to its end."""

    def __init__(self, clock: Clock, permits: int) -> None:
        self._clock = clock
        self.permits = permits
        self._changed = threading.Condition()
        # guarded by _changed
        self._free = permits
        self._runs: set[Run] = set()
        self._handlers: set[str] = set()
        self._stopping = False
        self._wanting = False
        self._fetching = False
        self._tally = Tally()
        self._moves = 0
        self._retries_due = 0.0
        self._idle = False

    # The fetcher's side.

    def take_permits(self) -> int:
        """All that are free, as soon as there is one; 0 when the worker stops."""
        with self._changed:
            self._wanting = True
            self._clock.wait_for(self._changed, lambda: self._stopping or self._free > 0)
            self._wanting = False
            if self._stopping:
                return 0
            taken, self._free = self._free, 0
            return taken

    def put_back(self, permits: int) -> None:
        with self._changed:
            self._free += permits
            self._changed.notify_all()

    def pause(self, seconds: float) -> None:
        """Wait, unless the worker stops meanwhile."""
        with self._changed:
            self._clock.wait_for(self._changed, lambda: self._stopping, seconds)

    def fetcher_lives(self, lives: bool) -> None:
        with self._changed:
            self._fetching = lives
            self._changed.notify_all()

    def moves(self) -> int:
        """Changes whenever something begins, ends or is given back: an answer given before tells nothing."""
        with self._changed:
            return self._moves

    def found_nothing(self, moves: int) -> None:
        """The broker answered with nothing, to a question asked when `moves` was *moves*."""
        with self._changed:
            due = self._clock.monotonic() >= self._retries_due
            if moves == self._moves and not self._runs and due:
                self._idle = True
                self._changed.notify_all()

    def rest(self, moves: int, seconds: float) -> None:
        """Wait for a change since `moves` was *moves*, or that the worker stops, at most so long."""
        with self._changed:
            self._clock.wait_for(self._changed, lambda: self._stopping or self._moves != moves, seconds)

    # The runs' side.

    def begin(self, run: Run) -> bool:
        """Note *run*, which holds a permit from now on; False if the worker stops, and it must not start."""
        with self._changed:
            if self._stopping:
                return False
            self._runs.add(run)
            self._moved()
            return True

    def end(self, run: Run) -> None:
        """*run* has nothing in hand any more: its permit is free."""
        with self._changed:
            if run in self._runs:
                self._runs.discard(run)
                self._free += 1
                self._moved()

    def handler(self, *, entered: bool) -> None:
        """The calling thread enters the handler, or leaves it."""
        name = threading.current_thread().name
        with self._changed:
            (self._handlers.add if entered else self._handlers.discard)(name)

    def count(self, what: str, number: int = 1) -> None:
        """Add to one of the numbers of `Tally`."""
        with self._changed:
            setattr(self._tally, what, getattr(self._tally, what) + number)

    def retry_due(self, when: float) -> None:
        """A message that was given back comes again at *when*, or a little later: brokers round up."""
        with self._changed:
            self._retries_due = max(self._retries_due, when + ROUNDED_UP)

    @property
    def stopping(self) -> bool:
        with self._changed:
            return self._stopping

    @property
    def permit_wanted(self) -> bool:
        """The fetcher waits for a permit: whoever holds one idly should let it go."""
        with self._changed:
            return self._wanting and self._free == 0

    # The worker's side.

    def stop(self) -> list[Run]:
        """Give out no more permits; returns the runs."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            return list(self._runs)

    def runs(self) -> list[Run]:
        with self._changed:
            return list(self._runs)

    def wait(self, predicate: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until *predicate*, which may use what is below, is true."""
        with self._changed:
            return self._clock.wait_for(self._changed, predicate, timeout)

    # Requires _changed to be held; for predicates.

    def is_empty(self) -> bool:
        return not self._runs

    def is_idle(self) -> bool:
        return self._idle

    def has_fetcher(self) -> bool:
        return self._fetching

    def _moved(self) -> None:
        self._moves += 1
        self._idle = False
        self._changed.notify_all()

    # For reports.

    def tally(self) -> Tally:
        with self._changed:
            return replace(self._tally)

    def handler_threads(self) -> list[str]:
        """Names of the threads that are inside the handler."""
        with self._changed:
            return sorted(self._handlers)
