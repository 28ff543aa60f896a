"""Makes links and lets them go. Closing one takes up to a second, on another thread's time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from azure.servicebus import ServiceBusReceiver, ServiceBusSender

from queue_runtime.clock import Clock
from queue_runtime.errors import Closed
from queue_runtime.providers.servicebus import handlers
from queue_runtime.providers.servicebus.errors import PROVIDER, SDK_ERRORS, translate
from queue_runtime.providers.servicebus.link import Link
from queue_runtime.providers.servicebus.options import ServiceBusOptions
from queue_runtime.providers.servicebus.tasks import Tasks
from queue_runtime.scheduler import Scheduler

CLOSERS = 8
"""Links that are closed beside each other."""

LOOK_EVERY = 1.0
"""Seconds between two looks at whether links that nobody uses have ended."""

MARGIN = 0.25
"""Seconds beyond its time after which an opening is ended that does not look at the time."""


class Connector:
    """What all queues of a client share. Any thread may call."""

    def __init__(self, options: ServiceBusOptions, clock: Clock) -> None:
        self.options = options
        self.clock = clock
        self.sdk = options.client()
        self.opening = Tasks("open", options.openings, clock)
        self.beside = Tasks("beside", options.receivers, clock)
        self._closing = Tasks("close", CLOSERS, clock)
        self._scheduler = Scheduler(clock)
        self._lock = threading.Lock()
        # guarded by _lock
        self._closed = False
        self._links: set[Link] = set()
        self._opening: set[ServiceBusReceiver | ServiceBusSender] = set()
        self._looking = False

    def connect(self, queue: str, *, session: str | None = None, wait: float | None = None) -> Link:
        """A receiver; of *session*, or with *wait* of the next one that is free within so many seconds, else
        `OperationTimeout`."""
        self.check_open()
        timeout = self.options.request_timeout
        try:
            receiver = handlers.make_receiver(self.sdk, queue, self.clock, session=session, wait=wait)
            with self.in_time(receiver, timeout + (wait or 0.0)):
                handlers.open_receiver(receiver, timeout + (wait or 0.0))
        except SDK_ERRORS as exc:
            error = translate(exc, changes=False, queue=queue)
        else:
            return self._kept(Link(receiver, self.clock, timeout, on_close=self._forget))
        self.check_open()  # else it was hung up on
        raise error

    @contextmanager
    def in_time(self, handler: ServiceBusReceiver | ServiceBusSender, seconds: float) -> Iterator[None]:
        """End the opening of *handler* if it takes longer, whatever it waits for, or with the client."""
        with self._lock:
            self._opening.add(handler)
        timer = self._scheduler.call_later(seconds + MARGIN, partial(handlers.hang_up, handler))
        try:
            yield
        finally:
            timer.cancel()
            with self._lock:
                self._opening.discard(handler)

    def let_go(self, link: Link, delay: float = 0.0) -> None:
        """Close *link* on another thread, after so many seconds, or with the client if that comes first."""
        if delay > 0:
            self.later(delay, link.close)
        else:
            self.soon(link.close)

    def later(self, delay: float, action: Callable[[], object]) -> None:
        """Run *action*, which may block, in *delay* seconds, or at once if the client is being closed."""
        try:
            self._scheduler.call_later(delay, lambda: self.soon(action))
        except Closed:
            self.soon(action)

    def soon(self, action: Callable[[], object]) -> None:
        """Run *action*, which may block, on another thread."""
        if not self._closing.submit(action):
            action()

    def check_open(self) -> None:
        with self._lock:
            if self._closed:
                raise Closed(
                    "the Service Bus client is closed; connect again for a new one", provider=PROVIDER
                )

    def refuse(self) -> bool:
        """Refuse new links from now on; False if that was so already."""
        with self._lock:
            was_open, self._closed = not self._closed, True
        return was_open

    def close(self) -> None:
        """Close the links that are left, and end the threads after what they have been given."""
        with self._lock:
            left, opening = list(self._links), list(self._opening)
        for handler in opening:
            handlers.hang_up(handler)
        for link in left:
            self.soon(link.close)
        self._scheduler.close()
        for tasks in (self.opening, self.beside, self._closing):
            tasks.close(self.options.request_timeout)

    def _kept(self, link: Link) -> Link:
        with self._lock:
            closed, looking = self._closed, self._looking
            self._links.add(link)
            self._looking = True
        if closed:
            self.let_go(link)
            self.check_open()
        if not looking:
            self.later(LOOK_EVERY, self._look)
        return link

    def _look(self) -> None:
        """See which links have ended: a session's messages may be with somebody else already."""
        with self._lock:
            links = [] if self._closed else list(self._links)
            self._looking = bool(links)
        for link in links:
            link.is_well()
        if links:
            self.later(LOOK_EVERY, self._look)

    def _forget(self, link: Link) -> None:
        with self._lock:
            self._links.discard(link)
