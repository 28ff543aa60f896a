"""How long a worker leaves a broker alone that does not answer its fetches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from queue_runtime import QueueClient, Worker
from queue_runtime.breaker import BreakerPolicy
from queue_runtime.clock import SystemClock
from queue_runtime.errors import ConnectionFailed, Throttled
from queue_runtime.events import CircuitOpened, Event, FetchFailed
from queue_runtime.testing import FakeClock
from queue_runtime.worker.fetcher import JITTER, LONGEST_REST, rest_after
from tests.fakes import Act, Script, fails, scripted
from tests.worker.hands import ANY_QUEUE, FETCH, SOON, URL, Desk
from tests.worker.resting import let_pass


class Watch:
    """A listener that notes each failed fetch, and when it came, and each breaker that opens."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.failed: list[tuple[float, FetchFailed]] = []
        self.opened: list[CircuitOpened] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, FetchFailed):
            self.failed.append((self._clock.monotonic(), event))
        elif isinstance(event, CircuitOpened):
            self.opened.append(event)

    def delays(self) -> list[float]:
        return [round(event.delay, 3) for _, event in self.failed]

    def check_waits(self) -> None:
        """No fetch came before the delay that was told of the one before it was over."""
        for (before, event), (after, _) in zip(self.failed, self.failed[1:], strict=False):
            assert after - before >= event.delay - 1e-6


def throttled(act: Act) -> None:
    raise Throttled("scripted: slow down", retry_after=12.0)


Luck = Callable[[float], None]


@pytest.fixture
def luck(monkeypatch: pytest.MonkeyPatch) -> Luck:
    """Says what `random.random` answers the fetcher."""
    return lambda value: monkeypatch.setattr("queue_runtime.worker.fetcher.random.random", lambda: value)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def watch(clock: FakeClock) -> Watch:
    return Watch(clock)


@pytest.fixture
def client(script: Script, clock: FakeClock, watch: Watch) -> Iterator[QueueClient]:
    with scripted(script, URL, clock=clock, listeners=[watch]) as made:
        yield made


@ANY_QUEUE
class TestADelay:
    @pytest.mark.parametrize(
        ("value", "delays"),
        [
            (1.0, [0.6, 1.1, 2.1, 4.1, 8.1, 16.1, 30.1, 30.1]),
            (0.5, [0.35, 0.6, 1.1, 2.1, 4.1, 8.1, 15.1, 15.1]),
            (0.0, [0.1] * 8),
        ],
    )
    def test_may_be_twice_the_one_before_up_to_a_cap_and_is_shortened_at_random(
        self,
        client: QueueClient,
        queue: str,
        script: Script,
        clock: FakeClock,
        watch: Watch,
        desk: Desk,
        luck: Luck,
        value: float,
        delays: list[float],
    ) -> None:
        luck(value)
        script.always(FETCH[queue], fails(ConnectionFailed))

        with Worker(client, queue, desk, poll=3.0):
            let_pass(client, clock, until=lambda: len(watch.failed) >= 8)
            script.always(FETCH[queue])

        assert watch.delays()[:8] == delays
        watch.check_waits()

    def test_is_short_again_after_an_answer(
        self,
        client: QueueClient,
        queue: str,
        script: Script,
        clock: FakeClock,
        watch: Watch,
        desk: Desk,
        luck: Luck,
    ) -> None:
        luck(1.0)
        failure = fails(ConnectionFailed)
        script.then(FETCH[queue], failure, failure, failure, lambda act: act.run(), failure, failure)

        with Worker(client, queue, desk, poll=3.0):
            let_pass(client, clock, until=lambda: len(watch.failed) >= 5)

        assert watch.delays() == [0.6, 1.1, 2.1, 0.6, 1.1]

    def test_lasts_until_an_open_breaker_lets_a_question_through(
        self, queue: str, script: Script, clock: FakeClock, watch: Watch, desk: Desk, luck: Luck
    ) -> None:
        luck(0.0)
        breaker = BreakerPolicy(minimum_calls=2, failure_rate=0.5, open_for=20.0)
        with scripted(script, URL, clock=clock, listeners=[watch], breaker=breaker) as client:
            script.then(FETCH[queue], fails(ConnectionFailed), fails(ConnectionFailed))

            with Worker(client, queue, desk, poll=3.0):
                let_pass(client, clock, until=lambda: len(script.calls(FETCH[queue])) >= 3)

        # The second failure opens it; the next fetch is refused, once, and the one after it is asked.
        assert [event.error for _, event in watch.failed] == ["ConnectionFailed"] * 2 + ["CircuitOpen"]
        [opened] = watch.opened
        refused_at, refused = watch.failed[-1]
        lets_through_at = clock.monotonic() + (opened.retry_at - clock.now()).total_seconds()
        assert watch.delays()[:2] == [0.1, 0.1]
        assert refused_at + refused.delay >= lets_through_at
        assert refused.delay <= 20.0 + JITTER

    def test_is_as_long_as_the_broker_asks_for(
        self,
        client: QueueClient,
        queue: str,
        script: Script,
        clock: FakeClock,
        watch: Watch,
        desk: Desk,
        luck: Luck,
    ) -> None:
        luck(0.0)
        script.then(FETCH[queue], throttled, throttled)

        with Worker(client, queue, desk, poll=3.0):
            let_pass(client, clock, until=lambda: len(script.calls(FETCH[queue])) >= 3)

        assert watch.delays() == [12.0, 12.0]
        watch.check_waits()


def test_a_broker_that_asks_for_time_at_the_start_has_it(
    client: QueueClient, script: Script, clock: FakeClock, watch: Watch, desk: Desk, luck: Luck
) -> None:
    luck(0.0)
    script.then("describe", throttled)
    worker = Worker(client, "plain", desk, poll=3.0)
    running = threading.Thread(target=worker.run, daemon=True)
    running.start()

    let_pass(client, clock, running, until=lambda: worker.status().state == "running")

    assert watch.delays() == [12.0]
    worker.stop()
    running.join(SOON)


def test_a_broker_that_asks_for_a_day_is_asked_again_before_that() -> None:
    asked_for = Throttled("come again tomorrow")
    asked_for.retry_after = 86_400.0

    assert rest_after(asked_for, 1, SystemClock().now) == LONGEST_REST
