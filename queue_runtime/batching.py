"""Which messages travel together: a pure plan of requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from queue_runtime.errors import ConfigurationError
from queue_runtime.provider import Capabilities


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPolicy:
    """How calls made at the same time share requests to the broker. Nothing waits for company: a call that
    finds nothing under way leaves at once.

    At most `max_in_flight` requests of one kind are under way on one queue. One that is not full leaves when
    fewer than `partial_in_flight` are. `max_pending` bounds the messages given to `submit` that were not sent
    yet, for each queue; `submit` waits for room.
    """

    max_in_flight: int = 8
    partial_in_flight: int = 1
    max_pending: int = 1000

    def __post_init__(self) -> None:
        for name in ("max_in_flight", "partial_in_flight", "max_pending"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"batching.{name} must be a whole number from 1 on, it is {value!r}")
        if self.partial_in_flight > self.max_in_flight:
            raise ConfigurationError(
                f"batching.partial_in_flight must be at most max_in_flight ({self.max_in_flight}), it is "
                f"{self.partial_in_flight}"
            )


@dataclass(frozen=True, slots=True)
class Entry:
    """What the plan needs to know of a message."""

    size: int
    session_id: str | None


def plan(entries: Sequence[Entry], capabilities: Capabilities) -> list[list[int]]:
    """Split *entries* into requests, to be made in this order; each is a list of indexes, ascending.

    No request has more entries or bytes than the queue takes. A session's entries keep their order: where
    a request can fail in part, it carries at most one entry of a session, for a second one would overtake
    a first one that failed.
    """
    requests: list[list[int]] = []
    bytes_in: list[int] = []
    after: dict[str, int] = {}  # session -> the first request that may take its next entry
    first_open = 0
    one_each = capabilities.sessions != "none" and not capabilities.atomic_batch
    for index, entry in enumerate(entries):
        session = entry.session_id
        at = max(first_open, after.get(session, 0) if session is not None else 0)
        while at < len(requests) and not _has_room(requests[at], bytes_in[at], entry, capabilities):
            at += 1
        if at == len(requests):
            requests.append([])
            bytes_in.append(0)
        requests[at].append(index)
        bytes_in[at] += entry.size
        if session is not None:
            after[session] = at + 1 if one_each else at
        while first_open < len(requests) and len(requests[first_open]) == capabilities.max_batch:
            first_open += 1
    return requests


def _has_room(request: Sequence[int], used: int, entry: Entry, capabilities: Capabilities) -> bool:
    return len(request) < capabilities.max_batch and used + entry.size <= capabilities.max_batch_size
