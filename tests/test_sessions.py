"""Sessions made of exclusive groups, on the memory provider's `groups`, which do what SQS FIFO does."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from queue_runtime import Message, QueueClient, SessionClient, connect
from queue_runtime.errors import OutcomeUnknown, QueueError, SessionLeaseLost, Throttled
from queue_runtime.events import Event, LostLease
from queue_runtime.message import Delivery
from queue_runtime.provider import Abandon, Complete
from queue_runtime.sessions import UNTAKEN
from queue_runtime.testing import FakeClock

QUEUE = "events"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def client(clock: FakeClock, events: list[Event]) -> Iterator[QueueClient]:
    with connect("memory://?queues=events:groups&lease=30", clock=clock, listeners=[events.append]) as made:
        yield made


def send(client: QueueClient, *texts: str) -> None:
    """Each text is a session's letter and a number: ``a1``."""
    client.send_batch(QUEUE, [Message.of(text, session_id=text[0]) for text in texts])


def accept(client: QueueClient) -> SessionClient:
    session = client.accept_session(QUEUE)
    assert session is not None
    return session


def texts(session: SessionClient) -> list[str]:
    return [message.text for message in session.receive()]


def elsewhere(client: QueueClient, most: int = 10) -> list[Delivery]:
    """What another process would be handed now."""
    return list(client.runtime().provider.receive(QUEUE, most, 0.0))


class TestAccepting:
    def test_a_session_is_what_was_handed_out_together_in_order(self, client: QueueClient) -> None:
        send(client, "a1", "a2", "a3")
        accept(client).close()  # the first fetch learns that there is more than one of a session

        assert texts(accept(client)) == ["a1", "a2", "a3"]

    def test_two_accepts_get_two_sessions(self, client: QueueClient) -> None:
        send(client, "a1", "b1")

        assert {accept(client).session_id, accept(client).session_id} == {"a", "b"}

    def test_nothing_is_fetched_while_nobody_waits(self, client: QueueClient) -> None:
        send(client, "a1", "b1", "c1")
        accept(client)

        assert (client.describe(QUEUE).leased or 0) <= 2

    def test_a_fetched_session_that_nobody_takes_goes_back(
        self, client: QueueClient, clock: FakeClock
    ) -> None:
        send(client, "a1", "b1")
        accept(client)
        assert client.describe(QUEUE).active == 0, "both were fetched at once"

        clock.block_until(1)
        clock.advance(UNTAKEN)

        wait_until(lambda: client.describe(QUEUE).active == 1)

    def test_a_drained_session_gives_nothing_more_and_its_successor_is_accepted(
        self, client: QueueClient
    ) -> None:
        send(client, "a1")
        first = accept(client)
        first.complete(first.receive())
        send(client, "a2")

        second = accept(client)

        assert texts(first) == []
        assert texts(second) == ["a2"]

    def test_a_session_is_not_handed_out_twice_in_one_process(self, client: QueueClient) -> None:
        send(client, "a1")
        accept(client)
        send(client, "a2")

        assert client.accept_session(QUEUE) is None

    def test_a_message_without_a_session_is_one_of_its_own(self, client: QueueClient) -> None:
        client.send_batch(QUEUE, [Message.of("x"), Message.of("y")])

        got = [texts(accept(client)), texts(accept(client))]

        assert sorted(got) == [["x"], ["y"]]

    def test_waiting_accepts_share_one_fetch(self, client: QueueClient, clock: FakeClock) -> None:
        found: list[SessionClient | None] = []
        waiting = [
            threading.Thread(target=lambda: found.append(client.accept_session(QUEUE, wait=10)))
            for _ in range(3)
        ]
        for thread in waiting:
            thread.start()
        clock.block_until(3)

        send(client, "a1", "b1", "c1")
        for thread in waiting:
            thread.join(5)

        assert sorted(session.session_id for session in found if session) == ["a", "b", "c"]

    def test_an_accept_answers_none_after_its_wait(self, client: QueueClient, clock: FakeClock) -> None:
        found: list[SessionClient | None] = []
        waiting = threading.Thread(target=lambda: found.append(client.accept_session(QUEUE, wait=7)))
        waiting.start()
        clock.block_until(1)

        clock.advance(7)
        waiting.join(5)

        assert found == [None]

    def test_many_short_sessions_are_fetched_one_by_one(self, client: QueueClient) -> None:
        send(client, *(f"{chr(0x4E00 + n)}1" for n in range(40)))
        accept(client)  # learns that there is one of each

        for taken in range(3, 15):
            accept(client)
            assert (client.describe(QUEUE).leased or 0) <= taken, "none is fetched for nobody"

    def test_now_and_then_a_fetch_asks_whether_sessions_have_become_longer(self, client: QueueClient) -> None:
        send(client, *(f"{chr(0x4E00 + n)}1" for n in range(40)))
        for _ in range(40):
            session = client.accept_session(QUEUE)
            if session is not None:
                session.complete(session.receive())
        send(client, *(f"a{n:03}" for n in range(200)))

        lengths = []
        for _ in range(30):
            session = accept(client)
            messages = session.receive()
            lengths.append(len(messages))
            session.complete(messages)

        assert max(lengths) == 4


