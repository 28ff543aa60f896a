"""Service Bus with two queues that somebody has made, for the conformance rows on a real namespace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self
from urllib.parse import quote

import pytest

from queue_runtime import Message, QueueClient, ReceivedMessage, connect, load_settings
from queue_runtime.events import Listener
from queue_runtime.testing.conformance import QueueSpec, RealTime
from tests.conformance.emptying import Emptying

LONGEST_LAPSE = 5.0
"""Seconds: rows do not wait for a lock to end that lasts longer."""


class GivenQueuesHarness:
    """Empties the queues before each row, their dead letters too, and learns from a first hold how long
    locks last. `begin` tells it that a row begins.

    Messages that a failed row has scheduled in a session stay, for the service does not show them.
    """

    look = 1.0
    counts_lag = 30.0
    opening = 5.0
    faults: Mapping[str, str] = {}

    def __init__(self, connection_string: str, plain: str, sessions: str) -> None:
        self.name = f"servicebus with {plain} and {sessions}"
        self.time = RealTime()
        self.lease = LONGEST_LAPSE
        self._plain = plain
        self._sessions = sessions
        self._target = f"servicebus://?connection_string={quote(connection_string, safe='')}"
        self._emptying = Emptying(connection_string)
        self._locks: dict[str, float] = {}
        self._limits: dict[str, int | None] = {}
        self._in_use: set[str] = set()

    def begin(self) -> None:
        """The queues are free for another row."""
        self._in_use.clear()

    def make_queue(self, spec: QueueSpec) -> str:
        name = self._sessions if spec.sessions else self._plain
        if spec.lease not in (QueueSpec().lease, self._locks[name]):
            pytest.skip(f"it needs a lock of {spec.lease:g} s, {name} has {self._locks[name]:g} s")
        if not spec.dead_letters:
            pytest.skip("it needs a queue without dead letters, which Service Bus does not have")
        if spec.max_receives not in (None, self._limits[name]):
            limit = self._limits[name]
            has = "is not told to this key" if limit is None else f"is {limit}"
            pytest.skip(f"it needs a limit of {spec.max_receives} deliveries, that of {name} {has}")
        if spec.dead_letter_expired:
            pytest.skip("it needs a queue that dead-letters what expires")
        if name in self._in_use:
            pytest.skip("it needs two queues of a kind, one is given")
        self._in_use.add(name)
        self._empty(name)
        return name

    def connect(self, *, listeners: Sequence[Listener] = (), **settings: Any) -> QueueClient:
        return connect(replace(load_settings(self._target), **settings), listeners=listeners)

    def __enter__(self) -> Self:
        with self.connect() as client:
            for name in (self._plain, self._sessions):
                self._empty(name)
                self._learn(client, name)
        self.lease = min(LONGEST_LAPSE, *self._locks.values())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._emptying.close()

    def _empty(self, name: str) -> None:
        if name == self._sessions:
            self._emptying.sessions(name)
        else:
            self._emptying.queue(name)
        self._emptying.dead_letters(name)

    def _learn(self, client: QueueClient, name: str) -> None:
        described = client.describe(name)
        has_sessions = described.capabilities.sessions != "none"
        assert has_sessions == (name == self._sessions), (
            f"{self._plain!r} must be a queue without sessions and {self._sessions!r} one with sessions; "
            f"{name!r} is not"
        )
        self._limits[name] = described.max_receives
        twice = Message(body=b"", id="the same", session_id="session" if has_sessions else None)
        client.send_batch(name, [twice, twice])
        messages = _take_two(client, name, has_sessions)
        assert len(messages) == 2, (
            f"of two messages with one id {len(messages)} came from {name!r}: it has duplicate detection, "
            "or somebody else receives from it"
        )
        self._locks[name] = messages[0].lease.length


def _take_two(client: QueueClient, name: str, has_sessions: bool) -> list[ReceivedMessage]:
    messages: list[ReceivedMessage] = []
    if not has_sessions:
        while len(messages) < 2 and (more := client.receive(name, max_messages=2, wait=2.0)):
            messages += more
        client.complete(messages)
    elif session := client.accept_session(name, wait=10.0):
        with session:
            messages = session.receive(max_messages=2, wait=2.0)
            session.complete(messages)
    return messages
