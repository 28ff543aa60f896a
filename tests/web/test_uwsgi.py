"""Under uWSGI, which forks without telling Python: as under gunicorn."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.web.agreed import THREADS
from tests.web.checks import check_connections, check_first_requests, check_sent_once
from tests.web.conftest import Broker
from tests.web.load import Load, post
from tests.web.servers import APP, ROOT, Server, serving

UWSGI = shutil.which("uwsgi", path=str(Path(sys.executable).parent)) or shutil.which("uwsgi")

ROWS = [
    ("", "sends"),  # the threads of Python run only while a request is served
    ("--threads=4", "nothing"),
    ("--threads=4", "sends"),
    ("--threads=4 --py-call-osafterfork", "sends"),
    ("--threads=4 --py-call-uwsgi-fork-hooks", "sends"),
    ("--threads=4 --lazy-apps", "nothing"),
]

GRACEFUL = "--hook-master-start=unix_signal:15 gracefully_kill_them_all"
"""Else a worker that is busy when SIGTERM comes ends without `atexit`.
https://github.com/unbit/uwsgi/issues/2063"""

installed = pytest.mark.skipif(
    UWSGI is None, reason="uwsgi is not installed: pip install uwsgi, with a C compiler at hand"
)


def uwsgi(*more: str) -> list[str]:
    own = ["--master", GRACEFUL, "--need-app", "--http-socket=ADDRESS", f"--module={APP}"]
    return [str(UWSGI), f"--home={sys.prefix}", *own, *more]


def test_a_fork_that_python_does_not_hear_of_gives_the_child_a_client_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.web.unheard_fork"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20.0,
        check=False,
    )

    assert (done.stdout, done.stderr) == (f"['sent'] {THREADS}", "")


@installed
@pytest.mark.parametrize(("more", "parent"), ROWS)
def test_workers_send_all_of_it_once_on_connections_of_their_own(
    more: str, parent: str, broker: Broker, tmp_path: Path
) -> None:
    arguments = uwsgi("--processes=2", *more.split())
    with serving(arguments, tmp_path, target=broker.target, parent=parent) as server:
        with Load(server.port) as load:
            load.until(lambda good: len({each.pid for each in good}) == 2)
        check_connections(broker, load.good())
        check_first_requests(load.good())
        check_stopped(server)

    assert load.bad() == []
    check_sent_once(broker, load.answers(), parents=int(parent == "sends"))


@installed
def test_what_was_submitted_is_sent_at_the_end_of_the_worker(broker: Broker, tmp_path: Path) -> None:
    with serving(uwsgi("--processes=1", "--enable-threads"), tmp_path, target=broker.target) as server:
        answers = [post(server.port, "/send/events/first")]
        broker.relay.hold()
        answers += [post(server.port, f"/submit/events/submitted-{number}") for number in range(60)]
        server.tell(signal.SIGTERM)
        broker.relay.release()
        check_stopped(server)

    assert {each.status for each in answers} == {202}
    check_sent_once(broker, answers)


def check_stopped(server: Server) -> None:
    assert server.stop() == 0, server.log()
    assert "Traceback" not in server.log(), server.log()
