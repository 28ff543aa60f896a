"""What is leased at once, and what is handled at once: two budgets."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from queue_runtime import HandlerPolicy, Lease, QueueClient, ReceivedMessage, StopReport, Worker
from queue_runtime.errors import ConfigurationError
from queue_runtime.events import Event, LostLease
from queue_runtime.executor import SessionExecutor
from queue_runtime.testing import FakeClock
from queue_runtime.worker.in_hand import BLOCKED
from queue_runtime.worker.message_run import MessageRun
from queue_runtime.worker.session_run import SessionRun
from tests.fakes import Gate, Script, scripted
from tests.worker.hands import ANY_QUEUE, SETTLE, SOON, URL, Desk, of, send, wait_until


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def client(script: Script, clock: FakeClock, events: list[Event]) -> Iterator[QueueClient]:
    with scripted(script, URL, clock=clock, listeners=[events.append]) as made:
        yield made


def texts_of(count: int) -> list[str]:
    return [f"{chr(ord('a') + n)}1" for n in range(count)]


def has(worker: Worker, client: QueueClient, queue: str, held: int) -> bool:
    """It has so many in hand: a session too has its first message by then."""
    return worker.status().held == held == client.describe(queue).leased


def leases_in_hand(worker: Worker) -> list[Lease]:
    assert worker._work is not None
    leases = []
    for run in worker._work.in_hand.runs():
        assert isinstance(run, MessageRun | SessionRun)
        leases.append(run._message.lease if isinstance(run, MessageRun) else run._session.lease)
    return leases


def stop_beside(worker: Worker) -> tuple[threading.Thread, list[StopReport]]:
    """A thread that stops *worker*, and its report when it has ended."""
    reports: list[StopReport] = []
    thread = threading.Thread(target=lambda: reports.append(worker.stop()), name="stops")
    thread.start()
    return thread, reports


@ANY_QUEUE
class TestPrefetch:
    def test_bounds_what_is_leased_and_concurrency_what_is_handled(
        self, client: QueueClient, queue: str, desk: Desk
    ) -> None:
        texts = texts_of(12)
        desk.hold(*texts)
        send(client, queue, *texts)
        with Worker(client, queue, desk, concurrency=2, prefetch=6) as worker, desk:
            wait_until(lambda: has(worker, client, queue, 6) and desk.running == 2)
            assert client.describe(queue).leased == 6
            assert (worker.status().prefetch, worker.status().concurrency) == (6, 2)
            desk.let_go(*texts)
            wait_until(lambda: worker.status().completed == 12)

        assert desk.most_running == 2

    def test_is_as_many_as_concurrency_if_nothing_is_said(
        self, client: QueueClient, queue: str, desk: Desk
    ) -> None:
        texts = texts_of(8)
        desk.hold(*texts)
        send(client, queue, *texts)
        with Worker(client, queue, desk, concurrency=3) as worker, desk:
            wait_until(lambda: desk.running == 3)
            assert (worker.status().held, worker.status().prefetch) == (3, 3)
            assert client.describe(queue).leased == 3
            desk.let_go(*texts)

    def test_keeps_the_leases_of_what_waits(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        counts: list[int] = []

        def handler(message: ReceivedMessage) -> None:
            counts.append(message.delivery_count)
            desk(message)

        texts = texts_of(6)
        desk.hold(*texts)
        send(client, queue, *texts)
        with Worker(client, queue, handler, concurrency=1, prefetch=6) as worker, desk:
            wait_until(lambda: has(worker, client, queue, 6) and desk.running == 1)
            for _ in range(30):
                clock.advance(5.0)
                wait_until(lambda: all(lease.remaining() > 10.0 for lease in leases_in_hand(worker)))
            assert worker.status().held == 6
            desk.let_go(*texts)
            wait_until(lambda: worker.status().completed == 6)

        assert not of(events, LostLease)
        assert counts == [1] * 6, "none was handed out twice"
        assert not desk.lost

    def test_does_not_start_what_has_lost_its_lease_meanwhile(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk
    ) -> None:
        texts = texts_of(2)
        desk.hold(*texts)
        send(client, queue, *texts)
        with Worker(client, queue, desk, concurrency=1, prefetch=2) as worker, desk:
            wait_until(lambda: has(worker, client, queue, 2) and desk.running == 1)
            running = desk.calls[0][0]
            [waiting] = [lease for lease in leases_in_hand(worker) if lease is not desk.leases[0]]
            waiting.lose("the broker says so")

            desk.let_go(running)

            wait_until(lambda: worker.status().held == 0 or len(desk.calls) > 1)
            wait_until(lambda: worker.status().completed == 1)
            assert all(lease is not waiting for lease in desk.leases)
            if queue == "plain":  # a session comes again at once
                clock.advance(30.0)
            desk.wait_for(lambda: len(desk.calls) == 2)
            desk.let_go(*texts)
            wait_until(lambda: worker.status().completed == 2)

        assert sorted(desk.calls) == [("a1", 1), ("b1", 1)]

    def test_gives_back_what_waits_at_a_stop(self, client: QueueClient, queue: str, desk: Desk) -> None:
        texts = texts_of(6)
        desk.hold(*texts)
        send(client, queue, *texts)
        worker = Worker(client, queue, desk, concurrency=1, prefetch=6)
        worker.start()
        wait_until(lambda: has(worker, client, queue, 6) and desk.running == 1)

        stopping, reports = stop_beside(worker)

        wait_until(lambda: client.describe(queue).leased == 1)  # at once, while a handler runs
        desk.let_go(*texts)
        stopping.join(SOON)
        [report] = reports
        assert (report.completed, report.finished, report.released) == (1, 1, 5)
        assert (report.overdue, report.unknown, report.in_hand) == (0, 0, 0)
        assert client.describe(queue).active == 5

    def test_blames_nobody_for_having_waited(self, client: QueueClient, queue: str, desk: Desk) -> None:
        """Neither by attempts nor by deliveries, however often a message waits and is given back."""
        counts: list[int] = []

        def handler(message: ReceivedMessage) -> None:
            counts.append(message.delivery_count)
            desk(message)

        policy = HandlerPolicy(max_attempts=1)
        send(client, queue, *texts_of(9))
        for number in range(8):
            worker = Worker(client, queue, handler, concurrency=1, prefetch=9, policy=policy)
            desk.hold(*texts_of(9))
            worker.start()
            wait_until(lambda w=worker, n=9 - number: has(w, client, queue, n) and desk.running == 1)  # type: ignore[misc]
            stopping, _ = stop_beside(worker)
            wait_until(lambda: client.describe(queue).leased == 1)
            desk.let_go(*texts_of(9))
            stopping.join(SOON)
        report = Worker(client, queue, handler, policy=policy).run_until_idle()

        assert (report.completed, report.dead_lettered, len(counts)) == (1, 0, 9)
        if queue != "sessions":
            assert max(counts) > policy.delivery_limit
        assert {attempt for _, attempt in desk.calls} == {1}

    def test_blames_nobody_for_a_stop_before_anybody_looked_at_it(
        self, script: Script, clock: FakeClock, queue: str, desk: Desk
    ) -> None:
        policy = HandlerPolicy(max_attempts=1)
        with (
            SessionExecutor(2) as executor,
            scripted(script, URL, clock=clock, executor=executor) as client,
        ):
            send(client, queue, "a1")
            for _ in range(policy.delivery_limit + 1):
                worker = Worker(client, queue, desk, concurrency=1, policy=policy)
                free = threading.Event()
                executor.submit(free.wait)
                executor.submit(free.wait)  # its threads have other things to do
                worker.start()
                wait_until(lambda w=worker: w.status().held == 1)  # type: ignore[misc]
                stopping, _ = stop_beside(worker)
                wait_until(lambda s=stopping: clock.is_parked(s))  # type: ignore[misc]
                free.set()
                stopping.join(SOON)
            report = Worker(client, queue, desk, concurrency=1, policy=policy).run_until_idle()

        assert (report.completed, report.dead_lettered) == (1, 0)
        assert desk.calls == [("a1", 1)]

    def test_lets_the_next_in_while_one_is_settled(
        self, client: QueueClient, queue: str, script: Script, desk: Desk
    ) -> None:
        send(client, queue, *texts_of(3))
        with Gate() as gate:
            script.then(SETTLE[queue], gate, gate, gate)
            with Worker(client, queue, desk, concurrency=1, prefetch=3) as worker:
                desk.wait_for(lambda: len(desk.calls) >= 2)
                gate.open()
                wait_until(lambda: worker.status().completed == 3)

        assert desk.most_running == 1

    def test_holds_no_more_than_prefetch_while_they_are_settled(
        self, client: QueueClient, queue: str, script: Script, desk: Desk
    ) -> None:
        send(client, queue, *texts_of(6))
        with Gate() as gate:
            script.always(SETTLE[queue], gate)
            with Worker(client, queue, desk, concurrency=2, prefetch=2) as worker:
                gate.wait_until_reached()
                desk.wait_for(lambda: len(desk.calls) == 2)
                assert worker.status().held == 2
                gate.open()
                wait_until(lambda: worker.status().completed == 6)


@pytest.mark.parametrize(("concurrency", "prefetch"), [(4, 3), (16, 1)])
def test_a_prefetch_below_concurrency_is_refused(
    client: QueueClient, desk: Desk, concurrency: int, prefetch: int
) -> None:
    with pytest.raises(ConfigurationError, match=f"prefetch={prefetch} is below concurrency={concurrency}"):
        Worker(client, "plain", desk, concurrency=concurrency, prefetch=prefetch)


@pytest.mark.parametrize("prefetch", [0, -1, 2.5])
def test_a_prefetch_that_is_no_number_of_messages_is_refused(
    client: QueueClient, desk: Desk, prefetch: int
) -> None:
    with pytest.raises(ConfigurationError, match="prefetch must be a whole number"):
        Worker(client, "plain", desk, concurrency=1, prefetch=prefetch)


class TestAQueueWithoutOrder:
    def test_a_busy_session_does_not_keep_others_from_being_handled(
        self, client: QueueClient, desk: Desk
    ) -> None:
        busy = [f"a{n}" for n in range(1, 6)]
        desk.hold(*busy)
        send(client, "plain", *busy, "b1", "c1")
        with Worker(client, "plain", desk, concurrency=2) as worker, desk:
            wait_until(lambda: worker.status().completed == 2)
            assert sorted(text for text, _ in desk.calls) == ["a1", "b1", "c1"]
            desk.let_go(*busy)
            wait_until(lambda: worker.status().completed == 7)

    def test_no_more_of_it_are_held_than_twice_concurrency_beyond_prefetch(
        self, client: QueueClient, clock: FakeClock, desk: Desk
    ) -> None:
        busy = [f"a{n}" for n in range(30)]
        desk.hold(*busy)
        send(client, "plain", *busy)
        with Worker(client, "plain", desk, concurrency=2, prefetch=3) as worker, desk:
            wait_until(lambda: worker.status().held == 3 + BLOCKED * 2)
            wait_until(lambda: clock.is_parked(*fetchers()))
            assert client.describe("plain").leased == worker.status().held == 7
            assert desk.running == 1
            desk.let_go(*busy)
            wait_until(lambda: worker.status().completed == 30)

        assert desk.most_running == 1

    def test_what_is_blocked_keeps_its_lease_and_goes_back_at_a_stop(
        self, client: QueueClient, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        busy = [f"a{n}" for n in range(4)]
        desk.hold(*busy)
        send(client, "plain", *busy)
        worker = Worker(client, "plain", desk, concurrency=2)
        worker.start()
        wait_until(lambda: worker.status().held == 4 and desk.running == 1)
        for _ in range(20):
            clock.advance(5.0)
            wait_until(lambda: all(lease.remaining() > 10.0 for lease in leases_in_hand(worker)))

        stopping, reports = stop_beside(worker)

        wait_until(lambda: client.describe("plain").leased == 1)
        desk.let_go(*busy)
        stopping.join(SOON)
        assert (reports[0].completed, reports[0].released) == (1, 3)
        assert not of(events, LostLease)


def fetchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("queue_runtime-fetch")]
