"""From the journal to a history: what several threads and processes wrote, put together."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from demo_parts.books import Books
from demo_parts.checker import broken_promises
from demo_parts.journal import Journal, Reader
from demo_parts.observed import PlannedFailure, observed
from demo_parts.plan import Delivery, Trouble, make_plan, sample_entries

from queue_runtime import Message, ReceivedMessage, connect
from queue_runtime.events import LostLease, MessageCompleted, ProviderCalled, SettlementFailed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.ndjson"


def plan() -> list[Delivery]:
    rng = random.Random(7)
    return [each for each in make_plan(sample_entries(rng), 100, rng) if each.fate == "handled"][:2]


def received(delivery: Delivery) -> ReceivedMessage:
    client = connect("memory://?queues=events")
    client.send("events", Message(body=delivery.body, id=delivery.id, session_id=delivery.session))
    (message,) = client.receive("events")
    return message


def books_of(path: Path) -> Books:
    books = Books(Reader(path))
    books.read()
    return books


def test_a_handler_that_returns_or_raises_leaves_a_run(path: Path) -> None:
    first, second = plan()
    journal = Journal(path, life=0)
    handle = observed(lambda message: None, journal, {second.id: Trouble(failures=1)})

    handle(received(first))
    with pytest.raises(PlannedFailure):
        handle(received(second))

    done, failed = books_of(path).runs
    assert (done.delivery, done.session, done.attempt, done.done) == (first.id, first.session, 1, True)
    assert (failed.delivery, failed.done) == (second.id, False)
    assert done.ended is not None
    assert done.started <= done.ended <= failed.started


def test_a_delivery_is_taken_when_the_app_said_so_and_settled_when_the_broker_did(path: Path) -> None:
    first, second = (replace(each, forgery=None) for each in plan())
    driver, bot = Journal(path), Journal(path, life=0)
    driver.write("posted", delivery=first.id, status=503, since=1.0, seconds=0.1)
    driver.write("posted", delivery=first.id, status=202, since=2.0, seconds=0.1)
    driver.write("posted", delivery=second.id, status=503, since=3.0, seconds=0.1)

    books = books_of(path)

    assert books.since == {first.id: 2.0}
    assert books.outstanding() == {first.id}
    assert books.history([first, second], {}, frozenset()).untaken == {second.id: 503}

    bot.hear(MessageCompleted(queue="events", message_id=first.id, session_id=None, attempt=1, seconds=0.1))
    books.read()

    assert books.outstanding() == set()


@pytest.mark.parametrize(
    "event",
    [
        SettlementFailed(
            queue="events", message_id="a1", session_id="A", error="OutcomeUnknown", text="no answer"
        ),
        LostLease(queue="events", message_id="a1", session_id=None, reason="it ran out"),
        LostLease(queue="events", message_id=None, session_id="A", reason="it ran out"),
    ],
)
def test_what_the_worker_reported_as_lost_is_excused_and_nothing_else(path: Path, event: object) -> None:
    journal = Journal(path, life=0)
    for run, (delivery, session) in enumerate([("a0", "A"), ("a1", "A"), ("b1", "B")]):
        journal.write("started", run=run, delivery=delivery, session=session, attempt=1)
    journal.hear(MessageCompleted(queue="events", message_id="a0", session_id="A", attempt=1, seconds=0.1))
    journal.hear(event)  # type: ignore[arg-type]

    assert books_of(path).history([], {}, frozenset()).excused == {"a1"}


def test_calls_are_counted_for_the_app_and_the_first_life_of_the_bot(path: Path) -> None:
    called = ProviderCalled(queue="events", operation="send", messages=1, seconds=0.1, error=None)
    Journal(path).hear(called)
    Journal(path, life=0).hear(called)
    Journal(path, life=0).write("stopped", report={})
    Journal(path, life=1).hear(called)

    assert books_of(path).calls == {"send": 2}


def test_a_life_of_the_bot_is_up_when_the_broker_has_answered_it(path: Path) -> None:
    called = ProviderCalled(queue="events", operation="describe", messages=0, seconds=0.1, error=None)
    Journal(path).hear(called)
    Journal(path, life=0).hear(replace(called, error="ConnectionFailed"))

    assert books_of(path).up == set()

    Journal(path, life=0).hear(called)

    assert books_of(path).up == {0}


def test_a_line_that_is_still_being_written_is_read_when_it_is_whole(path: Path) -> None:
    reader = Reader(path)
    assert list(reader.new()) == []

    path.write_bytes(b'{"kind":"a"}\n{"kind":')
    assert [record["kind"] for record in reader.new()] == ["a"]

    with path.open("ab") as file:
        file.write(b'"b"}\n')
    assert [record["kind"] for record in reader.new()] == ["b"]


def test_an_empty_journal_makes_an_empty_history(path: Path) -> None:
    assert broken_promises(books_of(path).history([], {}, frozenset())) == []
