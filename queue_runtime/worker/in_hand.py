"""What a worker has in hand: permits, runs, who of them is in the handler, and how those that ended did."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Protocol

from queue_runtime.breaker import BreakerPolicy
from queue_runtime.clock import Clock
from queue_runtime.condition import Condition
from queue_runtime.worker.inside import Inside
from queue_runtime.worker.line import Line, Place
from queue_runtime.worker.processing import Change, Pause, ProcessingBreaker

ROUNDED_UP = 1.0
"""Seconds by which a delay may be longer than it was asked for: SQS takes whole ones."""

BLOCKED = 2
"""Times `concurrency`: what waits here for another of its session without a permit. On a queue that keeps no
order that are messages; else sessions behind a handler that outlived its lease. So one busy session does not
keep the others from being fetched."""


class Run(Protocol):
    """One message outside sessions, or one session, on its way through the worker."""

    def stop(self) -> None:
        """Go no further than the handler that is running, if one is: give back what is in hand."""

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
    dropped: int = 0
    released: int = 0
    unknown: int = 0
    lost: int = 0


@dataclass(slots=True)
class Permits:
    """The right to fetch `number` messages, or sessions."""

    number: int
    probe: bool
    """It is one, to find out whether handlers go well again."""
    used: int = 0
    """Those that runs hold by now."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the broker is not asked at the moment, and until when, on the clock's monotonic scale."""

    why: str
    retry_at: float
    since: float
    """When the first question was asked that it has not answered."""


@dataclass(frozen=True, slots=True)
class Signs:
    """Signs of life, on the clock's monotonic scale; None: there was none yet."""

    answered_at: float | None = None
    """The broker answered a fetch."""
    settled_at: float | None = None
    """It agreed that a message is settled."""
    lag: float | None = None
    """Seconds between the sending and the handling of the message that was begun last."""


