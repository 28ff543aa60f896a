"""Stops: what runs finishes, what was not started goes back, nobody is waited for beyond the deadline."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from typing import Any

import pytest

from queue_runtime import (
    QueueClient,
    Retry,
    StopReport,
    Worker,
    connect,
)
from queue_runtime.errors import (
    ConfigurationError,
    InvalidArgument,
)
from queue_runtime.events import (
    Event,
    HandlerFailed,
    WorkerStopped,
)
from queue_runtime.testing import FakeClock
from queue_runtime.worker.in_hand import InHand
from queue_runtime.worker.message_run import MessageRun
from tests.fakes import Gate, Script, scripted
from tests.worker.hands import ANY_QUEUE, SESSIONS, SOON, URL, Desk, left_over, of, send, wait_until


class TestStopping:
    @ANY_QUEUE
    def test_stop_lets_a_running_handler_finish_and_releases_the_rest(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk
    ) -> None:
        desk.hold("a1")
        send(client, queue, "a1", "a2", "a3")
        worker = Worker(client, queue, desk)
        worker.start()
        desk.wait_for(lambda: desk.running == 1)
        reports: list[StopReport] = []
        stopping = threading.Thread(target=lambda: reports.append(worker.stop()))
        stopping.start()
        wait_until(lambda: clock.is_parked(stopping))  # it has told all that are in hand

        desk.let_go("a1")
        stopping.join(SOON)

        (report,) = reports
        assert (report.finished, report.overdue, report.unknown, report.threads_left) == (1, 0, 0, ())
        assert [text for text, _ in desk.calls] == ["a1"]
        now = client.describe(queue)
        assert (now.active, now.leased) == (2, 0), "free at once"

    def test_its_own_poll_is_called_off_before_anything_is_released_that_it_could_take(
        self, client: QueueClient, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        order: list[str] = []
        provider = client.runtime().provider
        wake, stop = provider.wake, MessageRun.stop

        def noted_wake(queue: str) -> None:
            order.append("wake")
            wake(queue)

        def noted_stop(run: MessageRun) -> None:
            order.append("stop")
            stop(run)

        monkeypatch.setattr(provider, "wake", noted_wake)
        monkeypatch.setattr(MessageRun, "stop", noted_stop)
        desk.hold("a1")
        send(client, "plain", "a1", "a2")
        worker = Worker(client, "plain", desk)
        worker.start()
        desk.wait_for_calls("a1")

        worker.stop(deadline=0.0)

        assert order[0] == "wake"
        assert "stop" in order

    @SESSIONS
    def test_a_head_that_waits_for_its_retry_goes_back_with_its_backoff(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        desk.fail["a1"] = [Retry(60.0)]
        send(client, queue, "a1", "a2")
        worker = Worker(client, queue, desk)
        worker.start()
        wait_until(lambda: bool(of(events, HandlerFailed)))

        report = worker.stop()

        assert report.released == 1
        assert client.accept_session(queue) is None, "the backoff goes on at the broker"
        clock.advance(60.0)
        session = client.accept_session(queue)
        assert session is not None
        assert session.receive(max_messages=1)[0].text == "a1"

    @ANY_QUEUE
    def test_past_the_deadline_a_stuck_handler_is_told_and_reported(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk
    ) -> None:
        desk.hold("a1")
        send(client, queue, "a1")
        worker = Worker(client, queue, desk)
        worker.start()
        desk.wait_for_calls("a1")
        reports: list[StopReport] = []
        stopping = threading.Thread(target=lambda: reports.append(worker.stop(deadline=5.0)))
        stopping.start()
        wait_until(lambda: clock.is_parked(stopping) and not any("fetch" in name for name in left_over()))

        clock.advance(5.0)
        stopping.join(SOON)

        (report,) = reports
        assert (report.finished, report.overdue) == (0, 1)
        assert len(report.threads_left) == 1
        assert report.threads_left[0].startswith("queue_runtime-worker")
        desk.let_go("a1")
        wait_until(lambda: desk.lost == ["a1"])

    def test_a_second_stop_answers_the_same(self, client: QueueClient, desk: Desk) -> None:
        worker = Worker(client, "plain", desk)
        worker.start()

        assert worker.stop() == worker.stop()

    def test_closing_the_client_stops_its_workers(self, client: QueueClient, desk: Desk) -> None:
        worker = Worker(client, "plain", desk)
        worker.start()

        client.close()

        assert worker.status().state == "stopped"

    def test_a_stopped_worker_starts_again(self, client: QueueClient, desk: Desk) -> None:
        worker = Worker(client, "plain", desk)
        with worker:
            send(client, "plain", "a1")
            desk.wait_for_calls("a1")

        with worker:
            send(client, "plain", "a2")
            desk.wait_for_calls("a1", "a2")

    def test_a_worker_that_runs_is_not_started_twice(self, client: QueueClient, desk: Desk) -> None:
        with (
            Worker(client, "plain", desk) as worker,
            pytest.raises(ConfigurationError, match="running already"),
        ):
            worker.start()


def test_a_deadline_that_is_no_number_is_refused_before_anything_is_stopped(
    client: QueueClient, desk: Desk
) -> None:
    worker = Worker(client, "plain", desk)
    worker.start()
    wrong: Any = "5"

    for act in (worker.stop, lambda deadline: worker.run(deadline=deadline)):
        with pytest.raises(InvalidArgument, match="deadline must be a number of seconds, it is '5'"):
            act(wrong)
    with pytest.raises(InvalidArgument, match="wait must be a number of seconds"):
        worker.run_until_idle(wait=wrong)

    assert worker.status().state == "running"
    assert worker.stop(-1.0).reason == "asked"


class TestTheLog:
    def test_says_why_a_run_stopped_and_how_it_went(
        self, events: list[Event], desk: Desk, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, logger="queue_runtime")
        with connect(URL, listeners=[events.append]) as client:
            send(client, "plain", "a1")
            worker = Worker(client, "plain", desk)
            running = threading.Thread(target=worker.run)
            running.start()
            desk.wait_for_calls("a1")
            wait_until(lambda: worker.status().completed == 1)

            worker._on_signal(15, None)
            running.join(SOON)

        (told,) = of(events, WorkerStopped)
        assert isinstance(told, WorkerStopped)
        assert (told.reason, told.text, told.completed, told.overdue) == ("asked", "SIGTERM", 1, 0)
        assert [r.levelname for r in caplog.records if "WorkerStopped" in r.getMessage()] == ["INFO"]
        assert "worker on 'plain' stops: 25 s for handlers, running: 0" in caplog.text

    def test_warns_of_a_handler_that_was_overdue_and_has_a_line_for_the_second_signal(
        self, events: list[Event], desk: Desk, caplog: pytest.LogCaptureFixture
    ) -> None:
        with connect(URL, listeners=[events.append]) as client:
            desk.hold("a1")
            send(client, "plain", "a1")
            worker = Worker(client, "plain", desk)
            running = threading.Thread(target=worker.run)
            running.start()
            desk.wait_for(lambda: desk.running == 1)
            worker._on_signal(15, None)
            wait_until(lambda: worker.status().state == "stopping")

            worker._on_signal(2, None)
            running.join(SOON)

        (told,) = of(events, WorkerStopped)
        assert isinstance(told, WorkerStopped)
        assert (told.text, told.overdue, len(told.threads_left)) == ("SIGTERM", 1, 1)
        assert [r.levelname for r in caplog.records if "WorkerStopped" in r.getMessage()] == ["WARNING"]
        assert (
            caplog.text.count("worker on 'plain': a second signal, SIGINT: nothing is waited for any more")
            == 1
        )

    def test_is_told_once_however_often_a_worker_is_stopped(
        self, client: QueueClient, events: list[Event], desk: Desk
    ) -> None:
        worker = Worker(client, "plain", desk)
        worker.start()

        worker.stop()
        worker.stop()
        assert [event.text for event in of(events, WorkerStopped)] == ["stop() was called"]  # type: ignore[attr-defined]

        worker.run_until_idle()
        assert [event.reason for event in of(events, WorkerStopped)] == ["asked", "idle"]  # type: ignore[attr-defined]


def test_a_worker_that_ends_with_its_client_is_told_of_too(
    clock: FakeClock, events: list[Event], desk: Desk
) -> None:
    with connect(URL, clock=clock, listeners=[events.append]) as client:
        Worker(client, "plain", desk).start()

    assert [event.text for event in of(events, WorkerStopped)] == ["its client was closed"]  # type: ignore[attr-defined]


def test_closing_a_client_takes_no_longer_than_it_was_given_and_waits_for_no_stuck_handler(
    clock: FakeClock, desk: Desk
) -> None:
    others = set(left_over())
    desk.hold("a1")
    with connect(URL, clock=clock) as client:
        send(client, "plain", "a1")
        worker = Worker(client, "plain", desk)
        worker.start()
        desk.wait_for_calls("a1")
        closing = threading.Thread(target=lambda: client.close(timeout=5.0))
        closing.start()
        wait_until(lambda: clock.is_parked(closing))

        clock.advance(5.0)
        closing.join(SOON)

        assert not closing.is_alive()
        assert worker.status().state == "stopped"
        desk.let_go("a1")
        wait_until(lambda: others.issuperset(left_over()))


def test_the_rest_of_a_session_that_a_stop_gives_back_is_reported(
    client: QueueClient, clock: FakeClock, desk: Desk
) -> None:
    queue = "groups"  # of a broker's own sessions nobody knows whether there is a rest
    desk.hold("a1")
    send(client, queue, "a1", "a2", "a3")
    worker = Worker(client, queue, desk)
    worker.start()
    desk.wait_for_calls("a1")
    reports: list[StopReport] = []
    stopping = threading.Thread(target=lambda: reports.append(worker.stop()))
    stopping.start()
    wait_until(lambda: clock.is_parked(stopping))  # it has told all that are in hand
    desk.let_go("a1")
    stopping.join(SOON)

    assert reports[0].finished == 1
    assert reports[0].released >= 1


def test_a_broker_that_does_not_answer_to_what_is_released_holds_no_stop_beyond_its_deadline(
    clock: FakeClock, desk: Desk
) -> None:
    script = Script()
    with Gate() as gate, scripted(script, URL, clock=clock) as client, ExitStack() as stack:
        stack.callback(desk.let_go, "a1")
        desk.hold("a1")
        send(client, "groups", "a1", "b1", "c1", "d1")
        worker = Worker(client, "groups", desk, concurrency=1)
        worker.start()
        desk.wait_for_calls("a1")
        assert client.runtime().dispatcher("groups")._fetched, "more came than is wanted"
        script.always("settle", gate)

        stopping = threading.Thread(target=worker.stop, args=(2.0,))
        stopping.start()

        gate.wait_until_reached()
        wait_until(lambda: clock.is_parked(stopping))
        clock.advance(2.0)
        wait_until(lambda: not stopping.is_alive() or clock.is_parked(stopping))
        clock.advance(0.5)
        stopping.join(SOON)
        assert not stopping.is_alive()
        gate.open()


def test_a_message_given_back_before_its_run_began_is_not_renewed(client: QueueClient, desk: Desk) -> None:
    send(client, "plain", "a1")
    worker = Worker(client, "plain", desk)
    start = MessageRun.start

    def late(self: MessageRun) -> None:
        self.stop()  # a stop comes between the noting of the run and its start
        wait_until(lambda: client.describe("plain").leased == 0)
        start(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MessageRun, "start", late)
        patch.setattr(InHand, "stopping", False)
        with worker:
            wait_until(lambda: client.describe("plain").active == 1)
            assert worker.status().leases == 0


def test_a_signal_handler_takes_no_lock(client: QueueClient, desk: Desk) -> None:
    """It interrupts the main thread wherever that is: who holds a lock there could never give it back."""
    with Worker(client, "plain", desk) as worker:
        work = worker._work
        assert work is not None
        interrupted = threading.Thread(target=worker._on_signal, args=(15, None), daemon=True)

        with worker._changed, work._stop_lock, work.in_hand._changed:
            interrupted.start()
            interrupted.join(SOON)
            returned = not interrupted.is_alive()

        assert (returned, worker._signals) == (True, [15])
