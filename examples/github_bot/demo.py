"""Runs the main job on real input: webhooks in, ordered handlers out, every promise checked.

    python examples/github_bot/demo.py [--provider sqs|servicebus|memory|all] [--payloads FILE]
                                       [--deliveries N] [--seed N] [--rate N]

Signed deliveries go over HTTP to app.py, through a queue, to the handlers of worker.py. Some handlers are
slow, some fail once, one fails until the bot is fixed, one delivery cannot be decoded, a few are forged or
come twice. `all`: the same deliveries on one broker after the other, and a table that compares what they
came to. Exit status: 0, every promise was kept, and the same on all; 1, one was broken, something differs
that must not, or the time ran out; 2, it could not be run.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

import worker
from app import QUEUE, create_app
from demo_parts.books import Books
from demo_parts.brokers import BROKERS, Broker
from demo_parts.checker import broken_promises
from demo_parts.figures import Result, differences, figures, rows
from demo_parts.journal import Journal, Reader
from demo_parts.plan import Delivery, file_entries, lanes, make_plan, sample_entries, write_troubles
from demo_parts.post import Poster
from demo_parts.report import Show, table
from demo_parts.stage import Life, Stage, serving, staged
from rich.console import Console

from queue_runtime import QueueClient, connect
from queue_runtime.errors import QueueError

SECRET = "a secret of this demo alone"

ALL = "all"
"""For `--provider`: every broker, one after the other."""

POSTING_THREADS = 8

TIME_LIMIT = 120.0
"""Seconds after which the demo gives up and says what it was waiting for."""


class Failed(Exception):
    """The demo cannot go on; the text says why."""


class Demo:
    """One run: the steps are `run`, the promises are judged by the checker."""

    def __init__(self, stage: Stage, plan: list[Delivery], folder: Path, show: Show, *, rate: float) -> None:
        self._rate = rate
        self._stage = stage
        self._plan = plan
        self._show = show
        self._journal_path = folder / "journal.ndjson"
        self._troubles = folder / "troubles.json"
        self._books = Books(Reader(self._journal_path))
        self._started = time.monotonic()

    def run(self) -> Result:
        journal = Journal(self._journal_path, process=os.getpid())
        try:
            with connect(self._stage.url, listeners=[journal.hear]) as client:
                return self._run(client, journal)
        finally:
            journal.close()

    def _run(self, client: QueueClient, journal: Journal) -> Result:
        dead = self._first_life(client, journal)
        self._show.say(f"  the worker was stopped; dead letters: {', '.join(sorted(dead.values()))}")
        replayed = self._second_life(client)
        left = client.dead_letters(QUEUE).list(limit=1000)
        self._books.read()
        history = self._books.history(self._plan, dead, frozenset(each.id for each in left))
        return Result(
            books=self._books,
            history=history,
            broken=broken_promises(history),
            replayed=replayed,
            seconds=time.monotonic() - self._started,
        )

    def _first_life(self, client: QueueClient, journal: Journal) -> dict[str, str]:
        """Post everything while the bot works; returns the dead letters with their reasons."""
        write_troubles(self._troubles, self._plan)
        with (
            self._stage.start_bot(self._journal_path, self._troubles, life=0) as bot,
            serving(create_app(client, SECRET)) as port,
        ):
            self._wait(bot, lambda: 0 in self._books.up)  # its start is not to be seen in the latencies
            with Poster(port, lanes(self._plan, POSTING_THREADS), SECRET, journal, rate=self._rate) as poster:
                self._wait(bot, lambda: poster.finished and not self._books.outstanding())
            bot.stop()
        self._books.read()
        found = client.dead_letters(QUEUE).list(limit=1000)
        return {each.id: each.dead_letter.reason for each in found}

    def _second_life(self, client: QueueClient) -> int:
        """Fix the bot, start it again, and send back what the fix is for."""
        write_troubles(self._troubles, self._plan, fixed=True)
        with self._stage.start_bot(self._journal_path, self._troubles, life=1) as bot:
            report = client.dead_letters(QUEUE).replay(
                where=lambda each: each.dead_letter.reason != "DecodeError"
            )
            report.raise_failed()
            replayed = len(report.replayed)
            self._show.say(f"  the bot was fixed and started again; {replayed} replayed")
            self._wait(bot, lambda: len(self._books.settled[1]) >= replayed)
            bot.stop()
        return replayed

    def _wait(self, bot: Life, enough: Callable[[], bool]) -> None:
        while True:
            self._books.read()
            self._show.update(len(self._books.taken()), len(self._books.settled[0]))
            if enough():
                return
            if reason := bot.died():
                raise Failed(reason)
            if time.monotonic() > self._started + TIME_LIMIT:
                raise Failed(f"not done within {TIME_LIMIT:.0f} s; {self._outstanding()}")
            time.sleep(0.05)

    def _outstanding(self) -> str:
        """What is still waited for, and what was last seen of it."""
        waiting = [each for each in self._plan if each.id in self._books.outstanding()]
        runs = {run.delivery: run for run in self._books.runs}
        lines = [
            f"{each.id} ({each.event}, session {each.session}): "
            + (f"attempt {runs[each.id].attempt} began" if each.id in runs else "never started")
            for each in waiting[:10]
        ]
        more = f"\n  and {len(waiting) - 10} more" if len(waiting) > 10 else ""
        unsent = sum(each.forgery is None and each.id not in self._books.since for each in self._plan)
        told = f"trouble with the broker: {self._books.last_trouble}"
        return f"{unsent} not taken, {len(waiting)} not settled; {told}\n  " + "\n  ".join(lines) + more


def main() -> int:
    options = _options()
    console = Console(highlight=False)
    signal.signal(signal.SIGTERM, _terminate)
    folder = Path(tempfile.mkdtemp(prefix="github-bot-demo-"))
    # What the library, the app and the bot say goes there; the reader gets the table.
    worker.log_to(filename=folder / "demo.log")
    status = 2
    try:
        status = _run(options, folder, console)
    except KeyboardInterrupt:
        console.print("interrupted; everything was stopped")
        status = 130
    except Failed as exc:
        console.print(f"FAILED: {exc}", markup=False, soft_wrap=True)
        status = 1
    except QueueError as exc:
        console.print(f"FAILED: {type(exc).__name__}: {exc}", markup=False, soft_wrap=True)
    finally:
        if status in (1, 2):
            console.print(f"The journal and the logs are in {folder}", markup=False, soft_wrap=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return status


def _run(options: argparse.Namespace, folder: Path, console: Console) -> int:
    rng = random.Random(options.seed)
    entries = file_entries(Path(options.payloads)) if options.payloads else sample_entries(rng)
    plan = make_plan(entries, options.deliveries, rng)
    source = options.payloads or "the bundled samples"
    results = {}
    for name in BROKERS if options.provider == ALL else [options.provider]:
        broker = BROKERS[name]
        line = f"{options.deliveries} deliveries of {source}, to {broker.where}"
        console.print(line, markup=False, soft_wrap=True)
        results[name] = _run_on(broker, plan, options, folder / name, console)
    return _close(results, console)


def _run_on(
    broker: Broker, plan: list[Delivery], options: argparse.Namespace, folder: Path, console: Console
) -> Result:
    folder.mkdir()
    with staged(broker, folder) as stage, Show(console, options.deliveries) as show:
        return Demo(stage, plan, folder, show, rate=options.rate).run()


def _close(results: Mapping[str, Result], console: Console) -> int:
    """Show what it all came to; returns the exit status."""
    runs = {name: figures(result) for name, result in results.items()}
    names = list(runs)
    console.print(table(runs))
    for name, result in results.items():
        for warning in result.books.warnings:
            console.print(f"warning on {name}: {warning}", markup=False, soft_wrap=True)
    bad = [f"BROKEN on {name}: {broken}" for name, result in results.items() for broken in result.broken]
    bad += [f"DIFFERS: {each}" for each in differences(names, rows(list(runs.values())))]
    for line in bad:
        console.print(line, markup=False, soft_wrap=True)
    if bad:
        return 1
    console.print(
        "Every promise was kept." if len(names) == 1 else "Every promise was kept, the same on all."
    )
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Webhooks in, ordered handlers out, every promise checked.")
    parser.add_argument(
        "--provider", choices=[*BROKERS, ALL], default="sqs", help=f"{ALL}: one after the other"
    )
    parser.add_argument(
        "--payloads",
        metavar="FILE",
        default=os.environ.get("QUEUE_RUNTIME_PAYLOADS"),
        help="a JSON list of {event, payload} objects, instead of the bundled samples",
    )
    parser.add_argument("--deliveries", type=int, default=400, metavar="N")
    parser.add_argument("--seed", type=int, default=7, metavar="N", help="the same seed, the same deliveries")
    parser.add_argument(
        "--rate",
        type=float,
        default=80.0,
        metavar="N",
        help="deliveries a second; 0: as fast as they are taken",
    )
    return parser.parse_args()


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # SIGTERM cleans up as Ctrl-C does


if __name__ == "__main__":
    sys.exit(main())
