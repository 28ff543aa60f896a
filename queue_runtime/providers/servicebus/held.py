"""What was handed out and is not settled yet, by its receipt."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from azure.servicebus import ServiceBusReceivedMessage

from queue_runtime.clock import Clock
from queue_runtime.errors import InvalidReceipt
from queue_runtime.message import Delivery
from queue_runtime.providers.servicebus.errors import PROVIDER
from queue_runtime.providers.servicebus.link import Link

KEPT = 60.0
"""Seconds beyond the end of its lock for which a message is known, so that it is called lost, not unknown."""


@dataclass(slots=True, eq=False)
class Held:
    """A message in somebody's hands."""

    message: ServiceBusReceivedMessage
    link: Link
    until: float
    tried: bool = False
    """A settlement has left that was not confirmed: a later refusal says nothing."""
    copy: int | None = None
    """The sequence number of its scheduled copy, if an abandon with a delay came that far."""
    settling: bool = False
    """A thread is at it. Guarded by the lock of `HeldMessages`; the rest is that thread's."""


class HeldMessages:
    """Any thread may call."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # guarded by _lock
        self._held: dict[str, Held] = {}
        self._swept_at = clock.monotonic()

    def add(self, receipt: str, held: Held) -> None:
        with self._lock:
            self._held[receipt] = held
            now = self._clock.monotonic()
            if now - self._swept_at > KEPT:
                self._swept_at = now
                for key in [key for key, one in self._held.items() if one.until < now - KEPT]:
                    if not self._held[key].settling:
                        del self._held[key]

    def get(self, delivery: Delivery) -> Held:
        """Raises `InvalidReceipt` for one that is settled or was never handed out here."""
        with self._lock:
            return self._get(delivery)

    def begin(self, delivery: Delivery) -> Held:
        """As `get`, for settling it. Raises `InvalidReceipt` also while another thread is at that."""
        with self._lock:
            held = self._get(delivery)
            if held.settling:
                raise InvalidReceipt(
                    f"message {delivery.message.id!r} is being settled by another thread", provider=PROVIDER
                )
            held.settling = True
            return held

    def end(self, delivery: Delivery, *, over: bool) -> None:
        """Settling it has come to an end; *over*: it is not held any more."""
        with self._lock:
            self._get(delivery).settling = False
            if over:
                del self._held[delivery.receipt]

    def count(self, link: Link) -> int:
        """How many of *link* are in somebody's hands."""
        with self._lock:
            return sum(held.link is link for held in self._held.values())

    # Requires _lock to be held.

    def _get(self, delivery: Delivery) -> Held:
        held = self._held.get(delivery.receipt)
        if held is None:
            raise InvalidReceipt(
                f"message {delivery.message.id!r} is not held here: it was settled, or lost",
                provider=PROVIDER,
            )
        return held
