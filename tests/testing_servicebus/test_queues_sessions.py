"""Sessions of the local Service Bus: who holds which, their order, and their state."""

from __future__ import annotations

import pytest

from queue_runtime.testing.servicebus.queues import Queue, QueueSettings, Refused, Session
from tests.testing_servicebus.queue_hands import NOW, accepted, dead, incoming, made, take, take_all, token

LOST = "com.microsoft:session-lock-lost"


@pytest.fixture
def queue() -> Queue:
    return made(QueueSettings(sessions=True, lock=30.0, max_delivery=3))


def send(queue: Queue, session: str, *bodies: str, now: float = NOW) -> None:
    queue.send(incoming(*bodies, session=session), now)


class TestAccepting:
    def test_the_next_one_waits_longest_of_those_that_are_free(self, queue: Queue) -> None:
        for name in "cab":
            send(queue, name, "1")

        turns = []
        for _ in range(6):
            session = accepted(queue, None)
            turns.append(session.id)
            queue.release_session(session, NOW)

        assert turns == ["c", "a", "b", "c", "a", "b"]

    def test_the_next_one_is_never_one_that_is_held(self, queue: Queue) -> None:
        send(queue, "a", "1", "2")
        accepted(queue, "a")

        assert queue.accept(None, "other", NOW) is None

    def test_the_next_one_has_messages_to_give(self, queue: Queue) -> None:
        send(queue, "a", "1")
        session = accepted(queue, "a")
        queue.settle(token(take(queue, session=session)), "deferred", NOW, session=session)
        queue.set_state("a", b"here", "me", NOW)
        queue.release_session(session, NOW)

        assert queue.accept(None, "me", NOW) is None

    def test_by_id_needs_no_messages(self, queue: Queue) -> None:
        session = accepted(queue, "new")

        assert (session.id, session.until, session.lost) == ("new", NOW + 30.0, False)
        assert queue.take(NOW, holder="me", session=session) is None

    def test_by_id_is_refused_while_somebody_holds_it(self, queue: Queue) -> None:
        accepted(queue, "a")

        with pytest.raises(Refused, match="'a'") as refused:
            queue.accept("a", "other", NOW + 29.0)

        assert refused.value.condition == "com.microsoft:session-cannot-be-locked"
        assert accepted(queue, "a", NOW + 30.0).id == "a"

    def test_is_refused_by_a_queue_without_sessions(self) -> None:
        with pytest.raises(Refused) as refused:
            made().accept(None, "me", NOW)

        assert refused.value.condition == "amqp:not-allowed"

    def test_receiving_without_a_session_is_refused(self, queue: Queue) -> None:
        with pytest.raises(Refused) as refused:
            queue.take(NOW, holder="me")

        assert refused.value.condition == "amqp:not-allowed"

    def test_whoever_waits_is_told_when_a_session_comes_free(self, queue: Queue) -> None:
        send(queue, "a", "1")
        session = accepted(queue, "a")
        changes: list[str] = []
        queue.on_change.append(lambda: changes.append("changed"))

        queue.release_session(session, NOW)

        assert changes == ["changed"]


class TestTheOrder:
    def test_is_that_of_sending(self, queue: Queue) -> None:
        send(queue, "a", "1", "2")
        send(queue, "b", "x")
        send(queue, "a", "3")

        assert take_all(queue, session=accepted(queue, "a")) == ["1", "2", "3"]

    def test_an_abandoned_message_comes_again_at_its_place_and_is_counted(self, queue: Queue) -> None:
        send(queue, "a", "1", "2", "3")
        session = accepted(queue, "a")
        first = take(queue, session=session)
        take(queue, session=session)

        queue.settle(token(first), "abandoned", NOW, session=session)

        again = take(queue, session=session)
        assert (again.content, again.delivery_count) == ("1", 1)
        assert take(queue, session=session).content == "3"

    def test_comes_again_uncounted_after_the_session_was_closed(self, queue: Queue) -> None:
        send(queue, "a", "1", "2")
        session = accepted(queue, "a")
        take_all(queue, session=session)

        queue.release_session(session, NOW)

        next_one = accepted(queue, None)
        again = take(queue, session=next_one)
        assert (again.content, again.delivery_count) == ("1", 0)
        assert take_all(queue, session=next_one) == ["2"]

    def test_comes_again_counted_after_the_lock_expired(self, queue: Queue) -> None:
        send(queue, "a", "1", "2")
        take(queue, session=accepted(queue, "a"))

        session = accepted(queue, "a", NOW + 30.0)

        delivered = [take(queue, NOW + 30.0, session) for _ in range(2)]
        assert [(each.content, each.delivery_count) for each in delivered] == [("1", 1), ("2", 0)]

    def test_what_was_never_settled_is_dead_lettered_in_the_end(self, queue: Queue) -> None:
        send(queue, "a", "1")
        for turn in range(3):
            now = NOW + 30.0 * turn
            take(queue, now, accepted(queue, "a", now))

        assert queue.accept(None, "me", NOW + 90.0) is None
        assert [each.content for each in dead(queue, NOW + 90.0)] == ["1"]

    def test_the_dead_have_no_sessions(self, queue: Queue) -> None:
        for name in "ab":
            send(queue, name, name)
            session = accepted(queue, name)
            queue.settle(token(take(queue, session=session)), "dead-lettered", NOW, session=session)
        assert queue.dead_letters is not None

        assert take_all(queue.dead_letters) == ["a", "b"]


