"""What is looked at or sent back is held, however long that takes."""

from __future__ import annotations

from typing import Any

from queue_runtime import MessageView, QueueClient
from queue_runtime.errors import InvalidReceipt
from queue_runtime.events import Event, LostLease
from queue_runtime.testing import FakeClock
from tests.deadletters.house import DEAD, bury
from tests.fakes import REAL, Act, Gate, Script, fails, scripted


class TestTheHold:
    def test_is_kept_alive_however_long_the_choosing_takes(
        self, client: QueueClient, clock: FakeClock, script: Script
    ) -> None:
        bury(client, "jobs", "a1", "b1")
        seen: list[str] = []

        def slowly(view: MessageView) -> bool:
            seen.append(view.id)
            for _ in range(4):
                calls = len(script.calls("renew"))
                clock.block_until(1)
                clock.advance(15.0)
                while len(script.calls("renew")) == calls:
                    clock.block_until(1)
                client.runtime().pool.submit_in("jobs" + DEAD, lambda: None).result(REAL)
            return True

        assert client.dead_letters("jobs").replay(where=slowly).replayed == ("a1", "b1")
        assert seen == ["a1", "b1"]

    def test_that_is_removed_while_it_is_renewed_is_no_loss(
        self, client: QueueClient, clock: FakeClock, script: Script, events: list[Event]
    ) -> None:
        bury(client, "jobs", "a1")
        with Gate() as gate:
            script.then("renew", gate)

            def slowly(view: MessageView) -> bool:
                clock.block_until(1)
                clock.advance(15.0)
                gate.wait_until_reached()
                return True

            def settle(act: Act) -> Any:
                answers = act.run()
                gate.open()
                client.runtime().pool.submit_in("jobs" + DEAD, lambda: None).result(REAL)
                return answers

            script.then("settle", settle)
            assert client.dead_letters("jobs").replay(where=slowly).replayed == ("a1",)

        assert [event for event in events if isinstance(event, LostLease)] == []


def test_it_is_kept_at_the_dead_letters_whatever_the_program_calls_so() -> None:
    script, clock = Script(), FakeClock()
    renewed: list[str] = []

    def renew(act: Act) -> Any:
        renewed.append(act.queue)
        return act.run()

    script.always("renew", renew)
    url = f"memory://?queues=jobs,other&queue.jobs{DEAD}=other"
    with scripted(script, url, clock=clock) as client:
        bury(client, "jobs", "a1")

        def slowly(view: MessageView) -> bool:
            clock.block_until(1)
            clock.advance(15.0)
            clock.block_until(1)
            client.runtime().pool.submit_in("jobs" + DEAD, lambda: None).result(REAL)
            client.runtime().pool.submit_in("other", lambda: None).result(REAL)
            return True

        client.dead_letters("jobs").replay(where=slowly)

    assert set(renewed) == {"jobs" + DEAD}


def test_the_queue_of_dead_letters_is_called_by_the_programs_own_name() -> None:
    clock, script, events = FakeClock(), Script(), list[Event]()
    url = f"memory://?queues=jobs&queue.jobs-dead=jobs{DEAD}"
    with scripted(script, url, clock=clock, listeners=[events.append]) as client:
        bury(client, "jobs", "a1")
        script.then("renew", fails(InvalidReceipt))

        def slowly(view: MessageView) -> bool:
            clock.block_until(1)
            clock.advance(15.0)
            client.runtime().pool.submit_in(f"jobs{DEAD}", lambda: None).result(REAL)
            return False

        client.dead_letters("jobs").replay(where=slowly)

    assert [event.queue for event in events if isinstance(event, LostLease)] == ["jobs-dead"]
