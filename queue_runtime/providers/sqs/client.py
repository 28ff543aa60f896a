"""The SQS provider: standard and FIFO queues behind the contract.

The identity in use needs, on each queue, ``sqs:GetQueueUrl`` (not where queues are given as URLs) and
``sqs:GetQueueAttributes``; to send, ``sqs:SendMessage``, which dead-lettering needs on the dead-letter queue;
to receive, ``sqs:ReceiveMessage``, ``sqs:DeleteMessage`` and ``sqs:ChangeMessageVisibility``, and
``sqs:SendMessage`` too on a queue whose messages may be due later than in 15 minutes (see `hops`); to purge,
``sqs:PurgeQueue``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, ClassVar

import boto3.session

from queue_runtime.clock import Clock
from queue_runtime.config import ProviderSettings
from queue_runtime.errors import (
    Closed,
    ConnectionFailed,
    OperationTimeout,
    Outcome,
    QueueError,
    UnsupportedOperation,
)
from queue_runtime.message import Delivery, Message
from queue_runtime.provider import (
    Cancelled,
    Capabilities,
    ProviderClient,
    ProviderSession,
    QueueDescription,
    Settlement,
    never,
)
from queue_runtime.providers.sqs import wire
from queue_runtime.providers.sqs.batches import aligned
from queue_runtime.providers.sqs.errors import PROVIDER
from queue_runtime.providers.sqs.hops import Hops
from queue_runtime.providers.sqs.limits import MAX_BATCH, MAX_LEASE, MAX_WAIT
from queue_runtime.providers.sqs.lost_receives import LostReceives
from queue_runtime.providers.sqs.options import SqsOptions
from queue_runtime.providers.sqs.queues import Queue, Queues, describe
from queue_runtime.providers.sqs.sdk import SdkClients
from queue_runtime.providers.sqs.settle import Settler

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import (
        ReceiveMessageResultTypeDef,
        SendMessageBatchRequestEntryTypeDef,
    )

GRACE = 0.25
"""Seconds that a receive may wait longer than it was told: 0.8 is one second at SQS, and not none."""

LOOK_BEHIND = 1.0
"""Seconds for which a receive that waits for less goes on asking while all that comes is not due: what is
behind it is wanted, and an empty answer would say that there is nothing."""

log = logging.getLogger("queue_runtime.sqs")


def create(settings: ProviderSettings, clock: Clock) -> AwsSqsClient:
    """``sqs://REGION?option=value``; docs/sqs.md tells what the options are.

    What is left out, boto3's own chain decides: the region, the credentials, the endpoint
    (``AWS_ENDPOINT_URL_SQS``). Connects to nothing; raises
    `ConfigurationError` naming the option.
    """
    options = SqsOptions.of(settings)
    return AwsSqsClient(options, clock, session=options.session())


class AwsSqsClient(ProviderClient):
    """Queues of one region, by name, URL or ARN.

    A message without a session id on a FIFO queue is a group of its own. Waits are whole seconds at SQS and
    are rounded down, but for a quarter of a second: below that a receive is a short poll, which may overlook
    messages that are there. Leases and delays are rounded up.

    SQS holds a message back for 15 minutes at most; one that is due later, on a standard queue, makes several
    hops (see `hops`), of which callers of `receive` see the last.

    On a FIFO queue `receive` hands out group by group, in order; what a group still has in flight blocks
    the rest of it, except that a message given back may come again ahead of later ones still in flight.
    """

    name: ClassVar[str] = PROVIDER

    def __init__(self, options: SqsOptions, clock: Clock, *, session: boto3.session.Session) -> None:
        self._clock = clock
        self._sdk = SdkClients(options, session)
        self._queues = Queues(self._sdk)
        self._settler = Settler(self._sdk, self._queues, clock)
        self._lost = LostReceives(clock)
        self._hops = Hops(self._sdk, self._queues, self._settler)

    def describe(self, queue: str) -> QueueDescription:
        with self._sdk.in_use():
            return describe(*self._queues.ask(queue))

    def capabilities(self, queue: str) -> Capabilities:
        with self._sdk.in_use():
            return self._queues.get(queue).capabilities

    def size(self, queue: str, message: Message) -> int:
        text = wire.encode(message)
        return wire.size(text.body, wire.typed(text.attributes))

    def send(self, queue: str, messages: Sequence[Message]) -> Sequence[Outcome[None]]:
        with self._sdk.in_use():
            known = self._queues.get(queue)
            refused: dict[int, QueueError] = {}
            entries: list[SendMessageBatchRequestEntryTypeDef] = []
            for index, message in enumerate(messages):
                try:
                    entries.append(wire.entry(len(entries), message, known))
                except QueueError as exc:
                    refused[index] = exc
            answers = iter(self._send(known, entries, alone=not refused))
            return [
                Outcome(error=refused[index]) if index in refused else next(answers)
                for index in range(len(messages))
            ]

    def receive(
        self,
        queue: str,
        max_messages: int,
        wait: float,
        *,
        lease: float | None = None,
        cancelled: Cancelled = never,
    ) -> Sequence[Delivery]:
        with self._sdk.in_use():
            if cancelled():
                return []
            known = self._queues.get(queue)
            seconds = known.lease if lease is None else max(1, min(math.ceil(lease), MAX_LEASE))
            began = self._clock.monotonic()
            while True:
                left = max(0.0, wait - (self._clock.monotonic() - began))
                came, due = self._receive(known, min(max_messages, MAX_BATCH), left, seconds)
                over = self._clock.monotonic() - began >= max(wait, LOOK_BEHIND)
                if due or not came or over or cancelled():
                    return due

    def accept_sessions(
        self, queue: str, most: int, wait: float, *, cancelled: Cancelled = never
    ) -> Sequence[ProviderSession]:
        raise _no_sessions()

    def accept_session(self, queue: str, session_id: str) -> ProviderSession:
        raise _no_sessions()

    def settle(self, queue: str, settlements: Sequence[Settlement]) -> Sequence[Outcome[None]]:
        with self._sdk.in_use():
            return self._settler.settle(self._queues.get(queue), settlements)

    def renew(
        self, queue: str, deliveries: Sequence[Delivery], *, lease: float | None = None
    ) -> Sequence[Outcome[float]]:
        with self._sdk.in_use():
            return self._settler.renew(self._queues.get(queue), deliveries, lease)

    def peek(self, queue: str, max_messages: int, *, after: int = 0) -> Sequence[Delivery]:
        raise UnsupportedOperation(
            "SQS cannot show messages without handing them out; receive them under a short lease and abandon "
            "them, which raises their counts and blocks their groups meanwhile",
            provider=PROVIDER,
        )

    def purge(self, queue: str) -> None:
        """It takes up to a minute, in which messages may still be handed out, and a second one is refused.

        https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_PurgeQueue.html
        """
        with self._sdk.in_use():
            known = self._queues.get(queue)
            self._queues.call(
                "PurgeQueue", lambda sqs: sqs.purge_queue(QueueUrl=known.url), known, changes=True
            )

    def requests(self) -> Mapping[str, int]:
        return self._sdk.requests()

    def close(self) -> None:
        """Refuse new calls and return at once.

        A long poll cannot be woken: it ends by itself within its wait, gives back what it brought, and
        raises `Closed`. The connections close after the last call under way.
        """
        self._sdk.close()

    def _send(
        self, queue: Queue, entries: Sequence[SendMessageBatchRequestEntryTypeDef], *, alone: bool
    ) -> list[Outcome[None]]:
        """One request. Its error is raised if it stands for all that was asked (*alone*)."""
        if not entries:
            return []
        try:
            answer = self._queues.call(
                "SendMessageBatch",
                lambda sqs: sqs.send_message_batch(QueueUrl=queue.url, Entries=entries),
                queue,
                changes=True,
            )
        except QueueError as exc:
            if alone:
                raise
            return [Outcome(error=exc)] * len(entries)
        return aligned(answer, len(entries), operation="SendMessageBatch", queue=queue.asked)

    def _receive(self, queue: Queue, most: int, wait: float, seconds: int) -> tuple[int, Sequence[Delivery]]:
        """Ask once: how many messages came, and those that are due. The others are sent on their way."""
        asked = self._clock.monotonic()
        try:
            answer = self._ask(queue, most, wait, seconds, asked)
        except QueueError as exc:
            if self._sdk.closed:
                raise self._closed() from exc
            raise
        messages = answer.get("Messages") or ()
        came = self._clock.monotonic()
        arrival = wire.Arrival(
            asked=asked, came=came, lease=seconds, service=_date(answer) if messages else None
        )
        taken = wire.deliveries(messages, queue=queue, arrival=arrival)
        if self._sdk.closed:
            self._settler.release(queue, taken)
            raise self._closed()
        waiting = [(m, d) for m, d in zip(messages, taken, strict=True) if d.due_in > 0]
        if waiting:
            self._hops.send_on(queue, waiting)
        due = [delivery for delivery in taken if delivery.due_in <= 0]
        if due and self._clock.monotonic() - asked > seconds / 2:
            # A long poll: SQS counts from when it found them, we do not know when that was.
            return len(taken), self._renewed(queue, due)
        return len(taken), due

    def _ask(
        self, queue: Queue, most: int, wait: float, seconds: int, asked_at: float
    ) -> ReceiveMessageResultTypeDef:
        wait_seconds = max(0, min(math.floor(wait + GRACE), MAX_WAIT))
        question = (queue.url, most, seconds)
        attempt = self._lost.attempt_id(question) if queue.fifo else ""
        once_more = {"ReceiveRequestAttemptId": attempt} if queue.fifo else {}
        try:
            return self._queues.call(
                "ReceiveMessage",
                lambda sqs: sqs.receive_message(
                    QueueUrl=queue.url,
                    MaxNumberOfMessages=most,
                    WaitTimeSeconds=wait_seconds,
                    VisibilityTimeout=seconds,
                    MessageSystemAttributeNames=["All"],
                    MessageAttributeNames=["All"],
                    **once_more,  # type: ignore[arg-type]
                ),
                queue,
                changes=False,
                timeout=self._sdk.poll_timeout(wait_seconds),
            )
        except (OperationTimeout, ConnectionFailed):
            if queue.fifo:
                self._lost.note(attempt, question, asked_at)
            raise

    def _renewed(self, queue: Queue, taken: Sequence[Delivery]) -> list[Delivery]:
        """Those of *taken* that could be held anew; the rest goes back, and what follows it in its group."""
        try:
            outcomes = self._settler.renew(queue, taken, None)
        except QueueError as exc:
            # An empty answer is a normal one; whoever waits asks again and meets the error itself.
            outcomes = [Outcome(error=exc)] * len(taken)
        kept: list[Delivery] = []
        dropped: list[Delivery] = []
        broken: set[str] = set()
        for delivery, outcome in zip(taken, outcomes, strict=True):
            group = delivery.message.session_id if queue.fifo else None
            if outcome.value is None or group in broken:
                dropped.append(delivery)
                if group is not None:
                    broken.add(group)
            else:
                kept.append(wire.renewed(delivery, outcome.value))
        if dropped:
            log.warning("sqs.receive.dropped", extra={"queue": queue.asked, "count": len(dropped)})
            self._settler.release(queue, dropped)
        return kept

    def _closed(self) -> Closed:
        return Closed("the SQS client was closed while it received", provider=PROVIDER)


def _date(answer: ReceiveMessageResultTypeDef) -> float | None:
    """When the service answered, by its own clock, in Unix seconds."""
    headers: Mapping[str, str] = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        return parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError):
        return None


def _no_sessions() -> UnsupportedOperation:
    return UnsupportedOperation(
        "SQS hands out messages, not sessions: receive from the queue; on a FIFO queue the messages of "
        "one answer that share a session id are that session's next",
        provider=PROVIDER,
    )
