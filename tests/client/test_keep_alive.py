"""Keeping messages alive: as long as the block lasts or they are settled, and no loss made up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from queue_runtime import QueueClient
from queue_runtime.errors import AuthorizationFailed, InvalidReceipt, LeaseLost
from queue_runtime.events import Event
from queue_runtime.testing import FakeClock
from tests.client.hands import Keeping, losses, one, taken
from tests.fakes import REAL, Act, Gate, Script, fails


class TestKeepingAlive:
    def test_holds_messages_for_as_long_as_the_block_lasts(
        self, client: QueueClient, time: Keeping, script: Script, events: list[Event]
    ) -> None:
        a, b = taken(client, "a", "b")

        with client.keep_alive(a, b):
            time.let_pass(100.0)
            assert client.receive("jobs") == []
        renewals = len(script.calls("renew"))
        time.let_pass(15.0)

        assert renewals == len(script.calls("renew")) == 6
        client.complete([a, b])
        assert losses(events) == []

    def test_renews_for_as_long_as_the_message_was_received_for(
        self, client: QueueClient, time: Keeping, script: Script
    ) -> None:
        message = one(client, lease=300.0)

        with client.keep_alive(message):
            time.let_pass(149.5)
            assert script.calls("renew") == []
            time.let_pass(400.0)

        assert len(script.calls("renew")) == 3
        assert not message.lease.lost

    def test_inside_another_block_ends_nothing_of_that(self, client: QueueClient, time: Keeping) -> None:
        """So it does no harm in a worker's handler, whose message is kept alive anyway."""
        message = one(client)

        with client.keep_alive(message):
            with client.keep_alive(message):
                time.let_pass(20.0)
            time.let_pass(60.0)

            assert not message.lease.lost

    def test_a_message_that_is_settled_inside_is_not_renewed_any_more(
        self, client: QueueClient, time: Keeping, script: Script, events: list[Event]
    ) -> None:
        done, back, bad = taken(client, "done", "back", "bad")

        with client.keep_alive(done, back, bad):
            time.let_pass(1.0)
            client.complete(done)
            client.abandon(back, delay=3600.0)
            client.dead_letter(bad, reason="bad")
            time.let_pass(60.0)

        assert script.calls("renew") == []
        assert losses(events) == []

    def test_a_message_that_is_settled_already_is_not_renewed(
        self, client: QueueClient, time: Keeping, script: Script, events: list[Event]
    ) -> None:
        done, held = taken(client, "done", "held")
        client.complete(done)

        with client.keep_alive(done, held):
            time.let_pass(20.0)

        assert script.calls("renew") == [("held",)]
        assert losses(events) == []

    def test_and_renewing_by_hand_go_together(self, client: QueueClient, time: Keeping) -> None:
        message = one(client)

        with client.keep_alive(message):
            time.let_pass(10.0)
            client.renew(message)
            time.let_pass(14.5)
            assert time.renewals() == 1, "it is due again half a lease after that"
            time.let_pass(36.5)
            client.renew(message, lease=6.0)
            time.let_pass(60.0)

            assert not message.lease.lost

    def test_tells_of_a_loss(
        self, client: QueueClient, time: Keeping, script: Script, events: list[Event]
    ) -> None:
        message = one(client)
        script.always("renew", fails(InvalidReceipt))

        with client.keep_alive(message):
            time.let_pass(15.0)

            with pytest.raises(LeaseLost):
                message.lease.check()
        [event] = losses(events)
        assert (event.queue, getattr(event, "message_id", "")) == ("jobs", "m")

    def test_goes_on_for_a_message_that_could_not_be_given_back(
        self, client: QueueClient, time: Keeping, script: Script
    ) -> None:
        message = one(client)
        script.then("settle", fails(AuthorizationFailed))

        with client.keep_alive(message):
            time.let_pass(1.0)
            with pytest.raises(AuthorizationFailed):
                client.abandon(message)
            time.let_pass(60.0)

            client.complete(message)

    def test_a_renewal_under_way_does_not_undo_an_abandon(
        self, client: QueueClient, clock: FakeClock, script: Script
    ) -> None:
        message = one(client)
        with Gate() as gate, ThreadPoolExecutor(1) as aside:
            script.then("renew", gate)
            with client.keep_alive(message):
                clock.block_until(1)
                clock.advance(15.0)
                gate.wait_until_reached()
            abandoning = aside.submit(client.abandon, message, delay=60.0)
            clock.block_until(2)

            assert script.calls("settle") == []
            gate.open()
            abandoning.result(REAL)

        clock.advance(45.0)
        assert client.receive("jobs") == [], "the delay that was asked for is the one that counts"

    def test_a_completion_makes_no_loss_of_a_renewal_that_comes_too_late(
        self, client: QueueClient, clock: FakeClock, script: Script, events: list[Event]
    ) -> None:
        message = one(client)
        with Gate() as gate, client.keep_alive(message):
            script.then("renew", gate)
            clock.block_until(1)
            clock.advance(15.0)
            gate.wait_until_reached()

            client.complete(message)
            gate.open()
            client.runtime().pool.submit_in("jobs", lambda: None).result(REAL)

            assert losses(events) == []
            assert message.settled_as == "completed"

    def test_a_failed_abandon_keeps_nothing_alive_whose_block_has_ended(
        self, client: QueueClient, script: Script
    ) -> None:
        message = one(client)
        with Gate() as gate, ThreadPoolExecutor(1) as aside:

            def refuse(act: Act) -> None:
                gate(replace(act, run=lambda: None))
                raise AuthorizationFailed("scripted")

            script.then("settle", refuse)
            with client.keep_alive(message):
                abandoning = aside.submit(client.abandon, message)
                gate.wait_until_reached()
            gate.open()

            assert isinstance(abandoning.exception(REAL), AuthorizationFailed)

        assert len(client.runtime().leases) == 0
