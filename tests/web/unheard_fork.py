"""A program that forks as a C program does that has Python inside: `os.register_at_fork` does not hear of it.

So does uWSGI, unless it is told otherwise. Prints what the child's threads came to, which all send at once.
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from queue_runtime import Message, connect
from queue_runtime.errors import QueueError
from tests.web.agreed import THREADS

client = connect("memory://?queues=jobs")
client.send("jobs", Message(body=b"parent"))


def send(together: Barrier) -> str:
    together.wait(10.0)
    try:
        client.send("jobs", Message(body=b"child"))
    except QueueError as exc:
        return f"{type(exc).__name__}: {exc}"
    return "sent"


pid = ctypes.PyDLL(None).fork()
if pid == 0:
    with ThreadPoolExecutor(THREADS) as crew:
        told = sorted(set(crew.map(send, [Barrier(THREADS)] * THREADS)))
    # One client for all of them has all of it, and the memory of the child is its own.
    stored = client.describe("jobs").active if told == ["sent"] else 0
    os.write(1, f"{told} {stored}".encode())
    os._exit(0)
os.waitpid(pid, 0)
