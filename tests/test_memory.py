"""The memory provider beyond the contract: how it is declared and shared, what it shares with the clouds."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from queue_runtime.errors import (
    Closed,
    ConfigurationError,
    InvalidName,
    InvalidReceipt,
    QueueNotFound,
    UnsupportedOperation,
)
from queue_runtime.message import Message
from queue_runtime.provider import Complete
from queue_runtime.providers.memory import InMemoryClient
from queue_runtime.testing import FakeClock
from tests.fakes import REAL
from tests.memory_hands import DEAD, accept, made, names, receive, send


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def client(clock: FakeClock) -> InMemoryClient:
    return made("memory://?queues=events:sessions,groups:groups,jobs", clock)


class TestDeclaringQueues:
    def test_an_undeclared_one_is_not_there_and_the_error_lists_those_that_are(
        self, client: InMemoryClient
    ) -> None:
        for act in (lambda: client.describe("job"), lambda: client.receive("job", 1, 0.0)):
            with pytest.raises(
                QueueNotFound, match=r"no queue 'job' .* it has: events, groups, jobs\. Declare it"
            ):
                act()

    def test_without_any_there_are_none(self) -> None:
        with pytest.raises(QueueNotFound, match="it has: none"):
            made("memory://").describe("jobs")

    @pytest.mark.parametrize(
        ("url", "text"),
        [
            ("memory://?queues=jobs:fifo", "'jobs:fifo' is neither NAME nor NAME:KIND with a kind of plain"),
            ("memory://?queues=jobs,jobs:groups", "'jobs' is declared twice, as plain and as groups"),
            ("memory://?queues=a b", "queue name 'a b' has white space"),
            ("memory://?lease=0", "lease must be a number above 0, it is '0'"),
            ("memory://?lease=inf", "lease must be"),
            ("memory://?lease=nan", "lease must be"),
            ("memory://?max_message_size=0", "max_message_size must be"),
            ("memory://?max_message_size=big", "max_message_size must be"),
            (
                "memory://?dead_letter_expired=yes",
                "dead_letter_expired = 'yes' is not usable: write true or false",
            ),
            ("memory://?leases=1", "unknown option 'leases'"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, url: str, text: str) -> None:
        with pytest.raises((ConfigurationError, InvalidName), match=text):
            made(url)

    def test_each_has_dead_letters_and_those_have_none(self, client: InMemoryClient) -> None:
        assert client.describe("jobs").dead_letter_queue == "jobs" + DEAD
        assert client.describe("jobs" + DEAD).dead_letter_queue is None

    def test_its_lease_and_size_are_those_of_the_url(self) -> None:
        found = made("memory://?queues=jobs&lease=2.5&max_message_size=100").describe("jobs")

        assert (found.lease, found.capabilities.max_message_size) == (2.5, 100)

    def test_kinds_differ_in_what_they_can(self, client: InMemoryClient) -> None:
        can = {queue: client.capabilities(queue) for queue in ("events", "groups", "jobs")}

        assert {queue: each.sessions for queue, each in can.items()} == {
            "events": "native",
            "groups": "groups",
            "jobs": "none",
        }
        assert {queue: each.atomic_batch for queue, each in can.items()} == {
            "events": True,
            "groups": False,
            "jobs": True,
        }


class TestSharing:
    def test_a_name_is_a_broker_for_all_that_give_it(self) -> None:
        clock = FakeClock()
        one, other = made("memory://shared?queues=jobs", clock), made("memory://shared?queues=mails", clock)

        send(one, "jobs", "a1")
        send(one, "mails", "b1")

        assert (receive(other, "jobs"), receive(other, "mails")) == (["a1"], ["b1"])

    def test_without_a_name_it_is_private(self) -> None:
        one, other = made("memory://?queues=jobs"), made("memory://?queues=jobs")

        send(one, "jobs", "a1")

        assert receive(other, "jobs") == []

    def test_it_has_the_clock_of_the_first(self) -> None:
        first = FakeClock()
        one, other = made("memory://clocks?queues=jobs", first), made("memory://clocks?queues=jobs")

        send(other, "jobs", "a1", delay=5.0)
        first.advance(5.0)

        assert receive(one, "jobs") == ["a1"]

    def test_it_is_gone_with_the_last_that_refers_to_it(self) -> None:
        one = made("memory://passing?queues=jobs")
        send(one, "jobs", "a1")
        gone = weakref.ref(one._broker)

        del one
        gc.collect()

        assert gone() is None
        assert receive(made("memory://passing?queues=jobs"), "jobs") == []

    @pytest.mark.parametrize(
        ("second", "text"),
        [
            ("queues=jobs:sessions", "queue 'jobs' is plain already, it cannot be sessions"),
            ("queues=jobs&lease=7", "queue 'jobs' has a lease of 5 s already, not 7 s"),
        ],
    )
    def test_what_contradicts_the_first_is_refused(self, second: str, text: str) -> None:
        first = made("memory://settled?queues=jobs&lease=5")

        with pytest.raises(ConfigurationError, match=text):
            made(f"memory://settled?{second}")
        assert made("memory://settled?queues=jobs").describe("jobs").lease == 5.0
        assert first.describe("jobs").active == 0

    def test_closing_one_closes_no_other(self) -> None:
        one, other = made("memory://closing?queues=jobs"), made("memory://closing?queues=jobs")

        one.close()

        send(other, "jobs", "a1")
        with pytest.raises(Closed):
            send(one, "jobs", "b1")
        assert receive(other, "jobs") == ["a1"]


class TestAPlainQueue:
    def test_gives_the_oldest_first_and_each_once(self, client: InMemoryClient) -> None:
        send(client, "jobs", "a1", "b1", "c1")

        assert [receive(client, "jobs", 2), receive(client, "jobs", 2)] == [["a1", "b1"], ["c1"]]

    def test_counts_what_is_free_held_and_delayed(self, client: InMemoryClient, clock: FakeClock) -> None:
        send(client, "jobs", "a1", "b1")
        send(client, "jobs", "c1", delay=60.0)
        receive(client, "jobs", 1)

        def counts() -> tuple[int | None, ...]:
            found = client.describe("jobs")
            return found.active, found.leased, found.delayed

        assert counts() == (1, 1, 1)
        clock.advance(30.0)
        assert counts() == (2, 0, 1)
        clock.advance(30.0)
        assert counts() == (3, 0, 0)

    def test_takes_a_message_twice_for_it_knows_no_repetition(self, client: InMemoryClient) -> None:
        send(client, "jobs", "a1", "a1")

        assert receive(client, "jobs") == ["a1", "a1"]

    @pytest.mark.parametrize("what", ["a message", "a delay that ends", "a lease that ends"])
    def test_ends_the_wait_of_a_receive_when_there_is_something(
        self, client: InMemoryClient, clock: FakeClock, what: str
    ) -> None:
        if what == "a lease that ends":
            send(client, "jobs", "a1")
            receive(client, "jobs")
        elif what == "a delay that ends":
            send(client, "jobs", "a1", delay=30.0)
        with ThreadPoolExecutor(1) as aside:
            waiting = aside.submit(client.receive, "jobs", 1, 60.0)
            clock.block_until(1)
            if what == "a message":
                send(client, "jobs", "a1")
            else:
                clock.advance(30.0)

            assert names(waiting.result(REAL)) == ["a1"]

    def test_takes_back_what_is_scheduled_and_not_due(self, client: InMemoryClient, clock: FakeClock) -> None:
        early, late, gone = (
            outcome.value or ""
            for outcome in client.schedule(
                "jobs",
                [Message(body=b"", id=n, delay=d) for n, d in (("a1", 10.0), ("b1", 60.0), ("c1", 60.0))],
            )
        )
        assert client.cancel("jobs", [gone])[0].ok
        clock.advance(10.0)

        answers = client.cancel("jobs", [early, late, gone, "no number"])

        assert [type(answer.error) for answer in answers] == [
            InvalidReceipt,
            type(None),
            InvalidReceipt,
            InvalidReceipt,
        ]
        assert receive(client, "jobs") == ["a1"]
        clock.advance(50.0)
        assert receive(client, "jobs") == ["a1"], "its lease ran out; nothing else is there"

    def test_shows_what_is_behind_a_place(self, client: InMemoryClient) -> None:
        send(client, "jobs", *(f"a{n}" for n in range(5)))
        first = client.peek("jobs", 2)

        rest = client.peek("jobs", 9, after=first[-1].sequence or 0)

        assert names(first) + names(rest) == [f"a{n}" for n in range(5)]
        assert client.peek("jobs", 9, after=rest[-1].sequence or 0) == []

    def test_is_not_for_accepting_sessions(self, client: InMemoryClient) -> None:
        with pytest.raises(UnsupportedOperation, match="queue 'jobs' has no sessions"):
            client.accept_sessions("jobs", 1, 0.0)


@pytest.mark.parametrize("queue", ["events", "groups"])
class TestDeduplication:
    def test_drops_what_has_an_id_that_was_seen_in_the_last_five_minutes(
        self, client: InMemoryClient, clock: FakeClock, queue: str
    ) -> None:
        send(client, queue, "a1")
        clock.advance(299.5)
        send(client, queue, "a1")
        assert len(client.peek(queue, 10)) == 1

        clock.advance(0.5)
        send(client, queue, "a1")
        assert len(client.peek(queue, 10)) == 2

    def test_goes_by_its_own_id_where_the_message_has_one(self, client: InMemoryClient, queue: str) -> None:
        client.send(queue, [Message(body=b"", id="m", deduplication_id=each) for each in ("x", "y", "x")])

        assert len(client.peek(queue, 10)) == 2

    def test_remembers_what_was_settled(self, client: InMemoryClient, queue: str) -> None:
        send(client, queue, "a1")
        if queue == "events":
            session = accept(client)
            session.settle([Complete(session.receive(1, 0.0)[0])])
        else:
            client.settle(queue, [Complete(client.receive(queue, 1, 0.0)[0])])

        send(client, queue, "a1")

        assert client.peek(queue, 10) == []


class TestWakingAndClosing:
    def test_closing_ends_every_wait_at_once(self, client: InMemoryClient, clock: FakeClock) -> None:
        send(client, "events", "a1")
        session = accept(client)
        session.receive(1, 0.0)
        with ThreadPoolExecutor(3) as aside:
            waits: list[Future[Any]] = [
                aside.submit(client.receive, "jobs", 1, 20.0),
                aside.submit(client.accept_sessions, "events", 1, 20.0),
                aside.submit(session.receive, 1, 20.0),
            ]
            clock.block_until(3)

            client.close()

            assert [type(each.exception(REAL)) for each in waits] == [Closed] * 3

    def test_waking_ends_the_waits_that_are_cancelled_and_no_others(
        self, client: InMemoryClient, clock: FakeClock
    ) -> None:
        send(client, "events", "a1")
        session = accept(client)
        session.receive(1, 0.0)
        over = threading.Event()
        with ThreadPoolExecutor(4) as aside:
            patient = aside.submit(client.receive, "jobs", 1, 20.0)
            waits: list[Future[Any]] = [
                aside.submit(client.receive, "jobs", 1, 20.0, cancelled=over.is_set),
                aside.submit(client.accept_sessions, "events", 1, 20.0, cancelled=over.is_set),
                aside.submit(session.receive, 1, 20.0, cancelled=over.is_set),
            ]
            clock.block_until(4)

            over.set()
            client.wake("jobs")
            client.wake("events")

            assert [each.result(REAL) for each in waits] == [[], [], []]
            clock.block_until(1)
            send(client, "jobs", "a1")
            assert names(patient.result(REAL)) == ["a1"]

    def test_a_wait_that_was_cancelled_before_it_began_is_none(self, client: InMemoryClient) -> None:
        assert client.receive("jobs", 1, 20.0, cancelled=lambda: True) == []
        assert client.accept_sessions("events", 1, 20.0, cancelled=lambda: True) == []

    def test_twice_is_harmless(self, client: InMemoryClient) -> None:
        client.close()
        client.close()


class TestTimeToLive:
    @pytest.mark.parametrize("queue", ["events", "groups", "jobs"])
    @pytest.mark.parametrize("buried", [False, True])
    def test_an_expired_message_goes_where_the_queue_says(
        self, clock: FakeClock, queue: str, buried: bool
    ) -> None:
        client = made(
            f"memory://?queues=events:sessions,groups:groups,jobs&dead_letter_expired={str(buried).lower()}",
            clock,
        )
        message = Message(body=b"x", id="m1", session_id="s", time_to_live=60.0)
        client.send(queue, [message, Message(body=b"x", id="m2", session_id="s")])

        clock.advance(59.9)
        assert client.describe(queue).active == 2
        clock.advance(0.1)

        assert names(client.peek(queue + DEAD, 10)) == (["m1"] if buried else [])
        assert names(client.peek(queue, 10)) == ["m2"]
        if buried:
            [dead] = client.receive(queue + DEAD, 10, 0.0)
            assert dead.message == message
            assert dead.dead_letter is not None
            assert (dead.dead_letter.reason, dead.dead_letter.queue) == ("TimeToLiveExpired", queue)

    def test_a_queue_has_one_such_setting(self, clock: FakeClock) -> None:
        first = made("memory://expiring?queues=jobs&dead_letter_expired=true", clock)

        made("memory://expiring?queues=jobs", clock)
        with pytest.raises(ConfigurationError, match="'jobs' dead-letters what expires already"):
            made("memory://expiring?queues=jobs&dead_letter_expired=false", clock)

        assert first.describe("jobs").active == 0

    def test_what_a_renewed_session_has_in_hand_does_not_expire(
        self, client: InMemoryClient, clock: FakeClock
    ) -> None:
        client.send("events", [Message(body=b"x", session_id="s", time_to_live=40.0)])
        session = accept(client)
        [delivery] = session.receive(10, 0.0)
        for _ in range(3):
            clock.advance(20.0)
            session.renew()

        [outcome] = session.settle([Complete(delivery)])

        assert outcome.error is None

    def test_what_expires_while_a_receive_waits_is_not_handed_out(
        self, client: InMemoryClient, clock: FakeClock
    ) -> None:
        client.send("jobs", [Message(body=b"x", id="a", time_to_live=40.0)])
        client.receive("jobs", 1, 0.0, lease=60.0)

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(client.receive, "jobs", 1, 90.0)
            clock.block_until(1)
            clock.advance(60.0)  # it is free, and too late
            clock.block_until(1)
            send(client, "jobs", "b")

            assert names(waiting.result(REAL)) == ["b"]
