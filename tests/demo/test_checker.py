"""The demo's checker: a good history breaks nothing, and every way to break a promise is found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from demo_parts.checker import Broken, History, Posted, Run, broken_promises, excused_repeats

GOOD = History(
    posted=[
        Posted("a1", "A"),
        Posted("b1", "B"),
        Posted("a2", "A", "poison"),
        Posted("a3", "A"),
        Posted("b2", "B", "undecodable"),
        Posted("b3", "B"),
        Posted("c1", None),
    ],
    runs=[
        Run("a1", "A", 1, 0.0, 1.0, True),
        Run("b1", "B", 1, 0.5, 1.5, False),  # fails once, in place
        Run("b1", "B", 2, 1.6, 2.0, True),
        Run("a2", "A", 1, 1.0, 1.1, False),
        Run("a2", "A", 2, 1.3, 1.4, False),
        Run("a3", "A", 1, 1.5, 3.0, True),
        Run("b2", "B", 1, 2.1, 2.1, False),
        Run("b3", "B", 1, 2.2, 2.3, True),
        Run("c1", None, 1, 0.0, 9.0, True),
        Run("a2", "A", 1, 10.0, 10.1, True, life=1),  # after the fix
    ],
    dead={"a2": "ValueError", "b2": "DecodeError"},
    left=frozenset({"b2"}),
    refused=frozenset({"f1"}),
    max_attempts=2,
)


def promises(history: History) -> dict[str, str]:
    """Broken promise -> the delivery that shows it."""
    return {broken.promise: broken.delivery for broken in broken_promises(history)}


def without(*runs: int) -> list[Run]:
    return [run for place, run in enumerate(GOOD.runs) if place not in runs]


def changed(place: int, **fields: object) -> list[Run]:
    runs = list(GOOD.runs)
    runs[place] = replace(runs[place], **fields)  # type: ignore[arg-type]
    return runs


def test_a_history_that_keeps_every_promise_breaks_none() -> None:
    assert broken_promises(GOOD) == []


def test_an_empty_history_breaks_none() -> None:
    assert broken_promises(History(posted=[], runs=[])) == []


def test_the_order_in_which_the_runs_are_listed_does_not_matter() -> None:
    assert broken_promises(replace(GOOD, runs=list(reversed(GOOD.runs)))) == []


@pytest.mark.parametrize("status", [0, 503])
def test_a_delivery_that_the_app_did_not_take(status: int) -> None:
    assert promises(replace(GOOD, untaken={"d1": status})) == {"not taken": "d1"}


class TestLost:
    def test_a_delivery_that_never_ran(self) -> None:
        assert promises(replace(GOOD, runs=without(8))) == {"lost": "c1"}

    def test_a_delivery_whose_only_run_failed(self) -> None:
        assert promises(replace(GOOD, runs=changed(7, done=False))) == {"lost": "b3"}

    def test_a_delivery_whose_only_run_was_cut_short(self) -> None:
        assert promises(replace(GOOD, runs=changed(7, done=False, ended=None))) == {"lost": "b3"}

    def test_a_dead_letter_that_was_to_stay_and_is_gone(self) -> None:
        assert promises(replace(GOOD, left=frozenset())) == {"lost": "b2"}


class TestOrder:
    def test_a_later_delivery_before_an_earlier_one(self) -> None:
        assert promises(replace(GOOD, runs=changed(5, started=-1.0, ended=-0.5))) == {"out of order": "a3"}

    def test_a_later_delivery_between_two_attempts_at_an_earlier_one(self) -> None:
        assert promises(replace(GOOD, runs=changed(5, started=1.2, ended=1.25))) == {"out of order": "a3"}

    def test_a_later_delivery_started_before_the_earlier_one_ended(self) -> None:
        assert "out of order" in promises(replace(GOOD, runs=changed(7, started=1.9)))

    def test_a_delivery_overtaken_long_ago_is_found_too(self) -> None:
        runs = [*changed(0, started=8.0, ended=8.1)]

        assert promises(replace(GOOD, runs=runs))["out of order"] in {"a2", "a3"}

    def test_the_order_in_which_dead_letters_are_replayed(self) -> None:
        history = History(
            posted=[Posted("a1", "A", "poison"), Posted("a2", "A", "poison")],
            runs=[
                Run("a1", "A", 1, 0.0, 0.1, False),
                Run("a2", "A", 1, 0.2, 0.3, False),
                Run("a2", "A", 1, 1.0, 1.1, True, life=1),
                Run("a1", "A", 1, 1.2, 1.3, True, life=1),
            ],
            dead={"a1": "ValueError", "a2": "ValueError"},
            max_attempts=1,
        )

        assert promises(history) == {"out of order": "a2"}

    def test_deliveries_outside_sessions_have_no_order(self) -> None:
        history = History(
            posted=[Posted("c1", None), Posted("c2", None)],
            runs=[Run("c2", None, 1, 0.0, 2.0, True), Run("c1", None, 1, 1.0, 3.0, True)],
        )

        assert broken_promises(history) == []


class TestTwoAtOnce:
    def test_two_deliveries_of_a_session(self) -> None:
        assert promises(replace(GOOD, runs=changed(0, ended=1.05)))["two at once"] == "a2"

    def test_one_delivery_twice(self) -> None:
        runs = [*GOOD.runs, Run("b3", "B", 1, 2.25, 2.4, True)]

        assert promises(replace(GOOD, runs=runs))["two at once"] == "b3"

    def test_a_short_run_within_a_long_one_does_not_hide_the_next(self) -> None:
        history = History(
            posted=[Posted("a1", "A"), Posted("a2", "A"), Posted("a3", "A")],
            runs=[
                Run("a1", "A", 1, 0.0, 9.0, True),
                Run("a2", "A", 1, 1.0, 2.0, True),
                Run("a3", "A", 1, 3.0, 4.0, True),
            ],
        )

        found = [broken.delivery for broken in broken_promises(history) if broken.promise == "two at once"]

        assert found == ["a2", "a3"]


class TestDuplicates:
    AGAIN = Run("b3", "B", 1, 5.0, 5.1, True)

    def test_a_delivery_that_was_done_and_ran_again(self) -> None:
        history = replace(GOOD, runs=[*GOOD.runs, self.AGAIN])

        assert promises(history) == {"duplicate": "b3"}
        assert excused_repeats(history) == []

    def test_with_a_known_cause_it_is_counted_and_breaks_nothing(self) -> None:
        history = replace(GOOD, runs=[*GOOD.runs, self.AGAIN], excused=frozenset({"b3"}))

        assert broken_promises(history) == []
        assert excused_repeats(history) == [self.AGAIN]

    def test_a_delivery_replayed_although_it_was_done(self) -> None:
        runs = [*GOOD.runs, Run("a3", "A", 1, 11.0, 11.1, True, life=1)]

        assert promises(replace(GOOD, runs=runs)) == {"duplicate": "a3"}


class TestDeadLetters:
    def test_a_delivery_with_nothing_wrong(self) -> None:
        history = replace(GOOD, dead={**GOOD.dead, "c1": "ValueError"})

        assert promises(history) == {"wrongly dead-lettered": "c1"}

    def test_a_neighbour_of_a_faulty_one(self) -> None:
        history = replace(GOOD, dead={**GOOD.dead, "a3": "ValueError"}, left=frozenset({"b2", "a3"}))

        assert promises(replace(history, runs=without(5))) == {"neighbour blamed": "a3"}

    def test_one_that_came_to_the_dead_letters_after_the_fix(self) -> None:
        history = replace(GOOD, runs=without(8), left=frozenset({"b2", "c1"}))

        assert promises(history) == {"wrongly dead-lettered": "c1"}

    def test_poison_before_its_attempts_were_used_up(self) -> None:
        assert promises(replace(GOOD, runs=without(4))) == {"wrongly dead-lettered": "a2"}

    def test_poison_that_was_not_set_aside(self) -> None:
        history = replace(GOOD, dead={"b2": "DecodeError"})

        assert promises(history) == {"not set aside": "a2"}

    def test_what_cannot_be_decoded_and_was_tried_again(self) -> None:
        runs = [*GOOD.runs, Run("b2", "B", 2, 2.15, 2.16, False)]

        assert promises(replace(GOOD, runs=runs)) == {"tried in vain": "b2"}

    def test_poison_that_was_not_handled_after_the_fix(self) -> None:
        history = replace(GOOD, runs=without(9), left=frozenset({"b2", "a2"}))

        assert promises(history) == {"not replayed": "a2"}


class TestAstray:
    def test_a_forged_delivery(self) -> None:
        runs = [*GOOD.runs, Run("f1", "A", 1, 20.0, 20.1, True)]

        assert promises(replace(GOOD, runs=runs)) == {"forged": "f1"}

    def test_a_delivery_that_nobody_posted(self) -> None:
        runs = [*GOOD.runs, Run("x1", None, 1, 20.0, 20.1, True)]

        assert promises(replace(GOOD, runs=runs)) == {"unknown": "x1"}

    @pytest.mark.parametrize("session", ["B", None])
    def test_a_delivery_in_the_wrong_session(self, session: str | None) -> None:
        assert "wrong session" in promises(replace(GOOD, runs=changed(0, session=session)))


class TestStops:
    CLEAN: Mapping[str, object] = {
        "finished": 1,
        "released": 2,
        "overdue": 0,
        "unknown": 0,
        "threads_left": ["queue_runtime-fetch-events"],
    }

    def test_a_stop_may_leave_a_poll_behind(self) -> None:
        assert broken_promises(replace(GOOD, stops=[self.CLEAN])) == []

    @pytest.mark.parametrize("fault", [{"overdue": 1}, {"unknown": 1}, {"threads_left": ["queue_runtime-3"]}])
    def test_a_stop_that_leaves_more_is_found(self, fault: dict[str, object]) -> None:
        history = replace(GOOD, stops=[self.CLEAN, {**self.CLEAN, **fault}])

        assert promises(history) == {"stopped badly": "worker 1"}


def test_a_broken_promise_reads_as_a_sentence() -> None:
    assert str(Broken("lost", "a1", "was taken, and is neither handled nor a dead letter")) == (
        "lost: a1 was taken, and is neither handled nor a dead letter"
    )
