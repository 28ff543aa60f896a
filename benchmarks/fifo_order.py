"""Sends to a FIFO queue from many threads, while the endpoint fails in part: is any lost or out of order?

    python benchmarks/fifo_order.py [--messages 100000] [--sessions 1000] [--threads 16] [--faults 0.02]

Half of the threads submit, half send and wait. Each session belongs to one thread, so that the order in which
its messages were given is known. Exits with 1 if a message is lost, stored twice or out of order.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import urllib.request
from collections import defaultdict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from running import endpoint

from queue_runtime import ClientStats, Message, QueueClient, RetryPolicy, connect
from queue_runtime.config import parse_url
from queue_runtime.testing.sqs import CREDENTIALS, REGION

QUEUE = "events.fifo"
AHEAD = 400
"""Messages that a thread has on their way before it waits for the oldest."""


def give(client: QueueClient, thread: int, threads: int, messages: int, sessions: int) -> None:
    """All messages of the sessions of one thread, session after session and round after round."""
    mine = range(thread, sessions, threads)
    waiting: deque[Future[str]] = deque()
    for number in range(messages // sessions):
        batch = [
            Message(body=f"{session}.{number}".encode(), session_id=str(session), id=f"{session}.{number}")
            for session in mine
        ]
        if thread % 2:
            client.send_batch(QUEUE, batch)
            continue
        for message in batch:
            waiting.append(client.submit(QUEUE, message, timeout=60.0))
            if len(waiting) > AHEAD:
                waiting.popleft().result()
    for future in waiting:
        future.result()


def stored(url: str) -> list[str]:
    request = urllib.request.Request(url, b"{}", {"X-Amz-Target": "AmazonSQS.Stored"})
    with urllib.request.urlopen(request) as answer:
        found: list[str] = json.load(answer)["Stored"]
    return found


def judge(kept: list[str], messages: int, sessions: int) -> dict[str, int]:
    by_session: dict[int, list[int]] = defaultdict(list)
    for name in kept:
        session, number = map(int, name.split("."))
        by_session[session].append(number)
    expected = list(range(messages // sessions))
    return {
        "lost": sum(len(set(expected) - set(by_session[session])) for session in range(sessions)),
        "stored twice": len(kept) - len(set(kept)),
        "reordered": sum(numbers != sorted(numbers) for numbers in by_session.values()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--faults", type=float, default=0.02)
    asked = parser.parse_args()
    os.environ.update(CREDENTIALS)
    with endpoint(0.002, asked.faults) as url:
        settings = parse_url(f"sqs://{REGION}?endpoint_url={url}")
        patient = RetryPolicy(max_attempts=20, base=0.02, cap=0.2, time_limit=60.0)
        began = time.monotonic()
        with connect(replace(settings, retry=patient)) as client, ThreadPoolExecutor(asked.threads) as crew:
            work = [
                crew.submit(give, client, thread, asked.threads, asked.messages, asked.sessions)
                for thread in range(asked.threads)
            ]
            for each in work:
                each.result()
            stats: ClientStats = client.stats()
        seconds = time.monotonic() - began
        found = judge(stored(url), asked.messages, asked.sessions)
    send = stats.operations["send"]
    print(f"{asked.messages:,} messages over {asked.sessions:,} sessions from {asked.threads} threads")
    print(
        f"{send.calls:,} requests of {send.messages / send.calls:.1f} entries, {send.failed:,} failed whole"
    )
    print(f"{asked.messages / seconds:,.0f} messages/s")
    print(", ".join(f"{what}: {count}" for what, count in found.items()))
    return any(found.values())


if __name__ == "__main__":
    sys.exit(main())
