"""`Worker`: runs a handler for the messages of one queue until it is told to stop."""

from __future__ import annotations

import logging
import math
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar, overload

from queue_runtime.client import QueueClient
from queue_runtime.condition import Condition
from queue_runtime.errors import CircuitOpen, ConfigurationError, InvalidArgument, QueueError
from queue_runtime.events import FetchFailed, WorkerWarned
from queue_runtime.message import ReceivedMessage, check_queue
from queue_runtime.provider import Capabilities, QueueDescription
from queue_runtime.retry import check_number
from queue_runtime.runtime import Runtime
from queue_runtime.worker.context import Context
from queue_runtime.worker.fetcher import Fetcher, rest_after
from queue_runtime.worker.handling import entry_point
from queue_runtime.worker.hooks import Hooks
from queue_runtime.worker.in_hand import InHand
from queue_runtime.worker.options import Turn, WorkerOptions
from queue_runtime.worker.policy import HandlerPolicy
from queue_runtime.worker.report import (
    NOTHING_TO_STOP,
    Reason,
    State,
    StopReport,
    WorkerHealth,
    WorkerStatus,
    stopped,
)
from queue_runtime.worker.signals import Signals
from queue_runtime.worker.work import LOOK, Work

log = logging.getLogger("queue_runtime")

T = TypeVar("T")

POLL = 20.0
"""Seconds of one question to the broker: idle costs one request per 20 s.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-short-and-long-polling.html"""

STOP_DEADLINE = 25.0
"""Kubernetes kills 30 s after it asked.
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination"""


