"""Settling: gone when the broker has agreed, an answer for each, and what is unknown is said to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from queue_runtime import QueueClient, connect
from queue_runtime.errors import (
    AuthorizationFailed,
    BatchFailed,
    InvalidArgument,
    InvalidReceipt,
    LeaseLost,
    OutcomeUnknown,
    SettlementError,
    Throttled,
    UnsupportedOperation,
)
from queue_runtime.testing import FakeClock
from tests.client.hands import accepted, one, outcomes_of, send, taken
from tests.fakes import Act, Script, fails, fails_for, loses, stored


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
