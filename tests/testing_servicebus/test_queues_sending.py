"""What a queue of the local Service Bus does with messages that are sent or scheduled."""

from __future__ import annotations

import pytest

from queue_runtime.testing.servicebus.queues import Incoming, QueueSettings, Refused
from tests.testing_servicebus.queue_hands import NOW, incoming, made, take, take_all


class TestSending:
    def test_numbers_messages_upwards_from_one(self) -> None:
        queue = made()

        assert queue.send(incoming("a", "b"), NOW) == [1, 2]
        assert queue.send(incoming("c"), NOW) == [3]

    def test_gives_messages_in_the_order_they_came(self) -> None:
        queue = made()
        queue.send(incoming("a", "b"), NOW)
        queue.send(incoming("c"), NOW)

        assert take_all(queue) == ["a", "b", "c"]

    def test_a_queue_with_sessions_refuses_the_batch_if_one_has_no_session_id(self) -> None:
        queue = made(QueueSettings(sessions=True))

        with pytest.raises(Refused, match="session id") as refused:
            queue.send([*incoming("a", session="s"), *incoming("b")], NOW)

        assert refused.value.condition == "amqp:not-allowed"
        assert queue.stats()["active"] == 0

    def test_a_plain_queue_takes_session_ids_for_what_they_are(self) -> None:
        queue = made()
        queue.send([*incoming("a", session="s"), *incoming("b", session="t")], NOW)

        assert take_all(queue) == ["a", "b"]

    def test_says_that_something_may_be_deliverable(self) -> None:
        queue = made()
        changes: list[str] = []
        queue.on_change.append(lambda: changes.append("changed"))

        queue.send(incoming("a", "b"), NOW)

        assert changes == ["changed"]


class TestDuplicates:
    def test_are_dropped_within_the_window_and_answered_with_the_original(self) -> None:
        queue = made(QueueSettings(duplicate_window=600.0))
        first = queue.send([Incoming(message_id="m", content="first")], NOW)

        again = queue.send([Incoming(message_id="m", content="again")], NOW + 599.0)

        assert again == first
        assert take_all(queue, NOW + 599.0) == ["first"]

    def test_are_taken_after_the_window(self) -> None:
        queue = made(QueueSettings(duplicate_window=600.0))
        queue.send([Incoming(message_id="m", content="first")], NOW)

        queue.send([Incoming(message_id="m", content="again")], NOW + 600.0)

        assert take_all(queue, NOW + 600.0) == ["first", "again"]

    def test_are_known_after_the_original_was_completed(self) -> None:
        queue = made(QueueSettings(duplicate_window=600.0))
        queue.send([Incoming(message_id="m", content="first")], NOW)
        queue.take(NOW, holder="me", delete=True)

        queue.send([Incoming(message_id="m", content="again")], NOW + 1.0)

        assert queue.stats()["active"] == 0

    def test_within_one_batch_are_dropped_too(self) -> None:
        queue = made(QueueSettings(duplicate_window=600.0))

        assert queue.send([Incoming(message_id="m"), Incoming(message_id="m")], NOW) == [1, 1]
        assert queue.stats()["active"] == 1

    def test_are_nothing_special_without_a_window(self) -> None:
        queue = made()
        queue.send([Incoming(message_id="m"), Incoming(message_id="m")], NOW)

        assert queue.stats()["active"] == 2

    def test_need_a_message_id_to_be_known(self) -> None:
        queue = made(QueueSettings(duplicate_window=600.0))
        queue.send(incoming("a", "a"), NOW)

        assert queue.stats()["active"] == 2


class TestScheduling:
    def test_shows_a_message_when_it_is_due(self) -> None:
        queue = made()
        queue.schedule([Incoming(content="later", scheduled_at=NOW + 10.0)], NOW)

        assert queue.take(NOW + 9.9, holder="me") is None
        assert take(queue, NOW + 10.0).content == "later"

    def test_a_due_message_joins_the_end_under_a_new_number(self) -> None:
        queue = made()
        [scheduled] = queue.schedule([Incoming(content="later", scheduled_at=NOW + 10.0)], NOW)
        queue.send(incoming("sooner"), NOW + 1.0)
        assert [each.state for each in queue.peek(0, 10, now=NOW + 1.0)] == ["scheduled", "active"]

        sooner, later = queue.peek(0, 10, now=NOW + 20.0)

        assert (sooner.content, later.content) == ("sooner", "later")
        assert later.sequence > sooner.sequence > scheduled
        assert (later.state, later.enqueued_at) == ("active", NOW + 10.0)

    def test_a_sent_message_with_a_time_to_come_is_scheduled_as_well(self) -> None:
        queue = made()
        queue.send([Incoming(scheduled_at=NOW + 10.0)], NOW)

        assert queue.stats()["scheduled"] == 1

    def test_a_time_that_has_passed_makes_it_active_at_once(self) -> None:
        queue = made()
        queue.schedule([Incoming(content="late", scheduled_at=NOW - 10.0)], NOW)

        assert take_all(queue) == ["late"]

    def test_tick_tells_when_the_next_one_is_due_and_then_says_so(self) -> None:
        queue = made()
        changes: list[str] = []
        queue.schedule([Incoming(scheduled_at=NOW + 20.0), Incoming(scheduled_at=NOW + 10.0)], NOW)
        queue.on_change.append(lambda: changes.append("changed"))

        assert queue.tick(NOW) == NOW + 10.0
        assert changes == []
        assert queue.tick(NOW + 10.0) == NOW + 20.0
        assert changes == ["changed"]
        assert queue.tick(NOW + 20.0) is None

    def test_cancelled_messages_never_come(self) -> None:
        queue = made()
        first, second = queue.schedule(
            [Incoming(content=each, scheduled_at=NOW + 10.0) for each in "ab"], NOW
        )

        queue.cancel([first], NOW + 5.0)

        assert take_all(queue, NOW + 10.0) == ["b"]
        assert second > first

    def test_cancelling_all_or_none(self) -> None:
        queue = made()
        [scheduled] = queue.schedule([Incoming(scheduled_at=NOW + 10.0)], NOW)

        with pytest.raises(Refused, match="77") as refused:
            queue.cancel([scheduled, 77], NOW)

        assert refused.value.condition == "com.microsoft:message-not-found"
        assert queue.stats()["scheduled"] == 1

    def test_what_is_due_can_not_be_cancelled_any_more(self) -> None:
        queue = made()
        [scheduled] = queue.schedule([Incoming(scheduled_at=NOW + 10.0)], NOW)

        with pytest.raises(Refused):
            queue.cancel([scheduled], NOW + 10.0)

    def test_a_lifetime_begins_when_the_message_is_due(self) -> None:
        queue = made()
        queue.schedule([Incoming(content="later", scheduled_at=NOW + 10.0, ttl=5.0)], NOW)

        assert take(queue, NOW + 14.0).content == "later"
