"""Workers inside other programs: several on one client, on threads, started again, in batch jobs."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import replace

import pytest

from queue_runtime import Message, QueueClient, ReceivedMessage, Retry, StopReport, Worker, connect
from queue_runtime.errors import Closed, ConfigurationError, QueueNotFound
from queue_runtime.events import Event, HandlerFailed
from queue_runtime.executor import SessionExecutor
from queue_runtime.testing import FakeClock
from tests.worker.hands import ANY_QUEUE, SESSIONS, SOON, URL, Desk, of, send, wait_until
from tests.worker.resting import let_pass

POLL = 3.0


def room(client: QueueClient) -> int:
    """How many of the client's threads are not claimed."""
    executor = client.runtime().executor
    free = 0
    while True:
        try:
            executor.claim(1)
        except ConfigurationError:
            executor.claim(-free)
            return free
        free += 1


class TestSeveralWorkersOnOneClient:
    @ANY_QUEUE
    def test_on_one_queue_share_its_messages_and_handle_each_once(
        self, client: QueueClient, queue: str, desk: Desk
    ) -> None:
        workers = [Worker(client, queue, desk, concurrency=2, prefetch=2) for _ in range(3)]
        for worker in workers:
            worker.start()
        texts = [f"{letter}{number}" for letter in "abcdef" for number in range(5)]
        send(client, queue, *texts)

        desk.wait_for(lambda: len(desk.calls) == len(texts))
        wait_until(lambda: sum(worker.status().completed for worker in workers) == len(texts))
        reports = [worker.stop() for worker in workers]

        assert sorted(text for text, _ in desk.calls) == texts
        assert sum(report.completed for report in reports) == len(texts)
        now = client.describe(queue)
        assert (now.active, now.leased) == (0, 0)

    @SESSIONS
    def test_keep_the_order_of_each_session_between_them(
        self, client: QueueClient, queue: str, desk: Desk
    ) -> None:
        texts = [f"{letter}{number}" for letter in "abcd" for number in range(6)]
        send(client, queue, *texts)
        workers = [Worker(client, queue, desk, concurrency=2, session_max_messages=1) for _ in range(3)]
        for worker in workers:
            worker.start()

        wait_until(lambda: sum(worker.status().completed for worker in workers) == len(texts))

        for letter in "abcd":
            mine = [text for text, _ in desk.calls if text[0] == letter]
            assert mine == sorted(mine)
        for worker in workers:
            worker.stop()

    def test_on_several_queues_stop_one_by_one(self, client: QueueClient, desk: Desk) -> None:
        workers = {queue: Worker(client, queue, desk) for queue in ("plain", "sessions", "groups")}
        for worker in workers.values():
            worker.start()

        workers["plain"].stop()

        send(client, "sessions", "a1")
        send(client, "groups", "b1")
        desk.wait_for(lambda: len(desk.calls) == 2)
        assert workers["plain"].status().state == "stopped"
        client.close()
        assert {worker.status().state for worker in workers.values()} == {"stopped"}
        assert {worker.stop().reason for worker in workers.values()} == {"asked", "closed"}

    def test_that_do_not_fit_its_threads_are_refused_and_change_nothing(
        self, clock: FakeClock, desk: Desk
    ) -> None:
        executor = SessionExecutor(4, clock=clock)
        with executor, connect(URL, clock=clock, executor=executor) as client:
            small = Worker(client, "plain", desk, concurrency=3)
            big = Worker(client, "plain", desk, concurrency=2)
            with small:
                with pytest.raises(ConfigurationError, match="max_workers=4, of which 3 are taken"):
                    big.start()
                assert big.status().state == "new"
                send(client, "plain", "a1")
                desk.wait_for_calls("a1")
            with big:
                send(client, "plain", "a2")
                desk.wait_for_calls("a1", "a2")


