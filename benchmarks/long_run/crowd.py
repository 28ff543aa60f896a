"""Sends to many sessions at a steady rate, from one thread, and writes down what the broker has taken."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict

from demo_parts.journal import Journal

from queue_runtime import Message, QueueClient

from .bot import MAX_ATTEMPTS, Trouble
from .history import Fate

TICK = 0.1
"""Seconds between two batches."""

BURST = 0.3
"""The part of messages that is followed by another of the same session at once: order is tested where
messages of a session meet."""

ALWAYS = 1_000_000
"""Failures of what fails at every attempt."""


class Crowd:
    """Its own thread, and a client of its own; `stop` it, then look at `error`."""

    def __init__(
        self, client: QueueClient, journal: Journal, *, sessions: int, rate: float, rng: random.Random
    ) -> None:
        self._client = client
        self._journal = journal
        self._rate = rate
        self._rng = rng
        self._choices = self._sessions(sessions)
        self._numbers: Counter[str] = Counter()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crowd", daemon=True)
        self.sent = 0
        self.error: Exception | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(60.0)

    def _run(self) -> None:
        began = time.monotonic()
        try:
            while not self._stopping.wait(max(0.0, self.sent / self._rate - (time.monotonic() - began))):
                self._send(max(1, round(self._rate * TICK)))
        except Exception as exc:  # who waits for the run is on another thread
            self.error = exc

    def _send(self, number: int) -> None:
        batch: list[tuple[Message, Fate]] = []
        for _ in range(number):
            session = next(self._choices)
            self._numbers[session] += 1
            fate, trouble = drawn(self._rng)
            body = json.dumps(asdict(trouble)).encode()
            batch.append(
                (Message(body=body, id=f"{session}.{self._numbers[session]}", session_id=session), fate)
            )
        since = time.monotonic()
        self._client.send_batch("events", [message for message, _ in batch])
        for message, fate in batch:
            self._journal.write(
                "sent", message=message.id, session=message.session_id, fate=fate, since=since
            )
        self.sent += number

    def _sessions(self, number: int) -> Iterator[str]:
        while True:
            session = f"s{self._rng.randrange(number)}"
            yield session
            while self._rng.random() < BURST:
                yield session


def drawn(rng: random.Random) -> tuple[Fate, Trouble]:
    """What becomes of one message, and what its handler meets on the way."""
    seconds = rng.uniform(0.05, 0.4)
    luck = rng.random()
    if luck < 0.010:
        return "rejected", Trouble(seconds=seconds, rejected=True)
    if luck < 0.013:
        return "exhausted", Trouble(seconds=seconds, failures=ALWAYS)
    if luck < 0.080:
        return "handled", Trouble(seconds=seconds, failures=rng.randrange(1, MAX_ATTEMPTS))
    if luck < 0.110:
        return "handled", Trouble(seconds=seconds, failures=1, asks=True)
    if luck < 0.140:
        return "handled", Trouble(seconds=rng.uniform(1.0, 3.0))
    return "handled", Trouble(seconds=seconds)
