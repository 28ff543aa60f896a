"""What a client owns in one process: its provider, threads and leases. After a fork there is a new one."""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TypeVar, cast

from queue_runtime.clock import Clock
from queue_runtime.condition import Condition
from queue_runtime.config import ClientSettings, QueueSettings
from queue_runtime.errors import Closed, OperationTimeout, Outcome, OutcomeUnknown, QueueError
from queue_runtime.events import Events, RetryScheduled
from queue_runtime.executor import SessionExecutor
from queue_runtime.guard import Guard
from queue_runtime.history import History
from queue_runtime.leases import Held, LeaseRenewer, QueueLane
from queue_runtime.message import Delivery, Lease, ReceivedMessage
from queue_runtime.outbox import Outbox
from queue_runtime.provider import Capabilities, ProviderClient, QueueDescription
from queue_runtime.scheduler import Scheduler
from queue_runtime.sessions import GroupDispatcher
from queue_runtime.shared import SharedProvider

log = logging.getLogger("queue_runtime")

T = TypeVar("T")

RENEWAL_THREADS = 8
"""At most; started as they are needed. One that a dead connection holds up must not cost the others."""

CARRIERS = 64
"""Threads that make requests for several callers together, at most; started as they are needed. One kind of
request to one queue takes eight of them, unless it is configured otherwise."""


