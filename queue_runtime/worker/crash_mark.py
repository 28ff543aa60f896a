"""The crash mark: finds out the message that ends its process, where the broker's own count does not."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from queue_runtime.errors import QueueError, SessionLeaseLost
from queue_runtime.events import SessionUnmarked
from queue_runtime.message import ReceivedMessage
from queue_runtime.session_client import SessionClient
from queue_runtime.session_state import Mark
from queue_runtime.worker.context import Context
from queue_runtime.worker.verdict import GiveUp

MOST_CRASHES = 10
"""Holds that ended, without a word, with the message in a handler; with one more it is dead-lettered."""


class CrashMark:
    """What one hold on a session writes into the session's state, beside the user's own bytes.

    Once, for the first message and before its handler is entered: which message it is, and how many such
    holds there have been with this one. A hold that comes to its end takes that back; what a dead process
    leaves is counted by the next. It costs two requests at the beginning and one at the end. No handler waits
    for more: if the state cannot be read or written now, the message is handled without. Steps of one
    session's run call, one after the other.
    """

    def __init__(self, context: Context, session: SessionClient) -> None:
        self._context = context
        self._session = session
        found = context.capabilities
        self._due = found.session_state and not found.counts_lost_sessions
        # Of the message that was marked:
        self._marked: ReceivedMessage | None = None
        self._before: Mark | None = None

    def admit(self, message: ReceivedMessage) -> GiveUp | None:
        """Mark *message*, if it is the first of this hold; says why it must not reach its handler, if so."""
        if not self._due or message.sequence is None:
            return None
        self._due = False
        try:
            return self._mark(message, message.sequence)
        except SessionLeaseLost as exc:
            self._session.lease.lose(str(exc))
        except QueueError as exc:
            self._tell(f"{type(exc).__name__}: {exc}")
        return None

    def take_back(self) -> None:
        """The hold comes to its end: what remains is the user's own, and the mark that was there before if
        that message is still to be handled. If the broker does not hear of it, that counts as a crash."""
        marked = self._marked
        if marked is None or self._session.lease.lost:
            return
        self._marked = None
        gone = marked.settled_as in ("completed", "dead-lettered")
        with suppress(QueueError):  # the guard has told the listeners
            self._session.rewrite_mark(None if gone else self._before)

    def _mark(self, message: ReceivedMessage, sequence: int) -> GiveUp | None:
        found = self._session.read_state()
        if found.foreign:
            self._tell("the session's state was written by another program, and is left to it")
            return None
        self._before = found.mark if found.mark and found.mark.sequence == sequence else None
        self._marked = message  # from here on there is something to take back, whatever the broker answers
        crashes = self._before.count if self._before else 0
        if crashes > MOST_CRASHES:
            message.attempt = crashes
            return GiveUp(
                reason="MaxDeliveriesExceeded",
                description=f"{crashes} times the session was lost with it in a handler; "
                "its handler may be ending the process",
            )
        self._session.write_state(replace(found, mark=Mark(sequence, crashes + 1)))
        return None

    def _tell(self, reason: str) -> None:
        self._context.runtime.events(
            SessionUnmarked(queue=self._context.queue, session_id=self._session.session_id, reason=reason)
        )
