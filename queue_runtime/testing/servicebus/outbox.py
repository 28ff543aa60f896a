"""What the broker says on one connection: in order, several frames in one write, late if told so."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

_MAX_FRESH = 128 * 1024
"""Bytes that are collected for one write; the transport must see them to tell that the client is behind."""


class Outbox:
    """Writes to *transport*. What is written goes out *latency* later, seconds, asked each time."""

    def __init__(self, transport: asyncio.Transport, latency: Callable[[], float]) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._latency = latency
        self._fresh: list[bytes] = []
        """Written since the event loop's last turn."""
        self._fresh_size = 0
        self._late: deque[tuple[float, bytes]] = deque()
        """With the loop's time at which it is due; the last one's may not be before that of others."""
        self._closing = False

    def write(self, data: bytes) -> None:
        if self._closing:
            return
        if not self._fresh:
            self._loop.call_soon(self._flush)
        self._fresh.append(data)
        self._fresh_size += len(data)
        if self._fresh_size > _MAX_FRESH:
            self._flush()

    def close(self) -> None:
        """Close the transport when everything is out. What is written after this call is lost."""
        self._closing = True
        if not self._fresh and not self._late:
            self._transport.close()

    def _flush(self) -> None:
        data = b"".join(self._fresh)
        self._fresh.clear()
        self._fresh_size = 0
        latency = self._latency()
        if latency <= 0 and not self._late:
            self._transport.write(data)
            self._close_if_done()
            return
        due = self._loop.time() + max(latency, 0.0)
        if self._late:
            due = max(due, self._late[-1][0])
        else:
            self._loop.call_at(due, self._flush_late)
        self._late.append((due, data))

    def _flush_late(self) -> None:
        now = self._loop.time()
        while self._late and self._late[0][0] <= now:
            self._transport.write(self._late.popleft()[1])
        if self._late:
            self._loop.call_at(self._late[0][0], self._flush_late)
        else:
            self._close_if_done()

    def _close_if_done(self) -> None:
        if self._closing and not self._fresh:
            self._transport.close()
