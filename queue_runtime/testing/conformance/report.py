"""A pytest plugin: at the end of a run, the rows passed on each endpoint, and what each provider can do.

    pytest_plugins = ["queue_runtime.testing.conformance.report"]     # in conftest.py

``--conformance-table=PAGE.md`` writes what the queues of all endpoints can do into that page, between two
comments of its own; everything else in the page stays, and a page that is not there is made. A run in which a
row failed writes nothing. It works with and without pytest-xdist.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from queue_runtime.testing.conformance import table

COLUMNS = ("passed", "failed", "xfailed", "skipped")

OPTION = "--conformance-table"

# What was told of an endpoint's queues and not yet handed on with the report of a test.
TOLD = pytest.StashKey[list[table.Told]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("conformance").addoption(
        OPTION,
        metavar="PAGE",
        default=None,
        help="write what the queues of all endpoints can do into this Markdown page",
    )


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    """A new harness is asked before its first row."""
    made = yield
    if fixturedef.argname == "harness" and request.config.getoption(OPTION):
        request.config.stash.setdefault(TOLD, []).extend(table.told(made))
    return made


@pytest.hookimpl(trylast=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Reports travel from the workers of pytest-xdist, and what was told travels with them."""
    told = item.config.stash.get(TOLD, [])
    item.user_properties += [("capabilities", (one.column, one.answers)) for one in told]
    told.clear()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    reasons: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for outcome, report in _rows(terminalreporter):
        endpoint = str(dict(report.user_properties)["endpoint"])
        counts[endpoint][outcome] += 1
        if outcome == "xfailed":
            name = report.nodeid.rpartition("::")[2]
            reasons[endpoint][f"wrong at the endpoint: {name}: {getattr(report, 'wasxfail', '')}"] += 1
        elif outcome == "skipped" and isinstance(report.longrepr, tuple):
            reasons[endpoint][f"skipped: {report.longrepr[2].removeprefix('Skipped: ')}"] += 1
    if not counts:
        return
    terminalreporter.section("conformance")
    for endpoint, count in sorted(counts.items()):
        found = ", ".join(f"{count[column]} {_says(column)}" for column in COLUMNS if count[column])
        terminalreporter.line(f"{endpoint}: {found}")
        for reason, times in reasons[endpoint].most_common():
            terminalreporter.line(f"    {times} {reason}")
    page = terminalreporter.config.getoption(OPTION)
    if page:
        terminalreporter.line(_write(Path(page), terminalreporter))


def _says(column: str) -> str:
    return {"xfailed": "wrong at the endpoint"}.get(column, column)


def _write(page: Path, reporter: pytest.TerminalReporter) -> str:
    """Write the table, or say why not."""
    if any(outcome == "failed" for outcome, _ in _rows(reporter)):
        return f"{page} stays as it is: rows failed"
    reports = [each for column in reporter.stats.values() for each in column]
    told = {
        table.Told(*value)  # type: ignore[misc]  # it is what was put there
        for report in reports
        if isinstance(report, pytest.TestReport)
        for name, value in report.user_properties
        if name == "capabilities"
    }
    table.write(page, told)
    return f"{page}: what queues can do was written"


def _rows(reporter: pytest.TerminalReporter) -> Iterator[tuple[str, pytest.TestReport]]:
    """Each row once, by its end; an error before or after a row is a failure of it."""
    for column, outcome in {**dict.fromkeys(COLUMNS), "error": None}.items():
        for report in reporter.stats.get(column, []):
            if isinstance(report, pytest.TestReport) and "endpoint" in dict(report.user_properties):
                yield outcome or ("failed" if column == "error" else column), report
