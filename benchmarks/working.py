"""What working off a queue costs on a local SQS endpoint: ``python benchmarks/working.py [--messages 2000]``.

A worker handles messages that take a few milliseconds each; the table says how many requests that was. The
endpoint (ministack) takes more of the machine than the worker does, so messages per second are for comparing.
"""

from __future__ import annotations

import argparse
import os
import random
import threading
import time

from queue_runtime import ClientStats, Message, ReceivedMessage, Worker, connect
from queue_runtime.testing.sqs import CREDENTIALS, LocalSqs, make_queue

COLUMNS = "{:<10} {:>12} {:>9} {:>11} {:>9} {:>9} {:>9} {:>12}"


class Handler:
    """Takes a few milliseconds, and knows when it has had all."""

    def __init__(self, expected: int, seconds: float) -> None:
        self._expected = expected
        self._seconds = seconds
        self._lock = threading.Lock()
        # guarded by _lock
        self._ids: set[str] = set()
        self.done = threading.Event()

    def __call__(self, message: ReceivedMessage) -> None:
        time.sleep(random.uniform(0.5, 1.5) * self._seconds)
        with self._lock:
            self._ids.add(message.id)
            if len(self._ids) == self._expected:
                self.done.set()


def measured(
    endpoint: LocalSqs, queue: str, messages: int, concurrency: int, prefetch: int, seconds: float
) -> str:
    with connect(endpoint.target()) as sender:
        sessions = messages // 20
        sender.send_batch(
            queue, [Message(body=b"x" * 1024, session_id=str(n % sessions)) for n in range(messages)]
        )
    handler = Handler(messages, seconds)
    with connect(endpoint.target()) as client:
        began = time.monotonic()
        with Worker(client, queue, handler, concurrency=concurrency, prefetch=prefetch, poll=1.0):
            handler.done.wait(300)
            took = time.monotonic() - began
        stats: ClientStats = client.stats()
    asked = stats.broker_requests
    per_message = [asked.get(name, 0) / messages for name in ("ReceiveMessage", "DeleteMessageBatch")]
    return COLUMNS.format(
        "FIFO" if queue.endswith(".fifo") else "standard",
        concurrency,
        prefetch,
        f"{messages / took:,.0f}",
        *(f"{value:.2f}" for value in per_message),
        f"{stats.requests / messages:.2f}",
        f"{messages / max(1, asked.get('DeleteMessageBatch', 1)):.1f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=0.01, help="that a handler takes, on average")
    asked = parser.parse_args()
    os.environ.update(CREDENTIALS)
    print(
        COLUMNS.format(
            "queue", "concurrency", "prefetch", "messages/s", "receives", "deletes", "requests", "per delete"
        )
    )
    with LocalSqs() as endpoint:
        sqs = endpoint.client()
        for fifo in (False, True):
            for concurrency in (16, 64):
                for prefetch in (concurrency, 2 * concurrency):
                    made = make_queue(sqs, f"work-{concurrency}-{prefetch}", fifo=fifo)
                    print(measured(endpoint, made.name, asked.messages, concurrency, prefetch, asked.seconds))
        sqs.close()


if __name__ == "__main__":
    main()
