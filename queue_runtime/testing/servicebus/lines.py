"""Keeps messages in the order they are handed out in: one line for a plain queue, one for each session."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator

from queue_runtime.testing.servicebus.ordered import Ascending, Ranked
from queue_runtime.testing.servicebus.stored import (
    SESSION_LOCK_LOST,
    SESSION_TAKEN,
    Refused,
    Session,
    Stored,
)


class Line:
    """One order of messages. What is locked or deferred is not *ready*, but still in *sequences*."""

    def __init__(self, session_id: str | None = None) -> None:
        self.session_id = session_id
        self.ready: Ranked[int] = Ranked()
        self.sequences = Ascending()
        self.locked: dict[int, Stored] = {}
        # Only a session's line has these.
        self.session: Session | None = None
        self.state: bytes | None = None
        self.state_set_at: float | None = None

    @property
    def listed(self) -> bool:
        """Whether the service counts it among the sessions: active messages, or a state that was set."""
        active = any(each.state == "active" for each in self.locked.values())
        return bool(self.ready) or active or self.state is not None

    @property
    def forgotten(self) -> bool:
        return not len(self.sequences) and self.session is None and self.state is None


class SessionLines:
    """The lines of a queue with sessions, and who holds which.

    The next free session is the one that has been free, with messages ready, for the longest time: first
    among the sessions that wait is thus the one held least recently, and no newcomer passes it.
    """

    def __init__(self, lock: float) -> None:
        self._lock = lock
        self._lines: dict[str, Line] = {}
        self._free: OrderedDict[str, None] = OrderedDict()
        self.lock_ends: Ranked[str] = Ranked()

    def line(self, session_id: str) -> Line:
        """Return the line of the session, which comes into being by being asked for."""
        return self._lines.get(session_id) or self._lines.setdefault(session_id, Line(session_id))

    def known(self, session_id: str) -> Line | None:
        return self._lines.get(session_id)

    def update(self, line: Line) -> None:
        """Take notice of what became of *line*: it may be free now, or free no more, or over."""
        assert line.session_id is not None
        if line.session is None and line.ready:
            self._free.setdefault(line.session_id)
            return
        self._free.pop(line.session_id, None)
        if line.forgotten:
            self._lines.pop(line.session_id, None)

    def accept(self, session_id: str | None, holder: Hashable, now: float) -> Session | None:
        if session_id is None:
            if not self._free:
                return None
            session_id = next(iter(self._free))
        line = self.line(session_id)
        if line.session is not None:
            raise Refused(SESSION_TAKEN, f"the session '{session_id}' is locked by another receiver")
        line.session = Session(session_id, holder, now + self._lock)
        self.lock_ends.put(session_id, line.session.until)
        self.update(line)
        return line.session

    def renew(self, session: Session, now: float) -> float:
        session.until = now + self._lock
        self.lock_ends.put(session.id, session.until)
        return session.until

    def held(self, session_id: str, holder: Hashable) -> Session:
        """Return the session if it is *holder* that holds it; else raise `Refused`."""
        line = self._lines.get(session_id)
        if line is None or line.session is None or line.session.holder != holder:
            raise Refused(SESSION_LOCK_LOST, f"the lock of session '{session_id}' is not held any more")
        return line.session

    def line_of(self, session: Session) -> Line:
        """Return the line of a session that is still held; else raise `Refused`."""
        line = self._lines.get(session.id)
        if line is None or line.session is not session:
            raise Refused(SESSION_LOCK_LOST, f"the lock of session '{session.id}' has expired or was lost")
        return line

    def end(self, line: Line) -> list[Stored]:
        """End the lock of the session; return what its holder had, still locked."""
        session, line.session = line.session, None
        if session is not None:
            session.lost = True
            self.lock_ends.discard(session.id)
        return list(line.locked.values())

    def ids(self, updated_after: float | None) -> Iterator[str]:
        for session_id, line in self._lines.items():
            if updated_after is None:
                if line.listed:
                    yield session_id
            elif line.state_set_at is not None and line.state_set_at > updated_after:
                yield session_id
