"""Sends dead-letter copies, and remembers which were confirmed while their original is still there."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from queue_runtime.errors import Outcome, QueueError, QueueNotFound
from queue_runtime.provider import DeadLetter
from queue_runtime.providers.sqs.copies import copy_entry
from queue_runtime.providers.sqs.copying import send_copies
from queue_runtime.providers.sqs.queues import Queue, Queues
from queue_runtime.providers.sqs.sdk import SdkClients

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

REMEMBERED = 1024


class DeadLetterCopies:
    """The first half of dead-lettering; the second is to delete the original. Any thread may call.

    A confirmed copy is remembered by its original's receipt until that is deleted, so that a second try
    deletes only: on a standard queue another copy would be another dead letter. By receipt, because a
    later delivery of the same message is a new story. Bounded: the oldest is forgotten first.
    """

    def __init__(self, sdk: SdkClients, queues: Queues) -> None:
        self._sdk = sdk
        self._queues = queues
        self._lock = threading.Lock()
        # guarded by _lock
        self._confirmed: OrderedDict[str, None] = OrderedDict()

    def copy(self, queue: Queue, settlements: Sequence[DeadLetter]) -> dict[str, QueueError]:
        """Store the copies; the errors of those that were not confirmed, by receipt."""
        with self._lock:
            missing = {
                s.delivery.receipt: s for s in settlements if s.delivery.receipt not in self._confirmed
            }
        if not missing:
            return {}
        try:
            target = self._queues.dead_letters_of(queue.asked)
        except QueueError as exc:
            return dict.fromkeys(missing, exc)
        errors: dict[str, QueueError] = {}
        entries: dict[str, SendMessageBatchRequestEntryTypeDef] = {}
        for receipt, settlement in missing.items():
            try:
                entries[receipt] = copy_entry(settlement.delivery, settlement.info, target)
            except QueueError as exc:
                errors[receipt] = exc
        timeout = self._sdk.within(min(s.delivery.lease for s in settlements))
        outcomes = self._send(queue, target, list(entries.values()), timeout)
        for receipt, outcome in zip(entries, outcomes, strict=True):
            if outcome.error is None:
                self._remember(receipt)
            else:
                errors[receipt] = outcome.error
        return errors

    def deleted(self, receipt: str) -> None:
        """Forget a copy: its original is gone."""
        with self._lock:
            self._confirmed.pop(receipt, None)

    def _remember(self, receipt: str) -> None:
        with self._lock:
            self._confirmed[receipt] = None
            if len(self._confirmed) > REMEMBERED:
                self._confirmed.popitem(last=False)

    def _send(
        self,
        queue: Queue,
        target: Queue,
        entries: Sequence[SendMessageBatchRequestEntryTypeDef],
        timeout: float,
    ) -> list[Outcome[None]]:
        try:
            return send_copies(self._queues, target, entries, timeout)
        except QueueError as exc:
            if isinstance(exc, QueueNotFound):
                # The RedrivePolicy may name another by now.
                self._queues.forget(queue.asked)
            return [Outcome(error=exc)] * len(entries)
