"""Brings a queue's messages and the links that wait for them together, and the queue the time."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Protocol

from queue_runtime.testing.servicebus.errors import SESSION_LOCK_LOST
from queue_runtime.testing.servicebus.queues import Queue, Session

TICK = 0.02
"""Seconds after which a queue is told the time when something was done to it; else it says when it is due."""

EXPIRY_NOTICE = 1.0
"""Seconds after a session's lock expired until the link that had it is detached. The service is in no hurry
either: Microsoft's test_session_by_queue_client_conn_str_receive_handler_receiveanddelete waits for messages
until just after its lock has expired, and hears of nothing."""

_ROUND = 500
"""Messages that one queue may give out before the other queues and clients have their turn."""


class Receiver(Protocol):
    """A link that messages can be sent on."""

    session: Session | None

    def __hash__(self) -> int:
        """It holds locks."""

    @property
    def ready(self) -> bool:
        """Whether a message would reach the client now."""

    def take(self, now: float) -> bool:
        """Send the next message of the queue; False if it has none for this link."""

    def drained(self) -> None:
        """Nothing more is there."""

    def detach(self, condition: str, description: str) -> None:
        """End the link, and say why."""


class Acceptor(Receiver, Protocol):
    """A link that will be to a session."""

    def accepted(self, session: Session) -> None:
        """This is the one."""


class Hub:
    """One queue's. Receivers without a session take turns, a message each."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self._loop = asyncio.get_running_loop()
        self._receivers: deque[Receiver] = deque()
        self._accepting: deque[Acceptor] = deque()
        """They wait for the next session that is free."""
        self._woken: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        queue.on_change.append(self.wake)
        queue.on_session_lost.append(self._session_lost)

    def join(self, receiver: Receiver) -> None:
        self._receivers.append(receiver)

    def join_accepting(self, receiver: Acceptor) -> None:
        self._accepting.append(receiver)
        self.wake()

    def leave(self, receiver: Receiver) -> None:
        self._receivers = deque(each for each in self._receivers if each is not receiver)
        self._accepting = deque(each for each in self._accepting if each is not receiver)

    def wake(self) -> None:
        """Something may be deliverable: look, as soon as what goes on is over."""
        if self._woken is None:
            self._woken = self._loop.call_soon(self._serve)

    def touched(self) -> None:
        """The queue was changed: what is due first may be another thing now."""
        soon = self._loop.time() + TICK
        if self._timer is None or self._timer.when() > soon:
            self._set_timer(TICK)

    def close(self) -> None:
        """Do nothing more."""
        self.queue.on_change.clear()
        self.queue.on_session_lost.clear()
        for handle in (self._woken, self._timer):
            if handle is not None:
                handle.cancel()

    def _serve(self) -> None:
        self._woken = None
        now = time.time()
        self._accept(now)
        budget = _ROUND
        waiting = deque(each for each in self._receivers if each.ready and not _lost(each))
        while waiting and budget:
            receiver = waiting.popleft()
            budget -= 1
            if receiver.take(now) and receiver.ready:
                waiting.append(receiver)
        self._receivers.rotate(-1)
        if waiting:
            self.wake()
        else:
            for receiver in list(self._receivers):
                receiver.drained()
        self.touched()

    def _accept(self, now: float) -> None:
        while self._accepting:
            session = self.queue.accept(None, self._accepting[0], now)
            if session is None:
                return
            self._accepting.popleft().accepted(session)

    def _session_lost(self, session: Session) -> None:
        taken_away = session.until > time.time()
        self._loop.call_later(0.0 if taken_away else EXPIRY_NOTICE, self._detach_holder, session)

    def _detach_holder(self, session: Session) -> None:
        for receiver in list(self._receivers):
            if receiver.session is session:
                receiver.detach(
                    SESSION_LOCK_LOST, f"the lock of session '{session.id}' has expired or was lost"
                )

    def _tick(self) -> None:
        self._timer = None
        now = time.time()
        due = self.queue.tick(now)
        if due is not None:
            self._set_timer(max(due - now, 0.001))

    def _set_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._tick)


def _lost(receiver: Receiver) -> bool:
    return receiver.session is not None and receiver.session.lost
