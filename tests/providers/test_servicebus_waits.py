"""Who waits for whom: settlements for receives, receives for messages, and nobody for longer than told."""

from __future__ import annotations

import statistics
import threading
from time import monotonic

import pytest

from queue_runtime.errors import Closed
from queue_runtime.provider import Complete
from queue_runtime.providers.servicebus import sdk
from tests.providers.servicebus_house import (
    Call,
    House,
    accept,
    drained,
    error_of,
    eventually,
    fill,
    head,
    ids,
    receive,
    settled,
    within,
)

SLACK = 0.15
"""Seconds for a machine that does other things too."""


class TestASettlementBesideALongReceiveOnTheSameReceiver:
    def test_waits_for_one_slice_at_most(self, house: House) -> None:
        house.queue()
        client = house.client(receivers="1")
        fill(client, 40)
        deliveries = receive(client, 40)
        waiting = Call(lambda: client.receive("jobs", 1, 5.0))
        took = []

        for delivery in deliveries[:20]:
            began = monotonic()
            assert settled(client, Complete(delivery)) is None
            took.append(monotonic() - began)
        for delivery in deliveries[20:]:
            began = monotonic()
            assert error_of(client.renew("jobs", [delivery])) is None
            took.append(monotonic() - began)

        assert not waiting.done
        assert statistics.median(took) < sdk.SLICE + 0.02
        assert max(took) < 2 * sdk.SLICE + SLACK
        fill(client, 1)
        assert len(waiting.result()) == 1

    def test_in_a_session_too(self, house: House) -> None:
        house.queue(sessions=True)
        client = house.client()
        fill(client, 1, session="s")
        session = accept(client)
        delivery = head(session)
        waiting = Call(lambda: session.receive(1, 5.0))

        for _ in range(10):
            with within(2 * sdk.SLICE + SLACK):
                session.renew()
        with within(2 * sdk.SLICE + SLACK):
            assert error_of(session.settle([Complete(delivery)])) is None

        assert not waiting.done
        fill(client, 1, session="s")
        assert len(waiting.result()) == 1

    def test_loses_no_message_that_comes_meanwhile(self, house: House) -> None:
        house.queue()
        client = house.client(receivers="1")
        house.bus.latency(5)
        fill(client, 8)
        deliveries = receive(client, 8)
        over = threading.Event()

        def renew() -> None:
            while not over.is_set():
                client.renew("jobs", deliveries)

        renewing = Call(renew)
        try:
            for n in range(10):
                fill(client, 1)
                found = receive(client, 1)
                assert [each.delivery_count for each in found] == [1], n
                assert settled(client, Complete(found[0])) is None
        finally:
            over.set()
        renewing.result()


