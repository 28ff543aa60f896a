"""What tests of a client do again and again: send, take, accept, let time pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from queue_runtime import Message, QueueClient, ReceivedMessage
from queue_runtime.errors import BatchFailed, Outcome
from queue_runtime.events import Event, LostLease
from queue_runtime.session_client import SessionClient
from queue_runtime.testing import FakeClock
from tests.fakes import Script, let_pass

URL = "memory://?queues=events:sessions,groups:groups,jobs,mails"


def send(client: QueueClient, queue: str, *names: str) -> None:
    """On queues with sessions the first letter is the session."""
    client.send_batch(queue, [Message(body=n.encode(), id=n, session_id=n[0]) for n in names])


def taken(client: QueueClient, *names: str, queue: str = "jobs", **how: Any) -> list[ReceivedMessage]:
    """Messages that were just sent, in hand."""
    send(client, queue, *names)
    found = client.receive(queue, max_messages=len(names), **how)
    assert [message.id for message in found] == list(names)
    return found


def one(client: QueueClient, **how: Any) -> ReceivedMessage:
    return taken(client, "m", **how)[0]


def accepted(client: QueueClient, queue: str = "events") -> SessionClient:
    session = client.accept_session(queue)
    assert session is not None
    return session


def outcomes_of(act: Callable[[], object]) -> Sequence[Outcome[str]]:
    with pytest.raises(BatchFailed) as caught:
        act()
    return caught.value.outcomes


def losses(events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, LostLease)]


class Keeping:
    """Time that passes for a client that keeps leases alive."""

    def __init__(self, client: QueueClient, clock: FakeClock, script: Script) -> None:
        self._client, self._clock, self._script = client, clock, script

    def let_pass(self, seconds: float, *, session: SessionClient | None = None) -> None:
        """With *session*, it is what is kept alive."""
        let_pass(
            self._clock,
            seconds,
            pool=self._client.runtime().pool,
            lanes=["jobs" if session is None else session._session],
            progress=self.renewals,
        )

    def renewals(self) -> int:
        """Renewals that the broker was asked for up to now."""
        return len(self._script.calls("renew")) + len(self._script.calls("session.renew"))
