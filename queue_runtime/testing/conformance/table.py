"""What queues can do, as a Markdown table: a row for each capability, a column for each kind of queue."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from queue_runtime.provider import Capabilities
from queue_runtime.testing.conformance.harness import Harness, QueueSpec

BEGIN = "<!-- conformance table: pytest --conformance-table writes it -->"
END = "<!-- end of the conformance table -->"

KINDS = {"none": "", "native": " with sessions", "groups": " with groups"}

TITLES = {
    "memory": "memory",
    "servicebus": "Service Bus",
    "sqs": "SQS standard",
    "sqs with groups": "SQS FIFO",
}
"""Where readers know another name than the provider's."""

Say = Callable[[Any, Capabilities], str]


def yes_or_no(value: bool, _: Capabilities) -> str:
    return "yes" if value else "no"


def of_sessions(say: Say) -> Say:
    """A question that makes no sense where there are none."""
    return lambda value, found: "-" if found.sessions == "none" else say(value, found)


def duration(seconds: float, _: Capabilities) -> str:
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds and seconds % length == 0:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{seconds:g} s" if seconds else "none"


def next_try(copied: bool, found: Capabilities) -> str:
    if copied:
        return "a scheduled copy takes its place"
    return "the message waits" if found.sessions == "none" else "the session waits"


QUESTIONS: dict[str, tuple[str, Say]] = {
    "sessions": (
        "Sessions",
        lambda value, _: {"none": "no", "native": "the next free one, or one by its id"}.get(
            value, "the next free one"
        ),
    ),
    "session_state": ("A session's own state", of_sessions(yes_or_no)),
    "counts_lost_sessions": ("A delivery counts also when its session is lost", of_sessions(yes_or_no)),
    "max_delay": ("Longest delay of a message", duration),
    "cancel": ("A delayed message can be taken back", yes_or_no),
    "copied_delays": ("Given back with a delay", next_try),
    "native_expiry": (
        "What has outlived its time-to-live is taken out",
        lambda value, _: "by the broker" if value else "by whoever receives it",
    ),
    "deduplication": (
        "A repeated deduplication id is dropped",
        lambda value, found: "where the queue says so" if value is None else yes_or_no(value, found),
    ),
    "chosen_lease": (
        "Length of a lease",
        lambda value, _: "chosen by each receive" if value else "the queue's own",
    ),
    "max_lease": ("Longest hold, renewals included", duration),
    "max_batch": ("Messages in one request", lambda value, _: str(value)),
    "batched_settling": ("Several messages are settled in one request", yes_or_no),
    "atomic_batch": ("A request is stored whole or not at all", yes_or_no),
    "max_attributes": (
        "Attributes of a message",
        lambda value, _: "no limit but the size" if value is None else str(value),
    ),
    "peek": ("Looking without taking", yes_or_no),
    "purge": ("Emptied in one request", yes_or_no),
}
"""The table's rows by the field of `Capabilities` that each is about."""

OF_EACH_QUEUE = {"max_message_size", "max_batch_size"}
"""Fields that are settings of a queue: the harnesses choose them."""


@dataclass(frozen=True, slots=True)
class Told:
    """What one endpoint says of one kind of queue: strings only, so that it can travel."""

    column: str
    answers: tuple[str, ...]
    """Aligned with `QUESTIONS`."""


def told(harness: Harness) -> list[Told]:
    """Ask about a queue of either kind. The provider is the first word of the harness's name."""
    answers = []
    client = harness.connect()
    try:
        for sessions in (False, True):
            queue = harness.make_queue(QueueSpec(sessions=sessions))
            found = client.describe(queue).capabilities
            column = f"{harness.name.split()[0]}{KINDS[found.sessions]}"
            answers.append(
                Told(
                    column,
                    tuple(say(getattr(found, field), found) for field, (_, say) in QUESTIONS.items()),
                )
            )
    finally:
        client.close()
    return answers


def table(said: Collection[Told]) -> str:
    """The same whatever came first. Where endpoints of one provider disagree, all their answers are shown."""
    columns = sorted({one.column for one in said}, key=lambda name: (name.split()[0], *_rank(name)))
    lines = [["", *(_title(column) for column in columns)], ["---"] * (1 + len(columns))]
    for place, (label, _) in enumerate(QUESTIONS.values()):
        cells = (sorted({one.answers[place] for one in said if one.column == column}) for column in columns)
        lines.append([label, *(" / ".join(cell) for cell in cells)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write(page: Path, said: Collection[Told]) -> None:
    """Replace the table of *page*; append one where there is none."""
    before, after = "", ""
    if page.exists():
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
    between = f"{BEGIN}\n\n{table(said)}\n{END}"
    page.write_text(f"{before}{between}{after or chr(10)}", encoding="utf-8")


def written(page: Path) -> str:
    """The table that is in *page*."""
    return page.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip() + "\n"


def rows(markdown: str) -> Iterator[list[str]]:
    """The cells of each row of a table, its head left out."""
    for line in markdown.splitlines()[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def _rank(column: str) -> tuple[int, str]:
    """Plain queues first, then those with sessions."""
    kind = column[len(column.split()[0]) :]
    return list(KINDS.values()).index(kind), column


def _title(column: str) -> str:
    provider = column.split()[0]
    return TITLES.get(column) or TITLES.get(provider, provider) + column[len(provider) :]
