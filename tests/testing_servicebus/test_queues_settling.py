"""Locks of the local Service Bus, and what settling does to a message."""

from __future__ import annotations

import uuid

import pytest

from queue_runtime.testing.servicebus.queues import QueueSettings, Refused
from queue_runtime.testing.servicebus.stored import Outcome
from tests.testing_servicebus.queue_hands import NOW, dead, incoming, made, take, take_all, token

LOST = "com.microsoft:message-lock-lost"


class TestALock:
    def test_hides_the_message_for_the_queues_lock_time(self) -> None:
        queue = made(QueueSettings(lock=30.0))
        queue.send(incoming("a"), NOW)

        first = take(queue)

        assert first.lock is not None
        assert first.lock.until == NOW + 30.0
        assert queue.take(NOW + 29.9, holder="other") is None
        assert take(queue, NOW + 30.0).content == "a"

    def test_that_expires_counts_a_failed_delivery(self) -> None:
        queue = made()
        queue.send(incoming("a"), NOW)
        assert take(queue).delivery_count == 0

        assert take(queue, NOW + 30.0).delivery_count == 1

    def test_is_another_one_each_time(self) -> None:
        queue = made()
        queue.send(incoming("a"), NOW)
        first = token(take(queue))

        assert token(take(queue, NOW + 30.0)) != first

    def test_is_kept_by_renewing_in_time(self) -> None:
        queue = made()
        queue.send(incoming("a"), NOW)
        lock = token(take(queue))

        assert queue.renew([lock], NOW + 20.0) == [NOW + 50.0]

        assert queue.take(NOW + 49.0, holder="other") is None
        queue.settle(lock, "completed", NOW + 49.0)

    def test_that_was_lost_is_not_renewed_and_neither_is_any_other_asked_for_with_it(self) -> None:
        queue = made()
        queue.send(incoming("a"), NOW)
        lock = token(take(queue))

        with pytest.raises(Refused) as refused:
            queue.renew([lock, uuid.uuid4()], NOW + 20.0)

        assert refused.value.condition == LOST
        assert take(queue, NOW + 30.0).delivery_count == 1

    @pytest.mark.parametrize("outcome", ["completed", "abandoned", "deferred", "dead-lettered", "released"])
    def test_that_expired_settles_nothing(self, outcome: Outcome) -> None:
        queue = made()
        queue.send(incoming("a"), NOW)
        lock = token(take(queue))

        with pytest.raises(Refused) as refused:
            queue.settle(lock, outcome, NOW + 30.0)

        assert refused.value.condition == LOST
        assert queue.stats()["active"] == 1

    def test_settles_once(self) -> None:
        queue = made()
        queue.send(incoming("a"), NOW)
        lock = token(take(queue))
        queue.settle(lock, "completed", NOW)

        with pytest.raises(Refused, match="settled"):
            queue.settle(lock, "completed", NOW)

    def test_tick_tells_when_the_first_one_ends_and_then_says_that_there_is_something(self) -> None:
        queue = made()
        queue.send(incoming("a", "b"), NOW)
        take(queue, NOW)
        take(queue, NOW + 1.0)
        changes: list[str] = []
        queue.on_change.append(lambda: changes.append("changed"))

        assert queue.tick(NOW + 2.0) == NOW + 30.0
        assert changes == []
        assert queue.tick(NOW + 30.0) == NOW + 31.0
        assert changes == ["changed"]


class TestSettling:
    def test_completing_removes_the_message(self) -> None:
        queue = made()
        queue.send(incoming("a"), NOW)

        queue.settle(token(take(queue)), "completed", NOW)

        assert queue.peek(0, 10, now=NOW) == []
        assert queue.tick(NOW) is None

    def test_receive_and_delete_leaves_nothing_to_settle(self) -> None:
        queue = made()
        queue.send(incoming("a"), NOW)

        stored = queue.take(NOW, holder="me", delete=True)

        assert stored is not None
        assert stored.lock is None
        assert queue.peek(0, 10, now=NOW) == []

    def test_an_abandoned_message_comes_again_before_later_ones_and_is_counted(self) -> None:
        queue = made()
        queue.send(incoming("a", "b"), NOW)

        queue.settle(token(take(queue)), "abandoned", NOW)

        again = take(queue)
        assert (again.content, again.delivery_count) == ("a", 1)

    def test_a_released_message_comes_again_uncounted(self) -> None:
        queue = made(QueueSettings(max_delivery=1))
        queue.send(incoming("a", "b"), NOW)

        queue.settle(token(take(queue)), "released", NOW)

        again = take(queue)
        assert (again.content, again.delivery_count) == ("a", 0)

    def test_abandoning_keeps_what_it_changed_of_the_properties(self) -> None:
        queue = made()
        queue.send(incoming("a"), NOW)
        queue.settle(token(take(queue)), "abandoned", NOW, properties={"tries": 1, "by": "x"})

        queue.settle(token(take(queue)), "abandoned", NOW, properties={"tries": 2})

        assert take(queue).properties == {"tries": 2, "by": "x"}


