"""Sessions whose lock is taken away, whose settlements cross their end, and whose order is kept."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

from queue_runtime.errors import ConnectionFailed, OutcomeUnknown, QueueError, SessionLeaseLost
from queue_runtime.message import DeadLetterInfo, Message
from queue_runtime.provider import Abandon, Complete, DeadLetter, ProviderSession
from tests.providers.servicebus_house import (
    Call,
    House,
    accept,
    error_of,
    eventually,
    fill,
    head,
    within,
)


class TestAStolenLock:
    @pytest.mark.parametrize("kind", ["complete", "abandon", "dead-letter"])
    def test_ends_the_session_at_the_next_settlement_and_nothing_is_settled(
        self, house: House, kind: str
    ) -> None:
        house.queue(sessions=True)
        client = house.client()
        fill(client, 2, session="s")
        session, lost = accept(client), list[str]()
        session.on_lost = lost.append
        delivery = head(session)
        info = DeadLetterInfo(reason="Bad")
        make: Any = {"complete": Complete, "abandon": Abandon, "dead-letter": lambda d: DeadLetter(d, info)}

        house.fault("session_lock", entity="jobs", session="s")

        assert isinstance(error_of(session.settle([make[kind](delivery)])), SessionLeaseLost)
        assert len(lost) == 1
        assert house.counts() == {"active": 2}

    def test_ends_it_at_the_next_receive(self, house: House) -> None:
        house.queue(sessions=True)
        client = house.client()
        fill(client, 1, session="s")
        session = accept(client)

        house.fault("session_lock", entity="jobs", session="s")

        with pytest.raises(SessionLeaseLost):
            session.receive(1, 1.0)

    def test_ends_it_at_the_next_renewal_and_request_for_its_state(self, house: House) -> None:
        house.queue(sessions=True)
        client = house.client()
        for name in ("renew", "get_state"):
            fill(client, 1, session=name)
            session = client.accept_session("jobs", name)
            house.fault("session_lock", entity="jobs", session=name)

            with pytest.raises(SessionLeaseLost):
                getattr(session, name)()

    def test_ends_a_receive_that_waits(self, house: House) -> None:
        house.queue(sessions=True)
        client = house.client()
        fill(client, 1, session="s")
        session, lost = accept(client), list[str]()
        session.on_lost = lost.append
        head(session)
        waiting = Call(lambda: session.receive(1, 30.0))

        house.fault("session_lock", entity="jobs", session="s")

        with pytest.raises(SessionLeaseLost):
            waiting.result()
        assert len(lost) == 1

    def test_that_expired_is_lost_and_the_successor_is_not_disturbed(self, house: House) -> None:
        house.queue(sessions=True, lock=1)
        client, other = house.client(), house.client()
        fill(client, 2, session="s")
        session = accept(client)
        delivery = head(session)

        theirs = accept(other)

        assert isinstance(error_of(session.settle([Complete(delivery)])), SessionLeaseLost)
        assert head(theirs).message.id == "m0"


class TestClosing:
    def test_while_a_settlement_is_under_way_leaves_it_done_or_not_but_never_half(self, house: House) -> None:
        house.queue(sessions=True)
        client = house.client()
        fill(client, 12, session="s")
        dice, done = random.Random(3), 0

        while done < 12:
            session = accept(client)
            delivery = head(session)
            assert delivery.message.id == f"m{done}"
            closer = threading.Timer(dice.random() * 0.002, session.close)
            closer.start()
            error = error_of(session.settle([Complete(delivery)]))
            closer.join()
            assert error is None or isinstance(
                error, SessionLeaseLost
            )  # the link is well: nothing is unknown
            done += error is None

        eventually(lambda: house.counts() == {}, house.counts)

    def test_gives_back_at_once_what_was_not_settled(self, house: House) -> None:
        house.queue(sessions=True)
        client, other = house.client(), house.client()
        fill(client, 2, session="s")
        session = accept(client)
        head(session)

        session.close()

        with within(1.0):
            again = accept(other)
        assert [head(again).message.id for _ in range(2)] == ["m0", "m1"]
        assert again.session_id == "s"

    def test_twice_and_settling_after_it_do_no_harm(self, house: House) -> None:
        house.queue(sessions=True)
        client = house.client()
        fill(client, 1, session="s")
        session = accept(client)
        delivery = head(session)

        session.close()
        session.close()

        assert isinstance(error_of(session.settle([Complete(delivery)])), SessionLeaseLost)


class TestOrder:
    def test_holds_while_messages_come_in_and_are_settled_and_renewed(self, house: House) -> None:
        house.queue(sessions=True)
        client, over = house.client(), threading.Event()
        house.bus.latency(3)
        fill(client, 1, session="s")
        session = accept(client)

        def send() -> None:
            for n in range(1, 60):
                assert client.send("jobs", [_numbered(n)])[0].error is None

        def renew() -> None:
            while not over.wait(0.01):
                session.renew()

        sending, renewing = Call(send), Call(renew)
        found = []
        for _ in range(60):
            delivery = head(session)
            found.append(delivery.message.id)
            assert error_of(session.settle([Complete(delivery)])) is None
        over.set()
        sending.result()
        renewing.result()

        assert found == [f"m{n}" for n in range(60)]

    def test_holds_over_connections_that_break_at_any_moment(self, house: House) -> None:
        house.queue(sessions=True, lock=5, max_delivery=1000)
        client = house.client()
        fill(client, 40, session="s")
        dice = random.Random(11)
        done: list[str] = []
        unknown: str | None = None

        while len(done) < 40:
            try:
                session = accept(client)
            except ConnectionFailed:
                continue
            killer = threading.Timer(dice.random() * 0.03, house.bus.fault, ["kill"])
            killer.start()
            unknown = _work(session, done, unknown)
            killer.join()
            if len(done) == 39 and unknown == "m39":
                break  # it may be done, and then nothing comes any more

        assert done == [f"m{n}" for n in range(len(done))]


def _work(session: ProviderSession, done: list[str], unknown: str | None) -> str | None:
    """Complete what comes until the session is lost; returns what may be completed or not."""
    while len(done) < 40:
        try:
            found = session.receive(1, 0.5)
        except QueueError:
            return unknown
        if not found:
            return unknown
        came = found[0].message.id
        if unknown is not None and came != unknown:
            done.append(unknown)  # so it was done
        unknown = None
        assert came == f"m{len(done)}"
        error = error_of(session.settle([Complete(found[0])]))
        if error is None:
            done.append(came)
        elif isinstance(error, OutcomeUnknown):
            return came
        else:
            assert isinstance(error, SessionLeaseLost), error
            return None
    return None


def _numbered(number: int) -> Message:
    return Message(body=b"x", id=f"m{number}", session_id="s")
