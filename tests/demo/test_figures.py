"""The demo's closing table: what a run came to, and how several runs are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from demo_parts.books import Books
from demo_parts.checker import Broken, History, Posted, Run
from demo_parts.figures import ABSENT, Figure, Result, differences, figures, rows
from demo_parts.journal import Journal, Reader
from demo_parts.report import table
from rich.console import Console

from queue_runtime.events import HandlerFailed, MessageCompleted, ProviderCalled

HISTORY = History(
    posted=[
        Posted("a1", "A"),
        Posted("a2", "A", "poison"),
        Posted("a3", "A"),
        Posted("b1", "B", "undecodable"),
        Posted("c1", None),
    ],
    runs=[Run("a1", "A", 1, 0.0, 1.0, True), Run("a1", "A", 2, 2.0, 3.0, True)],
    dead={"a2": "MaxAttemptsExceeded", "b1": "DecodeError"},
    left=frozenset({"b1"}),
    refused=frozenset({"f1", "f2"}),
    excused=frozenset({"a1"}),
)


@pytest.fixture
def result(tmp_path: Path) -> Result:
    """Of a run in which a1 took 200 ms and c1, which has no session, 400 ms; each failed once."""
    path = tmp_path / "journal.ndjson"
    driver, bot = Journal(path), Journal(path, life=0)
    for delivery, status in (("a1", 202), ("a1", 202), ("c1", 202), ("f1", 401)):
        driver.write("posted", delivery=delivery, status=status, since=100.0, seconds=0.1)
    for run, (delivery, session, at) in enumerate([("a1", "A", 100.2), ("c1", None, 100.4)]):
        facts = {"run": run, "delivery": delivery, "session": session, "attempt": 2}
        bot.hear(failed(delivery, session))
        bot.write("started", **facts)
        bot.write("ended", **facts, error=None, at=at)
        bot.hear(
            MessageCompleted(queue="events", message_id=delivery, session_id=session, attempt=2, seconds=0.1)
        )
    for operation in ("send", "send", "receive", "settle", "settle"):
        bot.hear(ProviderCalled(queue="events", operation=operation, messages=1, seconds=0.1, error=None))
    books = Books(Reader(path))
    books.read()
    return Result(books=books, history=HISTORY, broken=[], replayed=1, seconds=12.34)


def failed(delivery: str, session: str | None) -> HandlerFailed:
    return HandlerFailed(
        queue="events",
        message_id=delivery,
        session_id=session,
        attempt=1,
        error="PlannedFailure",
        text="",
        delay=0.1,
        exception=None,
    )


def texts(result: Result) -> dict[str, str]:
    return {figure.name: figure.text for figure in figures(result)}


class TestFigures:
    def test_tell_what_a_run_came_to(self, result: Result) -> None:
        assert texts(result) == {
            "webhooks received": "5",
            "forged ones refused": "1",
            "handled": "2",
            "sessions": "2",
            "messages in the longest": "3",
            "with several, in order": "1 of 1",
            "outside sessions": "1",
            "retried in place": "1",
            "dead-lettered": "2",
            "DecodeError": "1",
            "MaxAttemptsExceeded": "1",
            "replayed after the fix": "1",
            "left where it belongs": "1",
            "lost": "0",
            "two at once": "0",
            "duplicates": "0",
            "more, with a known cause": "1",
            "posted again": "1",
            "webhook to handled, p50": "300 ms",
            "p95": "570 ms",
            "requests per message": "1.00",
            "receive": "0.20",
            "send": "0.40",
            "settle": "0.40",
            "duration": "12.3 s",
        }

    def test_count_what_was_broken(self, result: Result) -> None:
        promises = ("lost", "not taken", "not replayed", "two at once", "duplicate", "out of order")
        broken = [Broken(promise, "a1", "is an example") for promise in promises]

        told = texts(replace(result, broken=broken))

        assert {name: told[name] for name in ("lost", "two at once", "duplicates")} == {
            "lost": "3",
            "two at once": "1",
            "duplicates": "1",
        }
        assert told["with several, in order"] == "0 of 1"

    def test_must_be_the_same_on_every_broker_but_for_times_requests_and_repeats(
        self, result: Result
    ) -> None:
        assert [figure.name for figure in figures(result) if not figure.same] == [
            "duplicates",
            "more, with a known cause",
            "posted again",
            "webhook to handled, p50",
            "p95",
            "requests per message",
            "receive",
            "send",
            "settle",
            "duration",
        ]

    def test_of_a_run_that_came_to_nothing_can_be_told(self, tmp_path: Path) -> None:
        nothing = Result(
            books=Books(Reader(tmp_path / "none")),
            history=History(posted=[], runs=[]),
            broken=[],
            replayed=0,
            seconds=0.0,
        )

        told = texts(nothing)

        assert told["handled"] == told["messages in the longest"] == "0"
        assert told["webhook to handled, p50"] == told["p95"] == ABSENT
        assert told["requests per message"] == "0.00"


class TestComparison:
    def test_runs_that_came_to_the_same_do_not_differ(self, result: Result) -> None:
        compared = rows([figures(result), figures(result)])

        assert all(row.texts[0] == row.texts[1] for row in compared)
        assert differences(["memory", "sqs"], compared) == []

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"replayed": 0}, "replayed after the fix: 1 on memory, 0 on sqs, 1 on servicebus"),
            ({"broken": [Broken("lost", "a1", "is gone")]}, "lost: 0 on memory, 1 on sqs, 0 on servicebus"),
        ],
    )
    def test_what_must_be_the_same_and_is_not_is_named_with_its_value_on_each(
        self, result: Result, change: Mapping[str, Any], told: str
    ) -> None:
        runs = [figures(result), figures(replace(result, **change)), figures(result)]

        assert differences(["memory", "sqs", "servicebus"], rows(runs)) == [told]

    def test_times_requests_and_repeats_may_differ(self, result: Result) -> None:
        other = replace(
            result,
            history=replace(result.history, excused=frozenset()),
            broken=[Broken("duplicate", "a1", "ran again")],
            seconds=99.0,
        )

        assert differences(["memory", "sqs"], rows([figures(result), figures(other)])) == []

    def test_a_figure_that_only_some_have_stands_in_its_place(self) -> None:
        first = [figure("requests"), figure("accept"), figure("send"), figure("duration")]
        second = [figure("requests"), figure("receive"), figure("send"), figure("settle"), figure("duration")]

        compared = rows([first, second])

        assert [(row.name, row.texts) for row in compared] == [
            ("requests", ["1", "1"]),
            ("receive", [ABSENT, "1"]),
            ("accept", ["1", ABSENT]),
            ("send", ["1", "1"]),
            ("settle", [ABSENT, "1"]),
            ("duration", ["1", "1"]),
        ]

    def test_a_reason_for_dead_letters_that_only_some_have_is_a_difference(self) -> None:
        compared = rows([[figure("Poison", same=True)], []])

        assert differences(["memory", "sqs"], compared) == ["Poison: 1 on memory, - on sqs"]


class TestTable:
    def test_of_one_run_has_a_line_for_each_figure_and_no_comparison(self, result: Result) -> None:
        shown = printed({"memory": figures(result)})

        assert "│ handled                    │ 2      │" in shown
        assert "│   MaxAttemptsExceeded      │ 1      │" in shown
        assert "memory" not in shown
        assert "=" not in shown

    def test_of_several_has_a_column_for_each_and_says_what_is_equal(self, result: Result) -> None:
        other = replace(result, replayed=0, seconds=7.0)

        lines = printed({"memory": figures(result), "sqs": figures(other)}).splitlines()

        assert cells(lines[1]) == ["", "memory", "sqs", ""]
        shown = {name: texts for name, *texts in map(cells, lines)}
        assert shown["handled"] == ["2", "2", "="]
        assert shown["replayed after the fix"] == ["1", "0", "DIFFERS"]
        assert shown["duration"] == ["12.3 s", "7.0 s", ""]

    def test_of_all_brokers_fits_into_eighty_columns(self, result: Result) -> None:
        shown = printed({name: figures(result) for name in ("memory", "sqs", "servicebus")})

        assert len(shown.splitlines()) == len(figures(result)) + 5  # nothing was wrapped


def figure(name: str, *, same: bool = False) -> Figure:
    return Figure(name, "1", same=same)


def printed(runs: Mapping[str, Sequence[Figure]]) -> str:
    console = Console(file=StringIO(), width=80)
    console.print(table(runs))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.replace("┃", "│").strip("│").split("│")]
