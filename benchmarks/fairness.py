"""Does one hot session starve the small ones? ``python benchmarks/fairness.py [--concurrency 2,8,16]``.

200 sessions of 10 messages are handled by a worker, once while somebody else holds the hot session and once
beside it, with its 10,000 messages in front of all the others. Both times those lie in the queue, so that
what the broker takes to step over them is in neither's favour. Exits with 1 if the small ones take more than
twice as long beside the hot one.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count

from queue_runtime import Message, QueueClient, ReceivedMessage, SessionClient, Worker, connect
from queue_runtime.testing.sqs import CREDENTIALS, LocalSqs, make_queue

HOT = "hot"
ALLOWED = 2.0
PATIENCE = 300.0
"""Seconds after which a run is given up: what is starved is never done."""
COLUMNS = "{:<16} {:>11} {:>8} {:>8} {:>7} {:>12}"

_numbers = count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is in the queue, and how long a handler takes in seconds."""

    hot: int
    sessions: int
    each: int
    pace: float

    def small(self, name: str) -> list[Message]:
        """Every session's first message, then every session's second, and so on."""
        return [
            Message(body=b"x", session_id=f"{name}-{session}")
            for _ in range(self.each)
            for session in range(self.sessions)
        ]


class Handler:
    """Takes its time, and knows when all the small ones are done and how many hot ones were by then."""

    def __init__(self, load: Load) -> None:
        self._pace = load.pace
        self._left = load.sessions * load.each
        self._lock = threading.Lock()
        # guarded by _lock
        self._hot = 0
        self.hot_by_then = 0
        self.done = threading.Event()

    def __call__(self, message: ReceivedMessage) -> None:
        time.sleep(self._pace)
        with self._lock:
            if message.session_id == HOT:
                self._hot += 1
                return
            self._left -= 1
            if self._left == 0:
                self.hot_by_then = self._hot
                self.done.set()


class House:
    """A queue with the hot session in it, whose first messages somebody holds until `let_go`."""

    def __init__(self, name: str, client: QueueClient, queue: str) -> None:
        self.name = name
        self.client = client
        self.queue = queue
        held = client.accept_session(queue, wait=5.0)
        assert held is not None
        assert held.session_id == HOT
        held.keep_alive()
        self._held: SessionClient = held

    def let_go(self) -> None:
        """What was in hand is completed: given back it would come with a raised count, as after a failure."""
        self._held.complete(self._held.receive(max_messages=10))
        self._held.close()


@contextmanager
def memory(kind: str, load: Load) -> Iterator[House]:
    url = f"memory://fairness-{next(_numbers)}?queues=events:{kind}"
    with connect(url) as client:
        client.send_batch("events", [Message(body=b"x", session_id=HOT) for _ in range(load.hot)])
        yield House(f"memory :{kind}", client, "events")


@contextmanager
def sqs(endpoint: LocalSqs, load: Load) -> Iterator[House]:
    sdk = endpoint.client()
    made = make_queue(sdk, f"fairness-{next(_numbers)}", fifo=True)
    # By the SDK: it may put ten messages of a session in a request, where the library's order allows one.
    for first in range(0, load.hot, 10):
        sdk.send_message_batch(
            QueueUrl=made.url,
            Entries=[
                {
                    "Id": str(place),
                    "MessageBody": "x",
                    "MessageGroupId": HOT,
                    "MessageDeduplicationId": str(first + place),
                }
                for place in range(min(10, load.hot - first))
            ],
        )
    sdk.close()
    with connect(endpoint.target(events=made.name)) as client:
        yield House("SQS FIFO", client, "events")


def measured(house: House, load: Load, name: str, concurrency: int) -> tuple[float, int]:
    """Seconds until a worker has done all the small ones, and the hot ones it did meanwhile."""
    house.client.send_batch(house.queue, load.small(name))
    handler = Handler(load)
    with Worker(house.client, house.queue, handler, concurrency=concurrency, poll=1.0):
        began = time.monotonic()
        done = handler.done.wait(PATIENCE)
        took = time.monotonic() - began
    return (took if done else float("inf")), handler.hot_by_then


def compared(house: House, load: Load, concurrency: int) -> bool:
    alone, _ = measured(house, load, "alone", concurrency)
    house.let_go()
    beside, hot = measured(house, load, "beside", concurrency)
    row = COLUMNS.format(
        house.name, concurrency, f"{alone:.2f}", f"{beside:.2f}", f"{beside / alone:.2f}", hot
    )
    print(row, flush=True)
    return beside <= ALLOWED * alone


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--concurrency", default="2,8,16", help="of the worker; several with commas")
    parser.add_argument("--queues", default="sessions,groups,sqs", help="which; several with commas")
    parser.add_argument("--hot", type=int, default=10_000, help="messages of the hot session")
    parser.add_argument("--sessions", type=int, default=200, help="small ones")
    parser.add_argument("--each", type=int, default=10, help="messages of each small one")
    parser.add_argument("--pace", type=float, default=0.005, help="seconds that a handler takes")
    asked = parser.parse_args()
    load = Load(hot=asked.hot, sessions=asked.sessions, each=asked.each, pace=asked.pace)
    os.environ.update(CREDENTIALS)
    print(COLUMNS.format("queue", "concurrency", "alone s", "beside s", "ratio", "hot meanwhile"), flush=True)
    fair = True
    with ExitStack() as stack:
        kinds = asked.queues.split(",")
        endpoint = stack.enter_context(LocalSqs()) if "sqs" in kinds else None
        for kind in kinds:
            for concurrency in map(int, asked.concurrency.split(",")):
                opened = sqs(endpoint, load) if kind == "sqs" and endpoint else memory(kind, load)
                with opened as house:
                    fair &= compared(house, load, concurrency)
    return 0 if fair else 1


if __name__ == "__main__":
    sys.exit(main())
