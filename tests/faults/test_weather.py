"""The broker is down, goes away, falls silent, loses its answers: nothing is lost and nothing overtakes."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from time import monotonic

import pytest

from queue_runtime import Message, QueueClient, ReceivedMessage, Worker, connect
from queue_runtime.config import parse_url
from queue_runtime.errors import CircuitOpen, ConnectionFailed, OutcomeUnknown, QueueError
from queue_runtime.events import Event, FetchFailed, SettlementFailed
from queue_runtime.retry import RetryPolicy
from tests.faults.weather import Sky, Weather

SESSIONS = "abcdefgh"
LENGTH = 12


class History:
    """What handlers were entered with, by session."""

    def __init__(self, pace: float = 0.0) -> None:
        self._pace = pace
        self._changed = threading.Condition()
        self.handled: dict[str, list[str]] = defaultdict(list)

    def __call__(self, message: ReceivedMessage) -> None:
        with self._changed:
            self.handled[str(message.session_id)].append(message.text)
            self._changed.notify_all()
            # The work that a handler does; also lets the weather change in the middle of things.
            self._changed.wait(self._pace)

    def wait_for(self, number: int, seconds: float = 60.0) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.distinct() >= number, seconds), self.handled

    def distinct(self) -> int:
        return sum(len(set(texts)) for texts in self.handled.values())

    def without_repeats(self) -> dict[str, list[str]]:
        """A message may come again before the next one is started, and at no other time."""
        return {session: [text for text, _ in groupby(texts)] for session, texts in self.handled.items()}


def fill(client: QueueClient) -> dict[str, list[str]]:
    sent = {letter: [f"{letter}{n:02}" for n in range(LENGTH)] for letter in SESSIONS}
    for row in zip(*sent.values(), strict=True):
        client.send_batch("events", [Message.of(text, session_id=text[0]) for text in row])
    return sent


def impatient(target: str, **policy: float) -> QueueClient:
    settings = parse_url(target)
    return connect(replace(settings, retry=replace(RetryPolicy(), **policy)))  # type: ignore[arg-type]


def test_a_broker_that_is_down_at_the_start_is_said_within_bounds_and_used_when_it_is_up(
    target: str, weather: Weather
) -> None:
    weather.sky = Sky.CLOSED
    with impatient(target, time_limit=1.0, max_attempts=3) as client:
        started = monotonic()
        with pytest.raises(ConnectionFailed) as caught:
            client.send("events", Message.of("a1", session_id="a"))
        assert monotonic() - started < 5.0
        assert (caught.value.queue, caught.value.provider) == ("events", "sqs")
        with pytest.raises(ConnectionFailed):
            Worker(client, "events", print).start()

        weather.sky = Sky.CLEAR
        client.send("events", Message.of("a1", session_id="a"))

        history = History()
        Worker(client, "events", history).run_until_idle(wait=1.0)
        assert history.handled == {"a": ["a1"]}


def test_a_silent_broker_leaves_the_outcome_of_a_send_unknown_within_bounds(
    target: str, weather: Weather
) -> None:
    with impatient(target, max_attempts=2, time_limit=3.0) as client:
        client.describe("events")
        weather.sky = Sky.SILENT
        started = monotonic()

        with pytest.raises(OutcomeUnknown):
            client.send("events", Message.of("a1", session_id="a"))

        assert monotonic() - started < 6.0


def test_a_send_whose_answer_was_lost_is_repeated_and_stored_once(target: str, weather: Weather) -> None:
    with impatient(target, max_attempts=50) as client:  # five may come and go before the sky is clear
        client.describe("events")
        weather.sky = Sky.LOST
        clearing = threading.Timer(0.3, lambda: setattr(weather, "sky", Sky.CLEAR))
        clearing.start()

        client.send("events", Message.of("a1", session_id="a"))

        history = History()
        Worker(client, "events", history).run_until_idle(wait=1.0)
        assert history.handled == {"a": ["a1"]}


def test_the_breaker_refuses_at_once_while_the_broker_keeps_failing(target: str, weather: Weather) -> None:
    weather.sky = Sky.CLOSED
    with impatient(target, max_attempts=1) as client:
        weather.sky = Sky.CLEAR
        client.describe("events")
        weather.sky = Sky.CLOSED
        for _ in range(10):
            with pytest.raises(QueueError):
                client.send("events", Message.of("x", session_id="a"))

        with pytest.raises(CircuitOpen) as caught:
            client.send("events", Message.of("x", session_id="a"))

        assert caught.value.retry_at is not None


def storm_closed(weather: Weather) -> None:
    weather.sky = Sky.CLOSED


def storm_resets(weather: Weather) -> None:
    for _ in range(5):
        weather.reset_all()
        threading.Event().wait(0.1)


def storm_silent(weather: Weather) -> None:
    weather.sky = Sky.SILENT


def storm_lost(weather: Weather) -> None:
    weather.sky = Sky.LOST


@pytest.mark.parametrize("storm", [storm_closed, storm_resets, storm_silent, storm_lost])
def test_a_worker_rides_out_a_storm(target: str, weather: Weather, storm: Callable[[Weather], None]) -> None:
    events: list[Event] = []
    history = History(pace=0.02)
    with connect(target, listeners=[events.append]) as client:
        sent = fill(client)
        with Worker(client, "events", history, concurrency=8, poll=2.0) as worker:
            history.wait_for(10)
            storm(weather)
            threading.Event().wait(1.5)
            weather.sky = Sky.CLEAR
            history.wait_for(LENGTH * len(SESSIONS))
            report = worker.stop()
        left = client.describe("events")

    assert history.without_repeats() == sent, "in order, none missing"
    assert (report.overdue, report.unknown) == (0, 0)
    assert (left.active, left.leased) == (0, 0)
    if storm is storm_closed:
        assert any(isinstance(event, FetchFailed | SettlementFailed) for event in events), "it was felt"
