"""`QueueClient`, what programs hold: send, receive, settle, sessions, dead letters, on any provider."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self, TypeVar, overload
from weakref import WeakSet

from queue_runtime import receiving, scheduled, settling
from queue_runtime.clock import Clock, SystemClock
from queue_runtime.config import ClientSettings
from queue_runtime.deadletter import DeadLetters
from queue_runtime.errors import (
    BatchFailed,
    Closed,
    InvalidArgument,
    QueueError,
)
from queue_runtime.events import Events, Listener
from queue_runtime.executor import SessionExecutor
from queue_runtime.message import Message, MessageView, ReceivedMessage, check_id, check_queue
from queue_runtime.provider import (
    Abandon,
    Complete,
    DeadLetter,
    QueueDescription,
    Settlement,
)
from queue_runtime.registry import find
from queue_runtime.retry import check_number
from queue_runtime.runtime import Runtime
from queue_runtime.scheduled import ScheduledMessage
from queue_runtime.sending import check_timeout, send, submit
from queue_runtime.session_client import SessionClient, check_question
from queue_runtime.stats import ClientStats, StatsBook
from queue_runtime.strategies import SessionStrategy, as_strategy, no_session

R = TypeVar("R")

SHORTEST_WAIT = 1.0
"""Seconds; what is left of a wait below that is given away: SQS waits whole seconds."""

Messages = ReceivedMessage | Iterable[ReceivedMessage]


class QueueClient:
    """One client serves all threads of a process, and survives a fork: the child gets connections of its own.

    It starts no thread until it must. Queue names are the program's own; the settings map them to the
    broker's. Durations are seconds. A call whose error is `retryable` is made again by the settings' retry
    policy: five tries by default, none begun later than four seconds after the first. Then it raises the
    broker's `ProviderError`, or `CircuitOpen` while the broker keeps failing (settling and renewing are tried
    all the same); after `close`, `Closed`.
    """

    def __init__(
        self,
        settings: ClientSettings,
        *,
        strategy: SessionStrategy | str | None = None,
        listeners: Sequence[Listener] = (),
        clock: Clock | None = None,
        executor: SessionExecutor | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        chosen = settings if strategy is None else replace(settings, strategy=as_strategy(strategy))
        self._settings = chosen.timed_by(self._clock)
        self._book = StatsBook()
        self._listeners = listeners
        self._events = Events((self._book, *listeners))
        self._executor = executor
        self._make_provider = find(settings.provider.provider)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        # guarded by _lock
        self._closed = False
        self._runtime: Runtime | None = None
        self._inherited: list[Runtime | None] = []
        self.runtime()  # what is wrong with the settings is said now
        _clients.add(self)

    def send(self, queue: str, message: Message, *, timeout: float | None = None) -> str:
        """Send one message; returns its id when the broker has stored it, within *timeout* seconds.

        None is the settings' `send_timeout`: eight seconds, so that a webhook is answered in the ten that
        GitHub gives. Sends of several threads at the same time share requests. Raises `InvalidMessage`,
        `MessageTooLarge` or `UnsupportedOperation` before anything is sent; the broker's error when trying
        again is of no use or the time is up, `NotAttempted` if there was no time for one try; and
        `OutcomeUnknown` if a try was not answered: it may have been stored.
        """
        outcome = send(
            self.runtime_for(queue),
            queue,
            [message],
            self._strategy_of(queue),
            timeout=self._send_timeout(queue, timeout),
        )[0]
        if outcome.error is not None:
            raise outcome.error
        return message.id

    def send_batch(
        self, queue: str, messages: Iterable[Message], *, timeout: float = float("inf")
    ) -> list[str]:
        """Send messages, in order within each session; returns their ids.

        Raises before anything is sent if one of them cannot be; and `BatchFailed`, with an outcome for
        each, if some were not stored, or not within *timeout* seconds. After a message that failed for good
        the rest of its session is `NotAttempted`. On SQS FIFO one request carries one message of a session:
        a batch of one session is as many requests as it has messages.
        """
        check_timeout(timeout)
        batch = [messages] if isinstance(messages, Message) else list(messages)
        outcomes = send(self.runtime_for(queue), queue, batch, self._strategy_of(queue), timeout=timeout)
        BatchFailed.raise_for(f"send to {queue!r}", outcomes, queue=queue, operation="send")
        return [message.id for message in batch]

    def submit(self, queue: str, message: Message, *, timeout: float | None = None) -> Future[str]:
        """Have a message sent, and go on; the future has its id when the broker has stored it.

        For throughput without threads: what is submitted while a request is under way travels in the next
        one. Messages of a session are stored in the order in which they were submitted. Raises what `send`
        raises before it sends. While `batching.max_pending` messages are on their way (1000 by default) this
        waits for room, at most *timeout* seconds (None: the settings' `send_timeout`); then it raises
        `NotAttempted`.

        The future fails with what `send` would raise; each message is tried again by the retry policy. It can
        be cancelled while earlier ones of its session are under way. What is called back runs on a thread
        that sends for others: keep it short. `close` waits until all is sent; a forked child inherits none of
        it, and its copies of the futures are never done.
        """
        return submit(
            self.runtime_for(queue),
            queue,
            message,
            self._strategy_of(queue),
            timeout=self._send_timeout(queue, timeout),
        )

    def stats(self) -> ClientStats:
        """What this client has asked of its broker in this process: requests, messages, failures."""
        return self._book.stats(self.runtime().requests())

    def schedule(self, queue: str, message: Message) -> ScheduledMessage:
        """Send one message that has a delay; what is returned is for `cancel`.

        Raises as `send` does; `InvalidArgument` if it has no delay, and `UnsupportedOperation` if the queue
        cannot take a message back (`Capabilities.cancel`). After `OutcomeUnknown` it may come all the same:
        where the queue does not drop what was sent twice (`Capabilities.deduplication`) a try whose answer
        was lost is not made again, for `cancel` would take back one of two.
        """
        return scheduled.schedule(self.runtime_for(queue), queue, message, self._strategy_of(queue))

    def cancel(self, message: ScheduledMessage) -> None:
        """Take back a message that is not due yet. Returns when the broker has agreed.

        Raises `InvalidReceipt` if it is due, or was cancelled before.
        """
        if not isinstance(message, ScheduledMessage):
            raise InvalidArgument(
                f"cancel takes what schedule returned, not a {type(message).__name__}", operation="cancel"
            )
        scheduled.cancel(self.runtime_for(message.queue), message)

    def receive(
        self, queue: str, *, max_messages: int = 1, wait: float = 0.0, lease: float | None = None
    ) -> list[ReceivedMessage]:
        """Take up to *max_messages* within *wait* seconds; an empty list is a normal answer.

        Each is held for *lease* seconds (None: as long as the queue says); `keep_alive` or `renew` makes it
        longer. One call brings at most what the broker gives at once (SQS: ten). On SQS whole seconds are
        waited; a *wait* below one is a short poll, which may miss messages. Raises `UnsupportedOperation`
        on a queue with sessions, and for a *lease* where only the queue says how long one is
        (`Capabilities.chosen_lease`; Service Bus).
        """
        check_question(max_messages, wait)
        runtime = self.runtime_for(queue)
        target = runtime.target(queue)
        receiving.check_lease(runtime, queue, lease, "receive")
        return self._within(
            wait,
            lambda left: runtime.retrying(
                "receive",
                target,
                lambda: receiving.receive(runtime, queue, max_messages, left(), lease=lease),
            ),
        )

    def complete(self, messages: Messages) -> None:
        """Remove messages that are done. Returns when the broker has agreed; a second time is harmless.

        Raises `LeaseLost`, `InvalidReceipt` or `OutcomeUnknown`; for several messages `BatchFailed` with an
        outcome for each. (A standard SQS queue agrees to a stale receipt; that is its answer.)
        """
        self._settle(messages, lambda message: Complete(message.delivery))

    def abandon(self, messages: Messages, *, delay: float = 0.0) -> None:
        """Give messages back, to be handed out again after *delay* seconds.

        SQS takes whole seconds, rounded up. Service Bus has no such delay: there a long one makes a scheduled
        copy.

        Raises `LeaseLost`, `InvalidReceipt` or `OutcomeUnknown`; for several messages `BatchFailed`; and
        `InvalidArgument` for a *delay* that is none.
        """
        settling.check_delay(delay)
        self._settle(messages, lambda message: Abandon(message.delivery, delay))

    def dead_letter(self, messages: Messages, *, reason: str, description: str | None = None) -> None:
        """Move messages to the dead-letter queue; they leave the queue when the copies are confirmed.

        Raises `UnsupportedOperation` if there is no dead-letter queue; the messages are untouched then.
        """
        self._settle(
            messages,
            lambda message: DeadLetter(
                message.delivery,
                settling.dead_letter_info(message, reason=reason, description=description),
            ),
        )

    def renew(self, messages: Messages, *, lease: float | None = None) -> None:
        """Hold messages for another *lease* seconds (None: as long as each was received for).

        Raises `LeaseLost` or `InvalidReceipt`; for several messages `BatchFailed`; `UnsupportedOperation` for
        a *lease* where only the queue says how long one is.
        """

        def act(runtime: Runtime, mine: Sequence[ReceivedMessage]) -> Sequence[QueueError | None]:
            receiving.check_lease(runtime, mine[0].queue, lease, "renew")
            return settling.renew(runtime, runtime, mine, lease)

        self._each_queue("renew", messages, act)

    @contextmanager
    def keep_alive(self, *messages: ReceivedMessage) -> Iterator[None]:
        """Renew the leases of *messages* whenever they are due, until the block ends or they are settled.

        A lease that is lost all the same says so: `message.lease.lost`, `message.lease.check()`. For one that
        is kept alive already (by a worker, by a block around this one) this changes nothing.

        Raises `Closed`, and `SettlementError` for a message of another client or of this process's parent.
        """
        runtime = self.runtime()
        runtime.check_open()
        for message in messages:
            settling.check_owner(runtime, message)
        mine = [m for m in messages if m.settled_as is None and runtime.keep_alive(m)]
        try:
            yield
        finally:
            if not runtime.inherited:  # else this is a forked child, and the parent is still at it
                for message in mine:
                    runtime.leases.forget(message.lease)

    @overload
    def accept_session(
        self, queue: str, *, session_id: None = None, wait: float = 0.0
    ) -> SessionClient | None: ...

    @overload
    def accept_session(self, queue: str, *, session_id: str, wait: float = 0.0) -> SessionClient: ...

    def accept_session(
        self, queue: str, *, session_id: str | None = None, wait: float = 0.0
    ) -> SessionClient | None:
        """Hold the next free session that has messages, or None after *wait* seconds.

        With *session_id* it is that one, with messages or without; if another still holds it after *wait*
        seconds, in which it is asked for about twice a second, `SessionNotAvailable` is raised. Raises
        `UnsupportedOperation` on a queue without sessions, and for a *session_id* on SQS.
        """
        check_question(1, wait)
        runtime = self.runtime_for(queue)
        if session_id is not None:
            return receiving.accept_by_id(runtime, queue, check_id(session_id, "session_id"), wait)
        found = self._within(
            wait,
            lambda left: runtime.retrying(
                "accept_session", runtime.target(queue), lambda: receiving.accept(runtime, queue, 1, left())
            ),
        )
        return found[0] if found else None

    def peek(self, queue: str, *, limit: int = 100, after: int = 0) -> list[MessageView]:
        """Look at up to *limit* messages whose sequence is above *after*, in their order; they stay.

        An empty list means that there are no more. Those in hand and those not due yet are shown too. Raises
        `UnsupportedOperation` where the broker shows nothing (`Capabilities.peek`; SQS, and queues with
        sessions on Service Bus).
        """
        return receiving.peek(self.runtime_for(queue), queue, limit, after)

    def purge(self, queue: str) -> None:
        """Remove all the messages of *queue* for good, those that others hold included. Nothing asks back.

        Raises `UnsupportedOperation` where there is no such request (`Capabilities.purge`; Service Bus), and
        `ProviderError` for a second one within a minute on SQS, which takes as long for it.
        """
        receiving.purge(self.runtime_for(queue), queue)

    def describe(self, queue: str) -> QueueDescription:
        """Ask the broker for kind, counts, lease, limits and capabilities of *queue*.

        Raises `QueueNotFound`, `AuthorizationFailed`, or the broker's error. Counts and limits that it does
        not tell are None.
        """
        runtime = self.runtime_for(queue)
        return runtime.describe(runtime.target(queue))

    def dead_letters(self, queue: str) -> DeadLetters:
        """The dead-letter queue of *queue*: list, count, show, replay, remove, purge, export and import."""
        return DeadLetters(self.runtime_for(queue), queue)

    def close(self, *, timeout: float = 25.0) -> None:
        """Stop the client's workers, send what was submitted, release what nobody took, end its threads.
        Twice is harmless. What could not be sent in time fails its future.

        It takes at most *timeout* seconds in all, but for a request that is under way; handlers that a
        worker has given up are not waited for. What a receive that cannot be woken still brings (an SQS long
        poll) is released. Raises `InvalidArgument` for a *timeout* that is none.
        """
        if timeout != float("inf"):
            check_number("timeout", timeout, least=0, unit="seconds", raises=InvalidArgument)
        self._notice_fork()
        with self._lock:
            self._closed = True
            runtime = self._runtime
        if runtime is not None:
            runtime.close(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        provider = self._settings.provider
        self._notice_fork()
        with self._lock:
            state = "closed" if self._closed else "open"
        return f"<QueueClient {provider.provider}://{provider.location} [{state}]>"

    # For the library's own use.

    def runtime(self) -> Runtime:
        """What this process works with, made on first use. Raises `Closed` if it never came to one."""
        self._notice_fork()
        with self._lock:
            if self._runtime is None:
                if self._closed:  # before the fork, or after it and before the first use
                    raise Closed("the client is closed")
                executor = None if self._inherited else self._executor
                self._runtime = Runtime(
                    self._settings,
                    lambda: self._make_provider(self._settings.provider, self._clock),
                    self._clock,
                    self._events,
                    executor,
                )
            return self._runtime

    def runtime_for(self, queue: str) -> Runtime:
        """The same, open, for a *queue* whose name has been checked."""
        check_queue(queue)
        runtime = self.runtime()
        runtime.check_open()
        return runtime

    def _notice_fork(self) -> None:
        """One that Python did not hear of, such as uWSGI's: before any lock of the client is taken."""
        if os.getpid() != self._pid:
            with _noticing:
                if os.getpid() != self._pid:
                    self._forked()

    def _forked(self) -> None:
        """In a forked child: what the parent made is kept, so that nothing of it is closed, and not used."""
        self._lock = threading.Lock()
        self._inherited.append(self._runtime)
        self._runtime = None
        self._book = StatsBook()
        self._events = Events((self._book, *self._listeners))
        self._pid = os.getpid()  # last: other threads go on when they see it

    def _strategy_of(self, queue: str) -> SessionStrategy:
        return self._settings.of(queue).strategy or no_session

    def _send_timeout(self, queue: str, timeout: float | None) -> float:
        return self._settings.of(queue).send_timeout if timeout is None else check_timeout(timeout)

    def _within(self, wait: float, ask: Callable[[Callable[[], float]], list[R]]) -> list[R]:
        """Ask until there is an answer or *wait* is over; one question may be limited to less (SQS: 20 s).

        *ask* is given what tells the seconds that are left, for it may ask more than once.
        """
        deadline = self._clock.monotonic() + wait

        def left() -> float:
            return max(0.0, deadline - self._clock.monotonic())

        while True:
            found = ask(left)
            if found or left() < SHORTEST_WAIT:
                return found

    def _settle(self, messages: Messages, make: Callable[[ReceivedMessage], Settlement]) -> None:
        def act(runtime: Runtime, mine: Sequence[ReceivedMessage]) -> Sequence[QueueError | None]:
            target = runtime.target(mine[0].queue)
            return settling.settle(runtime, runtime, mine, make, lambda s: runtime.provider.settle(target, s))

        self._each_queue("settle", messages, act)

    def _each_queue(
        self,
        operation: str,
        messages: Messages,
        act: Callable[[Runtime, Sequence[ReceivedMessage]], Sequence[QueueError | None]],
    ) -> None:
        """Let *act* do its work for the messages of each queue, and raise what went wrong in the end."""
        self.runtime().check_open()
        chosen = settling.as_list(messages)
        errors: dict[int, QueueError | None] = {}
        for queue in dict.fromkeys(message.queue for message in chosen):
            indexes = [i for i, message in enumerate(chosen) if message.queue == queue]
            mine = [chosen[i] for i in indexes]
            errors.update(zip(indexes, act(self.runtime_for(queue), mine), strict=True))
        settling.raise_failed(operation, chosen, [errors[i] for i in range(len(chosen))])


_noticing = threading.Lock()
"""Held by the thread that finds out that its process is a fork."""

_clients: WeakSet[QueueClient] = WeakSet()


def _after_fork_in_child() -> None:
    global _noticing
    _noticing = threading.Lock()
    for client in list(_clients):
        client._forked()


os.register_at_fork(after_in_child=_after_fork_in_child)
