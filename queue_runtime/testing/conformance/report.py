"""A pytest plugin: at the end of a run, the rows passed on each endpoint, and those that it gets wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest

COLUMNS = ("passed", "failed", "xfailed", "skipped")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    reasons: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for outcome, report in _reports(terminalreporter):
        endpoint = dict(report.user_properties).get("endpoint")
        if endpoint is None:
            continue
        counts[str(endpoint)][outcome] += 1
        if outcome == "xfailed":
            name = report.nodeid.rpartition("::")[2]
            reasons[str(endpoint)][f"{name}: {getattr(report, 'wasxfail', '')}"] += 1
    if not counts:
        return
    terminalreporter.section("conformance")
    for endpoint, count in counts.items():
        found = ", ".join(f"{count[column]} {_says(column)}" for column in COLUMNS if count[column])
        terminalreporter.line(f"{endpoint}: {found}")
        for reason in reasons[endpoint]:
            terminalreporter.line(f"    {reason}")


def _says(column: str) -> str:
    return {"xfailed": "wrong at the endpoint", "skipped": "beyond its capabilities"}.get(column, column)


def _reports(reporter: pytest.TerminalReporter) -> Iterator[tuple[str, pytest.TestReport]]:
    """Each row once, by its end; an error before or after a row is a failure of it."""
    for column, outcome in {**dict.fromkeys(COLUMNS), "error": None}.items():
        for report in reporter.stats.get(column, []):
            if isinstance(report, pytest.TestReport):
                yield outcome or ("failed" if column == "error" else column), report
