"""What keeping many leases alive costs: ``python benchmarks/leases.py [--leases 10000] [--seconds 60]``.

Half of the leases last 30 seconds and half 300, taken at different times, on a broker that answers at once:
what is measured is deciding and calling, not the network. A lane is what shares requests: a queue, or one
session. Exits with 1 if a lease is lost, or if the thread that decides (column "scheduler") takes more than
2 % of a core; column "all" is the whole process, with the threads that renew and the broker's stub.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections.abc import Hashable, Sequence

from queue_runtime.clock import SystemClock
from queue_runtime.errors import Outcome
from queue_runtime.events import Event, Events
from queue_runtime.executor import SessionExecutor
from queue_runtime.lease import Lease
from queue_runtime.leases import Held, LeaseRenewer
from queue_runtime.runtime import RENEWAL_THREADS
from queue_runtime.scheduler import Scheduler

LENGTHS = (30.0, 300.0)
MOST = 0.02
"""The part of a core that deciding may take."""
SETTLING_DOWN = 2.0
"""Seconds before the measurement: what was watched last has come to rest."""
COLUMNS = "{:>8} {:>7} {:>12} {:>9} {:>6} {:>12} {:>10} {:>14}"


class Lane:
    """Renews whatever it is asked for, at once, and counts."""

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.calls = 0
        self.renewed = 0

    def renew(self, held: Sequence[Held]) -> Sequence[Outcome[float]]:
        self.calls += 1
        self.renewed += len(held)
        now = time.monotonic()
        return [Outcome(now + one.lease.length) for one in held]


def watch(renewer: LeaseRenewer, lanes: Sequence[Lane], leases: int) -> float:
    """Watch so many leases that were taken at different times; returns the CPU seconds that this took."""
    clock, chance = SystemClock(), random.Random(1)
    started = time.process_time()
    for number in range(leases):
        length = LENGTHS[number // len(lanes) % 2] if len(lanes) < leases else LENGTHS[number % 2]
        until = time.monotonic() + length * chance.uniform(0.55, 1.0)
        lease = Lease(clock, until=until, length=length, what=f"message {number}")
        lane = lanes[number % len(lanes)]
        renewer.watch(Held(lease=lease, lane=lane, queue="jobs", session_id=f"{number}"))
    return time.process_time() - started


def thread_time(name: str) -> float:
    """CPU seconds of the thread called *name*."""
    [thread] = [thread for thread in threading.enumerate() if thread.name == name]
    assert thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def measured(leases: int, lanes: int, seconds: float) -> tuple[str, bool]:
    """A row, and whether all leases were kept and deciding was cheap enough."""
    clock, told = SystemClock(), list[Event]()
    scheduler = Scheduler(clock, name="scheduler")
    pool = SessionExecutor(RENEWAL_THREADS, name="renew", clock=clock)
    renewer = LeaseRenewer(clock, scheduler, pool, Events([told.append]), max_lease=12 * 3600.0)
    made = [Lane(number) for number in range(lanes)]
    took = watch(renewer, made, leases)
    time.sleep(SETTLING_DOWN)
    calls, renewed = sum(lane.calls for lane in made), sum(lane.renewed for lane in made)
    started, whole, own = time.monotonic(), time.process_time(), thread_time("scheduler")
    time.sleep(seconds)
    whole, own = time.process_time() - whole, thread_time("scheduler") - own
    lasted = time.monotonic() - started
    calls = sum(lane.calls for lane in made) - calls
    renewed = sum(lane.renewed for lane in made) - renewed
    scheduler.close()
    pool.shutdown(cancel_futures=True)
    row = COLUMNS.format(
        lanes,
        leases,
        f"{renewed / lasted:,.0f}",
        f"{calls / lasted:,.1f}",
        len(told),
        f"{100 * own / lasted:.2f} %",
        f"{100 * whole / lasted:.2f} %",
        f"{1e6 * took / leases:.0f} µs",
    )
    return row, not told and own <= MOST * lasted


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--leases", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="that each row is measured for")
    parser.add_argument("--lanes", default="1,20,10000")
    asked = parser.parse_args()
    print(
        COLUMNS.format("lanes", "leases", "renewals/s", "calls/s", "lost", "scheduler", "all", "to watch one")
    )
    well = True
    for lanes in asked.lanes.split(","):
        row, kept = measured(asked.leases, int(lanes), asked.seconds)
        well &= kept
        print(row, flush=True)
    print(
        f"of one core: the scheduler's thread, which may take {MOST:.0%}; all threads, the broker's stub too"
    )
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
