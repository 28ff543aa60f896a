"""One receiver of the SDK in the hands of many threads: one call at a time, every call bounded."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TypeVar

from azure.servicebus import ServiceBusReceivedMessage, ServiceBusReceiver, ServiceBusSession

from queue_runtime.clock import Clock
from queue_runtime.errors import ConnectionFailed, LeaseLost, OperationTimeout, OutcomeUnknown, QueueError
from queue_runtime.provider import Abandon, Cancelled, Complete, DeadLetter, Settlement
from queue_runtime.providers.servicebus import sdk, wire
from queue_runtime.providers.servicebus.errors import (
    PROVIDER,
    SDK_ERRORS,
    is_answered,
    is_definite,
    translate,
)
from queue_runtime.providers.servicebus.limits import MAX_LOCK
from queue_runtime.providers.servicebus.turns import Turns

log = logging.getLogger("queue_runtime.servicebus")

T = TypeVar("T")

TOO_EARLY = sdk.SLICE / 2
"""Seconds: an empty answer before that comes of a receiver that reads nothing any more."""

MAX_SILENCE = 240.0
"""Seconds without a message after which an idle receiver is replaced: the service drops a link that is idle
for ten minutes, not always with a word.
https://learn.microsoft.com/azure/service-bus-messaging/service-bus-amqp-troubleshoot"""

ROUNDING = 0.001
"""Seconds: the service tells the end of a lock in whole milliseconds."""

MAX_SKEW = 5.0
"""Seconds by which the service's clock may be ahead of ours before that is worth a warning."""


