"""What is known of each queue: where it is, what it can do, and where its dead letters go."""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.parse import urlsplit

from queue_runtime.errors import ConfigurationError, InvalidName, QueueNotFound, UnsupportedOperation
from queue_runtime.provider import Capabilities, QueueDescription
from queue_runtime.providers.sqs.errors import PROVIDER
from queue_runtime.providers.sqs.limits import (
    LEAST_RETENTION,
    MAX_ATTRIBUTES,
    MAX_BATCH,
    MAX_BATCH_SIZE,
    MAX_DELAY,
    MAX_HOPPED_DELAY,
    MAX_LEASE,
)
from queue_runtime.providers.sqs.sdk import SdkClients

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

T = TypeVar("T")

REMEMBERED = 1024
"""Queues whose facts are kept; the one used longest ago is forgotten first."""

HEAD_ROOM = 4096
"""Bytes that a send leaves free, so that a message can be dead-lettered with the reason beside it."""

DEFAULT_LEASE = 30
"""Seconds, where the queue's own visibility timeout is 0: a message would be free before it arrives here."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo")
_ARN = re.compile(r"arn:[a-z-]+:sqs:(?P<region>[^:]+):(?P<account>[^:]+):(?P<name>[^:]+)")
_AWS_HOST = re.compile(r"(?:sqs(?:-fips)?\.([a-z0-9-]+)|([a-z0-9-]+)\.queue)\.amazonaws\.com(?:\.cn)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue's address, and the facts of it that seldom change."""

    asked: str
    """How the caller names it."""
    url: str
    name: str
    fifo: bool
    lease: int
    """Seconds a message is hidden if nothing else is asked for."""
    max_message_size: int
    """Bytes that SQS takes; a user may send `Capabilities.max_message_size`."""
    dead_letter_arn: str | None
    max_receives: int | None
    capabilities: Capabilities


class Queues:
    """Finds queues by name, URL or ARN, and remembers them. Any thread may call.

    Needs the permissions ``sqs:GetQueueUrl`` (not for URLs) and ``sqs:GetQueueAttributes``.
    """

    def __init__(self, sdk: SdkClients) -> None:
        self._sdk = sdk
        self._lock = threading.Lock()
        # guarded by _lock
        self._known: OrderedDict[str, Queue] = OrderedDict()

    def get(self, asked: str) -> Queue:
        """Return what is known of the queue, asking SQS the first time. Raises `QueueNotFound`."""
        with self._lock:
            known = self._known.get(asked)
            if known is not None:
                self._known.move_to_end(asked)
                return known
        return self.ask(asked)[0]

    def ask(self, asked: str) -> tuple[Queue, Mapping[str, str]]:
        """Ask SQS in any case; return the queue and all of its attributes."""
        try:
            url = self._url(asked)
            answer = self._sdk.call(
                "GetQueueAttributes",
                lambda sqs: sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]),
                queue=asked,
                changes=False,
            )
        except QueueNotFound:
            self.forget(asked)
            raise
        attributes = cast("Mapping[str, str]", answer.get("Attributes", {}))
        queue = _queue(asked, url, attributes)
        with self._lock:
            self._known[asked] = queue
            self._known.move_to_end(asked)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return queue, attributes

    def call(
        self,
        operation: str,
        request: Callable[[SQSClient], T],
        queue: Queue,
        *,
        changes: bool,
        timeout: float | None = None,
    ) -> T:
        """Make a request about *queue*, as `SdkClients.call` does; a queue that is gone is forgotten."""
        try:
            return self._sdk.call(operation, request, queue=queue.asked, changes=changes, timeout=timeout)
        except QueueNotFound:
            self.forget(queue.asked)
            raise

    def forget(self, asked: str) -> None:
        """Ask again next time: the queue may have been deleted, or made anew."""
        with self._lock:
            self._known.pop(asked, None)

    def dead_letters_of(self, asked: str) -> Queue:
        """Return the queue that the RedrivePolicy of *asked* names; `UnsupportedOperation` without one."""
        # A policy added after the first look is found without a restart.
        arn = self.get(asked).dead_letter_arn or self.ask(asked)[0].dead_letter_arn
        if arn is None:
            raise UnsupportedOperation(
                f"queue {asked!r} has no dead-letter queue: its RedrivePolicy names none. Set its "
                "RedrivePolicy (deadLetterTargetArn, maxReceiveCount); the message was left as it was",
                provider=PROVIDER,
            )
        try:
            return self.get(arn)
        except QueueNotFound:
            # The policy may name another by now.
            self.forget(asked)
            raise

    def _url(self, asked: str) -> str:
        if asked.startswith(("https://", "http://")):
            self._check_region(asked, _region_of(asked))
            return asked
        arn = _ARN.fullmatch(asked)
        name = arn["name"] if arn else asked
        if not _NAME.fullmatch(name):
            raise InvalidName(
                f"queue name {asked!r}: SQS takes up to 80 letters, digits, '-' and '_', with '.fifo' at the "
                "end of a FIFO queue's; or give the queue's URL or ARN",
                provider=PROVIDER,
            )
        parameters = {"QueueName": name}
        if arn:
            self._check_region(asked, arn["region"])
            parameters["QueueOwnerAWSAccountId"] = arn["account"]
        answer = self._sdk.call(
            "GetQueueUrl",
            lambda sqs: sqs.get_queue_url(**parameters),
            queue=asked,
            changes=False,
        )
        return answer["QueueUrl"]

    def _check_region(self, asked: str, region: str | None) -> None:
        """The SDK asks its own region, wherever the URL points: another queue of that name would answer."""
        if region is not None and region != self._sdk.region:
            raise ConfigurationError(
                f"queue {asked!r} is in region {region!r} and this client in {self._sdk.region!r}; "
                f"connect to sqs://{region} for it",
                provider=PROVIDER,
            )


