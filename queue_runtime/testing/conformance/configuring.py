"""Rows: what a client is configured with holds on every provider, and what it did is counted."""

from __future__ import annotations

from itertools import pairwise

import pytest

from queue_runtime import Message, QueueOptions
from queue_runtime.errors import QueueNotFound
from queue_runtime.strategies import parse
from queue_runtime.testing.conformance.errors import MISSING
from queue_runtime.testing.conformance.kit import GRACE, Desk, Kind, Kit, Rows, both_kinds
from queue_runtime.testing.conformance.sessions import accept

NAME = "the-programs-own-name"

STRATEGIES = {
    "attribute": ("attribute:tenant", "acme"),
    "composite": ("composite:tenant,payload:order.id", "acme|17"),
    "first": ("first:attribute:nothing|payload:order.id", "17"),
}
"""The text of a strategy, and the session of a message that has a tenant and an order."""


@both_kinds
class TestQueueNames(Rows):
    def test_a_queue_goes_by_the_name_that_the_program_gives_it(self, kit: Kit, kind: Kind) -> None:
        queue = kit.queue(kind)
        desk = kit.desk(kind, queue=NAME, client=kit.connect(queues={NAME: queue}))
        ids = desk.fill(2)

        message = desk.one()
        assert message.queue == NAME
        desk.dead_letter(message)
        desk.let_go()

        (dead,) = kit.call(desk.client.dead_letters(NAME).list)
        assert (dead.id, dead.dead_letter.queue) == (message.id, NAME)
        assert kit.desk(kind, queue=queue).drain(1).ids == [id for id in ids if id != message.id]

    def test_errors_go_by_it_too(self, kit: Kit, kind: Kind) -> None:
        kit.queue(kind)
        client = kit.connect(queues={NAME: MISSING})

        with pytest.raises(QueueNotFound) as caught:
            client.send(NAME, Message(body=b"body"))

        assert caught.value.queue == NAME


class TestConfiguredLease(Rows):
    def choosing(self, kit: Kit) -> str:
        queue = kit.queue()
        if not kit.capabilities(queue).chosen_lease:
            pytest.skip("Capabilities.chosen_lease is False")
        return queue

    def test_what_is_received_is_held_for_as_long(self, kit: Kit) -> None:
        desk = kit.desk(queue=self.choosing(kit), client=kit.connect(lease=kit.lease))
        desk.fill(1)
        message = desk.one()
        assert message.lease.length == kit.lease

        kit.time.sleep(kit.lease + GRACE)

        assert message.lease.lost
        assert desk.one().delivery_count == 2

    def test_that_of_the_queue_comes_before_that_of_the_client_and_that_of_a_call_before_both(
        self, kit: Kit
    ) -> None:
        options = QueueOptions(target=self.choosing(kit), lease=50.0)
        desk = kit.desk(queue=NAME, client=kit.connect(lease=40.0, queues={NAME: options}))
        desk.fill(2)

        assert desk.one().lease.length == 50.0
        (message,) = kit.call(lambda: desk.client.receive(NAME, wait=5.0, lease=60.0))
        assert message.lease.length == 60.0

    def test_a_session_of_what_was_received_together_is_held_for_as_long(self, kit: Kit) -> None:
        queue = kit.queue("sessions")
        found = kit.capabilities(queue)
        if found.sessions == "native" or not found.chosen_lease:
            pytest.skip("Capabilities.sessions is 'native', or chosen_lease is False")
        desk = kit.desk("sessions", queue=queue, client=kit.connect(lease=40.0))
        desk.fill(1)

        with accept(desk) as session:
            assert session.lease.length == 40.0
            session.renew()
            assert session.lease.remaining() > 35.0

    def test_where_only_the_queue_chooses_it_changes_nothing(self, kit: Kit) -> None:
        queue = kit.queue()
        if kit.capabilities(queue).chosen_lease:
            pytest.skip("Capabilities.chosen_lease is True")
        desk = kit.desk(queue=queue, client=kit.connect(lease=17.0))
        desk.fill(1)

        message = desk.one()

        assert message.lease.length != 17.0
        desk.client.renew(message)
        desk.client.complete(message)


class TestConfiguredStrategy(Rows):
    def send(self, desk: Desk) -> str:
        payload = {"order": {"id": 17}}
        return desk.client.send(desk.queue, Message.of(payload, attributes={"tenant": "acme"}))

    @pytest.mark.parametrize(("text", "session"), STRATEGIES.values(), ids=STRATEGIES.keys())
    def test_a_message_without_a_session_gets_the_one_that_it_names(
        self, kit: Kit, text: str, session: str
    ) -> None:
        desk = kit.desk("sessions", client=kit.connect(strategy=text))
        sent = self.send(desk)
        given = desk.send(desk.message(session_id="given"))

        drained = desk.drain(2)

        assert drained.of(session) == [sent]
        assert drained.of("given") == given

    def test_that_of_the_queue_comes_before_that_of_the_client(self, kit: Kit) -> None:
        queue = kit.queue("sessions")
        options = QueueOptions(target=queue, strategy="attribute:tenant")
        client = kit.connect(strategy=parse("payload:order.id"), queues={NAME: options})
        named, other = (kit.desk("sessions", queue=name, client=client) for name in (NAME, queue))

        by_queue, by_client = self.send(named), self.send(other)

        drained = other.drain(2)
        assert (drained.of("acme"), drained.of("17")) == ([by_queue], [by_client])


@both_kinds
class TestStats(Rows):
    def test_what_a_client_did_is_counted(self, kit: Kit, kind: Kind) -> None:
        client = kit.connect()
        desk = kit.desk(kind, client=client)
        desk.fill(5)
        assert len(desk.drain(5).ids) == 5

        found = client.stats()

        assert (found.sent, found.received, found.settled) == (5, 5, 5)
        assert found.empty_receives >= 1
        assert sum(each.failed for each in found.operations.values()) == 0
        assert found.requests_per_message == found.requests / 5

    def test_requests_are_counted_as_they_are_made(self, kit: Kit, kind: Kind) -> None:
        client = kit.connect()
        assert client.stats().requests == 0
        desk = kit.desk(kind, client=client)
        counts = []

        for _ in range(3):
            desk.fill(1)
            counts.append(client.stats().requests)

        assert counts[0] >= 1
        assert [later - earlier for earlier, later in pairwise(counts)] == [1, 1]
