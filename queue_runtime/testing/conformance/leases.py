"""Rows: a lease hides a message while it holds, and gives it back when it ends."""

from __future__ import annotations

import pytest

from queue_runtime.errors import LeaseLost, SettlementError, UnsupportedOperation
from queue_runtime.testing.conformance.kit import GRACE, Desk, Kit, Rows


def choosing(kit: Kit) -> Desk:
    """A queue on which a lease can be asked for."""
    desk = kit.desk(lease=30.0)
    if not kit.capabilities(desk.queue).chosen_lease:
        pytest.skip("Capabilities.chosen_lease is False")
    return desk


class TestLeases(Rows):
    def test_a_held_message_is_hidden_from_all(self, kit: Kit) -> None:
        desk = kit.desk()
        other = kit.desk(queue=desk.queue, client=kit.connect())
        desk.send(desk.message())

        message = desk.one()

        assert desk.nothing()
        assert other.nothing()
        assert not message.lease.lost

    def test_the_lease_is_the_queues_own_if_none_is_given(self, kit: Kit) -> None:
        desk = kit.desk(lease=25.0)
        desk.send(desk.message())

        message = desk.one()

        assert message.lease.length == 25.0
        assert 0 < message.lease.remaining() <= 25.0

    def test_a_lapsed_lease_gives_the_message_back(self, kit: Kit) -> None:
        desk = kit.desk(lease=kit.lease)
        desk.send(desk.message())
        first = desk.one()

        kit.time.sleep(kit.lease + GRACE)

        assert first.lease.lost
        with pytest.raises(LeaseLost):
            kit.client.renew(first)
        again = desk.one()
        assert again.id == first.id
        assert again.delivery_count == 2
        assert not again.lease.lost

    def test_deliveries_are_counted(self, kit: Kit) -> None:
        desk = kit.desk()
        desk.send(desk.message())
        counts = []

        for _ in range(4):
            message = desk.one()
            counts.append(message.delivery_count)
            kit.client.abandon(message)

        assert counts == [1, 2, 3, 4]

    def test_a_lease_may_be_asked_for(self, kit: Kit) -> None:
        desk = choosing(kit)
        desk.send(desk.message())
        (first,) = kit.call(lambda: kit.client.receive(desk.queue, wait=5.0, lease=kit.lease))
        assert first.lease.length == kit.lease

        kit.time.sleep(kit.lease + GRACE)

        assert desk.one().delivery_count == 2

    def test_a_renewed_lease_lasts_from_its_renewal(self, kit: Kit) -> None:
        lease = kit.long_lease
        desk = kit.desk(lease=lease)
        desk.send(desk.message())
        message = desk.one()
        kit.time.sleep(lease * 0.6)

        kit.client.renew(message)
        kit.time.sleep(lease * 0.6)

        assert not message.lease.lost
        assert desk.nothing()
        kit.client.complete(message)

    def test_a_renewal_may_ask_for_another_lease(self, kit: Kit) -> None:
        desk = choosing(kit)
        desk.send(desk.message())
        message = desk.one()

        kit.client.renew(message, lease=kit.lease)
        assert message.lease.remaining() <= kit.lease
        kit.time.sleep(kit.lease + GRACE)

        assert message.lease.lost
        assert desk.one().delivery_count == 2

    def test_where_only_the_queue_chooses_no_other_lease_is_given(self, kit: Kit) -> None:
        desk = kit.desk()
        if kit.capabilities(desk.queue).chosen_lease:
            pytest.skip("Capabilities.chosen_lease is True")
        desk.fill(2)
        message = desk.one()

        with pytest.raises(UnsupportedOperation, match="the queue's own") as caught:
            kit.client.receive(desk.queue, lease=kit.lease)
        assert caught.value.queue == desk.queue
        with pytest.raises(UnsupportedOperation, match="the queue's own"):
            kit.client.renew(message, lease=kit.lease)

        kit.client.complete(message)
        assert desk.one().delivery_count == 1

    def test_a_message_that_is_kept_alive_stays_here(self, kit: Kit) -> None:
        lease = kit.long_lease
        desk = kit.desk(lease=lease)
        other = kit.desk(queue=desk.queue, client=kit.connect())
        desk.send(desk.message())
        message = desk.one()

        with kit.client.keep_alive(message):
            kit.pass_held(1.5 * lease, message.lease)
            assert other.nothing()
            kit.client.complete(message)

    def test_what_is_kept_alive_no_more_lapses(self, kit: Kit) -> None:
        desk = kit.desk(lease=kit.lease)
        desk.send(desk.message())
        message = desk.one()

        with kit.client.keep_alive(message):
            pass
        kit.time.sleep(kit.lease + GRACE)

        assert desk.one().delivery_count == 2

    def test_an_abandoned_message_is_not_kept_alive(self, kit: Kit) -> None:
        desk = kit.desk(lease=2 * kit.lease)
        desk.send(desk.message())
        message = desk.one()

        with kit.client.keep_alive(message):
            kit.client.abandon(message, delay=1.0)
            kit.time.sleep(1.0 + GRACE)
            again = desk.one()

        assert again.delivery_count == 2
        with pytest.raises(SettlementError):
            kit.client.complete(message)
        kit.client.complete(again)
