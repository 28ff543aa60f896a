"""The bot and the demo against a local SQS endpoint, over real sockets and in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import demo
import pytest
from demo_parts import stage

from queue_runtime import Message, connect
from queue_runtime.testing.sqs import CREDENTIALS, LocalSqs, make_queue

BOT = Path(__file__).resolve().parents[2] / "examples" / "github_bot"


def test_the_worker_is_a_plain_script_that_ends_well_when_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with LocalSqs() as endpoint:
        sdk = endpoint.client()
        made = make_queue(sdk, "github-events.fifo", fifo=True)
        sdk.close()
        url = endpoint.target(events=made.name)
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


def test_the_demo_keeps_every_promise_on_sqs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["demo.py", "--provider", "sqs", "--deliveries", "80"])
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    monkeypatch.setattr(stage, "LEASE", 3)

    assert demo.main() == 0, capsys.readouterr().out

    out = capsys.readouterr().out
    assert "SQS requests per message" in out
    assert out.endswith("Every promise was kept.\n")


def issue_opened() -> Message:
    payload = {
        "action": "opened",
        "issue": {"number": 7, "title": "A greeting is missing"},
        "repository": {"full_name": "octo-org/hello-world"},
        "sender": {"login": "octocat"},
    }
    return Message.of(payload, session_id="octo-org/hello-world", attributes={"github.event": "issues"})
