"""A provider whose completions, delays and renewals share requests with those of other threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Generic, TypeVar

from queue_runtime.batching import BatchPolicy, Lane, Load, Parcel, Told, not_sent
from queue_runtime.clock import Clock
from queue_runtime.condition import Condition
from queue_runtime.errors import ConnectionFailed, OperationTimeout, Outcome, OutcomeUnknown
from queue_runtime.guard import Guard, GuardedProvider
from queue_runtime.message import Delivery
from queue_runtime.provider import Cancelled, ProviderClient, Settlement, never
from queue_runtime.scheduler import Scheduler

I = TypeVar("I")  # noqa: E741  an item that travels
R = TypeVar("R")

PATIENCE = 5.0
"""Seconds that a call waits at least; for a message in hand, until its lease ends."""

UNREACHED = (ConnectionFailed, OperationTimeout, OutcomeUnknown)
"""What a request comes to when the broker is not there: what follows it would come to the same."""


class SharedProvider(GuardedProvider):
    """Calls of any number of threads, of one kind and queue, travel together as `Lane` tells; each is
    answered for its own entries. Where they could not share a request, each goes its own way."""

    def __init__(
        self,
        inner: ProviderClient,
        guard: Guard,
        *,
        policy: Callable[[str], BatchPolicy],
        lease: Callable[[str], float | None],
        clock: Clock,
        scheduler: Scheduler,
        carriers: Executor,
    ) -> None:
        super().__init__(inner, guard)
        self._policy = policy
        self._lease = lease
        self._clock = clock
        self._scheduler = scheduler
        self._carriers = carriers
        self._lock = threading.Lock()
        # guarded by _lock
        self._lanes: dict[tuple[str, object], SharedCalls[Any, Any]] = {}

    def receive(
        self,
        queue: str,
        max_messages: int,
        wait: float,
        *,
        lease: float | None = None,
        cancelled: Cancelled = never,
    ) -> Sequence[Delivery]:
        """As `ProviderClient.receive`; without a *lease* it is the one that is configured for the queue."""
        lease = self._lease(queue) if lease is None else lease
        return super().receive(queue, max_messages, wait, lease=lease, cancelled=cancelled)

    def settle(self, queue: str, settlements: Sequence[Settlement]) -> Sequence[Outcome[None]]:
        if not self.capabilities(queue).batched_settling:
            return super().settle(queue, settlements)
        outcomes: list[Outcome[None]] = []
        for kind, run in groupby(settlements, key=type):
            mine = list(run)
            lane: SharedCalls[Settlement, None] = self._lane(
                queue, kind, lambda some: super(SharedProvider, self).settle(queue, some)
            )
            outcomes += lane.call(mine, wait=self._patience([item.delivery for item in mine]))
        return outcomes

    def renew(
        self, queue: str, deliveries: Sequence[Delivery], *, lease: float | None = None
    ) -> Sequence[Outcome[float]]:
        if lease is not None or not self.capabilities(queue).batched_settling:
            return super().renew(queue, deliveries, lease=lease)
        lane: SharedCalls[Delivery, float] = self._lane(
            queue, "renew", lambda some: super(SharedProvider, self).renew(queue, some)
        )
        return lane.call(deliveries, wait=self._patience(deliveries))

    def _patience(self, deliveries: Sequence[Delivery]) -> float:
        now = self._clock.monotonic()
        return max([PATIENCE, *(delivery.leased_until - now for delivery in deliveries)])

    def _lane(
        self, queue: str, kind: object, request: Callable[[Sequence[I]], Sequence[Outcome[R]]]
    ) -> SharedCalls[I, R]:
        most = self.capabilities(queue).max_batch
        with self._lock:
            found = self._lanes.get((queue, kind))
            if found is None:
                found = self._lanes[queue, kind] = SharedCalls(
                    request,
                    most=most,
                    policy=self._policy(queue),
                    clock=self._clock,
                    scheduler=self._scheduler,
                    carriers=self._carriers,
                )
            return found


class SharedCalls(Generic[I, R]):
    """A lane for threads that wait for their answers."""

    def __init__(
        self,
        request: Callable[[Sequence[I]], Sequence[Outcome[R]]],
        *,
        most: int,
        policy: BatchPolicy,
        clock: Clock,
        scheduler: Scheduler,
        carriers: Executor,
    ) -> None:
        self._most = most
        self._clock = clock
        self._lane: Lane[I, R] = Lane(
            request,
            self._answered,
            policy=policy,
            load=Load(items=most, size=0),
            clock=clock,
            scheduler=scheduler,
            carriers=carriers,
        )

    def call(self, items: Sequence[I], *, wait: float) -> list[Outcome[R]]:
        """Have *items* answered, in their order; those of a request that nobody has answered after *wait*
        seconds have an unknown outcome.

        If a request of them does not reach the broker, what has not left yet stays here: a dead network costs
        one timeout, not one for each request.
        """
        call: _Call[I, R] = _Call(items, self._most)
        deadline = self._clock.monotonic() + wait
        self._lane.add(call.parcels, wanted=lambda: not call.is_over() and self._clock.monotonic() < deadline)
        with call.changed:
            self._clock.wait_until(call.changed, call.is_over, deadline)
        self._take_back(call)
        return call.outcomes()

    def _answered(self, told: Told[I, R], began: float) -> None:
        for parcel, outcomes in told:
            if isinstance(parcel, _CallParcel):
                parcel.call.answered(parcel, outcomes)
                if all(isinstance(outcome.error, UNREACHED) for outcome in outcomes):
                    self._take_back(parcel.call)

    def _take_back(self, call: _Call[I, R]) -> None:
        """What of *call* has not left stays here."""
        for parcel in call.parcels:
            if self._lane.withdraw(parcel):
                error = not_sent("a request before it was not answered in time")
                call.answered(parcel, [Outcome(error=error)] * len(parcel.items))


@dataclass(slots=True, eq=False, kw_only=True)
class _CallParcel(Parcel[I], Generic[I, R]):
    call: _Call[I, R]


class _Call(Generic[I, R]):
    """What one thread waits for."""

    def __init__(self, items: Sequence[I], most: int) -> None:
        self.parcels = [
            _CallParcel(items=items[at : at + most], call=self) for at in range(0, len(items), most)
        ]
        self.changed = Condition()
        # guarded by changed
        self._answers: dict[_CallParcel[I, R], Sequence[Outcome[R]]] = {}

    def answered(self, parcel: _CallParcel[I, R], outcomes: Sequence[Outcome[R]]) -> None:
        with self.changed:
            self._answers[parcel] = outcomes
            self.changed.notify_all()

    def is_over(self) -> bool:
        return len(self._answers) == len(self.parcels)

    def outcomes(self) -> list[Outcome[R]]:
        """Aligned with the items; what has left and was not answered is unknown."""
        with self.changed:
            answers = dict(self._answers)
        found: list[Outcome[R]] = []
        for parcel in self.parcels:
            unknown = OutcomeUnknown("the request left and was not answered in time")
            found += answers.get(parcel) or [Outcome(error=unknown)] * len(parcel.items)
        return found
