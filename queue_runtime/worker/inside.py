"""Who is in the handler, and which sessions wait for one of them to leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _Guest:
    name: str
    session_id: str | None
    since: float


@dataclass(frozen=True, slots=True)
class _Behind:
    session_id: str
    go: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Stuck(Generic[R]):
    """A handler is still at a session that has been handed out again: it has outlived its lease."""

    seconds: float
    """Since it entered."""
    overtaken: list[R]
    """Who stood behind it before: they have lost the session too, or it would not have been handed out."""


class Inside(Generic[R]):
    """A state machine without a lock: its owner has one, and calls what `exit` returns when it has let go of
    it. Threads are known by their identifiers."""

    def __init__(self) -> None:
        self._guests: dict[int, _Guest] = {}
        self._behind: dict[R, _Behind] = {}

    @property
    def behind(self) -> int:
        """How many stand behind somebody."""
        return len(self._behind)

    def enter(self, thread: int, name: str, session_id: str | None, now: float) -> None:
        self._guests[thread] = _Guest(name, session_id, now)

    def exit(self, thread: int) -> list[Callable[[], None]]:
        """*thread* is out of the handler; returns how those go on who have nobody before them any more."""
        left = self._guests.pop(thread)
        if any(guest.session_id == left.session_id for guest in self._guests.values()):
            return []
        free = [run for run, behind in self._behind.items() if behind.session_id == left.session_id]
        return [self._behind.pop(run).go for run in free]

    def stand_behind(self, run: R, session_id: str, go: Callable[[], None], now: float) -> Stuck[R] | None:
        """*run* waits for whoever is at *session_id*; None if nobody is, and nothing changes."""
        since = [guest.since for guest in self._guests.values() if guest.session_id == session_id]
        if not since:
            return None
        overtaken = [other for other, behind in self._behind.items() if behind.session_id == session_id]
        self._behind[run] = _Behind(session_id, go)
        return Stuck(now - min(since), overtaken)

    def gone(self, run: R) -> None:
        """*run* waits no more."""
        self._behind.pop(run, None)

    def __contains__(self, thread: int) -> bool:
        return thread in self._guests

    def names(self) -> list[str]:
        """Of the threads that are inside."""
        return sorted(guest.name for guest in self._guests.values())
