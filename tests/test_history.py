"""What a process remembers of messages that come again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from queue_runtime import Message, QueueClient, Retry, Worker, connect, history
from queue_runtime.history import Ended, History
from queue_runtime.message import DeadLetterInfo
from queue_runtime.testing import FakeClock
from tests.worker.hands import Desk
from tests.worker.resting import let_pass

DEAD = Ended(DeadLetterInfo(reason="Spam", description=None))


@pytest.fixture
def book() -> History:
    return History()


class TestAttempts:
    def test_the_first_is_number_one(self, book: History) -> None:
        assert book.next_attempt("a") == 1

    def test_each_failed_one_is_followed_by_the_next(self, book: History) -> None:
        book.tried("a", 1)
        book.tried("a", 2)

        assert book.next_attempt("a") == 3
        assert book.next_attempt("b") == 1

    def test_one_that_is_told_twice_is_one(self, book: History) -> None:
        book.tried("a", 1)
        book.tried("a", 1)

        assert book.next_attempt("a") == 2

    def test_asking_remembers_nothing(self, book: History) -> None:
        book.next_attempt("a")
        book.excused("a")
        book.ended("a")

        assert len(book) == 0


class TestExcuses:
    def test_each_counts(self, book: History) -> None:
        book.excuse("a")
        book.excuse("a")

        assert (book.excused("a"), book.excused("b")) == (2, 0)

    def test_they_are_no_attempts(self, book: History) -> None:
        book.excuse("a")

        assert book.next_attempt("a") == 1


class TestEnds:
    def test_nothing_has_ended_that_was_not_noted(self, book: History) -> None:
        book.tried("a", 1)

        assert book.ended("a") is None

    def test_an_end_is_remembered_as_it_was(self, book: History) -> None:
        book.end("a", Ended(None))
        book.end("b", DEAD)

        assert (book.ended("a"), book.ended("b")) == (Ended(None), DEAD)

    def test_what_has_left_the_queue_is_forgotten_whole(self, book: History) -> None:
        book.tried("a", 4)
        book.excuse("a")
        book.end("a", DEAD)

        book.forget("a")
        book.forget("a")

        assert (book.next_attempt("a"), book.excused("a"), book.ended("a"), len(book)) == (1, 0, None, 0)


class TestItsSize:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(history, "REMEMBERED", 3)

    def test_is_bounded_and_the_oldest_is_forgotten_first(self, book: History) -> None:
        for key in "abcde":
            book.tried(key, 1)

        assert len(book) == 3
        assert [book.next_attempt(key) for key in "abcde"] == [1, 1, 2, 2, 2]

    def test_what_is_heard_of_again_is_not_the_oldest(self, book: History) -> None:
        for key in "abc":
            book.tried(key, 1)
        book.excuse("a")

        book.end("d", DEAD)

        assert [book.next_attempt(key) for key in "abc"] == [2, 1, 2]
        assert book.ended("d") == DEAD


def test_one_queue_is_not_another_and_all_workers_of_a_client_share_its_own(clock: FakeClock) -> None:
    with connect("memory://?queues=jobs,mails", clock=clock) as client:
        runtime = client.runtime()

        assert runtime.history("jobs") is runtime.history("jobs")
        assert runtime.history("jobs") is not runtime.history("mails")


def test_attempts_are_counted_on_by_a_worker_that_is_started_again(
    client: QueueClient, clock: FakeClock
) -> None:
    desk = Desk()
    desk.fail["a1"] = [Retry(60.0), Retry(60.0), Retry(60.0)]
    client.send("plain", Message.of("a1"))
    worker = Worker(client, "plain", desk)
    for number in range(1, 4):
        with worker:
            let_pass(client, clock, until=lambda number=number: len(desk.calls) == number)  # type: ignore[misc]
    with Worker(client, "plain", desk):
        let_pass(client, clock, until=lambda: len(desk.calls) == 4)

    assert [attempt for _, attempt in desk.calls] == [1, 2, 3, 4]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def client(clock: FakeClock) -> Iterator[QueueClient]:
    with connect("memory://?queues=plain", clock=clock) as made:
        yield made
