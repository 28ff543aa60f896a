"""A pytest plugin: several processes share the tests, each takes the next that nobody has taken yet.

``SHARED_RUN_DIRECTORY`` is the place of the claims and of the reports, one JSON line for each test.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
from pathlib import Path

import pytest

_DIRECTORY = Path(os.environ["SHARED_RUN_DIRECTORY"])
_SLEEP = re.compile(r"sleep\(([\d *+]+)\)")
_LONG = {"test_session_connection_failure_is_idempotent": 300}  # four times the 65 s that the service waits
_MINUTES = re.compile(r"timedelta\(minutes=(\d+)\)")  # of scheduled messages, which are waited for
_reports: dict[str, dict[str, object]] = {}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Longest first, so that the last ones to end are short."""
    items.sort(key=_sleeps, reverse=True)
    (_DIRECTORY / "collected").write_text("\n".join(item.nodeid for item in items))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    for item in session.items:
        claim = _DIRECTORY / f"claim-{hashlib.sha256(item.nodeid.encode()).hexdigest()}"
        try:
            claim.touch(exist_ok=False)
        except FileExistsError:
            continue  # somebody else's
        # What comes next is not known yet: everything is torn down after each.
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
    return True


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    entry = _reports.setdefault(
        report.nodeid, {"test": report.nodeid, "outcome": "passed", "seconds": 0.0, "text": ""}
    )
    entry["seconds"] = float(str(entry["seconds"])) + report.duration
    if report.outcome != "passed" and entry["outcome"] != "failed":
        entry["outcome"] = report.outcome
        entry["text"] = _why(report)
    if report.when == "teardown":
        with (_DIRECTORY / f"report-{os.getpid()}").open("a") as out:
            out.write(json.dumps(_reports.pop(report.nodeid)) + "\n")


def _why(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    return report.longreprtext


def _sleeps(item: pytest.Item) -> int:
    """Seconds that the test waits, as far as it says so."""
    function = inspect.unwrap(getattr(item, "obj"))  # noqa: B009  only functions have one
    cells = [cell.cell_contents for cell in function.__closure__ or () if callable(cell.cell_contents)]
    source = "".join(inspect.getsource(each) for each in [function, *cells])
    minutes = sum(int(found) for found in _MINUTES.findall(source))
    return sum(_product_sum(found) for found in _SLEEP.findall(source)) + 60 * minutes + _long(item)


def _long(item: pytest.Item) -> int:
    return _LONG.get(item.name.partition("[")[0], 0)


def _product_sum(text: str) -> int:
    total = 0
    for summand in text.split("+"):
        product = 1
        for factor in summand.split("*"):
            product *= int(factor)
        total += product
    return total