class Runtime:
    """Starts no thread until it must. Everything in it belongs to the process that made it."""

    def __init__(
        self,
        settings: ClientSettings,
        make_provider: Callable[[], ProviderClient],
        clock: Clock,
        events: Events,
        executor: SessionExecutor | None,
    ) -> None:
        self._pid = os.getpid()
        self.settings = settings
        self.clock = clock
        self.events = events
        self._names = {settings.of(name).target: name for name in settings.queues}
        provider = make_provider()
        guard = Guard(
            provider.name,
            policy=lambda target: self.settings_of(target).breaker,
            clock=clock,
            events=events,
            label=self.name_of,
        )
        self.scheduler = Scheduler(clock)
        self.carriers = SessionExecutor(CARRIERS, name="queue_runtime-carry", clock=clock)
        self.provider = SharedProvider(
            provider,
            guard,
            policy=lambda target: self.settings_of(target).batching,
            lease=lambda target: self.settings_of(target).lease,
            clock=clock,
            scheduler=self.scheduler,
            carriers=self.carriers,
        )
        self.pool = SessionExecutor(RENEWAL_THREADS, name="queue_runtime-renew", clock=clock)
        self.leases = LeaseRenewer(clock, self.scheduler, self.pool, events, max_lease=settings.max_lease)
        self.executor = executor or SessionExecutor(settings.max_workers, clock=clock)
        self._owns_executor = executor is None
        self._changed = Condition()
        # guarded by _changed
        self._flushed = False
        """No outbox is made any more."""
        self._closed = False
        self._dispatchers: dict[str, GroupDispatcher] = {}
        self._outboxes: dict[str, Outbox] = {}
        self._asking: dict[str, Future[Capabilities]] = {}
        """What queues can do that are not known yet."""
        self._histories: dict[str, History] = {}
        self._closing: list[tuple[Callable[[float], object], Callable[[], bool]]] = []

    def target(self, queue: str) -> str:
        """The broker's name of what the program calls *queue*."""
        return self.settings.of(queue).target

    def name_of(self, target: str) -> str:
        """The program's name of what the broker calls *target*."""
        return self._names.get(target, target)

    def settings_of(self, target: str) -> QueueSettings:
        """What holds for the queue that the broker calls *target*."""
        return self.settings.of(self.name_of(target))

    def capabilities(
        self, target: str, *, since: float | None = None, timeout: float = float("inf")
    ) -> Capabilities:
        """What the queue can do. With *timeout* the answer comes within so many seconds of *since*."""

        def ask() -> Capabilities:
            return self.retrying(
                "describe", target, lambda: self.provider.capabilities(target), since=since, timeout=timeout
            )

        known = self.provider.known(target)
        if known is not None:
            return known
        began = self.clock.monotonic() if since is None else since
        return self._in_time(target, began + timeout, ask, f"what queue {self.name_of(target)!r} can do")

    def describe(self, target: str) -> QueueDescription:
        return self.retrying("describe", target, lambda: self.provider.describe(target))

    def outbox(self, queue: str, *, since: float | None = None, timeout: float = float("inf")) -> Outbox:
        """Through which all goes that is sent to *queue*; within *timeout* seconds of *since*."""
        target = self.target(queue)
        with self._changed:
            found = self._outboxes.get(target)
        if found is not None:
            return found
        capabilities = self.capabilities(target, since=since, timeout=timeout)
        settings = self.settings_of(target)
        made = Outbox(
            partial(self.provider.send, target),
            capabilities,
            retry=settings.retry,
            policy=settings.batching,
            clock=self.clock,
            scheduler=self.scheduler,
            carriers=self.carriers,
            retrying=partial(self._tell_retry, "send", target),
        )
        with self._changed:
            if self._flushed:
                raise Closed("the client is closed")
            return self._outboxes.setdefault(target, made)

    def requests(self) -> Mapping[str, int]:
        """How often the provider asked its broker, by the broker's names, if it counts that."""
        return self.provider.requests()

    def dispatcher(self, target: str) -> GroupDispatcher:
        with self._changed:
            found = self._dispatchers.get(target)
        if found is not None:
            return found
        history = self.history(target)
        made = GroupDispatcher(self.provider, target, self.clock, partial(self.later, target), history.excuse)
        with self._changed:
            return self._dispatchers.setdefault(target, made)

    def history(self, target: str) -> History:
        """What is known here of the messages of a queue; its workers share it, one after the other too."""
        with self._changed:
            return self._histories.setdefault(target, History())

    def received(self, queue: str, delivery: Delivery) -> ReceivedMessage:
        """What the program holds in its hands of *delivery*, which is outside sessions."""
        lease = Lease(
            self.clock,
            until=delivery.leased_until,
            length=delivery.lease,
            what=f"message {delivery.message.id!r} of queue {queue!r}",
        )
        return ReceivedMessage(delivery, queue=queue, lease=lease, owner=self)

    def keep_alive(self, message: ReceivedMessage, *, target: str | None = None) -> bool:
        """Renew the lease of *message* whenever it is due; False if that is done already. *target* is where
        it is from, if the program may call another queue by the name that the message has."""
        lane = QueueLane(self.provider, target or self.target(message.queue))
        return self.leases.watch(
            Held(lease=message.lease, lane=lane, queue=message.queue, delivery=message.delivery)
        )

    def stop_waiting(self, target: str) -> Future[None] | None:
        """Have waits for *target* ask whether they are cancelled; give back what is fetched for nobody, which
        the future is for: that asks the broker."""
        self.provider.wake(target)
        with self._changed:
            found = self._dispatchers.get(target)
        if found is None:
            return None
        found.wake()
        try:
            return self.pool.submit(found.give_back_untaken)
        except RuntimeError:  # no thread is to be had: the interpreter ends, or the client does
            found.give_back_untaken()
            return None

    def later(self, lane: Hashable, delay: float, action: Callable[[], None]) -> None:
        """Run *action* in *delay* seconds, where it may block; not at all if the client is closed by then.

        Those of one *lane* come one at a time: a dead connection holds up one thread for it, not all.
        """

        def submit() -> None:
            try:
                self.pool.submit_in(("later", lane), action)
            except Closed:
                pass  # what the action was for ended with the client
            except RuntimeError:  # no thread is to be had: the interpreter ends
                action()

        with suppress(Closed):
            self.scheduler.call_later(delay, submit)

    def retrying(
        self,
        operation: str,
        target: str,
        act: Callable[[], T],
        *,
        since: float | None = None,
        timeout: float = float("inf"),
    ) -> T:
        """Call *act* until it returns, or fails for good by the retry policy; see `outcomes`."""
        outcome = self.outcomes(
            operation, target, 1, lambda _: [Outcome(act())], since=since, timeout=timeout
        )[0]
        if outcome.error is not None:
            raise outcome.error
        return cast(T, outcome.value)

    def outcomes(
        self,
        operation: str,
        target: str,
        entries: int,
        act: Callable[[list[int]], Sequence[Outcome[T]]],
        *,
        since: float | None = None,
        timeout: float = float("inf"),
        repeatable: bool = True,
    ) -> list[Outcome[T]]:
        """Ask *act* for the outcomes of entries, given by index, until each has gone well or failed for good.

        The retry belongs to the entry: only those that failed, and may go well yet, are asked for again.
        An error that *act* raises stands for all the entries it was asked for. An entry with an unknown
        outcome stays unknown if no later try goes well: that those failed says nothing of the one before.
        *since* is when the caller began, for a call that asks several things: they share the time limit. That
        of one entry among many begins with its first failure: a batch may take long without any. No try
        begins later than *timeout* seconds after *since*. If it is not *repeatable*, what may have been done
        is not asked for again.
        """
        policy = self.settings_of(target).retry
        started = self.clock.monotonic() if since is None else since
        done: dict[int, Outcome[T]] = {}
        unknown: dict[int, Outcome[T]] = {}
        first_failed: dict[int, float] = {}
        pending = list(range(entries))
        attempt = 1
        while pending:
            try:
                answers = act(pending)
            except QueueError as exc:
                answers = [Outcome(error=exc)] * len(pending)
            done.update(zip(pending, answers, strict=True))
            unknown.update((i, done[i]) for i in pending if isinstance(done[i].error, OutcomeUnknown))
            failed = [
                (i, error)
                for i in pending
                if (error := done[i].error) is not None
                and error.retryable
                and (repeatable or not isinstance(error, OutcomeUnknown))
            ]
            if not failed:
                break
            now = self.clock.monotonic()
            first_failed.update((i, first_failed.get(i, now)) for i, _ in failed)
            began = started if entries == 1 else min(first_failed[i] for i, _ in failed)
            # What one of them asks for in time, the others can wait for too.
            error = max((error for _, error in failed), key=lambda error: error.retry_after or 0.0)
            delay = policy.delay(attempt, error, now - began, random.random)
            if delay is None or now + delay - started >= timeout:
                break
            self._tell_retry(operation, target, attempt, delay, error)
            if not self.pause(delay):
                break
            pending = [i for i, _ in failed]
            attempt += 1
        return [done[i] if done[i].ok else unknown.get(i, done[i]) for i in range(entries)]

    def _in_time(
        self, target: str, deadline: float, ask: Callable[[], Capabilities], what: str
    ) -> Capabilities:
        """*ask* about *target* on another thread, which goes on when the time is up: `OperationTimeout` then.
        One question about a queue is under way at a time: a broker that does not answer has one thread."""
        if deadline == float("inf") or self.carriers.runs_here():
            return ask()
        while True:
            try:
                answer, mine = self._question(target, ask)
            except RuntimeError:  # closed, or no thread is to be had
                return ask()
            with self._changed:
                self.clock.wait_until(self._changed, answer.done, deadline)
            if not answer.done():
                raise OperationTimeout(f"{what} was not answered in time", provider=self.provider.name)
            if mine or answer.exception() is None:
                return answer.result()
            # It was another's, which may have had less time.

    def _question(self, target: str, ask: Callable[[], Capabilities]) -> tuple[Future[Capabilities], bool]:
        """The question about *target* that is under way, and whether it is this one."""

        def answered(_: object) -> None:
            with self._changed:
                self._asking.pop(target, None)
                self._changed.notify_all()

        with self._changed:
            found = self._asking.get(target)
            if found is not None:
                return found, False
            answer = self._asking[target] = self.carriers.submit(ask)
        answer.add_done_callback(answered)
        return answer, True

    def _tell_retry(self, operation: str, target: str, attempt: int, delay: float, error: QueueError) -> None:
        self.events(
            RetryScheduled(
                queue=self.name_of(target),
                operation=operation,
                attempt=attempt,
                delay=delay,
                error=type(error).__name__,
            )
        )

    def pause(self, seconds: float) -> bool:
        """Sleep, unless the client is closed meanwhile; returns False then."""
        with self._changed:
            return not self.clock.wait_for(self._changed, lambda: self._closed, seconds)

    def before_close(
        self, action: Callable[[float], object], *, mine: Callable[[], bool] = lambda: False
    ) -> Callable[[], None]:
        """Have *action* called when the client closes, with the seconds that it may take; returns what takes
        that back. If it is *mine* to the thread that closes, it is called there."""
        entry = (action, mine)
        with self._changed:
            self._closing.append(entry)

        def forget() -> None:
            with self._changed:
                if entry in self._closing:
                    self._closing.remove(entry)

        return forget

    @property
    def closed(self) -> bool:
        with self._changed:
            return self._closed

    @property
    def inherited(self) -> bool:
        """True in a process other than the one that made this: there it must not be touched."""
        return os.getpid() != self._pid

    def check_open(self) -> None:
        """Raise `Closed` after `close`, and in a process other than the one that made this."""
        if self.inherited:
            raise Closed("it was made by the parent of this process; make one here")
        if self.closed:
            raise Closed("the client is closed")

    def close(self, timeout: float) -> None:
        """Stop the workers, send what is on its way, give back what nobody took, end the threads, close the
        provider.

        All of it within *timeout* seconds, but for a request that is under way.
        """
        end = self.clock.monotonic() + timeout

        def left() -> float:
            return max(0.0, end - self.clock.monotonic())

        with self._changed:
            closing = list(self._closing)
        closing.sort(key=lambda entry: not entry[1]())  # the first is called on this thread
        _at_once([action for action, _ in closing], end, self.clock)
        with self._changed:
            self._flushed = True
            outboxes = list(self._outboxes.values())
        _at_once([outbox.close for outbox in outboxes], end, self.clock)
        with self._changed:
            if self._closed:
                return
            self._closed = True
            dispatchers = list(self._dispatchers.values())
            self._changed.notify_all()
        self.scheduler.close()
        self.pool.shutdown(cancel_futures=True, deadline=left())
        self.carriers.shutdown(deadline=left())  # who settles meanwhile may wait for one
        for dispatcher in dispatchers:
            dispatcher.give_back_untaken()
        self.provider.close()
        if self._owns_executor:
            self.executor.shutdown(cancel_futures=True, deadline=left())


def _at_once(actions: Sequence[Callable[[float], object]], end: float, clock: Clock) -> None:
    """Call all of them, beside each other, with what is left until *end*. Returns when all have returned."""

    def call(action: Callable[[float], object]) -> None:
        try:
            action(max(0.0, end - clock.monotonic()))
        except Exception:  # the others, and what the client owns, must come to their end all the same
            log.exception("closing with the client failed: %r", action)

    here = list(actions[:1])
    beside = []
    for number, action in enumerate(actions[1:], 1):
        thread = threading.Thread(
            target=call, args=(action,), name=f"queue_runtime-close-{number}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the interpreter ends, when Python 3.12 starts no thread
            here.append(action)
        else:
            beside.append(thread)
    for action in here:
        call(action)
    for thread in beside:
        thread.join()
