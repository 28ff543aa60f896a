"""The page on what each queue can do is what the providers say, and tells why where they differ."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path

import pytest

from queue_runtime.provider import Capabilities
from queue_runtime.testing.conformance import Harness
from queue_runtime.testing.conformance.table import (
    OF_EACH_QUEUE,
    QUESTIONS,
    Told,
    rows,
    table,
    told,
    write,
    written,
)
from queue_runtime.testing.servicebus import LocalServiceBus
from queue_runtime.testing.sqs import CREDENTIALS, REGION, LocalSqs
from tests.conformance.memory_harness import MemoryHarness
from tests.conformance.servicebus_harness import ServiceBusHarness
from tests.conformance.sqs_harness import SqsHarness

PAGE = Path(__file__).resolve().parents[2] / "docs" / "capabilities.md"


@contextmanager
def harnesses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Harness]]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    memory = [MemoryHarness(kind) for kind in ("sessions", "groups")]
    with ExitStack() as stack:
        sqs, bus = stack.enter_context(LocalSqs()), stack.enter_context(LocalServiceBus())
        for each in memory:
            stack.callback(each.close)
        yield [
            *memory,
            stack.enter_context(SqsHarness("sqs", REGION, sqs.url)),
            ServiceBusHarness("servicebus", bus, bus.target()),
        ]


def test_the_table_is_what_the_providers_say(monkeypatch: pytest.MonkeyPatch) -> None:
    with harnesses(monkeypatch) as found:
        said = {one for harness in found for one in told(harness)}

    assert written(PAGE) == table(said), "make conformance ARGS=--conformance-table=docs/capabilities.md"


def test_all_that_a_queue_may_be_asked_is_in_the_table_or_said_below_it() -> None:
    asked = {field.name for field in fields(Capabilities)}
    below = PAGE.read_text().partition("## What is a queue's own")[2]

    assert asked == set(QUESTIONS) | OF_EACH_QUEUE
    assert all(f"`{name}`" in below for name in OF_EACH_QUEUE)


def test_where_queues_differ_the_page_says_why() -> None:
    differ = {label for label, *cells in rows(written(PAGE)) if len(set(cells) - {"-"}) > 1}
    explained = re.findall(r"^\*\*(.+)\.\*\*", PAGE.read_text(), re.MULTILINE)

    assert set(explained) == differ
    assert len(explained) == len(differ)


class TestTable:
    def test_is_the_same_whatever_came_first(self) -> None:
        said = [Told(name, tuple(f"{name} {n}" for n in range(len(QUESTIONS)))) for name in ("sqs", "mine")]

        assert table(said) == table(said[::-1])
        assert table(said).startswith(
            "|  | mine | SQS standard |\n| --- | --- | --- |\n| Sessions | mine 0 |"
        )

    def test_shows_all_answers_where_endpoints_disagree(self) -> None:
        said = [Told("mine", (answer,) * len(QUESTIONS)) for answer in ("yes", "no", "yes")]

        assert {cell for _, cell in rows(table(said))} == {"no / yes"}

    def test_takes_the_place_of_an_older_one_and_leaves_the_rest(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        old, new = (Told("mine", (answer,) * len(QUESTIONS)) for answer in ("old", "new"))
        write(page, [old])
        page.write_text(f"# Head\n\n{page.read_text()}\nFoot\n")

        write(page, [new])

        assert written(page) == table([new])
        assert page.read_text().startswith("# Head\n\n<!--")
        assert page.read_text().endswith("-->\n\nFoot\n")


CONFTEST = 'pytest_plugins = ["queue_runtime.testing.conformance.report"]\n'

MODULE = """
import pytest
from queue_runtime.testing.conformance import TestNames
from tests.conformance.memory_harness import MemoryHarness

@pytest.fixture(params=["sessions", "groups"])
def harness(request):
    yield MemoryHarness(request.param)
"""

FAILING = MODULE + "\nTestNames.test_that_fails = lambda self, kit: kit.client.receive('no such queue')\n"


def run_for_table(place: Path, module: str, *options: str) -> str:
    """Run a few rows as another distribution would; returns what pytest printed."""
    (place / "conftest.py").write_text(CONFTEST)
    (place / "test_mine.py").write_text(module)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--conformance-table=page.md",
            *options,
        ],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(PAGE.parents[1])},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return done.stdout


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_run_writes_its_table_with_and_without_workers(tmp_path: Path, workers: str) -> None:
    said = run_for_table(tmp_path, MODULE, "-n", workers)

    assert "memory with groups: 4 passed" in said
    assert "page.md: what queues can do was written" in said
    head = written(tmp_path / "page.md").splitlines()[0]
    assert head == "|  | memory | memory with sessions | memory with groups |"


def test_a_run_in_which_a_row_failed_writes_none(tmp_path: Path) -> None:
    said = run_for_table(tmp_path, FAILING)

    assert "page.md stays as it is: rows failed" in said
    assert not (tmp_path / "page.md").exists()
