"""Whose turn it is at something that only one thread may use: the urgent go before the patient."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from queue_runtime.clock import Clock
from queue_runtime.condition import Condition

PATIENCE = 0.2
"""Seconds for which the patient let the urgent go before them; then they stand in line with those."""


class Turns:
    """A lock with two queues. It is held during I/O, which is what it is for: that I/O is bounded."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = Condition()
        # guarded by _changed
        self._taken = False
        self._urgent: deque[object] = deque()
        """Tickets, in the order of their coming: who comes again and again must not keep the others out."""

    @contextmanager
    def urgent(self, timeout: float) -> Iterator[bool]:
        """The next turn: for settlements and renewals. False if none came within *timeout* seconds."""
        yield from self._hold(self._stand_in_line(timeout))

    @contextmanager
    def patient(self, timeout: float) -> Iterator[bool]:
        """A turn when nobody urgent waits: for receiving. False if none came within *timeout* seconds."""
        with self._changed:
            mine = self._clock.wait_for(
                self._changed, lambda: not self._taken and not self._urgent, min(timeout, PATIENCE)
            )
            self._taken = self._taken or mine
        if not mine and timeout > PATIENCE:
            mine = self._stand_in_line(timeout - PATIENCE)
        yield from self._hold(mine)

    def _stand_in_line(self, timeout: float) -> bool:
        ticket = object()
        with self._changed:
            self._urgent.append(ticket)
            try:
                mine = self._clock.wait_for(
                    self._changed, lambda: not self._taken and self._urgent[0] is ticket, timeout
                )
                self._taken = self._taken or mine
            finally:
                self._urgent.remove(ticket)
                self._changed.notify_all()
        return mine

    def _hold(self, mine: bool) -> Iterator[bool]:
        try:
            yield mine
        finally:
            if mine:
                with self._changed:
                    self._taken = False
                    self._changed.notify_all()
