"""A session of the service's, held through a receiver of its own."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from azure.servicebus import ServiceBusReceivedMessage

from queue_runtime.errors import (
    ConnectionFailed,
    InvalidReceipt,
    Outcome,
    OutcomeUnknown,
    QueueError,
    SessionLeaseLost,
)
from queue_runtime.message import Delivery
from queue_runtime.provider import Abandon, Cancelled, ProviderSession, Settlement, never
from queue_runtime.providers.servicebus import wire
from queue_runtime.providers.servicebus.connecting import Connector
from queue_runtime.providers.servicebus.errors import PROVIDER
from queue_runtime.providers.servicebus.link import Link

T = TypeVar("T")


class NativeSession(ProviderSession):
    """Any thread may call; the link has its calls come one at a time.

    Messages are taken one by one: with more room the SDK lets later ones in while it settles, gives them
    back, and their order is gone. With its connection or its link the session is lost.
    """

    def __init__(self, link: Link, connector: Connector, *, session_id: str | None = None) -> None:
        self._link = link
        self._connector = connector
        self._clock = connector.clock
        held = link.receiver.session
        self._native = held
        self.leased_until = link.until(held.locked_until_utc)
        self.lease = float(max(1, math.ceil(self.leased_until - self._clock.monotonic() - 0.05)))
        link.lasts(self.lease)
        self._lock = threading.Lock()
        # guarded by _lock
        self._held: dict[str, ServiceBusReceivedMessage] = {}
        self._tried: set[str] = set()
        self._delay = 0.0
        self._closed = False
        self._lost = False
        try:
            native = held.session_id
            self.session_id = session_id or wire.session_id_of(native) or self._ask_messages(native)
        except BaseException:
            connector.let_go(link)
            raise
        link.on_end = self._ended

    def receive(self, max_messages: int, wait: float, *, cancelled: Cancelled = never) -> Sequence[Delivery]:
        taken: list[Delivery] = []

        def over() -> bool:
            return cancelled() or self._is_closed()

        while len(taken) < max_messages:
            found = self._losing(
                lambda: self._link.receive(1, 0.0 if taken else wait, over, self._take)  # noqa: B023  # at once
            )
            if not found:
                break
            taken += [wire.follow(one) if taken else one for one in found]
        return taken

    def settle(self, settlements: Sequence[Settlement]) -> Sequence[Outcome[None]]:
        return [self._outcome(settlement) for settlement in settlements]

    def renew(self) -> float:
        until = self._losing(lambda: self._link.renew_session(self._native))
        self.leased_until = self._link.until(until)
        return self.leased_until

    def has_unsettled(self) -> bool:
        with self._lock:
            return bool(self._held)

    def close(self) -> None:
        """Returns at once. Where another thread is at it, the session is free a moment later.

        After an abandon with a delay it stays locked for that long, at most until its lock ends, and only
        while the client is open: the service cannot delay a message that is in hand.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            delay = self._delay
            self._held.clear()
        wait = max(0.0, min(delay, self.leased_until - self._clock.monotonic()))
        if wait > 0 or not self._link.close_at_once():
            self._connector.let_go(self._link, wait)

    def get_state(self) -> bytes | None:
        state = self._losing(lambda: self._link.get_state(self._native))
        return None if state is None else bytes(state)

    def set_state(self, state: bytes | None) -> None:
        self._losing(lambda: self._link.set_state(self._native, state))

    def _take(self, message: ServiceBusReceivedMessage) -> Delivery:
        receipt = str(message.lock_token)
        with self._lock:
            self._held[receipt] = message
        return wire.delivery(
            message, wire.Hold(receipt=receipt, leased_until=self.leased_until, lease=self.lease)
        )

    def _outcome(self, settlement: Settlement) -> Outcome[None]:
        try:
            self._settle_one(settlement)
            return Outcome()
        except QueueError as exc:
            return Outcome(error=exc)

    def _settle_one(self, settlement: Settlement) -> None:
        delivery = settlement.delivery
        with self._lock:
            message = self._held.get(delivery.receipt)
            first = delivery.receipt not in self._tried
        self._check_open()
        if message is None:
            raise InvalidReceipt(
                f"message {delivery.message.id!r} is not held here: it was settled or given back",
                provider=PROVIDER,
            )
        try:
            self._losing(lambda: self._link.settle(message, settlement, first=first))
        except OutcomeUnknown:
            with self._lock:
                self._tried.add(delivery.receipt)
            raise
        with self._lock:
            self._held.pop(delivery.receipt, None)
            if isinstance(settlement, Abandon):
                self._delay = max(self._delay, settlement.delay)

    def _losing(self, act: Callable[[], T]) -> T:
        """Call *act*; with its link the session is lost, and it is told so."""
        self._check_open()
        self._check_connected()
        try:
            return act()
        except SessionLeaseLost as exc:
            self._link.dead = True
            raise self._ended(str(exc)) from exc.__cause__
        except ConnectionFailed as exc:
            if not self._link.dead:
                raise  # it was busy: nothing was asked
            raise self._ended(str(exc)) from exc.__cause__
        except OutcomeUnknown as exc:
            if self._link.dead:
                self._ended(str(exc))
            raise

    def _check_connected(self) -> None:
        if self._link.dead:
            raise self._ended()

    def _ended(self, reason: str = "its connection has ended") -> SessionLeaseLost:
        """Tell the session that it is lost, once."""
        text = f"session {self.session_id!r} is no longer held here: {reason}"
        with self._lock:
            told = self._lost or self._closed
            self._lost = True
        if not told:
            self.on_lost(text)
        return SessionLeaseLost(text, provider=PROVIDER)

    def _ask_messages(self, native: str) -> str:
        """The id of a session whose native one is a hash of it, as its first message says."""
        shown = [wire.delivery(message, wire.LOOKED_AT) for message in self._link.peek(1, 0)]
        return next((one.message.session_id for one in shown if one.message.session_id), native)

    def _check_open(self) -> None:
        self._connector.check_open()
        if self._is_closed():
            raise SessionLeaseLost(f"session {self.session_id!r} was let go", provider=PROVIDER)

    def _is_closed(self) -> bool:
        with self._lock:
            return self._closed
