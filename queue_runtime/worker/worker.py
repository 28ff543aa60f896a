"""`Worker`: runs a handler for the messages of one queue until it is told to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar, overload

from queue_runtime.client import QueueClient
from queue_runtime.errors import ConfigurationError
from queue_runtime.events import WorkerWarned
from queue_runtime.message import ReceivedMessage, check_queue
from queue_runtime.provider import QueueDescription
from queue_runtime.runtime import Runtime
from queue_runtime.worker.attempts import Attempts
from queue_runtime.worker.context import Context, Turn
from queue_runtime.worker.fetcher import Fetcher
from queue_runtime.worker.handling import entry_point
from queue_runtime.worker.in_hand import InHand
from queue_runtime.worker.report import NOTHING_TO_STOP, StopReport, WorkerStatus
from queue_runtime.worker.verdict import HandlerPolicy
from queue_runtime.worker.work import LOOK, Work

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
    that raises is tried again by *policy*; `Retry` asks for that, `Reject` for the dead-letter queue. Leases
    are kept alive meanwhile; `message.lease` says if one is lost all the same. One question to the broker
    waits *poll* seconds for messages: what idle costs, and on SQS, whose polls cannot be woken, how long the
    end of `run` may take.

    On a queue with sessions one message of a session is handled at a time, in order, and the session waits
    for its failed head. It is let go after *session_idle* seconds without a message, or at once when its
    place is wanted. So that a busy one starves no other it is let go too, between two messages, when its
    place is wanted and it has had it for *session_max_time* seconds (``inf``: for ever) or
    *session_max_messages* messages; its place is wanted when all *concurrency* of them are taken.

    One worker serves one queue; several may share a client, its threads and its leases. A worker that runs
    when its process forks runs in the parent only; its `status` in the child says so. Raises
    `ConfigurationError` for what cannot work; the queue is looked at by `start`.
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
        policy: HandlerPolicy | None = None,
        session_idle: float = 2.0,
        session_max_time: float = 30.0,
        session_max_messages: int | None = None,
        poll: float = POLL,
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
        policy: HandlerPolicy | None = None,
        session_idle: float = 2.0,
        session_max_time: float = 30.0,
        session_max_messages: int | None = None,
        poll: float = POLL,
    ) -> None: ...

    def __init__(
        self,
        client: QueueClient,
        queue: str,
        handler: Callable[..., object],
        *,
        payload: type[Any] | None = None,
        concurrency: int = 16,
        policy: HandlerPolicy | None = None,
        session_idle: float = 2.0,
        session_max_time: float = 30.0,
        session_max_messages: int | None = None,
        poll: float = POLL,
    ) -> None:
        check_queue(queue)
        if not isinstance(concurrency, int) or concurrency < 1:
            raise ConfigurationError(
                f"concurrency must be a whole number from 1 on, it is {concurrency!r}", queue=queue
            )
        if not 0 <= session_idle < float("inf"):
            raise ConfigurationError(f"session_idle must be seconds from 0 on, it is {session_idle!r}")
        if not session_max_time > 0:
            raise ConfigurationError(f"session_max_time must be seconds above 0, it is {session_max_time!r}")
        if session_max_messages is not None and (
            not isinstance(session_max_messages, int) or session_max_messages < 1
        ):
            raise ConfigurationError(
                "session_max_messages must be a whole number from 1 on, or None for no limit, it is "
                f"{session_max_messages!r}"
            )
        if not 0 < poll < float("inf"):
            raise ConfigurationError(f"poll must be seconds above 0, it is {poll!r}")
        if not isinstance(client, QueueClient):
            raise ConfigurationError(
                f"client must be a QueueClient, as connect(URL) makes it, not {client!r}"
            )
        if policy is not None and not isinstance(policy, HandlerPolicy):
            raise ConfigurationError(f"policy must be a HandlerPolicy(...), it is {policy!r}", queue=queue)
        self._client = client
        self._queue = queue
        self._enter = entry_point(handler, payload)
        self._concurrency = concurrency
        self._policy = policy or HandlerPolicy()
        self._turn = Turn(idle=session_idle, longest=session_max_time, most=session_max_messages)
        self._poll = poll
        self._signals = 0  # written by signal handlers, which take no lock
        self._lock = threading.Lock()
        # guarded by _lock
        self._work: Work | None = None

    def run(self, *, deadline: float = STOP_DEADLINE) -> StopReport:
        """Start, block until SIGTERM, SIGINT or `stop`, and stop within *deadline* seconds.

        As the process is about to end, a poll that cannot be woken is waited for: what SQS gave to a
        connection that is gone would stay hidden for a lease. A second signal waits for nothing. Outside the
        main thread no signal is caught, and `stop` ends it.
        """
        self._signals = 0
        with _Signals(self._on_signal):
            self.start()
            return self._run_until(lambda work: False, deadline)

    def run_until_idle(self, *, wait: float = 0.0, deadline: float = STOP_DEADLINE) -> StopReport:
        """Start, handle what is there, its retries included, and stop: for tests and batch jobs.

        It is idle when nothing is in hand, no message it gave back is still to come, and the broker has had
        nothing for *wait* seconds. (Real SQS wants a *wait* of 1 or more: a shorter poll may miss messages.)
        Backoffs are waited for on the client's clock: with a `FakeClock` another thread must advance it.
        """
        self._signals = 0
        self._start(poll=wait, turn=replace(self._turn, idle=min(wait, self._turn.idle)))
        return self._run_until(lambda work: work.in_hand.is_idle(), deadline)

    def start(self) -> None:
        """Look at the queue and start fetching, on a thread of its own; returns at once.

        Raises `QueueNotFound`, and `ConfigurationError` if the queue has no dead-letter queue: what can
        never be handled would have nowhere to go.
        """
        self._start(poll=self._poll, turn=self._turn)

    def stop(self, deadline: float = STOP_DEADLINE) -> StopReport:
        """Stop within *deadline* seconds and say how that went. A second call answers the same.

        1 fetch no more; 2 release what was not started; 3 let handlers finish, their leases kept; 4 at the
        deadline tell those that have not that their leases are lost. A poll that cannot be woken is not
        waited for: the report names its thread, and what it still brings is released. Call it from any
        thread but a handler's, which would wait for itself.
        """
        with self._lock:
            work = self._work
        return NOTHING_TO_STOP if work is None else work.stop(deadline)

    def status(self) -> WorkerStatus:
        """How it is doing, at this moment."""
        with self._lock:
            work = self._work
        if work is None:
            return WorkerStatus(queue=self._queue, state="new", concurrency=self._concurrency)
        return work.status()

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

    def _start(self, *, poll: float, turn: Turn) -> None:
        runtime = self._client.runtime_for(self._queue)
        target = runtime.target(self._queue)
        found = runtime.describe(target)
        self._check(found, runtime)
        with self._lock:
            if self._work is not None and self._work.state in ("running", "stopping"):
                raise ConfigurationError(f"the worker on {self._queue!r} is {self._work.state} already")
            runtime.executor.claim(self._concurrency)
            in_hand = InHand(runtime.clock, self._concurrency)
            context = Context(
                runtime=runtime,
                queue=self._queue,
                enter=self._enter,
                policy=self._policy,
                turn=turn,
                capabilities=found.capabilities,
                in_hand=in_hand,
                attempts=Attempts(),
            )
            fetcher = Fetcher(context, sessions=found.capabilities.sessions != "none", wait=poll)
            self._work = Work(context, fetcher)
            self._work.start()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1

    def _check(self, found: QueueDescription, runtime: Runtime) -> None:
        if found.dead_letter_queue is None:
            raise ConfigurationError(
                f"queue {self._queue!r} has no dead-letter queue, so a message that can never be handled has "
                "nowhere to go; give it one (on SQS: a RedrivePolicy)",
                queue=self._queue,
                operation="start",
            )
        most = found.max_receives
        if most is not None and most <= self._policy.max_attempts:
            runtime.events(
                WorkerWarned(
                    queue=self._queue,
                    text=f"the broker moves a message to the dead-letter queue after {most} deliveries, and "
                    f"max_attempts is {self._policy.max_attempts}: it may be moved before its last attempt, "
                    f"and without its record; let the broker allow more than {self._policy.max_attempts}",
                )
            )

    def _run_until(self, enough: Callable[[Work], bool], deadline: float) -> StopReport:
        """Wait for a signal, for `stop`, or for *enough*, which is asked with the lock of `in_hand` held."""
        with self._lock:
            work = self._work
        if work is None:
            return NOTHING_TO_STOP
        while not self._signals and not work.in_hand.wait(lambda: work.is_over() or enough(work), LOOK):
            pass
        allowed = max(1, self._signals)
        return work.stop(deadline, hurry=lambda: self._signals > allowed)


class _Signals:
    """SIGTERM and SIGINT go to *handler* inside the block, if it is entered on the main thread."""

    def __init__(self, handler: Callable[[int, FrameType | None], None]) -> None:
        self._handler = handler
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handler)

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            if handler is not None:  # None: it was not set by Python, and cannot be by Python
                signal.signal(number, handler)
