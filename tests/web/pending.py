"""A program that forks while messages it submitted are still to be sent; prints what came of it, as JSON."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from multiprocessing.connection import Connection
from typing import Any

from queue_runtime import connect
from tests.web.agreed import SUBMITTED
from tests.web.marks import marked

TIMEOUT = 20.0

client = connect()


def child(pipe: Connection) -> None:
    pipe.send(client.submit("events", marked("child")).result(TIMEOUT))
    client.close()


def main() -> None:
    context: Any = multiprocessing.get_context("fork")
    mine, its = context.Pipe()
    client.send("events", marked("parent"))
    futures = [client.submit("events", marked(f"parent-{number}")) for number in range(SUBMITTED)]
    pending: list[int] = []
    os.register_at_fork(before=lambda: pending.append(sum(not future.done() for future in futures)))
    process = context.Process(target=child, args=(its,))
    process.start()
    ids = [mine.recv()] if mine.poll(TIMEOUT) else []
    process.join(TIMEOUT)
    client.close()
    ids += ["parent", *(future.result(0) for future in futures)]
    report = {"pid": os.getpid(), "pending": pending[0], "ids": ids, "code": process.exitcode}
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
