"""A worker as a program of its own, whose process a test stalls: says what it does, and what it is told.

    python stalled_bot.py JOURNAL GATE

The queue is `events` of the URL in the environment. The handlers of `a1` and `b1` note the loss of their
leases, and return when there is a file GATE. A poll lasts longer than a lease does: on SQS the one under way
when the process is stopped is given what the process has lost, and the answer is old when it wakes.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from time import monotonic

from queue_runtime import ReceivedMessage, Worker, connect
from queue_runtime.events import Event, LostLease, MessageCompleted, SettlementFailed


def main(journal: str, gate: Path) -> None:
    book = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    never = threading.Event()

    def note(what: str, whom: str | None) -> None:
        os.write(book, f"{monotonic()} {what} {whom}\n".encode())

    def told(event: Event) -> None:
        if isinstance(event, MessageCompleted | SettlementFailed):
            note(type(event).__name__, event.message_id)
        elif isinstance(event, LostLease):
            note("LostLease", event.session_id)

    def handler(message: ReceivedMessage) -> None:
        note("start", message.text)
        if message.text in ("a1", "b1"):
            while not message.lease.lost:
                never.wait(0.01)
            note("lost", message.text)
            while not gate.exists():
                never.wait(0.01)
        note("end", message.text)

    with connect(listeners=[told]) as client:
        worker = Worker(client, "events", handler, concurrency=8, poll=4.0, session_idle=60.0)
        report = worker.run(deadline=10.0)
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("queue_runtime")]
    sys.stdout.write(json.dumps({"overdue": report.overdue, "unknown": report.unknown, "left": left}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
