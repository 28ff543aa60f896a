"""What the demo runs on: a broker, a web server, and lives of the bot; each ends with its `with` block.

Only here is it known which broker it is. The app and the bot are told by QUEUE_RUNTIME_URL.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import worker
from flask import Flask
from waitress.server import create_server

from demo_parts.journal import Journal
from demo_parts.observed import observed
from demo_parts.plan import read_troubles
from queue_runtime import QueueClient, connect
from queue_runtime.testing.sqs import CREDENTIALS, LocalSqs, make_queue

BOT = Path(__file__).resolve().parents[1]
"""The folder of the bot."""

LEASE = 30
"""Seconds."""

STOP_TIMEOUT = 35.0
"""Seconds for a bot to end after SIGTERM; its own deadline is 25."""


class Life(Protocol):
    """One life of the bot, from its start to its stop."""

    def died(self) -> str | None:
        """What ended it before it was stopped; None while it runs."""

    def stop(self) -> None:
        """Ask it to stop as its environment would, and wait for that."""


class Stage(Protocol):
    url: str
    where: str
    """What runs here, for the reader."""
    requests: str
    """What calls to this broker are."""

    def start_bot(self, journal: Path, troubles: Path, life: int) -> AbstractContextManager[Life]:
        """Start the bot; it is killed at the end of the block if it still lives."""


@contextmanager
def memory_stage(folder: Path) -> Iterator[Stage]:
    """Everything in this process."""
    yield _Memory()


@contextmanager
def sqs_stage(folder: Path) -> Iterator[Stage]:
    """A local SQS endpoint with a FIFO queue and its dead-letter queue; the bot is a process of its own."""
    with LocalSqs() as endpoint:
        sdk = endpoint.client()
        try:
            made = make_queue(sdk, "github-events.fifo", fifo=True, lease=LEASE)
        finally:
            sdk.close()
        before = {name: os.environ.get(name) for name in CREDENTIALS}
        os.environ.update(CREDENTIALS)
        try:
            yield _Sqs(endpoint.target(events=made.name), folder / "worker.log")
        finally:
            _restore(before)


STAGES = {"sqs": sqs_stage, "memory": memory_stage}


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


class _Memory:
    url = "memory://github-bot-demo?queues=events:sessions"
    where = "memory, everything in one process"
    requests = "provider calls"

    @contextmanager
    def start_bot(self, journal: Path, troubles: Path, life: int) -> Iterator[Life]:
        diary = Journal(journal, life=life, process=os.getpid())
        handler = observed(worker.handle, diary, read_troubles(troubles))
        with connect(self.url, listeners=[diary.hear]) as client:
            yield _Thread(client, handler, diary)
        diary.close()


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


class _Sqs:
    where = "SQS FIFO on a local endpoint, the bot in a process of its own"
    requests = "SQS requests"

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self._log = log

    @contextmanager
    def start_bot(self, journal: Path, troubles: Path, life: int) -> Iterator[Life]:
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


def _restore(environment: Mapping[str, str | None]) -> None:
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
