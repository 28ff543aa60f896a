"""The kit is tested too: it catches broken providers, and says what it found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from queue_runtime.errors import QueueError
from queue_runtime.testing.conformance import (
    by_id,
    content,
    dead_letters,
    leases,
    limits,
    looking,
    receiving,
    scheduling,
    session_ends,
    session_states,
    sessions,
    settling,
    threads,
    time_to_live,
)
from queue_runtime.testing.conformance.kit import Kit
from tests.conformance.broken_providers import BROKEN
from tests.conformance.memory_harness import MemoryHarness

Row = Callable[[Kit], None]

in_time = partial(receiving.TestWaiting().test_an_empty_answer_comes_on_time, kind="plain")
aligned = settling.TestPartialFailure().test_in_a_large_batch_each_outcome_is_at_its_place
exclusive = sessions.TestOnePairOfHands().test_a_held_session_is_not_given_to_another_client
buried = partial(
    dead_letters.TestDeadLetters().test_a_dead_lettered_message_is_gone_from_the_queue, kind="plain"
)
explained = partial(
    dead_letters.TestDeadLetters().test_it_keeps_what_it_was_and_says_why_it_is_there, kind="plain"
)

set_and_seen = partial(
    session_states.TestSessionState().test_what_was_set_is_there_for_the_next_holder, state=b"state"
)
taken_back = partial(
    scheduling.TestScheduling().test_one_that_was_cancelled_never_comes_and_the_others_do, kind="plain"
)

lives = time_to_live.TestTimeToLive()
given_up = time_to_live.TestExpiredDeadLetters()
purged = partial(looking.TestPurge().test_a_purge_removes_all, kind="plain")

CAUGHT_BY: dict[str, Row] = {
    "loses_order": sessions.TestSessionOrder().test_a_batch_comes_in_its_order,
    "loses_order_of_groups": exclusive,
    "accepts_stale_receipts": (
        settling.TestTooLate().test_a_stale_receipt_does_not_take_the_message_from_its_new_holder
    ),
    "misaligns_outcomes": aligned,
    "raises_for_all": aligned,
    "never_ends_a_lease": leases.TestLeases().test_a_lapsed_lease_gives_the_message_back,
    "hides_nothing": leases.TestLeases().test_a_held_message_is_hidden_from_all,
    "does_not_renew": leases.TestLeases().test_a_renewed_lease_lasts_from_its_renewal,
    "dead_letters_without_a_copy": buried,
    "dead_letters_without_a_reason": explained,
    "dead_letters_by_copy_only": buried,
    "completes_nothing": settling.TestSettling().test_a_completed_message_is_gone,
    "completes_the_abandoned": settling.TestSettling().test_an_abandoned_message_comes_again_at_once,
    "forgets_delays": settling.TestSettling().test_an_abandoned_message_waits_for_its_delay,
    "shares_sessions": exclusive,
    "keeps_closed_sessions": (
        session_ends.TestClose().test_closing_gives_the_session_back_at_once_and_in_order
    ),
    "forgets_what_a_lost_session_had": (
        session_ends.TestSessionLease().test_a_lost_session_comes_again_elsewhere_in_order
    ),
    "settles_for_lost_sessions": (
        session_ends.TestSessionLease().test_a_lost_hold_takes_nothing_from_its_successor
    ),
    "overstays": in_time,
    "comes_back_early": in_time,
    "brings_too_many": receiving.TestNumbers().test_no_more_than_asked_for,
    "delivers_twice": threads.TestSixteenThreads().test_nothing_is_lost_and_nothing_comes_twice,
    "counts_no_deliveries": leases.TestLeases().test_deliveries_are_counted,
    "drops_empty_attributes": partial(
        content.TestContent().test_attributes_come_out_as_they_went_in, kind="plain"
    ),
    "normalises_line_ends": partial(
        content.TestContent().test_a_body_comes_out_as_it_went_in,
        kind="plain",
        body=content.BODIES["line-ends"],
    ),
    "counts_characters": partial(limits.TestSize().test_bytes_count_and_not_characters, kind="plain"),
    "gives_by_id_what_another_holds": by_id.TestAcceptById().test_one_that_is_held_is_not_available,
    "gives_another_than_was_asked_for": by_id.TestAcceptById().test_it_is_the_one_that_was_asked_for,
    "has_no_session_without_messages": (
        by_id.TestAcceptById().test_one_without_messages_is_held_like_any_other
    ),
    "accepts_more_than_it_is_asked_for": (
        sessions.TestOnePairOfHands().test_other_sessions_flow_past_a_held_one
    ),
    "counts_closed_sessions_and_denies_it": (
        session_ends.TestClose().test_a_hold_that_was_let_go_counts_as_the_queue_says
    ),
    "forgets_states": set_and_seen,
    "keeps_states_as_text": partial(
        session_states.TestSessionState().test_what_was_set_is_there_for_the_next_holder,
        state=session_states.STATES["any-bytes"],
    ),
    "shares_states": session_states.TestSessionState().test_each_session_has_its_own,
    "keeps_states_that_are_removed": session_states.TestSessionState().test_it_may_be_replaced_and_removed,
    "lets_lost_sessions_at_the_state": (
        session_states.TestSessionState().test_one_who_has_lost_it_without_knowing_changes_nothing
    ),
    "cancels_nothing": taken_back,
    "cancels_all": taken_back,
    "cancels_what_is_due": partial(
        scheduling.TestScheduling().test_one_that_was_received_cannot_be_cancelled, kind="plain"
    ),
    "schedules_for_now": partial(
        scheduling.TestScheduling().test_a_scheduled_message_comes_when_it_is_due, kind="sessions"
    ),
    "schedules_at_the_head_of_the_session": (
        scheduling.TestSchedulingInASession().test_one_that_is_not_due_holds_back_no_other_of_its_session
    ),
    "hands_out_expired": partial(lives.test_one_that_has_expired_is_handed_to_nobody, kind="plain"),
    "lets_expire_what_is_in_hand": partial(lives.test_one_in_hand_does_not_expire, kind="plain"),
    "counts_a_life_from_sending": partial(
        lives.test_it_counts_from_when_a_delayed_message_is_due, kind="plain"
    ),
    "lets_dead_letters_expire": partial(given_up.test_a_dead_letter_does_not_expire, kind="plain"),
    "drops_all_that_expires": partial(
        given_up.test_where_it_is_wanted_an_expired_message_is_a_dead_letter, kind="plain"
    ),
    "forgets_times_to_live": partial(
        lives.test_one_that_is_received_in_time_says_how_long_it_was_given, kind="sessions"
    ),
    "forgets_replays": partial(given_up.test_a_replay_begins_it_anew_and_is_counted, kind="plain"),
    "deduplicates_nothing_and_denies_it": partial(
        looking.TestDeduplication().test_of_two_with_one_deduplication_id_one_comes, kind="sessions"
    ),
    "purges_nothing": purged,
    "purges_what_is_free": purged,
    "takes_what_it_shows": partial(looking.TestPeek().test_they_are_there_still, kind="plain"),
    "shows_from_the_beginning": partial(
        looking.TestPeek().test_one_may_go_on_where_one_has_stopped, kind="plain"
    ),
    "holds_a_lock_through_its_receives": (
        threads.TestSettlingMeanwhile().test_nothing_waits_for_a_receive_from_the_same_queue
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_provider_that_breaks_a_promise_is_caught(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = MemoryHarness("groups" if "groups" in broken else "sessions")
    kit = Kit(harness)
    BROKEN[broken](monkeypatch)

    with pytest.raises((AssertionError, QueueError, pytest.fail.Exception)):
        CAUGHT_BY[broken](kit)

    monkeypatch.undo()
    kit.close()
    harness.close()


CONFTEST = 'pytest_plugins = ["queue_runtime.testing.conformance.report"]\n'

MODULE = """
import pytest
from queue_runtime import connect
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

    def connect(self):
        return connect(f"memory://{id(self)}", clock=self.clock)


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
