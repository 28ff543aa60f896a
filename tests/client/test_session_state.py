"""The state of a session in hand: read and written by its holder, beside what a worker keeps there."""

from __future__ import annotations

import pytest

from queue_runtime import QueueClient
from queue_runtime.errors import Closed, InvalidArgument, SessionLeaseLost, Throttled, UnsupportedOperation
from queue_runtime.session_state import Mark, SessionState, pack
from queue_runtime.testing import FakeClock
from tests.client.hands import accepted, one, send
from tests.fakes import Script, fails


def test_is_kept_for_the_next_holder(client: QueueClient) -> None:
    send(client, "events", "a1")
    with accepted(client) as session:
        assert session.get_state() is None
        session.set_state(b"half way")

    with accepted(client) as session:
        assert session.get_state() == b"half way"
        session.set_state(None)

    assert accepted(client).get_state() is None


def test_is_to_be_had_from_a_message_of_the_session(client: QueueClient) -> None:
    send(client, "events", "a1")
    with accepted(client) as session:
        [message] = session.receive()
        message.set_session_state(b"from its message")

        assert session.get_state() == message.get_session_state() == b"from its message"


def test_keeps_the_mark_of_a_worker_that_died(client: QueueClient) -> None:
    send(client, "events", "a1")
    mark = Mark(1, 3)
    with accepted(client) as session:
        session.write_state(SessionState(mark=mark))

    with accepted(client) as session:
        session.set_state(b"mine")
        assert session.read_state() == SessionState(user=b"mine", mark=mark)


def test_leaves_a_foreign_value_its_form(client: QueueClient) -> None:
    send(client, "events", "a1")
    with accepted(client) as session:
        session._session.set_state(b'{"of": "another"}')

    with accepted(client) as session:
        assert session.get_state() == b'{"of": "another"}'
        session.set_state(b'{"of": "both"}')
        assert session._session.get_state() == b'{"of": "both"}'


def test_is_otherwise_told_from_foreign_values(client: QueueClient) -> None:
    send(client, "events", "a1")
    with accepted(client) as session:
        session.set_state(b"mine")

        assert session._session.get_state() == pack(SessionState(user=b"mine"))


def test_is_asked_for_again_when_that_may_help(client: QueueClient, script: Script) -> None:
    send(client, "events", "a1")
    with accepted(client) as session:
        for operation in ("session.get_state", "session.set_state"):
            script.then(operation, fails(Throttled))
        session.set_state(b"mine")

        assert session.get_state() == b"mine"


def test_costs_one_look_before_the_first_write_and_no_more(client: QueueClient, script: Script) -> None:
    send(client, "events", "a1")
    with accepted(client) as session:
        for n in range(3):
            session.set_state(b"%d" % n)

    assert (len(script.calls("session.get_state")), len(script.calls("session.set_state"))) == (1, 3)


def test_belongs_to_the_holder(client: QueueClient, clock: FakeClock) -> None:
    send(client, "events", "a1")
    session = accepted(client)
    [message] = session.receive()
    clock.advance(30.0)

    for act in (session.get_state, lambda: session.set_state(b"x"), message.get_session_state):
        with pytest.raises(SessionLeaseLost):
            act()
    client.close()
    with pytest.raises(Closed):
        session.get_state()


def test_is_bytes(client: QueueClient) -> None:
    send(client, "events", "a1")
    with accepted(client) as session, pytest.raises(InvalidArgument, match="bytes or None, not a str"):
        session.set_state("text")  # type: ignore[arg-type]


def test_where_sessions_have_none_nothing_is_asked(client: QueueClient, script: Script) -> None:
    send(client, "groups", "a1")
    with accepted(client, "groups") as session:
        [message] = session.receive()
        for act in (session.get_state, lambda: session.set_state(b"x"), message.get_session_state):
            with pytest.raises(UnsupportedOperation, match="'groups' have no state; keep it in a database"):
                act()
    assert script.calls("session.get_state") == []


def test_a_message_outside_a_session_has_none(client: QueueClient) -> None:
    message = one(client)

    for act in (message.get_session_state, lambda: message.set_session_state(b"x")):
        with pytest.raises(UnsupportedOperation, match="received outside a session"):
            act()
