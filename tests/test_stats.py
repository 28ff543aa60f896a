"""What a client has asked of its broker: counted by operation, in messages and in requests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from queue_runtime import ClientStats, Message, OperationStats, connect
from queue_runtime.errors import Throttled
from queue_runtime.events import CircuitClosed, ProviderCalled
from queue_runtime.stats import StatsBook
from queue_runtime.testing.sqs import CREDENTIALS, LocalSqs, make_queue
from tests.fakes import Script, fails, scripted


def called(
    operation: str, messages: int, *, error: str | None = None, seconds: float = 0.5
) -> ProviderCalled:
    return ProviderCalled(queue="q", operation=operation, messages=messages, seconds=seconds, error=error)


class TestTheBook:
    def test_counts_by_operation(self) -> None:
        book = StatsBook()

        for event in (called("send", 10), called("send", 2, error="Throttled"), called("receive", 0)):
            book(event)

        assert book.stats({}).operations == {
            "send": OperationStats(calls=2, messages=12, failed=1, seconds=1.0),
            "receive": OperationStats(calls=1, empty=1, seconds=0.5),
        }

    def test_finds_only_questions_empty(self) -> None:
        book = StatsBook()

        book(called("describe", 0))

        assert book.stats({}).operations["describe"].empty == 0

    def test_does_not_take_a_failure_for_an_empty_answer(self) -> None:
        book = StatsBook()

        book(called("receive", 0, error="Throttled"))

        assert book.stats({}).empty_receives == 0

    def test_looks_at_calls_only(self) -> None:
        book = StatsBook()

        book(CircuitClosed(queue="q", operation="send"))

        assert book.stats({}).operations == {}

    def test_misses_nothing_that_several_threads_tell(self) -> None:
        book = StatsBook()

        def tell() -> None:
            for _ in range(500):
                book(called("send", 1))

        with ThreadPoolExecutor(8) as crew:
            for _ in range(8):
                crew.submit(tell)

        assert book.stats({}).operations["send"].calls == 4000


class TestTheStats:
    def test_have_the_brokers_own_count_where_there_is_one(self) -> None:
        operations = {"send": OperationStats(calls=3, messages=20)}

        assert ClientStats(operations=operations).requests == 3
        assert ClientStats(operations=operations, broker_requests={"SendMessageBatch": 5}).requests == 5

    def test_say_what_a_message_costs(self) -> None:
        sending = ClientStats(operations={"send": OperationStats(calls=3, messages=30)})
        working = ClientStats(
            operations={
                "receive": OperationStats(calls=4, messages=10, empty=2),
                "accept_session": OperationStats(calls=1, empty=1),
                "settle": OperationStats(calls=1, messages=10),
            }
        )

        assert sending.requests_per_message == 0.1
        assert working.requests_per_message == 0.6
        assert working.empty_receives == 3
        assert (sending.sent, working.received, working.settled) == (30, 10, 10)
        assert ClientStats().requests_per_message == 0.0

    def test_are_those_of_the_client(self) -> None:
        script = Script()
        script.then("send", fails(Throttled))
        with scripted(script) as client:
            client.send("jobs", Message(body=b"m"))
            client.complete(client.receive("jobs"))
            client.receive("jobs")

            stats = client.stats()

        assert (stats.sent, stats.received, stats.settled, stats.empty_receives) == (2, 1, 1, 1)
        assert stats.operations["send"].failed == 1

    def test_count_the_requests_that_sqs_bills(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in CREDENTIALS.items():
            monkeypatch.setenv(name, value)
        with LocalSqs() as endpoint:
            sqs = endpoint.client()
            made = make_queue(sqs, "jobs")
            sqs.close()
            with connect(endpoint.target(jobs=made.name)) as client:
                client.send_batch("jobs", [Message(body=b"m") for _ in range(20)])
                client.complete(client.receive("jobs", max_messages=10, wait=1))
                client.dead_letter(client.receive("jobs", wait=1), reason="Bad")
                stats = client.stats()

        assert stats.broker_requests["SendMessageBatch"] == 3  # two of ten, and the copy
        assert stats.broker_requests["DeleteMessageBatch"] == 2
        assert stats.broker_requests["ReceiveMessage"] == 2
        assert stats.requests == sum(stats.broker_requests.values())
