"""The hold on a message or a session, and its end."""

from __future__ import annotations

from datetime import datetime

from queue_runtime.clock import Clock, instant
from queue_runtime.errors import LeaseLost, SessionLeaseLost


class Lease:
    """An exclusive hold with an end.

    Any thread may ask; every attribute is written in one step, and `lost` never goes back to False.
    """

    def __init__(
        self, clock: Clock, *, until: float, length: float, what: str, session: bool = False
    ) -> None:
        self._clock = clock
        self._until = until
        self._lost_because: str | None = None
        self.length = length
        """Seconds that it lasts when it is renewed."""
        self._what = what
        self._error = SessionLeaseLost if session else LeaseLost

    @property
    def until(self) -> datetime:
        """When it ends if it is not renewed."""
        return instant(self._clock, self._until)

    @property
    def deadline(self) -> float:
        """When it ends, on the clock's monotonic scale."""
        return self._until

    @property
    def lost(self) -> bool:
        """True once it has ended without having been renewed, or the broker has said so."""
        return self._lost_because is not None or self.remaining() <= 0

    def remaining(self) -> float:
        """Seconds left; 0 when lost."""
        if self._lost_because is not None:
            return 0.0
        return max(0.0, self._until - self._clock.monotonic())

    def check(self) -> None:
        """Raise `LeaseLost` (`SessionLeaseLost` for a session) if it is lost; else do nothing.

        A long handler calls this before each step that must not happen twice.
        """
        if self.lost:
            raise self._error(f"the lease of {self._what} is lost: {self._lost_because or 'it ran out'}")

    def extend(self, until: float) -> None:
        """Note a renewal, or a new shortest end; for the library's own use.

        What is lost stays lost: a renewal confirmed after the end changes nothing, for the handler may
        have been told.
        """
        if not self.lost:
            self._until = until

    def lose(self, because: str) -> None:
        """Note the loss; for the library's own use."""
        if self._lost_because is None:
            self._lost_because = because

    def __repr__(self) -> str:
        return f"<Lease of {self._what} [{'lost' if self.lost else f'{self.remaining():.1f} s left'}]>"
