"""Turns of sessions: a busy one is let go when others want its place, between two messages, and else kept."""

from __future__ import annotations

from typing import Any

import pytest

from queue_runtime import QueueClient, ReceivedMessage, Worker
from queue_runtime.errors import ConfigurationError
from queue_runtime.testing import FakeClock
from tests.fakes import Script, scripted
from tests.worker.hands import URL, Desk, send, wait_until


def test_a_busy_session_is_let_go_after_its_messages_when_its_place_is_wanted(
    client: QueueClient, desk: Desk
) -> None:
    send(client, "sessions", *(f"a{n}" for n in range(5)), "b1")

    Worker(client, "sessions", desk, concurrency=1, session_max_messages=2).run_until_idle()

    assert [text for text, _ in desk.calls] == ["a0", "a1", "b1", "a2", "a3", "a4"]


def test_a_busy_session_is_let_go_after_its_time_when_its_place_is_wanted(
    client: QueueClient, clock: FakeClock
) -> None:
    calls: list[str] = []

    def handler(message: ReceivedMessage) -> None:
        clock.advance(4.0)
        calls.append(message.text)

    send(client, "sessions", *(f"a{n}" for n in range(5)), "b1")

    Worker(client, "sessions", handler, concurrency=1, session_max_time=10.0).run_until_idle()

    assert calls == ["a0", "a1", "a2", "b1", "a3", "a4"]


def test_a_turn_has_one_message_at_least(desk: Desk) -> None:
    with scripted(Script(), URL) as client:  # on the machine's clock: some time passes before the first
        send(client, "sessions", "a1", "a2", "b1")
        Worker(client, "sessions", desk, concurrency=1, session_max_time=1e-9).run_until_idle()

    assert sorted(text for text, _ in desk.calls) == ["a1", "a2", "b1"]


def test_a_busy_session_is_kept_while_there_is_room_for_others(desk: Desk) -> None:
    """Letting go costs a second on Service Bus, and nobody would gain by it."""
    script = Script()
    with scripted(script, URL) as client:
        send(client, "sessions", *(f"a{n}" for n in range(9)))
        Worker(client, "sessions", desk, concurrency=2, session_max_messages=1).run_until_idle()

    assert [text for text, _ in desk.calls] == [f"a{n}" for n in range(9)]
    assert len(script.calls("session.close")) == 1


def test_what_the_broker_handed_out_together_is_not_given_back(client: QueueClient) -> None:
    """On SQS what goes back comes with a raised count, and a session there is ten messages at most."""
    calls: list[tuple[str, int]] = []
    send(client, "groups", *(f"a{n}" for n in range(6)))

    Worker(
        client,
        "groups",
        lambda message: calls.append((message.text, message.delivery_count)),
        concurrency=1,
        session_max_messages=1,
    ).run_until_idle()

    assert calls == [(f"a{n}", 1) for n in range(6)]


def test_a_head_that_waits_for_its_retry_keeps_its_turn(
    client: QueueClient, clock: FakeClock, desk: Desk
) -> None:
    desk.fail["a1"] = [ValueError("once")]
    send(client, "sessions", "a1", "a2", "b1")

    with Worker(client, "sessions", desk, concurrency=1, session_max_messages=1) as worker:
        wait_until(lambda: worker.status().retried == 1)
        clock.block_until(2)
        clock.advance(2.0)
        desk.wait_for(lambda: len(desk.calls) == 4)

    assert [text for text, _ in desk.calls] == ["a1", "a1", "b1", "a2"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"session_max_time": 0.0}, "session_max_time must be a number of seconds above 0, it is 0.0"),
        ({"session_max_time": float("nan")}, "session_max_time must be a number of seconds above 0"),
        ({"session_max_messages": 0}, "session_max_messages must be a whole number from 1 on"),
        ({"session_max_messages": 2.5}, "session_max_messages must be a whole number"),
    ],
)
def test_a_turn_that_is_none_is_refused_by_name(
    client: QueueClient, desk: Desk, arguments: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigurationError, match=text):
        Worker(client, "sessions", desk, **arguments)


def test_a_turn_may_last_for_ever(client: QueueClient, desk: Desk) -> None:
    send(client, "sessions", "a1", "a2", "b1")

    Worker(client, "sessions", desk, concurrency=1, session_max_time=float("inf")).run_until_idle()

    assert [text for text, _ in desk.calls] == ["a1", "a2", "b1"]


def test_as_many_sessions_are_asked_for_as_there_are_places(desk: Desk) -> None:
    script = Script()
    with scripted(script, URL) as client:
        send(client, "sessions", *(f"{letter}1" for letter in "abcdef"))
        desk.hold(*(f"{letter}1" for letter in "abcdef"))
        with Worker(client, "sessions", desk, concurrency=4), desk:
            desk.wait_for(lambda: desk.running == 4)
            assert len(script.calls("accept_sessions")) == 1
            desk.let_go(*(f"{letter}1" for letter in "abcdef"))
            desk.wait_for(lambda: len(desk.calls) == 6)
