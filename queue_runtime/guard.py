"""A provider under breaker and events: every call is counted, located, and refused while the broker fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

from queue_runtime.breaker import BreakerPolicy, CircuitBreaker
from queue_runtime.clock import Clock, instant
from queue_runtime.errors import CircuitOpen, Outcome, ProviderError, QueueError, QueueNotFound
from queue_runtime.events import CircuitClosed, CircuitOpened, Events, ProviderCalled
from queue_runtime.message import Delivery, Message
from queue_runtime.provider import (
    Cancelled,
    Capabilities,
    ProviderClient,
    ProviderSession,
    QueueDescription,
    Settlement,
    never,
)

R = TypeVar("R")


class Guard:
    """Makes one provider call: breaker before, event and breaker after. It never retries.

    A breaker serves one operation on one queue. An error, or a batch whose every entry failed, counts as a
    failure if it is retryable; what is wrong with the request says nothing about the broker.
    """

    def __init__(
        self,
        provider: str,
        *,
        policy: Callable[[str], BreakerPolicy],
        clock: Clock,
        events: Events,
        label: Callable[[str], str],
    ) -> None:
        self._provider = provider
        self._policy = policy
        self._clock = clock
        self._events = events
        self._label = label
        self._lock = threading.Lock()
        # guarded by _lock
        self._breakers: dict[tuple[str, str], CircuitBreaker] = {}

    def call(
        self,
        operation: str,
        queue: str,
        act: Callable[[], R],
        *,
        count: int | None = None,
        breaks: bool = True,
    ) -> R:
        """Run *act*. *count* is the number of entries; None: what it returns is counted.

        With `breaks` False the call is made however the broker is doing: settling and renewing save work
        that is already done.
        """
        breaker = self._breaker(operation, queue) if breaks else None
        started = self._clock.monotonic()
        if breaker is not None:
            self._admit(breaker, operation, queue, started)
        try:
            result = translated(act)
        except QueueError as exc:
            self.locate(exc, operation, queue)
            self._ended(breaker, operation, queue, started, count or 0, exc)
            raise
        size = count if count is not None else len(result) if isinstance(result, Sequence) else 0
        self._ended(breaker, operation, queue, started, size, self._failure(result, operation, queue))
        return result

    def locate(self, error: QueueError, operation: str, queue: str) -> None:
        """Say in *error* where it happened, by the program's own name of the queue."""
        if error.queue == queue:  # the provider has said it in the broker's terms
            error.queue = None
        error.locate(queue=self._label(queue), operation=operation, provider=self._provider)

    def _admit(self, breaker: CircuitBreaker, operation: str, queue: str, now: float) -> None:
        refused_until = breaker.admit(now)
        if refused_until is None:
            return
        retry_at = instant(self._clock, refused_until)
        raise CircuitOpen(
            f"{operation} on queue {self._label(queue)!r} keeps failing; the next try is let through at "
            f"{retry_at.isoformat(timespec='seconds')}",
            retry_at=retry_at,
            retry_after=refused_until - now,
            queue=self._label(queue),
            operation=operation,
            provider=self._provider,
        )

    def _failure(self, result: object, operation: str, queue: str) -> QueueError | None:
        """The error of a batch in which nothing went well; locates the errors of all entries."""
        if not isinstance(result, Sequence):
            return None
        errors = [entry.error for entry in result if isinstance(entry, Outcome)]
        for error in errors:
            if error is not None:
                self.locate(error, operation, queue)
        failed = [error for error in errors if error is not None]
        if not errors or len(failed) < len(errors):
            return None
        # What is wrong with an entry says nothing about the broker.
        return next((error for error in failed if not error.retryable), failed[0])

    def _ended(
        self,
        breaker: CircuitBreaker | None,
        operation: str,
        queue: str,
        started: float,
        messages: int,
        error: QueueError | None,
    ) -> None:
        now = self._clock.monotonic()
        name = self._label(queue)
        changed = None
        if breaker is not None:
            changed = breaker.record(now, started=started, failed=error is not None and error.retryable)
        self._events(
            ProviderCalled(
                queue=name,
                operation=operation,
                messages=messages,
                seconds=now - started,
                error=type(error).__name__ if error is not None else None,
                refused=isinstance(error, ProviderError) and not error.retryable,
            )
        )
        if changed == "open":
            retry_at = self._clock.now() + timedelta(seconds=self._policy(queue).open_for)
            self._events(CircuitOpened(queue=name, operation=operation, retry_at=retry_at))
        elif changed == "closed":
            self._events(CircuitClosed(queue=name, operation=operation))

    def _breaker(self, operation: str, queue: str) -> CircuitBreaker:
        with self._lock:
            found = self._breakers.get((operation, queue))
            if found is None:
                found = self._breakers[operation, queue] = CircuitBreaker(self._policy(queue))
            return found


def translated(act: Callable[[], R]) -> R:
    """Run *act*; what a provider has overlooked becomes a `ProviderError`, whose text holds no secret.

    A thread that fetches or settles lives by `QueueError`: nothing else may end it, and its session with it.
    """
    try:
        return act()
    except QueueError:
        raise
    except Exception as exc:  # see above: who still needs to live is every other session of the worker
        raise ProviderError(f"the provider failed in a way of its own: {type(exc).__name__}") from exc


