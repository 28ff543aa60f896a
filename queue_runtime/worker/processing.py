"""The processing breaker: what a worker fetches while handlers fail for reasons beyond their messages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from queue_runtime.breaker import BreakerPolicy, CircuitBreaker

Change = Literal["paused", "paused again", "resumed"]


@dataclass(frozen=True, slots=True)
class Pause:
    """Instants are on the clock's monotonic scale."""

    why: str
    since: float
    retry_at: float
    """When the probe is tried next, or fetched if there is none."""


class ProcessingBreaker:
    """A state machine without a lock: its owner has one.

    While it is paused one message is the probe: the one whose failure paused it, for as long as it is in
    hand, else one that is fetched for that. Nothing else is fetched or begun. The probe's success ends the
    pause.
    """

    def __init__(self, policy: BreakerPolicy | None) -> None:
        self._policy = policy
        self._breaker = None if policy is None else CircuitBreaker(policy)
        self.pause: Pause | None = None
        self._probe: object | None = None
        self.fetching = False
        """A permit is out for the probe."""

    def may_fetch(self, now: float) -> float:
        """How many messages may be fetched: any number, one, or none."""
        if self.pause is None:
            return float("inf")
        return 0 if self._has_probe() or now < self.pause.retry_at else 1

    def changes_at(self) -> float | None:
        """When `may_fetch` changes by itself, on the monotonic scale; None if it does not."""
        return None if self.pause is None or self._has_probe() else self.pause.retry_at

    def fetches(self) -> bool:
        """Permits are taken; True if it is one, for the probe."""
        self.fetching = self.pause is not None
        return self.fetching

    def fetched(self) -> None:
        """The fetch for the probe has ended."""
        self.fetching = False

    def admits(self, holder: object) -> bool:
        """Whether *holder*, which was fetched, may begin; it is the probe then if one is looked for."""
        if self.pause is None:
            return True
        if self._probe is not None or not self.fetching:
            return False
        self._probe = holder
        return True

    def handled(
        self, holder: object, *, trouble: bool, why: str, started: float, now: float
    ) -> Change | None:
        """The handler, entered at *started*, has ended, in *trouble* or not; returns what that changes."""
        if self._policy is None or self._breaker is None:
            return None
        state = self._breaker.record(now, started=started, failed=trouble)
        if state == "open":
            before, retry_at = self.pause, now + self._policy.open_for
            self.pause = Pause(why, now if before is None else before.since, retry_at)
            if self._probe is None:
                self._probe = holder
            return "paused" if before is None else "paused again"
        if state == "closed":
            self.pause = self._probe = None
            return "resumed"
        return None

    def later(self, holder: object, now: float) -> bool:
        """*holder* is to be handled later. True if it was the probe: another is fetched, and not at once, for
        it may be all that there is."""
        if self.pause is None or self._policy is None or self._probe is not holder:
            return False
        self._probe = None
        self.pause = replace(self.pause, retry_at=now + self._policy.open_for)
        return True

    @property
    def has_probe_in_hand(self) -> bool:
        return self._probe is not None

    def is_probe(self, holder: object) -> bool:
        return self._probe is holder

    def ended(self, holder: object) -> None:
        """*holder* is no longer in hand; if it was the probe, another is fetched."""
        if self._probe is holder:
            self._probe = None

    def _has_probe(self) -> bool:
        return self._probe is not None or self.fetching
