"""The threads that fetch: permits first, then the question to the broker, then the runs."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import count

from queue_runtime import receiving
from queue_runtime.errors import CircuitOpen, Closed, QueueError
from queue_runtime.events import FetchFailed, WorkerWarned
from queue_runtime.message import ReceivedMessage
from queue_runtime.provider import Abandon
from queue_runtime.retry import backoff
from queue_runtime.session_client import SessionClient
from queue_runtime.worker.context import Context
from queue_runtime.worker.in_hand import Permits
from queue_runtime.worker.message_run import MessageRun
from queue_runtime.worker.session_run import SessionRun

log = logging.getLogger("queue_runtime")

NO_ORDER = (
    "messages with a session id come from a queue that keeps no order: those of one session are handled one "
    "at a time here, but not always in order; where order matters use a queue with sessions (SQS: FIFO)"
)

REST = 0.25
"""Seconds between two questions to a broker that has nothing, where the question itself waits for less."""

MOST_ASKED = 10
"""Messages that one question asks for, at most, on a queue without sessions: what one request of SQS
brings."""

FULL = 1 / 3
"""An answer that brings so much of what was asked for is full: there is more. SQS gives out less than it has,
as it asks a part of its servers; Service Bus is asked by its provider for a good third of what is wanted.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-short-and-long-polling.html"""

JITTER = 0.5
"""Seconds within which the workers of a client come back to a broker whose breaker may be closed again."""

MOST_POLLERS = 8
"""Questions to the broker under way at once, at most, while its answers come back full."""


class Fetcher:
    """Fetches until the worker stops or the client is closed.

    One poller waits for messages; while answers come back full there is one more after each, and those end
    with their first empty answer. (Sessions are asked for by one alone: its provider, or the dispatcher,
    opens several beside each other.) Whatever the broker answers, it goes on: what fails is told and tried
    again after a backoff. A poll that cannot be woken may outlive the worker; what it brings is released.
    """

    def __init__(self, context: Context, *, wait: float) -> None:
        self._context = context
        self._sessions = context.capabilities.sessions != "none"
        self._wait = wait
        prefetch = context.in_hand.prefetch
        self._most = prefetch if self._sessions else min(MOST_ASKED, context.capabilities.max_batch)
        self._least = max(1, min(self._most, prefetch // 4))
        self._told_no_order = False
        self._numbers = count(1)
        self._lock = threading.Lock()
        # guarded by _lock
        self._pollers: list[threading.Thread] = []

    def start(self) -> None:
        self._add_poller()

    def threads(self) -> list[threading.Thread]:
        """Those that have not ended."""
        with self._lock:
            return [thread for thread in self._pollers if thread.is_alive()]

    def join(self) -> None:
        for thread in self.threads():
            thread.join()

    def _add_poller(self) -> None:
        with self._lock:
            if len(self._pollers) >= MOST_POLLERS:
                return
            number = next(self._numbers)
            suffix = "" if number == 1 else f"-{number}"
            thread = threading.Thread(
                target=self._run,
                args=(number == 1,),
                name=f"queue_runtime-fetch-{self._context.queue}{suffix}",
                daemon=True,
            )
            self._context.in_hand.fetcher_lives(True)
            try:
                thread.start()
            except BaseException:
                self._context.in_hand.fetcher_lives(False)
                raise
            self._pollers.append(thread)

    def _run(self, first: bool) -> None:
        try:
            self._poll(first)
        finally:
            with self._lock:
                self._pollers.remove(threading.current_thread())
            self._context.in_hand.fetcher_lives(False)

    def _poll(self, first: bool) -> None:
        in_hand = self._context.in_hand
        failures = 0
        while permits := self._take_permits(first):
            moves = in_hand.moves()
            asked_at = self._context.runtime.clock.monotonic()
            try:
                came = self._fetch(permits)
            except Closed:
                return
            except Exception as exc:  # a thread that nobody else does the work of must live on
                if not isinstance(exc, QueueError):
                    log.exception("the fetcher of the worker on %r failed", self._context.queue)
                if not first:
                    return  # one finds out when it goes well again
                failures += not isinstance(exc, CircuitOpen)
                self._back_off(exc, failures, asked_at)
                continue
            failures = 0
            in_hand.answered()
            if came:
                self._ask_more(came / permits.number)
            elif first:
                in_hand.found_nothing(moves)
                if self._wait < REST:  # the question did not wait, so this does
                    in_hand.rest(moves, REST)
            else:
                return

    def _take_permits(self, first: bool) -> Permits | None:
        in_hand = self._context.in_hand
        if self._sessions and in_hand.want():
            # Sessions that wait for their next message make room, all at once.
            self._context.runtime.provider.wake(self._context.target)
        return in_hand.take_permits(self._most, least=1 if first else self._least)

    def _ask_more(self, fullness: float) -> None:
        """Add a poller if there is more to be had, and room for it."""
        if not self._sessions and fullness >= FULL and self._context.in_hand.has_permits(self._least):
            with suppress(RuntimeError):  # no thread is to be had: those that there are go on
                self._add_poller()

    def _fetch(self, permits: Permits) -> int:
        """Ask once, start what came; returns how much that is."""
        context = self._context
        runtime, queue, number, wait = context.runtime, context.queue, permits.number, self._wait

        def for_nobody() -> bool:
            return context.in_hand.fetches_for_nobody(permits)

        try:
            if self._sessions:
                sessions = receiving.accept(runtime, queue, number, wait, cancelled=for_nobody)
                self._start_sessions(permits, sessions)
                return len(sessions)
            messages = receiving.receive(runtime, queue, number, wait, cancelled=for_nobody)
            self._start_messages(permits, messages)
            return len(messages)
        finally:
            context.in_hand.put_back(permits)

    def _start_sessions(self, permits: Permits, sessions: Sequence[SessionClient]) -> None:
        for session in sessions:
            if not self._begin(permits, SessionRun(self._context, session)):
                session.close()
                self._context.in_hand.count("released")

    def _start_messages(self, permits: Permits, messages: Sequence[ReceivedMessage]) -> None:
        if not self._told_no_order and any(message.session_id is not None for message in messages):
            self._told_no_order = True
            self._context.runtime.events(WorkerWarned(queue=self._context.queue, text=NO_ORDER))
        refused = [
            message for message in messages if not self._begin(permits, MessageRun(self._context, message))
        ]
        if not refused:
            return
        for message in refused:
            self._context.history.excuse(message.delivery.broker_id)
        with suppress(QueueError):  # what the broker does not hear of comes back when its lease ends
            self._context.runtime.provider.settle(
                self._context.target, [Abandon(message.delivery) for message in refused]
            )
        self._context.in_hand.count("released", len(refused))

    def _begin(self, permits: Permits, run: MessageRun | SessionRun) -> bool:
        """Start *run*, which holds one of *permits* from now on; False if nothing may start now."""
        if not self._context.in_hand.begin(run, permits):
            return False
        try:
            run.start()
        except Exception:  # say, no thread is to be had: the others are still to be started
            log.exception("a run of the worker on %r could not start", self._context.queue)
            run.abort()
        return True

    def _back_off(self, error: Exception, failures: int, asked_at: float) -> None:
        delay = rest_after(error, failures, self._context.runtime.clock.now)
        self._context.runtime.events(
            FetchFailed(queue=self._context.queue, error=type(error).__name__, text=str(error), delay=delay)
        )
        self._context.in_hand.pause(f"{type(error).__name__}: {error}", delay, asked_at)


LONGEST_REST = 300.0
"""Seconds: a broker may ask for a day by mistake, and nobody would see that it is well again."""


def rest_after(error: Exception, failures: int, now: Callable[[], datetime]) -> float:
    """Seconds until the broker is asked again after *error*, with which *failures* questions in a row have
    failed. An open breaker has asked nobody: it is no failure, and says itself when to ask again."""
    if isinstance(error, CircuitOpen) and error.retry_at is not None:
        return max(0.0, (error.retry_at - now()).total_seconds()) + random.uniform(0.1, JITTER)
    delay = backoff(max(1, failures), base=0.5, cap=30.0, floor=0.1, random=random.random)
    asked_for = error.retry_after if isinstance(error, QueueError) else None
    return max(delay, min(asked_for or 0.0, LONGEST_REST))
