"""Sends copies of messages that are stored already, as many in a request as fit, with an outcome for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from queue_runtime.errors import Outcome
from queue_runtime.providers.sqs.batches import aligned, in_turn
from queue_runtime.providers.sqs.limits import MAX_BATCH, MAX_BATCH_SIZE
from queue_runtime.providers.sqs.queues import Queue, Queues
from queue_runtime.providers.sqs.wire import size

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef


def send_copies(
    queues: Queues, target: Queue, entries: Sequence[SendMessageBatchRequestEntryTypeDef], timeout: float
) -> list[Outcome[None]]:
    """Store *entries* in *target*; their ids are set here. Raises as `in_turn` does."""

    def ask(chunk: Sequence[SendMessageBatchRequestEntryTypeDef]) -> list[Outcome[None]]:
        for index, entry in enumerate(chunk):
            entry["Id"] = str(index)
        answer = queues.call(
            "SendMessageBatch",
            lambda sqs: sqs.send_message_batch(QueueUrl=target.url, Entries=chunk),
            target,
            changes=True,
            timeout=timeout,
        )
        return aligned(answer, len(chunk), operation="SendMessageBatch", queue=target.asked)

    return in_turn(_by_size(entries), len(entries), ask)


def _by_size(
    entries: Iterable[SendMessageBatchRequestEntryTypeDef],
) -> Iterator[Sequence[SendMessageBatchRequestEntryTypeDef]]:
    """At most ten entries together, and at most a batch's bytes."""
    chunk: list[SendMessageBatchRequestEntryTypeDef] = []
    total = 0
    for entry in entries:
        bytes_of_it = size(entry["MessageBody"], entry.get("MessageAttributes", {}))
        if chunk and (total + bytes_of_it > MAX_BATCH_SIZE or len(chunk) == MAX_BATCH):
            yield chunk
            chunk, total = [], 0
        chunk.append(entry)
        total += bytes_of_it
    if chunk:
        yield chunk
