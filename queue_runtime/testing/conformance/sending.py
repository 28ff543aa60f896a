"""Rows: what many threads send at the same time arrives once, in order, and in few requests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from queue_runtime import BatchPolicy
from queue_runtime.errors import MessageTooLarge, NotAttempted, QueueError, QueueNotFound
from queue_runtime.testing.conformance.errors import MISSING
from queue_runtime.testing.conformance.kit import SLACK, Desk, Kind, Kit, Rows, both_kinds
from queue_runtime.testing.conformance.threads import send_each
from queue_runtime.testing.conformance.together import THREADS, Gate, at_once, behind

SHORT = 0.5
"""Seconds of a send's time limit: over before a request that is held up stops holding others up."""


def gated(kit: Kit, kind: Kind) -> tuple[Desk, Gate]:
    """A queue before a client whose first send is held up."""
    gate = Gate("send")
    desk = kit.desk(kind, client=kit.connect(listeners=[gate]))
    desk.client.describe(desk.queue)
    return desk, gate


@both_kinds
class TestSendingTogether(Rows):
    def test_what_sixteen_threads_send_at_once_arrives_once_and_shares_requests(
        self, kit: Kit, kind: Kind
    ) -> None:
        desk, gate = gated(kit, kind)
        messages = [desk.message(b"%d" % n, session_id=f"session-{n}") for n in range(THREADS)]

        ids = at_once(kit, gate, [partial(desk.client.send, desk.queue, message) for message in messages])

        assert ids == [message.id for message in messages]
        requests = desk.client.stats().operations["send"].calls
        assert sorted(desk.drain(THREADS).ids) == sorted(ids)
        if kit.capabilities(desk.queue).max_batch > 1:
            assert requests < THREADS

    def test_batches_of_many_threads_arrive_whole_and_each_in_its_order(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        clients = [desk.client, kit.connect()]
        names = [f"session-{n}" for n in range(4)]
        batches = {name: [desk.message(b"%d" % n, session_id=name) for n in range(12)] for name in names}

        jobs = [
            kit.start(partial(clients[n % 2].send_batch, desk.queue, batch))
            for n, batch in enumerate(batches.values())
        ]
        kit.join(*jobs)

        sent = {name: job.result() for name, job in zip(names, jobs, strict=True)}
        assert sent == {name: [message.id for message in batch] for name, batch in batches.items()}
        drained = desk.drain(48)
        if kind == "sessions":
            assert {name: drained.of(name) for name in names} == sent
        assert sorted(drained.ids) == sorted(id for ids in sent.values() for id in ids)

    def test_a_send_to_a_queue_that_is_not_there_fails_alone(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        messages = [desk.message(b"%d" % n, session_id=f"session-{n}") for n in range(8)]

        def send_there(n: int) -> QueueError | None:
            try:
                desk.client.send(MISSING if n % 2 else desk.queue, messages[n])
            except QueueError as error:
                return error
            return None

        jobs = [kit.start(partial(send_there, n)) for n in range(8)]
        kit.join(*jobs)

        errors = [job.result() for job in jobs]
        assert [error is None for error in errors] == [True, False] * 4
        assert {type(error) for error in errors[1::2]} == {QueueNotFound}
        assert {error.queue for error in errors if error is not None} == {MISSING}
        assert sorted(desk.drain(4).ids) == sorted(message.id for message in messages[::2])

    def test_a_time_limit_is_kept_and_what_has_not_left_by_then_is_not_sent(
        self, kit: Kit, kind: Kind
    ) -> None:
        desk, gate = gated(kit, kind)
        first, second = (desk.message(b"%d" % n) for n in range(2))

        def send_in_time() -> float:
            started = kit.time.clock.monotonic()
            with pytest.raises(NotAttempted, match="time"):
                desk.client.send(desk.queue, second, timeout=SHORT)
            return kit.time.clock.monotonic() - started

        calls: list[Callable[[], object]] = [send_in_time]
        held, limited = behind(gate, kit, partial(desk.client.send, desk.queue, first), calls)
        kit.join(limited)
        gate.open()
        kit.join(held)

        assert SHORT - SLACK <= limited.elapsed <= SHORT + 2 * SLACK
        assert desk.drain(1).ids == [first.id]


class TestOneSessionManySenders(Rows):
    def test_what_each_thread_sends_keeps_that_threads_order(self, kit: Kit) -> None:
        desk = kit.desk("sessions")
        batches = [[desk.message(b"%d-%d" % (sender, n)) for n in range(10)] for sender in range(6)]

        jobs = [kit.start(partial(send_each, desk.client, desk.queue, batch)) for batch in batches]
        kit.join(*jobs, within=60.0)

        came = desk.drain(60).ids
        for batch in batches:
            ids = [message.id for message in batch]
            assert [id for id in came if id in set(ids)] == ids
        assert len(came) == 60


@both_kinds
class TestSubmit(Rows):
    def test_what_one_thread_submits_comes_in_its_order_in_each_session(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        names = [f"session-{n}" for n in range(4)]
        messages = [desk.message(b"%d" % n, session_id=names[n * 7 % 4]) for n in range(60)]

        futures = [desk.client.submit(desk.queue, message) for message in messages]

        ids = kit.call(lambda: [future.result(30.0) for future in futures], within=60.0)
        assert ids == [message.id for message in messages]
        drained = desk.drain(60)
        assert sorted(drained.ids) == sorted(ids)
        if kind == "sessions":
            for name in names:
                assert drained.of(name) == [m.id for m in messages if m.session_id == name]

    def test_closing_the_client_sends_what_was_submitted(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        client = kit.connect()
        messages = [desk.message(b"%d" % n, session_id=f"session-{n % 3}") for n in range(30)]
        futures = [client.submit(desk.queue, message) for message in messages]

        kit.call(client.close)

        assert [future.result(0.0) for future in futures] == [message.id for message in messages]
        assert sorted(desk.drain(30).ids) == sorted(message.id for message in messages)

    def test_where_there_is_no_room_it_is_waited_for_and_then_nothing_is_sent(
        self, kit: Kit, kind: Kind
    ) -> None:
        gate = Gate("send")
        client = kit.connect(listeners=[gate], batching=BatchPolicy(max_pending=2))
        desk = kit.desk(kind, client=client)
        first, second, third, last = (desk.message(b"%d" % n) for n in range(4))
        futures = [client.submit(desk.queue, first), client.submit(desk.queue, second)]
        gate.wait_until_reached()

        def submit_in_vain() -> None:
            with pytest.raises(NotAttempted, match="room"):
                client.submit(desk.queue, third, timeout=SHORT)

        waiting = kit.start(submit_in_vain)
        kit.join(waiting)
        gate.open()
        futures.append(client.submit(desk.queue, last))

        assert SHORT - SLACK <= waiting.elapsed <= SHORT + 2 * SLACK
        ids = kit.call(lambda: [future.result(30.0) for future in futures])
        assert sorted(desk.drain(3).ids) == sorted(ids) == sorted([first.id, second.id, last.id])

    def test_what_cannot_be_sent_is_said_at_once_and_holds_nothing_up(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        limit = kit.capabilities(desk.queue).max_message_size
        before, after = desk.message(b"before"), desk.message(b"after")

        futures = [desk.client.submit(desk.queue, before)]
        with pytest.raises(MessageTooLarge):
            desk.client.submit(desk.queue, desk.message(b"x" * (limit + 1)))
        with pytest.raises(QueueNotFound):
            desk.client.submit(MISSING, before)
        futures.append(desk.client.submit(desk.queue, after))

        assert kit.call(lambda: [future.result(30.0) for future in futures]) == [before.id, after.id]
        assert sorted(desk.drain(2).ids) == sorted([before.id, after.id])
