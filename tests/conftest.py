"""What all tests share: the summary of the rows, hypothesis, and the end of a failed test."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pytest
from hypothesis import settings

from queue_runtime.testing import FakeClock

pytest_plugins = ["queue_runtime.testing.conformance.report"]

# A slow example on a busy machine is no finding; pytest's own timeout bounds each test.
settings.register_profile("unhurried", parent=settings(), deadline=None)
settings.load_profile("unhurried")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where a test has failed, nobody moves its clock any more, and what closes now would wait for ever."""
    report = yield
    if report.when == "call" and report.failed:
        for clock in getattr(item, "funcargs", {}).values():
            if isinstance(clock, FakeClock):
                threading.Thread(
                    target=_let_run, args=(clock,), name="clock-of-a-failure", daemon=True
                ).start()
    return report


def _let_run(clock: FakeClock) -> None:
    """A minute in which an hour passes."""
    never = threading.Event()
    for _ in range(3600):
        clock.advance(1.0)
        never.wait(1 / 60)
