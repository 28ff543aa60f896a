"""What programs hold: the verbs of a client, what they refuse, and an end that leaves nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest

from queue_runtime import (
    ClientSettings,
    Message,
    ProviderSettings,
    QueueClient,
    ReceivedMessage,
    Worker,
    connect,
    registry,
)
from queue_runtime.config import parse_url
from queue_runtime.errors import (
    AuthorizationFailed,
    BatchFailed,
    Closed,
    ConfigurationError,
    InvalidArgument,
    InvalidName,
    InvalidReceipt,
    LeaseLost,
    MissingExtra,
    Outcome,
    OutcomeUnknown,
    ProviderNotFound,
    QueueError,
    QueueNotFound,
    SessionLeaseLost,
    SettlementError,
    Throttled,
    UnsupportedOperation,
)
from queue_runtime.events import Event, LostLease
from queue_runtime.executor import SessionExecutor
from queue_runtime.session_client import SessionClient
from queue_runtime.testing import FakeClock
from tests.fakes import (
    REAL,
    Act,
    Gate,
    Script,
    fails,
    fails_for,
    let_pass,
    loses,
    our_threads,
    scripted,
    stored,
)

URL = "memory://?queues=events:sessions,groups:groups,jobs,mails"


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def client(script: Script, clock: FakeClock, events: list[Event]) -> Iterator[QueueClient]:
    with scripted(script, URL, clock=clock, listeners=[events.append]) as made:
        yield made
    assert our_threads() == []


def send(client: QueueClient, queue: str, *names: str) -> None:
    """On queues with sessions the first letter is the session."""
    client.send_batch(queue, [Message(body=n.encode(), id=n, session_id=n[0]) for n in names])


def taken(client: QueueClient, *names: str, queue: str = "jobs", **how: Any) -> list[ReceivedMessage]:
    """Messages that were just sent, in hand."""
    send(client, queue, *names)
    found = client.receive(queue, max_messages=len(names), **how)
    assert [message.id for message in found] == list(names)
    return found


def one(client: QueueClient, **how: Any) -> ReceivedMessage:
    return taken(client, "m", **how)[0]


def accepted(client: QueueClient, queue: str = "events") -> SessionClient:
    session = client.accept_session(queue)
    assert session is not None
    return session


def outcomes_of(act: Callable[[], object]) -> Sequence[Outcome[str]]:
    with pytest.raises(BatchFailed) as caught:
        act()
    return caught.value.outcomes


def losses(events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, LostLease)]


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
            ("memory://?queue=jobs", "unknown option 'queue'; it takes lease, max_message_size, queues"),
            ("memory://?queues=jobs&lease=soon", "lease must be a number above 0, it is 'soon'"),
            ("memory://?queues=jobs:magic", "'jobs:magic' is neither NAME nor NAME:KIND"),
            ("jobs", "the URL names no provider"),
        ],
    )
    def test_says_at_once_what_cannot_work(self, url: str, text: str) -> None:
        with pytest.raises(ConfigurationError, match=text):
            connect(url)

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

    @pytest.mark.parametrize("verb", ["receive", "accept_session"])
    def test_a_broker_that_waits_for_less_is_asked_again(
        self, client: QueueClient, script: Script, clock: FakeClock, verb: str
    ) -> None:
        """One SQS poll lasts 20 seconds at most."""

        def short_poll(act: Act) -> Any:
            clock.advance(20.0)
            return None if verb == "accept_session" else []

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
        assert not message.lease.lost
        assert client.receive("jobs") == []
        clock.advance(0.5)

        assert message.lease.lost
        assert [again.delivery_count for again in client.receive("jobs")] == [2]

    def test_a_failure_that_may_pass_is_tried_again(self, client: QueueClient, script: Script) -> None:
        send(client, "jobs", "m")
        script.then("receive", fails(Throttled), fails(Throttled))

        assert len(client.receive("jobs")) == 1

    @pytest.mark.parametrize("wait", [-1, float("inf"), float("nan")])
    def test_a_wait_that_is_none_is_refused(self, client: QueueClient, wait: float) -> None:
        with pytest.raises(
            InvalidArgument, match=f"wait must be a number of seconds from 0 on, it is {wait}"
        ):
            client.receive("jobs", wait=wait)
        with pytest.raises(InvalidArgument, match="wait must be"):
            client.accept_session("events", wait=wait)

    def test_a_wait_of_centuries_is_one(self) -> None:
        with ThreadPoolExecutor(1) as aside, connect(URL) as client:
            receiving = aside.submit(client.receive, "jobs", wait=1e12)
            send(client, "jobs", "m")

            assert len(receiving.result(REAL)) == 1

    @pytest.mark.parametrize("lease", [0, -1, 43201, float("inf"), float("nan")])
    def test_a_lease_that_the_queue_does_not_have_is_refused(self, client: QueueClient, lease: float) -> None:
        text = f"lease must be seconds above 0 and at most 43200, it is {lease}"
        with pytest.raises(InvalidArgument, match=text):
            client.receive("jobs", lease=lease)

        message = one(client)
        with pytest.raises(InvalidArgument, match=text):
            client.renew(message, lease=lease)

    def test_fewer_than_one_message_is_refused(self, client: QueueClient) -> None:
        with pytest.raises(InvalidArgument, match="max_messages must be at least 1, it is 0"):
            client.receive("jobs", max_messages=0)

    @pytest.mark.parametrize("queue", ["events", "groups"])
    def test_past_its_sessions_is_refused(self, client: QueueClient, queue: str) -> None:
        with pytest.raises(UnsupportedOperation, match=f"queue '{queue}' has sessions.*use accept_session"):
            client.receive(queue)

    def test_a_session_of_a_queue_without_them_is_refused(self, client: QueueClient) -> None:
        with pytest.raises(UnsupportedOperation, match="queue 'jobs' has no sessions; receive from it"):
            client.accept_session("jobs")


class TestSettling:
    def test_one_message_is_gone(self, client: QueueClient) -> None:
        message = one(client)

        client.complete(message)

        assert message.settled_as == "completed"
        assert stored(client, "jobs") == []

    def test_many_go_in_one_request(self, client: QueueClient, script: Script) -> None:
        messages = taken(client, "a", "b", "c")

        client.complete(iter(messages))

        assert script.calls("settle") == [("a", "b", "c")]
        assert stored(client, "jobs") == []

    def test_abandoned_ones_come_again(self, client: QueueClient, clock: FakeClock) -> None:
        first, second = taken(client, "a", "b")
        client.abandon(first)
        client.abandon(second, delay=60.0)

        assert [m.id for m in client.receive("jobs", max_messages=9)] == ["a"]
        clock.advance(60.0)
        assert "b" in [m.id for m in client.receive("jobs", max_messages=9)]
        assert first.settled_as == "abandoned"

    def test_dead_lettered_ones_carry_their_record(self, client: QueueClient, clock: FakeClock) -> None:
        message = one(client)
        client.dead_letter(message, reason="Bad", description="no such user")

        [dead] = client.dead_letters("jobs").list()

        assert message.settled_as == "dead-lettered"
        assert dead.dead_letter is not None
        assert (dead.dead_letter.reason, dead.dead_letter.description) == ("Bad", "no such user")
        assert (dead.dead_letter.queue, dead.dead_letter.message_id) == ("jobs", "m")
        assert (dead.dead_letter.session_id, dead.dead_letter.attempts) == ("m", 1)
        assert dead.dead_letter.first_seen_at == clock.now()

    def test_nothing_is_no_request(self, client: QueueClient, script: Script) -> None:
        client.complete([])
        client.renew([])

        assert script.calls("settle") == script.calls("renew") == []

    @pytest.mark.parametrize("delay", [-1, float("inf"), float("nan")])
    def test_a_delay_that_is_none_is_refused(self, client: QueueClient, delay: float) -> None:
        message = one(client)

        with pytest.raises(InvalidArgument, match="delay must be a number of seconds from 0 on"):
            client.abandon(message, delay=delay)
        assert message.settled_as is None

    def test_twice_is_harmless_and_asks_the_broker_once(self, client: QueueClient, script: Script) -> None:
        message = one(client)

        client.complete(message)
        client.complete(message)
        client.complete([message])

        assert script.calls("settle") == [("m",)]

    def test_one_message_named_twice_is_one(self, client: QueueClient, script: Script) -> None:
        first, second = taken(client, "a", "b")

        client.complete([first, second, first])

        assert script.calls("settle") == [("a", "b")]

    @pytest.mark.parametrize("first", ["complete", "abandon", "dead_letter"])
    def test_otherwise_than_before_is_refused(self, client: QueueClient, first: str) -> None:
        message = one(client)
        verbs: dict[str, Callable[[], object]] = {
            "complete": lambda: client.complete(message),
            "abandon": lambda: client.abandon(message),
            "dead_letter": lambda: client.dead_letter(message, reason="x"),
            "renew": lambda: client.renew(message),
        }
        verbs.pop(first)()

        for verb in verbs.values():
            with pytest.raises(InvalidReceipt, match=r"message 'm' (cannot be|was) ") as caught:
                verb()
            assert caught.value.queue == "jobs"

    def test_after_its_lease_is_refused_and_asks_the_broker_nothing(
        self, client: QueueClient, clock: FakeClock, script: Script
    ) -> None:
        message = one(client)
        clock.advance(30.0)

        for verb in (client.complete, client.abandon, client.renew):
            with pytest.raises(
                LeaseLost, match="the lease of message 'm' of queue 'jobs' is lost: it ran out"
            ):
                verb(message)
        assert script.calls("settle") == script.calls("renew") == []

    @pytest.mark.parametrize("step", [fails(Throttled), fails_for({"m": Throttled})])
    def test_a_failure_that_may_pass_is_tried_again(
        self, client: QueueClient, script: Script, step: Callable[[Act], Any]
    ) -> None:
        message = one(client)
        script.then("settle", step)

        client.complete(message)

        assert stored(client, "jobs") == []

    def test_what_is_not_known_is_said_to_be_unknown(self, client: QueueClient, script: Script) -> None:
        """The first try removed it and was not answered; that the next ones find nothing proves nothing."""
        message = one(client)
        script.then("settle", loses())

        with pytest.raises(OutcomeUnknown):
            client.complete(message)
        assert message.settled_as is None

    def test_is_tried_however_the_broker_is_doing(self, client: QueueClient, script: Script) -> None:
        message = one(client)
        script.always("settle", fails(Throttled))
        for _ in range(20):
            with pytest.raises(Throttled):
                client.complete(message)
        script.always("settle")

        client.complete(message)

    def test_a_queue_without_dead_letters_leaves_the_message_untouched(self, client: QueueClient) -> None:
        client.dead_letter(one(client), reason="bad")
        [dead] = client.receive("jobs/$DeadLetterQueue")

        with pytest.raises(UnsupportedOperation, match="has none of its own"):
            client.dead_letter(dead, reason="worse")

        client.complete(dead)


class TestSettlingMany:
    def test_one_failure_hides_no_other_and_outcomes_are_aligned(
        self, client: QueueClient, script: Script, clock: FakeClock
    ) -> None:
        a, b, c = taken(client, "a", "b", "c")
        settled, lapsed = taken(client, "done", "old", lease=5.0)
        client.abandon(settled)
        clock.advance(5.0)
        script.then("settle", fails_for({"b": AuthorizationFailed}))

        outcomes = outcomes_of(lambda: client.complete([a, lapsed, b, settled, c]))

        assert [outcome.value for outcome in outcomes] == ["a", "old", "b", "done", "c"]
        assert [type(outcome.error).__name__ for outcome in outcomes] == [
            "NoneType",
            "LeaseLost",
            "AuthorizationFailed",
            "InvalidReceipt",
            "NoneType",
        ]
        assert (a.settled_as, b.settled_as, c.settled_as) == ("completed", None, "completed")

    def test_of_several_queues_is_one_request_each_aligned_with_the_input(
        self, client: QueueClient, script: Script
    ) -> None:
        jobs, mails = taken(client, "j1", "j2"), taken(client, "m1", "m2", queue="mails")
        script.then("settle", fails_for({"j2": AuthorizationFailed}), fails_for({"m1": AuthorizationFailed}))

        with pytest.raises(
            BatchFailed, match="settle: 2 of 4 messages failed, the first with: scripted: "
        ) as caught:
            client.complete([jobs[0], mails[0], jobs[1], mails[1]])

        outcomes = caught.value.outcomes
        assert [(outcome.value, outcome.ok) for outcome in outcomes] == [
            ("j1", True),
            ("m1", False),
            ("j2", False),
            ("m2", True),
        ]
        assert script.calls("settle") == [("j1", "j2"), ("m1", "m2")]
        assert caught.value.queue == "mails", "where the first failure was"

    def test_the_only_one_raises_its_own_error(self, client: QueueClient, script: Script) -> None:
        messages = taken(client, "a")
        script.then("settle", fails(AuthorizationFailed))

        with pytest.raises(AuthorizationFailed) as caught:
            client.complete(messages)
        assert (caught.value.queue, caught.value.operation, caught.value.provider) == (
            "jobs",
            "settle",
            "memory",
        )

    def test_each_request_is_tried_again_for_what_failed_only(
        self, client: QueueClient, script: Script
    ) -> None:
        messages = taken(client, "a", "b", "c")
        script.then("settle", fails_for({"b": Throttled}))

        client.dead_letter(messages, reason="bad")

        assert script.calls("settle") == [("a", "b", "c"), ("b",)]
        assert client.dead_letters("jobs").count() == 3

    def test_renewals_are_answered_one_by_one_too(self, client: QueueClient, script: Script) -> None:
        a, b = taken(client, "a", "b")
        script.then("renew", fails_for({"b": InvalidReceipt}))

        outcomes = outcomes_of(lambda: client.renew([a, b]))

        assert [outcome.ok for outcome in outcomes] == [True, False]


class TestOwners:
    def test_a_message_of_another_client_is_refused(self, client: QueueClient) -> None:
        with connect("memory://?queues=jobs") as other:
            message = one(other)

            for verb in (client.complete, client.abandon, client.renew):
                with pytest.raises(
                    SettlementError, match=r"'m' was received by another client.*where it was"
                ) as caught:
                    verb(message)
                assert caught.value.queue == "jobs"
            with pytest.raises(SettlementError, match="another client"), client.keep_alive(message):
                pytest.fail("it must not be entered")

    @pytest.mark.parametrize("queue", ["events", "groups"])
    def test_a_message_of_a_session_is_settled_by_its_session(self, client: QueueClient, queue: str) -> None:
        send(client, queue, "a1")
        with accepted(client, queue) as session:
            [message] = session.receive()

            with pytest.raises(SettlementError, match="by a session"):
                client.complete(message)
            session.complete(message)

    def test_a_session_settles_no_message_but_its_own(self, client: QueueClient) -> None:
        send(client, "events", "a1", "b1")
        outside = one(client)
        with accepted(client) as a, accepted(client) as b:
            [b1] = b.receive()

            for message in (outside, b1):
                with pytest.raises(SettlementError, match="received by another"):
                    a.complete(message)


class TestRenewing:
    def test_holds_for_as_long_as_the_message_was_received_for(
        self, client: QueueClient, clock: FakeClock
    ) -> None:
        usual, long = one(client), taken(client, "n", lease=300.0)[0]
        clock.advance(20.0)

        client.renew([usual, long])

        assert (usual.lease.remaining(), long.lease.remaining()) == (30.0, 300.0)
        clock.advance(29.5)
        assert client.receive("jobs") == []

    def test_holds_for_as_long_as_was_asked_for(self, client: QueueClient, clock: FakeClock) -> None:
        message = one(client)

        client.renew(message, lease=600.0)

        clock.advance(599.5)
        assert client.receive("jobs") == []
        client.complete(message)


class Keeping:
    """Time that passes for a client that keeps leases alive."""

    def __init__(self, client: QueueClient, clock: FakeClock, script: Script, lane: str = "jobs") -> None:
        self._client, self._clock, self._script = client, clock, script
        self._lanes = [lane]

    def let_pass(self, seconds: float) -> None:
        let_pass(
            self._clock,
            seconds,
            pool=self._client.runtime().pool,
            lanes=self._lanes,
            progress=lambda: len(self._script.calls("renew")) + len(self._script.calls("session.renew")),
        )


@pytest.fixture
def time(client: QueueClient, clock: FakeClock, script: Script) -> Keeping:
    return Keeping(client, clock, script)


class TestKeepingAlive:
    def test_holds_messages_for_as_long_as_the_block_lasts(
        self, client: QueueClient, time: Keeping, script: Script, events: list[Event]
    ) -> None:
        a, b = taken(client, "a", "b")

        with client.keep_alive(a, b):
            time.let_pass(100.0)
            assert client.receive("jobs") == []
        renewals = len(script.calls("renew"))
        time.let_pass(15.0)

        assert renewals == len(script.calls("renew")) == 6
        client.complete([a, b])
        assert losses(events) == []

    def test_renews_for_as_long_as_the_message_was_received_for(
        self, client: QueueClient, time: Keeping, script: Script
    ) -> None:
        message = one(client, lease=300.0)

        with client.keep_alive(message):
            time.let_pass(149.5)
            assert script.calls("renew") == []
            time.let_pass(400.0)

        assert len(script.calls("renew")) == 3
        assert not message.lease.lost

    def test_inside_another_block_ends_nothing_of_that(self, client: QueueClient, time: Keeping) -> None:
        """So it does no harm in a worker's handler, whose message is kept alive anyway."""
        message = one(client)

        with client.keep_alive(message):
            with client.keep_alive(message):
                time.let_pass(20.0)
            time.let_pass(60.0)

            assert not message.lease.lost

    def test_a_message_that_is_settled_inside_is_not_renewed_any_more(
        self, client: QueueClient, time: Keeping, script: Script, events: list[Event]
    ) -> None:
        done, back, bad = taken(client, "done", "back", "bad")

        with client.keep_alive(done, back, bad):
            time.let_pass(1.0)
            client.complete(done)
            client.abandon(back, delay=3600.0)
            client.dead_letter(bad, reason="bad")
            time.let_pass(60.0)

        assert script.calls("renew") == []
        assert losses(events) == []

    def test_a_message_that_is_settled_already_is_not_renewed(
        self, client: QueueClient, time: Keeping, script: Script, events: list[Event]
    ) -> None:
        done, held = taken(client, "done", "held")
        client.complete(done)

        with client.keep_alive(done, held):
            time.let_pass(20.0)

        assert script.calls("renew") == [("held",)]
        assert losses(events) == []

    def test_and_renewing_by_hand_go_together(self, client: QueueClient, time: Keeping) -> None:
        message = one(client)

        with client.keep_alive(message):
            time.let_pass(10.0)
            client.renew(message)
            time.let_pass(60.0)
            client.renew(message, lease=6.0)
            time.let_pass(60.0)

            assert not message.lease.lost

    def test_tells_of_a_loss(
        self, client: QueueClient, time: Keeping, script: Script, events: list[Event]
    ) -> None:
        message = one(client)
        script.always("renew", fails(InvalidReceipt))

        with client.keep_alive(message):
            time.let_pass(15.0)

            with pytest.raises(LeaseLost):
                message.lease.check()
        [event] = losses(events)
        assert (event.queue, getattr(event, "message_id", "")) == ("jobs", "m")

    def test_a_renewal_under_way_does_not_undo_an_abandon(
        self, client: QueueClient, clock: FakeClock, script: Script
    ) -> None:
        message = one(client)
        with Gate() as gate, ThreadPoolExecutor(1) as aside:
            script.then("renew", gate)
            with client.keep_alive(message):
                clock.block_until(1)
                clock.advance(15.0)
                gate.wait_until_reached()
            abandoning = aside.submit(client.abandon, message, delay=60.0)
            clock.block_until(2)

            assert script.calls("settle") == []
            gate.open()
            abandoning.result(REAL)

        clock.advance(45.0)
        assert client.receive("jobs") == [], "the delay that was asked for is the one that counts"

    def test_a_completion_makes_no_loss_of_a_renewal_that_comes_too_late(
        self, client: QueueClient, clock: FakeClock, script: Script, events: list[Event]
    ) -> None:
        message = one(client)
        with Gate() as gate, client.keep_alive(message):
            script.then("renew", gate)
            clock.block_until(1)
            clock.advance(15.0)
            gate.wait_until_reached()

            client.complete(message)
            gate.open()
            client.runtime().pool.submit_in("jobs", lambda: None).result(REAL)

            assert losses(events) == []
            assert message.settled_as == "completed"


