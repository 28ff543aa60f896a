"""The processing breaker: by itself, as a state machine, and in a worker, where it pauses what is fetched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from queue_runtime import HandlerPolicy, Message, QueueClient, ReceivedMessage, Reject, Retry, Worker
from queue_runtime.breaker import BreakerPolicy
from queue_runtime.errors import ConnectionFailed
from queue_runtime.events import (
    Event,
    FetchFailed,
    HandlerFailed,
    LostLease,
    MessageCompleted,
    MessageDeadLettered,
    ProcessingPaused,
    ProcessingResumed,
)
from queue_runtime.testing import FakeClock
from queue_runtime.worker.processing import ProcessingBreaker
from tests.fakes import Script, fails, scripted
from tests.worker.hands import ANY_QUEUE, FETCH, URL, Desk, Job, of, send, wait_until
from tests.worker.resting import is_at_rest

AFTER = 5.0
"""Seconds after which the probe is tried."""

BREAKER = BreakerPolicy(failure_rate=0.8, minimum_calls=4, window=600.0, open_for=AFTER)


class Down(Exception):
    """What the handler needs does not answer."""


POLICY = HandlerPolicy(base=1.0, cap=4.0, downstream=(Down,), breaker=BREAKER)
"""With it a probe is tried every five seconds."""


class TestTheStateMachine:
    """On its own; seconds are those of an imagined clock."""

    def paused(self, *, probes: int = 1) -> ProcessingBreaker:
        """At 10.0, with "p" as its probe."""
        policy = BreakerPolicy(failure_rate=0.8, minimum_calls=2, open_for=AFTER, probes=probes)
        breaker = ProcessingBreaker(policy)
        assert self.handled(breaker, "x", trouble=True, now=10.0) is None
        assert self.handled(breaker, "p", trouble=True, now=10.0) == "paused"
        return breaker

    def handled(
        self,
        breaker: ProcessingBreaker,
        holder: str,
        *,
        trouble: bool,
        now: float,
        started: float | None = None,
    ) -> str | None:
        began = now if started is None else started
        return breaker.handled(holder, trouble=trouble, why="Down: x", started=began, now=now)

    def test_lets_everything_be_fetched_and_begun_while_handlers_go_well(self) -> None:
        breaker = ProcessingBreaker(BREAKER)

        assert breaker.may_fetch(0.0) == float("inf")
        assert breaker.changes_at() is None
        assert not breaker.fetches()
        assert breaker.admits("a")
        assert breaker.admits("b")
        assert not breaker.is_probe("a")

    def test_pauses_at_the_rate_and_whoever_failed_last_is_the_probe(self) -> None:
        breaker = self.paused()

        assert breaker.pause is not None
        assert (breaker.pause.why, breaker.pause.since, breaker.pause.retry_at) == ("Down: x", 10.0, 15.0)
        assert breaker.is_probe("p")
        assert not breaker.is_probe("x")

    def test_fetches_and_begins_nothing_while_its_probe_is_in_hand(self) -> None:
        breaker = self.paused()

        assert [breaker.may_fetch(now) for now in (10.0, 15.0, 1000.0)] == [0, 0, 0]
        assert breaker.changes_at() is None
        assert not breaker.admits("y")

    def test_is_not_moved_by_what_was_begun_before(self) -> None:
        breaker = self.paused()

        assert self.handled(breaker, "y", trouble=False, started=9.0, now=20.0) is None
        assert self.handled(breaker, "z", trouble=True, started=9.0, now=20.0) is None
        assert breaker.pause is not None
        assert (breaker.pause.retry_at, breaker.is_probe("p")) == (15.0, True)

    def test_waits_again_when_its_probe_fails_and_says_since_when_it_lasts(self) -> None:
        breaker = self.paused()

        assert self.handled(breaker, "p", trouble=True, now=15.0) == "paused again"

        assert breaker.pause is not None
        assert (breaker.pause.since, breaker.pause.retry_at) == (10.0, 20.0)
        assert breaker.is_probe("p")

    def test_ends_with_the_success_of_its_probe(self) -> None:
        breaker = self.paused()

        assert self.handled(breaker, "p", trouble=False, now=15.0) == "resumed"

        assert (breaker.pause, breaker.is_probe("p")) == (None, False)
        assert breaker.may_fetch(15.0) == float("inf")
        assert breaker.admits("y")

    def test_looks_for_another_probe_when_that_one_is_gone(self) -> None:
        breaker = self.paused()
        breaker.ended("x")
        assert breaker.is_probe("p"), "another's end is none of its business"

        breaker.ended("p")

        assert breaker.may_fetch(14.9) == 0
        assert breaker.changes_at() == 15.0
        assert breaker.may_fetch(15.0) == 1
        assert not breaker.admits("y"), "it was not fetched for that"
        assert breaker.fetches()
        assert (breaker.may_fetch(15.0), breaker.changes_at()) == (0, None), "one is out for it"
        assert breaker.admits("y")
        assert not breaker.admits("z")
        assert breaker.is_probe("y")
        breaker.fetched()
        assert breaker.may_fetch(15.0) == 0

    def test_fetches_again_when_nothing_came_for_a_probe(self) -> None:
        breaker = self.paused()
        breaker.ended("p")
        breaker.fetches()

        breaker.fetched()

        assert breaker.may_fetch(15.0) == 1

    def test_lets_its_probe_go_when_that_is_to_be_handled_later_and_takes_another_after_a_while(self) -> None:
        breaker = self.paused()
        assert not breaker.later("x", 16.0)

        assert breaker.later("p", 16.0)

        assert (breaker.is_probe("p"), breaker.changes_at()) == (False, 21.0)
        assert [breaker.may_fetch(now) for now in (16.0, 20.9, 21.0)] == [0, 0, 1]

    def test_wants_so_many_probes_to_go_well(self) -> None:
        breaker = self.paused(probes=2)

        assert self.handled(breaker, "p", trouble=False, now=15.0) is None
        breaker.ended("p")
        assert breaker.may_fetch(15.0) == 1
        breaker.fetches()
        assert breaker.admits("q")
        assert self.handled(breaker, "q", trouble=False, now=16.0) == "resumed"

    def test_begins_to_count_anew_with_a_probe_that_fails(self) -> None:
        breaker = self.paused(probes=2)

        assert self.handled(breaker, "p", trouble=False, now=15.0) is None
        assert self.handled(breaker, "p", trouble=True, now=16.0) == "paused again"
        assert self.handled(breaker, "p", trouble=False, now=21.0) is None
        assert self.handled(breaker, "p", trouble=False, now=22.0) == "resumed"

    def test_never_pauses_without_a_policy(self) -> None:
        breaker = ProcessingBreaker(None)

        changes = [self.handled(breaker, "x", trouble=True, now=float(n)) for n in range(200)]

        assert set(changes) == {None}
        assert breaker.pause is None


class System:
    """What the handler needs: up or down. And the record of who has asked it."""

    def __init__(self, *, up: bool = True) -> None:
        self._lock = threading.Lock()
        self.up = up
        self.calls: list[tuple[str, int]] = []
        self.deliveries: list[int] = []
        self.leases: list[bool] = []

    def __call__(self, message: ReceivedMessage) -> None:
        with self._lock:
            self.calls.append((message.text, message.attempt))
            self.deliveries.append(message.delivery_count)
            self.leases.append(message.lease.lost)
        if not self.up:
            raise Down(f"no answer for {message.text}")

    def asked_by(self) -> list[str]:
        with self._lock:
            return [text for text, _ in self.calls]


def settle_down(client: QueueClient, clock: FakeClock) -> None:
    """Nobody of the library has anything to do until time passes."""
    wait_until(lambda: is_at_rest(client, clock))


def pass_time(client: QueueClient, clock: FakeClock, seconds: float) -> None:
    """From one deadline to the next, at each of which everybody does what is to be done."""
    end = clock.monotonic() + seconds
    for _ in range(5000):
        settle_down(client, clock)
        now = clock.monotonic()
        if now >= end - 1e-6:
            return
        due = clock.next_deadline()
        clock.advance(max(0.0, (end if due is None else min(end, due)) - now))
    raise AssertionError("time passes in too many steps")


def pass_time_until(client: QueueClient, clock: FakeClock, fact: Callable[[], bool]) -> None:
    """None at all, if that is so when everybody rests."""
    for _ in range(1000):
        settle_down(client, clock)
        if fact():
            return
        due = clock.next_deadline()
        assert due is not None, "nothing will change"
        clock.advance(max(0.0, due - clock.monotonic()))
    raise AssertionError("it did not come")


def await_pause(client: QueueClient, clock: FakeClock, events: list[Event]) -> None:
    pass_time_until(client, clock, lambda: bool(of(events, ProcessingPaused)))


def fetches(script: Script, queue: str) -> int:
    return len(script.calls(FETCH[queue]))


def texts_of(count: int) -> list[str]:
    return [f"{chr(ord('a') + n)}1" for n in range(count)]


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def client(script: Script, clock: FakeClock, events: list[Event]) -> Iterator[QueueClient]:
    with scripted(script, URL, clock=clock, listeners=[events.append]) as made:
        yield made


@ANY_QUEUE
class TestAPause:
    def test_comes_at_the_rate_and_is_told_with_its_reason_and_when_it_tries_again(
        self, client: QueueClient, queue: str, clock: FakeClock, events: list[Event]
    ) -> None:
        system = System(up=False)
        send(client, queue, *texts_of(8))
        with Worker(client, queue, system, concurrency=1, prefetch=6, policy=POLICY) as worker:
            assert worker.status().paused is None or system.calls
            await_pause(client, clock, events)

            [told] = of(events, ProcessingPaused)
            assert isinstance(told, ProcessingPaused)
            last = system.asked_by()[-1]
            assert (told.queue, told.text) == (queue, f"Down: no answer for {last}")
            assert (told.retry_at - clock.now()).total_seconds() == AFTER
            paused = worker.status().paused
            assert paused is not None
            assert (paused.by, paused.why, paused.retry_at) == ("handlers", told.text, told.retry_at)
            health = worker.health()
            assert (health.alive, health.fetching, health.paused) == (True, False, f"handlers: {told.text}")
            assert len(system.calls) == 4

    def test_lets_go_of_all_but_the_probe_once_and_fetches_nothing(
        self, client: QueueClient, queue: str, script: Script, clock: FakeClock, events: list[Event]
    ) -> None:
        system = System(up=False)
        send(client, queue, *texts_of(8))
        with Worker(client, queue, system, concurrency=1, prefetch=6, policy=POLICY) as worker:
            await_pause(client, clock, events)
            assert worker.status().held == 1
            found = client.describe(queue)
            assert (found.leased, (found.active or 0) + (found.delayed or 0)) == (1, 7)
            asked, given = fetches(script, queue), len(script.calls("settle"))

            pass_time(client, clock, 60.0)

            assert fetches(script, queue) == asked
            assert len(script.calls("settle")) == given
            probe = system.asked_by()[3]
            assert set(system.asked_by()[3:]) == {probe}
            assert len(system.calls) > 8, "it is tried again and again"

    def test_ends_with_the_success_of_its_probe_and_everything_is_handled(
        self, client: QueueClient, queue: str, clock: FakeClock, events: list[Event]
    ) -> None:
        system = System(up=False)
        send(client, queue, *texts_of(8))
        with Worker(client, queue, system, concurrency=2, policy=POLICY) as worker:
            await_pause(client, clock, events)
            pass_time(client, clock, 22.0)
            assert not of(events, MessageCompleted)
            system.up = True

            pass_time(client, clock, 30.0)

            assert worker.status().completed == 8
            assert worker.status().paused is None
        assert len(of(events, ProcessingPaused)) == len(of(events, ProcessingResumed)) == 1
        assert {attempt for _, attempt in system.calls} == {1}, "nothing was anybody's fault"

    def test_keeps_the_lease_of_its_probe_for_many_leases(
        self, client: QueueClient, queue: str, clock: FakeClock, events: list[Event]
    ) -> None:
        system = System(up=False)
        send(client, queue, *texts_of(4))
        policy = HandlerPolicy(base=1.0, cap=4.0, max_hold=1000.0, downstream=(Down,), breaker=BREAKER)
        with Worker(client, queue, system, policy=policy) as worker:
            await_pause(client, clock, events)
            pass_time(client, clock, 300.0)

            assert worker.status().held == 1
            assert not of(events, LostLease)
            assert not any(system.leases)
            assert set(system.deliveries) == {1}, "it was never given back"
            assert len(system.calls) >= 4 + 300 / (AFTER + 1.0)
            system.up = True
            pass_time(client, clock, 20.0)
            assert worker.status().completed == 4

    def test_lets_running_handlers_finish_and_settles_them(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        system = System(up=False)
        desk.hold("a1", "b1")

        def handler(message: ReceivedMessage) -> None:
            if message.text in ("a1", "b1"):
                desk(message)
            else:
                system(message)

        send(client, queue, *texts_of(6))
        with Worker(client, queue, handler, concurrency=6, policy=POLICY) as worker, desk:
            desk.wait_for(lambda: desk.running == 2)
            wait_until(lambda: bool(of(events, ProcessingPaused)))
            pass_time_with_handlers(clock, 40.0, desk)
            assert not any(lease.lost for lease in desk.leases)
            assert worker.status().paused is not None

            desk.let_go("a1", "b1")

            wait_until(lambda: worker.status().completed == 2)
            wait_until(lambda: worker.status().held == 1)
            assert worker.status().paused is not None, "they began before it"
            assert client.describe(queue).leased == 1

    def test_ends_when_the_worker_stops_which_returns_at_once(
        self, client: QueueClient, queue: str, clock: FakeClock, events: list[Event]
    ) -> None:
        system = System(up=False)
        send(client, queue, *texts_of(5))
        worker = Worker(client, queue, system, policy=POLICY)
        worker.start()
        await_pause(client, clock, events)
        pass_time(client, clock, 12.0)
        before = clock.monotonic()

        report = worker.stop()

        assert clock.monotonic() == before
        assert (report.reason, report.released, report.finished) == ("asked", 1, 0)
        assert (report.overdue, report.unknown, report.in_hand, report.threads_left) == (0, 0, 0, ())
        found = client.describe(queue)
        assert (found.leased, (found.active or 0) + (found.delayed or 0)) == (0, 5)

    def test_does_not_come_without_a_breaker(
        self, client: QueueClient, queue: str, clock: FakeClock, events: list[Event]
    ) -> None:
        system = System(up=False)
        send(client, queue, *texts_of(8))
        policy = HandlerPolicy(base=1.0, cap=4.0, downstream=(Down,), breaker=None)
        with Worker(client, queue, system, policy=policy) as worker:
            pass_time(client, clock, 60.0)
            assert len(system.calls) > 40
            assert worker.status().paused is None
            assert worker.status().held == 8
        assert not of(events, ProcessingPaused)

    @pytest.mark.parametrize("how", ["retry", "reject", "permanent"])
    def test_does_not_come_by_what_a_handler_decides_of_a_message(
        self, client: QueueClient, queue: str, clock: FakeClock, events: list[Event], how: str
    ) -> None:
        errors = {"retry": Retry(1.0), "reject": Reject("Spam"), "permanent": KeyError("gone")}
        calls: list[str] = []

        def handler(message: ReceivedMessage) -> None:
            calls.append(message.text)
            raise errors[how]

        send(client, queue, *texts_of(12))
        policy = HandlerPolicy(base=1.0, permanent=(KeyError,), breaker=BREAKER)
        with Worker(client, queue, handler, policy=policy) as worker:
            pass_time(client, clock, 30.0)
            assert worker.status().dead_lettered == 12
            assert len(calls) == (60 if how == "retry" else 12)
        assert not of(events, ProcessingPaused)

    def test_does_not_come_by_what_cannot_be_decoded(
        self, client: QueueClient, queue: str, clock: FakeClock, events: list[Event]
    ) -> None:
        client.send_batch(queue, [Message.of({"number": "x"}, session_id=t) for t in texts_of(12)])

        def handler(job: Job, message: ReceivedMessage) -> None: ...

        with Worker(client, queue, handler, payload=Job, policy=POLICY) as worker:
            wait_until(lambda: worker.status().dead_lettered == 12)
        assert not of(events, ProcessingPaused)

    def test_does_not_come_by_default_while_half_of_all_are_bad(
        self, client: QueueClient, queue: str, clock: FakeClock, events: list[Event]
    ) -> None:
        def handler(message: ReceivedMessage) -> None:
            if message.text.endswith("bad"):
                raise ValueError("this one, always")

        texts = [f"{chr(ord('a') + n)}{'bad' if n % 2 else 'good'}" for n in range(24)]
        policy = HandlerPolicy(max_attempts=1)
        for _ in range(4):
            send(client, queue, *texts)
        with Worker(client, queue, handler, concurrency=4, policy=policy) as worker:
            wait_until(lambda: worker.status().completed == worker.status().dead_lettered == 48)
        assert not of(events, ProcessingPaused)

    def test_comes_by_default_when_nearly_all_fail(
        self, client: QueueClient, queue: str, clock: FakeClock, events: list[Event]
    ) -> None:
        system = System(up=False)
        send(client, queue, *texts_of(24))
        with Worker(client, queue, system, concurrency=4, policy=HandlerPolicy(max_attempts=1)) as worker:
            await_pause(client, clock, events)
            pass_time_until(client, clock, lambda: worker.status().held == 0)
            assert 20 <= worker.status().dead_lettered < 24

    def test_by_other_errors_than_downstream_ones_costs_its_probe_attempts_and_nobody_else(
        self, client: QueueClient, queue: str, clock: FakeClock, events: list[Event]
    ) -> None:
        """Downstream errors are those that the user names; for others each message answers itself."""
        system = System(up=False)
        send(client, queue, *texts_of(8))
        policy = HandlerPolicy(base=1.0, cap=2.0, max_attempts=3, breaker=BREAKER)
        with Worker(client, queue, system, concurrency=8, policy=policy) as worker:
            await_pause(client, clock, events)
            pass_time(client, clock, 11.0)
            [letter] = of(events, MessageDeadLettered)
            assert isinstance(letter, MessageDeadLettered)
            assert letter.attempts == 3
            assert worker.status().paused is not None
            system.up = True
            pass_time(client, clock, 30.0)
            assert (worker.status().completed, worker.status().dead_lettered) == (7, 1)

    def test_wants_as_many_probes_as_its_policy_says(
        self, client: QueueClient, queue: str, clock: FakeClock, events: list[Event]
    ) -> None:
        system = System(up=False)
        done_before: list[int] = []

        def look(message: ReceivedMessage) -> None:
            if system.up and not of(events, ProcessingResumed):
                done_before.append(worker.status().held)
            system(message)

        send(client, queue, *texts_of(8))
        breaker = BreakerPolicy(failure_rate=0.8, minimum_calls=4, window=600.0, open_for=AFTER, probes=2)
        policy = HandlerPolicy(base=1.0, cap=4.0, downstream=(Down,), breaker=breaker)
        worker = Worker(client, queue, look, concurrency=4, policy=policy)
        with worker:
            await_pause(client, clock, events)
            system.up = True
            pass_time(client, clock, 40.0)
            assert worker.status().completed == 8
        assert done_before == [1, 1], "one after the other, before anything else"
        assert len(of(events, ProcessingResumed)) == 1


def pass_time_with_handlers(clock: FakeClock, seconds: float, desk: Desk) -> None:
    """In small steps: a handler that waits rests nowhere that can be seen."""
    for _ in range(int(seconds)):
        clock.advance(1.0)
        wait_until(lambda: all(lease.remaining() > 10.0 for lease in desk.leases))


@ANY_QUEUE
class TestTheNextProbe:
    """When a probe ends without success exactly one message is fetched in its place."""

    def check(
        self,
        client: QueueClient,
        queue: str,
        clock: FakeClock,
        events: list[Event],
        policy: HandlerPolicy,
        seconds: float,
    ) -> tuple[System, Worker]:
        """An outage of *seconds*; returns when all is well again."""
        system, held = System(up=False), []

        def handler(message: ReceivedMessage) -> None:
            if of(events, ProcessingPaused):
                held.append(worker.status().held)
            system(message)

        send(client, queue, *texts_of(8))
        worker = Worker(client, queue, handler, concurrency=1, policy=policy)
        with worker:
            await_pause(client, clock, events)
            pass_time(client, clock, seconds)
            assert set(held) == {1}
            assert not of(events, ProcessingResumed)
            system.up = True
            pass_time(client, clock, 60.0)
            assert worker.status().paused is None
        assert len(of(events, ProcessingPaused)) == 1
        assert len(of(events, ProcessingResumed)) == 1
        return system, worker

    def test_comes_after_one_that_was_dead_lettered(
        self, client: QueueClient, queue: str, clock: FakeClock, events: list[Event]
    ) -> None:
        policy = HandlerPolicy(base=1.0, cap=2.0, max_attempts=2, breaker=BREAKER)

        _, worker = self.check(client, queue, clock, events, policy, 40.0)

        status = worker.status()
        assert status.completed + status.dead_lettered == 8
        assert 2 <= status.dead_lettered <= 5

    def test_comes_after_one_whose_hold_is_over(
        self, client: QueueClient, queue: str, clock: FakeClock, events: list[Event]
    ) -> None:
        policy = HandlerPolicy(
            base=1.0, cap=4.0, max_attempts=2, max_hold=20.0, downstream=(Down,), breaker=BREAKER
        )

        system, worker = self.check(client, queue, clock, events, policy, 150.0)

        assert (worker.status().completed, worker.status().dead_lettered) == (8, 0)
        assert {attempt for _, attempt in system.calls} == {1}

    def test_comes_after_one_whose_lease_was_lost(
        self, client: QueueClient, queue: str, clock: FakeClock, events: list[Event]
    ) -> None:
        leases = []
        system = System(up=False)

        def handler(message: ReceivedMessage) -> None:
            leases.append(message.lease)
            system(message)

        send(client, queue, *texts_of(4))
        with Worker(client, queue, handler, concurrency=1, policy=POLICY) as worker:
            await_pause(client, clock, events)
            first = system.asked_by()[-1]
            leases[-1].lose("the broker says so")
            pass_time(client, clock, 12.0)

            assert len(system.calls) > 4, f"somebody was tried after {first}"
            assert worker.status().held == 1
            assert not leases[-1].lost
            system.up = True
            pass_time(client, clock, 60.0)
            assert worker.status().completed == 4

    def test_is_not_tried_before_it_is_due_though_it_was_in_hand_behind_the_last(
        self, client: QueueClient, queue: str, clock: FakeClock, events: list[Event]
    ) -> None:
        """Or a pause would be the end of a session, where a message has few attempts."""
        system = System(up=False)
        for number in range(6):
            send(client, queue, *(f"{letter}{number}" for letter in "abcd"))
        policy = HandlerPolicy(max_attempts=1, breaker=BREAKER)
        with Worker(client, queue, system, concurrency=4, policy=policy) as worker:
            await_pause(client, clock, events)
            settle_down(client, clock)
            begun = len(system.calls)
            assert begun <= 7

            pass_time(client, clock, 4 * (AFTER + 2.0))

            assert 2 <= len(system.calls) - begun <= 5, "one every five seconds"
            system.up = True
            pass_time(client, clock, 60.0)
            status = worker.status()
            assert (status.completed + status.dead_lettered, status.dead_lettered) == (
                24,
                len(system.calls) - status.completed,
            )

    def test_is_given_back_when_the_worker_stops_before_it_is_due(
        self, client: QueueClient, queue: str, clock: FakeClock, events: list[Event]
    ) -> None:
        system = System(up=False)
        for number in range(6):
            send(client, queue, *(f"{letter}{number}" for letter in "abcd"))
        worker = Worker(
            client, queue, system, concurrency=4, policy=HandlerPolicy(max_attempts=1, breaker=BREAKER)
        )
        worker.start()
        await_pause(client, clock, events)

        report = worker.stop()

        assert (report.overdue, report.unknown, report.in_hand) == (0, 0, 0)
        found = client.describe(queue)
        assert (found.leased, found.active) == (0, 24 - len(system.calls))

    def test_comes_after_one_that_asks_to_be_called_again_later(
        self, client: QueueClient, queue: str, clock: FakeClock, events: list[Event]
    ) -> None:
        system = System(up=False)
        later: set[str] = set()

        def handler(message: ReceivedMessage) -> None:
            if message.text in later:
                later.discard(message.text)
                raise Retry(60.0)
            system(message)

        send(client, queue, *texts_of(6))
        with Worker(client, queue, handler, concurrency=1, policy=POLICY) as worker:
            await_pause(client, clock, events)
            first = system.asked_by()[-1]
            later.add(first)
            pass_time(client, clock, 30.0)

            assert not later
            assert worker.status().held == 1, "it does not wait here, beside the next one"
            assert system.asked_by()[-1] != first
            system.up = True
            pass_time(client, clock, 100.0)
            assert worker.status().completed == 6


@ANY_QUEUE
class TestDownstreamFailures:
    POLICY = HandlerPolicy(base=1.0, cap=4.0, max_hold=60.0, downstream=(Down,), breaker=None)

    def test_are_no_attempts_and_are_held_here(
        self, client: QueueClient, queue: str, clock: FakeClock, events: list[Event]
    ) -> None:
        system = System(up=False)
        send(client, queue, "a1")
        with Worker(client, queue, system, policy=self.POLICY) as worker:
            pass_time(client, clock, 50.0)
            assert (worker.status().held, worker.status().handlers) == (1, 0)
            assert client.describe(queue).leased == 1
            assert len(system.calls) > 10
            assert (set(system.calls), set(system.deliveries)) == ({("a1", 1)}, {1})
            failed = of(events, HandlerFailed)
            assert not any(event.counted for event in failed if isinstance(event, HandlerFailed))
            system.up = True
            pass_time(client, clock, 5.0)
            assert worker.status().completed == 1

    def test_go_back_when_they_were_held_for_so_long(
        self, client: QueueClient, queue: str, script: Script, clock: FakeClock, desk: Desk
    ) -> None:
        system = System(up=False)
        send(client, queue, "a1")
        with Worker(client, queue, system, policy=self.POLICY):
            pass_time(client, clock, 150.0)

        assert max(system.deliveries) == 3
        assert {attempt for _, attempt in system.calls} == {1}

    def test_of_an_outage_of_many_holds_are_no_evidence_against_a_message(
        self, client: QueueClient, queue: str, clock: FakeClock
    ) -> None:
        system = System(up=False)
        policy = HandlerPolicy(
            base=1.0, cap=4.0, max_attempts=2, max_hold=10.0, downstream=(Down,), breaker=None
        )
        send(client, queue, "a1", "b1")
        with Worker(client, queue, system, policy=policy) as worker:
            pass_time(client, clock, 150.0)
            if queue != "sessions":
                assert max(system.deliveries) > policy.delivery_limit
            system.up = True
            pass_time(client, clock, 20.0)
            assert (worker.status().completed, worker.status().dead_lettered) == (2, 0)

    def test_do_not_spend_the_attempts_that_a_message_has_of_its_own(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk
    ) -> None:
        policy = HandlerPolicy(base=1.0, cap=2.0, max_attempts=2, downstream=(Down,))
        desk.fail["a1"] = [Down(), ValueError("its own"), Down(), Down(), ValueError("its own")]
        send(client, queue, "a1")
        with Worker(client, queue, desk, policy=policy) as worker:
            pass_time(client, clock, 40.0)
            assert worker.status().dead_lettered == 1

        assert desk.calls == [("a1", 1), ("a1", 1), ("a1", 2), ("a1", 2), ("a1", 2)]


@pytest.mark.parametrize("queue", ["sessions", "groups"])
def test_the_order_of_sessions_is_kept_through_a_pause(
    client: QueueClient, queue: str, clock: FakeClock, events: list[Event]
) -> None:
    system = System(up=True)
    done: list[str] = []

    def handler(message: ReceivedMessage) -> None:
        system(message)
        done.append(message.text)
        if len(done) == 12:
            system.up = False

    for number in range(5):
        send(client, queue, *(f"{letter}{number}" for letter in "abcdef"))
    breaker = BreakerPolicy(failure_rate=0.8, minimum_calls=4, window=10.0, open_for=AFTER)
    policy = HandlerPolicy(base=1.0, cap=4.0, downstream=(Down,), breaker=breaker)
    with Worker(client, queue, handler, concurrency=3, policy=policy) as worker:
        pass_time(client, clock, 60.0)
        assert of(events, ProcessingPaused)
        system.up = True
        pass_time(client, clock, 120.0)
        assert worker.status().completed == 30

    for letter in "abcdef":
        assert [t for t in done if t[0] == letter] == [f"{letter}{n}" for n in range(5)]


class TestAnOutageOfTheBroker:
    @ANY_QUEUE
    def test_is_ridden_out_and_shown_with_its_reason_and_when_it_asks_again(
        self, client: QueueClient, queue: str, script: Script, clock: FakeClock, events: list[Event]
    ) -> None:
        system = System()
        send(client, queue, *texts_of(3))
        script.always(FETCH[queue], fails(ConnectionFailed))
        with Worker(client, queue, system, policy=POLICY) as worker:
            wait_until(lambda: bool(of(events, FetchFailed)))
            settle_down(client, clock)
            for _ in range(10):
                paused = worker.status().paused
                assert paused is not None
                assert paused.by == "provider"
                assert "ConnectionFailed: scripted" in paused.why
                assert 0 < (paused.retry_at - clock.now()).total_seconds() <= 30.0
                pass_time(client, clock, 31.0)
            script.always(FETCH[queue])
            pass_time(client, clock, 31.0)
            assert worker.status().paused is None
            assert worker.status().completed == 3
        assert {attempt for _, attempt in system.calls} == {1}
        assert set(system.deliveries) == {1}

    @ANY_QUEUE
    def test_burns_no_attempt_of_what_is_in_hand_when_leases_cannot_be_renewed(
        self, client: QueueClient, queue: str, script: Script, clock: FakeClock, events: list[Event]
    ) -> None:
        system = System(up=False)
        policy = HandlerPolicy(base=1.0, cap=4.0, max_attempts=2, downstream=(Down,), breaker=BREAKER)
        send(client, queue, *texts_of(4))
        operations = ("receive", "accept_sessions", "renew", "settle", "session.renew", "session.settle")
        with Worker(client, queue, system, policy=policy) as worker:
            await_pause(client, clock, events)
            for _ in range(8):
                for operation in operations:
                    script.always(operation, fails(ConnectionFailed))
                pass_time(client, clock, 60.0)
                for operation in operations:
                    script.always(operation)
                pass_time(client, clock, 60.0)
            system.up = True
            pass_time(client, clock, 120.0)
            assert (worker.status().completed, worker.status().dead_lettered) == (4, 0)
        assert {attempt for _, attempt in system.calls} == {1}