def describe(queue: Queue, attributes: Mapping[str, str]) -> QueueDescription:
    """Return *queue* as its attributes tell it."""
    retention = attributes.get("MessageRetentionPeriod")
    return QueueDescription(
        name=queue.name,
        capabilities=queue.capabilities,
        active=int(attributes.get("ApproximateNumberOfMessages", 0)),
        leased=int(attributes.get("ApproximateNumberOfMessagesNotVisible", 0)),
        delayed=int(attributes.get("ApproximateNumberOfMessagesDelayed", 0)),
        lease=float(queue.lease),
        dead_letter_queue=_dead_letter_name(queue),
        max_receives=queue.max_receives,
        retention=float(retention) if retention is not None else None,
    )


def name_in(arn: str) -> str:
    """The queue's name at the end of its ARN."""
    return arn.rpartition(":")[2]


def _dead_letter_name(queue: Queue) -> str | None:
    """A name where the queue was found by one, since the two share account and region; else the ARN."""
    arn = queue.dead_letter_arn
    return name_in(arn) if arn is not None and queue.asked == queue.name else arn


def _queue(asked: str, url: str, attributes: Mapping[str, str]) -> Queue:
    name = url.rstrip("/").rpartition("/")[2]
    fifo = name.endswith(".fifo")
    arn, max_receives = _redrive(attributes.get("RedrivePolicy"))
    size = int(attributes.get("MaximumMessageSize", MAX_BATCH_SIZE))
    return Queue(
        asked=asked,
        url=url,
        name=name,
        fifo=fifo,
        lease=int(attributes.get("VisibilityTimeout", DEFAULT_LEASE)) or DEFAULT_LEASE,
        max_message_size=size,
        dead_letter_arn=arn,
        max_receives=max_receives,
        capabilities=_capabilities(
            fifo, size, int(attributes.get("MessageRetentionPeriod", LEAST_RETENTION))
        ),
    )


def _capabilities(fifo: bool, size: int, retention: int) -> Capabilities:
    longest = MAX_HOPPED_DELAY if retention >= LEAST_RETENTION else MAX_DELAY
    return Capabilities(
        sessions="groups" if fifo else "none",
        # A queue may be set as low as 1 KiB: there a quarter is what can be spared.
        max_message_size=size - min(HEAD_ROOM, size // 4),
        max_batch=MAX_BATCH,
        max_batch_size=MAX_BATCH_SIZE,
        batched_settling=True,
        atomic_batch=False,
        max_attributes=MAX_ATTRIBUTES - 1,
        max_delay=0.0 if fifo else float(longest),
        max_lease=float(MAX_LEASE),
        peek=False,
        chosen_lease=True,
        cancel=False,
        copied_delays=False,
        session_state=False,
        counts_lost_sessions=True,
        deduplication=fifo,
        native_expiry=False,
        purge=True,
    )


def _redrive(policy: str | None) -> tuple[str | None, int | None]:
    if not policy:
        return None, None
    try:
        value = json.loads(policy)
        return str(value["deadLetterTargetArn"]), int(value["maxReceiveCount"])
    except (ValueError, KeyError, TypeError):
        return None, None


def _region_of(url: str) -> str | None:
    host = _AWS_HOST.fullmatch(urlsplit(url).hostname or "")
    return (host[1] or host[2]) if host else None
