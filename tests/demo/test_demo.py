"""The demo as its reader starts it, in memory: its table, its exit status, its end when told to stop."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path

import demo
import pytest
from demo import Demo
from demo_parts.brokers import Memory
from demo_parts.checker import Broken

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def folders_of_failed_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that failed keeps its journal; here, where the test's files are."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "examples/github_bot/demo.py", "--provider", "memory", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_keeps_every_promise_and_shows_it_in_plain_lines() -> None:
    with start("--deliveries", "150") as process:
        out, err = process.communicate(timeout=50)

    assert (process.returncode, err) == (0, "")
    assert re.search("[\x00-\x09\x0b-\x1f]", out) is None
    for row in (
        "webhooks received +│ 150",
        "handled +│ 149",
        r"with several, in order +│ (\d+) of \1 ",
        "dead-lettered +│ 2",
        "  DecodeError +│ 1",
        "  MaxAttemptsExceeded +│ 1",
        "replayed after the fix +│ 1",
        "  left where it belongs +│ 1",
        "lost +│ 0",
        r"webhook to handled, p50 +│ \d+ ms",
        r"requests per message +│ \d",
    ):
        assert re.search(row, out), row
    assert out.endswith("Every promise was kept.\n")


def test_it_takes_a_file_of_deliveries(tmp_path: Path) -> None:
    pull = {"number": 7, "title": "Say hello", "user": {"login": "octocat"}}
    payload = {
        "action": "edited",
        "number": 7,
        "pull_request": pull,
        "repository": {"id": 1, "full_name": "octo-org/hello-world"},
        "sender": {"login": "octocat"},
    }
    file = tmp_path / "webhooks.json"
    entries = [{"event": "pull_request", "payload": payload}]
    entries += [
        {"event": "push", "payload": {"ref": "main", "commits": [], "repository": payload["repository"]}}
    ]
    file.write_text(json.dumps(entries))

    with start("--payloads", str(file), "--deliveries", "30") as process:
        out, _ = process.communicate(timeout=50)

    assert process.returncode == 0
    assert re.search("sessions +│ 2 ", out)
    assert re.search("messages in the longest +│ 15 ", out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_cleans_up_when_it_is_told_to_stop(number: signal.Signals) -> None:
    with start("--deliveries", "5000") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        out, err = process.communicate(timeout=50)

    assert (process.returncode, err) == (130, "")
    assert "interrupted" in out


def test_what_cannot_be_run_is_said_in_one_sentence() -> None:
    with start("--deliveries", "2") as process:
        out, _ = process.communicate(timeout=50)

    assert process.returncode == 2
    assert "FAILED: ConfigurationError: among the deliveries must be" in out


class TestInThisProcess:
    def test_a_broken_promise_is_shown_and_is_the_exit_status(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(demo, "broken_promises", lambda history: [Broken("lost", "a1", "is gone")])

        assert run(monkeypatch, "memory", 60) == 1

        assert "BROKEN on memory: lost: a1 is gone" in capsys.readouterr().out

    def test_it_gives_up_in_time_and_says_what_was_outstanding(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(demo, "TIME_LIMIT", 0.5)

        assert run(monkeypatch, "memory", 400) == 1

        out = capsys.readouterr().out
        assert "FAILED: not done within 0 s" in out
        assert "not settled; trouble with the broker: none" in out


class TestOnAll:
    """All are two in memory here, for the sake of speed."""

    @pytest.fixture(autouse=True)
    def two(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(demo, "BROKERS", {"one": Memory(), "another": Memory()})

    def test_they_get_the_same_deliveries_and_come_to_the_same(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(monkeypatch, "all", 60) == 0

        out = capsys.readouterr().out
        assert re.search("┃ +one ┃ +another ┃", out)
        assert re.search("handled +│ +59 │ +59 │ = ", out)
        assert out.endswith("Every promise was kept, the same on all.\n")

    def test_what_differs_and_must_not_is_shown_and_is_the_exit_status(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        numbers = count(1)
        monkeypatch.setattr(Demo, "_second_life", lambda *arguments: next(numbers))
        monkeypatch.setattr(demo, "broken_promises", lambda history: [])

        assert run(monkeypatch, "all", 60) == 1

        assert "DIFFERS: replayed after the fix: 1 on one, 2 on another" in capsys.readouterr().out

    def test_a_broken_promise_names_its_broker_and_the_others_are_run_all_the_same(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        found = iter([[Broken("lost", "a1", "is gone")], []])
        monkeypatch.setattr(demo, "broken_promises", lambda history: next(found))

        assert run(monkeypatch, "all", 60) == 1

        out = capsys.readouterr().out
        assert "BROKEN on one: lost: a1 is gone" in out
        assert "DIFFERS: lost: 1 on one, 0 on another" in out


def run(monkeypatch: pytest.MonkeyPatch, provider: str, deliveries: int) -> int:
    """The demo in this process, which keeps its signal handlers; returns the exit status."""
    monkeypatch.setattr(sys, "argv", ["demo.py", "--provider", provider, "--deliveries", str(deliveries)])
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    return demo.main()
