"""What an operation on dead letters has done, and what it has left: plain values, for people and programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from queue_runtime.errors import BatchFailed, Outcome, QueueError

Ended = Literal["all", "limit", "held", "time", "error"]
"""Why it ended.

`all`: there were no more. `limit`: as many as were asked for. `held`: those that stay, and are held so as not
to come again, became too many (10,000, or 256 MiB of bodies). `time`: others put in as fast as this takes
out. `error`: the broker was out of reach, or refused. After all but the first there may be more.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedLetter:
    """A dead letter that something went wrong with. It is in the dead-letter queue still."""

    id: str
    error: QueueError
    copied: bool | None
    """True: it is also where it was to go, for only its removal failed. None: nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedLine:
    """A line of a file that was not sent."""

    line: int
    """The first is 1."""
    id: str | None
    error: QueueError


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """What a replay has done. Everything but the errors is ids of messages, in the order they were met."""

    queue: str
    dry_run: bool
    """Nothing was sent: `replayed` are those that would be."""
    replayed: tuple[str, ...]
    """Confirmed by the queue, and gone from the dead letters."""
    refused: tuple[str, ...]
    """Those that *where* did not want; they stay."""
    looping: tuple[str, ...]
    """Replayed `max_replays` times before; they stay."""
    returned: tuple[str, ...]
    """Sent back by this replay and dead-lettered again while it ran; they stay. What they failed of is not
    mended."""
    failed: tuple[FailedLetter, ...]
    left: tuple[str, ...]
    """Wanted, looked at and not tried, because of the limit or of what ended the replay."""
    ended: Ended
    error: QueueError | None
    """What ended it, if an error did."""

    def raise_failed(self) -> None:
        """Raise `BatchFailed` if one could not be sent or removed, or `error` if that ended it."""
        _raise_failed(
            f"replay to {self.queue!r}", self.queue, "replay", self.replayed, self.failed, self.error
        )

    def __str__(self) -> str:
        would = "would be " if self.dry_run else ""
        counts = {
            f"{would}replayed": self.replayed,
            "refused": self.refused,
            "looping": self.looping,
            "returned": self.returned,
            "failed": self.failed,
            "left": self.left,
        }
        return f"{self.queue}: {_told(counts, always=1)}; {_why(self.ended, self.error)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovalReport:
    """What a removal has done; ids of messages, in the order they were met."""

    queue: str
    dry_run: bool
    """Nothing was removed: `removed` are those that would be."""
    removed: tuple[str, ...]
    refused: tuple[str, ...]
    """Those that were not chosen; they stay."""
    missing: tuple[str, ...]
    """Asked for by id, and not met."""
    failed: tuple[FailedLetter, ...]
    left: tuple[str, ...]
    """Chosen, and not tried."""
    ended: Ended
    error: QueueError | None

    def raise_failed(self) -> None:
        """Raise `BatchFailed` if one could not be removed, or `error` if that ended it."""
        what = f"removal of dead letters of {self.queue!r}"
        _raise_failed(what, self.queue, "remove", self.removed, self.failed, self.error)

    def __str__(self) -> str:
        would = "would be " if self.dry_run else ""
        counts = {
            f"{would}removed": self.removed,
            "refused": self.refused,
            "missing": self.missing,
            "failed": self.failed,
            "left": self.left,
        }
        return f"{self.queue}: {_told(counts, always=1)}; {_why(self.ended, self.error)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an export has written."""

    queue: str
    exported: int
    """Lines."""
    refused: int
    failed: tuple[FailedLetter, ...]
    """Written, and not removed though they were to be: they are in the file and among the dead letters."""
    ended: Ended
    error: QueueError | None

    def raise_failed(self) -> None:
        """Raise `BatchFailed` if one could not be removed, or `error` if that ended it."""
        _raise_failed(f"export of {self.queue!r}", self.queue, "export", (), self.failed, self.error)

    def __str__(self) -> str:
        text = f"{self.exported} exported, {self.refused} refused, {len(self.failed)} failed"
        return f"{self.queue}: {text}; {_why(self.ended, self.error)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import has done with the lines of its file."""

    queue: str
    dry_run: bool
    sent: int
    """Messages that the queue has confirmed; in a dry run those that would be sent."""
    refused: int
    looping: tuple[int, ...]
    """Lines of messages that were replayed `max_replays` times before."""
    malformed: tuple[FailedLine, ...]
    failed: tuple[FailedLine, ...]
    next_line: int
    """Where to begin if the import is to go on."""
    ended: Ended
    error: QueueError | None

    def raise_failed(self) -> None:
        """Raise `BatchFailed` if a line was malformed or not sent, or `error` if that ended it."""
        lines = sorted((*self.malformed, *self.failed), key=lambda each: each.line)
        outcomes = [Outcome(each.id or f"line {each.line}", each.error) for each in lines]
        what = f"import to {self.queue!r}, {self.sent} sent"
        BatchFailed.raise_for(what, outcomes, queue=self.queue, operation="import")
        if self.error is not None:
            raise self.error

    def __str__(self) -> str:
        would = "would be " if self.dry_run else ""
        counts = {
            "looping": self.looping,
            "malformed": self.malformed,
            "failed": self.failed,
        }
        told = [f"{self.sent} {would}sent", f"{self.refused} refused", _told(counts)]
        text = ", ".join(filter(None, told))
        return f"{self.queue}: {text}; {_why(self.ended, self.error)}; next line {self.next_line}"


_ENDED = {
    "all": "there were no more",
    "limit": "the limit is reached, there may be more",
    "held": "it holds as many as it may of those that stay; there may be more",
    "time": "they come as fast as they are taken out; there may be more",
}


def _why(ended: Ended, error: QueueError | None) -> str:
    return _ENDED.get(ended) or f"ended by {type(error).__name__}: {error}"


def _told(counts: Mapping[str, Sequence[object]], *, always: int = 0) -> str:
    """Counts in words: the first *always* of them, and those that are not zero."""
    words = [f"{len(each)} {name}" for i, (name, each) in enumerate(counts.items()) if each or i < always]
    return ", ".join(words)


def _raise_failed(
    what: str,
    queue: str,
    operation: str,
    done: Sequence[str],
    failed: Sequence[FailedLetter],
    error: QueueError | None,
) -> None:
    outcomes = [Outcome(message_id) for message_id in done]
    outcomes += [Outcome(each.id, each.error) for each in failed]
    BatchFailed.raise_for(what, outcomes, queue=queue, operation=operation)
    if error is not None:
        raise error
