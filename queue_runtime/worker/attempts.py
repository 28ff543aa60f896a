"""How often a message has been tried in this process; the broker counts deliveries, not handlers."""

from __future__ import annotations

import threading
from collections import OrderedDict

REMEMBERED = 10_000
"""Messages whose attempts are remembered; beyond that the oldest start anew, and the broker bounds
them."""


class Attempts:
    """Attempts by the broker's id of a message, which it keeps when it is given back and comes again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # guarded by _lock
        self._known: OrderedDict[str, int] = OrderedDict()

    def next_of(self, broker_id: str) -> int:
        with self._lock:
            return self._known.get(broker_id, 0) + 1

    def note(self, broker_id: str, attempts: int) -> None:
        with self._lock:
            self._known[broker_id] = attempts
            self._known.move_to_end(broker_id)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)

    def forget(self, broker_id: str) -> None:
        with self._lock:
            self._known.pop(broker_id, None)
