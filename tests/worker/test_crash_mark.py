"""The crash mark: what ends its process is found out on a broker that does not count lost sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from queue_runtime import HandlerPolicy, QueueClient, ReceivedMessage, Retry, SessionClient, Worker
from queue_runtime.errors import ConnectionFailed, OutcomeUnknown, SessionLeaseLost
from queue_runtime.events import Event, HandlerFailed, SessionUnmarked
from queue_runtime.session_state import Mark, SessionState
from queue_runtime.testing import FakeClock
from queue_runtime.worker.crash_mark import MOST_CRASHES
from queue_runtime.worker.session_run import SessionRun
from tests.fakes import Script, Step, fails, loses, scripted
from tests.worker.hands import URL, Desk, of, send, wait_until

LEASE = 30.0
QUEUE = "sessions"


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def client(script: Script, clock: FakeClock, events: list[Event]) -> Iterator[QueueClient]:
    with scripted(script, URL, clock=clock, listeners=[events.append]) as made:
        yield made


def kill(
    client: QueueClient, clock: FakeClock, text: str, desk: Desk | None = None, *, silently: bool = False
) -> None:
    """A process that ends inside the handler of *text*: nothing of it is settled or taken back, and its
    connection ends, with which the session is free; or, *silently*, as when the machine loses its power, the
    session's lease runs out. (Here its thread is given up, and ends later.)"""
    desk = desk or Desk()
    desk.hold(text)
    worker = Worker(client, QUEUE, desk)
    worker.start()
    desk.wait_for(lambda: bool(desk.calls) and desk.calls[-1][0] == text)
    worker.stop(deadline=0.0)
    if silently:
        clock.advance(LEASE)
    for run in worker._work.in_hand.runs():  # type: ignore[union-attr]
        assert isinstance(run, SessionRun)
        run._session._session.close()
    desk.let_go(text)
    wait_until(lambda: desk.running == 0)


def run(client: QueueClient, handler: Callable[[ReceivedMessage], object], **options: Any) -> None:
    Worker(client, QUEUE, handler, **options).run_until_idle()


def state(client: QueueClient, session_id: str = "a") -> SessionState:
    """As it is at the broker."""
    with client.accept_session(QUEUE, session_id=session_id) as session:
        return session.read_state()


def put(client: QueueClient, change: Callable[[SessionClient, int], None]) -> None:
    """Have *change* do something to session a, and to the sequence of its head."""
    with client.accept_session(QUEUE, session_id="a") as session:
        (head,) = session.receive(max_messages=1)
        change(session, head.sequence or 0)


@pytest.mark.parametrize("silently", [False, True])
def test_a_message_that_keeps_ending_its_process_is_dead_lettered_and_its_session_goes_on(
    client: QueueClient, clock: FakeClock, desk: Desk, silently: bool
) -> None:
    send(client, QUEUE, "a1", "a2")
    for crashes in range(1, MOST_CRASHES + 2):
        kill(client, clock, "a1", silently=silently)
        mark = state(client).mark
        assert mark is not None
        assert mark.count == crashes

    run(client, desk)

    (dead,) = client.dead_letters(QUEUE).list()
    assert (dead.text, dead.dead_letter.reason) == ("a1", "MaxDeliveriesExceeded")
    assert dead.dead_letter.attempts == MOST_CRASHES + 1
    assert "11 times the session was lost" in (dead.dead_letter.description or "")
    assert desk.calls == [("a2", 1)]
    assert state(client) == SessionState()


def test_as_many_crashes_as_are_forgiven_are(client: QueueClient, desk: Desk) -> None:
    send(client, QUEUE, "a1")
    put(client, lambda s, head: s.write_state(SessionState(mark=Mark(head, MOST_CRASHES))))

    run(client, desk)

    assert desk.calls == [("a1", 1)]
    assert state(client) == SessionState()


