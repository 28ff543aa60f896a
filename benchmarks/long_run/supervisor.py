"""Lets a worker run, ends it at random moments and starts it again; returns what the books say of it."""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from demo_parts.journal import Journal, Reader

from queue_runtime import QueueClient, connect

from .books import Books, read
from .bot import DEADLINE, MAX_ATTEMPTS
from .crowd import Crowd
from .history import History
from .places import PLACES

HERE = Path(__file__).resolve().parents[1]

START_TIMEOUT = 30.0
"""Seconds within which a process that was started is to have asked the broker for something."""

QUIET = 20.0
"""Seconds, and three leases, in which nothing is settled any more: what was not then never will be."""


@dataclass(frozen=True, slots=True)
class Fall:
    """At *moment* seconds from the start the worker gets *number*."""

    moment: float
    number: signal.Signals


def falls(seconds: float, rng: random.Random) -> list[Fall]:
    """Two SIGTERM and one SIGKILL, at random moments of the run's three middle parts, in random order."""
    numbers = [signal.SIGTERM, signal.SIGTERM, signal.SIGKILL]
    rng.shuffle(numbers)
    part = seconds / 4
    return [Fall(part * (n + rng.uniform(0.4, 1.2)), number) for n, number in enumerate(numbers)]


class Supervisor:
    """Starts the worker again whenever it has ended, and writes down how it did."""

    def __init__(self, journal: Path, handlers: int, log: Path) -> None:
        self._path = journal
        self._journal = Journal(journal)
        self._handlers = handlers
        self._log = log.open("ab")
        self._reader = Reader(journal)
        self._life = 0
        self._process = self._start()

    def send(self, number: signal.Signals, *, last: bool = False) -> None:
        """End the worker by *number*, and start another unless it was the *last*."""
        self._wait_until_up()
        alive = self._process.poll() is None
        asked = time.monotonic()
        self._process.send_signal(number)
        try:
            status = self._process.wait(DEADLINE + 30.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        ended_by = number.name if alive else "itself"
        self._journal.write("life", life=self._life, ended_by=ended_by, asked=asked, status=status)
        self._life += 1
        if not last:
            self._process = self._start()

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._journal.close()
        self._log.close()

    def _wait_until_up(self) -> None:
        """It has asked the broker for something, and so listens to signals."""
        give_up_at = time.monotonic() + START_TIMEOUT
        while self._process.poll() is None and time.monotonic() < give_up_at:
            for record in self._reader.new():
                if record.get("life") == self._life and record["kind"] == "ProviderCalled":
                    return
            time.sleep(0.05)

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "long_run.bot", str(self._path), str(self._life), str(self._handlers)],
            cwd=HERE,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C is the supervisor's
        )


def wait_until_done(journal: Path, client: QueueClient, quiet: float) -> int:
    """Wait until all that was sent is settled, or nothing has been for *quiet* seconds; returns what is left.

    By the books, or where the broker tells how much it has by that: a worker that was killed may not have
    written down its last settlements.
    """
    reader = Reader(journal)
    waiting: set[str] = set()
    settled: set[str] = set()
    give_up_at = time.monotonic() + quiet
    while True:
        before = len(settled)
        for record in reader.new():
            if record["kind"] == "sent":
                waiting.add(record["message"])
            elif record["kind"] in ("MessageCompleted", "MessageDeadLettered"):
                settled.add(record["message_id"])
        now = time.monotonic()
        if len(settled) > before:
            give_up_at = now + quiet
        found = client.describe("events")
        left = (found.active or 0) + (found.leased or 0) + (found.delayed or 0)
        empty = found.active is not None and left == 0
        if empty or waiting <= settled or now >= give_up_at:
            return left
        time.sleep(0.5)


def run(asked: argparse.Namespace, folder: Path) -> tuple[Books, History, float]:
    """The whole run; its books, what they say, and the seconds from the first send to the last settlement."""
    rng = random.Random(asked.seed)
    path = folder / "journal"
    seconds = asked.minutes * 60.0
    journal = Journal(path)
    with PLACES[asked.provider](asked.lease) as url:
        os.environ["QUEUE_RUNTIME_URL"] = url
        supervisor = Supervisor(path, asked.handlers, folder / "worker.log")
        try:
            with connect(listeners=[journal.hear]) as client:
                crowd = Crowd(client, journal, sessions=asked.sessions, rate=asked.rate, rng=rng)
                began = time.monotonic()
                crowd.start()
                for fall in falls(seconds, rng):
                    time.sleep(max(0.0, began + fall.moment - time.monotonic()))
                    supervisor.send(fall.number)
                    print(f"  {fall.moment:6.1f} s  {fall.number.name}, {crowd.sent} sent", flush=True)
                time.sleep(max(0.0, began + seconds - time.monotonic()))
                crowd.stop()
                if crowd.error is not None:
                    raise crowd.error
            with connect() as client:  # the journal is not for what only looks
                left = wait_until_done(path, client, QUIET + 3 * asked.lease)
                took = time.monotonic() - began
                supervisor.send(signal.SIGTERM, last=True)
                dead = [(letter.id, letter.dead_letter.reason) for letter in client.dead_letters("events")]
        finally:
            supervisor.close()
            journal.close()
    books = read(path)
    history = books.history(dead=dead, left=left, max_attempts=MAX_ATTEMPTS, deadline=DEADLINE)
    return books, history, took
