"""Rows: what has outlived its time-to-live is handed to nobody, and goes where the queue's owner wants it."""

from __future__ import annotations

import pytest

from queue_runtime import MessageView, ReceivedMessage, Worker
from queue_runtime.testing.conformance.content import ATTRIBUTES
from queue_runtime.testing.conformance.harness import QueueSpec
from queue_runtime.testing.conformance.kit import Desk, Kind, Kit, Rows, both_kinds

LIFE = 1.0
"""Seconds that rows let a message live."""

LATE = LIFE + 1.5
"""Seconds after which it is over wherever it is told by whole seconds, as on SQS."""

LONG = 600.0


def live(desk: Desk, count: int) -> list[ReceivedMessage]:
    """So many messages, which must come. A session may turn out to be empty: all that it had has expired."""
    found: list[ReceivedMessage] = []
    for _ in range(10):
        found += desk.take(count - len(found))
        if len(found) == count:
            return found
    raise AssertionError(f"{len(found)} messages came, not {count}")


def nothing(desk: Desk) -> bool:
    """Nothing is to be had, not even behind a session that turns out to be empty."""
    return desk.nothing() and desk.nothing()


@both_kinds
class TestTimeToLive(Rows):
    def test_one_that_is_received_in_time_says_how_long_it_was_given(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        desk.send(desk.message(time_to_live=LONG))

        assert desk.one().time_to_live == LONG

    def test_without_one_there_is_the_queues_own_or_none(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        desk.send(desk.message())

        assert desk.one().time_to_live in (None, kit.describe(desk.queue).retention)

    def test_one_that_has_expired_is_handed_to_nobody(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        desk.send(desk.message(time_to_live=LIFE))

        kit.time.sleep(LATE)

        assert nothing(desk)
        kit.eventually(lambda: kit.describe(desk.queue).active or 0, 0)
        assert kit.call(kit.client.dead_letters(desk.queue).list) == []

    def test_what_is_behind_expired_ones_comes_in_its_order(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        lives = (LIFE, None, LIFE, LIFE, None, None)
        ids = desk.send(*(desk.message(b"%d" % n, time_to_live=life) for n, life in enumerate(lives)))
        kit.time.sleep(LATE)

        came = []
        for _ in range(3):
            (message,) = live(desk, 1)
            desk.complete(message)
            came.append(message.id)

        expected = [ids[1], ids[4], ids[5]]
        assert came == expected if kind == "sessions" else sorted(came) == sorted(expected)
        assert nothing(desk)

    def test_one_in_hand_does_not_expire(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind, lease=2 * kit.long_lease)
        desk.send(desk.message(time_to_live=LIFE))
        message = desk.one()

        kit.time.sleep(LATE)

        desk.complete(message)
        desk.let_go()
        assert nothing(desk)

    def test_one_that_is_given_back_too_late_is_not_handed_out_again(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind, lease=2 * kit.long_lease)
        desk.send(desk.message(time_to_live=LIFE))
        message = desk.one()
        kit.time.sleep(LATE)

        if kind == "plain":
            desk.client.abandon(message)
        desk.let_go()

        assert nothing(desk)

    def test_it_counts_from_when_a_delayed_message_is_due(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        if kit.capabilities(desk.queue).max_delay == 0:
            pytest.skip("Capabilities.max_delay is 0")
        sent = desk.send(desk.message(delay=2.0, time_to_live=1.8))

        assert [message.id for message in desk.take(1, wait=10.0)] == sent

    def test_it_ends_after_a_delay_too(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        if kit.capabilities(desk.queue).max_delay == 0:
            pytest.skip("Capabilities.max_delay is 0")
        desk.send(desk.message(delay=1.0, time_to_live=LIFE))

        kit.time.sleep(1.0 + LATE)

        assert nothing(desk)

    def test_a_worker_starts_none_that_expired(self, kit: Kit, kind: Kind) -> None:
        desk = kit.desk(kind)
        _, second, _ = desk.send(
            desk.message(time_to_live=LIFE), desk.message(), desk.message(time_to_live=LIFE)
        )
        kit.time.sleep(LATE)
        started: list[str] = []

        def handler(message: ReceivedMessage) -> None:
            started.append(message.id)

        worker = Worker(kit.client, desk.queue, handler, poll=1.0)
        worker.start()
        for _ in range(2000):  # some ten seconds
            found = kit.describe(desk.queue)
            if started and not found.active and not found.leased:
                break
            kit.yield_to_others()
        kit.call(worker.stop)

        assert started == [second]
        assert nothing(desk)


@both_kinds
class TestExpiredDeadLetters(Rows):
    def desk(self, kit: Kit, kind: Kind, *, dead_letter_expired: bool) -> Desk:
        spec = QueueSpec(sessions=kind == "sessions", dead_letter_expired=dead_letter_expired)
        return kit.desk(kind, queue=kit.queue_of(spec))

    def test_where_it_is_wanted_an_expired_message_is_a_dead_letter(self, kit: Kit, kind: Kind) -> None:
        desk = self.desk(kit, kind, dead_letter_expired=True)
        sent = desk.message(b"\0binary", attributes=ATTRIBUTES, time_to_live=LIFE, correlation_id="c")
        desk.send(sent)
        kit.time.sleep(LATE)

        assert nothing(desk)

        found = kit.call(kit.client.dead_letters(desk.queue).list)
        assert [dead.id for dead in found] == [sent.id]
        (dead,) = found
        assert (dead.body, dict(dead.attributes)) == (sent.body, ATTRIBUTES)
        assert (dead.session_id, dead.correlation_id) == (sent.session_id, "c")
        assert dead.dead_letter.reason == "TimeToLiveExpired"

    def test_a_dead_letter_does_not_expire(self, kit: Kit, kind: Kind) -> None:
        desk = self.desk(kit, kind, dead_letter_expired=False)
        (sent,) = desk.send(desk.message(time_to_live=2 * LATE))
        desk.dead_letter(desk.one())
        desk.let_go()

        kit.time.sleep(2 * LATE + LATE)

        found = kit.call(kit.client.dead_letters(desk.queue).list)
        assert [dead.id for dead in found] == [sent]

    def test_a_replay_begins_it_anew_and_is_counted(self, kit: Kit, kind: Kind) -> None:
        desk = self.desk(kit, kind, dead_letter_expired=True)
        life = 2 * LATE
        (sent,) = desk.send(desk.message(time_to_live=life))
        first = desk.one()
        assert first.replays == 0
        desk.dead_letter(first)
        desk.let_go()
        kit.time.sleep(life + LATE)

        kit.call(kit.client.dead_letters(desk.queue).replay)

        again: MessageView = desk.one()
        assert (again.id, again.time_to_live, again.replays) == (sent, life, 1)
