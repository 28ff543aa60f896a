"""Rows: a session keeps a few bytes of its own, for whoever holds it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from queue_runtime import ReceivedMessage, Worker
from queue_runtime.errors import SessionLeaseLost, UnsupportedOperation
from queue_runtime.session_state import Mark, SessionState
from queue_runtime.testing.clock import PATIENCE
from queue_runtime.testing.conformance.by_id import by_id
from queue_runtime.testing.conformance.kit import GRACE, Desk, Kit, Rows
from queue_runtime.testing.conformance.sessions import accept
from queue_runtime.testing.conformance.settling import believed
from queue_runtime.worker.crash_mark import MOST_CRASHES

STATES = {
    "text": "with an 🐙".encode(),
    "any-bytes": bytes(range(256)),
    "empty": b"",
    "long": b"0123456789abcdef" * 1024,
    "lines": b"\n\r\n",
}


def keeping(kit: Kit, *, lease: float = 30.0) -> Desk:
    """A queue whose sessions have a state."""
    desk = kit.desk("sessions", lease=lease)
    if not kit.capabilities(desk.queue).session_state:
        pytest.skip("Capabilities.session_state is False")
    return desk


class TestSessionState(Rows):
    @pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
    def test_what_was_set_is_there_for_the_next_holder(self, kit: Kit, state: bytes) -> None:
        desk = keeping(kit)
        other = kit.desk("sessions", queue=desk.queue, client=kit.connect())
        desk.fill(1)

        with accept(desk) as session:
            assert session.get_state() is None
            session.set_state(state)
            assert session.get_state() == state

        with accept(other) as session:
            assert session.get_state() == state

    def test_it_outlasts_the_messages(self, kit: Kit) -> None:
        desk = keeping(kit)
        desk.fill(1)
        with accept(desk) as session:
            session.set_state(b"seen one")
            session.complete(session.receive())

        desk.fill(1)

        with accept(desk) as session:
            assert session.get_state() == b"seen one"

    def test_each_session_has_its_own(self, kit: Kit) -> None:
        desk = keeping(kit)
        with by_id(desk, "a") as one, by_id(desk, "b") as two, by_id(desk, "c") as three:
            one.set_state(b"of a")
            two.set_state(b"of b")

            assert (one.get_state(), two.get_state(), three.get_state()) == (b"of a", b"of b", None)

    def test_it_may_be_replaced_and_removed(self, kit: Kit) -> None:
        desk = keeping(kit)
        with by_id(desk, "session") as session:
            session.set_state(b"first, and longer")
            session.set_state(b"second")
            assert session.get_state() == b"second"
            session.set_state(None)
            assert session.get_state() is None

        with by_id(desk, "session") as session:
            assert session.get_state() is None

    def test_it_is_the_holders_only(self, kit: Kit) -> None:
        desk = keeping(kit, lease=kit.lease)
        desk.fill(1)
        late = accept(desk)
        late.set_state(b"in time")
        kit.time.sleep(kit.lease + GRACE)

        acts: list[Callable[[], object]] = [late.get_state, lambda: late.set_state(b"too late")]
        for act in acts:
            with pytest.raises(SessionLeaseLost):
                act()

    def test_one_who_has_lost_it_without_knowing_changes_nothing(self, kit: Kit) -> None:
        """The provider is asked, for the client is made to believe that the session is still held."""
        desk = keeping(kit, lease=kit.lease)
        other = kit.desk("sessions", queue=desk.queue, client=kit.connect())
        desk.fill(1)
        late = accept(desk)
        late.set_state(b"in time")
        (message,) = late.receive()
        kit.time.sleep(kit.lease + GRACE)

        with accept(other, wait=10.0) as session:
            late.lease = message.lease = believed(kit, message)
            acts: list[Callable[[], object]] = [late.get_state, lambda: late.set_state(b"too late")]
            for act in acts:
                with pytest.raises(SessionLeaseLost):
                    act()
            assert session.get_state() == b"in time"

    def test_where_there_is_none_it_says_so(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        if kit.capabilities(desk.queue).session_state:
            pytest.skip("Capabilities.session_state is True")
        desk.fill(1)

        with accept(desk) as session:
            (message,) = session.receive()
            acts: list[Callable[[], object]] = [
                session.get_state,
                lambda: session.set_state(b"state"),
                message.get_session_state,
                lambda: message.set_session_state(b"state"),
            ]
            for act in acts:
                with pytest.raises(UnsupportedOperation, match="state") as caught:
                    act()
                assert caught.value.queue == desk.queue
            session.complete(message)

    def test_a_message_outside_a_session_has_none(self, kit: Kit) -> None:
        desk = kit.desk()
        desk.fill(1)
        message = desk.one()

        acts: list[Callable[[], object]] = [
            message.get_session_state,
            lambda: message.set_session_state(b"state"),
        ]
        for act in acts:
            with pytest.raises(UnsupportedOperation, match="session"):
                act()


class TestWorkersAndSessionState(Rows):
    """A worker keeps a mark of its own beside the user's bytes; nobody sees it."""

    def work(self, kit: Kit, desk: Desk, handler: Callable[[ReceivedMessage], None]) -> None:
        kit.call(lambda: Worker(desk.client, desk.queue, handler).run_until_idle(wait=kit.look))

    def test_handlers_hand_it_on_along_the_session(self, kit: Kit) -> None:
        desk = keeping(kit)
        desk.fill(3)
        seen: list[bytes | None] = []

        def handler(message: ReceivedMessage) -> None:
            seen.append(message.get_session_state())
            message.set_session_state((seen[-1] or b"") + message.body)

        self.work(kit, desk, handler)

        assert seen == [None, b"0", b"01"]
        with by_id(desk, "session", wait=5.0) as session:
            assert session.get_state() == b"012"

    def test_a_worker_leaves_nothing_where_the_user_has_nothing(self, kit: Kit) -> None:
        desk = keeping(kit)
        desk.fill(2)

        self.work(kit, desk, lambda message: None)

        with by_id(desk, "session", wait=5.0) as session:
            assert session.read_state() == SessionState()

    def test_what_ends_its_process_is_given_up_where_the_broker_does_not_count(self, kit: Kit) -> None:
        """A process that ends is a worker that is given up with its handler inside."""
        desk = keeping(kit, lease=kit.lease)
        if kit.capabilities(desk.queue).counts_lost_sessions:
            pytest.skip("Capabilities.counts_lost_sessions is True")
        ids = desk.fill(2)
        with accept(desk) as session:
            (head,) = session.receive(max_messages=1)
            session.write_state(SessionState(user=b"user's", mark=Mark(head.sequence or 0, MOST_CRASHES)))
        with Stuck() as stuck:
            worker = Worker(desk.client, desk.queue, stuck)
            worker.start()
            stuck.wait_until_entered()
            worker.stop(deadline=0.0)
        kit.time.sleep(kit.lease + GRACE)
        seen: list[str] = []

        self.work(kit, desk, lambda message: seen.append(message.id))

        (dead,) = kit.call(kit.client.dead_letters(desk.queue).list)
        assert (dead.id, dead.dead_letter.reason) == (ids[0], "MaxDeliveriesExceeded")
        assert seen == ids[1:], "its session goes on"
        with by_id(desk, "session", wait=5.0) as session:
            assert session.read_state() == SessionState(user=b"user's")


class Stuck:
    """A handler that does not return before the end of its `with` block."""

    def __init__(self) -> None:
        self._entered = threading.Event()
        self._over = threading.Event()

    def __call__(self, message: ReceivedMessage) -> None:
        self._entered.set()
        self._over.wait(PATIENCE)

    def wait_until_entered(self) -> None:
        assert self._entered.wait(PATIENCE), "no message came to the handler"

    def __enter__(self) -> Stuck:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
