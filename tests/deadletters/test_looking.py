"""Dead letters are looked at where they lie."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from io import StringIO
from typing import Any
from unittest.mock import patch

import pytest

from queue_runtime import QueueClient
from queue_runtime.errors import InvalidArgument, InvalidName, Throttled, UnsupportedOperation
from tests.deadletters.house import DEAD, LOOKED_INTO, NOT_LOOKED_INTO, URL, buried, bury, free
from tests.fakes import Script, fails, scripted

looked_into = pytest.mark.parametrize("client", [LOOKED_INTO], indirect=True, ids=["can be looked into"])
not_looked_into = pytest.mark.parametrize("client", [NOT_LOOKED_INTO], indirect=True, ids=["cannot"])


def names(count: int) -> list[str]:
    return [f"a{n:03}" for n in range(count)]


class TestAList:
    def test_shows_them_with_their_records_and_leaves_them_where_they_are(self, client: QueueClient) -> None:
        bury(client, "jobs", "a1", "b1", "c1")

        found = client.dead_letters("jobs").list()

        assert [view.id for view in found] == ["a1", "b1", "c1"]
        assert {view.dead_letter.reason for view in found} == {"bad"}
        assert free(client, "jobs") == 3

    def test_shows_no_more_than_it_was_asked_for(self, client: QueueClient) -> None:
        bury(client, "jobs", *names(25))

        assert [view.id for view in client.dead_letters("jobs").list(12)] == names(12)
        assert free(client, "jobs") == 25

    @not_looked_into
    def test_takes_no_more_than_it_shows(self, client: QueueClient) -> None:
        """Each that is received counts one more delivery."""
        bury(client, "jobs", *names(150))

        client.dead_letters("jobs").list(101)

        counts = [view.delivery_count for view in client.dead_letters("jobs").list(150)]
        assert counts == [2] * 101 + [1] * 49

    def test_of_none_shows_none(self, client: QueueClient) -> None:
        bury(client, "jobs", "a1", "b1")

        assert client.dead_letters("jobs").list(0) == []

    def test_of_an_empty_queue_shows_nothing(self, client: QueueClient) -> None:
        assert client.dead_letters("jobs").list() == []
        assert client.dead_letters("jobs").count() == 0

    @looked_into
    def test_goes_on_where_one_request_shows_fewer_than_it_was_asked_for(
        self, client: QueueClient, script: Script
    ) -> None:
        bury(client, "jobs", *names(25))
        script.always("peek", lambda act: act.run()[:7])
        dead = client.dead_letters("jobs")

        assert [view.id for view in dead.list()] == names(25)
        assert [view.id for view in dead.list(8)] == names(8)

    @pytest.mark.parametrize("chosen", [True, False])
    def test_takes_them_for_a_lease_of_its_own_only_where_it_may(self, script: Script, chosen: bool) -> None:
        with scripted(script, URL + "&lease=45", chosen_lease=chosen, peek=False) as client:
            bury(client, "jobs", "a1")
            with patch.object(client.runtime(), "keep_alive") as kept:
                assert len(client.dead_letters("jobs").list()) == 1

        assert kept.call_args.args[0].lease.length == (30.0 if chosen else 45.0)

    def test_is_tried_again_when_that_may_help(self, client: QueueClient, script: Script) -> None:
        bury(client, "jobs", "a1")
        for operation in ("describe", "peek", "receive"):
            script.then(operation, fails(Throttled))

        assert len(client.dead_letters("jobs").list()) == 1


class TestPages:
    def test_have_the_size_that_was_asked_for_and_the_last_one_the_rest(self, client: QueueClient) -> None:
        bury(client, "jobs", *names(25))

        sizes = [len(page) for page in client.dead_letters("jobs").pages(size=10)]

        assert sizes == [10, 10, 5]

    def test_end_at_the_limit(self, client: QueueClient) -> None:
        bury(client, "jobs", *names(25))

        assert [len(page) for page in client.dead_letters("jobs").pages(size=10, limit=12)] == [10, 2]

    def test_of_all_of_them_are_what_iterating_goes_through(self, client: QueueClient) -> None:
        bury(client, "jobs", *names(250))

        assert [letter.id for letter in client.dead_letters("jobs")] == buried(client, "jobs")
        assert free(client, "jobs") == 250

    def test_that_nobody_reads_to_the_end_let_go_of_what_they_held(self, client: QueueClient) -> None:
        bury(client, "jobs", *names(25))

        with closing(client.dead_letters("jobs").pages(size=10)) as pages:
            next(pages)

        assert free(client, "jobs") == 25

    @not_looked_into
    def test_hold_what_they_have_shown_so_that_it_is_not_shown_twice(self, client: QueueClient) -> None:
        bury(client, "jobs", *names(25))

        with closing(client.dead_letters("jobs").pages(size=10)) as pages:
            next(pages)
            next(pages)
            assert free(client, "jobs") == 5

    @not_looked_into
    @pytest.mark.parametrize("most", ["MOST_HELD", "MOST_HELD_BYTES"])
    def test_say_where_they_can_hold_no_more(self, client: QueueClient, most: str) -> None:
        bury(client, "jobs", *names(25))
        seen: list[str] = []
        limit = 20 if most == "MOST_HELD" else 20 * len("a000")

        with (
            patch(f"queue_runtime.deadletter.holding.{most}", limit),
            pytest.raises(UnsupportedOperation, match="export"),
        ):
            seen += [letter.id for page in client.dead_letters("jobs").pages(size=10) for letter in page]

        assert free(client, "jobs") == 25


class TestShowing:
    def test_brings_the_one_with_the_id_whole(self, client: QueueClient) -> None:
        bury(client, "jobs", *names(120))

        letter = client.dead_letters("jobs").show("a110")

        assert letter is not None
        assert (letter.id, letter.body, letter.dead_letter.reason) == ("a110", b"a110", "bad")
        assert free(client, "jobs") == 120

    def test_of_an_id_that_is_not_there_brings_nothing(self, client: QueueClient) -> None:
        bury(client, "jobs", "a1")

        assert client.dead_letters("jobs").show("b1") is None
        assert free(client, "jobs") == 1

    def test_of_what_is_no_id_is_refused(self, client: QueueClient) -> None:
        with pytest.raises(InvalidName):
            client.dead_letters("jobs").show("")


class TestCounting:
    def test_counts_those_in_hands_too(self, client: QueueClient) -> None:
        bury(client, "jobs", "a1", "b1", "c1")
        client.receive("jobs" + DEAD)

        assert client.dead_letters("jobs").count() == 3

    @looked_into
    @pytest.mark.parametrize("told", ["active", "leased", "delayed"])
    def test_goes_page_by_page_where_the_broker_does_not_tell(
        self, client: QueueClient, script: Script, told: str
    ) -> None:
        bury(client, "jobs", *names(250))
        client.receive("jobs" + DEAD)
        script.always("describe", lambda act: replace(act.run(), **{told: None}))

        assert client.dead_letters("jobs").count() == 250
        assert len(script.calls("peek")) == 4, "the last one is empty"


class TestWhatIsRefused:
    def test_numbers_out_of_their_range(self, client: QueueClient) -> None:
        dead = client.dead_letters("jobs")

        for call in (
            lambda: dead.list(-1),
            lambda: dead.replay(limit=-1),
            lambda: dead.remove(["a"], limit=-1),
            lambda: dead.import_([], limit=-1),
        ):
            with pytest.raises(InvalidArgument, match="limit must be a whole number from 0 on, it is -1"):
                call()
        with pytest.raises(InvalidArgument, match="size must be a whole number from 1 on, it is 0"):
            dead.pages(size=0)
        for rate in (0.0, -1.0, float("inf"), float("nan"), "20"):
            with pytest.raises(InvalidArgument, match="rate must be a number of messages a second above 0"):
                dead.replay(rate=rate)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match="max_replays must be a whole number from 0 on, it is -1"):
            dead.replay(max_replays=-1)
        with pytest.raises(InvalidArgument, match="start must be a whole number from 1 on, it is 0"):
            dead.import_([], start=0)

    def test_what_is_no_choice_and_no_file(self, client: QueueClient) -> None:
        dead = client.dead_letters("jobs")
        where: Any = "Timeout"
        file: Any = "letters.ndjson"

        for call in (
            lambda: dead.replay(where=where),
            lambda: dead.export(StringIO(), where=where),
            lambda: dead.import_([], where=where),
        ):
            with pytest.raises(InvalidArgument, match=r"where must be a function .* it is 'Timeout'"):
                call()
        with pytest.raises(InvalidArgument, match=r"open for writing, it is 'letters\.ndjson'"):
            dead.export(file)

    def test_a_queue_without_dead_letters(self, client: QueueClient) -> None:
        nested = client.dead_letters("jobs" + DEAD)

        for act in (nested.count, nested.list, nested.replay, nested.purge, lambda: nested.show("a")):
            with pytest.raises(UnsupportedOperation, match="has no dead-letter queue; give it one"):
                act()
