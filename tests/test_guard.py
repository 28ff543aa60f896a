"""The guard: a broker that keeps failing is left alone, by operation and queue; every call is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from queue_runtime.breaker import BreakerPolicy
from queue_runtime.config import ProviderSettings
from queue_runtime.errors import (
    AuthorizationFailed,
    CircuitOpen,
    ConnectionFailed,
    InvalidReceipt,
    Outcome,
    OutcomeUnknown,
    ProviderError,
    QueueError,
    QueueNotFound,
    Throttled,
)
from queue_runtime.events import CircuitClosed, CircuitOpened, Event, Events, ProviderCalled
from queue_runtime.guard import Guard, GuardedProvider, translated
from queue_runtime.message import Delivery, Message
from queue_runtime.provider import Abandon, Complete, ProviderSession
from queue_runtime.providers import memory
from queue_runtime.testing import FakeClock
from tests.fakes import Act, Script, ScriptedClient, fails, fails_for

POLICY = BreakerPolicy(minimum_calls=4, failure_rate=0.5, window=60.0, open_for=5.0)
NAMES = {"jobs-in-the-cloud": "jobs"}


@dataclass
class Post:
    """A guarded broker, its script, and what is told of it."""

    clock: FakeClock = field(default_factory=FakeClock)
    script: Script = field(default_factory=Script)
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = ProviderSettings(
            provider="memory", options={"queues": "jobs-in-the-cloud,mails,events:sessions"}
        )
        inner = ScriptedClient(memory.create(settings, self.clock), self.script)
        self.guard = Guard(
            "memory",
            policy=lambda queue: POLICY,
            clock=self.clock,
            events=Events([self.events.append]),
            label=lambda target: NAMES.get(target, target),
        )
        self.provider = GuardedProvider(inner, self.guard)

    def send(self, queue: str = "jobs-in-the-cloud", *ids: str) -> Sequence[Outcome[None]]:
        return self.provider.send(queue, [Message(body=b"x", id=each) for each in ids or ("m",)])

    def told(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if type(event) is kind]

    def held(self, queue: str = "jobs-in-the-cloud") -> Delivery:
        self.send(queue)
        return self.provider.receive(queue, 1, 0.0)[0]

    def open_the_breaker(self, operation: str, act: Callable[[], object]) -> None:
        self.script.always(operation, fails(Throttled))
        for _ in range(POLICY.minimum_calls):
            with pytest.raises(Throttled):
                act()
        with pytest.raises(CircuitOpen):
            act()


@pytest.fixture
def post() -> Post:
    return Post()


def session_of(post: Post) -> ProviderSession:
    post.provider.send("events", [Message(body=b"x", session_id="s")])
    return post.provider.accept_sessions("events", 1, 0.0)[0]


def test_an_error_goes_by_the_programs_name_of_the_queue_whatever_the_provider_has_called_it(
    post: Post,
) -> None:
    def refuses(act: Act) -> None:
        raise QueueNotFound("gone", queue=act.queue)

    post.script.always("send", refuses)

    with pytest.raises(QueueNotFound) as caught:
        post.send()

    assert caught.value.queue == "jobs"


class TestTheBreaker:
    def test_refuses_at_once_what_keeps_failing(self, post: Post) -> None:
        post.script.always("send", fails(ConnectionFailed))
        for _ in range(4):
            with pytest.raises(ConnectionFailed):
                post.send()

        with pytest.raises(CircuitOpen) as caught:
            post.send()

        assert len(post.script.calls("send")) == 4
        assert caught.value.retry_at == post.clock.now() + timedelta(seconds=5)
        assert (caught.value.queue, caught.value.operation, caught.value.provider) == (
            "jobs",
            "send",
            "memory",
        )
        assert "send on queue 'jobs' keeps failing" in str(caught.value)
        assert caught.value.retry_after == 5.0
        assert not caught.value.retryable

    def test_is_one_for_each_queue(self, post: Post) -> None:
        post.open_the_breaker("send", post.send)

        post.script.always("send")

        assert post.send("mails")[0].ok

    def test_is_one_for_each_operation(self, post: Post) -> None:
        post.open_the_breaker("send", post.send)

        assert post.provider.receive("jobs-in-the-cloud", 1, 0.0) == []
        assert post.provider.describe("jobs-in-the-cloud").active == 0

    @pytest.mark.parametrize("operation", ["describe", "receive", "accept_sessions", "peek"])
    def test_stands_before_every_call_that_begins_new_work(self, post: Post, operation: str) -> None:
        calls: dict[str, Callable[[], object]] = {
            "describe": lambda: post.provider.describe("mails"),
            "receive": lambda: post.provider.receive("mails", 1, 0.0),
            "accept_sessions": lambda: post.provider.accept_sessions("events", 1, 0.0),
            "peek": lambda: post.provider.peek("mails", 1),
        }

        post.open_the_breaker(operation, calls[operation])

    def test_lets_one_call_try_after_a_while_and_closes_when_it_goes_well(self, post: Post) -> None:
        post.open_the_breaker("send", post.send)
        post.script.always("send")

        post.clock.advance(5.0)

        assert post.send()[0].ok
        assert post.send()[0].ok

    def test_opens_again_when_the_try_fails(self, post: Post) -> None:
        post.open_the_breaker("send", post.send)
        post.clock.advance(5.0)

        with pytest.raises(Throttled):
            post.send()
        with pytest.raises(CircuitOpen):
            post.send()

    def test_does_not_count_what_is_wrong_with_the_request(self, post: Post) -> None:
        post.script.always("send", fails(AuthorizationFailed))

        for _ in range(10):
            with pytest.raises(AuthorizationFailed):
                post.send()

    def test_counts_an_unknown_outcome(self, post: Post) -> None:
        post.script.always("send", fails(OutcomeUnknown))
        for _ in range(4):
            with pytest.raises(OutcomeUnknown):
                post.send()

        with pytest.raises(CircuitOpen):
            post.send()

    def test_counts_a_batch_in_which_every_entry_failed_for_a_passing_reason(self, post: Post) -> None:
        post.script.always("send", fails_for({"a": Throttled, "b": ConnectionFailed}))
        for _ in range(4):
            post.send("mails", "a", "b")

        with pytest.raises(CircuitOpen):
            post.send("mails", "a", "b")

    @pytest.mark.parametrize(
        "errors",
        [{"a": Throttled}, {"a": Throttled, "b": AuthorizationFailed}],
        ids=["one went well", "one was refused"],
    )
    def test_does_not_count_a_batch_that_the_broker_has_dealt_with(
        self, post: Post, errors: dict[str, type[QueueError]]
    ) -> None:
        post.script.always("send", fails_for(errors))

        for _ in range(10):
            post.send("mails", "a", "b")

        assert post.told(CircuitOpened) == []


class TestWorkThatIsDone:
    def test_is_settled_and_renewed_however_the_broker_is_doing(self, post: Post) -> None:
        held = post.held()
        for operation in ("settle", "renew"):
            post.script.then(operation, *[fails(ConnectionFailed)] * 20)
        for _ in range(20):
            with pytest.raises(ConnectionFailed):
                post.provider.settle("jobs-in-the-cloud", [Complete(held)])
            with pytest.raises(ConnectionFailed):
                post.provider.renew("jobs-in-the-cloud", [held])

        assert post.provider.renew("jobs-in-the-cloud", [held])[0].ok
        assert post.provider.settle("jobs-in-the-cloud", [Complete(held)])[0].ok

    def test_goes_on_in_a_session_in_hand(self, post: Post) -> None:
        session = session_of(post)
        for operation in ("session.receive", "session.settle", "session.renew"):
            post.script.then(operation, *[fails(ConnectionFailed)] * 20)
        for _ in range(20):
            with pytest.raises(ConnectionFailed):
                session.receive(1, 0.0)
            with pytest.raises(ConnectionFailed):
                session.renew()
            with pytest.raises(ConnectionFailed):
                session.settle([])

        [held] = session.receive(1, 0.0)
        assert session.renew() == session.leased_until == post.clock.monotonic() + 30.0
        assert session.settle([Complete(held)])[0].ok
        session.close()

    def test_the_loss_of_a_session_reaches_its_holder(self, post: Post) -> None:
        session = session_of(post)
        reasons: list[str] = []
        session.on_lost = reasons.append

        session._inner._inner.on_lost("the link is gone")  # type: ignore[attr-defined]

        assert reasons == ["the link is gone"]


class TestWhatIsTold:
    def test_every_call_is_with_its_time_and_number(self, post: Post) -> None:
        def slow(act: Act) -> object:
            post.clock.advance(2.5)
            return act.run()

        post.script.then("receive", slow)
        post.send("jobs-in-the-cloud", "a", "b")
        post.provider.receive("jobs-in-the-cloud", 10, 0.0)

        assert post.told(ProviderCalled) == [
            ProviderCalled(queue="jobs", operation="send", messages=2, seconds=0.0, error=None),
            ProviderCalled(queue="jobs", operation="receive", messages=2, seconds=2.5, error=None),
        ]

    def test_a_failed_call_is_with_its_error(self, post: Post) -> None:
        post.script.then("send", fails(Throttled), fails_for({"a": ConnectionFailed, "b": Throttled}))

        with pytest.raises(Throttled):
            post.send("mails", "a", "b")
        post.send("mails", "a", "b")

        assert [getattr(event, "error", "") for event in post.events] == ["Throttled", "ConnectionFailed"]

    def test_a_refused_call_is_none(self, post: Post) -> None:
        post.open_the_breaker("send", post.send)

        assert len(post.told(ProviderCalled)) == 4

    def test_the_breaker_tells_when_it_opens_and_closes(self, post: Post) -> None:
        post.open_the_breaker("send", post.send)
        retry_at = post.clock.now() + timedelta(seconds=5)
        post.script.always("send")
        post.clock.advance(5.0)
        post.send()

        assert post.told(CircuitOpened) == [CircuitOpened(queue="jobs", operation="send", retry_at=retry_at)]
        assert post.told(CircuitClosed) == [CircuitClosed(queue="jobs", operation="send")]


class TestErrors:
    def test_say_where_they_happened_by_the_programs_own_names(self, post: Post) -> None:
        post.script.then("send", fails(Throttled))

        with pytest.raises(Throttled) as caught:
            post.send()

        found = caught.value
        assert (found.queue, found.operation, found.provider) == ("jobs", "send", "memory")

    def test_of_one_entry_do_too(self, post: Post) -> None:
        held = post.held()
        post.provider.settle("jobs-in-the-cloud", [Complete(held)])

        [outcome] = post.provider.settle("jobs-in-the-cloud", [Abandon(held)])

        assert isinstance(outcome.error, InvalidReceipt)
        assert (outcome.error.queue, outcome.error.operation) == ("jobs", "settle")

    def test_keep_what_the_provider_knew_better(self, post: Post) -> None:
        def fail(act: object) -> None:
            raise QueueNotFound("gone", queue="another", operation="lookup")

        post.script.then("send", fail)

        with pytest.raises(QueueNotFound) as caught:
            post.send()

        assert (caught.value.queue, caught.value.operation) == ("another", "lookup")


def test_what_a_queue_can_do_is_asked_once_and_again_when_it_was_gone(post: Post) -> None:
    for _ in range(3):
        post.provider.capabilities("mails")
    assert len(post.script.calls("capabilities")) == 1
    post.script.then("receive", fails(QueueNotFound))
    with pytest.raises(QueueNotFound):
        post.provider.receive("mails", 1, 0.0)

    assert post.provider.known("mails") is None
    assert post.provider.capabilities("mails") == post.provider.known("mails")
    assert len(post.script.calls("capabilities")) == 2


def test_what_a_queue_can_do_is_known_from_its_description_too(post: Post) -> None:
    post.provider.capabilities("mails")
    now = replace(post.provider.describe("mails").capabilities, max_batch=3)
    post.script.then("describe", lambda act: replace(act.run(), capabilities=now))

    post.provider.describe("mails")

    assert post.provider.capabilities("mails") == now


def test_what_asks_the_broker_nothing_is_not_counted(post: Post) -> None:
    post.provider.capabilities("mails")
    post.events.clear()  # the first time it asks the broker
    post.provider.capabilities("mails")
    post.provider.size("mails", Message(body=b"x"))
    post.provider.wake("mails")
    post.provider.close()

    assert post.events == []


def test_an_error_that_the_provider_overlooked_is_a_provider_error_without_its_text() -> None:
    def overlooked() -> None:
        raise KeyError("a key that may be a secret")

    with pytest.raises(ProviderError) as caught:
        translated(overlooked)

    assert "KeyError" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)
    assert not caught.value.retryable


def test_the_breaker_knows_a_queue_that_was_never_seen(post: Post) -> None:
    post.script.always("capabilities", fails(ConnectionFailed))

    for _ in range(BreakerPolicy().minimum_calls):
        with pytest.raises(QueueError):
            post.provider.capabilities("mails")

    with pytest.raises(CircuitOpen):
        post.provider.capabilities("mails")


def test_a_batch_that_is_refused_as_a_whole_is_told_as_a_failure(post: Post) -> None:
    post.script.always("send", fails_for({"a": QueueNotFound, "b": QueueNotFound}))

    post.send("mails", "a", "b")

    (told,) = post.told(ProviderCalled)
    assert isinstance(told, ProviderCalled)
    assert (told.error, told.refused) == ("QueueNotFound", True)
