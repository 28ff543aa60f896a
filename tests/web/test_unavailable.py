"""While the broker is down a view says 503 and when to come again, in time; afterwards it sends again."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median

import pytest

from tests.web.agreed import OPEN_FOR
from tests.web.checks import check_ended_well, check_sent_once
from tests.web.conftest import Broker
from tests.web.load import Load, post
from tests.web.servers import gunicorn, serving, wait_until

IN_TIME = 9.5
"""Seconds. GitHub hangs up after ten.
https://docs.github.com/en/webhooks/using-webhooks/best-practices-for-using-webhooks"""

ONE_WORKER = gunicorn("--worker-class=gthread", "--threads=8")


def test_a_broker_that_is_down_is_said_in_time_then_at_once_and_used_when_it_is_up(
    broker_down: Broker, tmp_path: Path
) -> None:
    with serving(ONE_WORKER, tmp_path, target=broker_down.target) as server:
        with Load(server.port, threads=4) as load:
            load.until_any(lambda answers: sum(a.body.get("error") == "CircuitOpen" for a in answers) >= 20)
            down = load.answers()
            broker_down.relay.open()
            load.until(lambda good: len(good) >= 20)
        check_ended_well(server)

    refused = [each for each in down if each.body["error"] == "CircuitOpen"]
    assert {each.status for each in load.bad()} == {503}
    # A first one may find the breaker open when it tries again.
    assert {each.body["error"] for each in load.bad()} <= {"ConnectionFailed", "CircuitOpen"}
    assert max(each.seconds for each in load.bad()) < IN_TIME
    assert median(each.seconds for each in refused) < 0.5
    assert {int(each.headers["Retry-After"]) for each in refused} <= {1, int(OPEN_FOR)}
    check_sent_once(broker_down, load.answers())


@pytest.fixture
def silent() -> Iterator[int]:
    """A port of 127.0.0.1 where connections are taken and nothing is answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield listener.getsockname()[1]


def test_a_broker_that_does_not_answer_is_said_in_time(silent: int, tmp_path: Path) -> None:
    target = f"sqs://eu-west-1?endpoint_url=http%3A%2F%2F127.0.0.1%3A{silent}"
    with serving(ONE_WORKER, tmp_path, target=target) as server:
        with ThreadPoolExecutor(4) as crew:
            answers = list(crew.map(partial(post, server.port), [f"/send/events/n{n}" for n in range(4)]))
        check_ended_well(server)

    assert {each.status for each in answers} == {503}
    assert max(each.seconds for each in answers) < IN_TIME


def test_a_broker_that_falls_silent_is_said_in_time_and_used_when_it_speaks_again(
    broker: Broker, tmp_path: Path
) -> None:
    with serving(ONE_WORKER, tmp_path, target=broker.target) as server:
        assert post(server.port, "/send/events/before").status == 202
        broker.relay.hold()
        with ThreadPoolExecutor(8) as crew:
            answers = list(crew.map(partial(post, server.port), [f"/send/events/n{n}" for n in range(8)]))
        broker.relay.release()
        again = (f"/send/events/after-{n}" for n in count())
        assert wait_until(lambda: post(server.port, next(again)).status == 202)
        check_ended_well(server)

    assert {each.status for each in answers} == {503}
    assert max(each.seconds for each in answers) < IN_TIME
    found = broker.drain()
    assert found["before"] == 1
    assert max(found.values()) == 1
