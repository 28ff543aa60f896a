"""Which messages travel together: a pure plan of requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from queue_runtime.provider import Capabilities


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
