"""Dead letters go into files, and from files back to their queue."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from queue_runtime import Message, QueueClient
from queue_runtime.errors import (
    AuthorizationFailed,
    BatchFailed,
    DecodeError,
    InvalidArgument,
    MessageTooLarge,
    NotAttempted,
    Throttled,
    UnsupportedOperation,
)
from queue_runtime.testing import FakeClock
from queue_runtime.testing.conformance.harness import FakeTime
from tests.deadletters.house import DEAD, NOT_LOOKED_INTO, buried, bury, free, gives_back
from tests.fakes import REAL, Act, Script, fails, fails_for, loses, passes, stored

not_looked_into = pytest.mark.parametrize("client", [NOT_LOOKED_INTO], indirect=True, ids=["cannot"])


def names(count: int) -> list[str]:
    return [f"a{n:03}" for n in range(count)]


def ids(file: io.StringIO) -> list[str]:
    return [json.loads(line)["id"] for line in file.getvalue().splitlines()]


def lines(*names: str, **fields: Any) -> list[str]:
    return [
        json.dumps({"id": n, "body": n, "broker_id": f"b-{n}", "session_id": n[0], **fields}) + "\n"
        for n in names
    ]


def imported_in_chunks_of(size: int) -> Any:
    return patch("queue_runtime.deadletter.carrier.CHUNK", size)


class TestExporting:
    def test_writes_a_line_for_each_and_leaves_them_where_they_are(self, client: QueueClient) -> None:
        bury(client, "jobs", *names(250))
        file = io.StringIO()

        report = client.dead_letters("jobs").export(file)

        assert ids(file) == buried(client, "jobs")
        assert (report.exported, report.refused, report.failed, report.ended) == (250, 0, (), "all")
        assert free(client, "jobs") == 250
        assert str(report) == "jobs: 250 exported, 0 refused, 0 failed; there were no more"

    def test_writes_those_that_were_chosen_at_most_so_many(self, client: QueueClient) -> None:
        bury(client, "jobs", "a1", "b1", "a2", "b2", "a3")
        file = io.StringIO()
        dead = client.dead_letters("jobs")

        report = dead.export(file, where=lambda letter: letter.id[0] == "a", limit=2)

        assert (ids(file), report.refused, report.ended) == (["a1", "a2"], 2, "limit")
        assert dead.export(file, limit=0).exported == 0

    def test_puts_a_session_into_the_order_it_was_sent_in(self, client: QueueClient) -> None:
        client.send_batch("jobs", [Message(body=b"", id=f"a{n}", session_id="a") for n in range(3)])
        first, second, third = client.receive("jobs", max_messages=3)
        for message in (third, first, second):
            client.dead_letter(message, reason="bad")
        file = io.StringIO()

        client.dead_letters("jobs").export(file)

        assert ids(file) == ["a0", "a1", "a2"]

    @not_looked_into
    def test_ends_where_it_can_hold_no_more(self, client: QueueClient) -> None:
        bury(client, "jobs", *names(60))
        file = io.StringIO()
        with (
            patch("queue_runtime.deadletter.holding.MOST_HELD", 40),
            patch("queue_runtime.deadletter.exporting.CHUNK", 20),
        ):
            report = client.dead_letters("jobs").export(file)

        assert (report.exported, report.ended, free(client, "jobs")) == (40, "held", 60)

    def test_that_is_broken_off_says_how_far_it_came(self, client: QueueClient) -> None:
        bury(client, "jobs", "a1", "b1")

        def choose(letter: Any) -> bool:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt) as caught:
            client.dead_letters("jobs").export(io.StringIO(), where=choose)

        assert caught.value.__notes__ == ["export of 'jobs': 0 were exported before this"]
        assert free(client, "jobs") == 2


class TestTakingOut:
    def test_removes_what_is_in_the_file(self, client: QueueClient, tmp_path: Path) -> None:
        bury(client, "jobs", *names(250))
        path = tmp_path / "dead.ndjson"

        with (
            path.open("w") as file,
            patch("queue_runtime.deadletter.holding.MOST_HELD", 200),
        ):
            report = client.dead_letters("jobs").export(file, remove=True)

        assert (report.exported, report.ended) == (250, "all")
        assert sorted(json.loads(line)["id"] for line in path.read_text().splitlines()) == names(250)
        assert buried(client, "jobs") == []

    def test_removes_nothing_before_it_is_in_the_file(
        self, client: QueueClient, script: Script, tmp_path: Path
    ) -> None:
        bury(client, "jobs", "a1", "b1")
        path = tmp_path / "dead.ndjson"
        seen: list[str] = []

        def look(act: Act) -> Any:
            seen.append(path.read_text())
            return act.run()

        script.then("settle", look)
        with path.open("w", buffering=1 << 20) as file:
            client.dead_letters("jobs").export(file, remove=True)

        assert len(seen[0].splitlines()) == 2

    def test_of_which_the_file_fails_removes_nothing(self, client: QueueClient) -> None:
        bury(client, "jobs", "a1", "b1")

        class Full(io.StringIO):
            def flush(self) -> None:
                raise OSError(28, "No space left on device")

        with pytest.raises(OSError, match="No space"):
            client.dead_letters("jobs").export(Full(), remove=True)

        assert free(client, "jobs") == 2

    def test_says_what_is_in_both_places(self, client: QueueClient, script: Script) -> None:
        bury(client, "jobs", "a1", "b1")
        script.then("settle", fails_for({"a1": AuthorizationFailed}))
        file = io.StringIO()

        report = client.dead_letters("jobs").export(file, remove=True)

        assert (ids(file), buried(client, "jobs")) == (["a1", "b1"], ["a1"])
        [failed] = report.failed
        assert (failed.id, failed.copied, report.ended) == ("a1", True, "error")
        with pytest.raises(BatchFailed, match="export of 'jobs'"):
            report.raise_failed()

    def test_writes_one_that_comes_again_once(self, client: QueueClient, script: Script) -> None:
        bury(client, "jobs", "a1", "b1")
        script.then("settle", gives_back(client, "a1"))
        file = io.StringIO()

        with patch("queue_runtime.deadletter.exporting.CHUNK", 2):
            report = client.dead_letters("jobs").export(file, remove=True)

        assert (ids(file), report.exported, report.failed) == (["a1", "b1"], 2, ())
        assert buried(client, "jobs") == []

    @not_looked_into
    def test_that_cannot_fetch_is_raised_at_first_and_reported_later(
        self, client: QueueClient, script: Script
    ) -> None:
        bury(client, "jobs", *names(20))
        dead, file = client.dead_letters("jobs"), io.StringIO()
        script.then("receive", fails(AuthorizationFailed), passes, fails(AuthorizationFailed))

        with pytest.raises(AuthorizationFailed):
            dead.export(file)
        with patch("queue_runtime.deadletter.exporting.CHUNK", 10):
            report = dead.export(file, remove=True)

        assert (report.exported, report.ended, len(buried(client, "jobs"))) == (10, "error", 10)
        with pytest.raises(AuthorizationFailed):
            report.raise_failed()


class TestImporting:
    @pytest.mark.parametrize("queue", ["events", "groups", "jobs"])
    def test_brings_back_what_was_exported(self, client: QueueClient, queue: str, tmp_path: Path) -> None:
        bury(client, queue, *[f"{s}{n:02}" for n in range(60) for s in "abc"])
        path, dead = tmp_path / "dead.ndjson", client.dead_letters(queue)
        with path.open("w") as file:
            dead.export(file, remove=True)

        with path.open() as file:
            report = dead.import_(file)

        assert (report.sent, report.next_line, report.ended) == (180, 181, "all")
        back = stored(client, queue)
        for session in "abc":
            mine = [name for name in back if name[0] == session]
            assert (sorted(mine) if queue == "jobs" else mine) == [f"{session}{n:02}" for n in range(60)]
        assert buried(client, queue) == []

    def test_counts_a_replay_and_leaves_out_what_loops(self, client: QueueClient) -> None:
        report = client.dead_letters("jobs").import_([*lines("a1", replays=2), *lines("b1", replays=3)])

        [message] = client.receive("jobs", max_messages=10)
        assert (message.id, message.replays) == ("a1", 3)
        assert (report.sent, report.looping) == (1, (2,))

    def test_sends_those_that_were_chosen_at_most_so_many(self, client: QueueClient) -> None:
        file = lines("a1", "b1", "a2", "a3")

        report = client.dead_letters("jobs").import_(file, where=lambda letter: letter.id[0] == "a", limit=2)

        assert (stored(client, "jobs"), report.refused, report.ended) == (["a1", "a2"], 1, "limit")
        assert report.next_line == 4
        assert client.dead_letters("jobs").import_(file, start=4).sent == 1

    def test_dry_sends_nothing_and_says_what_it_would(self, client: QueueClient) -> None:
        report = client.dead_letters("jobs").import_([*lines("a1", "b1"), "?\n"], dry_run=True)

        assert (report.sent, [each.line for each in report.malformed]) == (2, [3])
        assert stored(client, "jobs") == []
        assert str(report) == (
            "jobs: 2 would be sent, 0 refused, 1 malformed; there were no more; next line 4"
        )

    def test_names_lines_that_cannot_be_read_and_sends_the_others(self, client: QueueClient) -> None:
        file = ["\ufeff" + lines("a1")[0], "\n", "nonsense\n", *lines("b1"), '{"id": "c1"}', *lines("d1")]

        report = client.dead_letters("jobs").import_(file)

        assert sorted(stored(client, "jobs")) == ["a1", "b1", "d1"]
        assert [(each.line, each.id, type(each.error)) for each in report.malformed] == [
            (3, None, DecodeError),
            (5, None, DecodeError),
        ]
        assert (report.sent, report.next_line, report.ended) == (3, 7, "all")
        with pytest.raises(BatchFailed, match=r"import to 'jobs', 3 sent: 2 of 2 messages failed"):
            report.raise_failed()

    def test_passes_over_a_line_of_which_no_copy_can_be_made(self, client: QueueClient) -> None:
        forged = lines("b1", broker_id="b\n")
        no_session = lines("c1", session_id=None, dead_letter={"reason": "r", "session_id": ""})

        report = client.dead_letters("jobs").import_([*lines("a1"), *forged, *no_session, *lines("d1")])

        assert sorted(stored(client, "jobs")) == ["a1", "c1", "d1"]
        assert [each.line for each in report.malformed] == [2]
        assert (report.sent, report.next_line, report.ended) == (3, 5, "all")

    def test_gives_up_on_what_is_no_export(self, client: QueueClient) -> None:
        report = client.dead_letters("jobs").import_([*lines("a1"), *["x\n"] * 5000])

        assert (report.sent, len(report.malformed), report.ended) == (1, 1000, "error")
        with pytest.raises(BatchFailed):
            report.raise_failed()
        assert "is this a file that `export` wrote?" in str(report.error)

    def test_reads_no_further_than_it_sends(self, client: QueueClient) -> None:
        """However long the file is, a hundred lines are in memory."""
        read = 0

        def endless() -> Iterator[str]:
            nonlocal read
            while True:
                read += 1
                yield lines(f"a{read}")[0]

        report = client.dead_letters("jobs").import_(endless(), limit=250)

        assert (report.sent, read) == (250, 250)

    def test_keeps_to_its_rate(self, client: QueueClient, clock: FakeClock) -> None:
        began = clock.monotonic()
        work = lambda: client.dead_letters("jobs").import_(lines(*names(5)), rate=2.0)  # noqa: E731
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        FakeTime(clock).join([thread], 60.0)
        thread.join(REAL)

        assert clock.monotonic() - began == pytest.approx(2.0)
        assert len(stored(client, "jobs")) == 5

    def test_that_fails_for_one_message_goes_on_and_stops_its_session(
        self, client: QueueClient, script: Script
    ) -> None:
        script.then("send", fails_for({"a1": MessageTooLarge}))

        with imported_in_chunks_of(2):
            report = client.dead_letters("groups").import_(lines("a1", "b1", "a2", "b2"))

        assert (stored(client, "groups"), report.sent) == (["b1", "b2"], 2)
        assert [(each.line, each.id, type(each.error)) for each in report.failed] == [
            (1, "a1", MessageTooLarge),
            (3, "a2", NotAttempted),
        ]
        assert (report.next_line, report.ended) == (5, "all")

    def test_that_would_fail_for_all_ends_and_goes_on_later_at_that_line(
        self, client: QueueClient, script: Script
    ) -> None:
        file = lines(*names(10))
        script.then("send", passes, *[fails(Throttled)] * 3)

        with imported_in_chunks_of(4):
            report = client.dead_letters("jobs").import_(file)

        assert (report.sent, report.next_line, report.ended) == (4, 5, "error")
        with pytest.raises(BatchFailed):
            report.raise_failed()
        again = client.dead_letters("jobs").import_(file, start=report.next_line)
        assert (again.sent, again.next_line) == (6, 11)
        assert stored(client, "jobs") == names(10)

    def test_of_what_may_have_been_sent_stores_it_once_where_repeated_ids_are_dropped(
        self, client: QueueClient, script: Script
    ) -> None:
        script.then("send", *[loses()] * 3)
        file = lines("a1", "b1")

        report = client.dead_letters("groups").import_(file)
        assert (report.sent, report.next_line) == (0, 1)
        client.dead_letters("groups").import_(file, start=1)

        assert stored(client, "groups") == ["a1", "b1"]

    def test_and_a_replay_of_the_same_store_it_once(self, client: QueueClient) -> None:
        """An export without removal, replayed and imported: the deduplication ids are the same."""
        bury(client, "groups", "a1")
        file = io.StringIO()
        dead = client.dead_letters("groups")
        dead.export(file)

        dead.replay()
        file.seek(0)
        dead.import_(file)

        assert stored(client, "groups") == ["a1"]

    def test_that_is_broken_off_says_where_to_go_on(self, client: QueueClient) -> None:
        def choose(letter: Any) -> bool:
            if letter.id == "a004":
                raise KeyboardInterrupt
            return True

        with imported_in_chunks_of(2), pytest.raises(KeyboardInterrupt) as caught:
            client.dead_letters("jobs").import_(lines(*names(6)), where=choose)

        assert caught.value.__notes__ == ["import to 'jobs': 4 were sent before this; go on at line 5"]
        assert stored(client, "jobs") == names(4)

    def test_takes_text_only(self, client: QueueClient) -> None:
        file: Any = io.BytesIO(b"{}\n")

        with pytest.raises(InvalidArgument, match="line 1 is bytes; open the file as text"):
            client.dead_letters("jobs").import_(file)

    def test_needs_no_dead_letter_queue(self, client: QueueClient) -> None:
        nested = client.dead_letters("jobs" + DEAD)

        assert nested.import_(lines("a1")).sent == 1
        with pytest.raises(UnsupportedOperation):
            nested.export(io.StringIO())

    def test_of_nothing_sends_nothing(self, client: QueueClient) -> None:
        report = client.dead_letters("jobs").import_([])

        assert (report.sent, report.next_line, report.ended) == (0, 1, "all")
        report.raise_failed()
