"""Rows: settling outside sessions, one message or many, once or twice, in time or too late."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from queue_runtime import Lease, QueueClient, ReceivedMessage
from queue_runtime.errors import BatchFailed, InvalidReceipt, LeaseLost, SettlementError
from queue_runtime.testing.conformance.kit import GRACE, SLACK, Desk, Kit, Rows

Settle = Callable[[QueueClient, ReceivedMessage | Sequence[ReceivedMessage]], None]

SETTLE: dict[str, Settle] = {
    "complete": lambda client, messages: client.complete(messages),
    "abandon": lambda client, messages: client.abandon(messages),
    "dead-letter": lambda client, messages: client.dead_letter(messages, reason="because"),
}

VERBS: dict[str, Settle] = {**SETTLE, "renew": lambda client, messages: client.renew(messages)}

each_settle = pytest.mark.parametrize("settle", SETTLE.values(), ids=SETTLE.keys())
each_verb = pytest.mark.parametrize("act", VERBS.values(), ids=VERBS.keys())


def held(desk: Desk, count: int) -> list[ReceivedMessage]:
    desk.fill(count)
    messages = desk.take(count)
    assert len(messages) == count
    return messages


def spoil(message: ReceivedMessage) -> None:
    """Give it a receipt that the broker has never issued."""
    message.delivery = replace(message.delivery, receipt="not-a-receipt")


def believed(kit: Kit, message: ReceivedMessage) -> Lease:
    """A lease that lets the client believe that *message* is still held, so that the broker is asked."""
    now = kit.time.clock.monotonic()
    return Lease(kit.time.clock, until=now + 600.0, length=message.lease.length, what=f"{message.id!r}")


class TestSettling(Rows):
    def test_a_completed_message_is_gone(self, kit: Kit) -> None:
        desk = kit.desk(lease=kit.lease)
        (message,) = held(desk, 1)

        kit.client.complete(message)
        kit.time.sleep(kit.lease + 2 * GRACE)

        assert desk.nothing()

    def test_an_abandoned_message_comes_again_at_once(self, kit: Kit) -> None:
        desk = kit.desk()
        (message,) = held(desk, 1)

        kit.client.abandon(message)

        again, seconds = kit.timed(desk.one)
        assert again.id == message.id
        assert again.body == message.body
        assert again.delivery_count == 2
        assert seconds < 2.0 + kit.opening

    def test_an_abandoned_message_waits_for_its_delay(self, kit: Kit) -> None:
        desk = kit.desk()
        (message,) = held(desk, 1)

        kit.client.abandon(message, delay=1.0)

        again, seconds = kit.timed(lambda: desk.one(wait=10.0))
        assert again.delivery_count == 2
        assert 1.0 - SLACK <= seconds <= 1.0 + 2.0 + kit.opening

    def test_a_delay_may_be_longer_than_the_lease(self, kit: Kit) -> None:
        desk = kit.desk(lease=kit.lease)
        (message,) = held(desk, 1)

        kit.client.abandon(message, delay=kit.lease + kit.look + 1.0)
        kit.time.sleep(kit.lease + GRACE)

        assert desk.nothing()
        assert desk.one(wait=10.0).delivery_count == 2

    @each_settle
    def test_many_are_settled_by_one_call(self, kit: Kit, settle: Settle) -> None:
        desk = kit.desk()
        messages = held(desk, 25)

        settle(kit.client, messages)

        expected = messages if settle is SETTLE["abandon"] else []
        again = desk.drain(len(expected))
        assert sorted(again.ids) == sorted(message.id for message in expected)
        kit.eventually(lambda: kit.left(desk.queue), 0)

    @each_settle
    def test_settling_nothing_is_harmless(self, kit: Kit, settle: Settle) -> None:
        settle(kit.client, [])


class TestTwice(Rows):
    @each_settle
    def test_settling_twice_the_same_way_is_harmless(self, kit: Kit, settle: Settle) -> None:
        desk = kit.desk()
        message, other = held(desk, 2)

        settle(kit.client, message)
        settle(kit.client, message)
        settle(kit.client, [message, other])

        expected = 2 if settle is SETTLE["abandon"] else 0
        assert len(desk.drain(expected).ids) == expected

    @each_settle
    def test_a_second_settlement_does_not_disturb_a_later_hold(self, kit: Kit, settle: Settle) -> None:
        desk = kit.desk()
        (message,) = held(desk, 1)
        kit.client.abandon(message)
        again = desk.one()

        if settle is SETTLE["abandon"]:
            settle(kit.client, message)  # it is what was done with it
        else:
            with pytest.raises(InvalidReceipt):
                settle(kit.client, message)

        assert desk.nothing()
        kit.client.complete(again)

    def test_settling_another_way_says_what_was_done_before(self, kit: Kit) -> None:
        desk = kit.desk()
        (message,) = held(desk, 1)
        kit.client.complete(message)

        with pytest.raises(InvalidReceipt, match="completed"):
            kit.client.abandon(message)

        assert desk.nothing()

    def test_the_same_message_twice_in_one_call_is_harmless(self, kit: Kit) -> None:
        desk = kit.desk()
        message, other = held(desk, 2)

        kit.client.complete([message, other, message])

        assert desk.nothing()

    def test_a_message_settled_by_another_client_is_refused(self, kit: Kit) -> None:
        desk = kit.desk()
        (message,) = held(desk, 1)

        with pytest.raises(SettlementError):
            kit.connect().complete(message)

        kit.client.complete(message)


class TestTooLate(Rows):
    def test_a_lapsed_lease_settles_nothing(self, kit: Kit) -> None:
        desk = kit.desk(lease=kit.lease)
        messages = held(desk, 3)
        kit.time.sleep(kit.lease + GRACE)

        for message, settle in zip(messages, SETTLE.values(), strict=True):
            with pytest.raises(LeaseLost):
                settle(kit.client, message)

        assert [message.delivery_count for message in desk.take(3)] == [2, 2, 2]

    def test_what_another_holds_now_stays_with_it(self, kit: Kit) -> None:
        desk = kit.desk(lease=kit.lease)
        other = kit.desk(queue=desk.queue, client=kit.connect())
        messages = held(desk, 3)
        kit.time.sleep(kit.lease + GRACE)
        again = other.take(3)

        with other.client.keep_alive(*again):
            for message, settle in zip(messages, SETTLE.values(), strict=True):
                with pytest.raises(LeaseLost):
                    settle(kit.client, message)

            assert desk.nothing()
            other.client.complete(again)

    def test_a_stale_receipt_does_not_take_the_message_from_its_new_holder(self, kit: Kit) -> None:
        """The broker is asked. It may call that a success (a standard SQS queue does), but not act on it."""
        desk = kit.desk(lease=kit.lease)
        other = kit.desk(queue=desk.queue, client=kit.connect())
        (message,) = held(desk, 1)
        kit.time.sleep(kit.lease + GRACE)
        (again,) = other.take(1)
        message.lease = believed(kit, message)

        with other.client.keep_alive(again):
            try:
                kit.client.complete(message)
            except SettlementError:
                pass  # it could tell

            other.client.abandon(again)
        assert other.one().id == message.id


class TestPartialFailure(Rows):
    @each_verb
    def test_one_bad_receipt_among_good_ones_fails_alone(self, kit: Kit, act: Settle) -> None:
        desk = kit.desk()
        messages = held(desk, 5)
        spoil(messages[2])

        with pytest.raises(BatchFailed) as caught:
            act(kit.client, messages)

        outcomes = caught.value.outcomes
        assert [outcome.ok for outcome in outcomes] == [True, True, False, True, True]
        assert [outcome.value for outcome in outcomes] == [message.id for message in messages]
        assert isinstance(outcomes[2].error, InvalidReceipt)
        assert caught.value.queue == desk.queue

    @each_verb
    def test_a_bad_receipt_alone_is_its_own_error(self, kit: Kit, act: Settle) -> None:
        desk = kit.desk()
        (message,) = held(desk, 1)
        spoil(message)

        with pytest.raises(InvalidReceipt) as caught:
            act(kit.client, message)

        assert caught.value.queue == desk.queue

    def test_a_lapsed_lease_among_good_ones_fails_alone(self, kit: Kit) -> None:
        desk = kit.desk(lease=kit.lease)
        messages = held(desk, 3 * len(VERBS))
        lapsing, good = messages[: len(VERBS)], messages[len(VERBS) :]

        with kit.client.keep_alive(*good):
            kit.pass_held(kit.lease + GRACE, *(message.lease for message in good))
            for act in VERBS.values():
                with pytest.raises(BatchFailed) as caught:
                    act(kit.client, [good.pop(), lapsing.pop(), good.pop()])

                assert [outcome.ok for outcome in caught.value.outcomes] == [True, False, True]
                assert isinstance(caught.value.outcomes[1].error, LeaseLost)

    def test_in_a_large_batch_each_outcome_is_at_its_place(self, kit: Kit) -> None:
        desk = kit.desk()
        messages = held(desk, 23)
        bad = {0, 9, 10, 22}
        for place in bad:
            spoil(messages[place])

        with pytest.raises(BatchFailed) as caught:
            kit.client.complete(messages)

        assert {i for i, outcome in enumerate(caught.value.outcomes) if not outcome.ok} == bad
        assert len(caught.value.outcomes) == 23

    def test_what_failed_may_be_settled_again(self, kit: Kit) -> None:
        desk = kit.desk()
        first, second = held(desk, 2)
        good = second.delivery
        spoil(second)
        with pytest.raises(BatchFailed):
            kit.client.complete([first, second])

        second.delivery = good
        kit.client.complete([first, second])

        assert desk.nothing()
