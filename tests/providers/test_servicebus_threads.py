"""Many threads on one client: nothing lost, nothing settled twice, nothing out of order on the wire."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic
from typing import Any

from queue_runtime import Message as Sent
from queue_runtime import connect
from queue_runtime.errors import QueueError
from queue_runtime.message import Message
from queue_runtime.provider import Abandon, Complete
from tests.providers.servicebus_house import House, drained, fill, ids
from tests.test_fork import in_child, pytestmark  # noqa: F401  # the mark: a fork beside threads is meant

SECONDS = 2.0


class Hammers:
    """Threads that do what they are told, again and again."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.lock = threading.Lock()
        # guarded by lock
        self.sent: set[str] = set()
        self.completed: Counter[str] = Counter()
        self.errors: list[QueueError] = []
        self.number = 0
        self.order: dict[str, list[int]] = {}

    def run(self, *acts: Any, seconds: float = SECONDS) -> None:
        end = monotonic() + seconds

        def work(act: Any) -> None:
            while monotonic() < end:
                act()

        with ThreadPoolExecutor(len(acts)) as crew:
            for each in [crew.submit(work, act) for act in acts]:
                each.result()

    def send(self, session: str | None = None) -> None:
        with self.lock:
            names = [f"n{self.number + n}" for n in range(5)]
            self.number += 5
        messages = [Message(body=b"x", id=name, session_id=session) for name in names]
        for name, outcome in zip(names, self.client.send("jobs", messages), strict=True):
            assert outcome.error is None, outcome.error
            with self.lock:
                self.sent.add(name)

    def consume(self) -> None:
        found = self.client.receive("jobs", 4, 0.2)
        self._note(self.client.renew("jobs", found))
        last, rest = found[-1:], found[:-1]
        self._settle([Complete(each) for each in rest] + [Abandon(each) for each in last])

    def consume_session(self) -> None:
        for session in self.client.accept_sessions("jobs", 1, 0.5):
            for _ in range(20):
                found = session.receive(2, 0.1)
                if not found:
                    break
                session.renew()
                session.set_state(b"x")
                for each in found:
                    with self.lock:
                        self.order.setdefault(session.session_id, []).append(each.sequence)
                    for outcome in session.settle([Complete(each)]):
                        assert outcome.error is None, outcome.error
                    with self.lock:
                        self.completed[each.message.id] += 1
            session.close()

    def peek(self) -> None:
        self.client.peek("jobs", 3)

    def _settle(self, settlements: list[Any]) -> None:
        outcomes = self.client.settle("jobs", settlements)
        self._note(outcomes)
        with self.lock:
            for settlement, outcome in zip(settlements, outcomes, strict=True):
                if outcome.error is None and isinstance(settlement, Complete):
                    self.completed[settlement.delivery.message.id] += 1

    def _note(self, outcomes: Any) -> None:
        with self.lock:
            self.errors += [outcome.error for outcome in outcomes if outcome.error is not None]


def test_sixteen_threads_on_a_queue_lose_nothing_and_settle_nothing_twice(house: House) -> None:
    house.queue(lock=10, max_delivery=10_000)
    client = house.client()
    hammers = Hammers(client)

    hammers.run(*[hammers.send] * 4, *[hammers.consume] * 10, *[hammers.peek] * 2)
    hammers.completed.update(ids(drained(client)))

    assert hammers.errors == []
    assert len(hammers.sent) > 100
    assert hammers.completed == Counter(dict.fromkeys(hammers.sent, 1))
    assert house.counts() == {}
    assert house.bus.stats()["delivery_id_violations"] == 0


def test_sixteen_threads_on_sessions_keep_each_in_order(house: House) -> None:
    house.queue(sessions=True, lock=10, max_delivery=10_000)
    hammers = Hammers(house.client())
    names = iter(f"s{n % 7}" for n in range(1_000_000))

    hammers.run(*[lambda: hammers.send(next(names))] * 4, *[hammers.consume_session] * 12)
    while house.counts():
        hammers.run(*[hammers.consume_session] * 12, seconds=0.5)

    assert len(hammers.sent) > 100
    assert hammers.completed == Counter(dict.fromkeys(hammers.sent, 1))
    assert all(sequences == sorted(sequences) for sequences in hammers.order.values())
    assert house.bus.stats()["delivery_id_violations"] == 0


def test_one_session_in_the_hands_of_many_threads_is_no_harm_to_the_wire(house: House) -> None:
    house.queue(sessions=True, lock=10)
    client, over = house.client(), threading.Event()
    fill(client, 60, session="s")
    session = client.accept_session("jobs", "s")
    found: list[str] = []

    def renew() -> None:
        while not over.wait(0.002):
            session.renew()
            session.set_state(b"x")

    with ThreadPoolExecutor(6) as crew:
        renewing = [crew.submit(renew) for _ in range(4)]
        for _ in range(60):
            [delivery] = session.receive(1, 5.0)
            found.append(delivery.message.id)
            assert session.settle([Complete(delivery)])[0].error is None
        over.set()
        for each in renewing:
            each.result()

    assert found == [f"m{n}" for n in range(60)]
    assert house.bus.stats()["delivery_id_violations"] == 0


class TestAFork:
    def test_leaves_the_parents_connections_to_the_parent(self, house: House) -> None:
        house.queue()
        with connect(house.bus.target()) as client:
            client.send("jobs", Sent(body=b"x", id="before"))
            [held] = client.receive("jobs", wait=5.0)
            over = threading.Event()

            def wait() -> list[str]:
                found = []
                while not over.is_set():
                    found += [message.id for message in client.receive("jobs", wait=0.5)]
                return found

            def child() -> int:
                with connect(house.bus.target()) as own:
                    own.send("jobs", Sent(body=b"x", id="own"))
                client.send("jobs", Sent(body=b"x", id="child"))
                client.close()
                return 1

            with ThreadPoolExecutor(1) as crew:
                waiting = crew.submit(wait)
                try:
                    assert [in_child(child) for _ in range(3)] == [1, 1, 1]
                    client.complete(held)
                    client.send("jobs", Sent(body=b"x", id="after"))
                    with suppress(TimeoutError):
                        waiting.result(2.0)
                finally:
                    over.set()
                found = waiting.result(5.0)

        assert Counter(found) == Counter({"own": 3, "child": 3, "after": 1})
        assert house.bus.stats()["delivery_id_violations"] == 0
