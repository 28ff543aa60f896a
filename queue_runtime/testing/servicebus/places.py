"""Knows where each message of a queue is, and brings it to the next place."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Hashable
from typing import Self

from queue_runtime.testing.servicebus.lines import Line, SessionLines
from queue_runtime.testing.servicebus.ordered import Ascending, Ranked
from queue_runtime.testing.servicebus.stored import (
    LOCK_LOST,
    NOT_ALLOWED,
    SESSION_LOCK_LOST,
    DeadLetter,
    Incoming,
    Lock,
    QueueSettings,
    Refused,
    Session,
    Stored,
)


class Places:
    """What a queue is made of, for `Queue` to build on: a message is ready, locked, deferred or scheduled."""

    def __init__(self, path: str, settings: QueueSettings, *, dead_letters: Self | None = None) -> None:
        self.path = path
        self.settings = settings
        self.dead_letters = dead_letters
        self.on_change: list[Callable[[], None]] = []
        self.on_session_lost: list[Callable[[Session], None]] = []
        self._changed = False
        self._last_sequence = 0
        self._messages: dict[int, Stored] = {}
        self._sequences = Ascending()
        self._line = Line()
        self._sessions = SessionLines(settings.lock) if settings.sessions else None
        # A message is ready in its line, or in exactly one of these three.
        self._locked: dict[uuid.UUID, Stored] = {}
        self._deferred: set[int] = set()
        self._scheduled: Ranked[int] = Ranked()
        self._lock_ends: Ranked[int] = Ranked()
        self._expiries: Ranked[int] = Ranked()
        self._seen: dict[str, int] = {}
        self._forget: Ranked[str] = Ranked()

    def _catch_up(self, now: float) -> None:
        for message_id in self._forget.due(now):
            del self._seen[message_id]
        for sequence in self._scheduled.due(now):
            self._activate(self._messages[sequence], now)
        if self._sessions is not None:
            for session_id in self._sessions.lock_ends.due(now):
                self._lose(self._sessions, self._sessions.line(session_id), now)
        for sequence in self._lock_ends.due(now):
            stored = self._messages[sequence]
            self._unlock(stored)
            self._failed(stored, now)
        for sequence in self._expiries.due(now):
            stored = self._messages[sequence]
            # What is locked outlives its time until the lock ends; what is deferred stays for good.
            if stored.lock is None and stored.state == "active":
                self._expire(stored, now)
        self._announce()

    # What becomes of a message

    def _take_in(self, incoming: Incoming, now: float) -> int:
        original = self._seen.get(incoming.message_id) if incoming.message_id is not None else None
        if original is not None:
            return original
        scheduled = incoming.scheduled_at is not None and incoming.scheduled_at > now
        stored = Stored(
            sequence=0,
            enqueued_at=now,
            message_id=incoming.message_id,
            session_id=incoming.session_id,
            partition_key=incoming.partition_key,
            ttl=incoming.ttl,
            expires_at=None,
            scheduled_at=incoming.scheduled_at,
            content=incoming.content,
            state="scheduled" if scheduled else "active",
        )
        self._number(stored)
        if scheduled:
            self._scheduled.put(stored.sequence, incoming.scheduled_at)
        else:
            self._enqueue(stored, now)
        if self.settings.duplicate_window > 0 and incoming.message_id is not None:
            self._seen[incoming.message_id] = stored.sequence
            self._forget.put(incoming.message_id, now + self.settings.duplicate_window)
        return stored.sequence

    def _number(self, stored: Stored) -> None:
        self._last_sequence += 1
        stored.sequence = self._last_sequence
        self._messages[stored.sequence] = stored
        self._sequences.append(stored.sequence)
        self._line_of(stored).sequences.append(stored.sequence)

    def _activate(self, stored: Stored, now: float) -> None:
        # As the service does: it joins the queue's end, under a new number.
        # https://learn.microsoft.com/azure/service-bus-messaging/message-sequencing
        assert stored.scheduled_at is not None
        self._remove(stored)
        stored.state = "active"
        self._number(stored)
        stored.enqueued_at = stored.scheduled_at
        self._enqueue(stored, now)

    def _enqueue(self, stored: Stored, now: float) -> None:
        limits = [each for each in (stored.ttl, self.settings.ttl or None) if each is not None]
        if limits:
            stored.expires_at = stored.enqueued_at + min(limits)
            self._expiries.put(stored.sequence, stored.expires_at)
        self._give_back(stored, now)

    def _give_back(self, stored: Stored, now: float) -> None:
        """To where it waits: among the deferred, or at its place in the line."""
        if stored.state == "deferred":
            self._deferred.add(stored.sequence)
            return
        if stored.expires_at is not None and stored.expires_at <= now:
            self._expire(stored, now)
            return
        line = self._line_of(stored)
        line.ready.put(stored.sequence, stored.sequence)
        self._update(line)
        self._changed = True

    def _failed(self, stored: Stored, now: float) -> None:
        stored.delivery_count += 1
        if self.dead_letters is not None and stored.delivery_count >= self.settings.max_delivery:
            text = f"not settled after {stored.delivery_count} deliveries, the most that the queue allows"
            self._bury(stored, "MaxDeliveryCountExceeded", text, now)
        else:
            self._give_back(stored, now)

    def _expire(self, stored: Stored, now: float) -> None:
        if self.settings.dead_letter_on_expire:
            self._bury(stored, "TTLExpiredException", "the message expired and was dead lettered", now)
        else:
            self._remove(stored)

    def _bury(self, stored: Stored, reason: str | None, description: str | None, now: float) -> None:
        assert self.dead_letters is not None
        self._remove(stored)
        stored.dead_letter = DeadLetter(reason, description, self.path)
        self.dead_letters._receive_dead(stored, now)

    def _receive_dead(self, stored: Stored, now: float) -> None:
        stored.state = "active"
        stored.expires_at = None
        self._number(stored)
        self._give_back(stored, now)
        self._announce()

    def _remove(self, stored: Stored) -> None:
        del self._messages[stored.sequence]
        self._sequences.discard(stored.sequence)
        self._deferred.discard(stored.sequence)
        self._scheduled.discard(stored.sequence)
        self._expiries.discard(stored.sequence)
        line = self._line_of(stored)
        line.ready.discard(stored.sequence)
        line.sequences.discard(stored.sequence)
        self._update(line)

    # Locks

    def _lock(
        self,
        stored: Stored,
        holder: Hashable,
        now: float,
        session: Session | None,
        *,
        token: uuid.UUID | None = None,
    ) -> None:
        until = now + self.settings.lock if session is None else session.until
        stored.lock = Lock(token or uuid.uuid4(), until, holder)
        self._locked[stored.lock.token] = stored
        if session is None:
            self._lock_ends.put(stored.sequence, until)
        else:
            self._line_of(stored).locked[stored.sequence] = stored

    def _unlock(self, stored: Stored) -> None:
        assert stored.lock is not None
        del self._locked[stored.lock.token]
        stored.lock = None
        self._lock_ends.discard(stored.sequence)
        if self._sessions is not None:
            self._line_of(stored).locked.pop(stored.sequence, None)

    def _locked_by(self, token: uuid.UUID, session: Session | None) -> Stored:
        if session is not None and session.lost:
            raise Refused(SESSION_LOCK_LOST, f"the lock of session '{session.id}' has expired or was lost")
        stored = self._locked.get(token)
        if stored is None or (session is not None and stored.session_id != session.id):
            raise Refused(
                LOCK_LOST,
                f"the lock {token} is not held: it has expired, or its message was settled or removed",
            )
        return stored

    def _lose(self, sessions: SessionLines, line: Line, now: float) -> None:
        session = line.session
        # An expired session lock counts as a delivery, a closed session does not:
        # https://learn.microsoft.com/azure/service-bus-messaging/message-sessions
        self._end_session(sessions, line, now, counted=True)
        if session is not None:
            for call in self.on_session_lost:
                call(session)

    def _end_session(self, sessions: SessionLines, line: Line, now: float, *, counted: bool) -> None:
        for stored in sessions.end(line):
            self._unlock(stored)
            if counted:
                self._failed(stored, now)
            else:
                self._give_back(stored, now)
        sessions.update(line)
        self._changed = True

    # Lines

    def _line_of(self, stored: Stored) -> Line:
        if self._sessions is None:
            return self._line
        assert stored.session_id is not None
        return self._sessions.line(stored.session_id)

    def _line_for(self, session: Session | None) -> Line:
        if self._sessions is None:
            return self._line
        if session is None:
            raise Refused(NOT_ALLOWED, f"the queue '{self.path}' has sessions; receive from one of them")
        return self._sessions.line_of(session)

    def _with_sessions(self) -> SessionLines:
        if self._sessions is None:
            raise Refused(NOT_ALLOWED, f"the queue '{self.path}' has no sessions")
        return self._sessions

    def _update(self, line: Line) -> None:
        if self._sessions is not None:
            self._sessions.update(line)

    def _announce(self) -> None:
        if self._changed:
            self._changed = False
            for call in self.on_change:
                call()
