"""Looking at a queue and emptying it, by a client on the memory provider; the rows have the rest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from queue_runtime import Message, QueueClient, connect, receiving
from queue_runtime.errors import InvalidArgument, QueueNotFound
from queue_runtime.testing import FakeClock


@pytest.fixture
def client() -> Iterator[QueueClient]:
    with connect("memory://?queues=jobs&queue.work=jobs", clock=FakeClock()) as made:
        yield made


def fill(client: QueueClient, count: int) -> list[str]:
    return client.send_batch("work", [Message(body=b"%d" % n) for n in range(count)])


def peek(client: QueueClient, limit: int, after: int = 0) -> list[str]:
    return [view.id for view in receiving.peek(client.runtime_for("work"), "work", limit, after)]


def test_more_than_a_request_shows_is_shown(client: QueueClient) -> None:
    ids = fill(client, 250)

    assert peek(client, 1) == ids[:1]
    assert peek(client, 230) == ids[:230]
    assert peek(client, 1000) == ids
    assert peek(client, 1000, after=200) == ids[200:]
    assert peek(client, 1000, after=250) == []


@pytest.mark.parametrize(("limit", "after"), [(0, 0), (-1, 0), (1, -1)])
def test_what_makes_no_sense_is_refused(client: QueueClient, limit: int, after: int) -> None:
    with pytest.raises(InvalidArgument, match=r"(limit|after) must be a whole number from") as caught:
        peek(client, limit, after)

    assert caught.value.queue == "work"


def test_a_purge_empties_the_queue_by_its_logical_name(client: QueueClient) -> None:
    fill(client, 3)
    client.receive("work")

    receiving.purge(client.runtime_for("work"), "work")

    found = client.describe("work")
    assert (found.active, found.leased, found.delayed) == (0, 0, 0)


def test_a_queue_that_is_not_there_is_not_found(client: QueueClient) -> None:
    for act in (
        lambda: receiving.peek(client.runtime_for("no"), "no", 1),
        lambda: receiving.purge(client.runtime_for("no"), "no"),
    ):
        with pytest.raises(QueueNotFound):
            act()
