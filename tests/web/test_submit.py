"""What a view has submitted is sent when its process ends in order, by that process, and once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.web.agreed import SUBMITTED
from tests.web.checks import check_ended_well, check_sent_once
from tests.web.conftest import Broker
from tests.web.load import Load, post
from tests.web.servers import ROOT, gunicorn, serving, wait_until

CONFIG = ROOT / "examples" / "web_views" / "gunicorn_conf.py"

KINDS = {"sync": ["--worker-class=sync"], "gthread": ["--worker-class=gthread", "--threads=4"]}


@pytest.mark.parametrize("closing", ["atexit", "hook"])
@pytest.mark.parametrize("kind", KINDS)
def test_is_sent_at_the_end_of_the_worker(kind: str, closing: str, broker: Broker, tmp_path: Path) -> None:
    arguments = [
        *KINDS[kind],
        "--preload",
        "--workers=1",
        *([f"--config={CONFIG}"] if closing == "hook" else []),
    ]
    with serving(gunicorn(*arguments), tmp_path, target=broker.target, closing=closing) as server:
        answers = [post(server.port, "/send/events/first")]
        broker.relay.hold()
        answers += [post(server.port, f"/submit/events/submitted-{number}") for number in range(60)]
        server.tell(signal.SIGTERM)
        assert wait_until(lambda: "Worker exiting" in server.log()), server.log()
        broker.relay.release()
        check_ended_well(server)

    assert {each.status for each in answers} == {202}
    check_sent_once(broker, answers)


@pytest.mark.parametrize("kind", KINDS)
def test_is_sent_by_workers_that_end_after_some_requests(kind: str, broker: Broker, tmp_path: Path) -> None:
    arguments = gunicorn(*KINDS[kind], "--preload", "--workers=2", "--max-requests=25")
    with serving(arguments, tmp_path, target=broker.target) as server:
        with Load(server.port, "submit/events") as load:
            load.until(lambda good: len({each.pid for each in good}) >= 4)
        check_ended_well(server)

    assert {each.status for each in load.bad()} <= {0}, "nothing but connections that a worker's end broke"
    check_sent_once(broker, load.answers())


@pytest.mark.parametrize("fifo", [True, False], indirect=True, ids=["fifo", "standard"])
def test_is_sent_by_the_parent_alone_if_it_forks_meanwhile(broker: Broker) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.web.pending"],
        cwd=ROOT,
        env={**os.environ, "QUEUE_RUNTIME_URL": broker.target},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30.0,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    expected = Counter(["child", "parent", *(f"parent-{number}" for number in range(SUBMITTED))])
    assert (report["code"], Counter(report["ids"])) == (0, expected)
    assert report["pending"] > 0
    assert broker.drain() == expected
    assert broker.relay.sends() == expected
    assert [pids for pids in broker.relay.senders() if len(pids) > 1] == []
