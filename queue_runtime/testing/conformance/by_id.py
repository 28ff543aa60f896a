"""Rows: a session that is asked for by its id is that one, with messages or without, or it is another's."""

from __future__ import annotations

import pytest

from queue_runtime import SessionClient
from queue_runtime.errors import SessionNotAvailable, UnsupportedOperation
from queue_runtime.testing.conformance.content import IDS
from queue_runtime.testing.conformance.kit import SLACK, Desk, Kit, Rows
from queue_runtime.testing.conformance.sessions import accept, try_accept


def giving(kit: Kit) -> Desk:
    """A queue that gives out sessions by their id."""
    desk = kit.desk("sessions")
    kind = kit.capabilities(desk.queue).sessions
    if kind != "native":
        pytest.skip(f"Capabilities.sessions is {kind!r}")
    return desk


def by_id(desk: Desk, session_id: str, *, wait: float = 0.0) -> SessionClient:
    """That session; time passes if it has to be waited for."""
    return desk.kit.call(lambda: ask(desk, session_id, wait=wait), within=wait + 30.0)


def ask(desk: Desk, session_id: str, *, wait: float) -> SessionClient:
    """The same on a thread beside the row's own, which lets time pass."""
    return desk.client.accept_session(desk.queue, session_id=session_id, wait=wait)


class TestAcceptById(Rows):
    def test_it_is_the_one_that_was_asked_for(self, kit: Kit) -> None:
        desk = giving(kit)
        desk.fill(2, session_id="a")
        ids = desk.fill(2, session_id="b")

        with by_id(desk, "b") as session, accept(desk) as other:
            assert (session.session_id, other.session_id) == ("b", "a")
            messages = session.receive()
            session.complete(messages)

        assert [message.id for message in messages] == ids[: len(messages)]

    @pytest.mark.parametrize("text", IDS.values(), ids=IDS.keys())
    def test_it_may_have_any_id(self, kit: Kit, text: str) -> None:
        desk = giving(kit)
        ids = desk.fill(1, session_id=text)

        with by_id(desk, text) as session:
            assert session.session_id == text
            assert [message.id for message in session.receive()] == ids

    def test_one_that_is_held_is_not_available(self, kit: Kit) -> None:
        desk = giving(kit)
        other = kit.desk("sessions", queue=desk.queue, client=kit.connect())
        desk.fill(1)

        with by_id(desk, "session") as session:
            with pytest.raises(SessionNotAvailable) as caught:
                by_id(other, "session")
            assert caught.value.queue == desk.queue
            assert not session.lease.lost
            session.complete(session.receive())

    def test_it_is_waited_for_as_long_as_was_said(self, kit: Kit) -> None:
        desk = giving(kit)
        desk.fill(1)

        def ask_in_vain() -> None:
            with pytest.raises(SessionNotAvailable):
                ask(desk, "session", wait=2.0)

        with by_id(desk, "session"):
            waiting = kit.start(ask_in_vain)
            kit.join(waiting)

        assert 2.0 - SLACK <= waiting.elapsed <= 2.0 + SLACK + 2 * kit.opening

    def test_it_comes_when_it_is_let_go(self, kit: Kit) -> None:
        desk = giving(kit)
        ids = desk.fill(1)
        session = by_id(desk, "session")
        waiting = kit.start(lambda: ask(desk, "session", wait=20.0))
        kit.time.sleep(0.7)

        session.close()
        kit.join(waiting)

        with waiting.result() as again:
            assert [message.id for message in again.receive()] == ids
        assert waiting.elapsed < 20.0 - SLACK

    def test_one_without_messages_is_held_like_any_other(self, kit: Kit) -> None:
        desk = giving(kit)
        desk.fill(1)
        desk.drain(1)

        with by_id(desk, "session") as session:
            assert session.receive() == []
            ids = desk.fill(2)
            assert try_accept(desk) is None
            first = kit.call(lambda: session.receive(max_messages=1, wait=5.0))
            session.complete(first)

        assert [message.id for message in first] == ids[:1]
        assert desk.drain(1).ids == ids[1:]

    def test_one_that_nobody_has_sent_to_is_held_too(self, kit: Kit) -> None:
        desk = giving(kit)

        with by_id(desk, "never-seen") as session:
            assert session.session_id == "never-seen"
            assert session.receive() == []
            with pytest.raises(SessionNotAvailable):
                by_id(desk, "never-seen")

        by_id(desk, "never-seen").close()

    def test_where_a_queue_gives_out_the_next_only_it_says_so(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        if kit.capabilities(desk.queue).sessions == "native":
            pytest.skip("Capabilities.sessions is 'native'")
        desk.fill(1)

        with pytest.raises(UnsupportedOperation, match="next") as caught:
            desk.client.accept_session(desk.queue, session_id="session")

        assert caught.value.queue == desk.queue
        assert desk.one().delivery_count == 1

    def test_a_plain_queue_has_none(self, kit: Kit) -> None:
        desk = kit.desk()

        with pytest.raises(UnsupportedOperation, match="no sessions") as caught:
            desk.client.accept_session(desk.queue, session_id="session")

        assert caught.value.queue == desk.queue
