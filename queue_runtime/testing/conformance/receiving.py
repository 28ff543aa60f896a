"""Rows: receiving from a plain queue keeps to the time and the number that it was told."""

from __future__ import annotations

from functools import partial

import pytest

from queue_runtime import ReceivedMessage, SessionClient
from queue_runtime.testing.conformance.kit import SLACK, Desk, Kind, Kit, Rows, both_kinds


def wait_for_something(desk: Desk, wait: float) -> list[ReceivedMessage] | SessionClient | None:
    """One call that takes what comes first; something true if anything came."""
    if desk.kind == "plain":
        return desk.client.receive(desk.queue, wait=wait)
    return desk.client.accept_session(desk.queue, wait=wait)


@both_kinds
class TestWaiting(Rows):
    def test_an_empty_answer_comes_on_time(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        desk.nothing()  # the first call looks the queue up

        # The machine may be late once, the provider must not be late always.
        for _ in range(3):
            jobs = {wait: kit.start(partial(wait_for_something, desk, wait)) for wait in (0.0, 1.0, 2.0)}
            kit.join(*jobs.values())
            limit = SLACK + kit.opening
            late = {wait: job.elapsed for wait, job in jobs.items() if job.elapsed > wait + limit}
            assert not any(job.result() for job in jobs.values())
            assert {wait: job.elapsed for wait, job in jobs.items() if job.elapsed < wait - SLACK} == {}
            if not late:
                break
        assert late == {}

    def test_a_message_that_comes_ends_the_wait(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        desk.nothing()
        waiting = kit.start(lambda: wait_for_something(desk, 20.0))
        kit.time.sleep(0.3)

        desk.send(desk.message())

        kit.join(waiting)
        assert waiting.result()
        assert waiting.elapsed < 20.0 - SLACK

    def test_a_message_that_is_given_back_ends_the_wait_of_another(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        other = kit.desk(kind, queue=desk.queue, client=kit.connect())
        desk.send(desk.message())
        message = desk.one()
        waiting = kit.start(lambda: wait_for_something(other, 15.0))
        kit.time.sleep(0.3)

        if kind == "plain":
            desk.client.abandon(message)
        else:
            desk.let_go()

        kit.join(waiting)
        assert waiting.result()
        assert waiting.elapsed < 15.0 - SLACK


class TestNumbers(Rows):
    def test_no_more_than_asked_for(self, kit: Kit) -> None:
        desk = kit.desk()
        desk.fill(5)

        found = kit.call(lambda: kit.client.receive(desk.queue, max_messages=3, wait=2.0))

        assert 1 <= len(found) <= 3

    def test_one_message_if_no_number_is_given(self, kit: Kit) -> None:
        desk = kit.desk()
        desk.fill(5)

        found = kit.call(lambda: kit.client.receive(desk.queue, wait=2.0))

        assert len(found) == 1

    def test_more_than_one_request_brings_is_no_error(self, kit: Kit) -> None:
        desk = kit.desk()
        sent = desk.fill(25)
        seen: list[str] = []

        while len(seen) < 25:
            found = kit.call(lambda: kit.client.receive(desk.queue, max_messages=1000, wait=5.0))
            assert found
            seen += [message.id for message in found]

        assert sorted(seen) == sorted(sent)


class TestCounts(Rows):
    def counts(self, kit: Kit, queue: str) -> tuple[int, int, int]:
        found = kit.describe(queue)
        if found.active is None or found.leased is None or found.delayed is None:
            pytest.skip("QueueDescription's counts are None")
        return found.active, found.leased, found.delayed

    def test_describe_counts_what_waits_and_what_is_held(self, kit: Kit) -> None:
        desk = kit.desk()
        desk.fill(3)
        kit.eventually(lambda: self.counts(kit, desk.queue), (3, 0, 0))

        message = desk.one()
        kit.eventually(lambda: self.counts(kit, desk.queue), (2, 1, 0))

        kit.client.complete(message)
        kit.eventually(lambda: self.counts(kit, desk.queue), (2, 0, 0))

    def test_describe_counts_what_is_delayed(self, kit: Kit) -> None:
        desk = kit.desk()
        if kit.capabilities(desk.queue).max_delay == 0:
            pytest.skip("Capabilities.max_delay is 0")
        desk.send(desk.message(delay=60.0))

        kit.eventually(lambda: self.counts(kit, desk.queue), (0, 0, 1))

    def test_describe_counts_a_session_queue(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        desk.fill(3)
        kit.eventually(lambda: self.counts(kit, desk.queue), (3, 0, 0))

        desk.drain(3)
        kit.eventually(lambda: self.counts(kit, desk.queue), (0, 0, 0))

    def test_describe_tells_lease_and_dead_letter_queue(self, kit: Kit) -> None:
        queue = kit.queue("plain", lease=kit.lease)

        found = kit.describe(queue)

        assert found.dead_letter_queue is not None
        if found.lease is None:
            pytest.skip("QueueDescription.lease is None")
        assert found.lease == kit.lease


class TestDelays(Rows):
    def test_a_delayed_message_comes_when_it_is_due(self, kit: Kit) -> None:
        desk = kit.desk()
        if kit.capabilities(desk.queue).max_delay < 1.0:
            pytest.skip("Capabilities.max_delay is below 1")
        sent = desk.send(desk.message(delay=1.0))

        message, seconds = kit.timed(lambda: desk.one(wait=10.0))

        assert [message.id] == sent
        assert seconds >= 1.0 - SLACK
        assert seconds <= 1.0 + 2.0 + kit.opening, "it came long after it was due"

    def test_a_delayed_message_lets_others_pass(self, kit: Kit) -> None:
        desk = kit.desk()
        if kit.capabilities(desk.queue).max_delay < 1.0:
            pytest.skip("Capabilities.max_delay is below 1")
        late, early = desk.send(desk.message(delay=1.0), desk.message())

        assert desk.one().id == early
        assert desk.one().id == late
