"""What a run of the demo came to, as named figures, and whether several runs came to the same."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from demo_parts.books import Books
from demo_parts.checker import Broken, History, excused_repeats

ABSENT = "-"
"""What stands for a figure that a run does not have."""


@dataclass(frozen=True, slots=True)
class Result:
    """All that the figures are made of."""

    books: Books
    history: History
    broken: Sequence[Broken]
    replayed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the closing table; `part` belongs to the figure before it.

    `same`: the same deliveries must come to the same on every broker. What takes time, or may be repeated,
    may differ.
    """

    name: str
    text: str
    same: bool = True
    part: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A figure of several runs, one text for each run."""

    name: str
    texts: Sequence[str]
    same: bool
    part: bool

    @property
    def differs(self) -> bool:
        """Differs where it must not."""
        return self.same and len(set(self.texts)) > 1


def figures(result: Result) -> list[Figure]:
    """What must be the same comes first."""
    return [*_same(result), *_may_differ(result)]


def rows(runs: Sequence[Sequence[Figure]]) -> list[Row]:
    """The figures of all *runs* side by side, in their order; `ABSENT` where a run has none of that name."""
    known: dict[str, Figure] = {}
    order: list[str] = []
    for run in runs:
        place = 0
        for figure in run:
            if figure.name in known:
                place = order.index(figure.name) + 1
            else:
                known[figure.name] = figure
                order.insert(place, figure.name)
                place += 1
    texts = [{figure.name: figure.text for figure in run} for run in runs]
    return [
        Row(name, [each.get(name, ABSENT) for each in texts], known[name].same, known[name].part)
        for name in order
    ]


def differences(names: Sequence[str], compared: Sequence[Row]) -> list[str]:
    """A sentence for each row that differs where it must not; *names* are those of the runs."""
    return [
        f"{row.name}: " + ", ".join(f"{text} on {name}" for name, text in zip(names, row.texts, strict=True))
        for row in compared
        if row.differs
    ]


def _same(result: Result) -> Iterator[Figure]:
    books, history = result.books, result.history
    broken = Counter(each.promise for each in result.broken)
    sizes = Counter(each.session for each in history.posted)
    outside = sizes.pop(None, 0)
    yield Figure("webhooks received", f"{len(history.posted)}")
    yield Figure("forged ones refused", f"{len(history.refused & books.answers.keys())}")
    yield Figure("handled", f"{len(books.handled_at)}")
    yield Figure("sessions", f"{len(sizes)}")
    yield Figure("messages in the longest", f"{max(sizes.values(), default=0)}", part=True)
    yield Figure("with several, in order", _in_order(history, result.broken), part=True)
    yield Figure("outside sessions", f"{outside}")
    yield Figure("retried in place", f"{books.retried_in_place}")
    yield Figure("dead-lettered", f"{len(history.dead)}")
    for reason, number in sorted(Counter(history.dead.values()).items()):
        yield Figure(reason, f"{number}", part=True)
    yield Figure("replayed after the fix", f"{result.replayed}")
    yield Figure("left where it belongs", f"{len(history.left)}", part=True)
    yield Figure("lost", f"{broken['lost'] + broken['not taken'] + broken['not replayed']}")
    yield Figure("two at once", f"{broken['two at once']}")


def _may_differ(result: Result) -> Iterator[Figure]:
    books, history = result.books, result.history
    duplicates = Counter(each.promise for each in result.broken)["duplicate"]
    yield Figure("duplicates", f"{duplicates}", same=False)
    yield Figure("more, with a known cause", f"{len(excused_repeats(history))}", same=False, part=True)
    yield Figure("posted again", f"{books.posts - len(books.answers)}", same=False)
    yield from _latency(books, history)
    yield from _requests(books.calls, len(history.posted))
    yield Figure("duration", f"{result.seconds:.1f} s", same=False)


def _in_order(history: History, broken: Sequence[Broken]) -> str:
    """A message alone in its session has no order."""
    sessions = {each.delivery: each.session for each in history.posted}
    sizes = Counter(session for session in sessions.values() if session is not None)
    wrong = {sessions.get(each.delivery) for each in broken if each.promise == "out of order"}
    several = {session for session, size in sizes.items() if size > 1}
    return f"{len(several - wrong)} of {len(several)}"


def _latency(books: Books, history: History) -> Iterator[Figure]:
    """Of what was handled without being a dead letter first."""
    spans = [
        at - books.since[delivery]
        for delivery, at in books.handled_at.items()
        if delivery in books.since and delivery not in history.dead
    ]
    cuts = statistics.quantiles(spans, n=20) if len(spans) > 1 else None
    for name, place, part in (("webhook to handled, p50", 9, False), ("p95", 18, True)):
        text = ABSENT if cuts is None else f"{cuts[place] * 1000:.0f} ms"
        yield Figure(name, text, same=False, part=part)


def _requests(calls: Mapping[str, int], messages: int) -> Iterator[Figure]:
    """Calls to the provider, each a request to the broker as a rule, in all and by operation."""
    shares = {operation: number / max(1, messages) for operation, number in calls.items()}
    yield Figure("requests per message", f"{sum(shares.values()):.2f}", same=False)
    for operation, share in sorted(shares.items()):
        if share >= 0.005:
            yield Figure(operation, f"{share:.2f}", same=False, part=True)
