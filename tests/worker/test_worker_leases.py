"""Leases of what a worker holds."""

from __future__ import annotations

import pytest

from queue_runtime import (
    QueueClient,
    Worker,
)
from queue_runtime.events import (
    Event,
    LostLease,
    MessageCompleted,
    SettlementFailed,
)
from queue_runtime.testing import FakeClock
from tests.worker.hands import ANY_QUEUE, Desk, of, send, wait_until


class TestLeases:
    @ANY_QUEUE
    def test_a_handler_of_ten_leases_finishes_once(
        self, client: QueueClient, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        desk.hold("a1")
        send(client, queue, "a1")

        with Worker(client, queue, desk):
            desk.wait_for_calls("a1")
            for _ in range(60):
                clock.block_until(2)  # the scheduler and the fetcher
                clock.advance(5.0)
                # Due with 15 s left, or less where the last renewal was still under way when time went on.
                wait_until(lambda: desk.leases[0].remaining() > 10.0)
            desk.let_go("a1")
            wait_until(lambda: bool(of(events, MessageCompleted)))

        assert desk.calls == [("a1", 1)]
        assert not desk.lost

    @ANY_QUEUE
    def test_a_lost_lease_is_told_and_its_result_is_not_settled(
        self,
        client: QueueClient,
        queue: str,
        clock: FakeClock,
        desk: Desk,
        events: list[Event],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        desk.hold("a1")
        send(client, queue, "a1", "a2")
        worker = Worker(client, queue, desk, concurrency=1)
        monkeypatch.setattr("queue_runtime.leases.LeaseRenewer._submit", lambda *args: None)

        with worker:
            desk.wait_for_calls("a1")
            clock.advance(30.0)
            wait_until(lambda: bool(of(events, LostLease)))
            desk.let_go("a1")
            wait_until(lambda: bool(of(events, SettlementFailed)))
            desk.wait_for(lambda: len(desk.calls) >= 3)

        assert desk.lost[0] == "a1"
        assert desk.calls[:2] == [("a1", 1), ("a1", 1)], "it comes again, before a2"
        assert worker.status().lost == 1
