"""The worker on memory, on its own clock: what completes, retries, gives up, stops."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pytest

from queue_runtime import (
    HandlerPolicy,
    Lease,
    Message,
    QueueClient,
    ReceivedMessage,
    Reject,
    Retry,
    StopReport,
    Worker,
    connect,
)
from queue_runtime.errors import (
    ConfigurationError,
    ConnectionFailed,
    LeaseLost,
    OutcomeUnknown,
    QueueNotFound,
)
from queue_runtime.events import (
    Event,
    FetchFailed,
    HandlerFailed,
    LostLease,
    MessageCompleted,
    MessageDeadLettered,
    SettlementFailed,
)
from queue_runtime.testing import FakeClock
from queue_runtime.worker.context import Context
from queue_runtime.worker.in_hand import InHand
from queue_runtime.worker.message_run import MessageRun
from queue_runtime.worker.verdict import Verdict
from tests.fakes import Script, fails, loses, scripted

SOON = 5.0
"""Real seconds that a thread gets to do what it can do at once."""

URL = "memory://?queues=plain,sessions:sessions,groups:groups&lease=30"

FETCH = {"plain": "receive", "sessions": "accept_session", "groups": "receive"}
SETTLE = {"plain": "settle", "sessions": "session.settle", "groups": "settle"}

SESSIONS = pytest.mark.parametrize("queue", ["sessions", "groups"])
ANY_QUEUE = pytest.mark.parametrize("queue", ["plain", "sessions", "groups"])


@dataclass
class Job:
    number: int


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def client(clock: FakeClock, events: list[Event]) -> Iterator[QueueClient]:
    others = set(left_over())
    with connect(URL, clock=clock, listeners=[events.append]) as made:
        yield made
    wait_until(lambda: others.issuperset(left_over()))  # a closed client leaves no thread but one given up


def left_over() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("queue_runtime")]


class Desk:
    """A handler that a test steers: what it was called with, how each call ends, and when."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.calls: list[tuple[str, int]] = []
        self.leases: list[Lease] = []
        self.running = 0
        self.most_running = 0
        self.fail: dict[str, list[Exception]] = {}
        self.held: set[str] = set()
        self.lost: list[str] = []

    def __call__(self, message: ReceivedMessage) -> None:
        with self._changed:
            self.calls.append((message.text, message.attempt))
            self.leases.append(message.lease)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            self._changed.notify_all()
            self._changed.wait_for(lambda: message.text not in self.held)
            self.running -= 1
            self._changed.notify_all()
            errors = self.fail.get(message.text)
            error = errors.pop(0) if errors else None
        if message.lease.lost:
            self.lost.append(message.text)
        if error is not None:
            raise error

    def hold(self, *texts: str) -> None:
        with self._changed:
            self.held.update(texts)

    def let_go(self, *texts: str) -> None:
        with self._changed:
            self.held.difference_update(texts)
            self._changed.notify_all()

    def wait_for(self, fact: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(fact, SOON), f"it did not come; calls: {self.calls}"

    def wait_for_calls(self, *texts: str) -> None:
        self.wait_for(lambda: [text for text, _ in self.calls] == list(texts))


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.let_go(*desk.held)


def send(client: QueueClient, queue: str, *texts: str) -> None:
    """Each text is a session's letter and a number: ``a1``."""
    client.send_batch(queue, [Message.of(text, session_id=text[0]) for text in texts])


def wait_until(fact: Callable[[], bool]) -> None:
    """Wait for what other threads do at once."""
    changed = threading.Condition()
    with changed:
        for _ in range(int(SOON / 0.005)):
            if fact():
                return
            changed.wait(0.005)
    raise AssertionError("it did not come")


def let_time_pass(clock: FakeClock, *, until: Callable[[], bool]) -> None:
    """Three seconds at a time, whenever somebody waits for something within them."""

    def somebody_waits() -> bool:
        due = clock.next_deadline()
        return due is not None and due - clock.monotonic() <= 3.0

    for _ in range(100):
        wait_until(lambda: until() or somebody_waits())
        if until():
            return
        clock.advance(3.0)
    raise AssertionError("it did not come")


def of(events: list[Event], kind: type[Event]) -> list[Event]:
    return [event for event in list(events) if type(event) is kind]


class TestHandling:
    @ANY_QUEUE
    def test_returning_completes_the_message(
        self, client: QueueClient, queue: str, desk: Desk, events: list[Event]
    ) -> None:
        send(client, queue, "a1", "b1")

        Worker(client, queue, desk).run_until_idle()

        assert sorted(desk.calls) == [("a1", 1), ("b1", 1)]
        now = client.describe(queue)
        assert (now.active, now.leased) == (0, 0)
        assert len(of(events, MessageCompleted)) == 2

    def test_a_typed_handler_gets_the_payload_and_the_message(self, client: QueueClient) -> None:
        got: list[tuple[Job, str]] = []
        client.send("plain", Message.of(Job(7), id="seven"))

        def handler(job: Job, message: ReceivedMessage) -> None:
            got.append((job, message.id))

        Worker(client, "plain", handler, payload=Job).run_until_idle()

        assert got == [(Job(7), "seven")]

    @ANY_QUEUE
    def test_no_more_handlers_run_than_concurrency_allows(
        self, client: QueueClient, queue: str, desk: Desk
    ) -> None:
        send(client, queue, *(f"{letter}1" for letter in "abcdefgh"))
        desk.hold(*(f"{letter}1" for letter in "abcdefgh"))

        with Worker(client, queue, desk, concurrency=3):
            desk.wait_for(lambda: desk.running == 3)
            desk.let_go(*(f"{letter}1" for letter in "abcdefgh"))
            desk.wait_for(lambda: len(desk.calls) == 8)

        assert desk.most_running == 3

    def test_nothing_is_fetched_that_no_free_handler_will_start(
        self, client: QueueClient, desk: Desk
    ) -> None:
        send(client, "plain", *(f"a{n}" for n in range(9)))
        desk.hold(*(f"a{n}" for n in range(9)))

        with Worker(client, "plain", desk, concurrency=2):
            wait_until(lambda: client.describe("plain").leased == 2)
            assert client.describe("plain").active == 7
            desk.let_go(*(f"a{n}" for n in range(9)))
            desk.wait_for(lambda: len(desk.calls) == 9)

    @SESSIONS
    def test_a_session_is_handled_in_order_one_at_a_time(
        self, client: QueueClient, queue: str, desk: Desk
    ) -> None:
        texts = [f"a{n:02}" for n in range(30)]
        send(client, queue, *texts)

        Worker(client, queue, desk).run_until_idle()

        assert desk.calls == [(text, 1) for text in texts]
        assert desk.most_running == 1

    def test_a_plain_queue_runs_messages_of_one_session_one_at_a_time(
        self, client: QueueClient, desk: Desk
    ) -> None:
        send(client, "plain", *(f"a{n}" for n in range(9)))

        Worker(client, "plain", desk).run_until_idle()

        assert desk.most_running == 1


class TestRetrying:
    def test_outside_sessions_a_failed_message_comes_again_after_its_backoff(
        self, client: QueueClient, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        desk.fail["a1"] = [ValueError("once")]
        send(client, "plain", "a1")

        with Worker(client, "plain", desk, policy=HandlerPolicy(base=1.0)):
            wait_until(lambda: client.describe("plain").delayed == 1)
            assert desk.calls == [("a1", 1)]
            clock.advance(2.0)
            desk.wait_for_calls("a1", "a1")
            wait_until(lambda: bool(of(events, MessageCompleted)))

        assert desk.calls == [("a1", 1), ("a1", 2)]

    @SESSIONS
    def test_in_a_session_a_failed_head_is_retried_in_place_and_the_rest_waits(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        desk.fail["a1"] = [ValueError("once"), ValueError("twice")]
        send(client, queue, "a1", "a2")
        send(client, queue, "b1")
        worker = Worker(client, queue, desk, policy=HandlerPolicy(base=1.0))

        with worker:
            wait_until(lambda: len(of(events, HandlerFailed)) == 1 and len(of(events, MessageCompleted)) == 1)
            assert ("a2", 1) not in desk.calls
            assert worker.status().handlers == 0, "no thread is held by the wait"
            for attempt in (1, 2):
                wait_until(lambda seen=attempt: len(of(events, HandlerFailed)) == seen)  # type: ignore[misc]
                clock.block_until(2)
                clock.advance(2.0)
            desk.wait_for(lambda: ("a2", 1) in desk.calls)

        assert [call for call in desk.calls if call[0] != "b1"] == [
            ("a1", 1),
            ("a1", 2),
            ("a1", 3),
            ("a2", 1),
        ]

    @SESSIONS
    def test_a_retry_in_place_does_not_raise_the_delivery_count(
        self, client: QueueClient, queue: str
    ) -> None:
        counts: list[tuple[int, int]] = []

        def handler(message: ReceivedMessage) -> None:
            counts.append((message.attempt, message.delivery_count))
            if message.attempt == 1:
                raise Retry(0.0)

        send(client, queue, "a1")
        Worker(client, queue, handler).run_until_idle()

        assert counts == [(1, 1), (2, 1)]

    @ANY_QUEUE
    def test_reject_goes_to_the_dead_letters_with_its_record(
        self, client: QueueClient, queue: str, desk: Desk, events: list[Event]
    ) -> None:
        desk.fail["a1"] = [Reject("Spam", "from a bot")]
        send(client, queue, "a1", "a2")

        Worker(client, queue, desk).run_until_idle()

        (dead,) = client.dead_letters(queue).list()
        info = dead.dead_letter
        assert info is not None
        assert (info.reason, info.description, info.attempts) == ("Spam", "from a bot", 1)
        assert (info.queue, info.session_id, info.message_id) == (queue, "a", dead.id)
        assert ("a2", 1) in desk.calls, "its neighbours go on"
        assert len(of(events, MessageDeadLettered)) == 1

    @SESSIONS
    def test_after_the_last_attempt_the_session_goes_on_without_the_message(
        self, client: QueueClient, queue: str, desk: Desk
    ) -> None:
        desk.fail["a1"] = [Retry(0.0), Retry(0.0), ValueError("for good")]
        send(client, queue, "a1", "a2")

        Worker(client, queue, desk, policy=HandlerPolicy(max_attempts=3)).run_until_idle()

        (dead,) = client.dead_letters(queue).list()
        assert dead.dead_letter is not None
        assert (dead.dead_letter.reason, dead.dead_letter.attempts) == ("MaxAttemptsExceeded", 3)
        assert desk.calls == [("a1", 1), ("a1", 2), ("a1", 3), ("a2", 1)]

    @ANY_QUEUE
    def test_a_body_that_cannot_be_decoded_is_dead_lettered_at_once(
        self, client: QueueClient, queue: str
    ) -> None:
        called: list[Job] = []
        client.send(queue, Message.of({"number": "seven"}, session_id="a"))

        def handler(job: Job, message: ReceivedMessage) -> None:
            called.append(job)

        Worker(client, queue, handler, payload=Job).run_until_idle()

        (dead,) = client.dead_letters(queue).list()
        assert dead.dead_letter is not None
        assert dead.dead_letter.reason == "DecodeError"
        assert "payload.number" in str(dead.dead_letter.description)
        assert not called

    def test_what_kept_ending_its_processes_is_dead_lettered_without_running(
        self, client: QueueClient, desk: Desk
    ) -> None:
        send(client, "plain", "a1")
        for _ in range(4):
            client.abandon(client.receive("plain"))

        Worker(client, "plain", desk, policy=HandlerPolicy(max_attempts=1)).run_until_idle()

        (dead,) = client.dead_letters("plain").list()
        assert dead.dead_letter is not None
        assert dead.dead_letter.reason == "MaxDeliveriesExceeded"
        assert not desk.calls


class TestLeases:
    @ANY_QUEUE
    def test_a_handler_of_ten_leases_finishes_once(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        desk.hold("a1")
        send(client, queue, "a1")

        with Worker(client, queue, desk):
            desk.wait_for_calls("a1")
            for _ in range(30):
                clock.block_until(2)  # the scheduler and the fetcher
                clock.advance(10.0)
                wait_until(lambda: desk.leases[0].remaining() > 15.0)
            desk.let_go("a1")
            wait_until(lambda: bool(of(events, MessageCompleted)))

        assert desk.calls == [("a1", 1)]
        assert not desk.lost

    @ANY_QUEUE
    def test_a_lost_lease_is_told_and_its_result_is_not_settled(
        self,
        client: QueueClient,
        queue: str,
        clock: FakeClock,
        desk: Desk,
        events: list[Event],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        desk.hold("a1")
        send(client, queue, "a1", "a2")
        worker = Worker(client, queue, desk, concurrency=1)
        monkeypatch.setattr("queue_runtime.leases.LeaseRenewer._submit", lambda *args: None)

        with worker:
            desk.wait_for_calls("a1")
            clock.advance(30.0)
            wait_until(lambda: bool(of(events, LostLease)))
            desk.let_go("a1")
            wait_until(lambda: bool(of(events, SettlementFailed)))
            desk.wait_for(lambda: len(desk.calls) >= 3)

        assert desk.lost[0] == "a1"
        assert desk.calls[:2] == [("a1", 1), ("a1", 1)], "it comes again, before a2"
        assert worker.status().lost == 1


class TestStopping:
    @ANY_QUEUE
    def test_stop_lets_a_running_handler_finish_and_releases_the_rest(
        self, client: QueueClient, queue: str, desk: Desk
    ) -> None:
        desk.hold("a1")
        send(client, queue, "a1", "a2", "a3")
        worker = Worker(client, queue, desk)
        worker.start()
        desk.wait_for(lambda: desk.running == 1)
        reports: list[StopReport] = []
        stopping = threading.Thread(target=lambda: reports.append(worker.stop()))
        stopping.start()
        wait_until(lambda: worker.status().state == "stopping")

        desk.let_go("a1")
        stopping.join(SOON)

        (report,) = reports
        assert (report.finished, report.overdue, report.unknown, report.threads_left) == (1, 0, 0, ())
        assert [text for text, _ in desk.calls] == ["a1"]
        now = client.describe(queue)
        assert (now.active, now.leased) == (2, 0), "free at once"

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


class TestBadInput:
    def test_a_queue_that_is_not_there_is_said_at_start(self, client: QueueClient, desk: Desk) -> None:
        with pytest.raises(QueueNotFound, match="nowhere"):
            Worker(client, "nowhere", desk).start()

    def test_a_queue_without_dead_letters_is_refused(self, client: QueueClient, desk: Desk) -> None:
        with pytest.raises(ConfigurationError, match="no dead-letter queue"):
            Worker(client, "plain/$DeadLetterQueue", desk).start()

    def test_a_coroutine_function_is_refused(self, client: QueueClient) -> None:
        async def handler(message: ReceivedMessage) -> None: ...

        with pytest.raises(ConfigurationError, match="coroutine"):
            Worker(client, "plain", handler)

    def test_a_result_that_wants_awaiting_does_not_complete_the_message(self, client: QueueClient) -> None:
        async def work() -> None: ...

        send(client, "plain", "a1")
        policy = HandlerPolicy(max_attempts=1)

        Worker(client, "plain", lambda message: work(), policy=policy).run_until_idle()

        assert client.dead_letters("plain").count() == 1

    @pytest.mark.parametrize("concurrency", [0, -1])
    def test_a_concurrency_below_one_is_refused(
        self, client: QueueClient, desk: Desk, concurrency: int
    ) -> None:
        with pytest.raises(ConfigurationError, match="concurrency"):
            Worker(client, "plain", desk, concurrency=concurrency)

    def test_workers_that_do_not_fit_into_the_executor_are_refused(
        self, client: QueueClient, desk: Desk
    ) -> None:
        with (
            Worker(client, "plain", desk, concurrency=100),
            pytest.raises(ConfigurationError, match="max_workers"),
        ):
            Worker(client, "sessions", desk, concurrency=100).start()


class TestBadWeather:
    @ANY_QUEUE
    def test_a_failing_fetch_is_told_and_tried_again(
        self, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        script = Script()
        script.then(FETCH[queue], fails(ConnectionFailed))
        with (
            scripted(script, URL, clock=clock, listeners=[events.append]) as client,
            Worker(client, queue, desk),
        ):
            wait_until(lambda: len(of(events, FetchFailed)) == 1)
            send(client, queue, "a1")
            let_time_pass(clock, until=lambda: desk.calls == [("a1", 1)])

    @ANY_QUEUE
    def test_a_settlement_that_is_not_answered_is_repeated_and_the_handler_is_not(
        self, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        script = Script()
        script.then(SETTLE[queue], fails(OutcomeUnknown), fails(ConnectionFailed))
        with scripted(script, URL, clock=clock, listeners=[events.append]) as client:
            send(client, queue, "a1")
            with Worker(client, queue, desk):
                let_time_pass(clock, until=lambda: bool(of(events, MessageCompleted)))

        assert desk.calls == [("a1", 1)]

    @ANY_QUEUE
    def test_a_settlement_unknown_at_the_end_of_its_lease_is_given_up_and_told(
        self, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        script = Script()
        script.always(SETTLE[queue], fails(OutcomeUnknown))
        script.always("renew", fails(OutcomeUnknown))
        script.always("session.renew", fails(OutcomeUnknown))
        with scripted(script, URL, clock=clock, listeners=[events.append]) as client:
            send(client, queue, "a1")
            worker = Worker(client, queue, desk)
            with worker:
                wait_until(lambda: bool(script.calls(SETTLE[queue])))
                let_time_pass(clock, until=lambda: bool(of(events, SettlementFailed)))
                script.always(SETTLE[queue])
                let_time_pass(clock, until=lambda: bool(of(events, MessageCompleted)))

        assert desk.calls == [("a1", 1), ("a1", 1)], "it came again"

    @SESSIONS
    def test_a_message_that_cannot_be_dead_lettered_goes_back_and_does_not_run_in_a_hot_loop(
        self, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        script = Script()
        script.then(SETTLE[queue], fails(QueueNotFound))
        desk.fail["a1"] = [Reject("Spam")]
        with scripted(script, URL, clock=clock, listeners=[events.append]) as client:
            send(client, queue, "a1", "a2")
            with Worker(client, queue, desk):
                wait_until(lambda: bool(of(events, SettlementFailed)))
                wait_until(lambda: client.describe(queue).delayed == 1)
                assert desk.calls == [("a1", 1)]
                clock.block_until(2)
                clock.advance(5.0)
                desk.wait_for_calls("a1", "a1", "a2")

    def test_a_lease_that_is_lost_raises_in_check(self, client: QueueClient, clock: FakeClock) -> None:
        send(client, "plain", "a1")
        (message,) = client.receive("plain")

        clock.advance(30.0)

        with pytest.raises(LeaseLost, match="ran out"):
            message.lease.check()


def test_repr_tells_an_operator_the_state_at_a_glance(client: QueueClient, desk: Desk) -> None:
    desk.hold("a1")
    send(client, "plain", "a1")
    worker = Worker(client, "plain", desk, concurrency=8)
    assert repr(worker) == "<Worker 'plain' [new 0/8 | held 0 | leases 0]>"

    with worker:
        desk.wait_for_calls("a1")
        assert repr(worker) == "<Worker 'plain' [running 1/8 | held 1 | leases 1]>"
        desk.let_go("a1")

    assert repr(worker) == "<Worker 'plain' [stopped 0/8 | held 0 | leases 0]>"


@SESSIONS
def test_attempts_are_remembered_when_the_session_comes_again(
    client: QueueClient, queue: str, clock: FakeClock, desk: Desk
) -> None:
    desk.fail["a1"] = [Retry(60.0)]
    send(client, queue, "a1")
    worker = Worker(client, queue, desk)
    with worker:
        wait_until(lambda: worker.status().retried == 1)
        client.runtime().dispatcher("groups")
        for run in list(worker._work.in_hand.runs()):  # type: ignore[union-attr]
            run.overdue()  # as if the session's lease were lost
        clock.advance(60.0)
        desk.wait_for_calls("a1", "a1")

    assert desk.calls == [("a1", 1), ("a1", 2)]


def test_a_run_that_fails_in_a_way_of_its_own_gives_its_permit_back_and_says_so(
    client: QueueClient,
    clock: FakeClock,
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    send(client, "plain", "a1", "b1")
    broken = {"a1"}

    def judge(self: Context, message: ReceivedMessage, *, since: float | None) -> Verdict:
        if message.text in broken:
            raise AssertionError("a mistake in the worker itself")
        return real_judge(self, message, since=since)

    real_judge = Context.judge
    monkeypatch.setattr(Context, "judge", judge)

    with Worker(client, "plain", desk, concurrency=1) as worker:
        desk.wait_for_calls("b1")
        wait_until(lambda: worker.status().held == 0)
        assert "a mistake in the worker itself" in caplog.text
        broken.clear()
        clock.advance(30.0)
        desk.wait_for_calls("b1", "a1")


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


def test_a_fetcher_that_fails_in_a_way_of_its_own_goes_on(
    client: QueueClient, clock: FakeClock, desk: Desk, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [RuntimeError("can't start new thread")]
    submit = client.runtime().executor.submit

    def no_thread(*args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return submit(*args, **kwargs)

    monkeypatch.setattr(client.runtime().executor, "submit", no_thread)
    client.send_batch("plain", [Message.of("a1"), Message.of("b1")])

    with Worker(client, "plain", desk) as worker:
        desk.wait_for_calls("b1")
        wait_until(lambda: worker.status().held == 0)
        clock.advance(30.0)
        desk.wait_for_calls("b1", "a1")


@ANY_QUEUE
def test_a_settlement_that_was_never_answered_is_counted_as_unknown(
    queue: str, clock: FakeClock, desk: Desk, events: list[Event]
) -> None:
    script = Script()
    script.then(SETTLE[queue], loses(OutcomeUnknown))
    with scripted(script, URL, clock=clock, listeners=[events.append]) as client:
        send(client, queue, "a1")
        worker = Worker(client, queue, desk)
        with worker:
            let_time_pass(clock, until=lambda: bool(of(events, SettlementFailed)))

    assert (worker.status().unknown, worker.status().lost) == (1, 0)


def test_a_reason_that_is_no_text_becomes_text(client: QueueClient, desk: Desk) -> None:
    class Why(Enum):
        SPAM = "spam"

    desk.fail["a1"] = [Reject(Why.SPAM)]  # type: ignore[arg-type]
    send(client, "plain", "a1")

    Worker(client, "plain", desk).run_until_idle()

    (dead,) = client.dead_letters("plain").list()
    assert dead.dead_letter.reason == "Why.SPAM"


def test_the_rest_of_a_session_that_a_stop_gives_back_is_reported(client: QueueClient, desk: Desk) -> None:
    queue = "groups"  # of a broker's own sessions nobody knows whether there is a rest
    desk.hold("a1")
    send(client, queue, "a1", "a2", "a3")
    worker = Worker(client, queue, desk)
    worker.start()
    desk.wait_for_calls("a1")
    reports: list[StopReport] = []
    stopping = threading.Thread(target=lambda: reports.append(worker.stop()))
    stopping.start()
    wait_until(lambda: worker.status().state == "stopping")
    desk.let_go("a1")
    stopping.join(SOON)

    assert reports[0].finished == 1
    assert reports[0].released >= 1
