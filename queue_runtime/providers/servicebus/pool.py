"""The receivers of one queue: as few as do, each received with by one thread, those that ended replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from queue_runtime.condition import Condition
from queue_runtime.errors import Closed
from queue_runtime.provider import Cancelled
from queue_runtime.providers.servicebus.connecting import Connector
from queue_runtime.providers.servicebus.errors import PROVIDER
from queue_runtime.providers.servicebus.link import Link

PER_LINK = 4
"""Messages that one receiver has in hand before another one is preferred: each settlement takes a round trip,
one after the other on each receiver."""


class LinkPool:
    """Any thread may call. Connects on first use. *load* tells how many messages of a link are in hand."""

    def __init__(self, queue: str, connector: Connector, load: Callable[[Link], int]) -> None:
        self._queue = queue
        self._connector = connector
        self._clock = connector.clock
        self._load = load
        self._most = connector.options.receivers
        self._changed = Condition()
        # guarded by _changed
        self._idle: list[Link] = []
        self._busy: set[Link] = set()
        self._connecting = 0
        self._closed = False

    def adopt(self, link: Link) -> None:
        """Take a receiver that was connected for another reason."""
        with self._changed:
            self._busy.add(link)
        self._put_back(link)

    @contextmanager
    def receiving(self, deadline: float, cancelled: Cancelled) -> Iterator[Link | None]:
        """One that no other thread receives with; None if there is none by *deadline*."""
        link = self._pick(deadline, cancelled)
        try:
            yield link
        finally:
            if link is not None:
                self._put_back(link)

    def any(self, timeout: float) -> Link:
        """One for a short request, beside whatever else is done with it. Waits *timeout* seconds for one that
        is being connected; then, and if there is none at all, it connects another."""
        while True:
            with self._changed:
                self._clock.wait_for(self._changed, lambda: self._closed or self._has_any(), timeout)
                self._check_open()
                links = [link for link in (*self._idle, *self._busy) if not link.dead]
                if not links:
                    self._connecting += 1
            if not links:
                made = self._connect()
                self._put_back(made)
                return made
            for link in links:
                if link.is_well():
                    return link

    @property
    def closed(self) -> bool:
        with self._changed:
            return self._closed

    def check_open(self) -> None:
        """Raises `Closed`."""
        with self._changed:
            self._check_open()

    def wake(self) -> None:
        """Have those who wait ask whether they are cancelled."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Busy ones are closed when they are put back."""
        with self._changed:
            self._closed = True
            links, self._idle = self._idle, []
            self._changed.notify_all()
        for link in links:
            self._connector.let_go(link)

    def _pick(self, deadline: float, cancelled: Cancelled) -> Link | None:
        """One that is well. It is busy from now on, for its caller to put back."""

        def possible() -> bool:
            return self._closed or bool(self._idle) or self._may_connect() or cancelled()

        while True:
            with self._changed:
                self._check_open()
                self._drop_ended()
                link = self._least_loaded()
                if link is not None:
                    self._idle.remove(link)
                    self._busy.add(link)
                elif self._may_connect():
                    self._connecting += 1
                else:
                    if deadline <= self._clock.monotonic() or cancelled():
                        return None
                    self._clock.wait_until(self._changed, possible, deadline)
                    continue
            if link is None:
                return self._connect()
            if link.is_well():
                return link
            self._put_back(link)

    def _connect(self) -> Link:
        """A new one, busy; it was counted as connecting."""
        made: Link | None = None
        try:
            made = self._connector.connect(self._queue)
            return made
        finally:
            with self._changed:
                self._connecting -= 1
                if made is not None:
                    self._busy.add(made)
                self._changed.notify_all()

    def _put_back(self, link: Link) -> None:
        with self._changed:
            self._busy.discard(link)
            usable = not link.dead and not self._closed
            if usable:
                self._idle.append(link)
            self._changed.notify_all()
        if not usable:
            self._connector.let_go(link)

    # Requires _changed to be held.

    def _may_connect(self) -> bool:
        return len(self._idle) + len(self._busy) + self._connecting < self._most

    def _has_any(self) -> bool:
        """One is there, or nobody is making one."""
        return not self._connecting or any(not link.dead for link in (*self._idle, *self._busy))

    def _least_loaded(self) -> Link | None:
        """The idle one with least in hand: settlements wait for a slice on one that receives. None if a new
        one would be better."""
        link = min(self._idle, key=self._load, default=None)
        if link is not None and self._load(link) >= PER_LINK and self._may_connect():
            return None
        return link

    def _drop_ended(self) -> None:
        for link in [link for link in self._idle if link.dead or link.silent]:
            self._idle.remove(link)
            self._connector.let_go(link)

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the client is closed", provider=PROVIDER)
