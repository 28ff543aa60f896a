"""What is known in this process of messages that come again: tries, deliveries that prove nothing, ends."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from queue_runtime.message import DeadLetterInfo

REMEMBERED = 10_000
"""Messages of one queue that are remembered; beyond that the oldest are forgotten first, and what the broker
knows of them bounds them."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The handler is done with a message, and the broker may not know: it is not to be handled again."""

    info: DeadLetterInfo | None
    """With what it is to be dead-lettered; None: it is complete."""
    dropped: bool = False
    """It is to be completed all the same, with `info` as the reason why it is not dead-lettered."""


@dataclass(slots=True)
class _Known:
    attempts: int = 0
    excused: int = 0
    ended: Ended | None = None


class History:
    """One queue's, by the broker's ids, which a message keeps when it comes again: the user's own id may be
    two messages'. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # guarded by _lock
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def next_attempt(self, broker_id: str) -> int:
        """The number of the attempt that would come now; the first is 1."""
        with self._lock:
            known = self._known.get(broker_id)
            return 1 if known is None else known.attempts + 1

    def tried(self, broker_id: str, attempt: int) -> None:
        """Attempt number *attempt* has failed."""
        with self._lock:
            known = self._of(broker_id)
            known.attempts = max(known.attempts, attempt)  # one that overran may end after its successor

    def excuse(self, broker_id: str) -> None:
        """A delivery of it has ended for no fault of its own: it went back unhandled, or what it needs was
        down. The broker has counted it."""
        with self._lock:
            self._of(broker_id).excused += 1

    def excused(self, broker_id: str) -> int:
        with self._lock:
            known = self._known.get(broker_id)
            return 0 if known is None else known.excused

    def end(self, broker_id: str, ended: Ended) -> None:
        """Remember that it *ended* so, until it is forgotten: the broker has not agreed."""
        with self._lock:
            self._of(broker_id).ended = ended

    def ended(self, broker_id: str) -> Ended | None:
        with self._lock:
            known = self._known.get(broker_id)
            return None if known is None else known.ended

    def forget(self, broker_id: str) -> None:
        """It has left the queue: the broker has agreed."""
        with self._lock:
            self._known.pop(broker_id, None)

    def __len__(self) -> int:
        with self._lock:
            return len(self._known)

    # Requires _lock to be held.

    def _of(self, broker_id: str) -> _Known:
        known = self._known.setdefault(broker_id, _Known())
        self._known.move_to_end(broker_id)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return known
