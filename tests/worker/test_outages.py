"""A broker that is away: at the start, later, for too long, and while the worker is to stop."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from queue_runtime import HandlerPolicy, QueueClient, StopReport, Worker
from queue_runtime.breaker import BreakerPolicy
from queue_runtime.errors import CircuitOpen, ConfigurationError, ConnectionFailed, QueueNotFound
from queue_runtime.events import Event, FetchFailed, ProcessingPaused, WorkerStopped
from queue_runtime.testing import FakeClock
from queue_runtime.worker.fetcher import JITTER
from tests.fakes import Script, fails, scripted
from tests.worker import resting
from tests.worker.hands import (
    ANY_QUEUE,
    FETCH,
    SETTLE,
    SOON,
    URL,
    Desk,
    of,
    send,
    wait_until,
)

POLL = 3.0
AWAY = 60.0


RUN = "outage-run"

others: set[threading.Thread] = set()
"""Those of other tests, which may have left some to their end."""


@pytest.fixture(autouse=True)
def _note_others() -> None:
    others.clear()
    others.update(threading.enumerate())


def let_pass(client: QueueClient, clock: FakeClock, *, until: Callable[[], bool]) -> None:
    """Three seconds at a time, whenever nobody, `run` included, has anything to do before."""

    runs = [thread for thread in set(threading.enumerate()) - others if thread.name == RUN]
    resting.let_pass(client, clock, *runs, until=until)


class Running:
    """A worker's `run` on a thread of its own."""

    def __init__(self, worker: Worker, run: Callable[[], StopReport] | None = None) -> None:
        self.worker = worker
        self.raised: BaseException | None = None
        self._report: StopReport | None = None
        self._run = run or worker.run
        self.thread = threading.Thread(target=self._go, name=RUN, daemon=True)
        self.thread.start()

    def _go(self) -> None:
        try:
            self._report = self._run()
        except BaseException as exc:  # the test looks at it
            self.raised = exc

    @property
    def ended(self) -> bool:
        return not self.thread.is_alive()

    def report(self) -> StopReport:
        self.thread.join(SOON)
        assert self.ended, "it goes on"
        assert self._report is not None, self.raised
        return self._report


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def client(script: Script, clock: FakeClock, events: list[Event]) -> Iterator[QueueClient]:
    with scripted(script, URL, clock=clock, listeners=[events.append]) as made:
        yield made


def go_away(script: Script, *operations: str) -> None:
    for operation in operations or ("describe", "receive", "accept_sessions"):
        script.always(operation, fails(ConnectionFailed))


def come_back(script: Script) -> None:
    for operation in ("describe", "receive", "accept_sessions"):
        script.always(operation)


