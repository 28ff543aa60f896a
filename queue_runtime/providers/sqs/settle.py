"""Settles, renews and releases what was received."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

from queue_runtime.clock import Clock
from queue_runtime.errors import LeaseLost, Outcome, QueueError
from queue_runtime.message import Delivery
from queue_runtime.provider import Abandon, Complete, DeadLetter, Settlement
from queue_runtime.providers.sqs.batches import aligned, in_turn
from queue_runtime.providers.sqs.dead_letter_copies import DeadLetterCopies
from queue_runtime.providers.sqs.errors import PROVIDER
from queue_runtime.providers.sqs.limits import MAX_BATCH, MAX_LEASE
from queue_runtime.providers.sqs.queues import Queue, Queues
from queue_runtime.providers.sqs.sdk import SdkClients
from queue_runtime.providers.sqs.wire import SqsDelivery

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import ChangeMessageVisibilityBatchRequestEntryTypeDef

log = logging.getLogger("queue_runtime.sqs")

T = TypeVar("T")


class Settler:
    """The requests that end or prolong a hold. Any thread may call."""

    def __init__(self, sdk: SdkClients, queues: Queues, clock: Clock) -> None:
        self._sdk = sdk
        self._queues = queues
        self._clock = clock
        self._dead_letters = DeadLetterCopies(sdk, queues)

    def settle(self, queue: Queue, settlements: Sequence[Settlement]) -> list[Outcome[None]]:
        """Settle in the order asked: neighbours of one kind travel together, ten at most."""

        def ask(run: Sequence[Settlement]) -> list[Outcome[None]]:
            match run[0]:
                case Complete():
                    return self.delete(queue, [item.delivery for item in run])
                case Abandon():
                    now = self._clock.monotonic()
                    return self._hide(
                        queue,
                        [(item.delivery, _delay(item, now)) for item in run if isinstance(item, Abandon)],
                    )
                case DeadLetter():
                    return self._bury(queue, [item for item in run if isinstance(item, DeadLetter)])

        return in_turn(_runs(settlements), len(settlements), ask)

    def renew(
        self, queue: Queue, deliveries: Sequence[Delivery], lease: float | None
    ) -> list[Outcome[float]]:
        """Hold for another *lease*, or for what is left of twelve hours; the answers are the new ends."""

        def ask(chunk: Sequence[Delivery]) -> list[Outcome[float]]:
            now = self._clock.monotonic()
            wanted = [(d, min(math.ceil(lease or d.lease), _hours_left(d, now))) for d in chunk]
            possible = [(delivery, seconds) for delivery, seconds in wanted if seconds > 0]
            answers = iter(self._hide(queue, possible) if possible else ())
            outcomes: list[Outcome[float]] = []
            for delivery, seconds in wanted:
                error = next(answers).error if seconds > 0 else _twelve_hours(queue, delivery)
                outcomes.append(Outcome(error=error) if error else Outcome(now + seconds))
            return outcomes

        return in_turn(_tens(deliveries), len(deliveries), ask)

    def release(self, queue: Queue, deliveries: Sequence[Delivery]) -> None:
        """Give back at once what nobody will handle here, as far as SQS can be reached."""
        try:
            for chunk in _tens(deliveries):
                self._hide(queue, [(delivery, 0) for delivery in chunk])
        except QueueError as exc:
            # Nobody waits for this; what is not given back comes back when its visibility ends.
            log.warning("sqs.release.failed", extra={"queue": queue.asked, "error": type(exc).__name__})

    def delete(self, queue: Queue, deliveries: Sequence[Delivery]) -> list[Outcome[None]]:
        """Remove *deliveries*, ten at most, in one request."""
        # Each once: what is asked for twice in one request, endpoints answer in different ways.
        receipts = list(dict.fromkeys(delivery.receipt for delivery in deliveries))
        answer = self._queues.call(
            "DeleteMessageBatch",
            lambda sqs: sqs.delete_message_batch(
                QueueUrl=queue.url,
                Entries=[{"Id": str(i), "ReceiptHandle": receipt} for i, receipt in enumerate(receipts)],
            ),
            queue,
            changes=True,
            timeout=self._timeout(deliveries),
        )
        outcomes = aligned(
            answer, len(receipts), operation="DeleteMessageBatch", queue=queue.asked, receipts=receipts
        )
        by_receipt = dict(zip(receipts, outcomes, strict=True))
        return [by_receipt[delivery.receipt] for delivery in deliveries]

    def _hide(self, queue: Queue, held: Sequence[tuple[Delivery, int]]) -> list[Outcome[None]]:
        """Hide each delivery for so many seconds from now on."""
        entries: list[ChangeMessageVisibilityBatchRequestEntryTypeDef] = [
            {"Id": str(index), "ReceiptHandle": delivery.receipt, "VisibilityTimeout": seconds}
            for index, (delivery, seconds) in enumerate(held)
        ]
        answer = self._queues.call(
            "ChangeMessageVisibilityBatch",
            lambda sqs: sqs.change_message_visibility_batch(QueueUrl=queue.url, Entries=entries),
            queue,
            changes=True,
            timeout=self._timeout([delivery for delivery, _ in held]),
        )
        receipts = [delivery.receipt for delivery, _ in held]
        return aligned(
            answer, len(held), operation="ChangeMessageVisibilityBatch", queue=queue.asked, receipts=receipts
        )

    def _bury(self, queue: Queue, settlements: Sequence[DeadLetter]) -> list[Outcome[None]]:
        """Copy, then delete what was confirmed. An error of one copy stays with its entry."""
        errors = self._dead_letters.copy(queue, settlements)
        copied = [s.delivery for s in settlements if s.delivery.receipt not in errors]
        if copied:
            for delivery, outcome in zip(copied, self.delete(queue, copied), strict=True):
                if outcome.error is None:
                    self._dead_letters.deleted(delivery.receipt)
                else:
                    errors[delivery.receipt] = outcome.error
        return [Outcome(error=errors.get(s.delivery.receipt)) for s in settlements]

    def _timeout(self, deliveries: Sequence[Delivery]) -> float:
        return self._sdk.within(min(delivery.lease for delivery in deliveries))


def _runs(settlements: Sequence[Settlement]) -> Iterator[Sequence[Settlement]]:
    for _, run in groupby(settlements, key=type):
        yield from _tens(list(run))


def _tens(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), MAX_BATCH):
        yield items[start : start + MAX_BATCH]


def _delay(settlement: Abandon, now: float) -> int:
    # Up: a message does not come back early.
    return max(0, min(math.ceil(settlement.delay), _hours_left(settlement.delivery, now)))


def _hours_left(delivery: Delivery, now: float) -> int:
    """Whole seconds left of the twelve hours for which SQS hides a message after one receive."""
    received = (
        delivery.received if isinstance(delivery, SqsDelivery) else delivery.leased_until - delivery.lease
    )
    return math.floor(MAX_LEASE - (now - received))


def _twelve_hours(queue: Queue, delivery: Delivery) -> LeaseLost:
    return LeaseLost(
        f"message {delivery.message.id!r} has been held for twelve hours, longer than which SQS holds none; "
        "dead-letter it, or do its work in parts",
        provider=PROVIDER,
    )
