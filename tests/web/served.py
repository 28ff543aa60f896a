"""The app that these tests have served: its client is made when this is imported, before any fork.

WEB_PARENT says what the process that imports it does with the client: nothing; sends; submits (and does not
wait for what it submitted); works (sends, and runs a worker, whose handler writes to WEB_JOURNAL who handled
what). WEB_CLOSING says who closes the client: atexit, or the server's own hook.
"""

from __future__ import annotations

import atexit
import os
import threading
from dataclasses import replace
from pathlib import Path

from flask import Flask, request
from flask.typing import ResponseReturnValue

from examples.web_views.flask_app import refused, unavailable
from queue_runtime import ReceivedMessage, Worker, connect
from queue_runtime.breaker import BreakerPolicy
from queue_runtime.config import parse_url
from queue_runtime.errors import InvalidMessage, QueueError
from tests.web.agreed import OPEN_FOR, SUBMITTED
from tests.web.marks import marked
from tests.web.sockets import mine, runs_here

URL = os.environ["QUEUE_RUNTIME_URL"]
PARENT = os.environ["WEB_PARENT"]
JOURNAL = Path(os.environ["WEB_JOURNAL"])

client = connect(replace(parse_url(URL), breaker=BreakerPolicy(open_for=OPEN_FOR)))
if os.environ["WEB_CLOSING"] == "atexit":
    atexit.register(client.close)


def _note(message: ReceivedMessage) -> None:
    # One write of a short line: lines of two threads do not mix.
    with JOURNAL.open("ab", buffering=0) as journal:
        journal.write(f"{os.getpid()} {message.id}\n".encode())


worker = Worker(client, "jobs", _note, concurrency=2, poll=1.0)
if PARENT != "nothing":
    client.send("events", marked(f"parent-{os.getpid()}"))
if PARENT == "submits":
    for number in range(SUBMITTED - 1):
        client.submit("events", marked(f"parent-{os.getpid()}-{number}"))
if PARENT == "works":
    worker.start()


class _First:
    """What there was of the library in this process when its first request came."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # guarded by _lock
        self._seen: dict[int, tuple[list[str], list[str]]] = {}

    def seen(self) -> tuple[list[str], list[str]]:
        """Its threads, and connections to the endpoint."""
        with self._lock:
            if os.getpid() not in self._seen:
                # After a fork that Python did not hear of it still counts threads of the parent's.
                alive = [each for each in threading.enumerate() if runs_here(each)]
                threads = [each.name for each in alive]
                ours = [name for name in threads if name.startswith("queue_runtime")]
                self._seen[os.getpid()] = ours, mine(URL)
            return self._seen[os.getpid()]


first = _First()
app = Flask(__name__)
app.extensions["queue_runtime"] = client
app.register_error_handler(InvalidMessage, refused)
app.register_error_handler(QueueError, unavailable)


@app.post("/<verb>/<queue>/<name>")
def put(verb: str, queue: str, name: str) -> ResponseReturnValue:
    """``/send/...`` answers when the message is stored, ``/submit/...`` before."""
    threads, sockets = first.seen()
    if verb == "submit":
        client.submit(queue, marked(name))
    else:
        client.send(queue, marked(name))
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "threads": threads,
        "sockets": sockets,
        "worker": worker.status().state,
    }, 202


@app.get("/ready")
def ready() -> ResponseReturnValue:
    return {"pid": os.getpid(), "query": request.query_string.decode()}