class TestItsThreads:
    @ANY_QUEUE
    def test_are_given_back_by_a_stop(self, client: QueueClient, queue: str, desk: Desk) -> None:
        before = room(client)
        worker = Worker(client, queue, desk, concurrency=5)
        for _ in range(3):
            with worker:
                assert room(client) == before - 5
            assert room(client) == before

    def test_are_given_back_where_a_handler_is_stuck(
        self, client: QueueClient, clock: FakeClock, desk: Desk
    ) -> None:
        before = room(client)
        desk.hold("a1")
        send(client, "plain", "a1")
        worker = Worker(client, "plain", desk, concurrency=5)
        worker.start()
        desk.wait_for_calls("a1")

        worker.stop(deadline=0.0)

        assert room(client) == before
        desk.let_go("a1")

    def test_are_not_taken_by_a_start_that_is_refused(self, client: QueueClient, desk: Desk) -> None:
        before = room(client)
        with Worker(client, "plain", desk) as worker:
            taken = room(client)
            with pytest.raises(ConfigurationError, match="running already"):
                worker.start()
            assert room(client) == taken
        with pytest.raises(QueueNotFound):
            Worker(client, "nowhere", desk).start()

        assert room(client) == before

    def test_may_be_the_programs_own(self, clock: FakeClock, desk: Desk) -> None:
        names: list[str] = []

        def handler(message: ReceivedMessage) -> None:
            names.append(threading.current_thread().name)

        executor = SessionExecutor(2, name="mine", clock=clock)
        with connect(URL, clock=clock, executor=executor) as client:
            send(client, "plain", "a1")
            with Worker(client, "plain", handler, concurrency=2):
                wait_until(lambda: len(names) == 1)
        assert names[0].startswith("mine")
        assert executor.submit(lambda: 1).result(SOON) == 1, "it is not closed with the client"
        executor.shutdown()

    def test_of_a_handler_that_a_stop_gave_up_are_replaced(self, clock: FakeClock, desk: Desk) -> None:
        """Else the next worker would hold messages that no thread is there for."""
        with SessionExecutor(1, clock=clock) as executor, ExitStack() as stack:
            client = stack.enter_context(
                connect("memory://?queues=one,other", clock=clock, executor=executor)
            )
            stack.callback(desk.let_go, "a1")
            desk.hold("a1")
            send(client, "one", "a1")
            first = Worker(client, "one", desk, concurrency=1)
            first.start()
            desk.wait_for_calls("a1")
            stopping = threading.Thread(target=first.stop, args=(1.0,))
            stopping.start()
            wait_until(lambda: clock.is_parked(stopping))
            clock.advance(1.0)
            stopping.join(SOON)

            send(client, "other", "b1")
            with Worker(client, "other", desk, concurrency=1) as second:
                wait_until(lambda: second.status().completed == 1)

    def test_that_two_clients_share_keep_their_sessions_apart(self, clock: FakeClock, desk: Desk) -> None:
        url = "memory://?queues=jobs:sessions"
        with SessionExecutor(32, clock=clock) as executor, ExitStack() as stack:
            one = stack.enter_context(connect(url, clock=clock, executor=executor))
            two = stack.enter_context(connect(url, clock=clock, executor=executor))
            stack.callback(desk.let_go, "a1")
            desk.hold("a1")
            send(one, "jobs", "a1")
            send(two, "jobs", "a2")
            Worker(one, "jobs", desk, concurrency=2).start()
            desk.wait_for_calls("a1")

            Worker(two, "jobs", desk, concurrency=2).start()

            desk.wait_for_calls("a1", "a2")


