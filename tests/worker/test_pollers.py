"""Questions to the broker: one at a time when idle, more at once while answers come back full."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from queue_runtime import BreakerPolicy, Message, QueueClient, Worker
from queue_runtime.errors import ConnectionFailed
from queue_runtime.events import Event, FetchFailed
from queue_runtime.testing import FakeClock
from queue_runtime.worker.fetcher import MOST_ASKED, MOST_POLLERS
from queue_runtime.worker.in_hand import InHand
from tests.fakes import Script, fails, scripted
from tests.worker.hands import FETCH, SOON, URL, Desk, of, send, wait_until

POLL = 20.0


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def client(script: Script, clock: FakeClock, events: list[Event]) -> Iterator[QueueClient]:
    with scripted(script, URL, clock=clock, listeners=[events.append]) as made:
        yield made


def texts_of(count: int) -> list[str]:
    return [f"{n:04}" for n in range(count)]


def send_many(client: QueueClient, count: int, queue: str = "plain") -> None:
    """Of as many sessions, or of none."""
    session = None if queue == "plain" else "s"
    client.send_batch(queue, [Message.of(t, session_id=session and f"s{t}") for t in texts_of(count)])


def fetchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("queue_runtime-fetch")]


def all_wait(clock: FakeClock) -> None:
    """Every poller waits for messages or for room."""
    wait_until(lambda: bool(fetchers()) and clock.is_parked(*fetchers()))


def asked(script: Script, queue: str = "plain") -> int:
    return len(script.calls(FETCH[queue]))


def let_polls_end(clock: FakeClock) -> None:
    all_wait(clock)
    clock.advance(POLL)
    all_wait(clock)


@pytest.mark.parametrize("queue", ["plain", "sessions"])
def test_an_idle_worker_asks_once_in_each_poll(
    client: QueueClient, queue: str, script: Script, clock: FakeClock, desk: Desk
) -> None:
    with Worker(client, queue, desk, poll=POLL, prefetch=64) as worker:
        all_wait(clock)
        assert (asked(script, queue), worker.status().pollers) == (1, 1)
        for _ in range(6):
            let_polls_end(clock)
        assert (asked(script, queue), worker.status().pollers) == (7, 1)


class TestManyMessages:
    def test_are_asked_for_by_more_pollers_while_answers_come_back_full(
        self, client: QueueClient, clock: FakeClock, desk: Desk
    ) -> None:
        desk.hold(*texts_of(200))
        send_many(client, 200)
        with Worker(client, "plain", desk, concurrency=2, prefetch=100) as worker, desk:
            wait_until(lambda: worker.status().held == 100)
            all_wait(clock)
            assert 1 < worker.status().pollers <= MOST_POLLERS
            desk.let_go(*texts_of(200))
            wait_until(lambda: worker.status().completed == 200)

    def test_are_never_asked_for_by_more_than_so_many(
        self, client: QueueClient, clock: FakeClock, desk: Desk
    ) -> None:
        most: list[int] = []

        def full() -> bool:
            now = worker.status()
            most.append(now.pollers)
            return now.held == 500

        desk.hold(*texts_of(600))
        send_many(client, 600)
        with Worker(client, "plain", desk, concurrency=2, prefetch=500) as worker, desk:
            wait_until(full)
            all_wait(clock)
            full()
            desk.let_go(*texts_of(600))
        assert max(most) == MOST_POLLERS

    def test_are_asked_for_by_one_again_after_empty_answers(
        self, client: QueueClient, script: Script, clock: FakeClock, desk: Desk
    ) -> None:
        desk.hold(*texts_of(100))
        send_many(client, 100)
        with Worker(client, "plain", desk, concurrency=4, prefetch=60, poll=POLL) as worker, desk:
            wait_until(lambda: worker.status().held == 60)
            all_wait(clock)
            assert worker.status().pollers > 1
            desk.let_go(*texts_of(100))
            wait_until(lambda: worker.status().completed == 100 and worker.status().held == 0)
            for _ in range(3):  # one that waited for room asks once more
                let_polls_end(clock)
            wait_until(lambda: worker.status().pollers == 1)
            all_wait(clock)
            before = asked(script)
            for _ in range(5):
                let_polls_end(clock)
            assert asked(script) - before == 5

    def test_of_one_session_each_are_asked_for_by_one_poller_which_opens_many(
        self, client: QueueClient, script: Script, clock: FakeClock, desk: Desk
    ) -> None:
        desk.hold(*texts_of(40))
        send_many(client, 40, "sessions")
        with Worker(client, "sessions", desk, concurrency=2, prefetch=30) as worker, desk:
            wait_until(lambda: worker.status().held == 30)
            all_wait(clock)
            assert worker.status().pollers == 1
            desk.let_go(*texts_of(40))
            wait_until(lambda: worker.status().completed == 40)

    @pytest.mark.parametrize("prefetch", [1, 2, 4, 16, 64])
    def test_cost_no_more_requests_than_one_each(
        self, client: QueueClient, script: Script, clock: FakeClock, desk: Desk, prefetch: int
    ) -> None:
        send_many(client, 100)
        with Worker(client, "plain", desk, concurrency=min(prefetch, 4), prefetch=prefetch) as worker:
            wait_until(lambda: worker.status().completed == 100 and worker.status().held == 0)
            all_wait(clock)
            waiting = worker.status().pollers

            assert asked(script) <= 100 + waiting, "every answer brought something"

    def test_are_asked_for_ten_at_a_time_where_there_is_room(
        self, client: QueueClient, script: Script, clock: FakeClock, desk: Desk
    ) -> None:
        desk.hold(*texts_of(100))
        send_many(client, 100)
        with Worker(client, "plain", desk, concurrency=2, prefetch=60) as worker, desk:
            wait_until(lambda: worker.status().held == 60)
            all_wait(clock)
            # Room may have been left in less than tens by those who asked at once.
            assert asked(script) <= 60 / MOST_ASKED + MOST_POLLERS
            desk.let_go(*texts_of(100))

    def test_are_asked_for_by_one_alone_while_there_is_little_room(
        self, client: QueueClient, script: Script, clock: FakeClock, desk: Desk
    ) -> None:
        """The others wait until a quarter of `prefetch` is free: else they would halve each answer."""
        desk.hold(*texts_of(100))
        send_many(client, 100)
        with Worker(client, "plain", desk, concurrency=40, prefetch=40) as worker, desk:
            wait_until(lambda: desk.running == 40)
            all_wait(clock)
            pollers = worker.status().pollers
            assert pollers > 1
            for number in range(8):
                before = asked(script)
                desk.let_go(sorted(desk.held)[0])
                wait_until(lambda n=number: worker.status().completed == n + 1)  # type: ignore[misc]
                desk.wait_for(lambda: desk.running == 40)
                all_wait(clock)
                assert asked(script) - before == 1
            desk.let_go(*texts_of(100))


def test_those_beside_the_first_end_when_the_broker_fails_and_one_asks_on(
    client: QueueClient, script: Script, clock: FakeClock, desk: Desk, events: list[Event]
) -> None:
    desk.hold(*texts_of(100))
    send_many(client, 100)
    with Worker(client, "plain", desk, concurrency=4, prefetch=60) as worker, desk:
        wait_until(lambda: worker.status().held == 60)
        all_wait(clock)
        assert worker.status().pollers > 1
        script.always("receive", fails(ConnectionFailed))
        desk.let_go(*texts_of(100))
        wait_until(lambda: worker.status().completed == 60 and worker.status().pollers == 1)
        wait_until(lambda: bool(of(events, FetchFailed)))
        assert len(of(events, FetchFailed)) == 1, "one tells, and waits"
        script.always("receive")
        all_wait(clock)
        clock.advance(1.0)
        wait_until(lambda: worker.status().completed == 100)


def test_all_end_with_the_worker(client: QueueClient, script: Script, clock: FakeClock, desk: Desk) -> None:
    send_many(client, 200)
    worker = Worker(client, "plain", desk, concurrency=4, prefetch=100)
    worker.start()
    wait_until(lambda: worker.status().completed == 200 and worker.status().held == 0)
    all_wait(clock)

    report = worker.stop()

    assert (report.threads_left, fetchers(), worker.status().pollers) == ((), [], 0)
    before = asked(script)
    send(client, "plain", "a1")
    assert asked(script) == before


def test_one_that_found_nothing_asks_again_when_another_has_found_nothing_too(clock: FakeClock) -> None:
    """Else a batch job whose clock stands still would never be over."""
    in_hand = InHand(clock, prefetch=4, concurrency=2)
    first, other = in_hand.take_permits(2), in_hand.take_permits(2)
    assert first is not None
    assert other is not None
    moves = in_hand.moves()
    in_hand.put_back(first)
    in_hand.found_nothing(moves)
    assert not in_hand.wait(in_hand.is_idle, 0.0), "the other may find something"
    resting = threading.Thread(target=in_hand.rest, args=(moves, 0.25))
    resting.start()
    wait_until(lambda: clock.is_parked(resting))

    in_hand.put_back(other)

    resting.join(SOON)
    assert not resting.is_alive()
    in_hand.found_nothing(moves)
    assert in_hand.wait(in_hand.is_idle, 0.0)


class Nobody:
    """A run of which nothing is asked."""

    def stop(self) -> None: ...

    def abort(self) -> None: ...

    def overdue(self) -> bool:
        return False


def test_who_waits_for_permits_waits_while_something_goes_back_for_others(clock: FakeClock) -> None:
    """Also where the probe of a pause is due, and would be fetched."""
    in_hand = InHand(
        clock,
        prefetch=4,
        concurrency=2,
        breaker=BreakerPolicy(minimum_calls=1, failure_rate=0.1, open_for=1.0),
    )
    failed, stuck = Nobody(), Nobody()
    permits = in_hand.take_permits(2)
    assert permits is not None
    in_hand.begin(failed, permits)
    in_hand.begin(stuck, permits)
    in_hand.enter("a", lag=None)
    in_hand.stand_behind(stuck, "a", lambda: None)
    in_hand.handled(failed, trouble=True, why="down", started=clock.monotonic())
    in_hand.end(failed)
    clock.advance(2.0)  # the next probe is due

    in_hand.make_way(stuck)
    taken: list[object] = []
    taking = threading.Thread(target=lambda: taken.append(in_hand.take_permits(1)))
    taking.start()

    wait_until(lambda: clock.is_parked(taking))
    in_hand.end(stuck)
    taking.join(SOON)
    assert len(taken) == 1
    in_hand.exit()
