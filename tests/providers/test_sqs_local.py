"""The local SQS endpoint: up within a bound, gone at the end, and plain about what is missing."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from queue_runtime import Message, connect
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


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_its_process_ends_with_the_one_that_started_it_however_that_ends(number: int) -> None:
    program = (
        "import time\n"
        "from queue_runtime.testing.sqs import LocalSqs\n"
        "with LocalSqs() as local:\n"
        "    print(local.url, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        address = urlsplit(parent.stdout.readline().strip())
        with socket.create_connection((address.hostname or "", address.port or 0), timeout=5.0) as connection:
            connection.settimeout(5.0)

            parent.send_signal(number)

            with suppress(ConnectionResetError):  # it had not yet taken the connection
                assert connection.recv(1) == b"", "the endpoint hangs up, because it ends"


class TestTheCommand:
    def test_makes_the_queues_says_where_and_serves_until_it_is_told_to_stop(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        command = [sys.executable, "-m", "queue_runtime.testing.sqs", "events.fifo", "jobs", "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                lines = [process.stdout.readline() for _ in range(4)]
                said = dict(shlex.split(line)[1].split("=", 1) for line in lines)
                for name, value in said.items():
                    monkeypatch.setenv(name, value)

                with connect() as client:
                    client.send("events", Message.of("hello", session_id="a"))
                    session = client.accept_session("events", wait=1.0)
                    found = [client.describe(name).dead_letter_queue for name in ("events", "jobs")]
            finally:
                process.terminate()
                code = process.wait(10.0)

        assert [line.split()[0] for line in lines] == ["export"] * 4
        assert set(said) == {"QUEUE_RUNTIME_URL", *sqs.CREDENTIALS}
        assert session is not None
        assert found == ["events-dlq.fifo", "jobs-dlq"]
        assert code == 0

    def test_refuses_what_is_no_name_of_a_queue(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            sqs.main(["a b"])

        assert "'a b' is no queue name: letters, digits" in capsys.readouterr().err

    def test_ends_with_the_endpoint(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def ended(local: LocalSqs) -> bool:
            return True

        monkeypatch.setattr(LocalSqs, "ended", property(ended))
        monkeypatch.setattr(signal, "signal", lambda *_: None)

        assert sqs.main(["jobs"]) == 1


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


def test_a_missing_package_is_named_with_the_one_command_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqs, "find_spec", lambda _: None)

    with (
        pytest.raises(
            MissingExtra, match=r"'ministack'; pip install 'queue_runtime\[sqs\]' ministack, as one"
        ),
        LocalSqs(),
    ):
        pass


def test_a_port_can_be_chosen() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    with LocalSqs(port=port) as local:
        assert local.url == f"http://127.0.0.1:{port}"


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