class InHand:
    """Permits and runs of one worker. A permit is the right to fetch one more; a run holds one to its end.

    At most *prefetch* are in hand, and at most *concurrency* of them in the handler.
    """

    def __init__(
        self, clock: Clock, *, prefetch: int, concurrency: int, breaker: BreakerPolicy | None = None
    ) -> None:
        self._clock = clock
        self.prefetch = prefetch
        self.concurrency = concurrency
        self._changed = Condition()
        # guarded by _changed
        self._out = 0
        """Permits that are out with a fetch."""
        self._runs: set[Run] = set()
        self._counted: set[Run] = set()
        """Those whose last message is in the tally, and that have not ended yet."""
        self._line = Line(concurrency)
        self._processing = ProcessingBreaker(breaker)
        self._inside: Inside[Run] = Inside()
        self._making_way: set[Run] = set()
        """Those that go back for other processes; nothing is fetched until they are gone."""
        self._stopping = False
        self._wanting = False
        self._fetchers = 0
        self._tally = Tally()
        self._moves = 0
        self._retries_due = 0.0
        self._idle = False
        self._trouble: Trouble | None = None
        self._signs = Signs()

    # The fetchers' side.

    def want(self) -> bool:
        """A permit is wanted from now on; True if there is none, and somebody may hold one idly."""
        with self._changed:
            self._wanting = True
            return self._free() == 0

    def take_permits(self, most: int, *, least: int = 1) -> Permits | None:
        """Up to *most*, as soon as there are *least*; None when the worker stops."""
        with self._changed:
            while not self._stopping and not self._may_take(least):
                self._wait_for_permits(least)
            self._wanting = False
            if self._stopping:
                return None
            number = int(min(self._free(), most, self._processing.may_fetch(self._clock.monotonic())))
            self._out += number
            return Permits(number, self._processing.fetches())

    def put_back(self, permits: Permits) -> None:
        """The fetch has ended: those of its *permits* that no run holds are free."""
        with self._changed:
            self._out -= permits.number - permits.used
            if permits.probe:
                self._processing.fetched()
            self._changed.notify_all()

    def pause(self, why: str, seconds: float, asked_at: float) -> None:
        """A question asked at *asked_at* was not answered: wait, unless the worker stops meanwhile; *why* is
        shown by its status."""
        with self._changed:
            since = asked_at if self._trouble is None else self._trouble.since
            self._trouble = Trouble(why, self._clock.monotonic() + seconds, since)
            self._clock.wait_for(self._changed, lambda: self._stopping, seconds)

    def answered(self) -> None:
        """The broker has answered a fetch."""
        with self._changed:
            self._trouble = None
            self._signs = replace(self._signs, answered_at=self._clock.monotonic())

    def fetcher_lives(self, lives: bool) -> None:
        with self._changed:
            self._fetchers += 1 if lives else -1
            self._changed.notify_all()

    def moves(self) -> int:
        """Changes whenever something begins, ends or is given back: an answer given before tells nothing."""
        with self._changed:
            return self._moves

    def found_nothing(self, moves: int) -> None:
        """The broker answered with nothing, to a question asked when `moves` was *moves*."""
        with self._changed:
            due = self._clock.monotonic() >= self._retries_due
            if moves == self._moves and not self._runs and not self._out and due:
                self._idle = True
                self._changed.notify_all()

    def rest(self, moves: int, seconds: float) -> None:
        """Wait for a change since `moves` was *moves*, for the end of other questions under way, or that the
        worker stops, at most so long."""
        with self._changed:
            alone = not self._out
            self._clock.wait_for(
                self._changed,
                lambda: self._stopping or self._moves != moves or (not alone and not self._out),
                seconds,
            )

    def has_permits(self, least: int) -> bool:
        """As many could be taken now."""
        with self._changed:
            return not self._stopping and self._may_take(least)

    def fetches_for_nobody(self, permits: Permits) -> bool:
        """What is fetched with *permits* would go back: the worker stops, is paused, or makes way. Asked by
        the wait."""
        with self._changed:
            paused = self._processing.pause is not None and not permits.probe
            return self._stopping or paused or bool(self._making_way)

    # The runs' side.

    def begin(self, run: Run, permits: Permits) -> bool:
        """Note *run*, which holds one of *permits* from now on; False if it must not start."""
        with self._changed:
            if self._stopping or not self._processing.admits(run):
                return False
            self._runs.add(run)
            self._out -= 1
            permits.used += 1
            self._moved()
            return True

    def stand_behind(self, run: Run, session_id: str, go: Callable[[], None]) -> float | None:
        """If a handler is still at the session that *run* now holds: the seconds since it entered, and *go*
        is called when it leaves, unless *run* has ended by then. Meanwhile *run* needs no permit, and tells
        nothing as a probe. None: nobody is at it, and *go* is not called."""
        with self._changed:
            if run not in self._runs:
                return None
            stuck = self._inside.stand_behind(run, session_id, go, self._clock.monotonic())
            if stuck is None:
                return None
            self._processing.ended(run)
            self._changed.notify_all()
        for other in stuck.overtaken:
            other.stop()
        return stuck.seconds

    def make_way(self, run: Run) -> None:
        """*run* is to be given back for other processes: nothing is fetched here until it has ended."""
        with self._changed:
            if run in self._runs:
                self._making_way.add(run)

    def may_go_on(self, run: Run) -> bool:
        """It is the turn of *run*. False if the worker has paused, and tries another."""
        with self._changed:
            return self._processing.pause is None or self._processing.is_probe(run)

    def end(self, run: Run) -> None:
        """*run* has nothing in hand any more: its permit is free."""
        with self._changed:
            self._counted.discard(run)
            self._inside.gone(run)
            self._making_way.discard(run)
            if run in self._runs:
                self._runs.discard(run)
                self._processing.ended(run)
            self._line.gone(run)
            going = self._line.advance()
            self._moved()
        _go(going)

    def line_up(self, run: Run, go: Callable[[], None], lane: Hashable | None = None) -> bool:
        """Stand in line for the handler; True if it is the turn of *run* at once. Else *go* is called, once,
        when it is, unless it has ended by then. Of one *lane* it is one at a time, from its turn to its
        end."""
        place = Place(run, go, lane)
        with self._changed:
            if run not in self._runs:
                return False  # it has ended meanwhile
            self._counted.discard(run)
            if not self._line.join(place):
                self._processing.ended(run)  # it would tell only when the one before it ends
                self._changed.notify_all()  # and needs no permit meanwhile
            going = self._line.advance()
        _go([other for other in going if other is not place])
        return place in going

    def leave(self, run: Run, *, lane: bool = False) -> None:
        """*run* is out of the handler; with *lane*, off its lane too."""
        with self._changed:
            (self._line.gone if lane else self._line.leave)(run)
            going = self._line.advance()
        _go(going)

    def leave_lane(self, run: Run) -> None:
        """*run* is still in the handler, and holds up no other of its lane any more."""
        with self._changed:
            self._line.leave_lane(run)
            going = self._line.advance()
        _go(going)

    def enter(self, session_id: str | None, *, lag: float | None) -> None:
        """The calling thread enters the handler, with a message of *session_id* sent *lag* seconds ago."""
        me = threading.current_thread()
        with self._changed:
            self._inside.enter(threading.get_ident(), me.name, session_id, self._clock.monotonic())
            if lag is not None:
                self._signs = replace(self._signs, lag=lag)

    def exit(self) -> None:
        """It is out of the handler."""
        with self._changed:
            going = self._inside.exit(threading.get_ident())
        for go in going:
            go()

    def handled(self, run: Run, *, trouble: bool, why: str, started: float) -> Change | None:
        """The handler of *run*, entered at *started*, has ended, in *trouble* or not; returns what
        changed."""
        with self._changed:
            now = self._clock.monotonic()
            change = self._processing.handled(run, trouble=trouble, why=why, started=started, now=now)
            if change is not None:
                self._changed.notify_all()
            return change

    def asks_for_later(self, run: Run) -> bool:
        """The handler of *run* asked to be called again, which says nothing of others. True if it was the
        probe: it must go, another is fetched."""
        with self._changed:
            was_probe = self._processing.later(run, self._clock.monotonic())
            self._changed.notify_all()
            return was_probe

    def probe_due(self, run: Run) -> float | None:
        """When *run* is to be tried next, on the monotonic scale, if it is the probe; else None."""
        with self._changed:
            pause = self._processing.pause
            return pause.retry_at if pause is not None and self._processing.is_probe(run) else None

    def count(self, what: str, number: int = 1, *, of: Run | None = None) -> None:
        """Add to one of the numbers of `Tally`; *of* a run, which has nothing else to be counted for."""
        with self._changed:
            self._add(what, number, of)

    def settled(self, what: str, run: Run) -> None:
        """The broker has agreed to a settlement of *run*; it counts as *what*."""
        with self._changed:
            self._add(what, 1, run)
            self._signs = replace(self._signs, settled_at=self._clock.monotonic())

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
        """A fetcher waits for a permit: whoever holds one idly should let it go."""
        with self._changed:
            return self._wanting and self._free() == 0

    # The worker's side.

    def stop(self) -> list[Run]:
        """Give out no more permits; returns the runs."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            return list(self._runs)

    def cut(self) -> tuple[list[Run], Tally]:
        """Those that are not counted yet, and the tally without them, at one moment."""
        with self._changed:
            return [run for run in self._runs if run not in self._counted], replace(self._tally)

    def runs(self) -> list[Run]:
        with self._changed:
            return list(self._runs)

    def wait(self, predicate: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until *predicate*, which may use what is below, is true."""
        with self._changed:
            return self._clock.wait_for(self._changed, predicate, timeout)

    # Requires _changed to be held; for predicates.

    def is_empty(self, *, but: int = 0) -> bool:
        return len(self._runs) <= but

    def is_idle(self) -> bool:
        return self._idle

    def has_fetcher(self) -> bool:
        return self._fetchers > 0

    def _free(self) -> int:
        without = min(self._line.blocked + self._inside.behind, BLOCKED * self.concurrency)
        return max(0, self.prefetch - self._out - (len(self._runs) - without))

    def _wait_for_permits(self, least: int) -> None:
        """Wait until they may be there. If the probe ends before the next is due, this wait gets an end that
        it had not: it is begun anew."""
        due = self._probe_due()
        self._clock.wait_until(
            self._changed,
            lambda: self._stopping or self._may_take(least) or self._probe_due() != due,
            due,
        )

    def _probe_due(self) -> float | None:
        """When the next probe may be fetched, on the monotonic scale; None if that is not what is waited
        for."""
        return self._processing.changes_at() if self._free() and not self._making_way else None

    def _may_take(self, least: int) -> bool:
        allowed = 0 if self._making_way else self._processing.may_fetch(self._clock.monotonic())
        return allowed > 0 and self._free() >= min(least, allowed)

    def _add(self, what: str, number: int, run: Run | None) -> None:
        setattr(self._tally, what, getattr(self._tally, what) + number)
        if run is not None and run in self._runs:
            self._counted.add(run)

    def _moved(self) -> None:
        self._moves += 1
        self._idle = False
        self._changed.notify_all()

    # For reports.

    def tally(self) -> Tally:
        with self._changed:
            return replace(self._tally)

    def signs(self) -> Signs:
        with self._changed:
            return self._signs

    def not_fetching(self) -> Pause | Trouble | None:
        """Why nothing is fetched at the moment, unless the worker stops."""
        with self._changed:
            return self._processing.pause or self._trouble

    def lost_since(self) -> float | None:
        """Since when the broker has answered nothing to what it was asked; None if it does, or is asked
        nothing because handlers fail."""
        with self._changed:
            if self._trouble is None or self._processing.has_probe_in_hand:
                return None
            return max(self._trouble.since, self._signs.settled_at or 0.0)

    def look_again(self) -> None:
        """What those wait for who `wait` may have changed elsewhere."""
        with self._changed:
            self._changed.notify_all()

    def handler_threads(self) -> list[str]:
        """Names of the threads that are inside the handler."""
        with self._changed:
            return self._inside.names()

    @property
    def is_mine(self) -> bool:
        """The calling thread is inside the handler."""
        with self._changed:
            return threading.get_ident() in self._inside


def _go(places: list[Place]) -> None:
    for place in places:
        place.go()
