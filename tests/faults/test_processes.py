"""Signals and deaths of worker processes: nothing is lost, nothing overtakes, no thread is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import pytest

from queue_runtime import Message, QueueClient, connect
from queue_runtime.testing.sqs import LocalSqs

BOT = Path(__file__).with_name("bot.py")


class Bots:
    """Starts bots on one queue and reads their journal."""

    def __init__(self, target: str, journal: Path) -> None:
        self._environment = {**os.environ, "QUEUE_RUNTIME_URL": target}
        self._journal = journal
        self._running: list[subprocess.Popen[str]] = []

    def start(self, *, pace: float = 0.05) -> subprocess.Popen[str]:
        bot = subprocess.Popen(
            [sys.executable, str(BOT), str(self._journal), str(pace)],
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._running.append(bot)
        return bot

    def lines(self) -> list[str]:
        return self._journal.read_text().splitlines() if self._journal.exists() else []

    def wait_for(self, fact: Callable[[list[str]], bool], seconds: float = 40.0) -> None:
        give_up_at = monotonic() + seconds
        while not fact(self.lines()):
            assert monotonic() < give_up_at, self.lines()
            assert any(bot.poll() is None for bot in self._running), "the bot has ended by itself"
            Event().wait(0.02)  # another process: there is no condition to wait on

    def end(self) -> None:
        for bot in self._running:
            if bot.poll() is None:
                bot.kill()
            bot.communicate()


@pytest.fixture
def client(endpoint: LocalSqs, fifo: str) -> Iterator[QueueClient]:
    with connect(endpoint.target(events=fifo)) as made:
        yield made


@pytest.fixture
def bots(endpoint: LocalSqs, fifo: str, tmp_path: Path) -> Iterator[Bots]:
    made = Bots(endpoint.target(events=fifo), tmp_path / "journal")
    yield made
    made.end()


def report(bot: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = bot.communicate(timeout=30)
    answer: dict[str, Any] = json.loads(out.splitlines()[-1])
    return answer


def started(lines: list[str]) -> list[str]:
    return [line.removeprefix("start ") for line in lines if line.startswith("start ")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_an_idle_worker_ends_it_and_leaves_no_thread(
    bots: Bots, client: QueueClient, number: signal.Signals
) -> None:
    client.send("events", Message.of("a1", session_id="a"))
    bot = bots.start()
    bots.wait_for(lambda lines: "end a1" in lines)

    bot.send_signal(number)
    stopped = report(bot)

    assert bot.returncode == 0
    assert (stopped["threads_left"], stopped["left"]) == ([], [])


def test_a_second_signal_waits_for_nothing(bots: Bots, client: QueueClient) -> None:
    client.send("events", Message.of("stuck", session_id="a"))
    bot = bots.start()
    bots.wait_for(lambda lines: "start stuck" in lines)
    asked_at = monotonic()

    bot.send_signal(signal.SIGTERM)
    Event().wait(0.5)  # two signals at once are one to Python
    bot.send_signal(signal.SIGTERM)
    stopped = report(bot)

    assert monotonic() - asked_at < 8.0, "the deadline was ten seconds"
    assert (bot.returncode, stopped["overdue"]) == (0, 1)
    assert [name for name in stopped["left"] if "worker" in name], "the stuck handler's"


def test_restarts_and_a_kill_in_mid_load_lose_nothing_and_reorder_nothing(
    bots: Bots, client: QueueClient
) -> None:
    sent = {letter: [f"{letter}{n:02}" for n in range(15)] for letter in "abcdefghij"}
    for row in zip(*sent.values(), strict=True):
        client.send_batch("events", [Message.of(text, session_id=text[0]) for text in row])
    total = sum(map(len, sent.values()))
    finished = 0
    for share, number in ((0.2, signal.SIGTERM), (0.4, signal.SIGKILL), (0.6, signal.SIGINT)):
        bot = bots.start()
        bots.wait_for(lambda lines, share=share: len(set(started(lines))) >= share * total)  # type: ignore[misc]
        bot.send_signal(number)
        if number is signal.SIGKILL:
            bot.communicate(timeout=10)
        else:
            finished += report(bot)["finished"]
    last = bots.start()
    bots.wait_for(lambda lines: len(set(started(lines))) == total)

    last.send_signal(signal.SIGTERM)
    stopped = report(last)

    by_session: dict[str, list[str]] = defaultdict(list)
    for text in started(bots.lines()):
        by_session[text[0]].append(text)
    assert {key: [text for text, _ in groupby(texts)] for key, texts in by_session.items()} == sent
    assert stopped["left"] == []
    assert finished, "what was running at a stop was finished and settled"
    left = client.describe("events")
    assert (left.active, left.leased) == (0, 0)
