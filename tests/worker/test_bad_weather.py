"""Calls to the broker that fail, and mistakes of the library's own."""

from __future__ import annotations

from typing import Any

import pytest

from queue_runtime import (
    Message,
    QueueClient,
    ReceivedMessage,
    Reject,
    Worker,
)
from queue_runtime.errors import (
    ConnectionFailed,
    LeaseLost,
    OutcomeUnknown,
    QueueNotFound,
)
from queue_runtime.events import (
    Event,
    FetchFailed,
    MessageCompleted,
    SettlementFailed,
)
from queue_runtime.testing import FakeClock
from queue_runtime.worker.context import Context, Hold
from queue_runtime.worker.in_hand import Run
from queue_runtime.worker.verdict import GiveUp, Verdict
from tests.fakes import Script, fails, loses, scripted
from tests.worker.hands import (
    ANY_QUEUE,
    FETCH,
    SESSIONS,
    SETTLE,
    URL,
    Desk,
    let_time_pass,
    of,
    send,
    wait_until,
)


class TestBadWeather:
    @ANY_QUEUE
    def test_a_failing_fetch_is_told_and_tried_again(
        self, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        script = Script()
        script.then(FETCH[queue], fails(ConnectionFailed))
        with (
            scripted(script, URL, clock=clock, listeners=[events.append]) as client,
            Worker(client, queue, desk),
        ):
            wait_until(lambda: len(of(events, FetchFailed)) == 1)
            send(client, queue, "a1")
            let_time_pass(clock, until=lambda: desk.calls == [("a1", 1)])

    @ANY_QUEUE
    def test_a_settlement_that_is_not_answered_is_repeated_and_the_handler_is_not(
        self, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        script = Script()
        script.then(SETTLE[queue], fails(OutcomeUnknown), fails(ConnectionFailed))
        with scripted(script, URL, clock=clock, listeners=[events.append]) as client:
            send(client, queue, "a1")
            with Worker(client, queue, desk):
                let_time_pass(clock, until=lambda: bool(of(events, MessageCompleted)))

        assert desk.calls == [("a1", 1)]

    @ANY_QUEUE
    def test_a_settlement_unknown_at_the_end_of_its_lease_is_given_up_and_told(
        self, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        script = Script()
        script.always(SETTLE[queue], fails(OutcomeUnknown))
        script.always("renew", fails(OutcomeUnknown))
        script.always("session.renew", fails(OutcomeUnknown))
        with scripted(script, URL, clock=clock, listeners=[events.append]) as client:
            send(client, queue, "a1")
            worker = Worker(client, queue, desk)
            with worker:
                wait_until(lambda: bool(script.calls(SETTLE[queue])))
                let_time_pass(clock, until=lambda: bool(of(events, SettlementFailed)))
                script.always(SETTLE[queue])
                let_time_pass(clock, until=lambda: bool(of(events, MessageCompleted)))

        assert desk.calls == [("a1", 1)], "it came again, and was done already"
        [completed] = of(events, MessageCompleted)
        assert isinstance(completed, MessageCompleted)
        assert completed.repeated

    @SESSIONS
    def test_a_message_that_cannot_be_dead_lettered_goes_back_and_does_not_run_in_a_hot_loop(
        self, queue: str, clock: FakeClock, desk: Desk, events: list[Event]
    ) -> None:
        script = Script()
        script.then(SETTLE[queue], fails(QueueNotFound))
        desk.fail["a1"] = [Reject("Spam")]
        with scripted(script, URL, clock=clock, listeners=[events.append]) as client:
            send(client, queue, "a1", "a2")
            with Worker(client, queue, desk):
                wait_until(lambda: bool(of(events, SettlementFailed)))
                wait_until(lambda: client.describe(queue).delayed == 1)
                assert desk.calls == [("a1", 1)]
                clock.block_until(2)
                clock.advance(5.0)
                desk.wait_for_calls("a1", "a2")
            [letter] = client.dead_letters(queue).list()
            assert letter.text == "a1", "dead-lettered, without having been handled again"

    def test_a_lease_that_is_lost_raises_in_check(self, client: QueueClient, clock: FakeClock) -> None:
        send(client, "plain", "a1")
        (message,) = client.receive("plain")

        clock.advance(30.0)

        with pytest.raises(LeaseLost, match="ran out"):
            message.lease.check()


def test_a_run_that_fails_in_a_way_of_its_own_gives_its_permit_back_and_says_so(
    client: QueueClient,
    clock: FakeClock,
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    send(client, "plain", "a1", "b1")
    broken = {"a1"}

    def judge(
        self: Context, run: Run, message: ReceivedMessage, hold: Hold, refused: GiveUp | None = None
    ) -> Verdict:
        if message.text in broken:
            raise AssertionError("a mistake in the worker itself")
        return real_judge(self, run, message, hold, refused)

    real_judge = Context.judge
    monkeypatch.setattr(Context, "judge", judge)

    with Worker(client, "plain", desk, concurrency=1) as worker:
        desk.wait_for_calls("b1")
        wait_until(lambda: worker.status().held == 0)
        assert "a mistake in the worker itself" in caplog.text
        broken.clear()
        clock.advance(30.0)
        desk.wait_for_calls("b1", "a1")


def test_a_fetcher_that_fails_in_a_way_of_its_own_goes_on(
    client: QueueClient, clock: FakeClock, desk: Desk, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [RuntimeError("can't start new thread")]
    submit = client.runtime().executor.submit

    def no_thread(*args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return submit(*args, **kwargs)

    monkeypatch.setattr(client.runtime().executor, "submit", no_thread)
    client.send_batch("plain", [Message.of("a1"), Message.of("b1")])

    with Worker(client, "plain", desk) as worker:
        desk.wait_for_calls("b1")
        wait_until(lambda: worker.status().held == 0)
        clock.advance(30.0)
        desk.wait_for_calls("b1", "a1")


@ANY_QUEUE
def test_a_settlement_that_was_never_answered_is_counted_as_unknown(
    queue: str, clock: FakeClock, desk: Desk, events: list[Event]
) -> None:
    script = Script()
    script.then(SETTLE[queue], loses(OutcomeUnknown))
    with scripted(script, URL, clock=clock, listeners=[events.append]) as client:
        send(client, queue, "a1")
        worker = Worker(client, queue, desk)
        with worker:
            let_time_pass(clock, until=lambda: bool(of(events, SettlementFailed)))

    assert (worker.status().unknown, worker.status().lost) == (1, 0)
