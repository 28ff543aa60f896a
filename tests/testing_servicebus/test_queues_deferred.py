"""Messages of the local Service Bus that were put aside to be asked for by number, and peeking."""

from __future__ import annotations

import pytest

from queue_runtime.testing.servicebus.queues import Incoming, Queue, QueueSettings, Refused, Stored
from tests.testing_servicebus.queue_hands import NOW, accepted, incoming, made, take, take_all, token


def deferred(queue: Queue, *sequences: int, now: float = NOW, delete: bool = False) -> list[Stored]:
    return queue.receive_deferred(sequences, delete=delete, session_id=None, holder="me", now=now)


@pytest.fixture
def queue() -> Queue:
    """Holds ``a`` deferred, ``b`` active."""
    queue = made()
    queue.send(incoming("a", "b"), NOW)
    queue.settle(token(take(queue)), "deferred", NOW, properties={"why": "later"})
    return queue


class TestADeferredMessage:
    def test_leaves_the_order(self, queue: Queue) -> None:
        assert take_all(queue) == ["b"]
        assert queue.stats()["deferred"] == 1

    def test_is_received_by_its_number(self, queue: Queue) -> None:
        [stored] = deferred(queue, 1)

        assert (stored.content, stored.state, stored.delivery_count) == ("a", "deferred", 0)
        assert stored.properties == {"why": "later"}
        queue.settle(token(stored), "completed", NOW)
        assert queue.stats()["deferred"] == 0

    def test_is_not_received_twice_at_a_time(self, queue: Queue) -> None:
        deferred(queue, 1)

        with pytest.raises(Refused) as refused:
            deferred(queue, 1)

        assert refused.value.condition == "com.microsoft:message-not-found"

    def test_stays_deferred_when_it_is_given_back(self, queue: Queue) -> None:
        queue.settle(token(deferred(queue, 1)[0]), "abandoned", NOW)

        assert take_all(queue) == ["b"]
        assert deferred(queue, 1)[0].delivery_count == 1

    def test_stays_deferred_when_its_lock_expires(self, queue: Queue) -> None:
        deferred(queue, 1)

        [stored] = deferred(queue, 1, now=NOW + 30.0)

        assert (stored.state, stored.delivery_count) == ("deferred", 1)

    def test_can_be_received_and_deleted(self, queue: Queue) -> None:
        deferred(queue, 1, delete=True)

        assert [each.content for each in queue.peek(0, 10, now=NOW)] == ["b"]

    def test_can_be_dead_lettered(self, queue: Queue) -> None:
        queue.settle(token(deferred(queue, 1)[0]), "dead-lettered", NOW)

        assert queue.stats()["dead"] == 1
        assert queue.dead_letters is not None
        assert take(queue.dead_letters).state == "active"

    def test_outlives_its_time(self) -> None:
        queue = made()
        queue.send([Incoming(content="a", ttl=5.0)], NOW)
        queue.settle(token(take(queue)), "deferred", NOW)

        assert deferred(queue, 1, now=NOW + 60.0)[0].content == "a"

    def test_in_a_session_needs_the_sessions_holder(self) -> None:
        queue = made(QueueSettings(sessions=True))
        queue.send(incoming("a", session="s"), NOW)
        session = accepted(queue, "s")
        queue.settle(token(take(queue, session=session)), "deferred", NOW, session=session)

        with pytest.raises(Refused) as refused:
            queue.receive_deferred([1], delete=False, session_id="s", holder="other", now=NOW)
        assert refused.value.condition == "com.microsoft:session-lock-lost"
        [stored] = queue.receive_deferred([1], delete=False, session_id="s", holder="me", now=NOW)
        assert stored.lock is not None
        assert stored.lock.until == session.until


@pytest.mark.parametrize("asked", [(1, 2), (1, 7)], ids=["one is active", "one does not exist"])
def test_deferred_messages_are_given_all_or_none(queue: Queue, asked: tuple[int, ...]) -> None:
    with pytest.raises(Refused):
        deferred(queue, *asked)

    assert queue.stats()["locked"] == 0


class TestPeeking:
    def test_shows_messages_of_every_state_in_the_order_of_their_numbers(self, queue: Queue) -> None:
        queue.schedule([Incoming(content="c", scheduled_at=NOW + 60.0)], NOW)
        take(queue)

        shown = queue.peek(0, 10, now=NOW)

        assert [(each.content, each.state) for each in shown] == [
            ("a", "deferred"),
            ("b", "active"),
            ("c", "scheduled"),
        ]

    def test_begins_at_a_number_and_ends_after_a_count(self) -> None:
        queue = made()
        queue.send(incoming(*"abcde"), NOW)
        for _ in range(2):
            queue.take(NOW, holder="me", delete=True)

        assert [each.sequence for each in queue.peek(0, 2, now=NOW)] == [3, 4]
        assert [each.sequence for each in queue.peek(4, 10, now=NOW)] == [4, 5]
        assert queue.peek(6, 10, now=NOW) == []

    def test_takes_nothing(self) -> None:
        queue = made()
        queue.send(incoming("a"), NOW)

        queue.peek(0, 10, now=NOW)

        assert take_all(queue) == ["a"]

    def test_shows_one_session_if_asked_to(self) -> None:
        queue = made(QueueSettings(sessions=True))
        queue.send([*incoming("a", session="s"), *incoming("b", session="t")], NOW)

        assert [each.content for each in queue.peek(0, 10, session_id="t", now=NOW)] == ["b"]
        assert queue.peek(0, 10, session_id="nobody", now=NOW) == []
        assert len(queue.peek(0, 10, now=NOW)) == 2
