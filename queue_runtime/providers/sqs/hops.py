"""Delays beyond what SQS keeps: a message that is not due is sent again with what is left, then removed.

SQS holds a message back for 15 minutes at most. One that is due later comes after that time with its delay in
the reserved attribute; whoever receives it through this library sends it on its way again, and nobody is
handed it before it is due. So:

- somebody must receive from the queue meanwhile; while nobody does the message is late, and it is lost after
  the queue's retention, which begins anew with each hop
- each hop is a message of its own: a send and a removal beside the receive, and new ids and times of SQS
- after a crash between the two there are two of it; a hop that cannot be sent, or removed, comes again when
  its visibility ends, and counts as a delivery for the queue's maxReceiveCount
- in a dead-letter queue nothing waits: one that got there has lost what was left of its delay
- other readers of the queue are handed it every 15 minutes, with ``wait`` (seconds) and ``sent``
  (milliseconds) in the attribute `queue_runtime`: it is due at their sum, ``sent`` being SQS's own
  SentTimestamp where there is none
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from queue_runtime import codec
from queue_runtime.errors import QueueError
from queue_runtime.message import RESERVED_ATTRIBUTE
from queue_runtime.providers.sqs.copying import send_copies
from queue_runtime.providers.sqs.queues import Queue, Queues
from queue_runtime.providers.sqs.sdk import SdkClients
from queue_runtime.providers.sqs.settle import Settler
from queue_runtime.providers.sqs.wire import SqsDelivery, first_sent, timer, typed

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef, SendMessageBatchRequestEntryTypeDef

log = logging.getLogger("queue_runtime.sqs")

REMEMBERED = 1024

Hop = tuple["MessageTypeDef", SqsDelivery]
"""A message that is not due, as it is stored, and what it was read as."""


class Hops:
    """Any thread may call.

    A confirmed copy is remembered until its original is removed, so that one that comes again for want of
    that is only removed. Bounded: the oldest is forgotten first.
    """

    def __init__(self, sdk: SdkClients, queues: Queues, settler: Settler) -> None:
        self._sdk = sdk
        self._queues = queues
        self._settler = settler
        self._lock = threading.Lock()
        # guarded by _lock: the broker's ids of originals
        self._confirmed: OrderedDict[str, None] = OrderedDict()

    def send_on(self, queue: Queue, hops: Sequence[Hop]) -> None:
        """Send each with the rest of its delay, and remove those for which that was confirmed. What fails
        comes again when its visibility ends."""
        timeout = self._sdk.within(min(delivery.lease for _, delivery in hops))
        with self._lock:
            missing = [hop for hop in hops if hop[1].broker_id not in self._confirmed]
        failed: list[QueueError] = []
        try:
            entries = [hop_entry(message, delivery) for message, delivery in missing]
            outcomes = send_copies(self._queues, queue, entries, timeout)
            failed += [outcome.error for outcome in outcomes if outcome.error is not None]
            confirmed = [
                delivery.broker_id for (_, delivery), o in zip(missing, outcomes, strict=True) if o.ok
            ]
            with self._lock:
                self._remember(confirmed)
            failed += self._remove(queue, hops)
        except QueueError as exc:
            failed.append(exc)
        if failed:
            log.warning(
                "sqs.hop.failed",
                extra={"queue": queue.asked, "count": len(failed), "error": type(failed[0]).__name__},
            )

    def _remove(self, queue: Queue, hops: Sequence[Hop]) -> list[QueueError]:
        with self._lock:
            sent = [delivery for _, delivery in hops if delivery.broker_id in self._confirmed]
        if not sent:
            return []
        outcomes = self._settler.delete(queue, sent)
        with self._lock:
            for delivery, outcome in zip(sent, outcomes, strict=True):
                if outcome.error is None:
                    self._confirmed.pop(delivery.broker_id, None)
        return [outcome.error for outcome in outcomes if outcome.error is not None]

    # Requires _lock to be held.

    def _remember(self, broker_ids: Sequence[str]) -> None:
        self._confirmed.update(dict.fromkeys(broker_ids))
        while len(self._confirmed) > REMEMBERED:
            self._confirmed.popitem(last=False)


def hop_entry(message: MessageTypeDef, delivery: SqsDelivery) -> SendMessageBatchRequestEntryTypeDef:
    """Return the next hop of *message*: the same, but for the delay that is left and when it all began."""
    facts = cast("Mapping[str, str]", message.get("Attributes", {}))
    reserved = delivery.stored.get(RESERVED_ATTRIBUTE, {})
    ours, _ = codec.read_ours(str(reserved.get("StringValue", "{}")))
    claimed = ours.get(codec.SENT)
    ours[codec.SENT] = first_sent(claimed if type(claimed) is int and claimed >= 0 else None, facts)
    attributes = {**delivery.stored, **typed({RESERVED_ATTRIBUTE: codec.compact(ours)})}
    made: dict[str, Any] = {
        "Id": "",
        "MessageBody": message["Body"],
        "MessageAttributes": attributes,
        "DelaySeconds": timer(delivery.due_in),
    }
    if "MessageGroupId" in facts:
        made["MessageGroupId"] = facts["MessageGroupId"]
    if "AWSTraceHeader" in facts:
        trace = {"DataType": "String", "StringValue": facts["AWSTraceHeader"]}
        made["MessageSystemAttributes"] = {"AWSTraceHeader": trace}
    return cast("SendMessageBatchRequestEntryTypeDef", made)
