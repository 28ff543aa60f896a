"""A stop, or a close of the client, that a handler asks for: it does not wait for that handler itself."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from queue_runtime import QueueClient, ReceivedMessage, StopReport, Worker, connect
from queue_runtime.testing import FakeClock
from tests.worker.hands import ANY_QUEUE, SOON, URL, Desk, left_over, send, wait_until

QUEUES = ("plain", "sessions", "groups")


class Elsewhere:
    """Something that a thread of its own does, and its answer."""

    def __init__(self, act: Callable[[], StopReport | None]) -> None:
        self.answer: StopReport | None = None
        self._act = act
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        self.answer = self._act()

    def report(self) -> StopReport:
        self.thread.join(SOON)
        assert not self.thread.is_alive(), "it has not returned"
        assert self.answer is not None
        return self.answer


class Stopping:
    """A handler that stops its worker; a message ``b…`` is handled at the desk."""

    def __init__(self, desk: Desk, deadline: float = 25.0) -> None:
        self.worker: Worker | None = None
        self.reports: list[StopReport] = []
        self._desk = desk
        self._deadline = deadline

    def __call__(self, message: ReceivedMessage) -> None:
        if not message.text.startswith("a"):
            self._desk(message)
            return
        assert self.worker is not None
        self.reports.append(self.worker.stop(self._deadline))


@pytest.fixture
def handler(desk: Desk) -> Stopping:
    return Stopping(desk)


def worker_of(client: QueueClient, queue: str, handler: Stopping) -> Worker:
    handler.worker = Worker(client, queue, handler)
    return handler.worker


class TestStop:
    @ANY_QUEUE
    def test_returns_at_once_and_says_that_it_goes_on(
        self, client: QueueClient, queue: str, handler: Stopping
    ) -> None:
        send(client, queue, "a1")
        worker = worker_of(client, queue, handler)
        worker.start()

        wait_until(lambda: len(handler.reports) == 1)

        assert handler.reports[0].in_hand == 1
        assert (handler.reports[0].finished, handler.reports[0].reason) == (0, "asked")
        wait_until(lambda: worker.status().state == "stopped")
        whole = worker.stop()
        assert (whole.completed, whole.finished, whole.in_hand, whole.threads_left) == (1, 1, 0, ())

    @ANY_QUEUE
    def test_ends_run_with_the_whole_report(
        self, client: QueueClient, queue: str, clock: FakeClock, handler: Stopping
    ) -> None:
        send(client, queue, "a1")
        worker = worker_of(client, queue, handler)
        running = Elsewhere(worker.run)

        report = running.report()

        assert (report.completed, report.finished, report.in_hand) == (1, 1, 0)
        assert (report.reason, report.exit_code) == ("asked", 0)
        now = client.describe(queue)
        assert (now.active, now.leased) == (0, 0)

    def test_waits_for_the_handlers_beside_it(
        self, client: QueueClient, handler: Stopping, desk: Desk
    ) -> None:
        desk.hold("b1")
        send(client, "plain", "b1")
        worker = worker_of(client, "plain", handler)
        worker.start()
        desk.wait_for_calls("b1")
        send(client, "plain", "a1")
        wait_until(lambda: len(handler.reports) == 1)
        assert handler.reports[0].in_hand == 2
        wait_until(lambda: worker.status().completed == 1)
        assert worker.status().state == "stopping"
        elsewhere = Elsewhere(worker.stop)

        desk.let_go("b1")

        report = elsewhere.report()
        assert (report.finished, report.overdue, report.in_hand) == (2, 0, 0)
        assert report == worker.stop()

    def test_past_its_deadline_tells_the_handlers_beside_it(
        self, client: QueueClient, clock: FakeClock, handler: Stopping, desk: Desk
    ) -> None:
        desk.hold("b1")
        send(client, "plain", "b1")
        worker = worker_of(client, "plain", handler)
        running = Elsewhere(worker.run)
        desk.wait_for_calls("b1")
        send(client, "plain", "a1")
        wait_until(lambda: worker.status().completed == 1)
        # The stop itself, and `run`, which waits for it.
        wait_until(lambda: len([n for n in left_over() if "stop" in n]) == 1)
        wait_until(lambda: not _fetches() and clock.is_parked(running.thread))

        clock.advance(25.0)

        report = running.report()
        assert (report.finished, report.overdue, report.in_hand) == (1, 1, 0)
        assert len(report.threads_left) == 1
        assert desk.leases[0].lost
        desk.let_go("b1")

    def test_inside_several_handlers_is_one(self, client: QueueClient, handler: Stopping) -> None:
        send(client, "plain", "a1", "a2", "a3", "a4")
        worker = worker_of(client, "plain", handler)
        running = Elsewhere(worker.run)

        report = running.report()

        assert report.completed == len(handler.reports)
        now = client.describe("plain")
        assert report.completed + (now.active or 0) == 4, "what was not begun is there for others, at once"
        assert now.leased == 0

    def test_a_second_time_inside_returns_at_once_too(self, client: QueueClient, desk: Desk) -> None:
        reports: list[StopReport] = []

        def handler(message: ReceivedMessage) -> None:
            reports.extend(worker.stop() for _ in range(3))

        send(client, "plain", "a1")
        worker = Worker(client, "plain", handler)

        report = Elsewhere(worker.run).report()

        assert [each.in_hand for each in reports] == [1, 1, 1]
        assert report.finished == 1

    def test_leaves_no_thread(self, client: QueueClient, handler: Stopping) -> None:
        send(client, "plain", "a1")
        worker = worker_of(client, "plain", handler)

        Elsewhere(worker.run).report()

        wait_until(lambda: not [name for name in left_over() if "stop" in name or "fetch" in name])

    def test_where_no_thread_is_to_be_had_tells_all_handlers_that_it_is_over(
        self, client: QueueClient, handler: Stopping, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        start = threading.Thread.start

        def no_thread(thread: threading.Thread) -> None:
            if thread.name.startswith("queue_runtime-stop"):
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", no_thread)
        send(client, "plain", "a1")
        worker = worker_of(client, "plain", handler)

        report = Elsewhere(worker.run).report()

        assert report.overdue == 1, "the handler that asked"
        assert worker.status().state == "stopped"

    def test_of_another_worker_waits_for_that_one(self, client: QueueClient, desk: Desk) -> None:
        reports: list[StopReport] = []

        def handler(message: ReceivedMessage) -> None:
            reports.append(other.stop())

        other = Worker(client, "groups", desk)
        other.start()
        send(client, "plain", "a1")
        with Worker(client, "plain", handler):
            wait_until(lambda: len(reports) == 1)

        assert (reports[0].in_hand, other.status().state) == (0, "stopped")


def _fetches() -> list[str]:
    return [name for name in left_over() if "fetch" in name]


class TestASecondSignal:
    def test_hurries_a_stop_that_a_handler_asked_for(
        self, client: QueueClient, clock: FakeClock, handler: Stopping, desk: Desk
    ) -> None:
        desk.hold("b1")
        send(client, "plain", "b1")
        worker = worker_of(client, "plain", handler)
        running = Elsewhere(worker.run)
        desk.wait_for_calls("b1")
        send(client, "plain", "a1")
        wait_until(lambda: worker.status().completed == 1)
        wait_until(lambda: not _fetches() and clock.is_parked(running.thread))

        worker._on_signal(15, None)
        clock.advance(0.5)
        assert running.thread.is_alive(), "one signal asks for what goes on already"
        worker._on_signal(15, None)
        wait_until(lambda: clock.is_parked(running.thread))
        clock.advance(0.5)

        assert running.report().overdue == 1
        assert worker.status().state == "stopped"
        desk.let_go("b1")


class TestCloseOfTheClient:
    @ANY_QUEUE
    @pytest.mark.parametrize("others", [0, 1, 2])
    def test_does_not_wait_for_the_handler_that_asks_for_it(
        self, clock: FakeClock, queue: str, others: int, desk: Desk
    ) -> None:
        before = set(left_over())
        client = connect(URL, clock=clock)
        closed = threading.Event()

        def handler(message: ReceivedMessage) -> None:
            client.close()
            closed.set()

        worker = Worker(client, queue, handler, concurrency=2)
        idle = [Worker(client, each, desk, concurrency=2) for each in QUEUES if each != queue][:others]
        for each in (*idle, worker):
            each.start()
        send(client, queue, "a1")

        assert closed.wait(SOON), "it waits for itself"

        wait_until(lambda: worker.status().state == "stopped")
        assert {each.status().state for each in idle} <= {"stopped"}
        assert worker.stop().reason == "closed"
        wait_until(lambda: before.issuperset(left_over()))

    def test_lets_the_handlers_beside_it_finish(self, clock: FakeClock, desk: Desk) -> None:
        client = connect(URL, clock=clock)
        closing = threading.Event()

        def handler(message: ReceivedMessage) -> None:
            if message.text == "a1":
                closing.set()
                client.close()
            else:
                desk(message)

        desk.hold("b1")
        send(client, "plain", "b1")
        worker = Worker(client, "plain", handler)
        worker.start()
        desk.wait_for_calls("b1")
        send(client, "plain", "a1")
        assert closing.wait(SOON)
        wait_until(lambda: worker.status().state == "stopping")

        desk.let_go("b1")

        wait_until(lambda: worker.status().state == "stopped")
        assert worker.stop().completed == 1
        assert desk.lost == []