def test_a_mark_of_another_message_says_nothing_of_this_one(
    client: QueueClient, clock: FakeClock, desk: Desk
) -> None:
    send(client, QUEUE, "a1", "a2")
    put(client, lambda s, head: s.write_state(SessionState(mark=Mark(head - 1, 99))))

    kill(client, clock, "a1")

    assert state(client).mark is not None
    assert state(client).mark.count == 1  # type: ignore[union-attr]
    run(client, desk)
    assert [text for text, _ in desk.calls] == ["a1", "a2"]


def test_one_that_came_behind_the_first_is_marked_when_it_is_first(
    client: QueueClient, clock: FakeClock
) -> None:
    send(client, QUEUE, "a1", "a2")

    kill(client, clock, "a2")
    first = state(client).mark
    kill(client, clock, "a2")
    second = state(client).mark

    assert first is not None
    assert second is not None
    assert (second.sequence, second.count) == (first.sequence + 1, 1)


def test_it_costs_one_look_one_mark_and_one_end_for_a_whole_hold(
    client: QueueClient, script: Script, desk: Desk
) -> None:
    send(client, QUEUE, *(f"a{n}" for n in range(9)))

    run(client, desk)

    assert len(desk.calls) == 9
    assert (len(script.calls("session.get_state")), len(script.calls("session.set_state"))) == (1, 2)


def test_the_mark_is_there_before_the_handler_is_entered_and_beside_the_users_bytes(
    client: QueueClient,
) -> None:
    seen: list[SessionState] = []

    def handler(message: ReceivedMessage) -> None:
        message.set_session_state((message.get_session_state() or b"") + message.body)
        seen.append(message.owner.read_state())  # type: ignore[attr-defined]

    send(client, QUEUE, "a1", "a2")
    run(client, handler)

    assert [each.user for each in seen] == [b"a1", b"a1a2"]
    assert all(each.mark is not None and each.mark.count == 1 for each in seen)
    assert state(client) == SessionState(user=b"a1a2")


def test_what_the_user_set_before_the_crash_is_kept(client: QueueClient, clock: FakeClock) -> None:
    class Setting(Desk):
        def __call__(self, message: ReceivedMessage) -> None:
            message.set_session_state(b"half way")
            super().__call__(message)

    send(client, QUEUE, "a1")
    kill(client, clock, "a1", Setting())

    left = state(client)
    assert left.user == b"half way"
    assert left.mark is not None
    assert left.mark.count == 1


def test_what_the_user_may_have_set_is_not_undone_by_the_end(client: QueueClient, script: Script) -> None:
    """The answer to the handler's own write was lost each time: the broker has it all the same."""

    def handler(message: ReceivedMessage) -> None:
        script.then("session.set_state", *[loses()] * 3)
        with pytest.raises(OutcomeUnknown):
            message.set_session_state(b"stored, as it happens")

    send(client, QUEUE, "a1")
    run(client, handler)

    assert state(client) == SessionState(user=b"stored, as it happens")


class TestAGracefulEnd:
    def test_takes_back_what_it_has_counted_and_no_more(
        self, client: QueueClient, clock: FakeClock, events: list[Event], desk: Desk
    ) -> None:
        desk.fail["a1"] = [Retry(60.0)]
        send(client, QUEUE, "a1")
        for _ in range(3):
            kill(client, clock, "a1")
        worker = Worker(client, QUEUE, desk)
        worker.start()
        wait_until(lambda: bool(of(events, HandlerFailed)))

        worker.stop()

        clock.advance(60.0)
        mark = state(client).mark
        assert mark is not None
        assert mark.count == 3

    def test_leaves_no_mark_of_a_message_that_is_gone(
        self, client: QueueClient, clock: FakeClock, desk: Desk
    ) -> None:
        send(client, QUEUE, "a1", "a2")
        kill(client, clock, "a1")
        desk.fail["a1"] = [ValueError("no more than that")]

        run(client, desk, policy=HandlerPolicy(max_attempts=1))

        assert client.dead_letters(QUEUE).count() == 1
        assert state(client) == SessionState()

    def test_is_that_of_a_turn_too(self, client: QueueClient, script: Script, desk: Desk) -> None:
        send(client, QUEUE, "a1", "a2", "b1")

        run(client, desk, concurrency=1, session_max_messages=1)

        assert [text for text, _ in desk.calls] == ["a1", "b1", "a2"]
        assert [state(client, each) for each in "ab"] == [SessionState(), SessionState()]

    def test_that_the_broker_does_not_hear_of_is_a_crash(
        self, client: QueueClient, script: Script, desk: Desk, events: list[Event]
    ) -> None:
        desk.fail["a1"] = [Retry(60.0)]
        send(client, QUEUE, "a1")
        worker = Worker(client, QUEUE, desk)
        worker.start()
        wait_until(lambda: bool(of(events, HandlerFailed)))
        script.always("session.set_state", fails(ConnectionFailed))

        report = worker.stop()

        assert report.released == 1, "the rest of it goes on"
        script.always("session.set_state")
        assert state(client).mark is not None


