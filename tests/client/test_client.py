"""What programs hold: the verbs of a client, what they refuse, and an end that leaves nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest

from queue_runtime import ClientSettings, Message, ProviderSettings, QueueClient, Worker, connect, registry
from queue_runtime import client as client_module
from queue_runtime.clock import Clock, SystemClock
from queue_runtime.config import parse_url
from queue_runtime.errors import (
    AuthorizationFailed,
    Closed,
    ConfigurationError,
    InvalidArgument,
    InvalidName,
    MissingExtra,
    ProviderNotFound,
    QueueError,
    QueueNotFound,
    Throttled,
    UnsupportedOperation,
)
from queue_runtime.events import Event
from queue_runtime.executor import SessionExecutor
from queue_runtime.provider import ProviderClient
from queue_runtime.providers import memory
from queue_runtime.testing import FakeClock
from tests.client.hands import URL, accepted, one, send, taken
from tests.fakes import REAL, Act, Gate, Script, fails, our_threads, scripted, stored


def but_carriers(threads: list[str]) -> list[str]:
    """Without those that a send needs."""
    return [name for name in threads if not name.startswith("queue_runtime-carry-")]


class TestConnecting:
    def test_needs_a_target_and_says_how_to_give_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("QUEUE_RUNTIME_URL", raising=False)

        with pytest.raises(ConfigurationError, match=r"QUEUE_RUNTIME_URL.*connect\('sqs://eu-west-1'\)"):
            connect()

    def test_takes_it_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QUEUE_RUNTIME_URL", "memory://?queues=jobs")

        with connect() as client:
            assert client.send("jobs", Message(body=b"x", id="m")) == "m"

    def test_an_empty_variable_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QUEUE_RUNTIME_URL", "")

        with pytest.raises(ConfigurationError, match="no target"):
            connect()

    def test_takes_settings(self) -> None:
        provider = ProviderSettings(provider="memory", options={"queues": "jobs"})

        with connect(ClientSettings(provider=provider)) as client:
            assert client.describe("jobs").active == 0

    def test_to_an_unknown_provider_names_those_that_there_are(self) -> None:
        with pytest.raises(ProviderNotFound, match=r"no provider 'rabbit'; installed: .*memory"):
            connect("rabbit://localhost")

    def test_to_a_provider_whose_sdk_is_missing_names_the_extra(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        missing = EntryPoints([EntryPoint("sqs", "no_such_sdk.client:create", registry.GROUP)])
        monkeypatch.setattr(registry, "entry_points", lambda group: missing)

        with pytest.raises(
            MissingExtra, match=r"'sqs' needs the package 'no_such_sdk'; pip install '.*\[sqs\]'"
        ):
            connect("sqs://eu-west-1")

    @pytest.mark.parametrize(
        ("url", "text"),
        [
            ("memory://?queue=jobs", "unknown option 'queue'; it takes dead_letter_expired, lease"),
            ("memory://?queues=jobs&lease=soon", "lease must be a number above 0, it is 'soon'"),
            ("memory://?queues=jobs:magic", "'jobs:magic' is neither NAME nor NAME:KIND"),
            ("jobs", "the URL names no provider"),
        ],
    )
    def test_says_at_once_what_cannot_work(self, url: str, text: str) -> None:
        with pytest.raises(ConfigurationError, match=text):
            connect(url)

    @pytest.mark.parametrize("target", ["memory://?queues=jobs", "sqs://eu-west-1"])
    def test_takes_no_credential_to_a_provider_that_takes_none(self, target: str) -> None:
        with pytest.raises(ConfigurationError, match=r"takes no credential object .*leave credential= out"):
            connect(target, credential=object())

    @pytest.mark.parametrize(
        "target", ["toy://place?a=b", ClientSettings(provider=ProviderSettings(provider="toy"))]
    )
    def test_hands_a_credential_to_the_provider_and_shows_it_to_nobody(
        self, monkeypatch: pytest.MonkeyPatch, target: Any
    ) -> None:
        given: list[ProviderSettings] = []

        def make(settings: ProviderSettings, clock: Clock) -> ProviderClient:
            given.append(settings)
            return memory.create(ProviderSettings(provider="memory"), clock)

        monkeypatch.setattr(client_module, "find", lambda name: make)

        class Token:
            def __repr__(self) -> str:
                return "hunter2"

        token = Token()
        with connect(target, credential=token) as client:
            assert "hunter2" not in repr(client)

        assert [settings.credential for settings in given] == [token]

    def test_asks_the_broker_nothing_and_starts_no_thread(self, script: Script) -> None:
        with scripted(script):
            assert our_threads() == []
            assert [script.calls(operation) for operation in ("capabilities", "describe")] == [[], []]


class TestLogicalNames:
    URL = "memory://?queues=jobs-v2&queue.jobs=jobs-v2"

    def test_are_the_programs_and_the_brokers_stay_out_of_sight(self) -> None:
        events: list[Event] = []
        with connect(self.URL, listeners=[events.append]) as client:
            message = one(client)
            client.dead_letter(message, reason="bad")

            assert message.queue == "jobs"
            assert client.dead_letters("jobs").count() == 1
            assert {event.queue for event in events} <= {"jobs", "jobs-v2/$DeadLetterQueue"}

    def test_that_are_not_mapped_mean_themselves(self) -> None:
        with connect(self.URL) as client:
            assert client.describe("jobs-v2").name == client.describe("jobs").name == "jobs-v2"

    def test_are_in_the_errors(self) -> None:
        with connect("memory://?queue.jobs=nowhere") as client:
            with pytest.raises(QueueNotFound, match="'nowhere'") as caught:
                client.send("jobs", Message(body=b""))

            assert caught.value.queue == "jobs"

    @pytest.mark.parametrize("name", ["", "a b", "a\n", "x" * 1025])
    def test_that_no_broker_could_have_are_refused(self, client: QueueClient, name: str) -> None:
        for act in (
            lambda: client.send(name, Message(body=b"")),
            lambda: client.receive(name),
            lambda: client.accept_session(name),
            lambda: client.describe(name),
            lambda: client.dead_letters(name),
        ):
            with pytest.raises(InvalidName, match="queue name"):
                act()


class TestReceiving:
    def test_an_empty_answer_comes_when_the_wait_is_over(self, client: QueueClient, clock: FakeClock) -> None:
        with ThreadPoolExecutor(1) as aside:
            receiving = aside.submit(client.receive, "jobs", wait=30.0)
            clock.block_until(1)
            clock.advance(29.5)
            clock.block_until(1)
            assert not receiving.done()
            clock.advance(0.5)

            assert receiving.result(REAL) == []

    def test_a_message_ends_the_wait(self, client: QueueClient, clock: FakeClock) -> None:
        with ThreadPoolExecutor(1) as aside:
            receiving = aside.submit(client.receive, "jobs", wait=30.0)
            clock.block_until(1)
            send(client, "jobs", "m")

            assert [message.id for message in receiving.result(REAL)] == ["m"]

    @pytest.mark.parametrize("verb", ["receive", "accept_sessions"])
    def test_a_broker_that_waits_for_less_is_asked_again(
        self, client: QueueClient, script: Script, clock: FakeClock, verb: str
    ) -> None:
        """One SQS poll lasts 20 seconds at most."""

        def short_poll(act: Act) -> Any:
            clock.advance(20.0)
            return []

        script.then(verb, *[short_poll] * 3)

        found = (
            client.receive("jobs", wait=60.5)
            if verb == "receive"
            else client.accept_session("events", wait=60.5)
        )

        assert not found
        assert len(script.calls(verb)) == 3  # what is left is no second

    def test_takes_no_more_than_it_was_asked_for(self, client: QueueClient) -> None:
        send(client, "jobs", "a", "b", "c")

        assert len(client.receive("jobs", max_messages=2)) == 2
        assert len(client.receive("jobs", max_messages=1000)) == 1

    @pytest.mark.parametrize("lease", [None, 5.0, 300.0])
    def test_holds_for_the_lease_that_was_asked_for(
        self, client: QueueClient, clock: FakeClock, lease: float | None
    ) -> None:
        message = one(client, lease=lease)
        length = lease or 30.0

        clock.advance(length - 0.5)
        held = not message.lease.lost
        assert client.receive("jobs") == []
        clock.advance(0.5)

        assert (held, message.lease.lost) == (True, True)
        assert [again.delivery_count for again in client.receive("jobs")] == [2]

    def test_a_failure_that_may_pass_is_tried_again(self, client: QueueClient, script: Script) -> None:
        send(client, "jobs", "m")
        script.then("receive", fails(Throttled), fails(Throttled))

        assert len(client.receive("jobs")) == 1

    @pytest.mark.parametrize("wait", [-1, float("inf"), float("nan"), "2"])
    def test_a_wait_that_is_none_is_refused(self, client: QueueClient, wait: Any) -> None:
        with pytest.raises(
            InvalidArgument, match=f"wait must be a number of seconds from 0 on, it is {wait!r}"
        ):
            client.receive("jobs", wait=wait)
        with pytest.raises(InvalidArgument, match="wait must be"):
            client.accept_session("events", wait=wait)

    def test_a_wait_of_centuries_is_one(self) -> None:
        with ThreadPoolExecutor(1) as aside, connect(URL) as client:
            receiving = aside.submit(client.receive, "jobs", wait=1e12)
            send(client, "jobs", "m")

            assert len(receiving.result(REAL)) == 1

    @pytest.mark.parametrize("lease", [0, -1, 43201, float("inf"), float("nan"), "9"])
    def test_a_lease_that_the_queue_does_not_have_is_refused(self, client: QueueClient, lease: Any) -> None:
        text = f"lease must be a number of seconds above 0 to 43200, it is {lease!r}"
        with pytest.raises(InvalidArgument, match=text):
            client.receive("jobs", lease=lease)

        message = one(client)
        with pytest.raises(InvalidArgument, match=text):
            client.renew(message, lease=lease)

    def test_a_lease_is_not_asked_for_where_the_queue_alone_says_how_long_it_is(self, script: Script) -> None:
        with scripted(script, URL, chosen_lease=False) as client:
            message = one(client)
            for act in (
                lambda: client.receive("jobs", lease=5.0),
                lambda: client.renew(message, lease=5.0),
            ):
                with pytest.raises(
                    UnsupportedOperation, match=r"lock duration, not for 5\.0 s; leave lease= out"
                ):
                    act()
            client.renew(message)

            assert (len(script.calls("receive")), len(script.calls("renew"))) == (1, 1)

    def test_fewer_than_one_message_is_refused(self, client: QueueClient) -> None:
        with pytest.raises(InvalidArgument, match="max_messages must be a whole number from 1 on, it is 0"):
            client.receive("jobs", max_messages=0)

    @pytest.mark.parametrize("queue", ["events", "groups"])
    def test_past_its_sessions_is_refused(self, client: QueueClient, queue: str) -> None:
        with pytest.raises(UnsupportedOperation, match=f"queue '{queue}' has sessions.*use accept_session"):
            client.receive(queue)

    def test_a_session_of_a_queue_without_them_is_refused(self, client: QueueClient) -> None:
        with pytest.raises(UnsupportedOperation, match="queue 'jobs' has no sessions; receive from it"):
            client.accept_session("jobs")


class TestClosed:
    def test_every_verb_says_so(self, client: QueueClient) -> None:
        message, session = one(client), None
        send(client, "events", "a1")
        session = accepted(client)
        [inside] = session.receive()
        scheduled = client.schedule("jobs", Message(body=b"", delay=1.0))
        dead = client.dead_letters("jobs")
        client.close()

        def keep_alive() -> None:
            with client.keep_alive(message):
                pytest.fail("it must not be entered")

        verbs: list[Callable[[], object]] = [
            lambda: client.send("jobs", Message(body=b"")),
            lambda: client.send_batch("jobs", []),
            lambda: client.receive("jobs"),
            lambda: client.accept_session("events"),
            lambda: client.accept_session("events", session_id="a"),
            lambda: client.schedule("jobs", Message(body=b"", delay=1.0)),
            lambda: client.cancel(scheduled),
            lambda: client.describe("jobs"),
            lambda: client.dead_letters("jobs"),
            lambda: client.complete(message),
            lambda: client.complete([]),
            lambda: client.abandon(message),
            lambda: client.dead_letter(message, reason="x"),
            lambda: client.renew(message),
            keep_alive,
            dead.count,
            dead.list,
            dead.replay,
            session.receive,
            session.renew,
            session.get_state,
            lambda: session.set_state(b""),
            lambda: session.complete(inside),
            lambda: session.abandon(inside),
            lambda: session.dead_letter(inside, reason="x"),
            Worker(client, "jobs", lambda m: None).start,
        ]
        for verb in verbs:
            with pytest.raises(Closed):
                verb()
        session.close()
        client.close()

    def test_a_blocked_receive_ends_at_once(self, client: QueueClient, clock: FakeClock) -> None:
        with ThreadPoolExecutor(2) as aside:
            blocked: list[Future[Any]] = [
                aside.submit(client.receive, "jobs", wait=3600.0),
                aside.submit(client.accept_session, "events", wait=3600.0),
            ]
            clock.block_until(2)

            client.close()

            for each in blocked:
                assert isinstance(each.exception(REAL), Closed)

    def test_its_workers_are_stopped(self, script: Script) -> None:
        done = threading.Event()
        with scripted(script, URL) as client:
            worker = Worker(client, "jobs", lambda message: done.set())
            worker.start()
            send(client, "jobs", "m")
            assert done.wait(REAL)
            assert our_threads() != []

            client.close()

            assert worker.status().state == "stopped"
            assert our_threads() == []

    def test_its_workers_are_stopped_beside_each_other(self, script: Script) -> None:
        """One whose handler is stuck must not use up the time in which another could have finished."""
        entered, leave = threading.Semaphore(0), threading.Event()

        def stuck(message: object) -> None:
            entered.release()
            leave.wait(REAL)

        def busy(message: object) -> None:
            entered.release()
            leave.wait(0.1)

        with scripted(script, URL) as client:
            slow, fast = Worker(client, "jobs", stuck), Worker(client, "mails", busy, concurrency=1)
            for worker, queue in ((slow, "jobs"), (fast, "mails")):
                send(client, queue, *[f"m{n}" for n in range(20)])
                worker.start()
                assert entered.acquire(timeout=REAL)

            client.close(timeout=0.5)

            assert slow.stop().overdue > 0
            assert fast.stop().overdue == 0
            assert fast.status().completed < 20, "it was not left to go on meanwhile"
            leave.set()

    def test_what_stops_badly_keeps_nothing_else_from_being_closed(
        self, script: Script, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(seconds: float) -> None:
            raise ValueError("will not stop")

        with scripted(script, URL) as client:
            client.runtime().before_close(fail)
            worker = Worker(client, "jobs", lambda message: None)
            worker.start()

            client.close()

            assert worker.status().state == "stopped"
        assert our_threads() == []
        assert "will not stop" in caplog.text

    def test_an_executor_of_the_programs_own_is_left_to_it(self, script: Script) -> None:
        mine = SessionExecutor(4, name="mine")
        with scripted(script, URL, executor=mine) as client:
            worker = Worker(client, "jobs", lambda message: None, concurrency=4)
            send(client, "jobs", "m")
            worker.run_until_idle()
            assert worker.status().completed == 1
        assert mine.submit(int, "7").result(REAL) == 7
        mine.shutdown()

    def test_waits_for_each_thread_no_longer_than_it_was_told(self, script: Script, clock: FakeClock) -> None:
        with Gate() as gate, ThreadPoolExecutor(1) as aside, scripted(script, URL, clock=clock) as client:
            script.then("renew", gate)
            with client.keep_alive(one(client)):
                clock.block_until(1)
                clock.advance(15.0)
                gate.wait_until_reached()
                closing = aside.submit(client.close, timeout=2.0)
                clock.block_until(1)
                clock.advance(2.0)
                closing.result(REAL)

                assert but_carriers(our_threads()) == ["queue_runtime-renew-1"]

    def test_takes_no_longer_in_all_though_a_handler_and_a_renewal_hang(self, script: Script) -> None:
        entered, leave = threading.Event(), threading.Event()

        def handler(message: object) -> None:
            entered.set()
            leave.wait(REAL)

        url = f"{URL}&lease=0.5"
        with Gate() as gate, scripted(script, url) as client:
            script.always("renew", gate)
            worker = Worker(client, "jobs", handler, concurrency=1)
            worker.start()
            send(client, "jobs", "m")
            assert entered.wait(REAL)
            gate.wait_until_reached()
            started = SystemClock().monotonic()

            client.close(timeout=0.3)

            assert SystemClock().monotonic() - started < 3.0
            assert worker.status().state == "stopped"
            leave.set()
        for thread in threading.enumerate():
            if thread.name.startswith("queue_runtime"):
                thread.join(REAL)

    def test_from_another_thread_at_the_same_time_is_harmless(self, script: Script) -> None:
        with scripted(script, URL) as client, ThreadPoolExecutor(8) as aside:
            Worker(client, "jobs", lambda message: None).start()
            for closing in [aside.submit(client.close) for _ in range(8)]:
                closing.result(REAL)

        assert our_threads() == []


class TestThreads:
    def test_none_is_started_before_it_is_needed(self, client: QueueClient) -> None:
        message = one(client)
        client.renew(message)
        client.complete(message)
        send(client, "events", "a1")
        session = accepted(client)
        session.complete(session.receive())
        session.close()
        client.dead_letters("jobs").list()

        assert but_carriers(our_threads()) == []

    def test_keeping_alive_needs_one_until_something_is_due(self, client: QueueClient) -> None:
        with client.keep_alive(one(client)):
            assert but_carriers(our_threads()) == ["queue_runtime-scheduler"]

    def test_sixteen_share_one_client(self) -> None:
        handled: list[str] = []
        lock = threading.Lock()

        def work(number: int) -> None:
            names = [f"{number:02}-{n:02}" for n in range(25)]
            for name in names[:15]:
                client.send("jobs", Message(body=name.encode(), id=name))
            client.send_batch("jobs", [Message(body=name.encode(), id=name) for name in names[15:]])
            for _ in range(5):
                found = client.receive("jobs", max_messages=5, wait=5.0)
                with client.keep_alive(*found):
                    client.complete(found)
                with lock:
                    handled.extend(message.id for message in found)

        with connect("memory://?queues=jobs") as client, ThreadPoolExecutor(16) as crew:
            list(crew.map(work, range(16)))
            while rest := client.receive("jobs", max_messages=100):
                client.complete(rest)
                handled.extend(message.id for message in rest)
            assert stored(client, "jobs") == []

        assert sorted(handled) == [f"{number:02}-{n:02}" for number in range(16) for n in range(25)]
        assert our_threads() == []


class TestItsRepr:
    def test_says_where_it_leads_and_how_it_is(self) -> None:
        client = connect("memory://tests?queues=jobs")
        assert repr(client) == "<QueueClient memory://tests [open]>"

        client.close()
        assert repr(client) == "<QueueClient memory://tests [closed]>"

    def test_and_its_settings_keep_secrets_to_themselves(self, script: Script) -> None:
        secret = "tops3cret"
        settings = parse_url(URL)
        provider = replace(settings.provider, options={**settings.provider.options, "key": secret})

        assert secret not in repr(replace(settings, provider=provider))
        with pytest.raises(ConfigurationError) as caught:
            connect(replace(settings, provider=provider))
        assert secret not in str(caught.value)

    def test_of_a_message_shows_no_receipt_and_no_body(self, client: QueueClient) -> None:
        message = taken(client, "m")[0]

        assert message.receipt not in repr(message)
        assert repr(message) == "<ReceivedMessage 'm' of session 'm' [held | attempt 1]>"


def test_a_listener_that_raises_costs_nobody_anything(script: Script) -> None:
    def bad(event: Event) -> None:
        raise ValueError("listener")

    with scripted(script, URL, listeners=[bad]) as client:
        client.complete(one(client))


@pytest.mark.parametrize("error", [QueueError, AuthorizationFailed])
def test_an_error_says_where_it_happened(
    client: QueueClient, script: Script, error: type[QueueError]
) -> None:
    script.then("describe", fails(error))

    with pytest.raises(error) as caught:
        client.describe("jobs")
    assert (caught.value.queue, caught.value.operation, caught.value.provider) == (
        "jobs",
        "describe",
        "memory",
    )


class TestWrongThings:
    def test_what_is_no_message_cannot_be_sent(self, client: QueueClient) -> None:
        with pytest.raises(InvalidArgument, match=r"not a dict; Message\.of"):
            client.send("jobs", {"a": 1})  # type: ignore[arg-type]

    def test_a_batch_of_one_may_be_the_message_itself(self, client: QueueClient) -> None:
        message = Message.of("x")

        assert client.send_batch("jobs", message) == [message.id]  # type: ignore[arg-type]

    def test_what_was_not_received_cannot_be_settled(self, client: QueueClient) -> None:
        with pytest.raises(InvalidArgument, match="received"):
            client.complete(Message.of("x"))  # type: ignore[arg-type]

    def test_a_number_is_no_target(self) -> None:
        with pytest.raises(ConfigurationError, match="not a int"):
            connect(5)  # type: ignore[arg-type]

    def test_a_number_is_no_strategy(self) -> None:
        with pytest.raises(ConfigurationError, match="strategy must be a function"):
            connect("memory://", strategy=5)  # type: ignore[arg-type]

    def test_a_queues_url_is_no_target(self) -> None:
        with pytest.raises(ConfigurationError, match="https is no provider"):
            connect("https://sqs.eu-west-1.amazonaws.com/1/jobs")

    def test_a_message_that_is_refused_says_where(self, client: QueueClient) -> None:
        with pytest.raises(QueueError) as caught:
            client.send("jobs", Message.of("x", attributes={f"a{n}": "x" for n in range(20)}))

        assert (caught.value.queue, caught.value.operation, caught.value.provider) == (
            "jobs",
            "send",
            "memory",
        )
