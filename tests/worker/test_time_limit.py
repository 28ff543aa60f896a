"""`time_limit`: a handler that runs for longer has lost its lease, is told, and is not interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from queue_runtime import HandlerPolicy, LeaseLost, QueueClient, ReceivedMessage, Reject, Worker, connect
from queue_runtime.events import Event, HandlerOverran, MessageCompleted, SettlementFailed
from queue_runtime.testing import FakeClock
from queue_runtime.worker.time_limit import TimeLimit
from tests.fakes import Script, scripted
from tests.worker.hands import ANY_QUEUE, SESSIONS, SOON, URL, Desk, of, send, wait_until
from tests.worker.resting import STEP, is_at_rest, let_pass

POLL = 3.0
LIMIT = 4.0
POLICY = HandlerPolicy(max_attempts=2, base=0.5, cap=0.5, time_limit=LIMIT)

RENEW = {"plain": "renew", "sessions": "session.renew", "groups": "renew"}


def overrun(
    client: QueueClient, clock: FakeClock, events: list[Event], stuck: Callable[[], int], times: int = 1
) -> None:
    """Let time pass until a handler, one of those *stuck*, has run for longer than it may so many *times*."""
    let_pass(client, clock, until=lambda: len(of(events, HandlerOverran)) == times, stuck=stuck)


@ANY_QUEUE
class TestAHandlerThatOverruns:
    def test_loses_its_lease_and_is_told_of(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        desk.hold("a1")
        send(client, queue, "a1")
        with Worker(client, queue, desk, policy=POLICY, poll=POLL) as worker:
            desk.wait_for_calls("a1")
            assert not desk.leases[0].lost

            overrun(client, clock, events, lambda: desk.running)

            with pytest.raises(LeaseLost, match=f"longer than {LIMIT:g} s, its time limit"):
                desk.leases[0].check()
            assert worker.status().handlers == 1, "nobody interrupts it"
            [told] = of(events, HandlerOverran)
            assert isinstance(told, HandlerOverran)
            assert (told.queue, told.session_id, told.attempt, told.limit) == (queue, "a", 1, LIMIT)
            desk.let_go("a1")

    def test_is_renewed_no_more(self, queue: str, clock: FakeClock, desk: Desk, events: list[Event]) -> None:
        script = Script()
        desk.hold("a1")
        with scripted(script, URL, clock=clock, listeners=[events.append]) as client:
            send(client, queue, "a1")
            with Worker(client, queue, desk, policy=POLICY, poll=POLL) as worker:
                desk.wait_for_calls("a1")
                overrun(client, clock, events, lambda: desk.running)
                assert worker.status().leases == 0
                clock.advance(25.0)
                assert script.calls(RENEW[queue]) == []
                desk.let_go("a1")

    def test_its_result_is_not_settled_and_it_is_handled_again(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        desk.hold("a1")
        send(client, queue, "a1")
        with Worker(client, queue, desk, policy=POLICY, poll=POLL) as worker:
            desk.wait_for_calls("a1")
            overrun(client, clock, events, lambda: desk.running)
            desk.let_go("a1")
            wait_until(lambda: bool(of(events, SettlementFailed)))
            assert worker.status().lost == 1

            let_pass(client, clock, until=lambda: worker.status().completed == 1)

        assert desk.calls == [("a1", 1), ("a1", 2)], "it has had an attempt"
        [completed] = of(events, MessageCompleted)
        assert isinstance(completed, MessageCompleted)
        assert not completed.repeated

    @pytest.mark.parametrize("error", [RuntimeError("late"), Reject("Late")], ids=["raises", "rejects"])
    def test_what_it_raises_after_that_is_one_attempt_and_settles_nothing(
        self,
        client: QueueClient,
        queue: str,
        error: Exception,
        clock: FakeClock,
        desk: Desk,
        events: list[Event],
    ) -> None:
        desk.fail["a1"] = [error]
        desk.hold("a1")
        send(client, queue, "a1")
        with Worker(client, queue, desk, policy=POLICY, poll=POLL) as worker:
            desk.wait_for_calls("a1")
            overrun(client, clock, events, lambda: desk.running)
            desk.let_go("a1")

            let_pass(client, clock, until=lambda: worker.status().completed == 1)

        assert desk.calls == [("a1", 1), ("a1", 2)]
        assert client.dead_letters(queue).list() == []

    def test_is_dead_lettered_without_running_after_its_last_attempt(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        go_on = [threading.Event(), threading.Event()]
        inside: list[int] = []

        def handler(message: ReceivedMessage) -> None:
            desk(message)
            if message.text == "a1":
                inside.append(message.attempt)
                assert go_on[message.attempt - 1].wait(SOON)
                inside.pop()

        send(client, queue, "a1", "a2")
        with Worker(client, queue, handler, policy=POLICY, poll=POLL) as worker:
            for number, event in enumerate(go_on, 1):
                overrun(client, clock, events, lambda: len(inside), number)
                event.set()
            let_pass(client, clock, until=lambda: worker.status().dead_lettered == 1)
            let_pass(client, clock, until=lambda: worker.status().completed == 1)

        assert [call for call in desk.calls if call[0] == "a1"] == [("a1", 1), ("a1", 2)]
        [letter] = client.dead_letters(queue).list()
        assert (letter.text, letter.dead_letter.reason) == ("a1", "MaxAttemptsExceeded")
        assert "2 attempts" in (letter.dead_letter.description or "")

    def test_that_settles_its_message_by_itself_may_tidy_up(
        self, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        def handler(message: ReceivedMessage) -> None:
            owner = message.owner
            with_runtime = client if queue == "plain" else owner
            with_runtime.complete(message)  # type: ignore[attr-defined]
            desk(message)

        desk.hold("a1")
        with scripted(Script(), URL, clock=clock, listeners=[events.append]) as client:
            send(client, queue, "a1")
            with Worker(client, queue, handler, policy=POLICY, poll=POLL) as worker:
                desk.wait_for_calls("a1")
                clock.block_until(1)
                clock.advance(2 * LIMIT)
                desk.let_go("a1")
                wait_until(lambda: worker.status().completed == 1)

        assert of(events, HandlerOverran) == []


def _calls(desk: Desk, text: str) -> int:
    return len([call for call in desk.calls if call[0] == text])


@ANY_QUEUE
class TestAHandlerThatEndsInTime:
    def test_is_not_touched(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        desk.hold("a1")
        send(client, queue, "a1")
        with Worker(client, queue, desk, policy=POLICY, poll=POLL, session_idle=1000.0) as worker:
            desk.wait_for_calls("a1")
            clock.advance(LIMIT - 0.5)
            desk.let_go("a1")
            wait_until(lambda: worker.status().completed == 1)

            clock.advance(2 * LIMIT)

            assert of(events, HandlerOverran) == []
            if queue == "sessions":
                assert not desk.leases[0].lost, "the session goes on"

    def test_and_fails_is_not_touched_while_it_waits_for_its_retry(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        patient = HandlerPolicy(max_attempts=2, base=20.0, cap=20.0, time_limit=LIMIT)
        desk.fail["a1"] = [RuntimeError("once")]
        send(client, queue, "a1")
        with Worker(client, queue, desk, policy=patient, poll=POLL) as worker:
            let_pass(client, clock, until=lambda: worker.status().completed == 1)

        assert desk.calls == [("a1", 1), ("a1", 2)]
        assert of(events, HandlerOverran) == []


@SESSIONS
class TestBehindAStuckHandler:
    """The broker hands its session out again, and it may come to the same process."""

    def test_nothing_of_its_session_is_handled_here(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        desk.hold("a1")
        send(client, queue, "a1", "a2", "b1")
        with Worker(client, queue, desk, policy=POLICY, poll=POLL, session_idle=0.0) as worker:
            overrun(client, clock, events, lambda: desk.running)
            let_pass(client, clock, until=lambda: worker.status().held == 2, stuck=lambda: desk.running)
            let_pass(client, clock, until=lambda: clock.monotonic() > 1200.0, stuck=lambda: desk.running)

            assert sorted(desk.calls) == [("a1", 1), ("b1", 1)]
            desk.let_go("a1")
            let_pass(client, clock, until=lambda: worker.status().completed == 3)

        assert desk.calls[2:] == [("a1", 2), ("a2", 1)]

    def test_its_session_goes_to_another_process_before_long(
        self, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        """It goes back with each lease; both wait for it, and chance says who gets it."""
        url = f"memory://behind-a-stuck-handler-of-{queue}?queues={queue}:{queue}&lease=30"
        elsewhere = Desk()
        desk.hold("a1")
        with ExitStack() as stack:
            client = stack.enter_context(connect(url, clock=clock, listeners=[events.append]))
            other = stack.enter_context(connect(url, clock=clock))
            stack.callback(desk.let_go, "a1")
            send(client, queue, "a1", "a2")
            worker = Worker(client, queue, desk, policy=POLICY, poll=POLL)
            worker.start()
            overrun(client, clock, events, lambda: desk.running)
            let_pass(client, clock, until=lambda: worker.status().held == 2, stuck=lambda: desk.running)
            Worker(other, queue, elsewhere, poll=POLL).start()
            for _ in range(600):
                wait_until(
                    lambda: is_at_rest(other, clock) and is_at_rest(client, clock, stuck=desk.running)
                )
                if len(elsewhere.calls) == 2:
                    break
                clock.advance(STEP)

            assert elsewhere.calls == [("a1", 1), ("a2", 1)]
            assert desk.calls == [("a1", 1)]

    def test_a_stop_gives_its_session_back_at_once(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        desk.hold("a1")
        send(client, queue, "a1")
        worker = Worker(client, queue, desk, policy=POLICY, poll=POLL)
        worker.start()
        overrun(client, clock, events, lambda: desk.running)
        let_pass(client, clock, until=lambda: worker.status().held == 2, stuck=lambda: desk.running)
        stopping = threading.Thread(target=worker.stop)
        stopping.start()

        wait_until(lambda: worker.status().held == 1)

        assert client.accept_session(queue) is not None
        desk.let_go("a1")
        stopping.join(SOON)


def test_a_time_that_is_up_in_the_instant_in_which_the_handler_ends_takes_nothing(
    client: QueueClient, clock: FakeClock, events: list[Event]
) -> None:
    send(client, "plain", "a1")
    [message] = client.receive("plain")
    limit = TimeLimit(client.runtime(), LIMIT, message)
    with limit:
        pass

    limit._exceed()  # the scheduler had begun it, and comes to it only now

    assert (limit.exceeded, message.lease.lost, of(events, HandlerOverran)) == (False, False, [])
    client.complete(message)


@SESSIONS
def test_each_message_of_a_session_has_the_time_for_itself(
    client: QueueClient, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
) -> None:
    texts = ("a1", "a2", "a3")
    desk.hold(*texts)
    send(client, queue, *texts)
    with Worker(client, queue, desk, policy=POLICY, poll=POLL) as worker:
        for number, text in enumerate(texts, 1):
            desk.wait_for(lambda number=number: len(desk.calls) == number)  # type: ignore[misc]
            clock.advance(LIMIT - 1.0)
            desk.let_go(text)
        wait_until(lambda: worker.status().completed == 3)

    assert of(events, HandlerOverran) == []


def test_without_a_limit_a_handler_takes_its_time(
    client: QueueClient, clock: FakeClock, desk: Desk, events: list[Event]
) -> None:
    desk.hold("a1")
    send(client, "plain", "a1")
    with Worker(client, "plain", desk, poll=POLL) as worker:
        desk.wait_for_calls("a1")
        for _ in range(10):
            wait_until(lambda: desk.leases[0].remaining() > 15.0)  # renewed, if it was due
            clock.advance(10.0)
        desk.let_go("a1")
        wait_until(lambda: worker.status().completed == 1)

    assert (desk.lost, of(events, HandlerOverran)) == ([], [])