class TestAReceive:
    def test_of_an_empty_queue_ends_when_it_was_told(self, house: House) -> None:
        house.queue()
        client = house.client()
        client.receive("jobs", 1, 0.0)

        for wait in (0.0, 0.3, 1.0):
            began = monotonic()
            assert client.receive("jobs", 4, wait) == []
            assert wait <= monotonic() - began < wait + 0.25

    def test_ends_at_once_when_it_is_cancelled(self, house: House) -> None:
        house.queue()
        client, stop = house.client(), threading.Event()
        client.receive("jobs", 1, 0.0)
        waiting = Call(lambda: client.receive("jobs", 1, 30.0, cancelled=stop.is_set))
        assert not waiting.done

        began = monotonic()
        stop.set()
        client.wake("jobs")

        assert waiting.result() == []
        assert monotonic() - began < sdk.SLICE + SLACK

    def test_that_waits_for_a_receiver_ends_at_once_when_it_is_cancelled(self, house: House) -> None:
        house.queue()
        client, stop = house.client(receivers="1"), threading.Event()
        first = Call(lambda: client.receive("jobs", 1, 2.0))
        eventually(lambda: bool(client._queue("jobs").receivers._pool._busy))
        second = Call(lambda: client.receive("jobs", 1, 30.0, cancelled=stop.is_set))

        stop.set()
        client.wake("jobs")

        assert second.result() == []
        assert second.seconds < 1.0
        assert first.result() == []

    def test_brings_what_is_there_without_waiting_for_more(self, house: House) -> None:
        house.queue()
        client = house.client()
        fill(client, 1)
        client.receive("jobs", 1, 0.0)
        fill(client, 3)

        with within(0.25):
            assert len(client.receive("jobs", 8, 5.0)) == 3

    def test_ends_at_once_with_the_client_and_gives_back_what_comes(self, house: House) -> None:
        house.queue()
        client, other = house.client(), house.client()
        client.receive("jobs", 1, 0.0)
        waiting = Call(lambda: client.receive("jobs", 8, 30.0))
        assert not waiting.done

        with within(1.0):
            client.close()

        with pytest.raises(Closed):
            waiting.result()
        fill(other, 5)
        found = drained(other)
        assert sorted(ids(found)) == [f"m{n}" for n in range(5)]
        assert {each.delivery_count for each in found} == {1}

    def test_crossing_the_end_of_the_client_leaves_nothing_locked_that_nobody_has(self, house: House) -> None:
        house.queue(lock=300)  # what is locked stays so, however slow the machine is
        other = house.client()
        handed_out = tries = 0
        enough = monotonic() + 20.0
        while tries < 30 and monotonic() < enough:
            client = house.client()
            handed_out += len(client.receive("jobs", 8, 0.0))
            waiting = Call(lambda: client.receive("jobs", 8, 5.0))  # noqa: B023  # called at once
            closing = threading.Timer(0.0005 * tries, client.close)
            closing.start()
            fill(other, 1)
            try:
                handed_out += len(waiting.result())
            except Closed:
                pass
            closing.join()
            tries += 1

        eventually(lambda: house.counts().get("locked", 0) == handed_out, house.counts)
        found = receive(other, tries - handed_out)
        assert {each.delivery_count for each in found} <= {1}
        assert drained(other) == []


class TestConnecting:
    def test_takes_no_longer_than_the_service_does(self, house: House) -> None:
        house.queue(sessions=True)
        client = house.client()
        client.accept_session("jobs", "first").close()

        for n in range(5):
            with within(0.2):
                session = client.accept_session("jobs", f"{n}")
            session.close()
        with within(0.2):
            client.close()

    def test_starts_no_thread_beside_those_that_end_with_the_client(self, house: House) -> None:
        house.queue()
        before = set(threading.enumerate())
        client = house.client()
        fill(client, 20)
        assert len(receive(client, 20)) == 20
        theirs = {
            thread for thread in set(threading.enumerate()) - before if "queue_runtime" not in thread.name
        }

        client.close()

        assert theirs == set()
        assert set(threading.enumerate()) <= before


class TestTheRightToMessagesThatIsLeftOver:
    """Of a receive that got less than it asked for."""

    @pytest.mark.parametrize("found", [0, 1])
    def test_is_taken_back_so_that_others_get_at_once_what_comes_later(
        self, house: House, found: int
    ) -> None:
        house.queue()
        client, other = house.client(), house.client()
        other.receive("jobs", 1, 0.0)
        fill(client, found)
        assert len(client.receive("jobs", 8, 0.1)) == found

        for _ in range(10):
            fill(client, 1)
            with within(sdk.SLICE + SLACK):
                [delivery] = other.receive("jobs", 1, 1.0)
            assert delivery.delivery_count == 1
            assert settled(other, Complete(delivery)) is None

    def test_what_crosses_that_on_the_way_is_received_not_forgotten(self, house: House) -> None:
        house.queue()
        client, other = house.client(), house.client()
        client.receive("jobs", 1, 0.0)
        fill(other, 1)
        assert settled(other, Complete(receive(other)[0])) is None
        house.bus.latency(300)
        waiting = Call(lambda: client.receive("jobs", 8, 0.3))
        threading.Event().wait(0.15)

        fill(other, 1)  # leaves the broker before the client gives up, and arrives after

        assert ids(waiting.result()) == ["m0"]

    def test_costs_one_round_trip(self, house: House) -> None:
        house.queue()
        client = house.client()
        client.receive("jobs", 1, 0.0)
        house.bus.latency(100)

        began = monotonic()
        assert client.receive("jobs", 8, 0.0) == []

        assert monotonic() - began < sdk.SLICE + 0.1 + SLACK