class TestGivingBack:
    def test_an_abandoned_head_comes_first_after_its_delay_and_blocks_the_rest(
        self, client: QueueClient, clock: FakeClock
    ) -> None:
        send(client, "a1", "a2")
        session = accept(client)
        head, *_ = session.receive()

        session.abandon(head, delay=5)

        assert client.accept_session(QUEUE) is None
        clock.advance(5)
        assert texts(accept(client))[0] == "a1"

    def test_after_an_abandon_nothing_more_can_be_settled(self, client: QueueClient) -> None:
        send(client, "a1", "a2")
        accept(client).close()
        session = accept(client)
        first, second = session.receive()

        session.abandon(first)

        with pytest.raises(SessionLeaseLost):
            session.complete(second)
        assert session.receive() == []

    def test_closing_gives_everything_unsettled_back_at_once(self, client: QueueClient) -> None:
        send(client, "a1", "a2", "a3")
        accept(client).close()
        with accept(client) as session:
            session.complete(session.receive(max_messages=1))

        assert texts(accept(client)) == ["a2", "a3"]

    def test_a_closed_client_gives_back_what_nobody_took(self) -> None:
        clock = FakeClock()
        url = "memory://shared-for-closing?queues=events:groups"
        with connect(url, clock=clock) as other:
            with connect(url, clock=clock) as client:
                send(client, "a1", "b1")
                accept(client).close()

            assert other.describe(QUEUE).active == 2

    def test_an_abandon_that_was_not_answered_ends_the_session_too(
        self, client: QueueClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        send(client, "a1", "a2")
        accept(client).close()
        session = accept(client)
        first, second = session.receive()
        provider = client.runtime().provider
        settle = provider.settle

        def unanswered(*args: Any) -> Any:
            settle(*args)
            raise OutcomeUnknown("no answer")

        with monkeypatch.context() as patch:
            patch.setattr(provider, "settle", unanswered)
            patch.setattr(client.runtime(), "pause", lambda seconds: False)
            with pytest.raises(OutcomeUnknown):
                session.abandon(first)

        with pytest.raises(SessionLeaseLost):
            session.complete(second)

    def test_a_backoff_that_was_not_confirmed_is_asked_for_again_by_close(
        self, client: QueueClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        send(client, "a1")
        session = accept(client)
        (message,) = session.receive()
        provider = client.runtime().provider

        def throttled(*args: Any) -> Any:
            raise Throttled("slowly")

        with monkeypatch.context() as patch:
            patch.setattr(provider, "settle", throttled)
            with pytest.raises(Throttled):
                session.settle_once([message], [Abandon(message.delivery, 5.0)])
        session.close()

        assert client.describe(QUEUE).delayed == 1

    def test_two_threads_that_complete_one_message_do_not_lose_the_session(self, client: QueueClient) -> None:
        send(client, "a1", "a2")
        accept(client).close()
        session = accept(client)
        first, second = session.receive()
        complete = Complete(first.delivery)
        session.settle_once([first], [complete])

        session.settle_once([first], [complete])  # as if both had begun at once

        session.complete(second)


class TestLosing:
    def test_a_session_is_lost_when_its_lease_ends(self, client: QueueClient, clock: FakeClock) -> None:
        send(client, "a1")
        session = accept(client)
        (message,) = session.receive()

        clock.advance(30)

        assert session.lease.lost
        with pytest.raises(SessionLeaseLost):
            session.complete(message)
        assert texts(accept(client)) == ["a1"]

    def test_a_session_in_a_with_block_is_kept_alive(self, client: QueueClient, clock: FakeClock) -> None:
        send(client, "a1", "a2")
        accept(client).close()
        with accept(client) as session:
            first, second = session.receive()
            for _ in range(20):
                clock.block_until(1)  # the scheduler
                clock.advance(5)
                # Due with 15 s left, or less where the last renewal was still under way when time went on.
                wait_until(lambda: session.lease.remaining() > 10)

            session.complete([first, second])

    def test_one_message_that_cannot_be_renewed_loses_the_whole_session(
        self, client: QueueClient, events: list[Event], clock: FakeClock
    ) -> None:
        send(client, "a1", "a2")
        accept(client).close()
        with accept(client) as session:
            first, second = session.receive()
            provider = client.runtime().provider
            provider.settle(QUEUE, [Complete(second.delivery)])  # behind the session's back

            clock.block_until(1)
            clock.advance(15)
            wait_until(lambda: session.lease.lost)

            with pytest.raises(SessionLeaseLost):
                session.complete(first)
        assert [type(event) for event in events].count(LostLease) == 1

    def test_a_head_handed_out_again_ends_the_hold_on_the_rest(self, client: QueueClient) -> None:
        send(client, "a1", "a2")
        accept(client).close()
        session = accept(client)
        first, second = session.receive()
        # What a lapsed lease of the head alone does: it is visible again, the second is still out.
        client.runtime().provider.settle(QUEUE, [Abandon(first.delivery)])

        again = accept(client)

        assert texts(again) == ["a1"]
        assert session.lease.lost
        with pytest.raises(SessionLeaseLost):
            session.complete(second)

    def test_losing_a_session_does_not_release_what_another_now_holds(self, client: QueueClient) -> None:
        send(client, "a1", "a2")
        accept(client).close()
        session = accept(client)
        first, _ = session.receive()
        provider = client.runtime().provider
        provider.settle(QUEUE, [Abandon(first.delivery)])
        again = accept(client)

        session.close()

        assert client.describe(QUEUE).leased == 1, "a1 stays with its new holder; a2 is free behind it"
        assert texts(again) == ["a1"]

    def test_renewals_do_not_touch_what_is_being_settled(self, client: QueueClient, clock: FakeClock) -> None:
        send(client, "a1", "a2")
        accept(client).close()
        with accept(client) as session:
            first, second = session.receive()
            session.complete(first)

            clock.block_until(1)
            clock.advance(15)
            wait_until(lambda: session.lease.remaining() > 20)

            session.complete(second)


class TestOrder:
    def test_an_arrival_older_than_what_waits_voids_it(self, client: QueueClient) -> None:
        dispatcher = client.runtime().dispatcher(QUEUE)
        send(client, "a1", "a2")
        one, two = elsewhere(client)
        now = client.runtime().clock.monotonic()
        void: list[tuple[object, set[str]]] = []
        back: list[Delivery] = []

        with dispatcher._changed:
            dispatcher._sort_in([replace(two, leased_until=now + 30)], void, back)  # type: ignore[arg-type]
            dispatcher._sort_in([one], void, back)  # type: ignore[arg-type]

        assert not void
        assert {delivery.broker_id for delivery in back} == {one.broker_id, two.broker_id}
        assert client.accept_session(QUEUE) is None, "nothing of it is handed out out of order"

    @pytest.mark.parametrize("seed", range(5))
    def test_many_hands_with_mishaps_keep_each_session_in_order(self, seed: int) -> None:
        chance = random.Random(seed)
        sent = {letter: [f"{letter}{n:02}" for n in range(20)] for letter in "abcdefgh"}
        handled: dict[str, list[str]] = defaultdict(list)
        held: set[str] = set()
        overlaps: list[str] = []
        lock = threading.Lock()
        with connect("memory://?queues=events:groups&lease=30") as client:
            for row in zip(*sent.values(), strict=True):
                send(client, *row)

            def work() -> None:
                while session := client.accept_session(QUEUE, wait=0.2):
                    with session:
                        for message in session.receive():
                            letter = session.session_id
                            with lock:
                                mishap = chance.random()
                                overlaps.extend([letter] if letter in held else [])
                                held.add(letter)
                            if mishap >= 0.2:
                                handled[letter].append(message.text)
                            with lock:
                                held.discard(letter)
                            if mishap < 0.1:
                                session.abandon(message)
                            if mishap < 0.2:
                                break  # leaves the rest unsettled
                            session.complete(message)

            hands = [threading.Thread(target=work) for _ in range(6)]
            for hand in hands:
                hand.start()
            for hand in hands:
                hand.join(30)

        assert handled == sent
        assert not overlaps


def wait_until(fact: Callable[[], bool]) -> None:
    """Wait for what another thread does at once; the pool's threads do not wait on the clock."""
    changed = threading.Condition()
    with changed:
        for _ in range(1000):
            if fact():
                return
            changed.wait(0.005)
    raise AssertionError("it did not come")


def test_a_failing_fetch_reaches_its_caller_and_lets_the_next_one_fetch(
    client: QueueClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher = client.runtime().dispatcher(QUEUE)

    def fails(*args: object, **kwargs: object) -> list[Delivery]:
        raise QueueError("the broker is gone")

    with monkeypatch.context() as patch:
        patch.setattr(dispatcher.provider, "receive", fails)
        with pytest.raises(QueueError, match="gone"):
            dispatcher.accept(1, 0.0)
    send(client, "a1")

    assert texts(accept(client)) == ["a1"]
