"""A replay that fails tells what it has done, leaves nothing out, and can be run again."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest

from queue_runtime import QueueClient
from queue_runtime.errors import (
    AuthorizationFailed,
    BatchFailed,
    InvalidName,
    InvalidReceipt,
    LeaseLost,
    MessageTooLarge,
    NotAttempted,
    OutcomeUnknown,
    Throttled,
)
from queue_runtime.testing import FakeClock
from tests.deadletters.house import DEAD, NOT_LOOKED_INTO, buried, bury, free, gives_back
from tests.fakes import Act, Script, fails, fails_for, loses, passes, stored

not_looked_into = pytest.mark.parametrize("client", [NOT_LOOKED_INTO], indirect=True, ids=["cannot"])


def chunks_of(size: int) -> Any:
    return patch("queue_runtime.deadletter.carrier.CHUNK", size)


class TestSending:
    def test_that_fails_leaves_the_dead_letter(self, client: QueueClient, script: Script) -> None:
        bury(client, "jobs", "a1", "b1", "c1")
        script.then("send", fails_for({"b1": MessageTooLarge}))

        report = client.dead_letters("jobs").replay()

        assert report.replayed == ("a1", "c1")
        [failed] = report.failed
        assert (failed.id, type(failed.error), failed.copied) == ("b1", MessageTooLarge, False)
        assert (stored(client, "jobs"), buried(client, "jobs")) == (["a1", "c1"], ["b1"])
        assert free(client, "jobs") == 1

    def test_that_fails_for_one_message_keeps_none_of_the_others(
        self, client: QueueClient, script: Script
    ) -> None:
        bury(client, "jobs", "a1", "b1", "c1", "d1")
        script.then("send", fails_for({"a1": MessageTooLarge}))

        with chunks_of(2):
            report = client.dead_letters("jobs").replay()

        assert (report.replayed, report.ended, report.error) == (("b1", "c1", "d1"), "all", None)

    @pytest.mark.parametrize("queue", ["jobs", "groups"])
    def test_is_not_possible_of_one_and_keeps_none_of_the_others(
        self, client: QueueClient, queue: str
    ) -> None:
        bury(client, queue, "a1", "a2", "b1")
        bad = client.runtime().provider.peek(queue + DEAD, 1)[0]

        def replay_id(broker_id: str) -> str:
            return "\n" if broker_id == bad.broker_id else f"re-{broker_id}"

        with patch("queue_runtime.deadletter.replaying.replay_id", replay_id):
            report = client.dead_letters(queue).replay()

        assert report.replayed == (("a2", "b1") if queue == "jobs" else ("b1",))
        first = report.failed[0]
        assert (first.id, type(first.error), first.copied) == ("a1", InvalidName, False)

    @pytest.mark.parametrize(("error", "tries"), [(AuthorizationFailed, 1), (Throttled, 3)])
    def test_that_would_fail_for_all_ends_the_replay(
        self, client: QueueClient, script: Script, error: type[Any], tries: int
    ) -> None:
        bury(client, "jobs", "a1", "b1", "c1", "d1", "e1", "f1")
        script.then("send", passes, *[fails(error)] * tries)

        with chunks_of(2):
            report = client.dead_letters("jobs").replay()

        assert (report.replayed, report.left) == (("a1", "b1"), ("e1", "f1"))
        assert [failed.id for failed in report.failed] == ["c1", "d1"]
        assert (report.ended, type(report.error)) == ("error", error)
        assert free(client, "jobs") == 4
        assert str(report).startswith(f"jobs: 2 replayed, 2 failed, 2 left; ended by {error.__name__}: ")

        assert client.dead_letters("jobs").replay().replayed == ("c1", "d1", "e1", "f1")
        assert stored(client, "jobs") == ["a1", "b1", "c1", "d1", "e1", "f1"]

    @pytest.mark.parametrize("at_once", [1, 100])
    def test_that_fails_stops_its_session_for_the_whole_replay(
        self, client: QueueClient, script: Script, at_once: int
    ) -> None:
        bury(client, "groups", "a1", "a2", "b1", "a3", "b2")
        script.then("send", fails_for({"a1": MessageTooLarge}))

        with chunks_of(at_once), patch("queue_runtime.deadletter.replaying.ROUND", 2 * at_once):
            report = client.dead_letters("groups").replay()

        assert report.replayed == ("b1", "b2")
        assert [(failed.id, type(failed.error)) for failed in report.failed] == [
            ("a1", MessageTooLarge),
            ("a2", NotAttempted),
            ("a3", NotAttempted),
        ]
        assert stored(client, "groups") == ["b1", "b2"]
        assert buried(client, "groups") == ["a1", "a2", "a3"]

    def test_that_fails_stops_no_session_where_there_is_no_order(
        self, client: QueueClient, script: Script
    ) -> None:
        bury(client, "jobs", "a1", "a2")
        script.then("send", fails_for({"a1": MessageTooLarge}))

        with chunks_of(1):
            assert client.dead_letters("jobs").replay().replayed == ("a2",)

    @pytest.mark.parametrize("step", [fails(OutcomeUnknown), loses()], ids=["not sent", "sent"])
    def test_without_an_answer_leaves_the_dead_letter_and_comes_once(
        self, client: QueueClient, script: Script, step: Any
    ) -> None:
        bury(client, "groups", "a1")
        script.then("send", *[step] * 3)

        report = client.dead_letters("groups").replay()

        [failed] = report.failed
        assert (failed.copied, type(failed.error)) == (None, OutcomeUnknown)
        assert (report.ended, buried(client, "groups")) == ("error", ["a1"])

        client.dead_letters("groups").replay()
        assert (stored(client, "groups"), buried(client, "groups")) == (["a1"], [])


class TestRemoving:
    def test_that_fails_says_that_there_are_two(self, client: QueueClient, script: Script) -> None:
        bury(client, "jobs", "a1", "b1")
        script.then("settle", fails_for({"a1": InvalidReceipt}))

        report = client.dead_letters("jobs").replay()

        [failed] = report.failed
        assert (failed.id, failed.copied, report.replayed) == ("a1", True, ("b1",))
        assert (stored(client, "jobs"), buried(client, "jobs")) == (["a1", "b1"], ["a1"])

    def test_that_fails_is_made_good_if_the_dead_letter_comes_again(
        self, client: QueueClient, script: Script
    ) -> None:
        """It must not be copied a second time."""
        bury(client, "jobs", "a1", "b1")

        script.then("settle", gives_back(client, "a1"))
        with patch("queue_runtime.deadletter.replaying.ROUND", 2):
            report = client.dead_letters("jobs").replay()

        assert (sorted(report.replayed), report.failed) == (["a1", "b1"], ())
        assert (stored(client, "jobs"), buried(client, "jobs")) == (["a1", "b1"], [])

    @pytest.mark.parametrize("broken_off", [KeyboardInterrupt, SystemExit])
    def test_that_is_broken_off_doubles_no_more_than_what_was_under_way(
        self, client: QueueClient, script: Script, broken_off: type[BaseException]
    ) -> None:
        """And on a queue that knows repeated ids, nothing."""
        bury(client, "groups", *[f"{s}{n}" for n in range(4) for s in "abc"])

        def stop(act: Act) -> Any:
            raise broken_off

        script.then("settle", passes, stop)
        with chunks_of(3), pytest.raises(broken_off) as caught:
            client.dead_letters("groups").replay()

        assert caught.value.__notes__ == ["replay to 'groups': 3 were sent back before this"]
        assert (len(stored(client, "groups")), len(buried(client, "groups"))) == (6, 9)
        assert free(client, "groups") == 9

        client.dead_letters("groups").replay()
        for session in "abc":
            mine = [name for name in stored(client, "groups") if name[0] == session]
            assert mine == [f"{session}{n}" for n in range(4)]
        assert buried(client, "groups") == []


class TestFetching:
    def test_that_fails_at_first_is_raised(self, client: QueueClient, script: Script) -> None:
        bury(client, "jobs", "a1")
        script.then("receive", fails(AuthorizationFailed))

        with pytest.raises(AuthorizationFailed):
            client.dead_letters("jobs").replay()

    @not_looked_into
    def test_that_fails_later_is_in_the_report(self, client: QueueClient, script: Script) -> None:
        bury(client, "jobs", *[f"a{n:02}" for n in range(25)])
        script.then("receive", passes, passes, fails(AuthorizationFailed))

        with patch("queue_runtime.deadletter.replaying.ROUND", 10):
            report = client.dead_letters("jobs").replay()

        assert (len(report.replayed), report.ended) == (20, "error")
        assert isinstance(report.error, AuthorizationFailed)
        assert free(client, "jobs") == 5


class TestALostHold:
    def test_is_not_sent_back_and_stops_its_session(
        self, client: QueueClient, script: Script, clock: FakeClock
    ) -> None:
        """Somebody else may be at it."""
        bury(client, "groups", "a1", "b1", "a2")

        def lose(view: Any) -> bool:
            for held in list(client.runtime().leases._held.values()):
                if held.delivery is not None and held.delivery.message.id == "a1":
                    held.lease.lose("scripted")
            return True

        report = client.dead_letters("groups").replay(where=lose)

        assert report.replayed == ("b1",)
        assert [(failed.id, type(failed.error), failed.copied) for failed in report.failed] == [
            ("a1", LeaseLost, False),
            ("a2", NotAttempted, False),
        ]


class TestAReport:
    def test_raises_on_demand_what_failed(self, client: QueueClient, script: Script) -> None:
        bury(client, "jobs", "a1", "b1", "c1")
        script.then("send", fails_for({"b1": MessageTooLarge}))
        report = client.dead_letters("jobs").replay()

        with pytest.raises(BatchFailed, match=r"replay to 'jobs': 1 of 3 messages failed.*b1") as caught:
            report.raise_failed()

        assert [(outcome.value, outcome.ok) for outcome in caught.value.outcomes] == [
            ("a1", True),
            ("c1", True),
            ("b1", False),
        ]

    def test_raises_on_demand_what_ended_it(self, client: QueueClient, script: Script) -> None:
        bury(client, "jobs", *[f"a{n:03}" for n in range(101)])
        script.then("receive", *[passes] * (1 if client.describe("jobs").capabilities.peek else 10))
        script.then("receive", fails(AuthorizationFailed))
        with patch("queue_runtime.deadletter.replaying.ROUND", 100):
            report = client.dead_letters("jobs").replay()

        with pytest.raises(AuthorizationFailed):
            report.raise_failed()

    def test_of_what_went_well_raises_nothing(self, client: QueueClient) -> None:
        bury(client, "jobs", "a1")

        report = client.dead_letters("jobs").replay()

        report.raise_failed()
        assert str(report) == "jobs: 1 replayed; there were no more"
