"""A process that stood still for two leases: what it held is others', and it leaves them alone on waking."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import count, groupby
from pathlib import Path
from time import monotonic

import pytest

from queue_runtime import Message, ReceivedMessage, Worker, connect
from queue_runtime.testing.servicebus import LocalServiceBus
from queue_runtime.testing.sqs import LocalSqs, make_queue

LEASE = 3
PATIENCE = 15.0
BOT = Path(__file__).with_name("stalled_bot.py")

_numbers = count(1)


@pytest.fixture(params=["sqs", "servicebus"])
def target(request: pytest.FixtureRequest) -> Iterator[str]:
    """The queue `events` with sessions, whose leases last three seconds."""
    if request.param == "servicebus":
        with LocalServiceBus() as bus:
            yield bus.target(events=bus.make_queue("stalled", lock=LEASE, sessions=True))
        return
    endpoint: LocalSqs = request.getfixturevalue("endpoint")
    sqs = endpoint.client()
    made = make_queue(sqs, f"stalled{next(_numbers)}", fifo=True, lease=LEASE)
    sqs.close()
    yield endpoint.target(events=made.name)


class Stalled:
    """The process that a test stops and wakes, and what it has said so far."""

    def __init__(self, target: str, folder: Path) -> None:
        self._journal = folder / "journal"
        self._gate = folder / "gate"
        self.process = subprocess.Popen(
            [sys.executable, str(BOT), str(self._journal), str(self._gate)],
            env={**os.environ, "QUEUE_RUNTIME_URL": target},
            stdout=subprocess.PIPE,
            text=True,
        )

    def said(self, what: str) -> list[str]:
        """Whom it has said that of, in order."""
        return [whom for _, whom in self.times(what)]

    def times(self, what: str) -> list[tuple[float, str]]:
        """The same, and when."""
        lines = self._journal.read_text().splitlines() if self._journal.exists() else []
        return [(float(when), whom) for when, word, whom in map(str.split, lines) if word == what]

    def wait_until(self, fact: Callable[[], bool]) -> None:
        give_up_at = monotonic() + PATIENCE
        while not fact():
            assert monotonic() < give_up_at, self._journal.read_text()
            assert self.process.poll() is None, "it has ended by itself"
            threading.Event().wait(0.02)  # another process: there is no condition to wait on

    def stop(self) -> None:
        """Let none of its threads go on; returns when they all stand."""
        self.process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(self.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def wake(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def let_handlers_return(self) -> None:
        self._gate.touch()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def stalled(target: str, tmp_path: Path) -> Iterator[Stalled]:
    made = Stalled(target, tmp_path)
    yield made
    made.end()


class Other:
    """The handler of another consumer, which keeps what the stalled one has lost in hand for a while."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._free = False
        self.started: list[tuple[float, str]] = []

    def __call__(self, message: ReceivedMessage) -> None:
        with self._changed:
            self.started.append((monotonic(), message.text))
            self._changed.notify_all()
            if message.text in ("a1", "b1"):
                self._changed.wait_for(lambda: self._free, PATIENCE)

    def wait_for(self, *texts: str) -> None:
        with self._changed:
            came = self._changed.wait_for(lambda: {text for _, text in self.started} >= set(texts), PATIENCE)
            assert came, self.started

    def go_on(self) -> None:
        with self._changed:
            self._free = True
            self._changed.notify_all()


def by_session(started: Iterable[tuple[float, str]]) -> dict[str, list[str]]:
    """What was started when, of each session, without the repeats of a message before the next one."""
    texts = [text for _, text in sorted(started)]
    return {
        key: [t for t, _ in groupby(t for t in texts if t[0] == key)] for key in sorted({t[0] for t in texts})
    }


def message(text: str) -> Message:
    return Message.of(text, session_id=text[0], id=text)


def test_a_process_that_wakes_after_two_leases_lets_its_sessions_go_and_works_on(
    target: str, stalled: Stalled
) -> None:
    other = Other()
    with connect(target) as client:
        client.send_batch("events", [message(text) for text in ("a1", "a2", "a3", "b1", "b2", "c1")])
        stalled.wait_until(lambda: sorted(stalled.said("start")) == ["a1", "b1", "c1"])
        stalled.wait_until(lambda: stalled.said("MessageCompleted") == ["c1"])

        stalled.stop()
        two_leases_on = monotonic() + 2 * LEASE
        client.send("events", message("c2"))
        with Worker(client, "events", other, concurrency=8, poll=1.0):
            other.wait_for("a1", "b1", "c2")
            threading.Event().wait(max(0.0, two_leases_on - monotonic()))
            stalled.wake()

            # Its handlers are told while they run, and so is who listens.
            stalled.wait_until(lambda: sorted(stalled.said("lost")) == ["a1", "b1"])
            stalled.wait_until(lambda: {"a", "b"} <= set(stalled.said("LostLease")))
            stalled.let_handlers_return()
            stalled.wait_until(lambda: sorted(stalled.said("SettlementFailed")) == ["a1", "b1"])
            assert stalled.said("MessageCompleted") == ["c1"], "no result of a lost lease"
            assert sorted(stalled.said("start")) == ["a1", "b1", "c1"], "nothing more of an old hold"
            other.go_on()  # from here on they share the work
            stalled.wait_until(lambda: {"a3", "b2"} <= {t for _, t in other.started + stalled.times("start")})
        client.send_batch("events", [message("a4"), message("d1")])
        stalled.wait_until(lambda: {"a4", "d1"} <= set(stalled.said("MessageCompleted")))
        stalled.process.send_signal(signal.SIGTERM)
        out, _ = stalled.process.communicate(timeout=PATIENCE)

        assert by_session(other.started + stalled.times("start")) == {
            "a": ["a1", "a2", "a3", "a4"],
            "b": ["b1", "b2"],
            "c": ["c1", "c2"],
            "d": ["d1"],
        }
        assert json.loads(out.splitlines()[-1]) == {"overdue": 0, "unknown": 0, "left": []}
        left = client.describe("events")
        assert (left.active or 0, left.leased or 0) == (0, 0)