class Worker:
    """Calls *handler* with each message of *queue*, at most *concurrency* at once; returning completes it.

    With ``payload=SomeDataclass`` the handler is called with the decoded payload and the message. A handler
    that raises is tried again by *policy*; `Retry` asks for that, `Reject` for the dead-letter queue. *hooks*
    are told of each attempt. Leases are kept alive meanwhile; `message.lease` says if one is lost all the
    same.

    At most *prefetch* messages, or sessions, are leased at once (None: as many as *concurrency*). What is
    above *concurrency* waits here for a handler, its lease kept alive: that pays where handlers are quick and
    the broker is far, and makes other processes wait for what lies here. One question to the broker waits
    *poll* seconds for messages: what idle costs, and on SQS, whose polls cannot be woken, how long the end of
    `run` may take. On queues without sessions there are more questions at once while answers come back full.

    On a queue with sessions one message of a session is handled at a time, in order, and the session waits
    for its failed head. It is let go after *session_idle* seconds without a message, or at once when its
    place is wanted. So that a busy one starves no other it is let go too, between two messages, when its
    place is wanted and it has had it for *session_max_time* seconds (``inf``: for ever) or
    *session_max_messages* messages; its place is wanted when all *prefetch* of them are taken. On a queue
    that keeps no order, messages with one session id are handled one at a time here; up to twice
    *concurrency* of them wait for that beyond *prefetch*.

    `run` stops by itself when the broker has answered nothing for *give_up_after* seconds (None: it never
    does). One worker serves one queue; several may share a client, its threads and its leases. A worker that
    runs when its process forks runs in the parent only: in the child its `status` is `forked`, `stop` does
    nothing, and `start` and `run` begin a run of the child's own. One that still runs when the interpreter
    ends is stopped first. Raises `ConfigurationError` for what cannot work; the
    queue is looked at by `start`.
    """

    @overload
    def __init__(
        self,
        client: QueueClient,
        queue: str,
        handler: Callable[[ReceivedMessage], object],
        *,
        payload: None = None,
        concurrency: int = 16,
        prefetch: int | None = None,
        policy: HandlerPolicy | None = None,
        hooks: Sequence[Hooks] = (),
        session_idle: float = 2.0,
        session_max_time: float = 5.0,
        session_max_messages: int | None = None,
        poll: float = POLL,
        give_up_after: float | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        client: QueueClient,
        queue: str,
        handler: Callable[[T, ReceivedMessage], object],
        *,
        payload: type[T],
        concurrency: int = 16,
        prefetch: int | None = None,
        policy: HandlerPolicy | None = None,
        hooks: Sequence[Hooks] = (),
        session_idle: float = 2.0,
        session_max_time: float = 5.0,
        session_max_messages: int | None = None,
        poll: float = POLL,
        give_up_after: float | None = None,
    ) -> None: ...

    def __init__(
        self,
        client: QueueClient,
        queue: str,
        handler: Callable[..., object],
        *,
        payload: type[Any] | None = None,
        concurrency: int = 16,
        prefetch: int | None = None,
        policy: HandlerPolicy | None = None,
        hooks: Sequence[Hooks] = (),
        session_idle: float = 2.0,
        session_max_time: float = 5.0,
        session_max_messages: int | None = None,
        poll: float = POLL,
        give_up_after: float | None = None,
    ) -> None:
        check_queue(queue)
        if not isinstance(client, QueueClient):
            raise ConfigurationError(
                f"client must be a QueueClient, as connect(URL) makes it, not {client!r}"
            )
        self._client = client
        self._queue = queue
        self._enter = entry_point(handler, payload, hooks)
        self._options = WorkerOptions(
            concurrency=concurrency,
            prefetch=concurrency if prefetch is None else prefetch,
            policy=HandlerPolicy() if policy is None else policy,
            turn=Turn(idle=session_idle, longest=session_max_time, most=session_max_messages),
            poll=poll,
            give_up_after=give_up_after,
        )
        self._signals: list[int] = []  # written by signal handlers, which take no lock
        self._pid = os.getpid()
        self._changed = Condition()
        # guarded by _changed
        self._work: Work | None = None
        self._starting = False
        """`run` waits for its broker."""
        self._called_off = False

    def run(self, *, deadline: float = STOP_DEADLINE) -> StopReport:
        """Start, block until SIGTERM, SIGINT or `stop`, and stop within *deadline* seconds.

        A broker that does not answer at the start is waited for, as one that is lost later is: for
        `give_up_after` seconds. ``sys.exit(worker.run().exit_code)`` tells a supervisor: 0 stopped, 2 the
        broker was lost; what cannot work raises, of which Python makes 1.

        As the process is about to end, a poll that cannot be woken is waited for: what SQS gave to a
        connection that is gone would stay hidden for a lease. A second signal waits for nothing. Outside the
        main thread no signal is caught, and `stop` ends it.
        """
        _check_deadline(deadline)
        self._signals = []
        with Signals(self._on_signal):
            not_started = self._start_when_it_answers()
            if not_started is not None:
                return not_started
            with self._changed:
                called_off = self._called_off
            if called_off:  # while it started
                return self.stop(deadline)
            return self._run_until(lambda work: False, deadline)

    def run_until_idle(self, *, wait: float = 0.0, deadline: float = STOP_DEADLINE) -> StopReport:
        """Start, handle what is there, its retries included, and stop: for tests and batch jobs.

        It is idle when nothing is in hand, no message it gave back is still to come, and the broker has had
        nothing for *wait* seconds. (Real SQS wants a *wait* of 1 or more: a shorter poll may miss messages.)
        Backoffs are waited for on the client's clock: with a `FakeClock` another thread must advance it.
        """
        check_number("wait", wait, least=0, unit="seconds", raises=InvalidArgument)
        _check_deadline(deadline)
        self._signals = []
        turn = self._options.turn
        self._start(poll=wait, turn=replace(turn, idle=min(wait, turn.idle)))
        return self._run_until(lambda work: work.in_hand.is_idle(), deadline)

    def start(self) -> None:
        """Look at the queue and start fetching, on threads of its own; returns at once.

        Raises `QueueNotFound`, and `ConfigurationError` if the queue has no dead-letter queue: what can
        never be handled would have nowhere to go, unless the policy's `on_exhausted` says so.
        """
        self._start(poll=self._options.poll, turn=self._options.turn)

    def stop(self, deadline: float = STOP_DEADLINE) -> StopReport:
        """Stop within *deadline* seconds and say how that went. A second call answers the same.

        1 fetch no more; 2 release what was not started; 3 let handlers finish, their leases kept, until they
        are settled; 4 at the deadline tell those that have not that their leases are lost. A poll that cannot
        be woken is not waited for: the report names its thread, and what it still brings is released.

        Any thread may call. Inside a handler it asks for the stop and returns at once, because that handler
        is among those waited for: the report says how much is `in_hand`, and `run`, or another `stop`,
        returns the whole.
        """
        _check_deadline(deadline)
        self._notice_fork()
        with self._changed:
            work = self._work
            self._called_off = self._called_off or self._starting
            self._changed.notify_all()
        return NOTHING_TO_STOP if work is None else work.stop(deadline)

    def status(self) -> WorkerStatus:
        """How it is doing, at this moment."""
        self._notice_fork()
        with self._changed:
            work, starting = self._work, self._starting
        if work is None or starting:
            state: State = "starting" if starting else "new"
            return WorkerStatus(queue=self._queue, state=state, concurrency=self._options.concurrency)
        return work.status()

    def health(self) -> WorkerHealth:
        """Whether it does its work, for a probe; see `HealthServer`."""
        self._notice_fork()
        with self._changed:
            work, starting = self._work, self._starting
        if work is None or starting:
            state: State = "starting" if starting else "new"
            return WorkerHealth(queue=self._queue, state=state, alive=starting, fetching=False)
        return work.health()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        now = self.status()
        return (
            f"<Worker {self._queue!r} [{now.state} {now.handlers}/{now.concurrency} "
            f"| held {now.held} | leases {now.leases}]>"
        )

    def _notice_fork(self) -> None:
        """In a child a thread that is not here may hold the lock."""
        if self._pid != os.getpid():
            self._changed = Condition()
            self._starting = False
            self._pid = os.getpid()  # last: another thread of the child may ask meanwhile

    def _start(self, *, poll: float, turn: Turn) -> None:
        self._notice_fork()
        runtime = self._client.runtime_for(self._queue)
        target = runtime.target(self._queue)
        found = runtime.describe(target)
        self._check(found, runtime)
        options = self._options
        with self._changed:
            if self._work is not None and self._work.state in ("running", "stopping"):
                raise ConfigurationError(f"the worker on {self._queue!r} is {self._work.state} already")
            threads = options.threads(found.capabilities)
            runtime.executor.claim(threads)
            in_hand = InHand(
                runtime.clock,
                prefetch=options.prefetch,
                concurrency=options.concurrency,
                breaker=options.policy.breaker,
            )
            context = Context(
                runtime=runtime,
                queue=self._queue,
                enter=self._enter,
                policy=options.policy,
                turn=turn,
                capabilities=found.capabilities,
                in_hand=in_hand,
            )
            work = Work(context, Fetcher(context, wait=poll), threads=threads)
            try:
                work.start()
            except RuntimeError:  # no thread is to be had
                runtime.executor.claim(-threads)
                raise
            self._work = work

    def _start_when_it_answers(self) -> StopReport | None:
        """Start, or wait for the broker to answer; a report if that was called off or has lasted too long."""
        self._notice_fork()
        runtime = self._client.runtime_for(self._queue)
        began = runtime.clock.monotonic()
        with self._changed:
            self._starting, self._called_off = True, False
        try:
            failures = 0
            while True:
                try:
                    self.start()
                except QueueError as exc:
                    if not (exc.retryable or isinstance(exc, CircuitOpen)):
                        raise
                    failures += not isinstance(exc, CircuitOpen)
                    delay = rest_after(exc, failures, runtime.clock.now)
                    runtime.events(
                        FetchFailed(queue=self._queue, error=type(exc).__name__, text=str(exc), delay=delay)
                    )
                    lost = self._options.give_up_after
                    end = math.inf if lost is None else began + lost
                    reason = self._wait_for_broker(runtime, delay, end)
                    if reason is not None:
                        report = replace(NOTHING_TO_STOP, reason=reason)
                        why = self._why(report.reason, runtime.clock.monotonic() - began)
                        runtime.events(stopped(self._queue, report, why))
                        return report
                else:
                    return None
        finally:
            with self._changed:
                self._starting = False

    def _wait_for_broker(self, runtime: Runtime, delay: float, end: float) -> Reason | None:
        """Wait for *delay* seconds; returns why the worker is not to start, if so."""
        clock = runtime.clock
        again = clock.monotonic() + delay
        while (now := clock.monotonic()) < again:
            if now >= end:
                return "provider lost"
            with self._changed:
                clock.wait_for(self._changed, lambda: self._called_off, min(LOOK, again - now))
                if self._called_off or self._signals:
                    return "asked"
            if runtime.closed:
                return "closed"
        return None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    def _check(self, found: QueueDescription, runtime: Runtime) -> None:
        policy = self._options.policy
        if found.dead_letter_queue is None and policy.on_exhausted == "dead_letter":
            raise ConfigurationError(
                f"queue {self._queue!r} has no dead-letter queue, so a message that can never be handled has "
                "nowhere to go; give it one (on SQS: a RedrivePolicy), or say what becomes of it: "
                'HandlerPolicy(on_exhausted="drop") or "block"',
                queue=self._queue,
                operation="start",
            )
        lease = runtime.settings_of(runtime.target(self._queue)).lease
        if lease is not None and not _takes_lease(found.capabilities):
            runtime.events(
                WorkerWarned(
                    queue=self._queue,
                    text=f"lease = {lease:g} has no effect: only the queue says how long its messages are "
                    "held; change it there, and leave lease out",
                )
            )
        most = found.max_receives
        if most is not None and most <= policy.delivery_limit:
            runtime.events(
                WorkerWarned(
                    queue=self._queue,
                    text=f"the broker moves a message to the dead-letter queue after {most} deliveries, also "
                    "those that were no attempts, and without a record of the reason; the worker does so "
                    f"after {policy.delivery_limit} (max_deliveries): let the broker allow more, 100 say",
                )
            )

    def _run_until(self, enough: Callable[[Work], bool], deadline: float) -> StopReport:
        """Wait for a signal, for `stop`, for a broker that is lost for too long, or for *enough*, which is
        asked with the lock of `in_hand` held."""
        with self._changed:
            work = self._work
        if work is None:
            return NOTHING_TO_STOP
        lost_for = math.inf if self._options.give_up_after is None else self._options.give_up_after
        reason: Reason = "asked"
        lost = 0.0
        while not self._signals:
            if (lost := work.lost_for()) >= lost_for:
                reason = "provider lost"
                break
            if work.in_hand.wait(lambda: work.is_over() or enough(work), LOOK):
                reason = "asked" if work.has_ended() else "idle"
                break
        return work.stop(deadline, hurry=self._hurries(), reason=reason, why=self._why(reason, lost))

    def _hurries(self) -> Callable[[], bool]:
        """Whether one more signal has come; the first time that it has, the log is told."""
        allowed = max(1, len(self._signals))
        told = False

        def hurry() -> bool:
            nonlocal told
            if len(self._signals) <= allowed:
                return False
            if not told:
                told = True
                log.warning(
                    "worker on %r: a second signal, %s: nothing is waited for any more",
                    self._queue,
                    signal.Signals(self._signals[-1]).name,
                )
            return True

        return hurry

    def _why(self, reason: Reason, lost: float) -> str | None:
        if reason == "provider lost":
            return f"the broker answered nothing for {lost:.0f} s"
        return signal.Signals(self._signals[0]).name if reason == "asked" and self._signals else None


def _check_deadline(deadline: float) -> None:
    """Before anything is done: a stop that fails in the middle is none. One that has passed is fine."""
    number = isinstance(deadline, int | float) and not isinstance(deadline, bool)
    if not number or math.isnan(deadline):
        raise InvalidArgument(f"deadline must be a number of seconds, it is {deadline!r}")


def _takes_lease(capabilities: Capabilities) -> bool:
    """Sessions of the broker's own are held for as long as the queue says."""
    return capabilities.chosen_lease and capabilities.sessions != "native"
