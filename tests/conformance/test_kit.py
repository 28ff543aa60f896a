"""The kit is tested too: it catches broken providers, and says what it found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from queue_runtime.errors import QueueError
from queue_runtime.testing import conformance
from queue_runtime.testing.conformance.kit import Kit, Rows
from tests.conformance.broken_providers import BROKEN, Broken
from tests.conformance.broken_providers.page import PAGE, with_table
from tests.conformance.memory_harness import MemoryHarness

OF_THE_CLIENT = {
    "TestNames": "names are checked before a provider hears of them",
    "TestTheBrokersOwnLimit": "the memory provider has no limit of its own",
    "TestTwice": "a message knows what was done with it, and a provider is not asked twice",
    "TestWrongKind": "the kind of a queue is looked at before it is received from",
}
"""Families of rows that no broken memory provider can fail, and why."""


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_provider_that_breaks_a_promise_is_caught(broken: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = MemoryHarness(broken.sessions)
    kit = Kit(harness)
    broken.spoil(monkeypatch)

    with pytest.raises((AssertionError, QueueError, pytest.fail.Exception)):
        broken.run_row(kit)

    monkeypatch.undo()
    kit.close()
    harness.close()


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_its_row_passes_where_the_promise_is_kept(broken: Broken) -> None:
    """So it is the promise that the row has caught."""
    harness = MemoryHarness(broken.sessions)
    kit = Kit(harness)

    broken.run_row(kit)

    kit.close()
    harness.close()


def test_every_family_of_rows_catches_a_broken_provider() -> None:
    found = (getattr(conformance, name) for name in conformance.__all__)
    families = {each.__name__ for each in found if isinstance(each, type) and issubclass(each, Rows)}
    catching = {broken.family for broken in BROKEN.values()}

    assert families - catching == set(OF_THE_CLIENT)


def test_the_page_names_every_broken_provider_and_its_row() -> None:
    text = PAGE.read_text(encoding="utf-8")

    assert with_table(text) == text, "python -m tests.conformance.broken_providers.page"


CONFTEST = 'pytest_plugins = ["queue_runtime.testing.conformance.report"]\n'

MODULE = """
import pytest
from dataclasses import replace
from queue_runtime import connect, parse_url
from queue_runtime.testing import FakeClock
from queue_runtime.testing.conformance import *
from queue_runtime.testing.conformance import FakeTime, QueueSpec


class Mine:
    name = "mine"
    lease = 5.0
    look = 0.0
    counts_lag = 0.0
    opening = 0.0
    faults = FAULTS

    def __init__(self):
        clock = FakeClock()
        self.time = FakeTime(clock)
        self.clock = clock
        self.owners = []

    def make_queue(self, spec):
        name = f"queue-{len(self.owners)}"
        kind = ":sessions" if spec.sessions else ""
        self.owners.append(connect(f"memory://{id(self)}?queues={name}{kind}", clock=self.clock))
        return name

    def connect(self, *, listeners=(), **settings):
        target = replace(parse_url(f"memory://{id(self)}"), **settings)
        return connect(target, listeners=listeners, clock=self.clock)


@pytest.fixture
def harness():
    yield Mine()
"""


def run_elsewhere(path: Path, faults: dict[str, str], only: str) -> str:
    """Run rows as a distribution of its own would; returns what pytest printed."""
    (path / "conftest.py").write_text(CONFTEST)
    (path / "test_mine.py").write_text(MODULE.replace("FAULTS", repr(faults)))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", only],
        cwd=path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return done.stdout


def test_a_provider_of_another_distribution_is_run_and_summed_up(tmp_path: Path) -> None:
    said = run_elsewhere(tmp_path, {}, "TestWrongKind or TestNumbers")

    assert "mine: 5 passed" in said


def test_a_row_that_an_endpoint_gets_wrong_is_expected_to_fail_and_named(tmp_path: Path) -> None:
    row = "test_a_plain_queue_has_no_sessions_to_accept"

    said = run_elsewhere(tmp_path, {row: "it has them all the same"}, "TestWrongKind")

    # It does not get it wrong, so its name stands there without need: that is a failure.
    assert "mine: 1 passed, 1 failed" in said
    assert "[XPASS(strict)] it has them all the same" in said


def test_a_fault_that_names_no_row_is_an_error(tmp_path: Path) -> None:
    said = run_elsewhere(tmp_path, {"test_that_there_is_not": "reason"}, "TestWrongKind")

    assert "mine: faults name rows that do not exist: ['test_that_there_is_not']" in said


def python(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True
    ).stdout


def test_the_testing_package_needs_neither_pytest_nor_an_sdk() -> None:
    loaded = python("import queue_runtime.testing, sys; print(*sys.modules)").split()

    assert not {"pytest", "boto3", "botocore", "azure"} & set(loaded)


def test_without_pytest_the_kit_says_what_is_missing() -> None:
    said = python(
        "import sys; sys.modules['pytest'] = None\n"
        "try:\n    import queue_runtime.testing.conformance\n"
        "except Exception as error:\n    print(type(error).__name__, error)"
    )

    assert said.startswith("MissingExtra")
    assert "'pytest'" in said
    assert "pip install 'queue_runtime[testing]'" in said
