"""The lease book as it should be: every lease, what may happen to it now, and what must have."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from queue_runtime.errors import ConnectionFailed, LeaseLost, Outcome, Throttled
from queue_runtime.events import Event, LostLease
from queue_runtime.leases import RETRY_AFTER, Held, renew_at
from queue_runtime.message import Lease
from queue_runtime.testing import FakeClock
from tests.fakes import REAL
from tests.lease_house import Broker

MODES = ["yes", "less", "throttled", "some lost", "lost", "down", "broken"]
"""What a lane's broker says to renewals."""


@dataclass(eq=False)
class Entry:
    """One lease, as the ledger knows it."""

    name: str
    lease: Lease
    lane: ScriptedLane
    whole_session: bool
    since: float
    """When it was first watched."""
    due: float
    state: str = "watched"
    """Or aside, forgotten, lost."""
    settling: int = 0
    failed_at: float | None = None
    """When a renewal last failed, if none has gone well since."""
    refused_at: float | None = None
    """When the broker has said that it is lost, and no settlement was under way."""
    excused: bool = False
    """It may end unrenewed: it was set aside, or its lane hung, since it was last renewed."""
    lost_elsewhere: bool = False

    def renewed(self, until: float, now: float) -> None:
        self.due = renew_at(until, min(self.lease.length, until - now))
        self.failed_at, self.excused = None, False

    def failed(self, now: float) -> None:
        if self.state == "watched":  # else nobody waits for the answer any more
            self.failed_at = now

    def may_be_renewed(self, now: float, max_lease: float) -> bool:
        return now - self.since + self.lease.length <= max_lease


class ScriptedLane(Broker):
    """A lane whose broker answers by its mode, and notes each answer in the ledger."""

    def __init__(self, key: str, ledger: Ledger) -> None:
        super().__init__(key, ledger.clock)
        self.ledger = ledger
        self.mode = "yes"
        self.busy = threading.Lock()
        self.reached = threading.Event()
        self.goes_on = threading.Event()
        self.goes_on.set()

    def renew(self, held: Sequence[Held]) -> Sequence[Outcome[float]]:
        ledger, now = self.ledger, self._clock.monotonic()
        if not self.busy.acquire(blocking=False):
            ledger.wrong.append(f"two calls of {self.key} at once")
            return []
        try:
            entries = [ledger.by_lease[one.lease] for one in held]
            self.calls.append((now, [entry.name for entry in entries]))
            for entry in entries:
                ledger.is_asked_for(entry, now)
            self.reached.set()
            assert self.goes_on.wait(REAL), "the hanging call was forgotten"
            return [self._answer(entry, self._clock.monotonic()) for entry in self._all(entries)]
        finally:
            self.busy.release()

    def _all(self, entries: list[Entry]) -> list[Entry]:
        if self.mode in ("down", "broken"):
            for entry in entries:
                entry.failed(self._clock.monotonic())
            raise ConnectionFailed("scripted") if self.mode == "down" else ValueError("scripted")
        return entries

    def _answer(self, entry: Entry, now: float) -> Outcome[float]:
        if self.mode in ("yes", "less") or (self.mode == "some lost" and int(entry.name) % 2):
            until = now + entry.lease.length / (2 if self.mode == "less" else 1)
            if entry.state == "watched" and not entry.lease.lost:
                entry.renewed(until, now)
            return Outcome(until)
        if self.mode == "throttled":
            entry.failed(now)
            return Outcome(error=Throttled("scripted"))
        entry.failed(now)
        if entry.state == "watched" and not entry.settling and entry.refused_at is None:
            entry.refused_at = now
        return Outcome(error=LeaseLost("scripted"))


class Told(list[Event]):
    """What the listeners hear, held against the ledger at that moment."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def append(self, event: Event) -> None:
        super().append(event)
        if isinstance(event, LostLease):
            name = event.message_id or event.session_id or ""
            self.ledger.is_told_lost(self.ledger.by_name[name])


@dataclass
class Ledger:
    """All leases, and what has happened that should not have."""

    clock: FakeClock
    max_lease: float
    by_lease: dict[Lease, Entry] = field(default_factory=dict)
    by_name: dict[str, Entry] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def entries(self, *states: str) -> list[Entry]:
        return [entry for entry in self.by_name.values() if entry.state in states]

    def is_asked_for(self, entry: Entry, now: float) -> None:
        """A renewal of *entry* leaves for the broker."""
        length = entry.lease.length
        if entry.state != "watched":
            self.wrong.append(f"{entry.name} is renewed, and is {entry.state}")
        if entry.lease.lost:
            self.wrong.append(f"{entry.name} is renewed, and is lost")
        if now < entry.due - length / 10 - 0.25:
            self.wrong.append(f"{entry.name} is renewed {entry.due - now:g} s early")
        if entry.failed_at is not None and now < entry.failed_at + RETRY_AFTER:
            self.wrong.append(f"{entry.name} is tried again after {now - entry.failed_at:g} s")
        if not entry.may_be_renewed(now, self.max_lease):
            self.wrong.append(f"{entry.name} is held for too long: since {now - entry.since:g} s")

    def is_told_lost(self, entry: Entry) -> None:
        now = self.clock.monotonic()
        if entry.state != "watched":
            self.wrong.append(f"{entry.name} is told lost, and is {entry.state}")
        if not entry.lease.lost:
            self.wrong.append(f"{entry.name} is told lost, and is not")
        ended = now >= entry.lease.deadline and (
            entry.failed_at is not None or entry.excused or not entry.may_be_renewed(now, self.max_lease)
        )
        if not (ended or entry.refused_at == now or entry.lost_elsewhere):
            self.wrong.append(
                f"{entry.name} is told lost for no reason, or late: refused at {entry.refused_at}"
            )
        entry.state = "lost"

    def untold(self) -> list[str]:
        """Those that are lost, and nobody was told."""
        now = self.clock.monotonic()
        return [
            entry.name
            for entry in self.entries("watched")
            if entry.refused_at is not None or now >= entry.lease.deadline
        ]

    def overdue(self) -> list[str]:
        """Those that should have been renewed by now."""
        now = self.clock.monotonic()
        return [
            entry.name
            for entry in self.entries("watched")
            if entry.due <= now
            and (entry.failed_at is None or now >= entry.failed_at + RETRY_AFTER)
            and entry.may_be_renewed(now, self.max_lease)
            and not entry.lost_elsewhere
        ]
