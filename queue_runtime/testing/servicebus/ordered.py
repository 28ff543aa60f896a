"""Keeps keys in the order of their ranks, so that the next one is found without looking at the others."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

K = TypeVar("K")

_SLACK = 64  # what may lie about dead before a heap or a list is swept


class Ranked(Generic[K]):
    """A set of keys, each with a rank: the lowest comes first, among equals the one put earlier.

    Putting, taking and discarding cost the logarithm of the size. A rank is anything that compares.
    """

    def __init__(self) -> None:
        self._entries: dict[K, tuple[Any, int]] = {}
        self._heap: list[tuple[Any, int, K]] = []
        self._puts = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def put(self, key: K, rank: Any) -> None:
        """Add *key*, or give it this rank instead of the one it had."""
        self._puts += 1
        self._entries[key] = (rank, self._puts)
        heapq.heappush(self._heap, (rank, self._puts, key))
        if len(self._heap) > 2 * len(self._entries) + _SLACK:
            self._heap = [(*entry, each) for each, entry in self._entries.items()]
            heapq.heapify(self._heap)

    def discard(self, key: K) -> None:
        self._entries.pop(key, None)

    def first(self) -> tuple[K, Any] | None:
        """Return the first key and its rank, None where there are none."""
        while self._heap:
            rank, put, key = self._heap[0]
            if self._entries.get(key) == (rank, put):
                return key, rank
            heapq.heappop(self._heap)
        return None

    def pop(self) -> K | None:
        """Remove the first key and return it."""
        found = self.first()
        if found is None:
            return None
        heapq.heappop(self._heap)
        del self._entries[found[0]]
        return found[0]

    def due(self, now: float) -> Iterator[K]:
        """Remove and yield the keys ranked up to *now*; also those that are put meanwhile."""
        while (found := self.first()) is not None and found[1] <= now:
            self.pop()
            yield found[0]


class Ascending:
    """Numbers that are appended in rising order, discarded in any, and looked through from any on."""

    def __init__(self) -> None:
        # As a dict it keeps the order of appending; the sorted list is what one can bisect.
        self._live: dict[int, None] = {}
        self._all: list[int] = []

    def __len__(self) -> int:
        return len(self._live)

    def append(self, number: int) -> None:
        """Add *number*, which must be higher than all before it."""
        self._live[number] = None
        self._all.append(number)

    def discard(self, number: int) -> None:
        self._live.pop(number, None)
        if len(self._all) > 2 * len(self._live) + _SLACK:
            self._all = list(self._live)

    def at_least(self, number: int) -> Iterator[int]:
        """Yield the numbers from *number* on. Nothing may be appended or discarded meanwhile."""
        start = bisect_left(self._all, number)
        places = range(start, len(self._all))  # not a slice, which copies, nor islice, which counts up to it
        return (self._all[place] for place in places if self._all[place] in self._live)
