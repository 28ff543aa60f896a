"""A queue's dead letters: look at them, send them back, remove them, keep them in a file."""

from queue_runtime.deadletter.letters import DeadLetters
from queue_runtime.deadletter.purging import PurgePlan
from queue_runtime.deadletter.reports import (
    ExportReport,
    FailedLetter,
    FailedLine,
    ImportReport,
    RemovalReport,
    ReplayReport,
)

__all__ = [
    "DeadLetters",
    "ExportReport",
    "FailedLetter",
    "FailedLine",
    "ImportReport",
    "PurgePlan",
    "RemovalReport",
    "ReplayReport",
]
