"""The checker of the long run: good books break nothing, and every way to break a promise is found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from demo_parts.checker import Run

from benchmarks.long_run.checker import Repeat, judged
from benchmarks.long_run.history import History, Life, Sent, Settled, Trouble

KILL = "kill -9 between the handler's end and the completion"
LATE = "its handler outlasted the deadline of the stop"

REPORT: Mapping[str, Any] = {
    "completed": 2,
    "dead_lettered": 1,
    "finished": 1,
    "released": 0,
    "overdue": 0,
    "unknown": 0,
    "threads_left": ("queue_runtime-fetch-events",),
}

GOOD = History(
    sent=[
        Sent("a1", "a"),
        Sent("b1", "b", "rejected"),
        Sent("a2", "a"),
        Sent("b2", "b", "exhausted"),
        Sent("a3", "a"),
        Sent("b3", "b"),
    ],
    runs=[
        Run("a1", "a", 1, 0.0, 1.0, False),  # 0: fails once, in place
        Run("a1", "a", 2, 1.5, 2.0, True),
        Run("b1", "b", 1, 0.0, 1.0, False),  # 2: rejected
        Run("b2", "b", 1, 1.5, 1.7, False),
        Run("b2", "b", 2, 2.0, 2.2, False),  # 4: exhausted
        Run("a2", "a", 1, 3.0, 4.5, True),  # 5: in hand at the stop, and finished
        Run("b3", "b", 1, 10.0, None, False, life=1),  # 6: cut short by the kill
        Run("a3", "a", 1, 10.0, 11.0, True, life=1),  # 7: done, and killed before the broker had agreed
        Run("b3", "b", 1, 21.0, 22.0, True, life=2),
        Run("a3", "a", 1, 21.0, 22.0, True, life=2),  # 9: so it comes again
    ],
    settled=[
        Settled("a1", 0, 2.1),
        Settled("b1", 0, 1.1, dead=True),
        Settled("a2", 0, 4.6),
        Settled("b2", 1, 9.0, dead=True),
        Settled("b3", 2, 22.1),
        Settled("a3", 2, 22.1),
    ],
    lives=[
        Life("SIGTERM", 4.0, 5.0, report=REPORT),
        Life("SIGKILL", 12.0, 12.0, status=-9),
        Life("SIGTERM", 30.0, 31.0, report={**REPORT, "dead_lettered": 0, "finished": 0}),
    ],
    dead=[("b1", "Planned"), ("b2", "MaxAttemptsExceeded")],
    max_attempts=2,
)


def broken(history: History) -> set[tuple[str, str]]:
    """The broken promises, each with what shows it."""
    return {(each.promise, each.delivery) for each in judged(history).broken}


def with_run(place: int, **fields: object) -> History:
    runs = list(GOOD.runs)
    runs[place] = replace(runs[place], **fields)  # type: ignore[arg-type]
    return replace(GOOD, runs=runs)


def without_run(*places: int) -> History:
    return replace(GOOD, runs=[run for place, run in enumerate(GOOD.runs) if place not in places])


def and_run(*runs: Run) -> History:
    return replace(GOOD, runs=[*GOOD.runs, *runs])


def with_life(number: int, **fields: object) -> History:
    lives = list(GOOD.lives)
    lives[number] = replace(lives[number], **fields)  # type: ignore[arg-type]
    return replace(GOOD, lives=lives)


def with_report(**values: object) -> History:
    return with_life(0, report={**REPORT, **values})


def test_books_that_keep_every_promise_break_none_and_what_came_twice_has_its_cause() -> None:
    found = judged(GOOD)

    assert found.broken == []
    assert found.duplicates == [Repeat("a3", KILL)]
    assert (found.overlaps, found.dead_again) == ([], [])


def test_empty_books_break_none() -> None:
    assert judged(History(sent=[], runs=[], settled=[], lives=[])).broken == []


def test_a_message_that_never_ran_is_lost() -> None:
    history = replace(GOOD, sent=[*GOOD.sent, Sent("a4", "a")])

    assert broken(history) == {("lost", "a4")}


def test_a_message_whose_only_run_was_cut_short_is_lost() -> None:
    lost = replace(without_run(8), settled=[each for each in GOOD.settled if each.message != "b3"])

    assert ("lost", "b3") in broken(lost)


def test_what_is_still_in_the_queue_is_found() -> None:
    assert broken(replace(GOOD, left=3)) == {("left behind", "the queue")}


def test_a_message_that_starts_before_its_predecessor_was_done_is_out_of_order() -> None:
    assert ("out of order", "a2") in broken(with_run(5, started=1.7))


def test_a_message_that_starts_between_two_attempts_at_its_predecessor_is_out_of_order() -> None:
    assert ("out of order", "a2") in broken(with_run(5, started=1.2, ended=1.3))


def test_a_message_that_starts_before_the_last_attempt_at_a_later_dead_letter_is_out_of_order() -> None:
    early = with_run(6, started=1.9, ended=1.95, life=0)

    assert ("out of order", "b3") in broken(early)


def test_a_message_that_starts_before_an_earlier_one_that_comes_after_a_kill_is_out_of_order() -> None:
    moved = with_run(9, started=40.0, ended=41.0)
    swapped = replace(moved, sent=[*GOOD.sent, Sent("a4", "a")])
    history = replace(
        swapped,
        runs=[run for run in moved.runs if (run.delivery, run.life) != ("a3", 1)]
        + [Run("a4", "a", 1, 21.0, 22.0, True, life=2)],
    )

    assert ("out of order", "a4") in broken(history)


def test_a_message_of_another_session_may_start_at_any_time() -> None:
    assert judged(with_run(5, started=2.05)).broken == []


def test_a_good_message_among_the_dead_letters_is_found() -> None:
    history = replace(GOOD, dead=[*GOOD.dead, ("a2", "MaxAttemptsExceeded")])

    assert ("wrongly dead-lettered", "a2") in broken(history)


def test_a_message_given_up_before_its_last_attempt_is_found() -> None:
    assert broken(without_run(4)) == {("wrongly dead-lettered", "b2")}


def test_attempts_of_several_lives_are_not_added_up() -> None:
    assert ("wrongly dead-lettered", "b2") in broken(with_run(4, life=1))


def test_a_dead_letter_with_another_reason_is_found() -> None:
    history = replace(GOOD, dead=[("b1", "Planned"), ("b2", "MaxDeliveriesExceeded")])

    assert broken(history) == {("wrong reason", "b2")}


def test_a_message_to_be_rejected_that_was_handled_is_found() -> None:
    assert ("not set aside", "b1") in broken(with_run(2, done=True))


def test_a_dead_letter_that_nobody_sent_is_found() -> None:
    assert broken(replace(GOOD, dead=[*GOOD.dead, ("z1", "Planned")])) == {("unknown", "z1")}


def test_a_dead_letter_that_is_not_there_any_more_is_found() -> None:
    assert broken(replace(GOOD, dead=GOOD.dead[:1])) == {("dead letter gone", "b2"), ("lost", "b2")}


def test_a_run_of_what_nobody_sent_is_found() -> None:
    assert broken(and_run(Run("z1", "z", 1, 0.0, 1.0, True))) == {("unknown", "z1")}


def test_a_run_in_another_session_is_found() -> None:
    assert ("wrong session", "a2") in broken(with_run(5, session="c"))


def test_a_message_completed_without_having_been_handled_is_found() -> None:
    assert ("removed unhandled", "b3") in broken(with_run(8, done=False))


def test_a_duplicate_whose_completion_was_confirmed_has_no_excuse() -> None:
    again = and_run(Run("a2", "a", 1, 9.0, 9.5, True, life=1))

    assert broken(again) == {("duplicate", "a2")}


def test_a_duplicate_after_an_orderly_stop_has_no_excuse() -> None:
    history = with_life(1, ended_by="SIGTERM", status=0, report={**REPORT, "completed": 0, "finished": 0})

    assert broken(history) == {("duplicate", "a3")}


@pytest.mark.parametrize(
    "trouble",
    [
        Trouble(0, "its settlement failed (OutcomeUnknown)", "a2", "a"),
        Trouble(0, "its lease was lost (it ran out)", None, "a"),
    ],
)
def test_a_duplicate_is_explained_by_the_trouble_that_the_worker_told_of(trouble: Trouble) -> None:
    history = replace(
        and_run(Run("a2", "a", 1, 9.0, 9.5, True, life=1)),
        settled=[each for each in GOOD.settled if each.message != "a2"] + [Settled("a2", 1, 9.6)],
        lives=[replace(GOOD.lives[0], report={**REPORT, "completed": 1, "finished": 0}), *GOOD.lives[1:]],
        troubles=[trouble],
    )

    found = judged(history)

    assert found.broken == []
    assert Repeat("a2", trouble.cause) in found.duplicates


def test_trouble_in_one_life_explains_nothing_in_another() -> None:
    history = replace(
        with_life(1, ended_by="SIGTERM", status=0, report={**REPORT, "completed": 0, "finished": 0}),
        troubles=[Trouble(0, "its lease was lost", "a3", "a")],
    )

    assert broken(history) == {("duplicate", "a3")}


def test_a_duplicate_is_explained_by_a_handler_that_outlasted_the_deadline() -> None:
    late = with_run(5, ended=6.0)
    history = replace(
        late,
        runs=[*late.runs, Run("a2", "a", 1, 9.0, 9.5, True, life=1)],
        settled=[each for each in GOOD.settled if each.message != "a2"] + [Settled("a2", 1, 9.6)],
        lives=[
            replace(GOOD.lives[0], ended=6.5, report={**REPORT, "completed": 1, "overdue": 1, "finished": 0}),
            *GOOD.lives[1:],
        ],
        deadline=2.0,
    )

    found = judged(history)

    assert found.broken == []
    assert Repeat("a2", LATE) in found.duplicates


def test_two_messages_of_a_session_at_once_are_found() -> None:
    assert broken(with_run(5, started=1.7)) == {("two at once", "a2"), ("out of order", "a2")}


def test_a_message_at_once_with_itself_is_found() -> None:
    assert ("two at once", "a1") in broken(and_run(Run("a1", "a", 3, 1.8, 1.9, False)))


def test_an_overlap_after_a_lost_lease_is_counted_apart() -> None:
    overlapping = and_run(Run("a1", "a", 1, 0.5, 0.9, False))
    history = replace(overlapping, troubles=[Trouble(0, "its lease was lost", None, "a")])

    found = judged(history)

    assert found.broken == []
    assert found.overlaps == [Repeat("a1", "its lease was lost")]


def test_a_run_that_was_cut_short_lasts_until_its_process_is_gone() -> None:
    assert ("two at once", "b3") in broken(with_run(8, started=11.5))


def test_a_dead_letter_twice_has_an_excuse_only_where_the_worker_was_killed_over_it() -> None:
    twice = replace(GOOD, dead=[*GOOD.dead, ("b1", "Planned")])
    killed = replace(
        with_run(2, life=1, started=9.0, ended=9.5),
        dead=twice.dead,
        settled=[each for each in GOOD.settled if each.message != "b1"],
    )

    assert broken(twice) == {("dead letter again", "b1")}
    assert judged(killed).dead_again == [Repeat("b1", "kill -9 between the copy and the removal")]


@pytest.mark.parametrize(
    ("values", "how"),
    [
        ({"completed": 3}, "reports completed=3, and told of 2"),
        ({"dead_lettered": 0}, "reports dead_lettered=0, and told of 1"),
        ({"finished": 2}, "reports finished=2, and 1 were settled after it was asked to stop"),
        ({"overdue": 1}, "reports overdue=1, and 0 handlers outlasted the deadline"),
        ({"unknown": 1}, "reports unknown=1, and 0 were done and not settled"),
        ({"threads_left": ("queue_runtime-worker-1",)}, "left the threads ['queue_runtime-worker-1']"),
    ],
)
def test_a_stop_report_that_says_what_the_books_do_not_is_found(values: dict[str, Any], how: str) -> None:
    assert [each.how for each in judged(with_report(**values)).broken] == [how]


@pytest.mark.parametrize(
    ("fields", "how"),
    [
        ({"report": None}, "left no report"),
        ({"status": 1}, "ended with status 1"),
        ({"ended": 60.0}, "took 56.0 s to stop, and had 25"),
        ({"ended_by": "itself", "status": 1}, "ended by itself, with status 1"),
        ({"ended_by": "SIGKILL"}, "reported its stop, and was killed"),
    ],
)
def test_a_life_that_did_not_end_as_it_was_asked_to_is_found(fields: dict[str, Any], how: str) -> None:
    stopped = [each for each in judged(with_life(0, **fields)).broken if each.promise == "stopped badly"]

    assert how in [each.how for each in stopped]
