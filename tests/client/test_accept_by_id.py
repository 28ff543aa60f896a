"""A session that is asked for by its id: asked for again while another holds it, for as long as was said."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from queue_runtime import QueueClient
from queue_runtime.errors import Closed, InvalidName, SessionNotAvailable, Throttled, UnsupportedOperation
from queue_runtime.testing import FakeClock
from tests.client.hands import send
from tests.fakes import REAL, Script, fails


def test_is_given_with_its_messages_or_without(client: QueueClient) -> None:
    send(client, "events", "a1", "b1")

    with client.accept_session("events", session_id="b") as session:
        assert [message.id for message in session.receive()] == ["b1"]
    with client.accept_session("events", session_id="empty") as session:
        assert session.receive() == []


def test_that_is_held_is_refused_at_once_if_nobody_waits(client: QueueClient, script: Script) -> None:
    with client.accept_session("events", session_id="a"), pytest.raises(SessionNotAvailable) as caught:
        client.accept_session("events", session_id="a")

    assert (caught.value.queue, caught.value.operation) == ("events", "accept_session")
    assert len(script.calls("accept_session")) == 2


def test_that_is_held_is_asked_for_twice_a_second(
    client: QueueClient, script: Script, clock: FakeClock
) -> None:
    client.accept_session("events", session_id="a")
    with ThreadPoolExecutor(1) as aside:
        waiting = aside.submit(lambda: client.accept_session("events", session_id="a", wait=2.25))
        for asked in (1, 2, 3, 4, 5):
            clock.block_until(1)
            assert len(script.calls("accept_session")) == 1 + asked
            clock.advance(0.5)

        assert isinstance(waiting.exception(REAL), SessionNotAvailable)
    assert len(script.calls("accept_session")) == 7, "once more at the end"


def test_is_given_when_it_is_let_go(client: QueueClient, clock: FakeClock) -> None:
    held = client.accept_session("events", session_id="a")
    with ThreadPoolExecutor(1) as aside:
        waiting = aside.submit(lambda: client.accept_session("events", session_id="a", wait=10.0))
        clock.block_until(1)
        held.close()
        clock.advance(0.5)

        assert waiting.result(REAL).session_id == "a"


def test_is_waited_for_no_longer_than_the_client_is_open(client: QueueClient, clock: FakeClock) -> None:
    client.accept_session("events", session_id="a")
    with ThreadPoolExecutor(1) as aside:
        waiting = aside.submit(lambda: client.accept_session("events", session_id="a", wait=3600.0))
        clock.block_until(1)

        client.close()

        assert isinstance(waiting.exception(REAL), Closed)


def test_is_asked_for_again_when_that_may_help(client: QueueClient, script: Script) -> None:
    script.then("accept_session", fails(Throttled), fails(Throttled))

    assert client.accept_session("events", session_id="a").session_id == "a"


@pytest.mark.parametrize(
    ("queue", "text"),
    [("groups", "'groups' gives out the session that is next"), ("jobs", "'jobs' has no sessions")],
)
def test_of_a_queue_that_cannot_is_refused_before_anything_is_asked(
    client: QueueClient, script: Script, queue: str, text: str
) -> None:
    with pytest.raises(UnsupportedOperation, match=text):
        client.accept_session(queue, session_id="a")

    assert script.calls("accept_session") == script.calls("receive") == []


@pytest.mark.parametrize("session_id", ["", "a\nb", "x" * 1025])
def test_by_what_is_no_id_is_refused(client: QueueClient, session_id: str) -> None:
    with pytest.raises(InvalidName, match="session_id"):
        client.accept_session("events", session_id=session_id)
