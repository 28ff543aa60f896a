"""Rows: each verb says what is wrong when there is no queue, or no client any more."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from queue_runtime import Message, QueueClient
from queue_runtime.errors import Closed, QueueNotFound
from queue_runtime.testing.conformance.kit import SLACK, Kind, Kit, Rows, both_kinds

MISSING = "queue-that-nobody-made"

VERBS: dict[str, Callable[[QueueClient, str], object]] = {
    "send": lambda client, queue: client.send(queue, Message(body=b"body")),
    "send-batch": lambda client, queue: client.send_batch(queue, [Message(body=b"a"), Message(body=b"b")]),
    "receive": lambda client, queue: client.receive(queue),
    "accept-session": lambda client, queue: client.accept_session(queue),
    "describe": lambda client, queue: client.describe(queue),
    "dead-letters-count": lambda client, queue: client.dead_letters(queue).count(),
    "dead-letters-list": lambda client, queue: client.dead_letters(queue).list(),
    "dead-letters-replay": lambda client, queue: client.dead_letters(queue).replay(),
}

each_verb = pytest.mark.parametrize("act", VERBS.values(), ids=VERBS.keys())


class TestQueueNotFound(Rows):
    @each_verb
    def test_a_queue_that_is_not_there_is_named(
        self, kit: Kit, act: Callable[[QueueClient, str], object]
    ) -> None:
        with pytest.raises(QueueNotFound) as caught:
            act(kit.client, MISSING)

        assert caught.value.queue == MISSING
        assert MISSING in str(caught.value)
        assert caught.value.provider is not None
        assert caught.value.operation is not None

    def test_it_is_found_when_it_is_there(self, kit: Kit) -> None:
        with pytest.raises(QueueNotFound):
            kit.client.receive(MISSING)

        desk = kit.desk()
        desk.fill(1)
        assert desk.one().delivery_count == 1


class TestClosed(Rows):
    @each_verb
    def test_a_closed_client_says_so(self, kit: Kit, act: Callable[[QueueClient, str], object]) -> None:
        queue = kit.queue()
        client = kit.connect()
        client.describe(queue)
        client.close()

        with pytest.raises(Closed):
            act(client, queue)

    def test_a_closed_client_settles_nothing(self, kit: Kit) -> None:
        client = kit.connect()
        desk = kit.desk(client=client)
        desk.fill(1)
        message = desk.one()
        client.close()

        acts: list[Callable[[], object]] = [
            lambda: client.complete(message),
            lambda: client.abandon(message),
            lambda: client.dead_letter(message, reason="because"),
            lambda: client.renew(message),
        ]
        for act in acts:
            with pytest.raises(Closed):
                act()

    def test_a_closed_client_has_no_session_any_more(self, kit: Kit) -> None:
        client = kit.connect()
        desk = kit.desk("sessions", client=client)
        desk.fill(2)
        session = kit.call(lambda: client.accept_session(desk.queue, wait=5.0))
        assert session is not None
        (message,) = session.receive(max_messages=1)
        client.close()

        acts: list[Callable[[], object]] = [
            lambda: session.complete(message),
            lambda: session.renew(),
            lambda: session.receive(),
        ]
        for act in acts:
            with pytest.raises(Closed):
                act()
        session.close()

    def test_closing_twice_is_harmless(self, kit: Kit) -> None:
        client = kit.connect()
        client.describe(kit.queue())

        client.close()
        with client:
            pass
        client.close()

    def test_a_client_that_was_never_used_may_be_closed(self, kit: Kit) -> None:
        kit.connect().close()

    def test_no_thread_is_left_behind(self, kit: Kit) -> None:
        queue = kit.queue()
        before = set(threading.enumerate())
        client = kit.connect()
        desk = kit.desk(queue=queue, client=client)
        desk.fill(1)
        with client.keep_alive(desk.one()):
            pass

        client.close()

        new = set(threading.enumerate()) - before
        for thread in new:  # one may be of a server in this process, about to end with its connection
            thread.join(1.0)
        assert [thread.name for thread in new if thread.is_alive()] == []


@both_kinds
class TestClosingMeanwhile(Rows):
    def test_a_blocked_receive_ends_no_later_than_it_would_have(self, kit: Kit, kind: Kind) -> None:
        """Where it can be woken it ends at once; it says that the client is closed, or brings nothing."""
        queue = kit.queue(kind)

        def close_under_it() -> float:
            client = kit.connect()
            kit.desk(kind, queue=queue, client=client).nothing()

            def block() -> object:
                try:
                    if kind == "plain":
                        return client.receive(queue, wait=1.0)
                    return client.accept_session(queue, wait=1.0)
                except Closed:
                    return None

            blocked = kit.start(block)
            kit.time.sleep(0.3)
            client.close()
            kit.join(blocked)
            assert not blocked.result()
            return blocked.elapsed

        kit.assert_punctual(close_under_it, 1.0 + SLACK + kit.opening)

    def test_what_it_still_brings_is_not_lost(self, kit: Kit, kind: Kind) -> None:
        client = kit.connect()
        desk = kit.desk(kind, client=client)
        other = kit.desk(kind, queue=desk.queue)
        desk.nothing()

        def block() -> None:
            try:
                if kind == "plain":
                    client.receive(desk.queue, wait=1.0)
                else:
                    client.accept_session(desk.queue, wait=1.0)
            except Closed:
                pass  # it was woken

        blocked = kit.start(block)
        kit.time.sleep(0.3)
        client.close()
        sent = other.send(other.message())

        assert [message.id for message in other.take(1, wait=10.0)] == sent
        kit.join(blocked)
