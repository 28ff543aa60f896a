"""Who enters the handler next: first come, first served, at most so many at once, one of a lane at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """In the line. Whoever `holder` is, it is in the line once."""

    holder: object
    go: Callable[[], None]
    """Called, by whoever makes room, when it is its turn."""
    lane: Hashable | None = None
    """What has a lane waits for the holder before it on that lane to be gone, in no one's way meanwhile."""


class Line:
    """A state machine without a lock: its owner has one, asks `advance` after each change, and calls
    `Place.go` when it has let go of its lock."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._ready: deque[Place] = deque()
        self._inside: set[object] = set()
        self._behind: dict[Hashable, deque[Place]] = {}
        """By lane, for those lanes that somebody is on: who waits for that."""
        self._on: dict[object, Hashable] = {}
        self._blocked = 0

    @property
    def blocked(self) -> int:
        """How many wait for another of their lane."""
        return self._blocked

    def join(self, place: Place) -> bool:
        """Stand in line; False if it waits for another of its lane."""
        lane = place.lane
        if lane is not None:
            behind = self._behind.get(lane)
            if behind is not None:
                behind.append(place)
                self._blocked += 1
                return False
            self._behind[lane] = deque()
            self._on[place.holder] = lane
        self._ready.append(place)
        return True

    def advance(self) -> list[Place]:
        """Those whose turn it is now; they are inside."""
        going = []
        while self._ready and len(self._inside) < self._most:
            place = self._ready.popleft()
            self._inside.add(place.holder)
            going.append(place)
        return going

    def leave(self, holder: object) -> None:
        """*holder* is out of the handler, and stays on its lane."""
        self._inside.discard(holder)

    def leave_lane(self, holder: object) -> None:
        """*holder* holds up no other of its lane any more; where it is else, it stays."""
        lane = self._on.pop(holder, None)
        if lane is not None:
            self._next_of(lane)

    def gone(self, holder: object) -> None:
        """*holder* is neither in the line, nor inside, nor on a lane."""
        self.leave(holder)
        self._ready = deque(place for place in self._ready if place.holder is not holder)
        lane = self._on.pop(holder, None)
        if lane is not None:
            self._next_of(lane)
        elif self._blocked:
            self._take_from_behind(holder)

    def _next_of(self, lane: Hashable) -> None:
        behind = self._behind[lane]
        if not behind:
            del self._behind[lane]
            return
        place = behind.popleft()
        self._blocked -= 1
        self._on[place.holder] = lane
        self._ready.append(place)

    def _take_from_behind(self, holder: object) -> None:
        for behind in self._behind.values():
            for place in list(behind):
                if place.holder is holder:
                    behind.remove(place)
                    self._blocked -= 1
