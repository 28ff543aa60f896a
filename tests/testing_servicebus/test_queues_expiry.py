"""Messages of the local Service Bus whose time is over."""

from __future__ import annotations

import pytest

from queue_runtime.testing.servicebus.queues import Incoming, QueueSettings, Refused
from tests.testing_servicebus.queue_hands import NOW, accepted, dead, made, take, take_all, token


def test_a_message_whose_time_is_over_is_dropped() -> None:
    queue = made()
    queue.send([Incoming(content="a", ttl=5.0), Incoming(content="b")], NOW)

    assert queue.tick(NOW) == NOW + 5.0
    assert take_all(queue, NOW + 5.0) == ["b"]
    assert dead(queue, NOW + 5.0) == []


def test_it_is_dead_lettered_where_the_queue_says_so() -> None:
    queue = made(QueueSettings(dead_letter_on_expire=True))
    queue.send([Incoming(content="a", ttl=5.0)], NOW)

    assert queue.take(NOW + 5.0, holder="me") is None

    [stored] = dead(queue, NOW + 5.0)
    assert stored.dead_letter is not None
    assert stored.dead_letter.reason == "TTLExpiredException"


def test_what_expired_once_does_not_expire_among_the_dead() -> None:
    queue = made(QueueSettings(dead_letter_on_expire=True, ttl=5.0))
    queue.send([Incoming(content="a")], NOW)
    queue.tick(NOW + 5.0)

    assert len(dead(queue, NOW + 1000.0)) == 1


@pytest.mark.parametrize(("ttl", "until"), [(None, 60.0), (5.0, 5.0), (90.0, 60.0)])
def test_the_queues_own_limit_is_the_most_a_message_gets(ttl: float | None, until: float) -> None:
    queue = made(QueueSettings(ttl=60.0))
    queue.send([Incoming(ttl=ttl)], NOW)

    [stored] = queue.peek(0, 1, now=NOW)

    assert stored.expires_at == NOW + until
    assert queue.peek(0, 1, now=NOW + until) == []


def test_a_locked_message_can_be_completed_after_its_time() -> None:
    queue = made()
    queue.send([Incoming(ttl=5.0)], NOW)
    lock = token(take(queue))

    queue.settle(lock, "completed", NOW + 20.0)

    assert queue.stats()["active"] == 0


def test_a_locked_message_expires_when_it_is_given_back_after_its_time() -> None:
    queue = made(QueueSettings(dead_letter_on_expire=True))
    queue.send([Incoming(ttl=5.0)], NOW)
    lock = token(take(queue))
    queue.tick(NOW + 6.0)
    assert queue.stats()["dead"] == 0

    queue.settle(lock, "abandoned", NOW + 20.0)

    assert queue.stats()["dead"] == 1


def test_a_locked_message_expires_when_its_lock_ends_after_its_time() -> None:
    queue = made(QueueSettings(lock=10.0))
    queue.send([Incoming(ttl=5.0)], NOW)
    lock = token(take(queue))

    assert queue.tick(NOW + 10.0) is None

    assert queue.peek(0, 1, now=NOW + 10.0) == []
    with pytest.raises(Refused):
        queue.settle(lock, "completed", NOW + 10.0)


def test_a_session_of_which_all_messages_expired_is_free_no_more() -> None:
    queue = made(QueueSettings(sessions=True))
    queue.send([Incoming(session_id="s", ttl=5.0)], NOW)

    assert queue.accept(None, "me", NOW + 5.0) is None
    assert queue.session_ids(None, 0, 10) == []
    assert accepted(queue, "s", NOW + 5.0).id == "s"
