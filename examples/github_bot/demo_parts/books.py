"""What the journal has told so far, as facts that can be counted and checked."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from demo_parts.checker import History, Posted, Run
from demo_parts.journal import Reader, Record
from demo_parts.plan import Delivery
from demo_parts.post import TAKEN


class Books:
    """Kept by one thread; `read` brings them up to date."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.answers: dict[str, int] = {}
        """Delivery -> the app's last answer."""
        self.posts = 0
        self.since: dict[str, float] = {}
        """Delivery -> when the post that was taken first began, on the wall clock."""
        self.handled_at: dict[str, float] = {}
        """Delivery -> when it was first done, on the wall clock."""
        self.settled: defaultdict[int, set[str]] = defaultdict(set)
        """Life of the bot -> what it has completed or dead-lettered, confirmed by the broker."""
        self.retried_in_place = 0
        self.calls: Counter[str] = Counter()
        """Operation -> requests to the broker by the app and by the bot's first life."""
        self.up: set[int] = set()
        """Lives of the bot that have had an answer of the broker."""
        self.reports: list[Mapping[str, Any]] = []
        """How the bot stopped, one for each life."""
        self.warnings: list[str] = []
        self.last_trouble = "none"
        """What the worker last told of a broker that could not be asked."""
        self._runs: dict[tuple[int, int], Run] = {}
        self._excused: set[str] = set()

    def read(self) -> None:
        for record in self._reader.new():
            if take := _TAKE.get(record["kind"]):
                take(self, record)

    @property
    def runs(self) -> Sequence[Run]:
        return list(self._runs.values())

    def taken(self) -> set[str]:
        """Deliveries that the app has said it has queued."""
        return set(self.since)

    def outstanding(self) -> set[str]:
        """What was taken and not settled, in the bot's first life."""
        return self.taken() - self.settled[0]

    def history(self, plan: Sequence[Delivery], dead: Mapping[str, str], left: frozenset[str]) -> History:
        """All of it, for the checker. *dead* and *left*: the dead letters before the fix, and at the end."""
        genuine = [each for each in plan if each.forgery is None]
        return History(
            posted=[Posted(each.id, each.session, each.fate) for each in genuine if each.id in self.since],
            runs=self.runs,
            dead=dead,
            left=left,
            refused=frozenset(each.id for each in plan if each.forgery is not None),
            untaken={each.id: self.answers.get(each.id, 0) for each in genuine if each.id not in self.since},
            excused=frozenset(self._excused),
            stops=self.reports,
        )

    # One for each kind of record.

    def _posted(self, record: Record) -> None:
        self.posts += 1
        self.answers[record["delivery"]] = record["status"]
        if record["status"] == TAKEN:
            self.since.setdefault(record["delivery"], record["since"])

    def _started(self, record: Record) -> None:
        self._runs[record["life"], record["run"]] = Run(
            delivery=record["delivery"],
            session=record["session"],
            attempt=record["attempt"],
            started=record["clock"],
            ended=None,
            done=False,
            life=record["life"],
        )

    def _ended(self, record: Record) -> None:
        key = record["life"], record["run"]
        done = record["error"] is None
        self._runs[key] = replace(self._runs[key], ended=record["clock"], done=done)
        if done:
            self.handled_at.setdefault(record["delivery"], record["at"])

    def _was_settled(self, record: Record) -> None:
        self.settled[record["life"]].add(record["message_id"])

    def _failed(self, record: Record) -> None:
        self.retried_in_place += record["delay"] is not None and record["session_id"] is not None

    def _called(self, record: Record) -> None:
        if record["error"] is None and "life" in record:
            self.up.add(record["life"])
        if record.get("life", 0) == 0 and not self.reports:
            self.calls[record["operation"]] += 1

    def _not_settled(self, record: Record) -> None:
        self._excused.add(record["message_id"])

    def _lost(self, record: Record) -> None:
        """Of a lost session, what was started and not settled may come again."""
        if record["message_id"] is not None:
            self._excused.add(record["message_id"])
            return
        started = {run.delivery for run in self._runs.values() if run.session == record["session_id"]}
        self._excused |= started - self.settled[record["life"]]

    def _warned(self, record: Record) -> None:
        self.warnings.append(record["text"])

    def _in_trouble(self, record: Record) -> None:
        self.last_trouble = record["error"]

    def _stopped(self, record: Record) -> None:
        self.reports.append(record["report"])


_TAKE: Mapping[str, Callable[[Books, Record], None]] = {
    "posted": Books._posted,
    "started": Books._started,
    "ended": Books._ended,
    "MessageCompleted": Books._was_settled,
    "MessageDeadLettered": Books._was_settled,
    "HandlerFailed": Books._failed,
    "ProviderCalled": Books._called,
    "SettlementFailed": Books._not_settled,
    "LostLease": Books._lost,
    "FetchFailed": Books._in_trouble,
    "WorkerWarned": Books._warned,
    "stopped": Books._stopped,
}
"""What is taken from each kind of record; the other kinds are for whoever reads the file."""