class Link:
    """A connected receiver. Any thread may call; settlements and renewals wait `sdk.SLICE` for a receive.

    It ends for good at the first sign that its connection or its link is gone: `dead` is True then, and its
    owner makes another. What it handed out can be settled through another receiver as long as its lock holds
    (not in a session, whose lock goes with its link).
    """

    def __init__(
        self,
        receiver: ServiceBusReceiver,
        clock: Clock,
        timeout: float,
        *,
        on_close: Callable[[Link], None],
    ) -> None:
        self.receiver = receiver
        self._clock = clock
        self._timeout = timeout
        self._on_close = on_close
        self._turns = Turns(clock)
        sdk.confirm_within(receiver, timeout)
        self._credit = sdk.Credit(receiver, clock)
        self._heard_at = clock.monotonic()
        # set once, never back
        self.dead = False
        self.on_end: Callable[[], object] = lambda: None
        """Called when `is_well` finds that it has ended."""
        self._lock = threading.Lock()
        # guarded by _lock
        self._closed = False

    def receive(
        self, most: int, wait: float, cancelled: Cancelled, taken: Callable[[ServiceBusReceivedMessage], T]
    ) -> list[T]:
        """Up to *most* messages, as soon as there is one, each made into what *taken* says while no other
        thread can use the link; none after *wait* seconds, or when *cancelled*. What comes later comes to
        somebody else.

        Raises `ConnectionFailed` if the link has ended.
        """
        deadline = self._clock.monotonic() + wait
        found: list[T] = []
        while not found:
            left = deadline - self._clock.monotonic()
            with self._turns.patient(max(left, sdk.SLICE)) as mine:
                if mine:
                    found = [taken(message) for message in self._receive_slice(most)]
            if left <= sdk.SLICE or cancelled():
                break
        if len(found) < most:
            try:
                with self._urgent():
                    found += [taken(message) for message in self._take_back_credit()]
            except ConnectionFailed:
                if not found:
                    raise
        return found

    def settle(self, message: ServiceBusReceivedMessage, settlement: Settlement, *, first: bool) -> None:
        """Raises `LeaseLost`, `InvalidReceipt`, `OutcomeUnknown`, or `ConnectionFailed` if nothing was asked.

        *first*: no settlement of *message* has left before whose answer is not known.
        """

        def act() -> None:
            match settlement:
                case Complete():
                    self.receiver.complete_message(message)
                case Abandon():
                    self.receiver.abandon_message(message)
                case DeadLetter(info=info):
                    reason, description = wire.described(info)
                    self.receiver.dead_letter_message(message, reason=reason, error_description=description)

        in_session = self.receiver.session is not None
        with self._urgent():
            try:
                self._attempt(act, changes=True)
            except OutcomeUnknown:
                self.dead = True
                raise
            except LeaseLost as exc:
                its_own = message._receiver is self.receiver
                if first and (is_definite(exc.__cause__) or not its_own):
                    raise
                # A try that broke off before may have done what this one found done.
                self.dead = self.dead or in_session
                raise OutcomeUnknown(
                    f"the service did not confirm the settlement, and then refused it: {exc}",
                    provider=PROVIDER,
                ) from exc.__cause__

    def give_back(self, message: ServiceBusReceivedMessage) -> None:
        """Let others have *message* at once. Only for what *taken* is called with in `receive`."""
        with suppress(*SDK_ERRORS):  # it is free when its lock ends
            sdk.release(self.receiver, message)

    def renew(self, message: ServiceBusReceivedMessage) -> datetime:
        return self.bounded(
            lambda: self.receiver.renew_message_lock(message, timeout=self._timeout), changes=False
        )

    def peek(self, most: int, after: int) -> Sequence[ServiceBusReceivedMessage]:
        return self.bounded(lambda: sdk.peek(self.receiver, most, after + 1, self._timeout), changes=False)

    def renew_session(self, session: ServiceBusSession) -> datetime:
        return self.bounded(lambda: session.renew_lock(timeout=self._timeout), changes=False)

    def get_state(self, session: ServiceBusSession) -> bytes | None:
        return self.bounded(lambda: session.get_state(timeout=self._timeout), changes=False)

    def set_state(self, session: ServiceBusSession, state: bytes | None) -> None:
        self.bounded(lambda: session.set_state(state, timeout=self._timeout), changes=True)

    def bounded(self, act: Callable[[], T], *, changes: bool) -> T:
        """Have *act* use the receiver, ahead of whoever receives; it must be over within the timeout."""
        with self._urgent():
            return self._attempt(act, changes=changes)

    def lasts(self, lock: float) -> None:
        """Note how long locks last here: waits for the service's word take at most a sixth of it."""
        timeout = max(0.5, lock / 6)
        if timeout < self._timeout:
            self._timeout = timeout
            sdk.confirm_within(self.receiver, timeout)

    def until(self, locked_until: datetime | None, enqueued_at: datetime | None = None) -> float:
        """When a lock that was made just now ends, on the monotonic scale.

        The service says it by its own clock. Where that is ahead of ours, as a message shows that was
        *enqueued* later than now, the lock ends sooner than it looks.
        """
        now = self._clock.now()
        if enqueued_at is not None and (enqueued_at - now).total_seconds() > MAX_SKEW:
            ahead = (enqueued_at - now).total_seconds()
            log.warning("servicebus.clock_skew", extra={"seconds": ahead, "queue": self.receiver.entity_path})
            now = enqueued_at
        left = 0.0 if locked_until is None else (locked_until - now).total_seconds() - ROUNDING
        return self._clock.monotonic() + min(left, MAX_LOCK)

    @property
    def silent(self) -> bool:
        """True if it has brought nothing for so long that it had better be replaced."""
        return self._clock.monotonic() - self._heard_at > MAX_SILENCE

    def is_well(self) -> bool:
        """False if it has ended, as far as that can be seen without asking the service."""
        ended = False
        with self._turns.urgent(0.0) as mine:
            if mine and not self.dead and not sdk.is_well(self.receiver):
                ended = self.dead = True
        if ended:
            self.on_end()
        return not self.dead

    def close(self) -> None:
        """What the SDK holds in its buffer is released. Twice is harmless."""
        self.dead = True  # who waits for a turn does nothing with it
        with self._turns.urgent(self._timeout):
            self._close()

    def close_at_once(self) -> bool:
        """As `close`; False, and nothing happens, if another thread uses it."""
        with self._turns.urgent(0.0) as mine:
            if mine:
                self._close()
        return mine

    def _close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self.dead = True
        self._on_close(self)
        try:
            self.receiver.close()
        except SDK_ERRORS as exc:
            log.debug("servicebus.close_failed", extra={"error": type(exc).__name__})

    def _receive_slice(self, most: int) -> Sequence[ServiceBusReceivedMessage]:
        self._check_alive()
        started = self._clock.monotonic()
        found = self._attempt(
            lambda: self.receiver.receive_messages(max_message_count=most, max_wait_time=sdk.SLICE),
            changes=False,
        )
        if found:
            self._heard_at = self._clock.monotonic()
        elif self._clock.monotonic() - started < TOO_EARLY and sdk.is_shut_down(self.receiver):
            self.dead = True
            log.warning("servicebus.receiver_died", extra={"queue": self.receiver.entity_path})
            raise ConnectionFailed(
                "the receiver has ended without a word; it is being replaced", provider=PROVIDER
            )
        return found

    def _take_back_credit(self) -> Sequence[ServiceBusReceivedMessage]:
        try:
            return self._attempt(lambda: self._credit.take_back(self._timeout), changes=False)
        except QueueError as exc:
            self.dead = True
            raise ConnectionFailed(f"the receiver has ended: {exc}", provider=PROVIDER) from exc

    def _attempt(self, act: Callable[[], T], *, changes: bool) -> T:
        try:
            return act()
        except SDK_ERRORS as exc:
            error = translate(exc, changes=changes, queue=self.receiver.entity_path)
            silent = isinstance(error, OperationTimeout | OutcomeUnknown) and not is_answered(exc)
        # A session is worth asking again; another receiver of a queue is quickly made.
        gone = isinstance(error, ConnectionFailed) or (silent and self.receiver.session is None)
        if gone or sdk.is_shut_down(self.receiver):
            self.dead = True
        raise error

    def _check_alive(self) -> None:
        if self.dead:
            raise ConnectionFailed(
                "the receiver has ended, nothing was asked of the service; it is being replaced",
                provider=PROVIDER,
            )

    @contextmanager
    def _urgent(self) -> Iterator[None]:
        """The next turn, if the link is well: what leaves on one that is not may have arrived or not."""
        with self._turns.urgent(self._timeout) as mine:
            if not mine:
                raise ConnectionFailed(
                    f"the receiver was busy for {self._timeout:g} s; nothing was asked of the service",
                    provider=PROVIDER,
                )
            if not self.dead and not sdk.is_well(self.receiver):
                self.dead = True
            self._check_alive()
            yield
