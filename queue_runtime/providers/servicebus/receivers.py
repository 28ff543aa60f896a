"""Messages of one queue without sessions: received, settled and renewed through a pool of receivers."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol, TypeVar

from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage

from queue_runtime.errors import (
    ConnectionFailed,
    InvalidReceipt,
    LeaseLost,
    Outcome,
    OutcomeUnknown,
    QueueError,
)
from queue_runtime.message import Delivery
from queue_runtime.provider import Abandon, Cancelled, Complete, Settlement
from queue_runtime.providers.servicebus import wire
from queue_runtime.providers.servicebus.connecting import Connector
from queue_runtime.providers.servicebus.errors import PROVIDER
from queue_runtime.providers.servicebus.held import Held, HeldMessages
from queue_runtime.providers.servicebus.link import Link
from queue_runtime.providers.servicebus.pool import LinkPool

T = TypeVar("T")


class Copies(Protocol):
    """Where scheduled copies go."""

    def schedule(self, message: ServiceBusMessage, due_at: datetime) -> int: ...

    def cancel(self, sequence: int) -> None: ...


class Receivers:
    """Any thread may call. Connects on first use."""

    def __init__(self, queue: str, connector: Connector, copies: Copies) -> None:
        self._connector = connector
        self._clock = connector.clock
        self._copies = copies
        self._held = HeldMessages(connector.clock)
        self._pool = LinkPool(queue, connector, self._held.count)
        self.adopt = self._pool.adopt
        self.wake = self._pool.wake
        self._lock = threading.Lock()
        # guarded by _lock
        self._lease = 0.0

    @property
    def lease(self) -> float | None:
        """Seconds that a lock lasts, as far as one has been seen."""
        with self._lock:
            return self._lease or None

    def receive(self, most: int, wait: float, cancelled: Cancelled) -> list[Delivery]:
        deadline = self._clock.monotonic() + wait

        def over() -> bool:
            return cancelled() or self._pool.closed

        with self._pool.receiving(deadline, cancelled) as link:
            if link is None:
                return []
            left = max(0.0, deadline - self._clock.monotonic())
            try:
                taken = link.receive(_share(most), left, over, lambda message: self._take(link, message))
            except ConnectionFailed:
                self._pool.check_open()  # closed under our hands
                raise
        found = [delivery for delivery in taken if delivery is not None]
        if not found:
            self._pool.check_open()
        return found

    def settle(self, settlements: Sequence[Settlement]) -> list[Outcome[None]]:
        return self._by_link([s.delivery for s in settlements], lambda n: self._settle_one(settlements[n]))

    def renew(self, deliveries: Sequence[Delivery]) -> list[Outcome[float]]:
        return self._by_link(deliveries, lambda n: self._renew_one(deliveries[n]))

    def peek(self, most: int, after: int) -> list[Delivery]:
        found = self._with_link(None, lambda link: link.peek(most, after))
        return [wire.delivery(message, wire.LOOKED_AT) for message in found]

    def close(self) -> None:
        """A blocked receive ends within its slice, gives back what it brings, and raises `Closed`."""
        self._pool.close()

    def _take(self, link: Link, message: ServiceBusReceivedMessage) -> Delivery | None:
        """Note *message* as handed out; None if the client was closed meanwhile: it has gone back."""
        if self._pool.closed:
            link.give_back(message)
            return None
        until = link.until(message.locked_until_utc, message.enqueued_time_utc)
        # Locks last whole seconds, of which a little has passed.
        lease = float(max(1, math.ceil(until - self._clock.monotonic() - 0.05)))
        if message.locked_until_utc is not None:  # as it is on one that could not be read
            with self._lock:
                self._lease = lease
            link.lasts(lease)
        receipt = str(message.lock_token)
        self._held.add(receipt, Held(message, link, until))
        return wire.delivery(message, wire.Hold(receipt=receipt, leased_until=until, lease=lease))

    def _settle_one(self, settlement: Settlement) -> None:
        delivery = settlement.delivery
        held = self._held.begin(delivery)
        over = False
        try:
            self._settle_held(held, settlement)
            over = True
        except OutcomeUnknown:
            raise
        except (LeaseLost, InvalidReceipt):
            over = True
            self._drop_copy(held)  # the message comes by itself, and would come twice
            raise
        finally:
            self._held.end(delivery, over=over)

    def _settle_held(self, held: Held, settlement: Settlement) -> None:
        delivery = settlement.delivery
        if held.until <= self._clock.monotonic():
            text = f"the lease of message {delivery.message.id!r} ran out"
            if held.tried:
                raise OutcomeUnknown(f"{text}, after a settlement that was not confirmed", provider=PROVIDER)
            raise LeaseLost(text, provider=PROVIDER)
        delay = settlement.delay if isinstance(settlement, Abandon) else 0.0
        if delay > 0 and held.copy is None:  # else the copy is made, and what is left is to complete this
            due_at = self._clock.now() + timedelta(seconds=delay)
            held.copy = self._copies.schedule(wire.delayed_copy(held.message, due_at), due_at)
        told = Complete(delivery) if delay > 0 else settlement
        try:
            self._with_link(held.link, lambda link: link.settle(held.message, told, first=not held.tried))
        except OutcomeUnknown:
            held.tried = True
            raise
        if delay <= 0:
            self._drop_copy(held)  # of an abandon that was tried before this

    def _drop_copy(self, held: Held) -> None:
        copy, held.copy = held.copy, None
        if copy is not None:
            with suppress(QueueError):
                self._copies.cancel(copy)

    def _renew_one(self, delivery: Delivery) -> float:
        held = self._held.get(delivery)
        if held.until <= self._clock.monotonic():
            raise LeaseLost(f"the lease of message {delivery.message.id!r} ran out", provider=PROVIDER)
        locked_until = self._with_link(held.link, lambda link: link.renew(held.message))
        held.until = held.link.until(locked_until)
        return held.until

    def _with_link(self, link: Link | None, act: Callable[[Link], T]) -> T:
        """On *link*, which brought the message, or on another if that has ended: the lock outlives it."""
        end = self._clock.monotonic() + self._patience()
        while True:
            if link is not None and not link.dead:
                try:
                    return act(link)
                except ConnectionFailed:
                    if _is_busy(link) or self._clock.monotonic() > end:
                        raise  # else it ended before it was asked
            link = self._pool.any(self._patience())

    def _by_link(self, deliveries: Sequence[Delivery], act: Callable[[int], T]) -> list[Outcome[T]]:
        """The outcomes of *act* for each index; those of one receiver after each other, receivers beside each
        other. What a receiver in trouble leaves no time for is not attempted: leases are at stake."""
        groups: dict[object, list[int]] = {}
        for index, delivery in enumerate(deliveries):
            try:
                key: object = self._held.get(delivery).link
            except QueueError:
                key = None
            groups.setdefault(key, []).append(index)
        outcomes: dict[int, Outcome[T]] = {}
        end = self._clock.monotonic() + self._patience()

        def run(indexes: Sequence[int]) -> None:
            trouble: QueueError | None = None
            for index in indexes:
                if trouble is not None and self._clock.monotonic() > end:
                    text = f"not attempted, because there was no time left after this: {trouble}"
                    outcomes[index] = Outcome(error=ConnectionFailed(text, provider=PROVIDER))
                    continue
                try:
                    outcomes[index] = Outcome(act(index))
                except QueueError as exc:
                    outcomes[index] = Outcome(error=exc)
                    trouble = exc if exc.retryable else trouble

        self._connector.beside.together([partial(run, indexes) for indexes in groups.values()])
        return [outcomes[index] for index in range(len(deliveries))]

    def _patience(self) -> float:
        """Seconds that one request may take: at most a sixth of the lease."""
        timeout = self._connector.options.request_timeout
        lease = self.lease
        return timeout if lease is None else min(timeout, lease / 6)


def _is_busy(link: Link) -> bool:
    return not link.dead


def _share(most: int) -> int:
    """How many of *most* to ask of one receiver.

    Asking takes a round trip for each receiver, settling one for each of its messages, and the sum is least
    where they are as many.
    """
    return math.isqrt(most - 1) + 1
