"""Makes the SDK's clients, once each, and keeps them open until the last call under way is over."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import boto3.session
from botocore.exceptions import NoCredentialsError

from queue_runtime.errors import Closed
from queue_runtime.nearest import did_you_mean
from queue_runtime.providers.sqs.errors import PROVIDER, SDK_ERRORS, translate
from queue_runtime.providers.sqs.options import SqsOptions

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

log = logging.getLogger("queue_runtime")

T = TypeVar("T")

_POLLS = (0, 1, 2, 5, 10, 20)
"""Long polls share a client by the shortest of these that is not shorter than they are."""

_TIERS = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0)


class SdkClients:
    """The SDK's clients of one session, one for each read timeout, because the SDK fixes it per client.

    Made on first use: making one may look for credentials on the network. Any thread may call.
    """

    def __init__(self, options: SqsOptions, session: boto3.session.Session) -> None:
        self._options = options
        self._session = session
        self.region = session.region_name
        # Making clients of one session is not thread-safe, using them is.
        self._making = threading.Lock()
        # guarded by _making; `_made` is read without it, because what is in it stays
        self._made: dict[float, SQSClient] = {}
        self._region_seen = False
        self._lock = threading.Lock()
        # guarded by _lock
        self._under_way = 0
        self._requests: Counter[str] = Counter()
        # set once, never back
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the clients open for the calls inside. Raises `Closed` once `close` was called."""
        with self._lock:
            if self._closed:
                raise Closed("the SQS client is closed; connect again for a new one", provider=PROVIDER)
            self._under_way += 1
        try:
            yield
        finally:
            self._close_if_unused(leaving=1)

    def call(
        self,
        operation: str,
        request: Callable[[SQSClient], T],
        *,
        queue: str | None,
        changes: bool,
        timeout: float | None = None,
    ) -> T:
        """Make one request within *timeout* seconds, by default `request_timeout`; raises `QueueError`s."""
        with self._lock:
            self._requests[operation] += 1
        try:
            return request(self._client(self._options.request_timeout if timeout is None else timeout))
        except SDK_ERRORS as exc:
            if isinstance(exc, NoCredentialsError):
                self._forget()
            error = translate(exc, operation=operation, queue=queue, changes=changes)
        # Outside of the except clause, so that only the cleaned cause travels with it.
        raise error

    def requests(self) -> dict[str, int]:
        """How many were made up to now, by SQS's name of the operation."""
        with self._lock:
            return dict(self._requests)

    def within(self, lease: float) -> float:
        """The timeout of a request about a message held for *lease* seconds: at most a sixth of it.

        Not under half a second, where healthy requests would fail. Rounded down to a few steps, because
        each timeout is a client of its own.
        """
        limit = min(self._options.request_timeout, lease / 6)
        if limit == self._options.request_timeout:
            return limit
        return max((tier for tier in _TIERS if tier <= limit), default=_TIERS[0])

    def poll_timeout(self, wait: int) -> float:
        """The timeout of a receive that waits *wait* seconds for messages."""
        return next(poll for poll in _POLLS if wait <= poll) + self._options.request_timeout

    def close(self) -> None:
        """Refuse new calls; those under way end as they would, and the last one closes the connections."""
        self._closed = True
        self._close_if_unused()

    def _client(self, timeout: float) -> SQSClient:
        made = self._made.get(timeout)
        if made is not None:
            return made
        with self._making:
            if timeout not in self._made:
                self._made[timeout] = self._make(timeout)
            return self._made[timeout]

    def _make(self, timeout: float) -> SQSClient:
        made = self._session.client(
            "sqs",
            endpoint_url=self._options.endpoint_url,
            config=self._options.client_config(timeout),
        )
        if not self._region_seen:
            self._region_seen = True
            self._check_region(made.meta.endpoint_url)
        return made

    def _check_region(self, endpoint: str) -> None:
        """Warn of a region that the SDK does not know, where the address that is asked is made of it: it may
        be new, or misspelt, and then no such host is found."""
        known = [
            region
            for partition in self._session.get_available_partitions()
            for region in self._session.get_available_regions("sqs", partition)
        ]
        if self._options.endpoint_url is None and self.region not in known and self.region in endpoint:
            log.warning(
                "sqs: boto3 knows no region %r%s",
                self.region,
                did_you_mean(self.region, known) or "; is it new?",
            )

    def _forget(self) -> None:
        """A client made without credentials never gets any: let the next call make a new one."""
        with self._making:
            self._made = {}

    def _close_if_unused(self, leaving: int = 0) -> None:
        with self._lock:
            self._under_way -= leaving
            if not self._closed or self._under_way:
                return
        # Nobody is inside and nobody can enter.
        made, self._made = self._made, {}
        for client in made.values():
            client.close()
