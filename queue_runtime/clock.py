"""The only module that asks for the time; everybody else is handed a `Clock`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from queue_runtime.condition import Condition


class Clock(Protocol):
    """Time as the library sees it. `queue_runtime.testing.FakeClock` is the other implementation."""

    def now(self) -> datetime:
        """The wall clock, as an aware UTC datetime."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary point that never go back."""

    def wait_for(
        self,
        condition: threading.Condition,
        predicate: Callable[[], bool],
        timeout: float | None = None,
    ) -> bool:
        """Wait until *predicate* holds or *timeout* seconds have passed; returns the predicate's last value.

        Requires *condition* to be held; it is released while waiting. The predicate runs with it held.
        """

    def wait_until(
        self,
        condition: threading.Condition,
        predicate: Callable[[], bool],
        deadline: float | None = None,
    ) -> bool:
        """As `wait_for`, until the moment *deadline* of the monotonic scale: what was read off that scale is
        waited for as it is, however long it takes to get here."""


def instant(clock: Clock, moment: float) -> datetime:
    """When *moment* of the monotonic scale is, or was, on the wall clock."""
    return clock.now() + timedelta(seconds=moment - clock.monotonic())


class SystemClock:
    """Real time."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def wait_for(
        self,
        condition: threading.Condition,
        predicate: Callable[[], bool],
        timeout: float | None = None,
    ) -> bool:
        # A longer one, three hundred years, is an OverflowError.
        longest = threading.TIMEOUT_MAX
        return condition.wait_for(predicate, timeout if timeout is None else min(timeout, longest))

    def wait_until(
        self,
        condition: threading.Condition,
        predicate: Callable[[], bool],
        deadline: float | None = None,
    ) -> bool:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        return self.wait_for(condition, predicate, left)


def sleep(clock: Clock, seconds: float) -> None:
    """Block for *seconds* of *clock*'s time."""
    nothing = Condition()
    with nothing:
        clock.wait_for(nothing, lambda: False, seconds)
