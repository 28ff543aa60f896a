"""Holds what became of Microsoft's tests against what was expected of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_COLUMNS = ("passed", "failed", "skipped", "excluded")
_LONGEST = 3


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A test that is not expected to pass. *kind* is ``fails`` or ``unrun``."""

    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """How one test went: passed, failed or skipped, with what it said."""

    test: str
    outcome: str
    seconds: float
    text: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of the whole run: what is not as expected (nothing, if all is well), and the counts of each file."""

    wrong: Sequence[str]
    counts: Mapping[str, Counter[str]]
    reports: Sequence[Report]

    def text(self, files: Sequence[str]) -> str:
        """For people: what is wrong, why tests were skipped, a table."""
        lines = [f"{each}\n" for each in self.wrong]
        skips = Counter(report.text for report in self.reports if report.outcome == "skipped")
        lines += [f"skipped {count}: {why.removeprefix('Skipped: ')}" for why, count in skips.most_common()]
        longest = sorted(self.reports, key=lambda report: report.seconds, reverse=True)[:_LONGEST]
        lines += [f"{report.seconds:.0f} s in {report.test.rpartition('::')[2]}" for report in longest]
        lines.append(f"{'file':<24}" + "".join(f"{column:>10}" for column in _COLUMNS))
        for file in files:
            counts = self.counts.get(file, Counter())
            lines.append(f"{file:<24}" + "".join(f"{counts[column]:>10}" for column in _COLUMNS))
        return "\n".join(lines)


def read_exclusions(path: Path) -> dict[str, Exclusion]:
    """Read ``KIND TEST REASON``, one a line."""
    found = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            kind, test, reason = line.split(maxsplit=2)
            if kind not in ("fails", "unrun"):
                raise SystemExit(f"{path}: the kind is 'fails' or 'unrun', not {kind!r}")
            found[test] = Exclusion(kind, reason)
    return found


def collected(place: Path) -> list[str]:
    """Return the ids of the tests that were to be run."""
    path = place / "collected"
    if not path.exists():
        raise SystemExit("nothing was collected:\n" + (place / "log-0").read_text()[-4000:])
    return path.read_text().splitlines()


def reports(place: Path) -> dict[str, Report]:
    """Return how the tests went that are over, by their ids."""
    lines = [line for path in place.glob("report-*") for line in path.read_text().splitlines()]
    return {report.test: report for report in (Report(**json.loads(line)) for line in lines)}


def judge(
    collected: Sequence[str],
    reports: Mapping[str, Report],
    exclusions: Mapping[str, Exclusion],
    *,
    part: bool,
) -> Outcome:
    """Compare; *part* says that not all tests were to be run, so that some exclusions may find none."""
    wrong = []
    counts: dict[str, Counter[str]] = {}
    for test in collected:
        how, complaint = _judge_one(test, reports.get(test), exclusions.get(test))
        counts.setdefault(_file(test), Counter())[how] += 1
        if complaint is not None:
            wrong.append(complaint)
    for test, exclusion in exclusions.items():
        if exclusion.kind == "unrun":
            counts.setdefault(_file(test), Counter())["excluded"] += 1
        elif test not in collected and not part:
            wrong.append(f"{test}: in exclusions.txt, but there is no such test")
    return Outcome(wrong, counts, list(reports.values()))


def _judge_one(test: str, report: Report | None, exclusion: Exclusion | None) -> tuple[str, str | None]:
    """Return the column that it counts in, and what is wrong with it."""
    if report is None:
        return "failed", f"{test}: was not over in time"
    if report.outcome != "failed":
        if exclusion is None:
            return report.outcome, None
        return (
            report.outcome,
            f"{test}: {report.outcome}, but exclusions.txt says that it fails; remove the line",
        )
    if exclusion is None:
        return "failed", f"{test} failed:\n{report.text}"
    return "excluded", None


def _file(test: str) -> str:
    return test.partition("::")[0]
