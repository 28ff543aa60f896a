"""Keeps the answers of batch requests aligned with what was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from queue_runtime.errors import Outcome, QueueError
from queue_runtime.providers.sqs.errors import entry_error, not_answered, not_tried

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import (
        ChangeMessageVisibilityBatchResultTypeDef,
        DeleteMessageBatchResultTypeDef,
        SendMessageBatchResultTypeDef,
    )

    Answer = (
        ChangeMessageVisibilityBatchResultTypeDef
        | DeleteMessageBatchResultTypeDef
        | SendMessageBatchResultTypeDef
    )

I = TypeVar("I")  # noqa: E741  an item of a batch
T = TypeVar("T")


def aligned(
    answer: Answer, count: int, *, operation: str, queue: str, receipts: Sequence[str] = ()
) -> list[Outcome[None]]:
    """Return an outcome for each of *count* entries, whose ids are ``"0"``, ``"1"`` …

    What became of an entry that the answer leaves out is unknown.
    """
    # Without an id it is no answer to anything; a gateway may answer in a shape of its own.
    done = {
        entry["Id"] for entry in answer.get("Successful") or () if entry and isinstance(entry.get("Id"), str)
    }
    failed = {
        entry["Id"]: entry
        for entry in answer.get("Failed") or ()
        if entry and isinstance(entry.get("Id"), str)
    }

    def outcome(index: int) -> Outcome[None]:
        key = str(index)
        if key in failed:
            receipt = receipts[index] if receipts else None
            return Outcome(error=entry_error(failed[key], operation=operation, queue=queue, receipt=receipt))
        return Outcome() if key in done else Outcome(error=not_answered(operation, queue))

    return [outcome(index) for index in range(count)]


def in_turn(
    chunks: Iterable[Sequence[I]], count: int, ask: Callable[[Sequence[I]], Sequence[Outcome[T]]]
) -> list[Outcome[T]]:
    """Ask for one chunk after the other; the outcomes of all *count* items, in their order.

    A chunk whose request fails ends it, so that a dead network costs one timeout and not one for each
    chunk: the rest is answered as not tried. The error is raised if that chunk was everything.
    """
    outcomes: list[Outcome[T]] = []
    for chunk in chunks:
        try:
            outcomes += ask(chunk)
        except QueueError as exc:
            if len(chunk) == count:
                raise
            outcomes += [Outcome(error=exc)] * len(chunk)
            outcomes += [Outcome(error=not_tried(exc))] * (count - len(outcomes))
            break
    return outcomes
