"""The bot of worker.py as the demo runs it: with a journal kept and the planned trouble made around it.

The bot knows of neither. ``python -m demo_parts.observed JOURNAL TROUBLES LIFE`` is a process of its own.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path

import worker

from demo_parts.journal import Journal
from demo_parts.plan import NO_TROUBLE, Trouble, read_troubles
from queue_runtime import ReceivedMessage


class PlannedFailure(RuntimeError):
    """What a handler raises because the plan says so."""


def observed(handler: worker.Handler, journal: Journal, troubles: Mapping[str, Trouble]) -> worker.Handler:
    """*handler*, with its start and end in *journal*, and the *troubles* of its deliveries."""

    numbers = count()

    def handle(message: ReceivedMessage) -> None:
        facts = {
            "run": next(numbers),
            "delivery": message.id,
            "session": message.session_id,
            "attempt": message.attempt,
        }
        journal.write("started", **facts)
        error: str | None = "cut short"
        try:
            meet(troubles.get(message.id, NO_TROUBLE), message.attempt)
            handler(message)
            error = None
        except Exception as exc:
            error = type(exc).__name__
            raise
        finally:
            journal.write("ended", **facts, error=error)

    return handle


def meet(trouble: Trouble, attempt: int) -> None:
    """Wait, or fail, as the plan says."""
    time.sleep(trouble.slow)
    if attempt <= trouble.failures:
        raise PlannedFailure(f"attempt {attempt} was to fail")


def main() -> None:
    """Run the bot until SIGTERM; its report is the journal's last record of this life."""
    journal_path, troubles_path, life = sys.argv[1:]
    # What the demo shows comes from the journal; this is for a reader of the log file.
    worker.log_to(stream=sys.stderr)
    journal = Journal(Path(journal_path), life=int(life), process=os.getpid())
    handler = observed(worker.handle, journal, read_troubles(Path(troubles_path)))
    report = worker.run(handler, [journal.hear])
    journal.stopped(report)
    journal.close()


if __name__ == "__main__":
    main()
