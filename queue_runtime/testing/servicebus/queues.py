"""A queue as Service Bus keeps it: pure, in memory, and told the time (Unix seconds) with each call."""

from __future__ import annotations

import uuid
from collections.abc import Hashable, Mapping, Sequence
from itertools import islice
from typing import Any

from queue_runtime.testing.servicebus.ordered import Ranked
from queue_runtime.testing.servicebus.places import Places
from queue_runtime.testing.servicebus.stored import (
    NOT_ALLOWED,
    NOT_FOUND,
    Incoming,
    Lock,
    Outcome,
    QueueSettings,
    Refused,
    Session,
    Stored,
)

__all__ = ["DEAD_LETTER_SUFFIX", "Incoming", "Queue", "QueueSettings", "Refused", "Session", "Stored"]

DEAD_LETTER_SUFFIX = "/$DeadLetterQueue"


class Queue(Places):
    """One queue and, but for a dead-letter queue itself, its *dead_letters*.

    Every call first does what has fallen due: locks and lives that ended, messages whose time has come.
    `on_change` is called when something may have become deliverable, `on_session_lost` when a session's
    lock ended without its holder's doing; neither may call back into the queue before the call at hand
    has returned. Not for several threads at once.
    """

    # Sending

    def send(self, incoming: Sequence[Incoming], now: float) -> list[int]:
        """Take all of *incoming* or raise `Refused`; return their sequence numbers.

        Those with a *scheduled_at* to come are scheduled. A duplicate is agreed to and dropped; the
        sequence number of the original stands in its place.
        """
        self._catch_up(now)
        if self._sessions is not None and any(each.session_id is None for each in incoming):
            raise Refused(NOT_ALLOWED, f"the queue '{self.path}' has sessions; a message needs a session id")
        sequences = [self._take_in(each, now) for each in incoming]
        self._announce()
        return sequences

    def schedule(self, incoming: Sequence[Incoming], now: float) -> list[int]:
        """As `send`. The sequence numbers are good for `cancel` until the messages are due."""
        return self.send(incoming, now)

    def cancel(self, sequences: Sequence[int], now: float) -> None:
        """Remove scheduled messages; raise `Refused`, and remove none, if one is not scheduled any more."""
        self._catch_up(now)
        for sequence in sequences:
            if sequence not in self._scheduled:
                raise Refused(NOT_FOUND, f"no scheduled message has the sequence number {sequence}")
        for sequence in sequences:
            if sequence in self._messages:
                self._remove(self._messages[sequence])

    # Receiving

    def take(
        self, now: float, *, holder: Hashable, session: Session | None = None, delete: bool = False
    ) -> Stored | None:
        """Lock the next message that is ready, or remove it (*delete*); None if there is none.

        A queue with sessions gives only to the holder of a *session*, and only that session's messages.
        """
        self._catch_up(now)
        line = self._line_for(session)
        sequence = line.ready.pop()
        if sequence is None:
            return None
        stored = self._messages[sequence]
        if delete:
            self._remove(stored)
        else:
            self._lock(stored, holder, now, session)
        return stored

    def receive_deferred(
        self,
        sequences: Sequence[int],
        *,
        delete: bool,
        session_id: str | None,
        holder: Hashable,
        now: float,
    ) -> list[Stored]:
        """Lock deferred messages, or remove them; all, or none and `Refused`."""
        self._catch_up(now)
        session = None if session_id is None else self._with_sessions().held(session_id, holder)
        found = []
        for sequence in dict.fromkeys(sequences):
            stored = self._messages.get(sequence)
            if (
                stored is None
                or sequence not in self._deferred
                or (self._sessions is not None and stored.session_id != session_id)
            ):
                raise Refused(NOT_FOUND, f"no deferred message has the sequence number {sequence}")
            found.append(stored)
        for stored in found:
            if delete:
                self._remove(stored)
            else:
                self._deferred.discard(stored.sequence)
                self._lock(stored, holder, now, session)
        return found

    def peek(
        self, from_sequence: int, count: int, *, session_id: str | None = None, now: float
    ) -> list[Stored]:
        """Return up to *count* messages from that sequence number on, in whatever state they are."""
        self._catch_up(now)
        sequences = self._sequences
        if session_id is not None and self._sessions is not None:
            line = self._sessions.known(session_id)
            if line is None:
                return []
            sequences = line.sequences
        return [self._messages[each] for each in islice(sequences.at_least(from_sequence), count)]

    # Settling

    def settle(
        self,
        token: uuid.UUID,
        outcome: Outcome,
        now: float,
        *,
        session: Session | None = None,
        properties: Mapping[Any, Any] | None = None,
        reason: str | None = None,
        description: str | None = None,
    ) -> None:
        """End the lock *token* with *outcome*; raise `Refused` if it is not held any more.

        Abandoning counts a delivery that failed, releasing does not. *properties* are put over the
        message's own where it stays.
        """
        self._catch_up(now)
        stored = self._locked_by(token, session)
        if outcome == "dead-lettered" and self.dead_letters is None:
            raise Refused(NOT_ALLOWED, f"'{self.path}' is a dead-letter queue; it has none of its own")
        self._unlock(stored)
        if outcome != "completed":
            stored.properties.update(properties or {})
        if outcome == "completed":
            self._remove(stored)
        elif outcome == "dead-lettered":
            self._bury(stored, reason, description, now)
        elif outcome == "deferred":
            stored.state = "deferred"
            self._give_back(stored, now)
        elif outcome == "abandoned":
            self._failed(stored, now)
        else:
            self._give_back(stored, now)
        self._announce()

    def renew(self, tokens: Sequence[uuid.UUID], now: float) -> list[float]:
        """Renew locks, all or none; return until when each is held.

        In a session the session's lock is renewed, not its messages'.
        """
        self._catch_up(now)
        if self._sessions is not None:
            raise Refused(NOT_ALLOWED, "messages of a session are under the session's lock; renew that")
        stored = [self._locked_by(token, None) for token in tokens]
        for each in stored:
            assert each.lock is not None
            self._lock(each, each.lock.holder, now, None, token=each.lock.token)
        return [now + self.settings.lock for _ in tokens]

    # Sessions

    def accept(self, session_id: str | None, holder: Hashable, now: float) -> Session | None:
        """Give *holder* that session, or the next free one that has messages: None where there is none.

        Raises `Refused` if somebody holds it, or if the queue has no sessions.
        """
        self._catch_up(now)
        return self._with_sessions().accept(session_id, holder, now)

    def renew_session(self, session_id: str, holder: Hashable, now: float) -> float:
        """Renew the lock of the session and of what was taken from it; return until when it is held."""
        self._catch_up(now)
        sessions = self._with_sessions()
        session = sessions.held(session_id, holder)
        until = sessions.renew(session, now)
        for stored in sessions.line_of(session).locked.values():
            assert stored.lock is not None
            stored.lock = Lock(stored.lock.token, until, stored.lock.holder)
        return until

    def release_session(self, session: Session, now: float) -> None:
        """End the lock. What its holder had comes again, uncounted. Without effect on a lock that is lost."""
        self._catch_up(now)
        sessions = self._with_sessions()
        if not session.lost:
            self._end_session(sessions, sessions.line_of(session), now, counted=False)
        self._announce()

    def lose_session(self, session_id: str, now: float) -> bool:
        """Take the lock from its holder as if its time had ended; whether somebody held it."""
        self._catch_up(now)
        sessions = self._with_sessions()
        line = sessions.known(session_id)
        if line is None or line.session is None:
            return False
        self._lose(sessions, line, now)
        self._announce()
        return True

    def held_session(self, session_id: str, holder: Hashable, now: float) -> Session:
        """Return the session that *holder* holds; raise `Refused` if it does not."""
        self._catch_up(now)
        return self._with_sessions().held(session_id, holder)

    def get_state(self, session_id: str, holder: Hashable, now: float) -> bytes | None:
        """Return the session's state, None where none was set; only for its holder."""
        self._catch_up(now)
        sessions = self._with_sessions()
        return sessions.line_of(sessions.held(session_id, holder)).state

    def set_state(self, session_id: str, state: bytes | None, holder: Hashable, now: float) -> None:
        """Keep *state* with the session until it is set anew, None to forget it; only for its holder."""
        self._catch_up(now)
        sessions = self._with_sessions()
        line = sessions.line_of(sessions.held(session_id, holder))
        line.state = state
        line.state_set_at = None if state is None else now

    def session_ids(self, updated_after: float | None, skip: int, top: int) -> list[str]:
        """Return the sessions with active messages or a state; or those whose state was set after that.

        In the order of their ids, so that pages fit together while sessions come and go.
        """
        return sorted(self._with_sessions().ids(updated_after))[skip : skip + top]

    # Time

    def tick(self, now: float) -> float | None:
        """Do what has fallen due; return when there is more to do (Unix seconds), None: nothing in sight."""
        self._catch_up(now)
        calendars: list[Ranked[Any]] = [self._scheduled, self._lock_ends, self._expiries]
        if self._sessions is not None:
            calendars.append(self._sessions.lock_ends)
        times = [found[1] for each in calendars if (found := each.first()) is not None]
        if self.dead_letters is not None and (due := self.dead_letters.tick(now)) is not None:
            times.append(due)
        return min(times, default=None)

    def stats(self) -> dict[str, int]:
        """Count the messages; *dead* are those in its dead-letter queue."""
        aside = len(self._locked) + len(self._deferred) + len(self._scheduled)
        return {
            "active": len(self._messages) - aside,
            "locked": len(self._locked),
            "deferred": len(self._deferred),
            "scheduled": len(self._scheduled),
            "dead": len(self.dead_letters._messages) if self.dead_letters is not None else 0,
        }
