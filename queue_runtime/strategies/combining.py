"""Strategies made of others: several together, the first that knows, one session for each hour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from queue_runtime.clock import Clock, SystemClock
from queue_runtime.strategies.base import Facts, Strategy

SEPARATOR = "|"
"""Stands between the parts of a composite id; in a part it is written with a backslash before it."""

PERIODS: Mapping[str, str] = {
    "hourly": "%Y-%m-%dT%H",
    "daily": "%Y-%m-%d",
    "weekly": "%G-W%V",
    "monthly": "%Y-%m",
}
"""How the time of a session is written, in UTC (weeks as ISO 8601 counts them)."""


@dataclass(frozen=True, slots=True, repr=False)
class Composite(Strategy):
    """All parts together; if one of them names nothing, so does the whole.

    Different parts never come to the same id: ``a|b`` is of two parts, ``a\\|b`` of one.
    """

    parts: tuple[Strategy, ...]

    def name(self, facts: Facts) -> str | None:
        names = []
        for part in self.parts:
            found = part.name(facts)
            if found is None:
                return None
            names.append(found.replace("\\", "\\\\").replace(SEPARATOR, f"\\{SEPARATOR}"))
        return SEPARATOR.join(names)

    def on(self, clock: Clock) -> Self:
        return replace(self, parts=tuple(part.on(clock) for part in self.parts))

    def __str__(self) -> str:
        return f"composite:{','.join(map(str, self.parts))}"


@dataclass(frozen=True, slots=True, repr=False)
class First(Strategy):
    """The first of several that names a session."""

    choices: tuple[Strategy, ...]

    def name(self, facts: Facts) -> str | None:
        names = (choice.name(facts) for choice in self.choices)
        return next((name for name in names if name is not None), None)

    def on(self, clock: Clock) -> Self:
        return replace(self, choices=tuple(choice.on(clock) for choice in self.choices))

    def __str__(self) -> str:
        return f"first:{'|'.join(map(str, self.choices))}"


@dataclass(frozen=True, slots=True, repr=False)
class ByTime(Strategy):
    """The sessions of another strategy, a new one in each hour, day, week or month: ``acme@2026-01-31T17``.

    Without another it is one session for all messages of that time. The time is that of the sending, by the
    clock of the client. Order ends where a session ends: the last of one hour and the first of the next may
    be handled at once.
    """

    base: Strategy | None
    period: str
    clock: Clock = field(default_factory=SystemClock, compare=False)

    def name(self, facts: Facts) -> str | None:
        time = self.clock.now().strftime(PERIODS[self.period])
        if self.base is None:
            return time
        found = self.base.name(facts)
        return None if found is None else f"{found}@{time}"

    def on(self, clock: Clock) -> Self:
        return replace(self, base=None if self.base is None else self.base.on(clock), clock=clock)

    def __str__(self) -> str:
        return self.period if self.base is None else f"{self.period}:{self.base}"