class TestOnAThread:
    def test_run_catches_no_signal_and_a_stop_ends_it(self, client: QueueClient, desk: Desk) -> None:
        reports: list[StopReport] = []
        worker = Worker(client, "plain", desk)
        thread = threading.Thread(target=lambda: reports.append(worker.run()))
        thread.start()
        send(client, "plain", "a1")
        wait_until(lambda: worker.status().completed == 1)

        report = worker.stop()

        thread.join(SOON)
        assert reports == [report]

    def test_the_close_of_its_client_ends_it(self, client: QueueClient, clock: FakeClock, desk: Desk) -> None:
        reports: list[StopReport] = []
        worker = Worker(client, "plain", desk)
        thread = threading.Thread(target=lambda: reports.append(worker.run()))
        thread.start()
        wait_until(lambda: worker.status().state == "running")

        client.close()

        thread.join(SOON)
        assert [report.reason for report in reports] == ["closed"]
        with pytest.raises(Closed):
            worker.start()

    def test_starts_and_stops_of_many_threads_at_once_are_one_start_and_one_stop(
        self, client: QueueClient, desk: Desk
    ) -> None:
        before = room(client)
        worker = Worker(client, "plain", desk, concurrency=3)
        refused: list[ConfigurationError] = []
        reports: list[StopReport] = []

        def start() -> None:
            try:
                worker.start()
            except ConfigurationError as exc:
                refused.append(exc)

        for act, number in ((start, 5), (lambda: reports.append(worker.stop()), 5)):
            threads = [threading.Thread(target=act) for _ in range(number)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(SOON)

        assert len(refused) == 4
        assert len(reports) == 5
        assert len(set(reports)) == 1
        assert room(client) == before


class TestRunUntilIdle:
    @ANY_QUEUE
    def test_handles_what_is_there_and_stops(self, client: QueueClient, queue: str, desk: Desk) -> None:
        send(client, queue, *[f"a{number}" for number in range(20)])

        report = Worker(client, queue, desk).run_until_idle()

        assert len(desk.calls) == report.completed == 20
        assert (report.reason, report.exit_code, report.threads_left) == ("idle", 0, ())

    def test_of_an_empty_queue_stops_at_once(self, client: QueueClient, desk: Desk) -> None:
        assert Worker(client, "plain", desk).run_until_idle().reason == "idle"

    @ANY_QUEUE
    def test_waits_for_retries(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        desk.fail["a1"] = [Retry(30.0)]
        send(client, queue, "a1")
        reports: list[StopReport] = []
        worker = Worker(client, queue, desk)
        thread = threading.Thread(target=lambda: reports.append(worker.run_until_idle()))
        thread.start()
        wait_until(lambda: bool(of(events, HandlerFailed)))

        let_pass(client, clock, thread, until=lambda: not thread.is_alive())

        assert desk.calls == [("a1", 1), ("a1", 2)]
        assert (reports[0].completed, reports[0].reason) == (1, "idle")

    def test_handles_what_its_handlers_send(self, client: QueueClient) -> None:
        seen: list[int] = []

        def handler(message: ReceivedMessage) -> None:
            number = int(message.text)
            seen.append(number)
            if number:
                client.send("plain", Message.of(str(number - 1)))

        client.send("plain", Message.of("5"))

        Worker(client, "plain", handler).run_until_idle()

        assert seen == [5, 4, 3, 2, 1, 0]

    def test_can_be_done_again_and_again(self, client: QueueClient, desk: Desk) -> None:
        worker = Worker(client, "plain", desk)
        for number in range(3):
            send(client, "plain", f"a{number}")
            assert worker.run_until_idle().completed == 1


class TestRestart:
    @ANY_QUEUE
    def test_begins_its_counts_anew_and_its_report_is_of_its_own(
        self, client: QueueClient, queue: str, desk: Desk
    ) -> None:
        worker = Worker(client, queue, desk)
        reports = []
        for texts in (("a1", "a2"), ("b1",)):
            send(client, queue, *texts)
            with worker:
                wait_until(lambda texts=texts: worker.status().completed == len(texts))  # type: ignore[misc]
            reports.append(worker.stop())

        assert [report.completed for report in reports] == [2, 1]
        assert worker.status().state == "stopped"

    def test_while_a_handler_of_the_run_before_is_stuck_works_beside_it(
        self, client: QueueClient, desk: Desk
    ) -> None:
        desk.hold("a1")
        send(client, "plain", "a1")
        worker = Worker(client, "plain", desk)
        worker.start()
        desk.wait_for_calls("a1")
        assert worker.stop(deadline=0.0).overdue == 1

        with worker, desk:
            send(client, "plain", "b1")
            desk.wait_for_calls("a1", "b1")
            wait_until(lambda: worker.status().completed == 1)

        desk.let_go("a1")
        wait_until(lambda: desk.lost == ["a1"])
        assert worker.stop().completed == 1


class TestHealth:
    def test_is_told_from_the_beginning_to_the_end(
        self, client: QueueClient, clock: FakeClock, desk: Desk
    ) -> None:
        worker = Worker(client, "plain", desk, poll=POLL)
        new = worker.health()
        assert (new.queue, new.state, new.alive, new.fetching) == ("plain", "new", False, False)
        assert (new.last_progress, new.last_answer, new.lag, new.paused) == (None, None, None, None)

        desk.hold("a1", "b1")
        worker.start()
        send(client, "plain", "a1")
        desk.wait_for_calls("a1")
        running = worker.health()
        assert (running.state, running.alive, running.fetching) == ("running", True, True)
        assert (running.last_answer, running.lag) == (0.0, 0.0)

        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        wait_until(lambda: worker.status().state == "stopping")
        assert (worker.health().alive, worker.health().fetching) == (True, False)
        desk.let_go("a1")
        stopping.join(SOON)
        stopped = worker.health()
        assert (stopped.state, stopped.alive, stopped.fetching) == ("stopped", False, False)

    def test_the_lag_is_how_old_a_message_was_at_its_start(
        self, client: QueueClient, clock: FakeClock, desk: Desk
    ) -> None:
        send(client, "plain", "a1")
        clock.advance(42.0)
        with Worker(client, "plain", desk) as worker:
            wait_until(lambda: worker.status().completed == 1)
            assert worker.health().lag == 42.0

    def test_progress_is_an_answer_or_a_settlement_whichever_is_later(
        self, client: QueueClient, clock: FakeClock, desk: Desk
    ) -> None:
        desk.hold("a1")
        send(client, "plain", "a1")
        with Worker(client, "plain", desk, concurrency=1) as worker, desk:
            desk.wait_for_calls("a1")
            clock.advance(10.0)
            assert (worker.health().last_answer, worker.health().last_progress) == (10.0, 10.0)
            desk.let_go("a1")
            wait_until(lambda: worker.status().completed == 1)
            assert worker.health().last_progress == 0.0

    def test_a_worker_whose_fetcher_has_died_is_not_alive(
        self, client: QueueClient, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Worker(client, "plain", desk) as worker:
            work = worker._work
            assert work is not None
            monkeypatch.setattr(type(work._fetcher), "threads", lambda self: [])
            assert not worker.health().alive
            monkeypatch.undo()
            assert worker.health() == replace(worker.health(), alive=True)