def lines(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(f"{record.levelname} {record.getMessage()}" for record in caplog.records)


@ANY_QUEUE
class TestALostBroker:
    def test_is_given_up_after_so_many_seconds_without_an_answer(
        self,
        client: QueueClient,
        queue: str,
        script: Script,
        clock: FakeClock,
        desk: Desk,
        events: list[Event],
    ) -> None:
        worker = Worker(client, queue, desk, poll=POLL, give_up_after=AWAY)
        running = Running(worker)
        wait_until(lambda: len(script.calls(FETCH[queue])) > 0)
        go_away(script)
        let_pass(client, clock, until=lambda: bool(of(events, FetchFailed)))
        lost_at = clock.monotonic()

        let_pass(client, clock, until=lambda: running.ended)

        report = running.report()
        assert (report.reason, report.exit_code) == ("provider lost", 2)
        assert AWAY - 2 * POLL <= clock.monotonic() - lost_at <= AWAY + 30.0
        (told,) = of(events, WorkerStopped)
        assert re.fullmatch(r"the broker answered nothing for \d\d s", told.text)  # type: ignore[attr-defined]
        assert worker.status().state == "stopped"

    def test_is_waited_for_as_long_as_it_takes_if_nothing_else_is_said(
        self, client: QueueClient, queue: str, script: Script, clock: FakeClock, desk: Desk
    ) -> None:
        running = Running(Worker(client, queue, desk, poll=POLL))
        wait_until(lambda: len(script.calls(FETCH[queue])) > 0)
        go_away(script)
        end = clock.monotonic() + 2 * AWAY
        let_pass(client, clock, until=lambda: clock.monotonic() >= end)
        assert not running.ended
        come_back(script)
        send(client, queue, "a1")

        let_pass(client, clock, until=lambda: desk.calls == [("a1", 1)])

        assert running.worker.stop().reason == "asked"
        assert running.report().exit_code == 0

    def test_that_answers_once_in_a_while_is_not_lost(
        self, client: QueueClient, queue: str, script: Script, clock: FakeClock, desk: Desk
    ) -> None:
        running = Running(Worker(client, queue, desk, poll=POLL, give_up_after=AWAY))
        for _ in range(3):
            wait_until(lambda: len(script.calls(FETCH[queue])) > 0)
            go_away(script)
            end = clock.monotonic() + 0.5 * AWAY
            let_pass(client, clock, until=lambda end=end: clock.monotonic() >= end)  # type: ignore[misc]
            come_back(script)
            let_pass(client, clock, until=lambda: running.worker.health().fetching)
            assert not running.ended

        running.worker.stop()
        assert running.report().reason == "asked"

    def test_is_told_from_handlers_that_take_their_time(
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
        running = Running(Worker(client, queue, desk, concurrency=1, poll=POLL, give_up_after=AWAY))
        desk.wait_for_calls("a1")
        for _ in range(40):  # nothing is asked, as there is no room
            clock.block_until(2)
            clock.advance(3.0)
        assert not running.ended
        script.then(FETCH[queue], fails(ConnectionFailed))
        desk.let_go("a1")

        let_pass(client, clock, until=lambda: bool(of(events, FetchFailed)))
        let_pass(client, clock, until=lambda: running.worker.health().fetching)

        assert not running.ended, "it was away for a moment, after two minutes in which it was not asked"
        running.worker.stop()
        assert running.report().reason == "asked"

    def test_says_so_in_its_status_and_its_health(
        self,
        client: QueueClient,
        queue: str,
        script: Script,
        clock: FakeClock,
        desk: Desk,
        events: list[Event],
    ) -> None:
        go_away(script, FETCH[queue])
        with Worker(client, queue, desk, poll=POLL) as worker:
            wait_until(lambda: worker.status().paused is not None)
            paused, health = worker.status().paused, worker.health()
            assert paused is not None
            assert (paused.by, "ConnectionFailed" in paused.why) == ("provider", True)
            assert paused.retry_at > clock.now()
            assert (health.alive, health.fetching, health.last_answer) == (True, False, None)
            assert "ConnectionFailed" in (health.paused or "")
            come_back(script)

            let_pass(client, clock, until=lambda: worker.status().paused is None)

            assert worker.health().fetching
            assert worker.health().last_answer is not None

    def test_takes_no_attempt_from_a_message(
        self, client: QueueClient, queue: str, script: Script, clock: FakeClock, desk: Desk
    ) -> None:
        send(client, queue, "a1")
        desk.fail["a1"] = [RuntimeError("once")]
        running = Running(Worker(client, queue, desk, poll=POLL))
        desk.wait_for_calls("a1")
        go_away(script)
        end = clock.monotonic() + 2 * AWAY
        let_pass(client, clock, until=lambda: clock.monotonic() >= end)
        come_back(script)

        let_pass(client, clock, until=lambda: running.worker.status().completed == 1)

        assert desk.calls == [("a1", 1), ("a1", 2)]
        running.worker.stop()


@ANY_QUEUE
class TestAnOpenBreaker:
    def test_is_waited_for_until_it_lets_a_question_through_and_no_longer(
        self,
        client: QueueClient,
        queue: str,
        script: Script,
        clock: FakeClock,
        desk: Desk,
        events: list[Event],
    ) -> None:
        def refuses(act: object) -> object:
            raise CircuitOpen("open", retry_at=clock.now() + timedelta(seconds=5))

        script.always(FETCH[queue], refuses)
        running = Running(Worker(client, queue, desk, poll=POLL))

        let_pass(client, clock, until=lambda: len(of(events, FetchFailed)) >= 9)

        delays = [event.delay for event in of(events, FetchFailed)]  # type: ignore[attr-defined]
        assert all(5.0 < delay <= 5.0 + JITTER for delay in delays)
        running.worker.stop()
        assert running.report().reason == "asked"


def _errors(events: list[Event]) -> list[str]:
    return [event.error for event in of(events, FetchFailed)]  # type: ignore[attr-defined]


class TestAtTheStart:
    @ANY_QUEUE
    def test_a_broker_that_does_not_answer_is_waited_for(
        self,
        client: QueueClient,
        queue: str,
        script: Script,
        clock: FakeClock,
        desk: Desk,
        events: list[Event],
    ) -> None:
        go_away(script)
        worker = Worker(client, queue, desk, poll=POLL)
        running = Running(worker)
        let_pass(client, clock, until=lambda: len(of(events, FetchFailed)) >= 3)
        assert worker.status().state == "starting"
        assert (worker.health().state, worker.health().alive) == ("starting", True)
        assert not worker.health().fetching
        come_back(script)
        send(client, queue, "a1")

        let_pass(client, clock, until=lambda: desk.calls == [("a1", 1)])

        assert worker.status().state == "running"
        worker.stop()
        assert running.report().completed == 1

    def test_also_where_its_breaker_lets_no_question_through(
        self, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        script = Script()
        breaker = BreakerPolicy(minimum_calls=2, failure_rate=0.5, open_for=20.0)
        with scripted(script, URL, clock=clock, listeners=[events.append], breaker=breaker) as client:
            send(client, "plain", "a1")
            go_away(script)
            running = Running(Worker(client, "plain", desk, poll=POLL))
            let_pass(client, clock, until=lambda: "CircuitOpen" in _errors(events))
            asked = len(_errors(events))
            before = clock.monotonic()
            clock.block_until(1)
            clock.advance(9.0)
            assert len(_errors(events)) == asked, "it is known until when nobody is asked"
            come_back(script)

            let_pass(client, clock, until=lambda: desk.calls == [("a1", 1)])

            assert clock.monotonic() > before
            running.worker.stop()
            assert running.report().reason == "asked"

    def test_it_is_given_up_like_one_that_is_lost_later_and_the_log_says_so(
        self,
        client: QueueClient,
        script: Script,
        clock: FakeClock,
        desk: Desk,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        go_away(script)
        began = clock.monotonic()
        worker = Worker(client, "plain", desk, give_up_after=AWAY)
        running = Running(worker)

        let_pass(client, clock, until=lambda: running.ended)

        report = running.report()
        assert (report.reason, report.exit_code) == ("provider lost", 2)
        assert clock.monotonic() - began >= AWAY
        assert worker.status().state == "new"
        assert "ERROR WorkerStopped" in lines(caplog)
        assert re.search(r"text='the broker answered nothing for 6\d s'", lines(caplog))

    def test_the_wait_can_be_called_off(
        self, client: QueueClient, script: Script, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        go_away(script)
        worker = Worker(client, "plain", desk)
        running = Running(worker)
        wait_until(lambda: bool(of(events, FetchFailed)))

        answer = worker.stop()

        assert (running.report().reason, running.report().exit_code) == ("asked", 0)
        assert (answer.in_hand, worker.status().state) == (0, "new")

    def test_a_signal_calls_it_off(
        self, client: QueueClient, script: Script, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        go_away(script)
        worker = Worker(client, "plain", desk)
        running = Running(worker)
        wait_until(lambda: bool(of(events, FetchFailed)))

        worker._on_signal(15, None)
        let_pass(client, clock, until=lambda: running.ended)

        assert (running.report().reason, running.report().exit_code) == ("asked", 0)

    def test_a_stop_while_the_broker_thinks_about_its_answer_is_not_forgotten(
        self, client: QueueClient, script: Script, clock: FakeClock, desk: Desk
    ) -> None:
        asked, answer = threading.Event(), threading.Event()

        def slow(act: object) -> object:
            asked.set()
            assert answer.wait(SOON)
            return act.run()  # type: ignore[attr-defined]

        script.then("describe", slow)
        worker = Worker(client, "plain", desk)
        running = Running(worker)
        assert asked.wait(SOON)
        assert worker.stop().in_hand == 0

        answer.set()

        assert running.report().reason == "asked"
        assert worker.status().state == "stopped"

    def test_a_client_that_is_closed_meanwhile_ends_it(
        self, client: QueueClient, script: Script, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        go_away(script)
        running = Running(Worker(client, "plain", desk))
        wait_until(lambda: bool(of(events, FetchFailed)))
        wait_until(lambda: clock.is_parked(running.thread))

        client.close()
        clock.advance(1.0)

        assert running.report().reason == "closed"

    def test_what_waiting_does_not_mend_is_raised(
        self, client: QueueClient, script: Script, desk: Desk
    ) -> None:
        script.always("describe", fails(QueueNotFound))

        with pytest.raises(QueueNotFound):
            Worker(client, "plain", desk).run()

    @pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
    def test_no_time_or_none_at_all_is_no_give_up_after(
        self, client: QueueClient, desk: Desk, seconds: float
    ) -> None:
        with pytest.raises(ConfigurationError, match="give_up_after"):
            Worker(client, "plain", desk, give_up_after=seconds)

    def test_start_and_a_batch_job_do_not_wait(self, client: QueueClient, script: Script, desk: Desk) -> None:
        go_away(script)
        worker = Worker(client, "plain", desk)

        with pytest.raises(ConnectionFailed):
            worker.start()
        with pytest.raises(ConnectionFailed):
            worker.run_until_idle()

        assert worker.status().state == "new"


@ANY_QUEUE
class TestAStopDuringAnOutage:
    def test_does_not_wait_for_the_broker(
        self,
        client: QueueClient,
        queue: str,
        script: Script,
        clock: FakeClock,
        desk: Desk,
        events: list[Event],
    ) -> None:
        running = Running(Worker(client, queue, desk, poll=POLL, give_up_after=10 * AWAY))
        wait_until(lambda: len(script.calls(FETCH[queue])) > 0)
        go_away(script)
        let_pass(client, clock, until=lambda: len(of(events, FetchFailed)) >= 3)
        before = clock.monotonic()

        report = running.worker.stop()

        assert clock.monotonic() == before
        assert (report.reason, report.threads_left, report.unknown, report.overdue) == ("asked", (), 0, 0)
        assert running.report() == report

    def test_says_what_could_not_be_settled(
        self, client: QueueClient, queue: str, script: Script, clock: FakeClock, desk: Desk
    ) -> None:
        desk.hold("a1")
        send(client, queue, "a1")
        worker = Worker(client, queue, desk, poll=POLL)
        worker.start()
        desk.wait_for_calls("a1")
        go_away(script, *FETCH.values(), *SETTLE.values())
        stopping = Running(worker, lambda: worker.stop(deadline=5.0))
        desk.let_go("a1")
        wait_until(lambda: bool(script.calls(SETTLE[queue])))

        let_pass(client, clock, until=lambda: stopping.ended)

        report = stopping.report()
        assert (report.finished, report.unknown, report.overdue, report.threads_left) == (0, 1, 0, ())


def test_a_broker_that_is_lost_while_handlers_fail_is_given_up_too(
    client: QueueClient, script: Script, clock: FakeClock, desk: Desk, events: list[Event]
) -> None:
    policy = HandlerPolicy(
        max_attempts=3,
        base=1.0,
        cap=1.0,
        breaker=BreakerPolicy(failure_rate=0.5, minimum_calls=2, open_for=5.0),
    )
    desk.fail["a1"] = [RuntimeError("1"), RuntimeError("2"), RuntimeError("3")]
    desk.fail["b1"] = [RuntimeError("1"), RuntimeError("2"), RuntimeError("3")]
    send(client, "plain", "a1", "b1")
    running = Running(Worker(client, "plain", desk, policy=policy, poll=POLL, give_up_after=AWAY))
    let_pass(client, clock, until=lambda: bool(of(events, ProcessingPaused)))
    go_away(script)

    let_pass(client, clock, until=lambda: running.ended)

    assert running.report().reason == "provider lost"
