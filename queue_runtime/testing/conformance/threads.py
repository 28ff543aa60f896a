"""Rows: many threads and clients at once; nothing is lost, nothing comes twice, sessions keep their order."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from queue_runtime import Message, QueueClient
from queue_runtime.clock import SystemClock
from queue_runtime.testing.conformance.kit import SLACK, Kit, Rows

SETTLE_WITHIN = 0.05
"""Seconds for which settling or renewing may wait for a receive."""


class Ledger:
    """What threads saw, and whether two had a session at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # guarded by _lock
        self.seen: list[tuple[str | None, str]] = []
        self.holders: Counter[str] = Counter()
        self.overlaps: list[str] = []

    def note(self, session_id: str | None, message_id: str) -> None:
        with self._lock:
            self.seen.append((session_id, message_id))

    def enter(self, session_id: str) -> None:
        with self._lock:
            self.holders[session_id] += 1
            if self.holders[session_id] > 1:
                self.overlaps.append(session_id)

    def leave(self, session_id: str) -> None:
        with self._lock:
            self.holders[session_id] -= 1

    def count(self) -> int:
        with self._lock:
            return len(self.seen)

    def of(self, session_id: str) -> list[str]:
        return [message_id for session, message_id in self.seen if session == session_id]


def send_each(client: QueueClient, queue: str, messages: Sequence[Message]) -> None:
    for message in messages:
        client.send(queue, message)


def take_plain(client: QueueClient, queue: str, ledger: Ledger, total: int) -> None:
    while ledger.count() < total:
        messages = client.receive(queue, max_messages=10, wait=1.0)
        for message in messages:
            ledger.note(None, message.id)
        client.complete(messages)


def take_sessions(client: QueueClient, queue: str, ledger: Ledger, total: int) -> None:
    while ledger.count() < total:
        session = client.accept_session(queue, wait=1.0)
        if session is None:
            continue
        with session:
            ledger.enter(session.session_id)
            messages = session.receive(max_messages=3)
            for message in messages:
                ledger.note(session.session_id, message.id)
                if message is messages[-1]:
                    ledger.leave(session.session_id)  # when it is completed another may have the session
                session.complete(message)


class TestSixteenThreads(Rows):
    def test_nothing_is_lost_and_nothing_comes_twice(self, kit: Kit) -> None:
        desk = kit.desk()
        clients = [kit.client, kit.connect()]
        batches = [[desk.message(b"%d-%d" % (sender, n)) for n in range(20)] for sender in range(8)]
        ids = [message.id for batch in batches for message in batch]
        ledger = Ledger()

        jobs = [kit.start(partial(send_each, kit.client, desk.queue, batch)) for batch in batches]
        jobs += [
            kit.start(partial(take_plain, client, desk.queue, ledger, len(ids))) for client in clients * 4
        ]
        kit.join(*jobs, within=60.0)

        assert Counter(message_id for _, message_id in ledger.seen) == Counter(ids)

    def test_sessions_keep_their_order_and_their_holder(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        clients = [kit.client, kit.connect()]
        names = [f"session-{n}" for n in range(8)]
        batches = {name: [desk.message(b"%d" % n, session_id=name) for n in range(12)] for name in names}
        ledger = Ledger()

        jobs = [kit.start(partial(send_each, kit.client, desk.queue, batch)) for batch in batches.values()]
        jobs += [kit.start(partial(take_sessions, client, desk.queue, ledger, 96)) for client in clients * 4]
        kit.join(*jobs, within=120.0)

        assert {name: ledger.of(name) for name in names} == {
            name: [message.id for message in batch] for name, batch in batches.items()
        }
        assert ledger.overlaps == []

    def test_two_clients_that_wait_for_one_message_share_it_out(self, kit: Kit) -> None:
        desk = kit.desk()
        desk.nothing()
        others = [kit.connect() for _ in range(4)]
        jobs = [kit.start(partial(other.receive, desk.queue, wait=1.0)) for other in others]
        kit.time.sleep(0.3)

        sent = desk.send(desk.message())
        kit.join(*jobs)

        assert [message.id for job in jobs for message in job.result()] == sent


class TestSettlingMeanwhile(Rows):
    """Measured in real time: a lock that is held through a receive costs real seconds on any clock."""

    def best(self, act: Callable[[], object]) -> float:
        """The best of three: the machine may be late once."""
        real = SystemClock()
        taken = []
        for _ in range(3):
            started = real.monotonic()
            act()
            taken.append(real.monotonic() - started)
        return min(taken)

    def measure(self, kit: Kit, acts: dict[str, Callable[[], object]], block: Callable[[], object]) -> None:
        alone = {name: self.best(act) for name, act in acts.items()}
        blocked = [kit.start(block) for _ in range(4)]
        kit.time.sleep(0.2)

        meanwhile = {name: self.best(act) for name, act in acts.items()}

        late = {name: meanwhile[name] for name in acts if meanwhile[name] > alone[name] + SETTLE_WITHIN}
        assert late == {}
        kit.join(*blocked)

    def test_nothing_waits_for_a_receive(self, kit: Kit) -> None:
        desk = kit.desk()
        idle = kit.desk()
        idle.nothing()
        desk.fill(7)
        kept, *messages = desk.take(7)

        self.measure(
            kit,
            {
                "complete": lambda: kit.client.complete(messages.pop()),
                "renew": lambda: kit.client.renew(kept),
                "send": lambda: desk.send(desk.message()),
            },
            lambda: kit.client.receive(idle.queue, wait=1.0),
        )

    def test_nothing_waits_for_a_receive_from_the_same_queue(self, kit: Kit) -> None:
        desk = kit.desk()
        desk.fill(7)
        kept, *messages = desk.take(7)

        self.measure(
            kit,
            {
                "complete": lambda: kit.client.complete(messages.pop()),
                "renew": lambda: kit.client.renew(kept),
            },
            lambda: kit.client.receive(desk.queue, wait=1.0),
        )

    def test_nothing_waits_for_an_accept(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        desk.send(*(desk.message(session_id=f"session-{n}") for n in range(7)))
        kept, *messages = desk.take(7)

        self.measure(
            kit,
            {
                "complete": lambda: desk.complete(messages.pop()),
                "renew": desk.session_of(kept).renew,
            },
            lambda: kit.client.accept_session(desk.queue, wait=1.0),
        )

    def test_four_receives_wait_side_by_side(self, kit: Kit) -> None:
        desk = kit.desk()
        desk.nothing()

        jobs = [kit.start(lambda: kit.client.receive(desk.queue, wait=1.0)) for _ in range(4)]
        kit.join(*jobs)

        assert max(job.elapsed for job in jobs) <= 1.0 + 2 * SLACK + kit.opening
