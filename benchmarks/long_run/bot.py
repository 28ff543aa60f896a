"""The worker of a long run, a process of its own: ``python -m long_run.bot JOURNAL LIFE HANDLERS``.

A message says in its body what its handler meets. The queue is `events` of the URL in the environment.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from demo_parts.journal import Journal

from queue_runtime import HandlerPolicy, ReceivedMessage, Reject, Retry, Worker, connect

from .history import REASONS

MAX_ATTEMPTS = 4
POLICY = HandlerPolicy(max_attempts=MAX_ATTEMPTS, base=0.2, cap=2.0)
DEADLINE = 25.0
POLL = 2.0
"""Seconds: the end of a process waits for its last long poll."""


class PlannedFailure(RuntimeError):
    """What a handler raises because its message says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What a handler meets: it takes so many seconds, and its first *failures* attempts fail."""

    seconds: float
    failures: int = 0
    asks: bool = False
    """They fail by `Retry`, with a delay of its own, not by an error."""
    rejected: bool = False


def meet(trouble: Trouble, attempt: int) -> None:
    """Wait, then fail or not, as planned."""
    time.sleep(trouble.seconds)
    if trouble.rejected:
        raise Reject(REASONS["rejected"], "the plan says so")
    if attempt <= trouble.failures:
        if trouble.asks:
            raise Retry(trouble.seconds)
        raise PlannedFailure(f"attempt {attempt} was to fail")


def handler(journal: Journal) -> Callable[[ReceivedMessage], None]:
    """One line when a handler is entered, one when it is left; both survive the end of the process."""
    numbers = count()

    def handle(message: ReceivedMessage) -> None:
        facts = {"run": next(numbers), "message": message.id}
        journal.write(
            "started",
            **facts,
            session=message.session_id,
            attempt=message.attempt,
            deliveries=message.delivery_count,
        )
        error: str | None = "cut short"
        try:
            meet(Trouble(**json.loads(message.body)), message.attempt)
            error = None
        except Exception as exc:
            error = type(exc).__name__
            raise
        finally:
            journal.write("ended", **facts, error=error)

    return handle


def main() -> None:
    """Run until SIGTERM; the report is the journal's last record of this life."""
    path, life, handlers = sys.argv[1:]
    logging.getLogger("queue_runtime").setLevel(logging.CRITICAL)  # the journal has it all
    journal = Journal(Path(path), life=int(life))
    with connect(listeners=[journal.hear]) as client:
        worker = Worker(
            client, "events", handler(journal), concurrency=int(handlers), policy=POLICY, poll=POLL
        )
        journal.stopped(worker.run(deadline=DEADLINE))
    journal.close()


if __name__ == "__main__":
    main()