class GuardedProvider(ProviderClient):
    """A `ProviderClient` whose every call goes through a `Guard`; to its callers it is just a provider."""

    def __init__(self, inner: ProviderClient, guard: Guard) -> None:
        self.name = inner.name  # type: ignore[misc]  # a ClassVar there; here it is the inner one's
        self._inner = inner
        self._guard = guard
        # By queue, until it is gone. Each step with it is atomic.
        self._known: dict[str, Capabilities] = {}

    def describe(self, queue: str) -> QueueDescription:
        found = self._call("describe", queue, lambda: self._inner.describe(queue))
        self._known[queue] = found.capabilities
        return found

    def known(self, queue: str) -> Capabilities | None:
        """What `capabilities` answers without asking a broker."""
        return self._known.get(queue)

    def capabilities(self, queue: str) -> Capabilities:
        """Remembered here, for a provider may forget and ask again, which takes time that a caller may not
        have."""
        known = self._known.get(queue)
        if known is None:
            known = self._call("describe", queue, lambda: self._inner.capabilities(queue))
            self._known[queue] = known
        return known

    def size(self, queue: str, message: Message) -> int:
        return self._inner.size(queue, message)

    def send(self, queue: str, messages: Sequence[Message]) -> Sequence[Outcome[None]]:
        return self._call("send", queue, lambda: self._inner.send(queue, messages), count=len(messages))

    def receive(
        self,
        queue: str,
        max_messages: int,
        wait: float,
        *,
        lease: float | None = None,
        cancelled: Cancelled = never,
    ) -> Sequence[Delivery]:
        return self._call(
            "receive",
            queue,
            lambda: self._inner.receive(queue, max_messages, wait, lease=lease, cancelled=cancelled),
        )

    def accept_sessions(
        self, queue: str, most: int, wait: float, *, cancelled: Cancelled = never
    ) -> Sequence[ProviderSession]:
        found = self._call(
            "accept_session",
            queue,
            lambda: self._inner.accept_sessions(queue, most, wait, cancelled=cancelled),
        )
        return [GuardedSession(session, self._guard, queue) for session in found]

    def accept_session(self, queue: str, session_id: str) -> ProviderSession:
        session = self._call(
            "accept_session", queue, lambda: self._inner.accept_session(queue, session_id), count=1
        )
        return GuardedSession(session, self._guard, queue)

    def settle(self, queue: str, settlements: Sequence[Settlement]) -> Sequence[Outcome[None]]:
        return self._call(
            "settle",
            queue,
            lambda: self._inner.settle(queue, settlements),
            count=len(settlements),
            breaks=False,
        )

    def renew(
        self, queue: str, deliveries: Sequence[Delivery], *, lease: float | None = None
    ) -> Sequence[Outcome[float]]:
        return self._call(
            "renew",
            queue,
            lambda: self._inner.renew(queue, deliveries, lease=lease),
            count=len(deliveries),
            breaks=False,
        )

    def peek(self, queue: str, max_messages: int, *, after: int = 0) -> Sequence[Delivery]:
        return self._call("peek", queue, lambda: self._inner.peek(queue, max_messages, after=after))

    def schedule(self, queue: str, messages: Sequence[Message]) -> Sequence[Outcome[str]]:
        return self._call(
            "schedule", queue, lambda: self._inner.schedule(queue, messages), count=len(messages)
        )

    def cancel(self, queue: str, receipts: Sequence[str]) -> Sequence[Outcome[None]]:
        return self._call("cancel", queue, lambda: self._inner.cancel(queue, receipts), count=len(receipts))

    def purge(self, queue: str) -> None:
        self._call("purge", queue, lambda: self._inner.purge(queue), count=0)

    def wake(self, queue: str) -> None:
        self._inner.wake(queue)

    def requests(self) -> Mapping[str, int]:
        return self._inner.requests()

    def close(self) -> None:
        self._inner.close()

    def _call(
        self,
        operation: str,
        queue: str,
        act: Callable[[], R],
        *,
        count: int | None = None,
        breaks: bool = True,
    ) -> R:
        try:
            return self._guard.call(operation, queue, act, count=count, breaks=breaks)
        except QueueNotFound:
            self._known.pop(queue, None)  # one that is made anew may be of another kind
            raise


class GuardedSession(ProviderSession):
    """A broker's own session whose calls go through the `Guard`."""

    def __init__(self, inner: ProviderSession, guard: Guard, queue: str) -> None:
        self._inner = inner
        self._guard = guard
        self._queue = queue
        self.session_id = inner.session_id
        self.lease = inner.lease
        self.leased_until = inner.leased_until
        self.continues = inner.continues
        inner.on_lost = lambda reason: self.on_lost(reason)

    def receive(self, max_messages: int, wait: float, *, cancelled: Cancelled = never) -> Sequence[Delivery]:
        return self._call("receive", lambda: self._inner.receive(max_messages, wait, cancelled=cancelled))

    def settle(self, settlements: Sequence[Settlement]) -> Sequence[Outcome[None]]:
        return self._call("settle", lambda: self._inner.settle(settlements), count=len(settlements))

    def renew(self) -> float:
        self.leased_until = self._call("renew", self._inner.renew, count=1)
        return self.leased_until

    def has_unsettled(self) -> bool:
        return self._inner.has_unsettled()

    def get_state(self) -> bytes | None:
        return self._call("get_state", self._inner.get_state, count=1)

    def set_state(self, state: bytes | None) -> None:
        self._call("set_state", lambda: self._inner.set_state(state), count=1)

    def close(self) -> None:
        self._call("close_session", self._inner.close)

    def _call(self, operation: str, act: Callable[[], R], count: int | None = None) -> R:
        # A session in hand is work in hand: the breaker decides about new work only.
        return self._guard.call(operation, self._queue, act, count=count, breaks=False)
