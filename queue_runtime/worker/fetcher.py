"""One thread that fetches: a permit first, then the question to the broker, then the runs."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime

from queue_runtime import receiving
from queue_runtime.errors import CircuitOpen, Closed, QueueError
from queue_runtime.events import FetchFailed, WorkerWarned
from queue_runtime.message import ReceivedMessage
from queue_runtime.provider import Abandon
from queue_runtime.retry import backoff
from queue_runtime.session_client import SessionClient
from queue_runtime.worker.context import Context
from queue_runtime.worker.message_run import MessageRun
from queue_runtime.worker.session_run import SessionRun

log = logging.getLogger("queue_runtime")

NO_ORDER = (
    "messages with a session id come from a queue that keeps no order: those of one session are handled one "
    "at a time here, but not always in order; where order matters use a queue with sessions (SQS: FIFO)"
)

REST = 0.25
"""Seconds between two questions to a broker that has nothing, where the question itself waits for less."""


class Fetcher:
    """Fetches until the worker stops or the client is closed.

    Whatever the broker answers, it goes on: what fails is told and tried again after a backoff. A poll that
    cannot be woken may outlive the worker; what it brings is released.
    """

    def __init__(self, context: Context, *, sessions: bool, wait: float) -> None:
        self._context = context
        self._sessions = sessions
        self._wait = wait
        self._told_no_order = False
        self.thread = threading.Thread(
            target=self._run, name=f"queue_runtime-fetch-{context.queue}", daemon=True
        )

    def start(self) -> None:
        self._context.in_hand.fetcher_lives(True)
        self.thread.start()

    def _run(self) -> None:
        failures = 0
        try:
            while permits := self._context.in_hand.take_permits():
                moves = self._context.in_hand.moves()
                taken = 0
                try:
                    taken = self._fetch(permits)
                    failures = 0
                except Closed:
                    return
                except Exception as exc:  # a thread that nobody else does the work of must live on
                    if not isinstance(exc, QueueError):
                        log.exception("the fetcher of the worker on %r failed", self._context.queue)
                    failures += 1
                    self._back_off(exc, failures)
                finally:
                    self._context.in_hand.put_back(permits - taken)
                if not taken and not failures:
                    self._context.in_hand.found_nothing(moves)
                    if self._wait < REST:  # the question did not wait, so this does
                        self._context.in_hand.rest(moves, REST)
        finally:
            self._context.in_hand.fetcher_lives(False)

    def _fetch(self, permits: int) -> int:
        """Ask once, start what came; returns how many permits are used."""
        context = self._context
        if self._sessions:
            sessions = receiving.accept(
                context.runtime, context.queue, permits, self._wait, cancelled=self._is_stopping
            )
            return self._start_sessions(sessions)
        messages = receiving.receive(
            context.runtime, context.queue, permits, self._wait, cancelled=self._is_stopping
        )
        return self._start_messages(messages)

    def _is_stopping(self) -> bool:
        return self._context.in_hand.stopping

    def _start_sessions(self, sessions: Sequence[SessionClient]) -> int:
        started = 0
        for session in sessions:
            if self._begin(SessionRun(self._context, session)):
                started += 1
            else:
                session.close()
                self._context.in_hand.count("released")
        return started

    def _start_messages(self, messages: Sequence[ReceivedMessage]) -> int:
        if not self._told_no_order and any(message.session_id is not None for message in messages):
            self._told_no_order = True
            self._context.runtime.events(WorkerWarned(queue=self._context.queue, text=NO_ORDER))
        refused = [
            Abandon(message.delivery)
            for message in messages
            if not self._begin(MessageRun(self._context, message))
        ]
        if refused:
            with suppress(QueueError):  # what the broker does not hear of comes back when its lease ends
                self._context.runtime.provider.settle(self._context.target, refused)
            self._context.in_hand.count("released", len(refused))
        return len(messages) - len(refused)

    def _begin(self, run: MessageRun | SessionRun) -> bool:
        """Start *run*, which holds a permit from now on; False if the worker stops."""
        if not self._context.in_hand.begin(run):
            return False
        try:
            run.start()
        except Exception:  # say, no thread is to be had: the others are still to be started
            log.exception("a run of the worker on %r could not start", self._context.queue)
            run.abort()
        return True

    def _back_off(self, error: Exception, failures: int) -> None:
        delay = backoff(failures, base=0.5, cap=30.0, floor=0.1, random=random.random)
        if isinstance(error, CircuitOpen) and error.retry_at is not None:
            delay = max(delay, _seconds_until(error.retry_at, self._context.runtime.clock.now))
        self._context.runtime.events(
            FetchFailed(queue=self._context.queue, error=type(error).__name__, text=str(error), delay=delay)
        )
        self._context.in_hand.pause(delay)


def _seconds_until(moment: datetime, now: Callable[[], datetime]) -> float:
    return (moment - now()).total_seconds()
