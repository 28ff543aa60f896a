"""What the broker check makes of results and exclusions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.microsoft.outcome import Exclusion, Outcome, Report, judge, read_exclusions
from tests.microsoft.run import HERE, TESTS

ONE = "test_queues.py::T::test_one"


def judged(
    outcome: str | None, exclusions: Mapping[str, Exclusion] | None = None, *, part: bool = False
) -> Outcome:
    reports = {} if outcome is None else {ONE: Report(ONE, outcome, 1.5, "why")}
    return judge([ONE], reports, exclusions or {}, part=part)


FAILS = {ONE: Exclusion("fails", "needs websockets")}


@pytest.mark.parametrize(
    ("outcome", "exclusions", "column", "wrong"),
    [
        ("passed", {}, "passed", None),
        ("skipped", {}, "skipped", None),
        ("failed", {}, "failed", "failed:\nwhy"),
        (None, {}, "failed", "not over in time"),
        ("failed", FAILS, "excluded", None),
        ("passed", FAILS, "passed", "remove the line"),
        (None, FAILS, "failed", "not over in time"),
    ],
)
def test_a_result_is_right_if_it_is_what_was_expected(
    outcome: str | None, exclusions: Mapping[str, Exclusion], column: str, wrong: str | None
) -> None:
    judgement = judged(outcome, exclusions)

    assert judgement.counts["test_queues.py"] == {column: 1}
    assert bool(judgement.wrong) == (wrong is not None)
    if wrong is not None:
        assert wrong in judgement.wrong[0]


def test_an_exclusion_of_no_test_is_wrong_unless_only_a_part_was_run() -> None:
    exclusions = {"test_queues.py::T::test_gone": Exclusion("fails", "stale")}

    assert "no such test" in judged("passed", exclusions).wrong[0]
    assert judged("passed", exclusions, part=True).wrong == []


def test_what_is_not_run_is_counted_as_excluded() -> None:
    exclusions = {"test_queues.py::T::test_long": Exclusion("unrun", "an hour")}

    assert judged("passed", exclusions).counts["test_queues.py"] == {"passed": 1, "excluded": 1}


def test_the_table_has_a_line_for_each_file_and_the_reasons_of_skips() -> None:
    text = judged("skipped").text(TESTS)

    assert "skipped 1: why" in text
    assert text.splitlines()[-3].split() == ["test_queues.py", "0", "0", "1", "0"]
    assert text.splitlines()[-1].split() == ["test_list_sessions.py", "0", "0", "0", "0"]


def test_exclusions_have_a_kind_and_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "exclusions.txt"
    path.write_text(f"# why\n\nfails {ONE} it needs an hour\n")
    assert read_exclusions(path) == {ONE: Exclusion("fails", "it needs an hour")}

    path.write_text(f"maybe {ONE} reason\n")
    with pytest.raises(SystemExit, match="'maybe'"):
        read_exclusions(path)


def test_our_own_exclusions_are_readable() -> None:
    assert all(exclusion.reason for exclusion in read_exclusions(HERE / "exclusions.txt").values())
