"""Group commit: calls made at the same time share requests; one that is alone leaves at once."""

from __future__ import annotations

import copy
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

from queue_runtime.clock import Clock
from queue_runtime.errors import (
    Closed,
    ConfigurationError,
    ConnectionFailed,
    Outcome,
    OutcomeUnknown,
    ProviderError,
    QueueError,
)
from queue_runtime.retry import check_whole
from queue_runtime.scheduler import Scheduler

log = logging.getLogger("queue_runtime")

I = TypeVar("I")  # noqa: E741  an item that travels
R = TypeVar("R")

SLOW = 1.0
"""Seconds after which a request under way no longer holds partial ones back: it may never end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPolicy:
    """How calls made at the same time share requests to the broker. A call leaves at once if no request is
    under way; calls made meanwhile share the next one.

    At most `max_in_flight` requests of one kind are under way on one queue. One that is not full leaves when
    fewer than `partial_in_flight` are. `max_pending` bounds the messages given to `submit` that were not sent
    yet, for each queue; `submit` waits for room. Raises `ConfigurationError`, naming the setting, for what is
    no whole number from 1 on, or a `partial_in_flight` above `max_in_flight`.
    """

    max_in_flight: int = 8
    partial_in_flight: int = 1
    max_pending: int = 1000

    def __post_init__(self) -> None:
        for name in ("max_in_flight", "partial_in_flight", "max_pending"):
            check_whole(f"batching.{name}", getattr(self, name), least=1)
        if self.partial_in_flight > self.max_in_flight:
            raise ConfigurationError(
                f"batching.partial_in_flight must be at most max_in_flight ({self.max_in_flight}), it is "
                f"{self.partial_in_flight}"
            )


@dataclass(slots=True, eq=False)
class Parcel(Generic[I]):
    """Items that travel in one request, never apart."""

    items: Sequence[I]
    size: int = 0
    """Bytes; 0 where they do not count."""
    left: bool = False
    """It is in a request, or was, or was withdrawn: it does not wait any more. Guarded by its lane."""


Told = Sequence[tuple[Parcel[I], Sequence[Outcome[R]]]]
"""The parcels of one request, each with the outcomes of its items."""

Answered = Callable[[Told[I, R], float], None]
"""Told what a request came to, and when it was begun, on the thread that made it."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one request takes."""

    items: int
    size: int


@dataclass(slots=True, eq=False)
class _Request(Generic[I]):
    """What has left together, and when."""

    began: float = 0.0
    parcels: list[Parcel[I]] = field(default_factory=list)


