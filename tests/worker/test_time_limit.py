"""`time_limit`: a handler that runs for longer has lost its lease, is told, and is not interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import pytest

from queue_runtime import (
    BreakerPolicy,
    HandlerPolicy,
    LeaseLost,
    Message,
    QueueClient,
    ReceivedMessage,
    Reject,
    StopReport,
    Worker,
    connect,
)
from queue_runtime.events import (
    Event,
    HandlerOverran,
    MessageCompleted,
    ProcessingPaused,
    ProcessingResumed,
    SettlementFailed,
)
from queue_runtime.testing import FakeClock
from queue_runtime.worker.session_run import SessionRun
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
        with Worker(client, queue, desk, policy=POLICY, poll=POLL) as worker, desk:
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
            with Worker(client, queue, desk, policy=POLICY, poll=POLL) as worker, desk:
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
        with Worker(client, queue, desk, policy=POLICY, poll=POLL) as worker, desk:
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
        with Worker(client, queue, desk, policy=POLICY, poll=POLL) as worker, desk:
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
        assert letter.dead_letter.attempts == 2
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
            with Worker(client, queue, handler, policy=POLICY, poll=POLL) as worker, desk:
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
        with Worker(client, queue, desk, policy=POLICY, poll=POLL, session_idle=1000.0) as worker, desk:
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
        with ExitStack() as stack:
            worker = stack.enter_context(
                Worker(client, queue, desk, policy=POLICY, poll=POLL, session_idle=0.0)
            )
            stack.callback(desk.let_go, "a1")
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
        url = f"memory://behind-a-stuck-handler-of-{queue}?queues={queue}:{queue}&lease=30"
        policy = replace(POLICY, max_hold=30.0)
        elsewhere = Desk()
        desk.hold("a1")
        with ExitStack() as stack:
            client = stack.enter_context(connect(url, clock=clock, listeners=[events.append]))
            other = stack.enter_context(connect(url, clock=clock))
            stack.callback(desk.let_go, "a1")
            send(client, queue, "a1", "a2")
            worker = Worker(client, queue, desk, policy=policy, poll=POLL)
            worker.start()
            overrun(client, clock, events, lambda: desk.running)
            let_pass(client, clock, until=lambda: worker.status().held == 2, stuck=lambda: desk.running)
            Worker(other, queue, elsewhere, poll=7.0).start()
            for _ in range(600):  # it may be between two polls at the moment
                wait_until(lambda: is_at_rest(other, clock) and is_at_rest(client, clock, stuck=desk.running))
                if len(elsewhere.calls) == 2:
                    break
                clock.advance(STEP)

            assert elsewhere.calls == [("a1", 1), ("a2", 1)]
            assert desk.calls == [("a1", 1)]

    def test_its_session_goes_to_another_process_also_when_its_worker_was_started_anew(
        self, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        url = f"memory://behind-one-given-up-of-{queue}?queues={queue}:{queue}&lease=30"
        elsewhere = Desk()
        desk.hold("a1")
        with ExitStack() as stack:
            client = stack.enter_context(connect(url, clock=clock, listeners=[events.append]))
            other = stack.enter_context(connect(url, clock=clock))
            stack.callback(desk.let_go, "a1")
            send(client, queue, "a1")
            worker = Worker(client, queue, desk, policy=replace(POLICY, max_hold=30.0), poll=POLL)
            worker.start()
            overrun(client, clock, events, lambda: desk.running)
            stopping = threading.Thread(target=worker.stop, args=(1.0,))
            stopping.start()
            wait_until(lambda: clock.is_parked(stopping))
            clock.advance(1.0)
            stopping.join(SOON)
            worker.start()
            let_pass(client, clock, until=lambda: worker.status().held == 1, stuck=lambda: desk.running)
            Worker(other, queue, elsewhere, poll=7.0).start()

            for _ in range(600):
                wait_until(lambda: is_at_rest(other, clock) and is_at_rest(client, clock, stuck=desk.running))
                if elsewhere.calls:
                    break
                clock.advance(STEP)

            assert elsewhere.calls == [("a1", 1)]

    def test_its_session_goes_back_the_more_seldom_the_longer_it_lasts(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        """Each time is a delivery more for the broker, which has a limit of its own."""
        desk.hold("a1")
        send(client, queue, "a1")
        policy = replace(POLICY, max_hold=30.0)
        with ExitStack() as stack:
            worker = stack.enter_context(Worker(client, queue, desk, policy=policy, poll=POLL))
            stack.callback(desk.let_go, "a1")
            overrun(client, clock, events, lambda: desk.running)
            hour = clock.monotonic() + 3600.0
            while clock.monotonic() < hour:
                wait_until(lambda: is_at_rest(client, clock, stuck=desk.running))
                clock.advance(STEP)
            desk.let_go("a1")
            let_pass(client, clock, until=lambda: worker.status().completed == 1)

        assert [attempt for _, attempt in desk.calls] == [1, 2]
        if queue == "groups":
            assert desk.deliveries[-1] <= 10

    def test_other_sessions_flow_past_it(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        desk.hold("a1")
        send(client, queue, "a1", "a2")
        with ExitStack() as stack:
            worker = stack.enter_context(
                Worker(client, queue, desk, policy=POLICY, poll=POLL, concurrency=2, session_idle=0.0)
            )
            stack.callback(desk.let_go, "a1")
            overrun(client, clock, events, lambda: desk.running)
            let_pass(client, clock, until=lambda: worker.status().held == 2, stuck=lambda: desk.running)

            send(client, queue, "b1", "c1")
            let_pass(client, clock, until=lambda: worker.status().completed == 2, stuck=lambda: desk.running)

        assert sorted(text for text, _ in desk.calls[:3]) == ["a1", "b1", "c1"]

    def test_a_stop_gives_its_session_back_at_once(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        desk.hold("a1")
        send(client, queue, "a1")
        worker = Worker(client, queue, desk, policy=POLICY, poll=POLL)
        worker.start()
        with ExitStack() as stack:
            stack.callback(desk.let_go, "a1")
            overrun(client, clock, events, lambda: desk.running)
            let_pass(client, clock, until=lambda: worker.status().held == 2, stuck=lambda: desk.running)
            stopping = threading.Thread(target=worker.stop)
            stopping.start()

            wait_until(lambda: worker.status().held == 1)

            assert client.accept_session(queue) is not None
        stopping.join(SOON)


@ANY_QUEUE
def test_a_pause_ends_though_what_is_tried_first_stands_behind_a_stuck_handler(
    client: QueueClient, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
) -> None:
    down = threading.Event()

    def handler(message: ReceivedMessage) -> None:
        if message.session_id != "a" and down.is_set():
            raise ConnectionError("down")
        desk(message)

    policy = replace(
        POLICY,
        max_hold=6.0,
        downstream=(ConnectionError,),
        breaker=BreakerPolicy(failure_rate=0.8, minimum_calls=3, open_for=5.0),
    )
    down.set()
    desk.hold("a1")
    send(client, queue, "a1", "a2", "a3")
    with ExitStack() as stack:
        worker = stack.enter_context(
            Worker(client, queue, handler, policy=policy, poll=POLL, session_idle=0.0)
        )
        stack.callback(desk.let_go, "a1")
        overrun(client, clock, events, lambda: desk.running)
        send(client, queue, "b1", "c1", "d1", "e1")
        let_pass(client, clock, until=lambda: bool(of(events, ProcessingPaused)), stuck=lambda: desk.running)
        down.clear()

        let_pass(client, clock, until=lambda: bool(of(events, ProcessingResumed)), stuck=lambda: desk.running)
        let_pass(client, clock, until=lambda: worker.status().completed >= 4, stuck=lambda: desk.running)


def test_on_a_queue_without_order_the_next_of_its_session_need_not_wait_for_it(
    client: QueueClient, clock: FakeClock, desk: Desk, events: list[Event]
) -> None:
    """Or it would keep messages of that session here, and in the end nothing else would be fetched."""
    desk.hold("a1")
    send(client, "plain", "a1")
    with ExitStack() as stack:
        worker = stack.enter_context(Worker(client, "plain", desk, policy=POLICY, poll=POLL, concurrency=2))
        stack.callback(desk.let_go, "a1")
        desk.wait_for_calls("a1")
        send(client, "plain", *(f"a{n}" for n in range(2, 10)), "b1")

        let_pass(client, clock, until=lambda: worker.status().completed == 9, stuck=lambda: desk.running)

        assert desk.calls[0] == ("a1", 1)


@SESSIONS
def test_a_stop_before_a_session_was_started_leaves_no_lease_of_it(
    client: QueueClient, queue: str, clock: FakeClock, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = threading.Event(), threading.Event()
    start = SessionRun.start

    def late(self: SessionRun) -> None:
        reached.set()
        assert go_on.wait(SOON)
        start(self)

    monkeypatch.setattr(SessionRun, "start", late)
    send(client, queue, "a1")
    worker = Worker(client, queue, desk, poll=POLL)
    worker.start()
    assert reached.wait(SOON)
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    wait_until(lambda: worker.status().held == 0)

    go_on.set()

    stopping.join(SOON)
    assert not stopping.is_alive()
    assert (len(client.runtime().leases), desk.calls) == (0, [])


def test_one_that_fails_after_that_is_waited_for_by_run_until_idle(
    client: QueueClient, clock: FakeClock, events: list[Event]
) -> None:
    """It comes again when its lease ends, whatever the handler raises in the end."""
    policy = HandlerPolicy(time_limit=LIMIT, downstream=(ConnectionError,), base=1.0, cap=1.0)
    calls: list[int] = []
    go_on = threading.Event()

    def handler(message: ReceivedMessage) -> None:
        calls.append(message.attempt)
        if len(calls) == 1:
            assert go_on.wait(SOON)
            raise ConnectionError("down")

    client.send("plain", Message.of("a1"))
    reports: list[StopReport] = []
    idling = threading.Thread(
        target=lambda: reports.append(Worker(client, "plain", handler, policy=policy).run_until_idle())
    )
    idling.start()
    wait_until(lambda: calls == [1])
    clock.block_until(2)
    clock.advance(LIMIT)
    wait_until(lambda: bool(of(events, HandlerOverran)))
    go_on.set()
    for _ in range(200):
        if reports:
            break
        clock.advance(1.0)
        idling.join(0.02)
    idling.join(SOON)

    assert calls == [1, 2]
    assert (reports[0].completed, reports[0].reason) == (1, "idle")


def test_a_handler_that_settles_by_itself_and_tidies_up_for_long_pauses_nothing(
    client: QueueClient, clock: FakeClock, desk: Desk, events: list[Event]
) -> None:
    def handler(message: ReceivedMessage) -> None:
        client.complete(message)
        desk(message)

    policy = replace(POLICY, breaker=BreakerPolicy(minimum_calls=1, failure_rate=0.5))
    desk.hold("a1")
    send(client, "plain", "a1")
    with Worker(client, "plain", handler, policy=policy, poll=POLL) as worker:
        desk.wait_for_calls("a1")
        clock.block_until(1)
        clock.advance(2 * LIMIT)
        desk.let_go("a1")
        wait_until(lambda: worker.status().held == 0)

    assert of(events, ProcessingPaused) == []


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
    with Worker(client, queue, desk, policy=POLICY, poll=POLL) as worker, desk:
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
    with Worker(client, "plain", desk, poll=POLL) as worker, desk:
        desk.wait_for_calls("a1")
        for _ in range(10):
            wait_until(lambda: desk.leases[0].remaining() > 15.0)  # renewed, if it was due
            clock.advance(10.0)
        desk.let_go("a1")
        wait_until(lambda: worker.status().completed == 1)

    assert (desk.lost, of(events, HandlerOverran)) == ([], [])
