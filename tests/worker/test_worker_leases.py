"""Leases of what a worker holds: kept for as long as it takes, and a loss is told and obeyed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from queue_runtime import (
    QueueClient,
    Retry,
    StopReport,
    Worker,
)
from queue_runtime.errors import InvalidReceipt, LeaseLost, SessionLeaseLost
from queue_runtime.events import (
    Event,
    HandlerFailed,
    LostLease,
    MessageCompleted,
    SettlementFailed,
)
from queue_runtime.testing import FakeClock
from tests.fakes import Gate, Script, fails, scripted
from tests.worker.hands import ANY_QUEUE, SESSIONS, SOON, URL, Desk, of, send, wait_until
from tests.worker.resting import is_at_rest

RENEW = {"plain": "renew", "sessions": "session.renew", "groups": "renew"}
SETTLE = {"plain": "settle", "sessions": "session.settle", "groups": "settle"}


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def client(script: Script, clock: FakeClock, events: list[Event]) -> Iterator[QueueClient]:
    with scripted(script, URL, clock=clock, listeners=[events.append]) as made:
        yield made


def pass_renewing(clock: FakeClock, seconds: float, *, renewed: Callable[[], bool]) -> None:
    """Let time pass in steps that leave renewals, due with 15 seconds left, the time to be made."""
    for _ in range(int(seconds / 5.0)):
        clock.advance(5.0)
        wait_until(renewed)


def pass_at_rest(client: QueueClient, clock: FakeClock, seconds: float, *threads: threading.Thread) -> None:
    """Let time pass in steps of five seconds, each when all that is due is done, also by *threads*; one
    handler is stuck."""
    for _ in range(int(seconds / 5.0)):
        wait_until(lambda: is_at_rest(client, clock, *threads, stuck=1))
        clock.advance(5.0)
    wait_until(lambda: is_at_rest(client, clock, *threads, stuck=1))


def handlers_wait(clock: FakeClock) -> bool:
    """Whether a thread that handles waits for something that only another one can do."""
    threads = [t for t in threading.enumerate() if t.name.startswith("queue_runtime-worker")]
    return any(clock.is_parked(thread) for thread in threads)


class TestALongHandler:
    @ANY_QUEUE
    def test_of_ten_leases_finishes_once(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        desk.hold("a1")
        send(client, queue, "a1")

        with Worker(client, queue, desk), desk:
            desk.wait_for_calls("a1")
            pass_renewing(clock, 300.0, renewed=lambda: desk.leases[0].remaining() > 10.0)
            desk.let_go("a1")
            wait_until(lambda: bool(of(events, MessageCompleted)))

        assert desk.calls == [("a1", 1)]
        assert not desk.lost
        assert not of(events, LostLease)
        assert client.describe(queue).active == 0

    @ANY_QUEUE
    def test_is_ended_by_max_lease(
        self, queue: str, script: Script, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        """A handler that hangs must not keep a message from all others for ever."""
        desk.hold("a1")
        with scripted(script, URL, clock=clock, listeners=[events.append], max_lease=100.0) as client:
            send(client, queue, "a1", "a2")
            began = clock.monotonic()
            with Worker(client, queue, desk, concurrency=1), desk:
                desk.wait_for_calls("a1")
                pass_at_rest(client, clock, 60.0)  # renewed with half of it left
                assert (len(script.calls(RENEW[queue])), desk.leases[0].remaining()) == (4, 30.0)
                pass_at_rest(client, clock, 25.0)  # once more would be for 105 seconds in all
                assert (len(script.calls(RENEW[queue])), desk.leases[0].remaining()) == (4, 5.0)
                assert not of(events, LostLease)
                pass_at_rest(client, clock, 5.0)
                assert (len(of(events, LostLease)), desk.leases[0].lost) == (1, True)
                ended = desk.leases[0].deadline - began
                desk.let_go("a1")
                desk.wait_for(lambda: len(desk.calls) >= 2)

        assert ended == 90.0
        assert desk.lost == ["a1"]
        assert desk.calls[:2] == [("a1", 1), ("a1", 1)], "it comes again, before a2"

    @ANY_QUEUE
    def test_that_a_stop_waits_for_keeps_its_lease(
        self,
        client: QueueClient,
        queue: str,
        script: Script,
        clock: FakeClock,
        desk: Desk,
        events: list[Event],
    ) -> None:
        desk.hold("a1")
        send(client, queue, "a1")
        worker = Worker(client, queue, desk, concurrency=1)
        reports: list[StopReport] = []
        stopping = threading.Thread(target=lambda: reports.append(worker.stop(deadline=100.0)))

        with worker, desk:
            desk.wait_for_calls("a1")
            stopping.start()
            wait_until(lambda: worker.status().state == "stopping")
            pass_at_rest(client, clock, 60.0, stopping)  # two leases
            assert not desk.leases[0].lost
            desk.let_go("a1")
            stopping.join(SOON)

        [report] = reports
        assert (report.finished, report.completed, report.overdue, report.unknown) == (1, 1, 0, 0)
        assert len(script.calls(RENEW[queue])) == 4
        assert not of(events, LostLease)
        assert client.describe(queue).active == 0


class TestALoss:
    @ANY_QUEUE
    def test_that_the_broker_tells_is_told_while_the_handler_runs_and_its_result_is_not_settled(
        self, queue: str, script: Script, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        settled: list[list[tuple[str, ...]]] = []

        def look(event: Event) -> None:
            if isinstance(event, SettlementFailed):
                settled.append(script.calls(SETTLE[queue]))

        script.always(RENEW[queue], fails(SessionLeaseLost if queue == "sessions" else InvalidReceipt))
        desk.hold("a1")
        with scripted(script, URL, clock=clock, listeners=[events.append, look]) as client:
            send(client, queue, "a1", "a2")
            worker = Worker(client, queue, desk, concurrency=1)
            with worker, desk:
                desk.wait_for_calls("a1")
                clock.advance(15.0)
                wait_until(lambda: bool(of(events, LostLease)))
                assert desk.running == 1
                assert desk.leases[0].lost
                with pytest.raises(LeaseLost if queue == "plain" else SessionLeaseLost):
                    desk.leases[0].check()
                desk.let_go("a1")
                wait_until(lambda: bool(settled))
                assert worker.status().lost == 1

        assert settled == [[]]
        [told] = of(events, LostLease)
        assert isinstance(told, LostLease)
        assert (told.message_id is None, told.session_id) == (
            (False, None) if queue == "plain" else (True, "a")
        )

    @ANY_QUEUE
    def test_by_the_clock_is_told_and_its_result_is_not_settled(
        self,
        client: QueueClient,
        queue: str,
        clock: FakeClock,
        desk: Desk,
        events: list[Event],
        script: Script,
    ) -> None:
        """As after a process stood still: nobody has had the time to renew, or to hear of it."""
        script.always(RENEW[queue], fails(LeaseLost))
        desk.hold("a1")
        send(client, queue, "a1", "a2")
        worker = Worker(client, queue, desk, concurrency=1)

        with worker, desk:
            desk.wait_for_calls("a1")
            clock.advance(30.0)
            assert desk.leases[0].lost, "at once, whoever may be late to tell"
            wait_until(lambda: bool(of(events, LostLease)))
            desk.let_go("a1")
            wait_until(lambda: bool(of(events, SettlementFailed)))
            desk.wait_for(lambda: len(desk.calls) >= 3)

        assert desk.lost == ["a1"]
        assert desk.calls[:2] == [("a1", 1), ("a1", 1)], "it comes again, before a2"
        assert worker.status().lost == 1


class TestAHangingRenewal:
    def test_of_one_session_costs_the_others_nothing(
        self, client: QueueClient, clock: FakeClock, desk: Desk, script: Script, events: list[Event]
    ) -> None:
        desk.hold("a1", "b1", "c1")
        send(client, "sessions", "a1", "b1", "c1")

        with Gate() as gate:
            script.always("session.renew", lambda act: gate(act) if act.ids == ("a",) else act.run())
            with Worker(client, "sessions", desk), desk:
                desk.wait_for(lambda: desk.running == 3)
                by_text = {text: lease for (text, _), lease in zip(desk.calls, desk.leases, strict=True)}
                kept = [by_text["b1"], by_text["c1"]]
                pass_renewing(clock, 45.0, renewed=lambda: all(one.remaining() > 10.0 for one in kept))
                assert by_text["a1"].lost
                desk.let_go("a1", "b1", "c1")
                gate.open()

        assert [getattr(told, "session_id", None) for told in of(events, LostLease)] == ["a"]

    @SESSIONS
    def test_of_one_queue_costs_the_others_nothing(
        self,
        client: QueueClient,
        queue: str,
        clock: FakeClock,
        desk: Desk,
        script: Script,
        events: list[Event],
    ) -> None:
        desk.hold("a1", "b1")
        send(client, "plain", "a1")
        send(client, queue, "b1")

        with Gate() as gate:
            script.always("renew", lambda act: gate(act) if act.queue == "plain" else act.run())
            with Worker(client, "plain", desk), Worker(client, queue, desk), desk:
                desk.wait_for(lambda: desk.running == 2)
                by_text = {text: lease for (text, _), lease in zip(desk.calls, desk.leases, strict=True)}
                pass_renewing(clock, 45.0, renewed=lambda: by_text["b1"].remaining() > 10.0)
                assert by_text["a1"].lost
                desk.let_go("a1", "b1")
                gate.open()

        assert {getattr(told, "queue", None) for told in of(events, LostLease)} == {"plain"}

    def test_is_waited_for_before_a_message_is_given_back_with_its_backoff(
        self, client: QueueClient, clock: FakeClock, desk: Desk, script: Script, events: list[Event]
    ) -> None:
        """Else it would overwrite the visibility that the backoff sets."""
        desk.hold("a1")
        desk.fail["a1"] = [Retry(60.0)]
        send(client, "plain", "a1")

        with Gate() as gate, Worker(client, "plain", desk), desk:
            script.then("renew", gate)
            desk.wait_for_calls("a1")
            clock.advance(15.0)
            gate.wait_until_reached()
            desk.let_go("a1")
            wait_until(lambda: bool(of(events, HandlerFailed)) and handlers_wait(clock))
            assert script.calls("settle") == []
            gate.open()
            wait_until(lambda: len(script.calls("settle")) == 1 and client.describe("plain").leased == 0)
            clock.advance(55.0)

            assert client.receive("plain") == [], "the delay that was asked for is the one that counts"

    @SESSIONS
    def test_is_waited_for_before_a_session_is_given_back(
        self,
        client: QueueClient,
        queue: str,
        clock: FakeClock,
        desk: Desk,
        script: Script,
        events: list[Event],
    ) -> None:
        desk.fail["a1"] = [Retry(60.0)]
        send(client, queue, "a1", "a2")
        worker = Worker(client, queue, desk)
        worker.start()
        wait_until(lambda: bool(of(events, HandlerFailed)))
        stopping = threading.Thread(target=worker.stop)

        def given_back() -> list[tuple[str, ...]]:
            return script.calls("settle") + script.calls("session.close")

        with Gate() as gate:
            script.then(RENEW[queue], gate)
            clock.advance(15.0)
            gate.wait_until_reached()
            stopping.start()
            wait_until(lambda: handlers_wait(clock))
            assert given_back() == []
            gate.open()
        stopping.join(SOON)

        assert len(given_back()) >= 1
        assert client.accept_session(queue) is None, "the backoff goes on at the broker"
        clock.advance(45.0)
        assert client.accept_session(queue) is not None
