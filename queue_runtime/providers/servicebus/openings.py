"""Opens sessions of one queue beside each other, because one takes some ten round trips."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from queue_runtime.condition import Condition
from queue_runtime.errors import Closed, QueueError
from queue_runtime.provider import Cancelled
from queue_runtime.providers.servicebus.connecting import Connector
from queue_runtime.providers.servicebus.errors import PROVIDER
from queue_runtime.providers.servicebus.session import NativeSession

UNTAKEN = 2.0
"""Seconds after which an opened session that nobody took is let go: its messages are wanted elsewhere."""

LONGEST = 10.0
"""Seconds that one opening waits at the service for a session to be free. It cannot be called back."""

SHORTEST = 0.1
"""Seconds that it waits at least: the service must have had the time to look."""

AHEAD = 0.5
"""Seconds that an opening takes, at most, at a service that is near."""

OPENING = 2.0
"""Seconds that connecting may take beyond a wait; an older opening stands at the service, in vain so far."""


class Openings:
    """Any thread may call.

    Opened are as many as are waited for, and as many ahead as were handed out in the last half second: so
    many places will be free when these are open. One at a time as long as the queue has nothing, and twice
    as many whenever one has brought something, up to *most*. What nobody takes is kept for a moment.
    """

    def __init__(self, open_next: Callable[[float], NativeSession | None], connector: Connector) -> None:
        self._open_next = open_next
        self._connector = connector
        self._clock = connector.clock
        self._most = connector.options.openings
        self._changed = Condition()
        # guarded by _changed
        self._ready: deque[NativeSession] = deque()
        self._handed_out: deque[float] = deque()  # when, in the last `AHEAD` seconds
        self._wanted = 0
        self._began: dict[object, float] = {}  # openings under way, and since when
        self._width = 1
        self._error: QueueError | None = None
        self._closed = False

    def accept(self, most: int, wait: float, cancelled: Cancelled) -> list[NativeSession]:
        """Up to *most* sessions, as soon as there is one; none after *wait* seconds, or when *cancelled*."""
        deadline = self._clock.monotonic() + wait
        asked = False
        with self._changed:
            self._wanted += most
        try:
            while True:
                with self._changed:
                    if taken := self._take(most):
                        return taken
                    self._check()
                    left = deadline - self._clock.monotonic()
                    patience = left if left > 0 else self._patience()
                    if (asked and patience <= 0) or cancelled():
                        return []
                    starting = self._start() if left > 0 or not asked else []
                asked = True
                for opening in starting:
                    self._connector.opening.submit(
                        partial(self._open, opening, min(max(SHORTEST, left), LONGEST))
                    )
                with self._changed:
                    self._clock.wait_for(
                        self._changed, lambda: self._has_news() or cancelled(), max(patience, SHORTEST)
                    )
        finally:
            with self._changed:
                self._wanted -= most

    def wake(self) -> None:
        """Have those who wait ask whether they are cancelled, and let go what nobody waits for."""
        with self._changed:
            untaken = self._untaken()
            self._changed.notify_all()
        for session in untaken:
            session.close()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            untaken, self._ready = list(self._ready), deque()
            self._changed.notify_all()
        for session in untaken:
            session.close()

    def _open(self, opening: object, wait: float) -> None:
        session, error = None, None
        try:
            session = self._open_next(wait)
        except QueueError as exc:
            error = exc
        finally:
            with self._changed:
                del self._began[opening]
                closed = self._closed
                self._width = min(self._most, 2 * self._width) if session is not None else 1
                self._error = error if self._wanted else None
                if session is not None and not closed:
                    self._ready.append(session)
                self._changed.notify_all()
        if session is None:
            return
        if closed:
            session.close()
        else:
            self._connector.later(UNTAKEN, partial(self._expire, session))

    def _expire(self, session: NativeSession) -> None:
        with self._changed:
            if session not in self._ready:
                return
            self._ready.remove(session)
        session.close()

    # Requires _changed to be held.

    def _take(self, most: int) -> list[NativeSession]:
        taken = [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
        self._handed_out.extend([self._clock.monotonic()] * len(taken))
        return taken

    def _untaken(self) -> list[NativeSession]:
        return [] if self._wanted else self._take(len(self._ready))

    def _start(self) -> list[object]:
        now = self._clock.monotonic()
        while self._handed_out and self._handed_out[0] < now - AHEAD:
            self._handed_out.popleft()
        useful = self._wanted + len(self._handed_out) - len(self._ready)
        starting = [object() for _ in range(min(useful, self._width) - len(self._began))]
        self._began.update(dict.fromkeys(starting, now))
        return starting

    def _patience(self) -> float:
        """Seconds for which an opening that was begun may still be connecting; 0 if there is none."""
        now = self._clock.monotonic()
        return max((began + OPENING - now for began in self._began.values()), default=0.0)

    def _has_news(self) -> bool:
        return bool(self._ready) or self._error is not None or self._closed or not self._began

    def _check(self) -> None:
        if self._closed:
            raise Closed("the client is closed", provider=PROVIDER)
        error, self._error = self._error, None
        if error is not None:
            raise error
