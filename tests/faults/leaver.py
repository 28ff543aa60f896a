"""A worker as a program of its own that leaves without having stopped its worker.

    python leaver.py JOURNAL EXIT_DEADLINE [WORKERS]

The queue is `events` of the URL in the environment. A message ``stuck`` is never finished; the handler of any
other one goes on when the main thread is at its end.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading

from queue_runtime import ReceivedMessage, Worker, connect
from queue_runtime.worker import work


def main(journal: str, exit_deadline: float, workers: int = 1) -> None:
    book = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    work.EXIT_DEADLINE = exit_deadline
    entered, leaving, never = threading.Event(), threading.Event(), threading.Event()

    def handler(message: ReceivedMessage) -> None:
        os.write(book, f"start {message.text}\n".encode())
        entered.set()
        leaving.wait()
        never.wait(None if message.text == "stuck" else 0.5)
        os.write(book, f"end {message.text} lost={message.lease.lost}\n".encode())

    client = connect()
    for _ in range(workers):
        Worker(client, "events", handler, concurrency=1 if workers > 1 else 2, poll=1.0).start()
    atexit.register(leaving.set)  # called before that of the worker, which was registered earlier
    entered.wait(20.0)
    os.write(book, b"main has ended\n")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), *(int(number) for number in sys.argv[3:]))
