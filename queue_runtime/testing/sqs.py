"""A local SQS endpoint for tests and demos, and queues to go with it.

``python -m queue_runtime.testing.sqs QUEUE[.fifo] ...`` serves one until it is interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import quote

from queue_runtime.errors import MissingExtra, QueueError

_INSTALL = (
    "pip install 'queue_runtime[sqs]' ministack, as one command: ministack takes one version of botocore, "
    "and boto3 has to go with it"
)

try:
    import boto3.session
except ModuleNotFoundError as exc:
    raise MissingExtra(f"queue_runtime.testing.sqs needs boto3; {_INSTALL}") from exc

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

REGION = "eu-west-1"

CREDENTIALS: Mapping[str, str] = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_DEFAULT_REGION": REGION,
}
"""What a process that uses the endpoint needs in its environment: boto3 signs for any endpoint, this one
takes every signature."""

# Without these it starts other services too, and listens on every address of the machine.
_ENVIRONMENT = {
    "BIND_HOST": "127.0.0.1",
    "SERVICES": "sqs",
    "IOT_MTLS_ENABLED": "0",
    "SFTP_ENABLED": "0",
    "PERSIST_STATE": "0",
}

# It has no option for it: it ends when its input does, and so with who has started it, however that ends.
_SERVE = """
import os, runpy, threading

def end_with_the_input():
    os.read(0, 1)  # nobody writes to it
    os._exit(0)  # it keeps nothing

