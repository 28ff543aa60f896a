"""A worker as a program of its own: journals what its handler does, and says at the end how it stopped.

    python bot.py JOURNAL PACE

The queue is `events` of the URL in the environment. A message ``stuck`` is never finished.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import asdict

from queue_runtime import ReceivedMessage, Worker, connect


def main(journal: str, pace: float) -> None:
    book = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    never = threading.Event()

    def handler(message: ReceivedMessage) -> None:
        os.write(book, f"start {message.text}\n".encode())
        never.wait(None if message.text == "stuck" else pace)
        os.write(book, f"end {message.text}\n".encode())

    with connect() as client:
        report = Worker(client, "events", handler, concurrency=8, poll=2.0).run(deadline=10.0)
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("queue_runtime")]
    sys.stdout.write(json.dumps({**asdict(report), "left": left}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
