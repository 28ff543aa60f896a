"""How many messages a fetch asks for, of a broker that hands out messages of exclusive groups.

Two things are learned, from what comes and from what becomes of it. *Depth*: a fetch that brings more
sessions than are wanted, or fewer messages of one than it has, is a request too many, and what is given back
untaken has a raised delivery count for nothing. *Caution*: what was handed out together with a message that
fails is given back with it, and its count rises as if it had failed itself. So after a failure messages are
fetched one at a time until things go well; and a new process, which may be here because the one before it
died of a message, begins with what one session may have.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection

DEPTH = 2.0
"""Messages asked for, for each session that is waited for, before any answer has told more."""

MOST_PER_SESSION = 4.0
"""Messages asked for, at most, for each session that is waited for. A fetch may bring several of a group, or
more groups than are wanted; those go back with a raised delivery count. So fetches learn from each other."""

PROBE_EVERY = 16
"""Full answers of one message each, after which one fetch asks for two: has a session more by now?"""

WELL = 10
"""Sessions in a row that must end well: after a failure before several messages are fetched at once, and at
first before several sessions are."""

TROUBLE = 60.0
"""Seconds, from when a group that has failed is free again, for which it is expected here. After that
somebody else has it."""

MOST_TROUBLED = 256
"""Failed groups kept in mind; the oldest are forgotten first."""


class FetchSizes:
    """The sizes of one queue's fetches. Callers hold a lock of their own, and pass the monotonic time in."""

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self._depth = DEPTH
        self._shallow = 0
        """Full answers in a row that had one message of each session."""
        self._well = 0
        """Sessions in a row that have ended well."""
        self._trouble = False
        """Something has failed since as many ended well as must."""
        self._free_at: OrderedDict[str, float] = OrderedDict()
        """Groups that have failed, and when they may come again."""
        self._lost: int | None = None

    def size(self, wanted: int, now: float) -> int:
        """Messages to ask for while *wanted* sessions are waited for."""
        if self._lost is not None:
            size, self._lost = self._lost, None
            return size
        if self.cautious(now):
            self._depth, self._shallow = DEPTH, 0
            return 1
        return min(self._max_batch, math.ceil(self._depth * (wanted if self._well >= WELL else 1)))

    def lost(self, size: int) -> None:
        """The answer to a fetch of *size* was lost: the next one asks the same, because a provider may have
        it again then. Else what it brought is hidden until its leases end."""
        self._lost = size

    def came(self, size: int, messages: int, groups: Collection[str], *, again: bool, now: float) -> None:
        """A fetch of *size* brought so many *messages* of these *groups*. *again*: one of them was out
        before, so something has failed with it, here or elsewhere."""
        if again and not self._trouble:  # else the sessions that end well count, of such messages too
            self._trouble, self._well = True, 0
        for group in groups:
            self._free_at.pop(group, None)  # nothing more of it comes before it has failed again, or has not
        if messages and not self.cautious(now):
            self._learn_depth(messages / len(groups), full=messages == size)

    def went_well(self) -> None:
        """All that was in hand of a session was settled for good."""
        self._well += 1
        if self._well >= WELL:
            self._trouble = False

    def failed(self, group: str, free_at: float) -> None:
        """Something of *group* was given back, or lost, and may come again at *free_at*."""
        self._trouble, self._well = True, 0
        # What is behind a head that waits is free with it, whenever it was given back itself.
        self._free_at[group] = max(free_at, self._free_at.get(group, free_at))
        self._free_at.move_to_end(group)
        if len(self._free_at) > MOST_TROUBLED:
            self._free_at.popitem(last=False)

    def cautious(self, now: float) -> bool:
        """True after a failure until `WELL` sessions in a row have ended well, and while a group that has
        failed may be among what comes next."""
        for group in [group for group, free_at in self._free_at.items() if free_at + TROUBLE <= now]:
            del self._free_at[group]
        return self._trouble or any(free_at <= now for free_at in self._free_at.values())

    def _learn_depth(self, depth: float, *, full: bool) -> None:
        """Ask for what this answer had of a session; for twice as much if it was full and had several."""
        self._shallow = self._shallow + 1 if full and depth == 1 else 0
        if full and (depth > 1 or self._shallow % PROBE_EVERY == PROBE_EVERY - 1):
            depth *= 2
        self._depth = min(MOST_PER_SESSION, depth)
