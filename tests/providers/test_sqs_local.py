"""The local SQS endpoint: up within a bound, gone at the end, and plain about what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from queue_runtime.config import parse_url
from queue_runtime.errors import MissingExtra, QueueError
from queue_runtime.testing import sqs
from queue_runtime.testing.sqs import LocalSqs, make_queue


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[str]]:
    """Every process that the test starts."""
    started: list[subprocess.Popen[str]] = []
    make = subprocess.Popen

    def noted(*args: object, **kwargs: object) -> subprocess.Popen[str]:
        started.append(make(*args, **kwargs))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", noted)
    return started


def test_its_process_lives_as_long_as_the_block(processes: list[subprocess.Popen[str]]) -> None:
    with LocalSqs() as local:
        url = local.url
        alive = processes[0].poll() is None

    assert url.startswith("http://127.0.0.1:")
    assert alive
    assert processes[0].returncode is not None
    with pytest.raises(QueueError, match="not running"):
        _ = local.url


def test_a_block_that_raises_ends_it_too(processes: list[subprocess.Popen[str]]) -> None:
    with pytest.raises(KeyboardInterrupt), LocalSqs():
        raise KeyboardInterrupt

    assert processes[0].returncode is not None


def test_a_start_that_takes_too_long_is_ended_and_says_what_it_said(
    processes: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "slow"
    script.write_text("#!/bin/sh\necho thinking\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))

    with pytest.raises(QueueError, match="thinking"), LocalSqs(start_timeout=1):
        pass

    assert processes[0].returncode is not None


def test_a_start_that_fails_does_not_wait(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "broken"
    script.write_text("#!/bin/sh\necho no such module; exit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))

    with pytest.raises(QueueError, match="no such module"), LocalSqs(start_timeout=30):
        pass


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqs, "find_spec", lambda _: None)

    with pytest.raises(MissingExtra, match="'ministack'"), LocalSqs():
        pass


def test_queues_are_made_with_their_dead_letter_queue() -> None:
    with LocalSqs() as local:
        client = local.client()
        fifo = make_queue(client, "events", fifo=True, lease=7, max_receives=3, max_message_size=4096)
        bare = make_queue(client, "jobs", dead_letter=False)
        facts = client.get_queue_attributes(QueueUrl=fifo.url, AttributeNames=["All"])["Attributes"]
        client.close()
        target = parse_url(local.target(events=fifo.name, work="jobs"))
        endpoint = local.url

    assert (fifo.name, fifo.dead_letter_name) == ("events.fifo", "events-dlq.fifo")
    assert (bare.name, bare.dead_letter_name, bare.dead_letter_url) == ("jobs", None, None)
    assert (facts["VisibilityTimeout"], facts["MaximumMessageSize"]) == ("7", "4096")
    policy = json.loads(facts["RedrivePolicy"])
    assert policy["deadLetterTargetArn"].endswith(":events-dlq.fifo")
    assert policy["maxReceiveCount"] == "3"
    assert dict(target.queues) == {"events": "events.fifo", "work": "jobs"}
    assert dict(target.provider.options) == {"endpoint_url": endpoint}
    assert target.provider.location == "eu-west-1"
