"""What a setting says happens: to a queue what its own options say, to others what the client says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from queue_runtime import BatchPolicy, Message, QueueOptions, Worker
from queue_runtime.breaker import BreakerPolicy
from queue_runtime.errors import CircuitOpen, ConfigurationError, ConnectionFailed, NotAttempted, QueueError
from queue_runtime.retry import RetryPolicy
from queue_runtime.testing import FakeClock
from tests.fakes import NEVER_OPEN, REAL, Gate, Script, fails, scripted
from tests.worker.hands import wait_until

URL = "memory://?queues=own,usual"

QUEUES = pytest.mark.parametrize("queue", ["own", "usual"])


def tries(number: int) -> RetryPolicy:
    return RetryPolicy(max_attempts=number, base=0.0, cap=0.0)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def aside() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


def failure(act: Callable[[], object]) -> type[QueueError]:
    with pytest.raises(QueueError) as caught:
        act()
    return type(caught.value)


class TestRetry:
    @pytest.mark.parametrize(("queue", "number"), [("own", 4), ("usual", 2)])
    @pytest.mark.parametrize("operation", ["send", "receive", "settle", "renew", "describe"])
    def test_is_as_often_as_the_queue_says(
        self, script: Script, operation: str, queue: str, number: int
    ) -> None:
        own = {"own": QueueOptions(retry=tries(4))}
        with scripted(script, URL, retry=tries(2), more={"queues": own}) as client:
            client.send(queue, Message.of("held"))
            (held,) = client.receive(queue)
            acts: dict[str, Callable[[], object]] = {
                "send": lambda: client.send(queue, Message.of("another")),
                "receive": lambda: client.receive(queue),
                "settle": lambda: client.complete(held),
                "renew": lambda: client.renew(held),
                "describe": lambda: client.describe(queue),
            }
            before = len(script.calls(operation))
            script.always(operation, fails(ConnectionFailed))

            assert failure(acts[operation]) is ConnectionFailed
            assert len(script.calls(operation)) - before == number
            script.always(operation)

    def test_is_that_of_the_queue_also_under_the_brokers_name_for_it(self, script: Script) -> None:
        own = {"events": QueueOptions(target="own", retry=tries(4))}
        with scripted(script, URL, retry=tries(2), more={"queues": own}) as client:
            script.always("send", fails(ConnectionFailed))

            assert failure(lambda: client.send("events", Message.of("one"))) is ConnectionFailed
            assert len(script.calls("send")) == 4


class TestBreaker:
    @pytest.mark.parametrize(("queue", "third"), [("own", CircuitOpen), ("usual", ConnectionFailed)])
    def test_opens_where_the_queue_says(self, script: Script, queue: str, third: type[QueueError]) -> None:
        own = {"own": QueueOptions(breaker=BreakerPolicy(minimum_calls=2, failure_rate=0.5))}
        with scripted(script, URL, retry=tries(1), breaker=NEVER_OPEN, more={"queues": own}) as client:
            script.always("receive", fails(ConnectionFailed))

            failures = [failure(lambda: client.receive(queue)) for _ in range(3)]

        assert failures == [ConnectionFailed, ConnectionFailed, third]


class TestBatching:
    """A request under way keeps a second one back, unless two that are not full may be under way."""

    OWN = QueueOptions(batching=BatchPolicy(partial_in_flight=2))

    @QUEUES
    def test_of_what_is_sent_is_as_the_queue_says(
        self, script: Script, clock: FakeClock, aside: ThreadPoolExecutor, queue: str
    ) -> None:
        with scripted(script, URL, clock=clock, more={"queues": {"own": self.OWN}}) as client:
            with Gate() as gate:
                script.always("send", gate)
                sending = [aside.submit(client.send, queue, Message.of("first"))]
                gate.wait_until_reached()
                sending.append(aside.submit(client.send, queue, Message.of("second")))
                lane = client.runtime().outbox(queue)._lane

                self.meet(gate, lane, queue)

            for each in sending:
                each.result(REAL)

    @QUEUES
    def test_of_what_is_settled_is_as_the_queue_says(
        self, script: Script, clock: FakeClock, aside: ThreadPoolExecutor, queue: str
    ) -> None:
        with scripted(script, URL, clock=clock, more={"queues": {"own": self.OWN}}) as client:
            client.send_batch(queue, [Message.of("first"), Message.of("second")])
            messages = client.receive(queue, max_messages=2)
            with Gate() as gate:
                script.always("settle", gate)
                settling = [aside.submit(client.complete, messages[0])]
                gate.wait_until_reached()
                settling.append(aside.submit(client.complete, messages[1]))
                ((_, shared),) = client.runtime().provider._lanes.items()

                self.meet(gate, shared._lane, queue)

            for each in settling:
                each.result(REAL)

    def meet(self, gate: Gate, lane: Any, queue: str) -> None:
        if queue == "own":
            gate.wait_until_reached()
        else:
            wait_until(lambda: len(lane._waiting) == 1)


class TestSendTimeout:
    @pytest.mark.parametrize(("queue", "seconds"), [("own", 2.0), ("usual", 3.0)])
    def test_is_how_long_a_send_takes_at_most(
        self, script: Script, clock: FakeClock, aside: ThreadPoolExecutor, queue: str, seconds: float
    ) -> None:
        more = {"send_timeout": 3.0, "queues": {"own": QueueOptions(send_timeout=2.0)}}
        in_order = "memory://?queues=own:sessions,usual:sessions"
        with scripted(script, in_order, clock=clock, more=more) as client, Gate() as gate:
            script.then("send", gate)
            first = aside.submit(client.send, queue, Message.of("1", session_id="a"), timeout=60.0)
            gate.wait_until_reached()
            second = aside.submit(client.send, queue, Message.of("2", session_id="a"))
            wait_until(lambda: len(client.runtime().outbox(queue)) == 2)
            clock.block_until(1)

            clock.advance(seconds - 0.1)
            clock.block_until(1)
            assert not second.done()
            clock.advance(0.1)

            assert isinstance(second.exception(REAL), NotAttempted)
            gate.open()
            first.result(REAL)


class TestMaxWorkers:
    def test_are_the_handlers_of_all_workers_of_the_client_together(self, script: Script) -> None:
        with scripted(script, URL, clock=FakeClock(), more={"max_workers": 3}) as client:
            with pytest.raises(ConfigurationError, match="max_workers=3"):
                Worker(client, "own", print, concurrency=4, prefetch=4).start()

            with (
                Worker(client, "own", print, concurrency=3),
                pytest.raises(ConfigurationError, match="max_workers=3, of which 3 are taken"),
            ):
                Worker(client, "usual", print, concurrency=1).start()
