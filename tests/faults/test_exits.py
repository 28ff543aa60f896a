"""How worker processes end: exit codes, and the interpreter's exit with a worker that nobody stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from time import monotonic

import pytest

from queue_runtime import Message, QueueClient, connect
from queue_runtime.testing.sqs import LocalSqs

LEAVER = Path(__file__).with_name("leaver.py")

SUPERVISED = """
import sys
from queue_runtime import HandlerPolicy, Worker, connect

def handler(message):
    pass

with connect(sys.argv[1]) as client:
    worker = Worker(client, "events", handler, give_up_after=float(sys.argv[2]), **eval(sys.argv[3]))
    print("runs", flush=True)
    sys.exit(worker.run().exit_code)
"""

MEMORY = "memory://?queues=events:sessions"

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[subprocess.Popen[str]] = []

    def run(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        made = subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(made)
        return made

    yield run
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def supervised(
    start: Start, url: str, *, give_up_after: float = 60.0, options: str = "{}"
) -> subprocess.Popen[str]:
    return start("-c", SUPERVISED, url, str(give_up_after), options)


def wait_for(fact: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    give_up_at = monotonic() + 20.0
    while not fact():
        assert monotonic() < give_up_at, "it did not come"
        assert process.poll() is None or fact(), f"it has ended by itself: {process.communicate()}"
        Event().wait(0.02)  # another process: there is no condition to wait on


def handles_sigterm(process: subprocess.Popen[str]) -> bool:
    """Its mask of caught signals, see proc(5)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    [caught] = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port of this machine that refuses connections: bound, and not listened to."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


class TestExitCodes:
    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="it is read when signals are caught")
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_it_is_0_after_a_signal(self, start: Start, number: signal.Signals) -> None:
        process = supervised(start, MEMORY)
        wait_for(lambda: handles_sigterm(process), process)

        process.send_signal(number)

        out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (0, "runs\n"), err

    @pytest.mark.parametrize(
        ("url", "options", "said"),
        [
            (MEMORY, "{'concurrency': 0}", "concurrency"),
            (MEMORY, "{'prefetch': 1}", "prefetch=1 is below"),
            ("memory://?queues=events:sessions&queue.events=elsewhere", "{}", "elsewhere"),
            ("nonsense://", "{}", "nonsense"),
        ],
    )
    def test_it_is_1_for_what_cannot_work(self, start: Start, url: str, options: str, said: str) -> None:
        process = supervised(start, url, options=options)

        _, err = process.communicate(timeout=20)

        assert process.returncode == 1
        assert said in err.splitlines()[-1]

    def test_it_is_2_for_a_broker_that_is_lost(self, start: Start, nobody: int) -> None:
        endpoint = f"http%3A%2F%2F127.0.0.1%3A{nobody}"
        url = f"sqs://eu-west-1?endpoint_url={endpoint}&request_timeout=1&queue.events=events.fifo"
        process = supervised(start, url, give_up_after=1.0)

        out, err = process.communicate(timeout=20)

        assert (process.returncode, out) == (2, "runs\n"), err

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="it is read when signals are caught")
    def test_it_is_0_for_a_signal_while_the_broker_is_waited_for(self, start: Start, nobody: int) -> None:
        endpoint = f"http%3A%2F%2F127.0.0.1%3A{nobody}"
        url = f"sqs://eu-west-1?endpoint_url={endpoint}&request_timeout=1&queue.events=events.fifo"
        process = supervised(start, url)
        wait_for(lambda: handles_sigterm(process), process)

        process.send_signal(signal.SIGTERM)

        _, err = process.communicate(timeout=20)
        assert process.returncode == 0, err


class TestTheInterpretersExit:
    @pytest.fixture
    def client(self, endpoint: LocalSqs, fifo: str) -> Iterator[QueueClient]:
        with connect(endpoint.target(events=fifo)) as made:
            yield made

    def test_lets_the_handlers_that_run_finish_and_settles_them(
        self, start: Start, client: QueueClient, endpoint: LocalSqs, fifo: str, tmp_path: Path
    ) -> None:
        journal = tmp_path / "journal"
        client.send_batch("events", [Message.of(text, session_id=text[0]) for text in ("a1", "a2")])
        process = start(str(LEAVER), str(journal), "15", QUEUE_RUNTIME_URL=endpoint.target(events=fifo))

        _, err = process.communicate(timeout=25)

        assert process.returncode == 0, err
        assert "Traceback" not in err
        assert journal.read_text().splitlines() == ["start a1", "main has ended", "end a1 lost=False"]
        left = client.describe("events")
        assert (left.active, left.leased) == (1, 0), "a1 is settled, a2 is free for others"

    def test_is_not_held_by_a_stuck_handler_for_longer_than_its_deadline(
        self, start: Start, client: QueueClient, endpoint: LocalSqs, fifo: str, tmp_path: Path
    ) -> None:
        journal = tmp_path / "journal"
        client.send("events", Message.of("stuck", session_id="s"))
        process = start(str(LEAVER), str(journal), "1", QUEUE_RUNTIME_URL=endpoint.target(events=fifo))
        wait_for(lambda: journal.exists() and "main has ended" in journal.read_text(), process)
        ended_at = monotonic()

        process.communicate(timeout=20)

        assert process.returncode == 0
        assert monotonic() - ended_at < 8.0
        assert journal.read_text().splitlines() == ["start stuck", "main has ended"]

    def test_is_not_held_longer_by_several_workers(
        self, start: Start, client: QueueClient, endpoint: LocalSqs, fifo: str, tmp_path: Path
    ) -> None:
        journal = tmp_path / "journal"
        client.send_batch("events", [Message.of("stuck", session_id=str(number)) for number in range(4)])
        process = start(str(LEAVER), str(journal), "3", "4", QUEUE_RUNTIME_URL=endpoint.target(events=fifo))
        wait_for(lambda: journal.exists() and "main has ended" in journal.read_text(), process)
        ended_at = monotonic()

        process.communicate(timeout=20)

        assert process.returncode == 0
        assert monotonic() - ended_at < 9.0
