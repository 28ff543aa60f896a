"""The bot and the demo on local endpoints of both clouds, over real sockets and in processes of their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import demo
import pytest
from demo_parts import brokers
from demo_parts.brokers import BROKERS

from queue_runtime import Message, connect

BOT = Path(__file__).resolve().parents[2] / "examples" / "github_bot"

SHARED = [name for name, broker in BROKERS.items() if broker.shared]


def test_there_is_one_of_each_kind() -> None:
    assert list(BROKERS) == ["memory", "sqs", "servicebus"]
    assert SHARED == ["sqs", "servicebus"]


@pytest.mark.parametrize("name", SHARED)
def test_the_worker_is_a_plain_script_that_ends_well_when_it_is_told_to(name: str) -> None:
    with BROKERS[name].running() as url:
        with connect(url) as client:
            client.send("events", issue_opened())
        process = subprocess.Popen(
            [sys.executable, "-u", "worker.py"],
            cwd=BOT,
            env={**os.environ, "QUEUE_RUNTIME_URL": url},
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            handled = next(line for line in lines if "octo-org/hello-world#7: opened" in line)
            process.send_signal(signal.SIGTERM)
            last = list(lines)[-1]

    assert handled
    assert process.returncode == 0
    assert last.startswith("StopReport(completed=1, ")


@pytest.mark.parametrize("name", SHARED)
def test_the_demo_keeps_every_promise(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["demo.py", "--provider", name, "--deliveries", "80"])
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    monkeypatch.setattr(brokers, "LEASE", 5)  # short enough for renewals

    assert demo.main() == 0, capsys.readouterr().out

    out = capsys.readouterr().out
    assert re.search("handled +│ 79", out)
    assert out.endswith("Every promise was kept.\n")


def issue_opened() -> Message:
    payload = {
        "action": "opened",
        "issue": {"number": 7, "title": "A greeting is missing"},
        "repository": {"full_name": "octo-org/hello-world"},
        "sender": {"login": "octocat"},
    }
    return Message.of(payload, session_id="octo-org/hello-world", attributes={"github.event": "issues"})