class TestWithoutAMark:
    def test_a_foreign_state_is_left_alone_and_the_listeners_are_told(
        self, client: QueueClient, desk: Desk, events: list[Event]
    ) -> None:
        send(client, QUEUE, "a1", "b1")
        put(client, lambda session, head: session._session.set_state(b"another program's"))

        run(client, desk)

        assert sorted(text for text, _ in desk.calls) == ["a1", "b1"]
        (told,) = of(events, SessionUnmarked)
        assert isinstance(told, SessionUnmarked)
        assert (told.queue, told.session_id) == (QUEUE, "a")
        assert "another program" in told.reason
        assert state(client) == SessionState(user=b"another program's", foreign=True)

    @pytest.mark.parametrize("operation", ["session.get_state", "session.set_state"])
    @pytest.mark.parametrize("step", [fails(ConnectionFailed), fails(OutcomeUnknown), loses()])
    def test_a_broker_that_does_not_answer_keeps_no_handler_waiting(
        self, client: QueueClient, script: Script, desk: Desk, events: list[Event], operation: str, step: Step
    ) -> None:
        send(client, QUEUE, "a1", "a2")
        script.then(operation, step)

        run(client, desk)

        assert desk.calls == [("a1", 1), ("a2", 1)]
        assert len(of(events, SessionUnmarked)) == 1
        assert len(script.calls(operation)) <= 2
        assert state(client) == SessionState(), "what may have been written is taken back"

    @pytest.mark.parametrize("operation", ["session.get_state", "session.set_state"])
    def test_a_session_that_is_lost_by_then_is_not_handled(
        self, client: QueueClient, script: Script, desk: Desk, operation: str
    ) -> None:
        script.then(operation, fails(SessionLeaseLost))
        send(client, QUEUE, "a1", "a2")

        run(client, desk)

        assert desk.calls == [("a1", 1), ("a2", 1)]
        assert len(script.calls("session.close")) == 2, "by the next holder"

    @pytest.mark.parametrize(
        ("queue", "capabilities"),
        [
            ("groups", {}),
            (QUEUE, {"counts_lost_sessions": True}),
            (QUEUE, {"session_state": False}),
        ],
    )
    def test_where_the_broker_counts_or_cannot_keep_it_nothing_is_asked(
        self, desk: Desk, queue: str, capabilities: dict[str, Any]
    ) -> None:
        script = Script()
        with scripted(script, URL, **capabilities) as client:
            send(client, queue, "a1")
            Worker(client, queue, desk).run_until_idle()

        assert desk.calls == [("a1", 1)]
        assert script.calls("session.get_state") == script.calls("session.set_state") == []


def test_a_run_that_fails_by_itself_counts_as_a_crash(
    client: QueueClient, clock: FakeClock, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(client, QUEUE, "a1")
    with ExitStack() as stack:
        broken = stack.enter_context(monkeypatch.context())
        broken.setattr("queue_runtime.worker.context.Context.judge", lambda *args, **how: 1 / 0)
        worker = stack.enter_context(Worker(client, QUEUE, desk))
        wait_until(lambda: worker.status().held == 0 and client.describe(QUEUE).leased == 0)
        worker.stop()

    clock.advance(60.0)
    assert state(client).mark is not None