@pytest.mark.parametrize("queue", ["events", "groups"])
class TestASession:
    def test_gives_its_messages_in_order_and_they_leave_it_settled(
        self, client: QueueClient, queue: str
    ) -> None:
        send(client, queue, "a1")
        with accepted(client, queue) as session:
            [first] = session.receive()
            session.complete(first)
            session.complete(first)
            assert session.receive() == []
        send(client, queue, "a2")
        with accepted(client, queue) as session:
            session.dead_letter(session.receive(), reason="bad")

        assert stored(client, queue) == []
        assert client.dead_letters(queue).count() == 1

    def test_left_is_free_at_once_with_what_was_not_settled(self, client: QueueClient, queue: str) -> None:
        send(client, queue, "a1")
        with accepted(client, queue) as session:
            [message] = session.receive()

        again = accepted(client, queue).receive()
        assert [each.id for each in again] == ["a1"]
        with pytest.raises(SessionLeaseLost, match="it was closed"):
            session.complete(message)

    def test_is_kept_alive_inside_its_block(
        self, client: QueueClient, queue: str, clock: FakeClock, script: Script
    ) -> None:
        send(client, queue, "a1")
        with accepted(client, queue) as session:
            [message] = session.receive()
            for _ in range(8):
                calls = len(script.calls("renew")) + len(script.calls("session.renew"))
                clock.block_until(1)
                clock.advance(15.0)
                until = lambda calls=calls: (  # noqa: E731
                    len(script.calls("renew")) + len(script.calls("session.renew")) > calls
                )
                eventually(until)
                eventually(lambda: session.lease.remaining() == 30.0)

            session.complete(message)

    def test_abandoned_is_over(self, client: QueueClient, queue: str, clock: FakeClock) -> None:
        send(client, queue, "a1")
        with accepted(client, queue) as session:
            [message] = session.receive()
            session.abandon(message, delay=60.0)
            session.abandon(message)

            assert session.receive() == []
            with pytest.raises(SessionLeaseLost):
                session.renew()
        assert client.accept_session(queue) is None
        clock.advance(60.0)
        assert [m.id for m in accepted(client, queue).receive()] == ["a1"]

    def test_is_renewed_by_hand(self, client: QueueClient, queue: str, clock: FakeClock) -> None:
        send(client, queue, "a1")
        session = accepted(client, queue)
        clock.advance(20.0)

        session.renew()
        clock.advance(20.0)

        assert not session.lease.lost
        session.complete(session.receive())

    def test_renewed_by_hand_is_kept_alive_all_the_same(
        self, client: QueueClient, queue: str, clock: FakeClock, time: Keeping
    ) -> None:
        send(client, queue, "a1")
        with accepted(client, queue) as session:
            time._lanes = [session._session]  # type: ignore[list-item]
            [message] = session.receive()
            time.let_pass(10.0)
            session.renew()
            time.let_pass(90.0)

            session.complete(message)

    def test_lost_settles_nothing(self, client: QueueClient, queue: str, clock: FakeClock) -> None:
        send(client, queue, "a1")
        session = accepted(client, queue)
        [message] = session.receive()
        clock.advance(30.0)

        for act in (lambda: session.complete(message), session.renew, session.receive):
            with pytest.raises(SessionLeaseLost):
                act()
        assert repr(session) == f"<SessionClient 'a' of '{queue}' [lost]>"

    @pytest.mark.parametrize("delay", [-1, float("inf"), float("nan")])
    def test_refuses_a_delay_that_is_none(self, client: QueueClient, queue: str, delay: float) -> None:
        send(client, queue, "a1")
        with accepted(client, queue) as session:
            [message] = session.receive()

            with pytest.raises(InvalidArgument, match="delay must be a number of seconds from 0 on"):
                session.abandon(message, delay=delay)
            session.complete(message)

    @pytest.mark.parametrize(
        ("wrong", "text"),
        [
            ({"max_messages": 0}, "max_messages must be at least 1, it is 0"),
            ({"max_messages": -1}, "max_messages must be at least 1, it is -1"),
            ({"wait": -1.0}, "wait must be a number of seconds from 0 on, it is -1.0"),
            ({"wait": float("inf")}, "wait must be"),
        ],
    )
    def test_refuses_a_question_that_is_none(
        self, client: QueueClient, queue: str, wrong: dict[str, Any], text: str
    ) -> None:
        send(client, queue, "a1")
        with accepted(client, queue) as session, pytest.raises(InvalidArgument, match=text):
            session.receive(**wrong)

    def test_settles_as_often_as_may_help(self, client: QueueClient, queue: str, script: Script) -> None:
        send(client, queue, "a1")
        with accepted(client, queue) as session:
            for operation in ("settle", "session.settle"):
                script.then(operation, fails(Throttled))
            session.complete(session.receive())

        assert stored(client, queue) == []


def eventually(true: Callable[[], bool]) -> None:
    """Return when *true* is; for what another thread does at once, and nobody can wait for."""
    pause = threading.Event()
    for _ in range(int(REAL / 0.002)):
        if true():
            return
        pause.wait(0.002)
    pytest.fail("it has not come true")


class TestClosed:
    def test_every_verb_says_so(self, client: QueueClient) -> None:
        message, session = one(client), None
        send(client, "events", "a1")
        session = accepted(client)
        [inside] = session.receive()
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
            blocked = [
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

                assert our_threads() == ["queue_runtime-renew-1"]

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

        assert our_threads() == []

    def test_keeping_alive_needs_one_until_something_is_due(self, client: QueueClient) -> None:
        with client.keep_alive(one(client)):
            assert our_threads() == ["queue_runtime-scheduler"]

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
