"""Dead letters are removed by name, by choice, or all at once after a plan was looked at."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import pytest

from queue_runtime import QueueClient
from queue_runtime.errors import (
    AuthorizationFailed,
    BatchFailed,
    InvalidArgument,
    InvalidName,
    InvalidReceipt,
    Throttled,
)
from queue_runtime.testing import FakeClock
from tests.deadletters.house import LOOKED_INTO, NOT_LOOKED_INTO, buried, bury, free, gives_back
from tests.fakes import Script, fails, fails_for, passes

looked_into = pytest.mark.parametrize("client", [LOOKED_INTO], indirect=True, ids=["can be looked into"])
not_looked_into = pytest.mark.parametrize("client", [NOT_LOOKED_INTO], indirect=True, ids=["cannot"])


class TestRemoving:
    def test_by_id_removes_all_that_have_it_and_says_which_were_not_met(self, client: QueueClient) -> None:
        bury(client, "jobs", "a1", "b1", "a1", "c1")

        report = client.dead_letters("jobs").remove(["a1", "z1", "y1"])

        assert (report.removed, report.refused, report.missing) == (("a1", "a1"), ("b1", "c1"), ("y1", "z1"))
        assert (buried(client, "jobs"), free(client, "jobs")) == (["b1", "c1"], 2)
        assert str(report) == "jobs: 2 removed, 2 refused, 2 missing; there were no more"

    def test_by_choice_removes_what_was_chosen(self, client: QueueClient) -> None:
        bury(client, "jobs", "a1", reason="Timeout")
        bury(client, "jobs", "b1", reason="Bad")

        report = client.dead_letters("jobs").remove(lambda letter: letter.dead_letter.reason == "Bad")

        assert (report.removed, report.missing) == (("b1",), ())
        assert buried(client, "jobs") == ["a1"]

    def test_takes_no_more_than_its_limit(self, client: QueueClient) -> None:
        bury(client, "jobs", *[f"a{n}" for n in range(9)])
        dead = client.dead_letters("jobs")

        report = dead.remove(lambda letter: True, limit=4)

        assert (report.removed, report.ended) == (("a0", "a1", "a2", "a3"), "limit")
        assert report.left == ("a4", "a5", "a6", "a7", "a8")
        assert dead.remove(lambda letter: True, limit=0).removed == ()
        assert free(client, "jobs") == 5

    def test_dry_removes_nothing(self, client: QueueClient, script: Script) -> None:
        bury(client, "jobs", "a1", "b1")

        report = client.dead_letters("jobs").remove(["a1"], dry_run=True)

        assert (report.removed, report.dry_run, free(client, "jobs")) == (("a1",), True, 2)
        assert str(report) == "jobs: 1 would be removed, 1 refused; there were no more"

    def test_of_one_text_is_refused_for_it_would_be_its_letters(self, client: QueueClient) -> None:
        with pytest.raises(InvalidArgument, match=r"give it a list: \['a1'\]"):
            client.dead_letters("jobs").remove("a1")
        with pytest.raises(InvalidName):
            client.dead_letters("jobs").remove([""])

    def test_that_fails_for_one_goes_on_with_the_others(self, client: QueueClient, script: Script) -> None:
        bury(client, "jobs", "a1", "b1", "c1")
        script.then("settle", fails_for({"b1": InvalidReceipt}))

        report = client.dead_letters("jobs").remove(lambda letter: True)

        assert (report.removed, [each.id for each in report.failed]) == (("a1", "c1"), ["b1"])
        assert (report.ended, buried(client, "jobs")) == ("all", ["b1"])
        with pytest.raises(BatchFailed, match="removal of dead letters of 'jobs': 1 of 3 messages failed"):
            report.raise_failed()

    def test_that_would_fail_for_all_ends_and_says_so(self, client: QueueClient, script: Script) -> None:
        bury(client, "jobs", *[f"a{n}" for n in range(6)])
        script.then("settle", passes, *[fails(Throttled)] * 3)

        with patch("queue_runtime.deadletter.removing.ROUND", 2):
            report = client.dead_letters("jobs").remove(lambda letter: True)

        assert (len(report.removed), len(report.failed), report.ended) == (2, 2, "error")
        assert isinstance(report.error, Throttled)

    def test_is_made_good_if_one_that_failed_comes_again(self, client: QueueClient, script: Script) -> None:
        bury(client, "jobs", "a1", "b1")
        script.then("settle", gives_back(client, "a1"))

        with patch("queue_runtime.deadletter.removing.ROUND", 2):
            report = client.dead_letters("jobs").remove(lambda letter: True)

        assert (sorted(report.removed), report.failed) == (["a1", "b1"], ())
        assert buried(client, "jobs") == []

    def test_whose_choice_raises_says_what_is_gone(self, client: QueueClient) -> None:
        bury(client, "jobs", "a1", "b1", "c1")

        def choose(letter: Any) -> bool:
            return {"a1": True, "b1": True}[letter.id]

        with (
            patch("queue_runtime.deadletter.removing.ROUND", 2),
            pytest.raises(KeyError) as caught,
        ):
            client.dead_letters("jobs").remove(choose)

        assert caught.value.__notes__ == ["dead letters of 'jobs': 2 were removed before this"]
        assert free(client, "jobs") == 1

    @not_looked_into
    def test_that_cannot_fetch_is_raised_at_first_and_reported_later(
        self, client: QueueClient, script: Script
    ) -> None:
        bury(client, "jobs", *[f"a{n:02}" for n in range(20)])
        dead = client.dead_letters("jobs")
        script.then("receive", fails(AuthorizationFailed), passes, fails(AuthorizationFailed))

        with pytest.raises(AuthorizationFailed):
            dead.remove(lambda letter: True)
        with patch("queue_runtime.deadletter.removing.ROUND", 10):
            report = dead.remove(lambda letter: True)

        assert (len(report.removed), report.ended) == (10, "error")


class TestAPurge:
    def test_is_planned_first_and_removes_nothing_then(self, client: QueueClient, clock: FakeClock) -> None:
        bury(client, "jobs", *[f"a{n}" for n in range(8)])

        plan = client.dead_letters("jobs").purge()

        assert (plan.queue, plan.count, plan.made_at) == ("jobs", 8, clock.now())
        assert [letter.id for letter in plan.samples] == ["a0", "a1", "a2", "a3", "a4"]
        assert repr(plan) == "<PurgePlan 'jobs' [8 dead letters | 2024-01-01 00:00:00]>"
        assert free(client, "jobs") == 8

    def test_that_is_confirmed_removes_them_and_leaves_what_came_since(
        self, client: QueueClient, clock: FakeClock
    ) -> None:
        bury(client, "jobs", *[f"a{n:03}" for n in range(250)])
        plan = client.dead_letters("jobs").purge()
        clock.advance(1.0)
        bury(client, "jobs", "new")

        assert plan.confirm() == 250

        assert (buried(client, "jobs"), free(client, "jobs")) == (["new"], 1)
        assert plan.confirm() == 0

    @looked_into
    def test_knows_what_came_since_however_old_it_says_it_is(
        self, client: QueueClient, script: Script
    ) -> None:
        """A broker that moves a message may keep the time at which it was first sent."""
        bury(client, "jobs", "a1")
        plan = client.dead_letters("jobs").purge()
        bury(client, "jobs", "new")
        old = datetime(2000, 1, 1, tzinfo=UTC)
        script.always("receive", lambda act: [replace(each, enqueued_at=old) for each in act.run()])

        assert plan.confirm() == 1

        assert buried(client, "jobs") == ["new"]

    def test_of_everything_is_one_request_where_the_broker_has_one(
        self, client: QueueClient, script: Script
    ) -> None:
        bury(client, "jobs", "a1", "b1")
        plan = client.dead_letters("jobs").purge()
        bury(client, "jobs", "c1")
        received = len(script.calls("receive"))

        assert plan.confirm(everything=True) == 3

        assert (len(script.calls("purge")), len(script.calls("receive"))) == (1, received)
        assert buried(client, "jobs") == []

    @pytest.mark.parametrize("client", [{"purge": False}], indirect=True, ids=["no purge"])
    def test_of_everything_goes_one_by_one_where_it_has_none(
        self, client: QueueClient, script: Script
    ) -> None:
        bury(client, "jobs", "a1", "b1")
        plan = client.dead_letters("jobs").purge()
        bury(client, "jobs", "c1")

        assert plan.confirm(everything=True) == 3

        assert (script.calls("purge"), buried(client, "jobs")) == ([], [])

    def test_counts_what_it_shows_where_the_broker_does_not_count(
        self, client: QueueClient, script: Script
    ) -> None:
        bury(client, "jobs", *[f"a{n}" for n in range(4)])
        script.always("describe", lambda act: replace(act.run(), active=None))

        assert client.dead_letters("jobs").purge().count == 4

    def test_that_fails_raises_and_can_be_confirmed_again(self, client: QueueClient, script: Script) -> None:
        bury(client, "jobs", "a1", "b1")
        plan = client.dead_letters("jobs").purge()
        script.then("settle", fails_for({"a1": AuthorizationFailed}))

        with pytest.raises(BatchFailed, match="1 of 2"):
            plan.confirm()

        assert plan.confirm() == 1
        assert buried(client, "jobs") == []

    @not_looked_into
    def test_that_is_broken_off_tells_how_far_it_came(self, client: QueueClient, script: Script) -> None:
        bury(client, "jobs", *[f"a{n:02}" for n in range(20)])
        plan = client.dead_letters("jobs").purge()
        script.then("receive", passes, fails(AuthorizationFailed))

        with (
            patch("queue_runtime.deadletter.removing.ROUND", 10),
            pytest.raises(AuthorizationFailed) as caught,
        ):
            plan.confirm()

        assert caught.value.__notes__ == ["purge of 'jobs': 10 were removed before this"]
