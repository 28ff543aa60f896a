"""Starts web servers as processes of their own, serving tests/web/served.py, and stops them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from time import monotonic
from urllib.error import HTTPError
from urllib.request import urlopen

from tests.web.sockets import children

ROOT = Path(__file__).resolve().parents[2]

START_TIMEOUT = 20.0
STOP_TIMEOUT = 20.0

APP = "tests.web.served:app"


class Server:
    """A running server. `pid` is the process that was started: the parent of the workers, if it has any."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self._process = process
        self._log = log
        self.port = port
        self.pid = process.pid

    def workers(self) -> set[int]:
        return children(self.pid)

    def tell(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, and return its exit status."""
        if self._process.poll() is None:
            self.tell(number)
        try:
            return self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {STOP_TIMEOUT} s; its log:\n{self.log()}") from None

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_until_ready(self) -> None:
        up = wait_until(lambda: self._answers() or self._process.poll() is not None, START_TIMEOUT)
        assert up, f"not up within {START_TIMEOUT} s; its log:\n{self.log()}"
        assert self._process.poll() is None, f"it ended by itself; its log:\n{self.log()}"

    def kill(self) -> None:
        """End it and its workers, if it still lives."""
        for pid in [*self.workers(), self.pid] if self._process.poll() is None else []:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:  # it ended just now
                pass
        self._process.wait()

    def _answers(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=5.0) as answer:
                return "pid" in json.load(answer)
        except HTTPError:  # another app, and it is up
            return True
        except OSError:
            return False


@contextmanager
def serving(
    arguments: Sequence[str], folder: Path, *, target: str, parent: str = "nothing", closing: str = "atexit"
) -> Iterator[Server]:
    """The command *arguments*, in which ADDRESS stands for where to listen; it is up as the block begins."""
    port = _free_port()
    log = folder / "server.log"
    environment = {
        **os.environ,
        "QUEUE_RUNTIME_URL": target,
        "WEB_PARENT": parent,
        "WEB_CLOSING": closing,
        "WEB_JOURNAL": str(folder / "journal"),
        "PYTHONPATH": str(ROOT),
        # A fork beside threads is what is tested.
        "PYTHONWARNINGS": "ignore:This process:DeprecationWarning",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [each.replace("ADDRESS", f"127.0.0.1:{port}") for each in arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(process, port, log)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.kill()


def wait_until(fact: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Wait for what other processes do: there is no condition to wait on. False if it does not come true."""
    give_up_at = monotonic() + seconds
    while not fact():
        if monotonic() > give_up_at:
            return False
        Event().wait(0.05)
    return True


def gunicorn(*arguments: str, app: str = APP) -> list[str]:
    """The command line of a gunicorn that keeps its files to itself."""
    own = ["--bind=ADDRESS", "--no-control-socket", "--graceful-timeout=10"]
    return [sys.executable, "-m", "gunicorn", *own, *arguments, app]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