class TestDeadLettering:
    def test_moves_the_message_with_reason_and_description(self) -> None:
        queue = made()
        queue.send(incoming("a"), NOW)

        queue.settle(
            token(take(queue)), "dead-lettered", NOW, reason="bad", description="no json", properties={"x": 1}
        )

        [stored] = dead(queue)
        assert stored.dead_letter is not None
        assert (stored.dead_letter.reason, stored.dead_letter.description) == ("bad", "no json")
        assert stored.dead_letter.source == "q"
        assert stored.properties == {"x": 1}
        assert queue.stats() == {"active": 0, "locked": 0, "deferred": 0, "scheduled": 0, "dead": 1}

    def test_happens_by_itself_when_the_deliveries_are_used_up(self) -> None:
        queue = made(QueueSettings(max_delivery=3))
        queue.send(incoming("a"), NOW)
        for _ in range(3):
            queue.settle(token(take(queue)), "abandoned", NOW)

        [stored] = dead(queue)
        assert stored.dead_letter is not None
        assert stored.dead_letter.reason == "MaxDeliveryCountExceeded"
        assert stored.delivery_count == 3
        assert queue.take(NOW, holder="me") is None

    def test_counts_locks_that_expired(self) -> None:
        queue = made(QueueSettings(lock=10.0, max_delivery=2))
        queue.send(incoming("a"), NOW)
        take(queue, NOW)
        take(queue, NOW + 10.0)

        assert queue.tick(NOW + 20.0) is None

        assert queue.stats()["dead"] == 1

    def test_the_dead_are_a_queue_of_their_own_with_locks_and_counts(self) -> None:
        queue = made()
        queue.send(incoming("a", "b"), NOW)
        for _ in range(2):
            queue.settle(token(take(queue)), "dead-lettered", NOW)
        assert queue.dead_letters is not None

        queue.dead_letters.settle(token(take(queue.dead_letters)), "abandoned", NOW)
        assert take_all(queue.dead_letters) == ["a", "b"]

        assert queue.tick(NOW) == NOW + 30.0
        assert take(queue.dead_letters, NOW + 30.0).delivery_count == 2

    def test_the_dead_stay_however_often_they_are_delivered(self) -> None:
        queue = made(QueueSettings(max_delivery=1))
        queue.send(incoming("a"), NOW)
        queue.settle(token(take(queue)), "abandoned", NOW)
        assert queue.dead_letters is not None

        for _ in range(3):
            queue.dead_letters.settle(token(take(queue.dead_letters)), "abandoned", NOW)

        assert len(dead(queue)) == 1

    def test_the_dead_can_not_be_dead_lettered_again(self) -> None:
        queue = made()
        queue.send(incoming("a"), NOW)
        queue.settle(token(take(queue)), "dead-lettered", NOW)
        assert queue.dead_letters is not None
        lock = token(take(queue.dead_letters))

        with pytest.raises(Refused, match="dead-letter queue"):
            queue.dead_letters.settle(lock, "dead-lettered", NOW)

        queue.dead_letters.settle(lock, "completed", NOW)

    def test_whoever_waits_at_the_dead_is_told(self) -> None:
        queue = made()
        queue.send(incoming("a"), NOW)
        assert queue.dead_letters is not None
        changes: list[str] = []
        queue.dead_letters.on_change.append(lambda: changes.append("changed"))

        queue.settle(token(take(queue)), "dead-lettered", NOW)

        assert changes == ["changed"]