class TestTheLock:
    def test_is_shared_by_the_messages_taken_under_it(self, queue: Queue) -> None:
        send(queue, "a", "1")
        session = accepted(queue, "a")
        stored = take(queue, NOW + 10.0, session)
        assert stored.lock is not None
        assert stored.lock.until == NOW + 30.0

        assert queue.renew_session("a", "me", NOW + 20.0) == NOW + 50.0

        assert (session.until, stored.lock.until) == (NOW + 50.0, NOW + 50.0)
        queue.settle(token(stored), "completed", NOW + 49.0, session=session)

    def test_ends_by_time_and_its_holder_is_told(self, queue: Queue) -> None:
        session = accepted(queue, "a")
        lost: list[Session] = []
        queue.on_session_lost.append(lost.append)

        assert queue.tick(NOW) == NOW + 30.0
        assert queue.tick(NOW + 30.0) is None

        assert lost == [session]
        assert session.lost

    def test_is_not_told_of_when_it_is_released(self, queue: Queue) -> None:
        session = accepted(queue, "a")
        lost: list[Session] = []
        queue.on_session_lost.append(lost.append)

        queue.release_session(session, NOW)

        assert lost == []

    def test_can_be_taken_away(self, queue: Queue) -> None:
        send(queue, "a", "1")
        session = accepted(queue, "a")
        lost: list[Session] = []
        queue.on_session_lost.append(lost.append)

        assert queue.lose_session("a", NOW)
        assert not queue.lose_session("a", NOW)
        assert not queue.lose_session("nobody", NOW)

        assert lost == [session]
        assert accepted(queue, None).id == "a"

    def test_once_lost_is_good_for_nothing(self, queue: Queue) -> None:
        send(queue, "a", "1", "2")
        session = accepted(queue, "a")
        lock = token(take(queue, session=session))
        queue.lose_session("a", NOW)
        accepted(queue, "a", holder="thief")

        for attempt in (
            lambda: queue.take(NOW, holder="me", session=session),
            lambda: queue.settle(lock, "completed", NOW, session=session),
            lambda: queue.renew_session("a", "me", NOW),
            lambda: queue.get_state("a", "me", NOW),
            lambda: queue.set_state("a", b"mine", "me", NOW),
            lambda: queue.held_session("a", "me", NOW),
        ):
            with pytest.raises(Refused) as refused:
                attempt()
            assert refused.value.condition == LOST
        queue.release_session(session, NOW)
        assert queue.held_session("a", "thief", NOW).id == "a"

    def test_settles_only_messages_of_its_session(self, queue: Queue) -> None:
        send(queue, "a", "1")
        lock = token(take(queue, session=accepted(queue, "a")))

        with pytest.raises(Refused):
            queue.settle(lock, "completed", NOW, session=accepted(queue, "b"))

    def test_of_a_message_is_not_renewed_by_itself(self, queue: Queue) -> None:
        send(queue, "a", "1")
        lock = token(take(queue, session=accepted(queue, "a")))

        with pytest.raises(Refused, match="session's lock"):
            queue.renew([lock], NOW)

    def test_without_the_session_named_a_message_is_settled_by_its_token(self, queue: Queue) -> None:
        send(queue, "a", "1")

        queue.settle(token(take(queue, session=accepted(queue, "a"))), "completed", NOW)

        assert queue.stats()["locked"] == 0


class TestTheState:
    def test_outlives_session_locks_and_messages(self, queue: Queue) -> None:
        session = accepted(queue, "a")
        assert queue.get_state("a", "me", NOW) is None
        queue.set_state("a", b"step 2", "me", NOW)
        queue.release_session(session, NOW)

        accepted(queue, "a", NOW + 1000.0, holder="other")

        assert queue.get_state("a", "other", NOW + 1000.0) == b"step 2"

    def test_is_forgotten_when_it_is_set_to_none(self, queue: Queue) -> None:
        accepted(queue, "a")
        queue.set_state("a", b"step 2", "me", NOW)

        queue.set_state("a", None, "me", NOW)

        assert queue.get_state("a", "me", NOW) is None
        assert queue.session_ids(None, 0, 10) == []


class TestTheListOfSessions:
    def test_has_those_with_active_messages_or_a_state(self, queue: Queue) -> None:
        send(queue, "ready", "1")
        send(queue, "taken", "1")
        take(queue, session=accepted(queue, "taken"))
        send(queue, "deferred", "1")
        session = accepted(queue, "deferred")
        queue.settle(token(take(queue, session=session)), "deferred", NOW)
        accepted(queue, "state")
        queue.set_state("state", b"", "me", NOW)
        accepted(queue, "empty")

        assert queue.session_ids(None, 0, 10) == ["ready", "state", "taken"]

    def test_comes_in_pages(self, queue: Queue) -> None:
        for name in "abcde":
            send(queue, name, "1")

        assert queue.session_ids(None, 0, 2) == ["a", "b"]
        assert queue.session_ids(None, 4, 2) == ["e"]

    def test_can_be_of_those_whose_state_was_set_after_a_time(self, queue: Queue) -> None:
        for turn, name in enumerate("ab"):
            accepted(queue, name, NOW + turn)
            queue.set_state(name, b"x", "me", NOW + turn)
        send(queue, "c", "1")

        assert queue.session_ids(NOW, 0, 10) == ["b"]


def test_a_session_without_messages_holder_or_state_leaves_nothing_behind(queue: Queue) -> None:
    for number in range(100):
        send(queue, f"s{number}", "1")
        session = accepted(queue, None)
        queue.take(NOW, holder="me", session=session, delete=True)
        queue.release_session(session, NOW)

    assert queue._sessions is not None
    assert queue._sessions._lines == {}
