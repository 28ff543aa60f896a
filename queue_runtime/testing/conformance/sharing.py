"""Rows: what many threads settle and renew at the same time shares requests, and each hears of its own."""

from __future__ import annotations

from functools import partial

from queue_runtime import ReceivedMessage
from queue_runtime.errors import InvalidReceipt, QueueError
from queue_runtime.testing.conformance.kit import Desk, Kit, Rows
from queue_runtime.testing.conformance.settling import (
    SETTLE,
    VERBS,
    Settle,
    each_settle,
    each_verb,
    held,
    spoil,
)
from queue_runtime.testing.conformance.together import THREADS, Gate, at_once


def gated(kit: Kit, act: Settle) -> tuple[Desk, Gate]:
    """A plain queue before a client whose first request to do *act* is held up."""
    gate = Gate("renew" if act is VERBS["renew"] else "settle")
    return kit.desk(client=kit.connect(listeners=[gate])), gate


def shares(kit: Kit, desk: Desk) -> bool:
    found = kit.capabilities(desk.queue)
    return found.batched_settling and found.max_batch > 1


class TestSettlingTogether(Rows):
    @each_settle
    def test_what_sixteen_threads_settle_at_once_is_settled_each(self, kit: Kit, settle: Settle) -> None:
        desk, gate = gated(kit, settle)
        messages = held(desk, THREADS)

        at_once(kit, gate, [partial(settle, desk.client, message) for message in messages])

        requests = desk.client.stats().operations["settle"].calls
        assert requests < THREADS or not shares(kit, desk)
        ids = sorted(message.id for message in messages)
        if settle is SETTLE["abandon"]:
            assert sorted(desk.drain(THREADS).ids) == ids
        if settle is SETTLE["dead-letter"]:
            assert sorted(dead.id for dead in kit.call(kit.client.dead_letters(desk.queue).list)) == ids
        assert desk.nothing()
        kit.eventually(lambda: kit.left(desk.queue), 0)

    @each_verb
    def test_one_bad_receipt_is_told_to_its_own_thread_only(self, kit: Kit, act: Settle) -> None:
        desk, gate = gated(kit, act)
        messages = held(desk, THREADS)
        # Not near the middle of a request: there the answers read the same backwards.
        spoil(messages[2])

        def said(message: ReceivedMessage) -> QueueError | None:
            try:
                act(desk.client, message)
            except QueueError as error:
                return error
            return None

        errors = at_once(kit, gate, [partial(said, message) for message in messages])

        assert [n for n, error in enumerate(errors) if error is not None] == [2]
        assert isinstance(errors[2], InvalidReceipt)
        assert errors[2].queue == desk.queue

    def test_renewals_of_sixteen_threads_at_once_hold_each(self, kit: Kit) -> None:
        lease = kit.long_lease
        gate = Gate("renew")
        desk = kit.desk(lease=lease, client=kit.connect(listeners=[gate]))
        messages = held(desk, THREADS)
        kit.time.sleep(lease * 0.5)

        at_once(kit, gate, [partial(desk.client.renew, message) for message in messages])
        kit.time.sleep(lease * 0.6)

        assert not any(message.lease.lost for message in messages)
        assert desk.nothing()
        desk.client.complete(messages)


class TestSessionsSettledTogether(Rows):
    def test_sixteen_sessions_are_completed_at_once(self, kit: Kit) -> None:
        gate = Gate("settle")
        desk = kit.desk("sessions", client=kit.connect(listeners=[gate]))
        ids = desk.send(*(desk.message(b"%d" % n, session_id=f"session-{n}") for n in range(THREADS)))
        messages = desk.take(THREADS)
        assert sorted(message.id for message in messages) == sorted(ids)

        at_once(kit, gate, [partial(desk.session_of(m).complete, m) for m in messages])
        desk.let_go()

        if kit.capabilities(desk.queue).sessions == "groups" and shares(kit, desk):
            assert desk.client.stats().operations["settle"].calls < THREADS
        assert desk.nothing()
        kit.eventually(lambda: kit.left(desk.queue), 0)
