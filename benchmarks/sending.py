"""What sending costs: requests per message and the time of one `send`, next to plain boto3.

    python benchmarks/sending.py [--latency 0.02] [--seconds 4] [--threads 1,4,16,64] [--partial 1]

Both send 1 KB messages to the same endpoint, which answers after *latency* seconds, from the same number of
threads, one after the other in one run: machines differ and are noisy, so the ratio is what counts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass, replace

import boto3
from botocore.config import Config
from running import endpoint

from queue_runtime import BatchPolicy, Message, QueueClient, connect, parse_url
from queue_runtime.testing.sqs import CREDENTIALS, REGION

BODY = b"x" * 1024
COLUMNS = "{:>8} {:<22} {:>10} {:>9} {:>9} {:>14} {:>10}"


@dataclass(frozen=True)
class Run:
    """What one kind of sender did with some threads."""

    seconds: float
    times: list[float]
    requests: int

    def row(self, threads: int, name: str) -> str:
        cuts = statistics.quantiles(self.times, n=20) if len(self.times) > 1 else self.times * 19
        return COLUMNS.format(
            threads,
            name,
            f"{len(self.times) / self.seconds:,.0f}",
            f"{cuts[9] * 1000:.1f}",
            f"{cuts[18] * 1000:.1f}",
            f"{self.requests / len(self.times):.3f}",
            f"{len(self.times) / self.requests:.1f}",
        )


def timed(threads: int, seconds: float, send: Callable[[], object]) -> tuple[float, list[float]]:
    """Have *threads* threads call *send* for so many seconds; how long it took, and each call."""
    times: list[float] = []
    start = threading.Barrier(threads + 1)
    end = time.monotonic() + seconds + 0.1

    def run() -> None:
        mine = []
        start.wait()
        while (before := time.monotonic()) < end:
            send()
            mine.append(time.monotonic() - before)
        times.extend(mine)

    crew = [threading.Thread(target=run) for _ in range(threads)]
    for thread in crew:
        thread.start()
    start.wait()
    began = time.monotonic()
    for thread in crew:
        thread.join()
    return time.monotonic() - began, times


def library(client: QueueClient, threads: int, seconds: float) -> Run:
    before = client.stats().requests
    took, times = timed(threads, seconds, lambda: client.send("jobs", Message(body=BODY)))
    return Run(took, times, client.stats().requests - before)


def submitting(client: QueueClient, seconds: float) -> Run:
    """One thread that submits; the time of a message is from then to its confirmation."""
    before = client.stats().requests
    times: list[float] = []
    futures = []
    began = time.monotonic()
    while (at := time.monotonic()) < began + seconds:
        future = client.submit("jobs", Message(body=BODY))
        future.add_done_callback(lambda _, at=at: times.append(time.monotonic() - at))  # type: ignore[misc]
        futures.append(future)
    wait(futures)
    return Run(time.monotonic() - began, times, client.stats().requests - before)


def plain(url: str, threads: int, seconds: float) -> Run:
    sqs = boto3.Session(aws_access_key_id="local", aws_secret_access_key="local", region_name=REGION).client(
        "sqs", endpoint_url=url, config=Config(max_pool_connections=max(10, threads))
    )
    where = sqs.get_queue_url(QueueName="jobs")["QueueUrl"]
    text = BODY.decode()
    took, times = timed(threads, seconds, lambda: sqs.send_message(QueueUrl=where, MessageBody=text))
    return Run(took, times, len(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--latency", type=float, default=0.02)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--threads", default="1,4,16,64")
    parser.add_argument("--partial", type=int, default=1, help="BatchPolicy.partial_in_flight")
    asked = parser.parse_args()
    os.environ.update(CREDENTIALS)
    print(COLUMNS.format("threads", "", "messages/s", "p50 ms", "p95 ms", "requests/msg", "per request"))
    batching = BatchPolicy(partial_in_flight=asked.partial)
    with (
        endpoint(asked.latency) as url,
        connect(replace(parse_url(f"sqs://{REGION}?endpoint_url={url}"), batching=batching)) as client,
    ):
        client.send("jobs", Message(body=BODY))
        for threads in map(int, asked.threads.split(",")):
            print(plain(url, threads, asked.seconds).row(threads, "boto3 send_message"))
            print(library(client, threads, asked.seconds).row(threads, "client.send"))
        print(submitting(client, asked.seconds).row(1, "client.submit"))


if __name__ == "__main__":
    main()
