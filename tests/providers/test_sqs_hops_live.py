"""Hops over a real socket, with an endpoint's own clock: the timer is made short, all else is as it is."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import pytest

from queue_runtime import Message, ReceivedMessage, Worker, connect
from queue_runtime.providers.sqs import wire
from queue_runtime.testing.sqs import CREDENTIALS, LocalSqs, make_queue


@pytest.fixture(scope="module")
def local() -> Iterator[LocalSqs]:
    with LocalSqs() as made:
        yield made


@pytest.fixture(autouse=True)
def short_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(wire, "MAX_DELAY", 1)


def queue(local: LocalSqs, name: str) -> str:
    sdk = local.client()
    made = make_queue(sdk, name)
    sdk.close()
    return made.name


def test_a_message_comes_when_it_is_due_through_several_hops(local: LocalSqs) -> None:
    name = queue(local, "receives")
    with connect(local.target()) as client:
        sent = Message(body=b"\0body", delay=3.5, attributes={"kind": "push"}, time_to_live=60.0)
        client.send(name, sent)
        began = monotonic()

        messages = client.receive(name, max_messages=10, wait=15.0)

        took = monotonic() - began
        assert [(m.id, m.body, dict(m.attributes)) for m in messages] == [
            (sent.id, sent.body, {"kind": "push"})
        ]
        assert 3.5 - 0.05 <= took <= 3.5 + 3.0
        client.complete(messages)
        found = client.describe(name)
        assert (found.active, found.leased, found.delayed) == (0, 0, 0)


def test_a_worker_handles_it_once_and_others_meanwhile(local: LocalSqs) -> None:
    name = queue(local, "works")
    with connect(local.target()) as client:
        late = [Message(body=b"late", delay=3.0) for _ in range(12)]
        soon = [Message(body=b"soon", delay=0.0) for _ in range(3)]
        client.send_batch(name, [*late, *soon])
        handled: list[str] = []

        def handler(message: ReceivedMessage) -> None:
            handled.append(message.id)

        for _ in range(10):
            Worker(client, name, handler).run_until_idle(wait=2.0)
            if len(handled) >= 15:
                break

        assert sorted(handled[:3]) == sorted(message.id for message in soon)
        assert sorted(handled) == sorted(message.id for message in [*soon, *late])
