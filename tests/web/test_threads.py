"""Sixteen threads of one process share a client."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.web.checks import check_sent_once
from tests.web.conftest import Broker
from tests.web.load import Load
from tests.web.servers import APP, gunicorn, serving

SERVERS = {
    "waitress": [sys.executable, "-m", "waitress", "--threads=16", "--listen=ADDRESS", APP],
    "gthread": gunicorn("--worker-class=gthread", "--threads=16"),
}


@pytest.mark.parametrize("fifo", [True, False], indirect=True, ids=["fifo", "standard"])
@pytest.mark.parametrize("name", SERVERS)
def test_sixteen_requests_at_once_are_all_sent_once(name: str, broker: Broker, tmp_path: Path) -> None:
    with serving(SERVERS[name], tmp_path, target=broker.target) as server:
        with Load(server.port, threads=16) as load:
            load.until(lambda good: len(good) >= 320)
        # waitress knows no SIGTERM: Python ends at once then, and nobody is asked to close anything.
        assert server.stop(signal.SIGINT) == 0, server.log()

    assert load.bad() == []
    assert len({each.pid for each in load.good()}) == 1
    check_sent_once(broker, load.answers())
