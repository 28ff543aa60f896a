"""What has to be true of every server that has sent: all of it, once, on connections of its own."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

from tests.web.conftest import Broker
from tests.web.load import Answer
from tests.web.servers import Server
from tests.web.sockets import HAS_PROC, connections


def check_sent_once(broker: Broker, answers: Iterable[Answer], *, parents: int = 0) -> None:
    """Each message of a good answer is on the queue once, those of the others once or not at all; and as many
    of the parent's as it says."""
    answers = list(answers)
    good = {each.name for each in answers if each.status == 202}
    unknown = {each.name for each in answers if each.status != 202}
    found = broker.drain()
    from_parent = {name for name in found if name.startswith("parent-")}

    assert good - found.keys() == set(), "lost"
    assert found.keys() - good - unknown - from_parent == set(), "never asked for"
    assert {name: times for name, times in found.items() if times > 1} == {}, "stored twice"
    # A FIFO queue would hide it.
    assert {name: times for name, times in broker.relay.sends().items() if times > 1} == {}, "sent twice"
    assert len(from_parent) == parents


def check_connections(broker: Broker, answers: Iterable[Answer]) -> None:
    """No connection carried the messages of two processes, and each that gave *answers*, and lives, holds one
    of its own."""
    mixed = [pids for pids in broker.relay.senders() if len(pids) > 1]
    assert mixed == [], f"one connection for the processes {mixed}"
    if not HAS_PROC:
        return
    # A fork copies what the parent has open; that no worker used it, the relay has seen.
    inherited = {each.pid: set(each.body["sockets"]) for each in answers}
    own = {pid: connections(pid, broker.relay.port) - inherited[pid] for pid in inherited}
    assert [pid for pid, sockets in own.items() if not sockets] == []
    assert [(a, b) for a, b in combinations(own, 2) if own[a] & own[b]] == []


def check_first_requests(answers: Iterable[Answer]) -> None:
    """No worker began with a thread of the library's, nor with its parent's worker at work."""
    answers = list(answers)
    assert {thread for each in answers for thread in each.body["threads"]} == set()
    assert "running" not in {each.body["worker"] for each in answers}


def check_ended_well(server: Server) -> None:
    """It ends when told to, and neither it nor a worker of its has complained."""
    assert server.stop() == 0, server.log()
    bad = [
        line
        for line in server.log().splitlines()
        if any(
            word in line
            for word in ("[ERROR]", "[CRITICAL]", "Traceback", "exited with", "SIGKILL", "TIMEOUT")
        )
    ]
    assert bad == [], server.log()
