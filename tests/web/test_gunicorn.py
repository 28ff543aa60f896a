"""Under gunicorn: nothing lost, nothing twice, nothing shared, however the workers come and go."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.web.agreed import SUBMITTED
from tests.web.checks import check_connections, check_ended_well, check_first_requests, check_sent_once
from tests.web.conftest import Broker
from tests.web.load import Answer, Load
from tests.web.servers import gunicorn, serving, wait_until


@dataclass(frozen=True, slots=True)
class Row:
    """One way to run gunicorn; *parent* is what the process that imports the app does with the client."""

    kind: str
    preload: bool
    parent: str = "nothing"

    def arguments(self, *more: str) -> list[str]:
        chosen = [f"--worker-class={self.kind}", "--workers=2"]
        if self.kind == "gthread":
            chosen.append("--threads=4")
        if self.preload:
            chosen.append("--preload")
        return gunicorn(*chosen, *more)

    def __str__(self) -> str:
        return f"{self.kind}-{'preload' if self.preload else 'each'}-{self.parent}"


KINDS = ("sync", "gthread")
ROWS = [
    Row(kind, preload, parent)
    for kind in KINDS
    for preload, parent in [
        (False, "nothing"),
        (True, "nothing"),
        (True, "sends"),
        (True, "submits"),
        (True, "works"),
    ]
]
PARENTS = {"nothing": 0, "sends": 1, "submits": SUBMITTED, "works": 1}
"""Messages that the process which imports the app sends."""


def answered_by(workers: set[int]) -> Callable[[list[Answer]], bool]:
    return lambda good: workers <= {each.pid for each in good}


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_reload_under_load_loses_and_repeats_nothing(row: Row, broker: Broker, tmp_path: Path) -> None:
    with serving(row.arguments(), tmp_path, target=broker.target, parent=row.parent) as server:
        with Load(server.port) as load:
            load.until(lambda good: len({each.pid for each in good}) == 2)
            old = {each.pid for each in load.good()}
            server.tell(signal.SIGHUP)
            load.until(lambda good: len({each.pid for each in good} - old) == 2)
            new = {each.pid for each in load.good()} - old
        check_connections(broker, [each for each in load.good() if each.pid in new])
        check_first_requests(load.good())
        check_ended_well(server)

    assert load.bad() == []
    check_sent_once(broker, load.answers(), parents=PARENTS[row.parent])


@pytest.mark.parametrize("row", [Row(kind, preload) for kind in KINDS for preload in (True, False)], ids=str)
def test_workers_that_end_after_some_requests_lose_and_repeat_nothing(
    row: Row, broker: Broker, tmp_path: Path
) -> None:
    arguments = row.arguments("--max-requests=20", "--max-requests-jitter=5")
    with serving(arguments, tmp_path, target=broker.target, parent=row.parent) as server:
        with Load(server.port) as load:
            load.until(lambda good: len({each.pid for each in good}) >= 4)
        check_ended_well(server)

    assert {each.status for each in load.bad()} <= {0}, "nothing but connections that a worker's end broke"
    check_first_requests(load.good())
    assert [pids for pids in broker.relay.senders() if len(pids) > 1] == []
    check_sent_once(broker, load.answers())


@pytest.mark.parametrize("fifo", [False], indirect=True, ids=["standard"])
def test_a_standard_queue_gets_each_message_once(broker: Broker, tmp_path: Path) -> None:
    row = Row("gthread", True, "sends")
    with serving(row.arguments(), tmp_path, target=broker.target, parent=row.parent) as server:
        with Load(server.port) as load:
            load.until(lambda good: len(good) >= 100)
        check_ended_well(server)

    assert load.bad() == []
    check_sent_once(broker, load.answers(), parents=1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_under_load_loses_nothing_that_was_answered(kind: str, broker: Broker, tmp_path: Path) -> None:
    row = Row(kind, True, "sends")
    with (
        serving(row.arguments(), tmp_path, target=broker.target, parent=row.parent) as server,
        Load(server.port) as load,
    ):
        load.until(lambda good: len(good) >= 40)
        check_ended_well(server)

    assert {each.status for each in load.bad()} <= {0}
    check_sent_once(broker, load.answers(), parents=1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_that_is_killed_loses_nothing_that_was_answered(
    kind: str, broker: Broker, tmp_path: Path
) -> None:
    row = Row(kind, True, "sends")
    with serving(row.arguments(), tmp_path, target=broker.target, parent=row.parent) as server:
        with Load(server.port) as load:
            load.until(lambda good: len({each.pid for each in good}) == 2)
            killed = load.good()[0].pid
            os.kill(killed, signal.SIGKILL)
            load.until(lambda good: len({each.pid for each in good}) == 3)
        check_connections(broker, [each for each in load.good() if each.pid != killed])
        assert server.stop() == 0, server.log()

    check_sent_once(broker, load.answers(), parents=1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_of_the_parents_goes_on_in_the_parent_alone(
    kind: str, broker: Broker, tmp_path: Path
) -> None:
    row = Row(kind, True, "works")
    journal = tmp_path / "journal"
    with serving(row.arguments(), tmp_path, target=broker.target, parent=row.parent) as server:
        with Load(server.port, "send/jobs") as load:
            load.until(lambda good: len({each.pid for each in good}) == 2)
            server.tell(signal.SIGHUP)  # forks while its threads are at work
            load.until(lambda good: len({each.pid for each in good}) == 4)
        sent = sorted(each.name for each in load.good())
        assert wait_until(lambda: journal.exists() and journal.read_bytes().count(b"\n") >= len(sent))
        check_ended_well(server)

    handled = [line.split() for line in journal.read_text().splitlines()]
    assert sorted(name for _, name in handled) == sent
    assert {int(pid) for pid, _ in handled} == {server.pid}
