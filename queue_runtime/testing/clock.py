"""`FakeClock`: time that stands still until a test moves it, for code that waits on many threads.

    clock = FakeClock()
    client = connect("memory://?queues=jobs", clock=clock)
    receiver = threading.Thread(target=lambda: client.receive("jobs", wait=30.0))
    receiver.start()

    clock.block_until(waiters=1)    # the receiver has nothing to do until something changes
    clock.advance(30.0)             # its wait is over
    receiver.join(5.0)

A test meets its threads instead of sleeping for them: `block_until` before what they must be waiting for,
`advance` to let their deadlines come. Work that goes on in steps of its own (a renewal every few seconds)
needs the threads to have parked again before time goes on: ``advance(60.0, waiters=3)``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from queue_runtime.clock import SystemClock

PATIENCE = 10.0
"""Real seconds that a thread gets to do what it can do at once; a loaded machine needs some of them."""

_POLL = 0.002
_ORIGIN = 1000.0


@dataclass(eq=False, slots=True)
class _Wait:
    """One thread inside `FakeClock.wait_until`."""

    condition: threading.Condition
    predicate: Callable[[], bool]
    deadline: float | None
    thread: threading.Thread

    def describe(self, now: float) -> str:
        name = getattr(self.predicate, "__qualname__", repr(self.predicate))
        if self.deadline is None:
            left = "without a deadline"
        elif self.deadline <= now:
            left = "its deadline has come, it has not left yet"
        else:
            left = f"for {self.deadline - now:g} s more"
        return f"{self.thread.name} waits for {name} {left}"


class FakeClock:
    """A `Clock` whose time moves only by `advance`. Any thread may call any method at any time.

    Predicates given to `wait_for` and `wait_until` are evaluated by other threads too, with their condition
    held: they must change nothing. A thread is *parked* if its deadline is ahead (or it has none) and its
    predicate is false: only such a one has nothing to do until something changes.
    """

    def __init__(self, start: datetime = datetime(2024, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._real = SystemClock()
        self._turn = threading.Lock()
        """Held through one `advance`: a second one comes after it."""
        # A waiter's condition may be held when this is taken, never the other way round.
        self._changed = threading.Condition(threading.Lock())
        # guarded by _changed
        self._time = _ORIGIN
        self._waits: list[_Wait] = []
        self._version = 0
        """Rises with every wait that begins or ends."""

    def now(self) -> datetime:
        """`start` and what was advanced since."""
        return self._start + timedelta(seconds=self.monotonic() - _ORIGIN)

    def monotonic(self) -> float:
        with self._changed:
            return self._time

    def wait_for(
        self,
        condition: threading.Condition,
        predicate: Callable[[], bool],
        timeout: float | None = None,
    ) -> bool:
        """Wait until *predicate* holds or `advance` has brought *timeout* seconds; see `Clock.wait_for`."""
        deadline = None if timeout is None else self.monotonic() + timeout
        return self.wait_until(condition, predicate, deadline)

    def wait_until(
        self,
        condition: threading.Condition,
        predicate: Callable[[], bool],
        deadline: float | None = None,
    ) -> bool:
        """Wait until *predicate* holds or `advance` has come to *deadline*; see `Clock.wait_until`."""
        if predicate():
            return True
        if deadline is not None and deadline <= self.monotonic():
            return False
        wait = self._begin(condition, predicate, deadline)
        try:
            while not predicate():
                if self._is_over(wait):
                    return False
                condition.wait()
            return True
        finally:
            self._end(wait)

    def advance(self, seconds: float, *, waiters: int | None = None) -> None:
        """Move time on, stopping at each deadline on the way, also at those that are set meanwhile.

        At a stop the threads whose deadline has come are woken, and time goes on when they have left their
        waits. What they do next takes no fake time, but real time, in which this may already go on: with
        *waiters*, each move waits for that many parked threads first, as `block_until` does.

        Hold no lock that a waiting thread needs. Raises `AssertionError` if a woken thread has not left
        its wait after `PATIENCE` real seconds.
        """
        if seconds < 0:
            raise ValueError(f"time does not go back: advance({seconds!r})")
        if not self._turn.acquire(timeout=PATIENCE):
            raise AssertionError("another advance() has not come to its end")
        try:
            target = self.monotonic() + seconds
            moving = True
            while moving:
                if waiters is not None:
                    self.block_until(waiters)
                moving = self._move(target)
                self._see_off_the_due()
        finally:
            self._turn.release()

    def block_until(self, waiters: int, *, timeout: float = PATIENCE) -> None:
        """Return when at least *waiters* threads are parked.

        Name all threads that there are: one that is not counted may still be running, and may give a
        parked one something to do. A thread is not counted while another holds its condition, even if that
        one is parked elsewhere. Raises `AssertionError` after *timeout* real seconds; it lists what waits.
        """
        give_up_at = self._real.monotonic() + timeout
        while True:
            with self._changed:
                version, waits = self._version, tuple(self._waits)
            parked = [wait for wait in waits if self._is_parked(wait)]
            with self._changed:
                # A thread that moved meanwhile may have changed what was seen of the others.
                if version == self._version and len(parked) >= waiters:
                    return
                if self._real.monotonic() >= give_up_at:
                    break
                if version == self._version:
                    self._changed.wait(_POLL)
        raise AssertionError(
            f"parked threads: {len(parked)}, not {waiters}, after {timeout:g} s; {self._list(waits)}"
        )

    def is_parked(self, *threads: threading.Thread) -> bool:
        """True if all of *threads* are parked: for tests that go by their own threads, not by a number."""
        with self._changed:
            version, waits = self._version, tuple(self._waits)
        parked = {wait.thread for wait in waits if wait.thread in threads and self._is_parked(wait)}
        with self._changed:
            return version == self._version and len(parked) == len(set(threads))

    def next_deadline(self) -> float | None:
        """The first deadline that somebody waits for, on the monotonic scale; None if there is none."""
        with self._changed:
            return min((w.deadline for w in self._waits if w.deadline is not None), default=None)

    def __repr__(self) -> str:
        with self._changed:
            return f"<FakeClock [{self._time - _ORIGIN:g} s after its start | {len(self._waits)} waiting]>"

    def _begin(
        self, condition: threading.Condition, predicate: Callable[[], bool], deadline: float | None
    ) -> _Wait:
        with self._changed:
            wait = _Wait(condition, predicate, deadline, threading.current_thread())
            self._waits.append(wait)
            self._version += 1
            self._changed.notify_all()
        return wait

    def _end(self, wait: _Wait) -> None:
        with self._changed:
            self._waits.remove(wait)
            self._version += 1
            self._changed.notify_all()

    def _is_over(self, wait: _Wait) -> bool:
        return wait.deadline is not None and wait.deadline <= self.monotonic()

    def _is_parked(self, wait: _Wait) -> bool:
        # Never wait for long: the holder of the condition may be a thread that waits for this one.
        if not wait.condition.acquire(timeout=_POLL):
            return False
        try:
            with self._changed:
                if wait not in self._waits:
                    return False
            return not self._is_over(wait) and not wait.predicate()
        finally:
            wait.condition.release()

    def _move(self, target: float) -> bool:
        """Move to the next deadline, at most to *target*; False when that is reached."""
        with self._changed:
            ahead = [w.deadline for w in self._waits if w.deadline is not None and w.deadline > self._time]
            self._time = min([target, *ahead])
            return self._time < target

    def _see_off_the_due(self) -> None:
        """Wake the threads whose deadline has come and return when they have left their waits."""
        give_up_at = self._real.monotonic() + PATIENCE
        while due := self._due():
            if self._real.monotonic() >= give_up_at:
                raise AssertionError(f"woken, but not gone after {PATIENCE:g} s; {self._list(due)}")
            for wait in due:
                # One may need a lock that another due one holds until it has left: take turns.
                if wait.condition.acquire(timeout=_POLL):
                    wait.condition.notify_all()
                    wait.condition.release()
            with self._changed:
                if due[0] in self._waits:
                    self._changed.wait(_POLL)

    def _due(self) -> Sequence[_Wait]:
        with self._changed:
            return [w for w in self._waits if w.deadline is not None and w.deadline <= self._time]

    def _list(self, waits: Sequence[_Wait]) -> str:
        now = self.monotonic()
        return "waiting: " + ("; ".join(wait.describe(now) for wait in waits) or "nobody")
