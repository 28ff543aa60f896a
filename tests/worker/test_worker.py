"""The worker on memory, on its own clock: what completes, what is refused, what its options do."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from queue_runtime import (
    HandlerPolicy,
    Message,
    QueueClient,
    ReceivedMessage,
    Reject,
    Retry,
    SessionExecutor,
    Worker,
    connect,
    parse_url,
)
from queue_runtime.errors import (
    ConfigurationError,
    QueueNotFound,
)
from queue_runtime.events import (
    Event,
    MessageCompleted,
    WorkerWarned,
)
from queue_runtime.testing import FakeClock
from tests.fakes import Script, scripted
from tests.worker.hands import ANY_QUEUE, SESSIONS, SOON, URL, Desk, Job, let_time_pass, of, send, wait_until
from tests.worker.resting import is_at_rest


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

        with Worker(client, queue, desk, concurrency=3), desk:
            desk.wait_for(lambda: desk.running == 3)
            desk.let_go(*(f"{letter}1" for letter in "abcdefgh"))
            desk.wait_for(lambda: len(desk.calls) == 8)

        assert desk.most_running == 3

    def test_nothing_is_fetched_that_no_free_handler_will_start(
        self, client: QueueClient, desk: Desk
    ) -> None:
        send(client, "plain", *(f"a{n}" for n in range(9)))
        desk.hold(*(f"a{n}" for n in range(9)))

        with Worker(client, "plain", desk, concurrency=2), desk:
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


def test_repr_tells_an_operator_the_state_at_a_glance(client: QueueClient, desk: Desk) -> None:
    desk.hold("a1")
    send(client, "plain", "a1")
    worker = Worker(client, "plain", desk, concurrency=8)
    assert repr(worker) == "<Worker 'plain' [new 0/8 | held 0 | leases 0]>"

    with worker, desk:
        desk.wait_for_calls("a1")
        assert repr(worker) == "<Worker 'plain' [running 1/8 | held 1 | leases 1]>"
        desk.let_go("a1")

    assert repr(worker) == "<Worker 'plain' [stopped 0/8 | held 0 | leases 0]>"


@pytest.mark.parametrize(("most", "warnings"), [(5, 1), (15, 1), (16, 0), (None, 0)])
def test_a_broker_that_gives_up_before_the_worker_does_is_warned_of(
    desk: Desk, events: list[Event], most: int | None, warnings: int
) -> None:
    script = Script()
    script.always("describe", lambda act: replace(act.run(), max_receives=most))
    with scripted(script, URL, listeners=[events.append]) as client:
        Worker(client, "plain", desk, policy=HandlerPolicy(max_attempts=5)).run_until_idle()

    told = of(events, WorkerWarned)
    assert len(told) == warnings
    assert all("max_deliveries" in str(event) for event in told)


@pytest.mark.parametrize(("queue", "warnings"), [("plain", 0), ("groups", 0), ("sessions", 1)])
def test_a_lease_of_the_settings_that_has_no_effect_is_warned_of(
    desk: Desk, events: list[Event], queue: str, warnings: int
) -> None:
    settings = replace(parse_url(URL), lease=60)
    with connect(settings, listeners=[events.append]) as client:
        Worker(client, queue, desk).run_until_idle()

    assert [str(event).count("lease = 60 has no effect") for event in of(events, WorkerWarned)] == [
        1
    ] * warnings


def test_poll_is_how_long_one_question_waits(clock: FakeClock, desk: Desk) -> None:
    script = Script()
    with (
        scripted(script, URL, clock=clock) as client,
        Worker(client, "plain", desk, poll=5.0),
    ):
        for asked in (1, 2, 3):
            wait_until(lambda n=asked: len(script.calls("receive")) == n)  # type: ignore[misc]
            clock.block_until(1)
            clock.advance(5.0)


def test_an_idle_session_is_let_go_after_session_idle(
    client: QueueClient, clock: FakeClock, desk: Desk
) -> None:
    send(client, "sessions", "a1")

    with Worker(client, "sessions", desk, session_idle=1.0) as worker:
        desk.wait_for_calls("a1")
        wait_until(lambda: worker.status().held == 1)
        let_time_pass(clock, until=lambda: worker.status().held == 0)


def test_a_session_is_kept_for_as_long_as_session_idle_says(
    client: QueueClient, clock: FakeClock, desk: Desk, events: list[Event]
) -> None:
    send(client, "sessions", "a1")

    with Worker(client, "sessions", desk, session_idle=10.0) as worker:
        wait_until(lambda: bool(of(events, MessageCompleted)))
        for _ in range(3):
            wait_until(lambda: is_at_rest(client, clock))
            clock.advance(3.0)
        wait_until(lambda: is_at_rest(client, clock))
        assert worker.status().held == 1
        clock.advance(1.0)
        wait_until(lambda: worker.status().held == 0)


def test_a_session_is_let_go_at_once_when_its_place_is_wanted(client: QueueClient, desk: Desk) -> None:
    send(client, "sessions", *(f"{letter}1" for letter in "abcdefgh"))

    with Worker(client, "sessions", desk, concurrency=1, session_idle=1000.0):
        desk.wait_for(lambda: len(desk.calls) == 8)


def test_an_injected_executor_runs_the_handlers_and_is_left_open(clock: FakeClock) -> None:
    names: list[str] = []
    with SessionExecutor(4, name="mine") as executor:
        with connect(URL, clock=clock, executor=executor) as client:
            send(client, "plain", "a1")
            handler = lambda message: names.append(threading.current_thread().name)  # noqa: E731
            Worker(client, "plain", handler, concurrency=4).run_until_idle()

        assert names == ["mine-1"]
        assert executor.submit(lambda: "still open").result(SOON) == "still open"


class TestWhatCannotBeAWorker:
    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            ({"policy": {"max_attempts": 2}}, "policy must be a HandlerPolicy"),
            ({"payload": "Job"}, "payload must be a class"),
            ({"concurrency": "4"}, "concurrency must be a whole number"),
            ({"poll": 0.0}, "poll must be a number of seconds above 0"),
            ({"session_idle": -1.0}, "session_idle must be a number of seconds from 0 on"),
        ],
    )
    def test_a_wrong_option_is_refused_by_name(
        self, client: QueueClient, desk: Desk, arguments: dict[str, Any], text: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=text):
            Worker(client, "plain", desk, **arguments)

    @pytest.mark.parametrize(
        ("handler", "payload"),
        [
            (lambda: None, None),
            (lambda job, message: None, None),
            (lambda message: None, Job),
        ],
    )
    def test_a_handler_that_could_not_be_called_is_refused(
        self, client: QueueClient, handler: Any, payload: Any
    ) -> None:
        with pytest.raises(ConfigurationError, match="cannot be called with"):
            Worker(client, "plain", handler, payload=payload)

    def test_a_handler_that_does_not_tell_how_it_is_called_is_taken(self, client: QueueClient) -> None:
        Worker(client, "plain", print)

    def test_a_url_is_no_client(self, desk: Desk) -> None:
        with pytest.raises(ConfigurationError, match="client must be a QueueClient"):
            Worker(URL, "plain", desk)  # type: ignore[call-overload]


def test_run_until_idle_asks_seldom_while_it_waits_for_a_retry(desk: Desk) -> None:
    script = Script()
    desk.fail["a1"] = [Retry(0.5)]
    with scripted(script, URL) as client:
        send(client, "plain", "a1")
        report = Worker(client, "plain", desk).run_until_idle()

    assert desk.calls == [("a1", 1), ("a1", 2)]
    assert (report.completed, report.dead_lettered) == (1, 0)
    assert len(script.calls("receive")) < 15


def test_sessions_on_a_queue_that_keeps_no_order_are_warned_of_once(
    client: QueueClient, desk: Desk, events: list[Event]
) -> None:
    send(client, "plain", "a1", "a2", "b1")

    Worker(client, "plain", desk).run_until_idle()

    (told,) = of(events, WorkerWarned)
    assert "keeps no order" in str(told)


def test_a_failing_handlers_traceback_is_in_the_log(
    client: QueueClient, desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.fail["a1"] = [ValueError("no such branch")]
    desk.fail["b1"] = [Reject("Spam")]
    send(client, "sessions", "a1", "b1")

    Worker(client, "sessions", desk, policy=HandlerPolicy(max_attempts=1)).run_until_idle()

    assert caplog.text.count("Traceback") == 1
    assert "ValueError: no such branch" in caplog.text
