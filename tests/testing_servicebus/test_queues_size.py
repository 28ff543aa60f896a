"""Large queues of the local Service Bus: what an operation costs does not grow with what lies there."""

from __future__ import annotations

import time
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from queue_runtime.testing.servicebus.ordered import Ascending, Ranked
from queue_runtime.testing.servicebus.queues import Incoming, Queue, QueueSettings
from tests.testing_servicebus.queue_hands import NOW, accepted, incoming, made, take, token


def seconds(work: Callable[[], object], times: int) -> float:
    """Of CPU, in the quickest of five goes: a garbage collection does not strike them all."""
    goes = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(times):
            work()
        goes.append(time.process_time() - began)
    return min(goes)


def one_round(queue: Queue) -> None:
    queue.send(incoming("x"), NOW)
    queue.settle(token(take(queue)), "completed", NOW)
    queue.peek(queue._last_sequence - 3, 3, now=NOW)
    queue.tick(NOW)


def test_a_hundred_thousand_messages_are_not_looked_through() -> None:
    small, large = made(), made()
    large.send([Incoming(ttl=3600.0)] * 100_000, NOW)
    one_round(small)

    # A scan of them all would cost thousands of times as much as a round does.
    assert seconds(lambda: one_round(large), 300) < 30 * seconds(lambda: one_round(small), 300)


def test_five_thousand_sessions_are_not_looked_through() -> None:
    def turn(queue: Queue) -> None:
        session = accepted(queue, None)
        queue.settle(token(take(queue, session=session)), "abandoned", NOW, session=session)
        queue.release_session(session, NOW)
        queue.tick(NOW)

    small, large = (made(QueueSettings(sessions=True, max_delivery=10_000)) for _ in range(2))
    for queue, count in ((small, 1), (large, 5_000)):
        queue.send([Incoming(session_id=f"s{number}") for number in range(count)], NOW)

    assert seconds(lambda: turn(large), 300) < 30 * seconds(lambda: turn(small), 300)


def test_what_is_completed_leaves_nothing_behind() -> None:
    queue = made()
    for _ in range(1_000):
        queue.send([Incoming(ttl=3600.0, content="x")], NOW)
        lock = token(take(queue))
        queue.renew([lock], NOW)
        queue.settle(lock, "completed", NOW)

    for ranked in (queue._expiries, queue._lock_ends, queue._line.ready):
        assert len(ranked._heap) < 100
    assert len(queue._sequences._all) < 100


ranks = st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(0, 9)))


@given(st.lists(ranks, max_size=400))
def test_ranked_gives_the_lowest_first_whatever_was_put_and_discarded(
    steps: list[tuple[int, int | None]],
) -> None:
    ranked: Ranked[int] = Ranked()
    expected: dict[int, int] = {}
    for key, rank in steps:
        expected.pop(key, None)
        if rank is None:
            ranked.discard(key)
        else:
            ranked.put(key, rank)
            expected[key] = rank

    assert len(ranked) == len(expected)
    assert list(ranked.due(9.0)) == sorted(expected, key=lambda key: expected[key])


@given(st.sets(st.integers(0, 300)), st.sets(st.integers(0, 300)), st.integers(0, 300))
def test_ascending_shows_what_was_not_discarded_from_a_number_on(
    numbers: set[int], discarded: set[int], start: int
) -> None:
    ascending = Ascending()
    for number in sorted(numbers):
        ascending.append(number)
    for number in discarded:
        ascending.discard(number)

    assert list(ascending.at_least(start)) == sorted(each for each in numbers - discarded if each >= start)
    assert len(ascending) == len(numbers - discarded)
