"""Children of multiprocessing send with the client that their program made: each by itself, and all of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from tests.web.agreed import CHILDREN, MESSAGES
from tests.web.conftest import Broker
from tests.web.servers import ROOT
from tests.web.sockets import HAS_PROC

TIMEOUT = 30.0

ROWS = [
    ("fork", "nothing"),
    ("fork", "sends"),
    ("fork", "works"),
    ("spawn", "sends"),
    ("forkserver", "sends"),
]


@pytest.mark.parametrize(("method", "parent"), ROWS)
def test_children_send_all_of_it_once_on_connections_of_their_own(
    method: str, parent: str, broker: Broker, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.web.processes", method, parent, str(tmp_path / "journal")],
        cwd=ROOT,
        env={**os.environ, "QUEUE_RUNTIME_URL": broker.target},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    children = report["children"]
    assert report["codes"] == [0] * CHILDREN, done.stderr
    assert [each["threads"] for each in children] == [[]] * CHILDREN
    expected = Counter(name for each in [report["parent"], *children] for name in each["ids"])
    assert expected.total() == CHILDREN * MESSAGES + (1 if parent == "nothing" else 2)
    assert broker.drain() == expected
    assert broker.relay.sends() == expected
    assert [pids for pids in broker.relay.senders() if len(pids) > 1] == []
    if HAS_PROC:
        # A fork copies what the parent has open; that no child used it, the relay has seen.
        own = [set(each["sockets"]) - set(each["inherited"]) for each in children]
        assert all(own)
        assert [pair for pair in combinations(own, 2) if pair[0] & pair[1]] == []
