"""A program whose processes all send with the client that it makes when it is loaded.

    python -m tests.web.processes METHOD PARENT JOURNAL

METHOD is one of multiprocessing's; PARENT says what the parent does with the client before it starts the
children, as in served.py. Prints what each process saw, as JSON.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from queue_runtime import ReceivedMessage, Worker, connect
from tests.web.agreed import CHILDREN, MESSAGES
from tests.web.marks import marked
from tests.web.sockets import mine, opened

TIMEOUT = 20.0
"""Seconds for a child to say what it saw, and to end."""

URL = os.environ["QUEUE_RUNTIME_URL"]

client = connect(URL)


def child(number: int, pipe: Connection) -> None:
    """Send, say what was seen, and stay until the parent has heard all of it."""
    threads, inherited = _our_threads(), opened()
    ids = [client.send("events", marked(f"child-{number}-{n}")) for n in range(MESSAGES)]
    pipe.send(
        {"pid": os.getpid(), "threads": threads, "ids": ids, "inherited": inherited, "sockets": mine(URL)}
    )
    pipe.recv()
    if number % 2:  # it must not need closing to end
        client.close()


def main(method: str, parent: str, journal: Path) -> None:
    def note(message: ReceivedMessage) -> None:
        with journal.open("ab", buffering=0) as lines:
            lines.write(f"{os.getpid()} {message.id}\n".encode())

    # None when the forkserver or a spawned child reads it: they only load this.
    context: Any = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["tests.web.processes"])
    ids = []
    if parent != "nothing":
        ids.append(client.send("events", marked("parent-before")))
    if parent == "works":
        Worker(client, "jobs", note, concurrency=2, poll=1.0).start()
    started = [_start(context, number) for number in range(CHILDREN)]
    ids.append(client.send("events", marked("parent-after")))
    seen = [_heard(pipe) for _, pipe in started]
    for _, pipe in started:
        pipe.send("go")
    for process, _ in started:
        process.join(TIMEOUT)
    client.close()
    report = {
        "parent": {"pid": os.getpid(), "ids": ids},
        "children": seen,
        "codes": [process.exitcode for process, _ in started],
    }
    sys.stdout.write(json.dumps(report))


def _start(context: Any, number: int) -> tuple[BaseProcess, Connection]:
    mine, its = context.Pipe()
    process: BaseProcess = context.Process(target=child, args=(number, its))
    process.start()
    its.close()
    return process, mine


def _heard(pipe: Connection) -> Any:
    if not pipe.poll(TIMEOUT):
        raise SystemExit("a child hangs")
    return pipe.recv()


def _our_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("queue_runtime")]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
