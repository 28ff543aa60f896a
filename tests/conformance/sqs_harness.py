"""SQS, at any endpoint, for the conformance rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote
from uuid import uuid4

import boto3.session

from queue_runtime import QueueClient, connect, parse_url
from queue_runtime.config import QueueOptions
from queue_runtime.events import Listener
from queue_runtime.testing.conformance import QueueSpec, RealTime
from queue_runtime.testing.sqs import make_queue

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

MAX_MESSAGE_SIZE = 64 * 1024
"""Bytes: the rows that fill it run faster than with SQS's own limit, and show that the queue's is kept."""


class SqsHarness:
    """Makes its queues with the SDK, as a user's deployment would, and deletes them in the end.

    Without *endpoint* it is a real account, found by boto3's own chain of credentials.
    """

    lease = 3.0
    opening = 0.0

    def __init__(
        self,
        name: str,
        region: str,
        endpoint: str | None = None,
        *,
        fifo: bool = True,
        look: float = 0.0,
        counts_lag: float = 2.0,
        faults: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.time = RealTime()
        self.look = look
        self.counts_lag = counts_lag
        self.faults = faults or {}
        self._fifo = fifo
        self._url = f"sqs://{region}" + (f"?endpoint_url={quote(endpoint, safe='')}" if endpoint else "")
        self._sdk: SQSClient = boto3.session.Session(region_name=region).client("sqs", endpoint_url=endpoint)
        self._run = f"qr-{uuid4().hex[:8]}"
        self._made: list[str] = []
        self._expiring: dict[str, str | QueueOptions] = {}

    def make_queue(self, spec: QueueSpec) -> str:
        made = make_queue(
            self._sdk,
            f"{self._run}-{len(self._made)}",
            fifo=spec.sessions and self._fifo,
            lease=int(spec.lease),
            max_receives=spec.max_receives or 1000,
            dead_letter=spec.dead_letters,
            max_message_size=MAX_MESSAGE_SIZE,
        )
        self._made += [url for url in (made.url, made.dead_letter_url) if url is not None]
        if spec.dead_letter_expired:
            self._expiring[made.name] = QueueOptions(expired="dead_letter")
        return made.name

    def connect(self, *, listeners: Sequence[Listener] = (), **settings: Any) -> QueueClient:
        queues = {**self._expiring, **settings.pop("queues", {})}
        return connect(replace(parse_url(self._url), queues=queues, **settings), listeners=listeners)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for url in self._made:
            self._sdk.delete_queue(QueueUrl=url)
        self._sdk.close()