threading.Thread(target=end_with_the_input, daemon=True).start()
runpy.run_module("ministack", run_name="__main__", alter_sys=True)
"""

_RUNNING = re.compile(r"Running on (http://127\.0\.0\.1:\d+)")

_STOP_TIMEOUT = 5.0


class LocalSqs:
    """A `ministack` process on a *port* of 127.0.0.1 (0: a free one), as long as the ``with`` block lasts.

    Its queues are gone with it. It is in a process group of its own, so that a Ctrl-C meant for the program
    leaves it there until the program has put its messages in order. It ends with the program, however that
    ends.

    Raises `MissingExtra` if ministack is not installed, `QueueError` if it is not up within
    *start_timeout* seconds.
    """

    def __init__(self, *, port: int = 0, start_timeout: float = 20.0) -> None:
        self._port = port
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._log: deque[str] = deque(maxlen=40)
        self._up_or_over = threading.Event()
        self._url: str | None = None

    @property
    def url(self) -> str:
        """The endpoint, ``http://127.0.0.1:PORT``."""
        if self._url is None:
            raise QueueError("the local SQS endpoint is not running; use it inside its `with` block")
        return self._url

    @property
    def ended(self) -> bool:
        """Whether its process has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def target(self, **queues: str) -> str:
        """Return the URL for `connect`; *queues* maps the program's names to this endpoint's."""
        mapped = "".join(f"&queue.{name}={quote(target)}" for name, target in queues.items())
        return f"sqs://{REGION}?endpoint_url={quote(self.url, safe='')}{mapped}"

    def client(self) -> SQSClient:
        """Return an SDK client of the endpoint, for making queues and looking at them. Close it after use."""
        return boto3.session.Session(
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            region_name=REGION,
        ).client("sqs", endpoint_url=self.url)

    def __enter__(self) -> LocalSqs:
        if find_spec("ministack") is None:
            raise MissingExtra(f"the local SQS endpoint needs the package 'ministack'; {_INSTALL}")
        self._up_or_over.clear()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE],
            env={**os.environ, **_ENVIRONMENT, "GATEWAY_PORT": str(self._port)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(
            target=self._read_log, args=(self._process,), name="local-sqs-log", daemon=True
        )
        self._reader.start()
        try:
            self._up_or_over.wait(self._start_timeout)
            if self._url is None:
                raise QueueError(
                    f"ministack did not start (it has {self._start_timeout} s for it); it said:\n"
                    + "\n".join(self._log)
                )
        except BaseException:  # a Ctrl-C too: the process is in a group of its own and would stay
            self._stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop()

    def _read_log(self, process: subprocess.Popen[str]) -> None:
        """To the end, so that the pipe never fills up."""
        assert process.stdout is not None
        for line in process.stdout:
            self._log.append(line.rstrip())
            if found := _RUNNING.search(line):
                self._url = found[1]
                self._up_or_over.set()
        self._up_or_over.set()

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._reader is not None:
            self._reader.join(_STOP_TIMEOUT)
        self._url = None
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeQueue:
    """A queue made by `make_queue`, and its dead-letter queue if it has one."""

    name: str
    url: str
    dead_letter_name: str | None
    dead_letter_url: str | None


def make_queue(
    client: SQSClient,
    name: str,
    *,
    fifo: bool = False,
    lease: int = 30,
    max_receives: int = 100,
    dead_letter: bool = True,
    max_message_size: int | None = None,
) -> MadeQueue:
    """Make a queue with the SDK, and ``NAME-dlq`` for its dead letters; FIFO queues get their ``.fifo``.

    *lease* is the visibility timeout in whole seconds, *max_receives* the count after which the broker
    itself moves a message, *max_message_size* is in bytes (None: the most that SQS takes).
    """
    base = name.removesuffix(".fifo")
    suffix = ".fifo" if fifo else ""
    attributes = {"VisibilityTimeout": str(lease)}
    if fifo:
        attributes["FifoQueue"] = "true"
    if max_message_size is not None:
        attributes["MaximumMessageSize"] = str(max_message_size)
    dead_letter_name = dead_letter_url = None
    redrive = {}
    if dead_letter:
        dead_letter_name = f"{base}-dlq{suffix}"
        dead_letter_url = _create(client, dead_letter_name, attributes)
        facts = client.get_queue_attributes(QueueUrl=dead_letter_url, AttributeNames=["QueueArn"])
        policy = {
            "deadLetterTargetArn": facts["Attributes"]["QueueArn"],
            "maxReceiveCount": str(max_receives),
        }
        redrive = {"RedrivePolicy": json.dumps(policy)}
    url = _create(client, base + suffix, {**attributes, **redrive})
    return MadeQueue(
        name=base + suffix, url=url, dead_letter_name=dead_letter_name, dead_letter_url=dead_letter_url
    )


def _create(client: SQSClient, name: str, attributes: Mapping[str, str]) -> str:
    answer = client.create_queue(QueueName=name, Attributes=dict(attributes))  # type: ignore[arg-type]
    return answer["QueueUrl"]


# The command.

_LOOK = 1.0
"""Seconds between two looks whether the endpoint is still there."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C. When ready it says where, and as whom, in lines for a shell."""
    options = _parser().parse_args(arguments)
    names: list[str] = options.queues
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        with LocalSqs(port=options.port) as endpoint:
            client = endpoint.client()
            for name in names:
                make_queue(client, name, fifo=name.endswith(".fifo"))
            client.close()
            # The program's name is that without the .fifo, unless there is such a queue too.
            mapped = {name.removesuffix(".fifo"): name for name in names}
            mapped |= {name: name for name in names if not name.endswith(".fifo")}
            for variable, value in {"QUEUE_RUNTIME_URL": endpoint.target(**mapped), **CREDENTIALS}.items():
                sys.stdout.write(f"export {variable}={shlex.quote(value)}\n")
            sys.stdout.flush()
            while not stopping.wait(_LOOK):
                if endpoint.ended:
                    sys.stderr.write("the endpoint has ended\n")
                    return 1
    except QueueError as exc:
        sys.stderr.write(f"cannot serve: {exc}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m queue_runtime.testing.sqs",
        description="A local SQS for tests and local runs, by ministack; its queues are gone when it stops.",
    )
    parser.add_argument(
        "queues",
        nargs="+",
        type=_queue_name,
        metavar="QUEUE[.fifo]",
        help="a queue to make, with QUEUE-dlq for its dead letters; FIFO if its name ends in .fifo",
    )
    parser.add_argument("--port", type=int, default=0, help="of HTTP; 0, the default, picks a free one")
    return parser


def _queue_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,71}(\.fifo)?", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no queue name: letters, digits, - and _, at most 71 of them, and .fifo"
        )
    return text


if __name__ == "__main__":
    sys.exit(main())
