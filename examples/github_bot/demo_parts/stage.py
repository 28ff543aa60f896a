"""What the demo runs beside itself: a broker, a web server, and lives of the bot; each ends with its block.

The app and the bot are told of the broker by QUEUE_RUNTIME_URL.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import worker
from flask import Flask
from waitress.server import create_server

from demo_parts.brokers import Broker
from demo_parts.journal import Journal
from demo_parts.observed import observed
from demo_parts.plan import read_troubles
from queue_runtime import QueueClient, connect

BOT = Path(__file__).resolve().parents[1]
"""The folder of the bot."""

STOP_TIMEOUT = 35.0
"""Seconds for a bot to end after SIGTERM; its own deadline is 25."""


class Life(Protocol):
    """One life of the bot, from its start to its stop."""

    def died(self) -> str | None:
        """What ended it before it was stopped; None while it runs."""

    def stop(self) -> None:
        """Ask it to stop as its environment would, and wait for that."""


class Stage:
    """A running broker, and how the bot is started on it. *log* takes what a process of the bot says."""

    def __init__(self, url: str, *, shared: bool, log: Path) -> None:
        self.url = url
        self._shared = shared
        self._log = log

    def start_bot(self, journal: Path, troubles: Path, life: int) -> AbstractContextManager[Life]:
        """Start the bot; it is killed at the end of the block if it still lives."""
        start = self._in_a_process if self._shared else self._in_this_process
        return start(journal, troubles, life)

    @contextmanager
    def _in_this_process(self, journal: Path, troubles: Path, life: int) -> Iterator[Life]:
        diary = Journal(journal, life=life, process=os.getpid())
        handler = observed(worker.handle, diary, read_troubles(troubles))
        with connect(self.url, listeners=[diary.hear]) as client:
            yield _Thread(client, handler, diary)
        diary.close()

    @contextmanager
    def _in_a_process(self, journal: Path, troubles: Path, life: int) -> Iterator[Life]:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "demo_parts.observed", str(journal), str(troubles), str(life)],
                cwd=BOT,
                env={**os.environ, "QUEUE_RUNTIME_URL": self.url},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Not in the terminal's group: Ctrl-C is the driver's, which stops the bot.
                start_new_session=True,
            )
        try:
            yield _Process(process, self._log)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


@contextmanager
def staged(broker: Broker, folder: Path) -> Iterator[Stage]:
    """*broker*, running; its bot's log is in *folder*."""
    with broker.running() as url:
        yield Stage(url, shared=broker.shared, log=folder / "worker.log")


@contextmanager
def serving(app: Flask) -> Iterator[int]:
    """Serve *app* on a free port of 127.0.0.1, which is the value of the block."""
    sockets: dict[int, Any] = {}
    # Any: the stubs know neither its port nor its trigger.
    server: Any = create_server(app, map=sockets, host="127.0.0.1", port=0, threads=8)
    thread = threading.Thread(target=server.run, name="web", daemon=True)

    def close_all() -> None:
        for each in list(sockets.values()):
            each.close()

    thread.start()
    try:
        yield server.effective_port
    finally:
        # On the server's own thread, which ends when nothing is open any more.
        server.trigger.pull_trigger(close_all)
        thread.join(5.0)
        server.task_dispatcher.shutdown()


class _Thread:
    """The bot in this process."""

    def __init__(self, client: QueueClient, handler: worker.Handler, journal: Journal) -> None:
        self._journal = journal
        self._worker = worker.make_worker(client, handler)
        self._worker.start()

    def died(self) -> str | None:
        state = self._worker.status().state
        return None if state in ("running", "stopping") else f"the worker is {state}"

    def stop(self) -> None:
        self._journal.stopped(self._worker.stop())


class _Process:
    """The bot in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def died(self) -> str | None:
        status = self._process.poll()
        return None if status is None else f"the worker ended with status {status}; see {self._log}"

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"the worker did not end within {STOP_TIMEOUT} s of SIGTERM") from None
        if status != 0:
            raise RuntimeError(f"the worker ended with status {status}; see {self._log}")