class Lane(Generic[I, R]):
    """Requests of one kind to one queue, made of the parcels that wait for them.

    An idle lane sends at once. A full request leaves at once, a partial one when fewer than
    `partial_in_flight` are under way; it takes all that came meanwhile. So a parcel waits for one request at
    most, and at load requests are full. A request that has been under way for `SLOW` seconds holds no partial
    one back. The lane retries nothing and sleeps never.

    Requests are made by the threads that call, where they may, and by *carriers*. If such a thread dies, or a
    signal handler raises on it, what it has taken is told: not sent, or unknown from its request on.
    """

    def __init__(
        self,
        request: Callable[[Sequence[I]], Sequence[Outcome[R]]],
        answered: Answered[I, R],
        *,
        policy: BatchPolicy,
        load: Load,
        clock: Clock,
        scheduler: Scheduler,
        carriers: Executor,
    ) -> None:
        self._request = request
        self._answered = answered
        self._policy = policy
        self._load = load
        self._clock = clock
        self._scheduler = scheduler
        self._carriers = carriers
        self._here = threading.local()
        self._lock = threading.Lock()
        # guarded by _lock
        self._waiting: OrderedDict[Parcel[I], None] = OrderedDict()
        self._under_way: list[_Request[I]] = []
        self._looks_again = False

    def add(self, parcels: Iterable[Parcel[I]], *, wanted: Callable[[], bool] | None = None) -> None:
        """Take *parcels*, to be answered once each. With *wanted* the calling thread itself makes what
        requests can leave, for as long as that is true."""
        with self._lock:
            for parcel in parcels:
                if not parcel.left:  # else it was withdrawn before it came here
                    self._waiting[parcel] = None
            may_leave = self._may_leave()
            if not may_leave:
                self._look_again_later()
        if wanted is not None:
            self._carry(wanted)
        elif may_leave and not getattr(self._here, "carrying", False):  # else this thread goes on with it
            self._have_carried()

    def withdraw(self, parcel: Parcel[I]) -> bool:
        """Take *parcel* back; False if it has left. It is not answered then."""
        with self._lock:
            if parcel.left:
                return False
            parcel.left = True  # it may be on its way to `add`, or `add` was interrupted
            self._waiting.pop(parcel, None)
            return True

    def call_back(self, act: Callable[[], object]) -> None:
        """Run *act*, which may hold its thread up: others make what requests can leave meanwhile, those
        included that it asks for, and a thread that is only lent is spared."""
        if getattr(self._here, "lent", False) and self._have_run(act):
            return
        carrying, self._here.carrying = getattr(self._here, "carrying", False), False
        with self._lock:
            may_leave = self._may_leave()
        if may_leave:
            self._have_run(self._carry)  # with no thread to be had, this one goes on when it can
        try:
            act()
        finally:
            self._here.carrying = carrying

    def _carry(self, wanted: Callable[[], bool] | None = None) -> None:
        """Make requests while there are some that may leave. With *wanted* the thread is only lent, for as
        long as that is true."""
        here = self._here
        before, here.carrying = getattr(here, "carrying", False), True
        lent, here.lent = getattr(here, "lent", False), wanted is not None
        try:
            while (wanted is None or wanted()) and self._carry_one():
                pass
        finally:
            here.carrying, here.lent = before, lent
            with self._lock:
                more = self._may_leave()
                if not more:
                    self._look_again_later()
            if more and not before:
                self._have_carried()

    def _have_carried(self) -> None:
        """By another thread, or else by this one."""
        if not self._have_run(self._carry):
            log.debug("no carrier; a request is made on %s", threading.current_thread().name)
            self._carry()

    def _have_run(self, act: Callable[[], object]) -> bool:
        """By a carrier. False if there is none: the client has closed, or no thread is to be had."""
        try:
            self._carriers.submit(act)
        except RuntimeError:
            return False
        return True

    def _carry_one(self) -> bool:
        """Make one request, and give its answers to whom they belong; False if none may leave.

        The thread may be interrupted at any point: what is taken is answered.
        """
        request: _Request[I] = _Request()
        error = not_sent("the thread that was to make the request was interrupted")
        answers: Sequence[Outcome[R]] | None = None
        try:
            with self._lock:
                if not self._may_leave():
                    return False
                self._take(request)
                more = self._may_leave()
                if not more:
                    self._look_again_later()  # what is left behind waits for this request
            if more:
                self._have_run(self._carry)  # with none to be had, this thread goes on with it afterwards
            items = [item for parcel in request.parcels for item in parcel.items]
            error = OutcomeUnknown("the thread that made the request was interrupted")
            answers = self._request(items)
            if len(answers) != len(items):
                error = ProviderError(f"{len(items)} entries were asked for, {len(answers)} answered")
                answers = None
        except QueueError as exc:
            error = exc
        finally:
            with self._lock:
                self._end(request)
            if request.parcels:
                self._answered(_sorted_out(request.parcels, answers, error), request.began)
        return True

    def _look_again(self) -> None:
        """On the scheduler: what is under way has become slow."""
        with self._lock:
            self._looks_again = False
            may_leave = self._may_leave()
            if not may_leave:
                self._look_again_later()
        if may_leave:
            self._have_carried()

    # Requires _lock to be held.

    def _may_leave(self) -> bool:
        if not self._waiting or len(self._under_way) >= self._policy.max_in_flight:
            return False
        slow = self._clock.monotonic() - SLOW
        recent = sum(request.began > slow for request in self._under_way)
        return recent < self._policy.partial_in_flight or self._is_full()

    def _is_full(self) -> bool:
        """What waits is enough for a request that takes no more."""
        items = size = 0
        for parcel in self._waiting:
            items += len(parcel.items)
            size += parcel.size
            if items >= self._load.items or size > self._load.size:
                return True
        return False

    def _take(self, request: _Request[I]) -> None:
        """The next request, which may leave, into *request*."""
        request.began = self._clock.monotonic()
        self._under_way.append(request)
        items = size = 0
        for parcel in list(islice(self._waiting, self._load.items)):
            items += len(parcel.items)
            size += parcel.size
            if request.parcels and (items > self._load.items or size > self._load.size):
                break
            request.parcels.append(parcel)
            parcel.left = True
            del self._waiting[parcel]

    def _end(self, request: _Request[I]) -> None:
        if request in self._under_way:
            self._under_way.remove(request)
        for parcel in request.parcels:  # the thread was interrupted between the two
            self._waiting.pop(parcel, None)

    def _look_again_later(self) -> None:
        """When partial requests wait for one that may be slow, nobody else looks."""
        full = len(self._under_way) >= self._policy.max_in_flight
        if not self._waiting or not self._under_way or self._looks_again or full:
            return
        slow = self._clock.monotonic() - SLOW
        at = min((request.began for request in self._under_way if request.began > slow), default=None)
        if at is None:
            return
        with suppress(Closed, RuntimeError):  # no thread is to be had: requests end all the same
            self._scheduler.call_at(at + SLOW, self._look_again)
            self._looks_again = True


def _sorted_out(
    parcels: Sequence[Parcel[I]], answers: Sequence[Outcome[R]] | None, error: QueueError
) -> list[tuple[Parcel[I], Sequence[Outcome[R]]]]:
    """Each parcel with its own of *answers*, or with a copy of *error* where there are none."""
    told: list[tuple[Parcel[I], Sequence[Outcome[R]]]] = []
    at = 0
    for parcel in parcels:
        count = len(parcel.items)
        if answers is None:
            told.append((parcel, [Outcome(error=own(error))] * count))
        else:
            told.append((parcel, answers[at : at + count]))
        at += count
    return told


def own(error: QueueError) -> QueueError:
    """A copy of *error*, for one of several threads that are to raise it: a traceback belongs to one."""
    try:
        mine = copy.copy(error)
    except Exception:  # a provider's own class, made in a way of its own: better shared than not told
        return error
    mine.__cause__ = error.__cause__
    return mine


def not_sent(why: str) -> QueueError:
    return ConnectionFailed(f"not sent: {why}")
