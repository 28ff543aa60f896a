"""What the Service Bus provider costs, at the local broker: ``python benchmarks/servicebus.py [NAME ...]``.

Names: sessions, settle, recovery, idle. Figures of one run are for comparing with each other: the broker
shares the machine, and takes about as much of it as the provider does.
"""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from rich.console import Console
from rich.table import Table

from queue_runtime import Message, QueueClient, ReceivedMessage, Worker, connect
from queue_runtime.testing.servicebus import LocalServiceBus

console = Console()


def cpu() -> float:
    """Seconds of processor that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def connected(bus: LocalServiceBus, **options: object) -> QueueClient:
    return connect(bus.target() + "".join(f"&{name}={value}" for name, value in options.items()))


class Count:
    """A handler that counts, and knows when it has had all."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.seen: list[float] = []
        self.done = threading.Event()

    def __call__(self, message: ReceivedMessage) -> None:
        self.seen.append(time.monotonic())
        if len(self.seen) == self.expected:
            self.done.set()


def handled(client: QueueClient, queue: str, count: int, concurrency: int) -> tuple[float, float]:
    """Have a worker handle *count* messages; messages per second, and the part of a core that it took."""
    counting = Count(count)
    used, started = cpu(), time.monotonic()
    with Worker(client, queue, counting, concurrency=concurrency):
        counting.done.wait(120.0)
        seconds, used = time.monotonic() - started, cpu() - used
    return len(counting.seen) / seconds, used / seconds


def sessions(bus: LocalServiceBus) -> Table:
    """Sessions with one message each, handled by a worker, from the first to the last."""
    table = Table("slots", "sessions", "sessions/s", "cpu of one core", title="one message per session")
    for slots, count in ((8, 100), (32, 400), (64, 800)):
        queue = bus.make_queue(f"sessions-{slots}", sessions=True)
        with connected(bus, openings=slots) as client:
            client.send_batch(queue, [Message(body=b"x", session_id=f"s{n}") for n in range(count)])
            rate, used = handled(client, queue, count, slots)
        table.add_row(str(slots), str(count), f"{rate:.1f}", f"{used:.0%}")
    return table


def settle(bus: LocalServiceBus) -> Table:
    """Messages of a kilobyte: 400 in hand, completed by one call; and from the queue to done, by a worker."""
    table = Table(
        "receivers", "latency ms", "completed/s", "by a worker/s", "cpu of one core", title="settling"
    )
    for latency in (0, 10):
        for receivers in (1, 4, 16):
            queue = bus.make_queue(f"settle-{receivers}-{latency}")
            with connected(bus, receivers=receivers) as client:
                client.send_batch(queue, [Message(body=b"x" * 1000) for _ in range(800)])
                held: list[ReceivedMessage] = []
                while len(held) < 400:
                    held += client.receive(queue, max_messages=min(16, 400 - len(held)), wait=5.0)
                bus.latency(latency)
                started = time.monotonic()
                client.complete(held)
                seconds = time.monotonic() - started
                rate, used = handled(client, queue, 400, 16)
                bus.latency(0)
            table.add_row(
                str(receivers), str(latency), f"{len(held) / seconds:.0f}", f"{rate:.0f}", f"{used:.0%}"
            )
    return table


def idle(bus: LocalServiceBus) -> Table:
    """What fifty receivers cost that wait for messages which do not come."""
    table = Table("what waits", "cpu of one core", title="idle")
    queue = bus.make_queue("idle")
    with connected(bus, receivers=50) as client:
        threads = [
            threading.Thread(target=client.receive, args=(queue,), kwargs={"wait": 15.0}) for _ in range(50)
        ]
        for thread in threads:
            thread.start()
        time.sleep(5.0)
        used, started = cpu(), time.monotonic()
        time.sleep(5.0)
        table.add_row("50 receives", f"{(cpu() - used) / (time.monotonic() - started):.1%}")
        for thread in threads:
            thread.join()
        used, started = cpu(), time.monotonic()
        time.sleep(5.0)
        table.add_row("50 open receivers", f"{(cpu() - used) / (time.monotonic() - started):.1%}")
    queue = bus.make_queue("idle-sessions", sessions=True)
    with connected(bus) as client, Worker(client, queue, lambda message: None, concurrency=16):
        time.sleep(3.0)
        used, started = cpu(), time.monotonic()
        time.sleep(5.0)
        table.add_row("a worker, 16 slots", f"{(cpu() - used) / (time.monotonic() - started):.1%}")
    return table


def recovery(bus: LocalServiceBus) -> Table:
    """From a fault to the next message handled, by a worker."""
    table = Table("queue", "fault", "seconds", title="to the next message handled")
    for kind in ("plain", "sessions"):
        queue = bus.make_queue(f"recovery-{kind}", sessions=kind == "sessions", lock=10.0)
        faults: dict[str, Callable[[], None]] = {
            "connection killed": partial(bus.fault, "kill"),
            "link detached": partial(bus.fault, "detach", entity=queue, cond="amqp:link:detach-forced"),
        }
        if kind == "sessions":
            faults["session lock stolen"] = partial(bus.fault, "session_lock", entity=queue, session="s")
        message = Message(body=b"x", session_id="s" if kind == "sessions" else None)
        counting = Count(0)
        with connected(bus) as client, Worker(client, queue, counting, concurrency=4):
            for name, fault in faults.items():
                client.send(queue, message)
                _until(counting, len(counting.seen) + 1)
                fault()
                started, before = time.monotonic(), len(counting.seen)
                client.send(queue, replace(message, id=name))
                came = _until(counting, before + 1)
                table.add_row(kind, name, f"{time.monotonic() - started:.2f}" if came else "none in 30")
    return table


def _until(counting: Count, seen: int) -> bool:
    deadline = time.monotonic() + 30.0
    while len(counting.seen) < seen and time.monotonic() < deadline:
        time.sleep(0.01)
    return len(counting.seen) >= seen


MEASURES = {"sessions": sessions, "settle": settle, "recovery": recovery, "idle": idle}


def main(names: list[str]) -> None:
    unknown = set(names) - set(MEASURES)
    if unknown:
        sys.exit(f"no such measure: {', '.join(sorted(unknown))}; there are {', '.join(MEASURES)}")
    with LocalServiceBus() as bus:
        for name in names or MEASURES:
            console.print(MEASURES[name](bus))


if __name__ == "__main__":
    main(sys.argv[1:])
