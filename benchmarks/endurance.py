"""Many handlers over many sessions, for long, with failures, restarts and a kill: is every promise kept?

    python benchmarks/endurance.py [--minutes 10] [--sessions 5000] [--handlers 64] [--provider sqs]

A worker process is fed at a steady rate while its handlers fail as their messages say. At random moments it
gets SIGTERM twice and SIGKILL once, and is started again each time. Books survive all of that; at the end
they are checked: nothing lost, nothing out of order in its session, nothing dead-lettered that was not to be,
everything that ran twice explained, every stop report true. Exits with 1 if a promise broke.

SQS is ministack (`queue_runtime.testing.sqs`): it keeps FIFO groups exclusive and in order, is not of this
project's making, and takes several times the rate; its time per request grows with the queue, which stays
short here. Memory has no process to kill.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from long_run.books import Books
from long_run.checker import Findings, Repeat, judged
from long_run.history import History
from long_run.places import PLACES
from long_run.supervisor import run

SHOWN = 20
"""Broken promises and repetitions of each kind that are listed; all of them are counted."""


def figures(books: Books, history: History, found: Findings, took: float) -> None:
    first = history.first_done
    dead = {message for message, _ in history.dead}
    times = sorted(first[each.message] - each.at for each in history.sent if each.message in first)
    cuts = statistics.quantiles(times, n=100) if len(times) > 1 else times * 99
    requests = sum(books.requests.values())
    kinds = Counter(each.promise for each in found.broken)
    reasons = ", ".join(f"{n} {reason}" for reason, n in Counter(dict(history.dead).values()).items())
    cut_short = sum(each.ended is None for each in history.runs)
    rows = {
        "sent": f"{len(history.sent)} in {len({each.session for each in history.sent})} sessions",
        "handled": len(first),
        "dead-lettered as planned": f"{len(dead)} ({reasons})",
        "lost": kinds["lost"] + kinds["left behind"],
        "out of order": kinds["out of order"],
        "wrongly dead-lettered": kinds["wrongly dead-lettered"] + kinds["wrong reason"],
        "other broken promises": len(found.broken)
        - sum(kinds[name] for name in ("lost", "left behind", "out of order"))
        - sum(kinds[name] for name in ("wrongly dead-lettered", "wrong reason")),
        "ran again after it was done": _counted(found.duplicates),
        "two at once in a session": _counted(found.overlaps),
        "dead letters twice": _counted(found.dead_again),
        "entries into a handler": f"{len(history.runs)}, {cut_short} cut short",
        "raised": ", ".join(f"{n} {error}" for error, n in books.failures.most_common()),
        "told": ", ".join(
            f"{n} {kind}" for kind, n in books.events.most_common() if kind not in ("ProviderCalled",)
        ),
        "throughput": f"{len(first) / took:.0f} messages/s over {took:.0f} s",
        "send to handled": f"p50 {cuts[49]:.2f} s, p95 {cuts[94]:.2f} s, longest {max(times):.1f} s",
        "requests per message": f"{requests / len(history.sent):.2f} ("
        + ", ".join(f"{name} {n / len(history.sent):.2f}" for name, n in books.requests.most_common(5))
        + ")",
    }
    for name, value in rows.items():
        print(f"{name:<28} {value}")


def _counted(repeats: Sequence[Repeat]) -> str:
    causes = Counter(each.cause for each in repeats).most_common()
    return f"{len(repeats)}" + "".join(f"\n{'':<28}   {n} times {cause}" for cause, n in causes)


def details(history: History, found: Findings) -> None:
    for number, life in enumerate(history.lives):
        print(f"life {number}: {life.ended_by}, gone after {life.ended - life.asked:.1f} s", end="")
        print(f", reported {dict(life.report)}" if life.report is not None else "")
    for each in found.duplicates[:SHOWN]:
        print(f"duplicate: {each.message}: {each.cause}")
    for broken in found.broken[:SHOWN]:
        print(f"BROKEN {broken}")
    if len(found.broken) > SHOWN:
        print(f"... and {len(found.broken) - SHOWN} more")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="that messages are sent")
    parser.add_argument("--sessions", type=int, default=5000)
    parser.add_argument("--handlers", type=int, default=64, help="the worker's concurrency")
    parser.add_argument("--provider", choices=sorted(PLACES), default="sqs")
    parser.add_argument("--rate", type=float, default=150.0, help="messages sent in a second")
    parser.add_argument("--lease", type=int, default=20, help="seconds that a message is held unrenewed")
    parser.add_argument("--seed", type=int, default=None, help="of what goes wrong when")
    parser.add_argument(
        "--keep", type=Path, default=None, help="folder for the books; else kept if one broke"
    )
    asked = parser.parse_args()
    asked.seed = random.randrange(10**6) if asked.seed is None else asked.seed
    print(f"{asked.minutes:g} minutes on {asked.provider}, {asked.handlers} handlers, seed {asked.seed}")
    folder = asked.keep or Path(tempfile.mkdtemp(prefix="endurance-"))
    folder.mkdir(exist_ok=True)
    books, history, took = run(asked, folder)
    found = judged(history)
    figures(books, history, found, took)
    details(history, found)
    if found.broken:
        print(f"{len(found.broken)} promises were broken; the books are in {folder}")
        return 1
    print("Every promise was kept.")
    if asked.keep is None:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
