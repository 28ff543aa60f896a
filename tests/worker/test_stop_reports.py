"""`StopReport` over random histories: it agrees with the handlers, with the broker, and with what is left."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from queue_runtime import (
    HandlerPolicy,
    Message,
    QueueClient,
    ReceivedMessage,
    Reject,
    Retry,
    StopReport,
    Worker,
)
from queue_runtime.errors import ConnectionFailed, OutcomeUnknown, QueueNotFound
from queue_runtime.events import Event, HandlerFailed, MessageCompleted, MessageDeadLettered, SettlementFailed
from queue_runtime.executor import SessionExecutor
from queue_runtime.testing import FakeClock
from queue_runtime.worker.in_hand import BLOCKED
from tests.fakes import Script, fails, loses, our_threads, scripted, stored
from tests.worker.hands import SETTLE, SOON, URL, of, wait_until
from tests.worker.resting import is_at_rest

STEPS = {
    "goes well": lambda act: act.run(),
    "fails": fails(ConnectionFailed),
    "is refused": fails(QueueNotFound),
    "is lost": loses(OutcomeUnknown),
    "does not come": fails(OutcomeUnknown),
}

POLICY = HandlerPolicy(max_attempts=3, base=1.0, cap=2.0, breaker=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What happens to one worker."""

    queue: str
    concurrency: int
    handlers: tuple[tuple[str, str], ...]
    """Of each message its session and how its handler ends: well, raising, with a `Retry` or a `Reject`, not
    before the stop, never, or with a stop of its own worker."""
    settling: tuple[str, ...]
    """What becomes of the settlements, one after the other; those behind go well."""
    polls_fail: bool
    begun: int
    """Handlers that are entered before the stop, as far as they are."""
    at_rest: bool
    """Nobody has anything to do when the stop comes."""
    deadline: float
    stops: int
    """So many threads stop it at once."""


HISTORIES = st.builds(
    History,
    queue=st.sampled_from(["plain", "sessions", "groups"]),
    concurrency=st.integers(1, 4),
    handlers=st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from(["well", "well", "raise", "retry", "reject", "until the stop", "never", "stop"]),
        ),
        max_size=8,
    ).map(tuple),
    settling=st.lists(st.sampled_from(sorted(STEPS)), max_size=6).map(tuple),
    polls_fail=st.booleans(),
    begun=st.integers(0, 6),
    at_rest=st.booleans(),
    deadline=st.sampled_from([0.0, 0.5, 6.0]),
    stops=st.integers(1, 3),
)


@dataclass
class Play:
    """One history, played."""

    history: History
    clock: FakeClock = field(default_factory=FakeClock)
    script: Script = field(default_factory=Script)
    events: list[Event] = field(default_factory=list)
    entered: Counter[str] = field(default_factory=Counter)
    returned: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    reports: list[StopReport] = field(default_factory=list)
    inside: list[StopReport] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.changed = threading.Condition()
        self._others = set(threading.enumerate())
        self._waited_for: list[Callable[[], bool]] = []
        self.stopped = False
        self.over = False
        self.worker: Worker | None = None

    def handler(self, message: ReceivedMessage) -> None:
        end = message.text.split()[1]
        with self.changed:
            self.entered[message.text] += 1
            first = self.entered[message.text] == 1
            self.changed.notify_all()
        if end == "raise" and first:
            raise RuntimeError("once")
        if end == "retry" and first:
            raise Retry(1.5)
        if end == "reject":
            self.rejected[message.text] += 1
            raise Reject("Spam")
        if end == "until":
            self._wait(lambda: self.stopped)
        if end == "never":
            self._wait(lambda: self.over)
        if end == "stop" and first:
            assert self.worker is not None
            self.inside.append(self.worker.stop(self.history.deadline))
        self.returned[message.text] += 1

    @property
    def gives_time(self) -> bool:
        """Handlers that can end, do before the deadline. (One that stops the worker does so before others
        are told that they may.)"""
        return self.history.deadline > 0 and all(end != "stop" for _, end in self.history.handlers)

    @property
    def stuck(self) -> int:
        """Handlers that wait for what has not come."""
        with self.changed:
            return sum(not fact() for fact in self._waited_for)

    def _wait(self, fact: Callable[[], bool]) -> None:
        with self.changed:
            self._waited_for.append(fact)
            self.changed.notify_all()
            assert self.changed.wait_for(fact, 2 * SOON), "nobody lets it go"

    def tell(self, what: str) -> None:
        with self.changed:
            setattr(self, what, True)
            self.changed.notify_all()

    def is_at_rest(self, client: QueueClient, *threads: threading.Thread) -> bool:
        """Nobody has anything to do before time goes on; handlers that are to wait, wait."""
        mine = set(threading.enumerate()) - self._others
        stops = [thread for thread in mine if "-stop-" in thread.name or "-fetch-" in thread.name]
        return is_at_rest(client, self.clock, *threads, *stops, stuck=self.stuck)


def room(executor: SessionExecutor) -> int:
    with executor._changed:
        return executor._claimed


@contextmanager
def played(history: History) -> Iterator[tuple[Play, QueueClient, Worker]]:
    """The history up to the report of its stop; afterwards all handlers come to their end."""
    play = Play(history)
    for name in history.settling:
        play.script.then(SETTLE[history.queue], STEPS[name])
    if history.polls_fail:
        play.script.then("receive", fails(ConnectionFailed))
        play.script.then("accept_sessions", fails(ConnectionFailed))
    with scripted(play.script, URL, clock=play.clock, listeners=[play.events.append]) as client:
        client.send_batch(
            history.queue,
            [
                Message.of(f"{session}{number} {end}", session_id=session)
                for number, (session, end) in enumerate(history.handlers)
            ],
        )
        worker = play.worker = Worker(
            client, history.queue, play.handler, concurrency=history.concurrency, policy=POLICY, poll=3.0
        )
        worker.start()
        try:
            _to_the_stop(play, client)
            _stop(play, client, worker)
            yield play, client, worker
        finally:
            play.tell("stopped")
            play.tell("over")
            worker.stop(0.0)


def _to_the_stop(play: Play, client: QueueClient) -> None:
    """Let time pass until so many handlers were entered, or nothing more is to be expected."""
    for _ in range(12):
        if sum(play.entered.values()) >= play.history.begun:
            break
        wait_until(lambda: sum(play.entered.values()) >= play.history.begun or play.is_at_rest(client))
        play.clock.advance(1.0)
    if play.history.at_rest:
        wait_until(lambda: play.is_at_rest(client))


def _stop(play: Play, client: QueueClient, worker: Worker) -> None:
    def stop() -> None:
        play.reports.append(worker.stop(play.history.deadline))

    threads = [threading.Thread(target=stop, daemon=True) for _ in range(play.history.stops)]
    for thread in threads:
        thread.start()
    wait_until(lambda: worker.status().state in ("stopping", "stopped"))
    play.tell("stopped")
    for _ in range(40):
        wait_until(lambda: not any(t.is_alive() for t in threads) or play.is_at_rest(client, *threads))
        if not any(thread.is_alive() for thread in threads):
            return
        play.clock.advance(0.5)
    raise AssertionError("the stop does not end")


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
@given(HISTORIES)
def test_a_report_agrees_with_what_happened(history: History) -> None:
    before = set(our_threads())
    with played(history) as (play, client, worker):
        report = play.reports[0]
        _is_one(play, report)
        _agrees_with_handlers(play, report)
        _names_every_thread(report, before, play)
        play.tell("over")
        _to_the_end(play, client, worker)
        _agrees_with_the_broker(play, report, client, worker)
        _leaves_nothing(client, worker)
    wait_until(lambda: before.issuperset(our_threads()))


def _to_the_end(play: Play, client: QueueClient, worker: Worker) -> None:
    """Handlers return, and what is tried again once more, finds that its lease is lost."""
    for _ in range(10):
        wait_until(lambda: play.stuck == 0 and play.is_at_rest(client))
        if not worker.status().held:
            return
        play.clock.advance(1.0)
    raise AssertionError("something stays in hand")


def _is_one(play: Play, report: StopReport) -> None:
    assert all(each == report for each in play.reports), "whoever asks is told the same"
    assert (report.in_hand, report.reason, report.exit_code) == (0, "asked", 0)
    assert all(each.in_hand >= 1 or each == report for each in play.inside)


def _agrees_with_handlers(play: Play, report: StopReport) -> None:
    assert report.finished <= report.completed + report.dead_lettered
    assert report.completed <= sum(play.returned.values())
    assert report.dead_lettered <= sum(play.rejected.values()) + len(of(play.events, HandlerFailed))
    if play.gives_time:
        assert report.overdue == play.stuck, "the others had their time"


def _polls() -> set[str]:
    return {name for name in our_threads() if "-fetch-" in name}


def _names_every_thread(report: StopReport, before: set[str], play: Play) -> None:
    # A poller that was being added at that moment ends by itself.
    wait_until(lambda: _polls() - before <= set(report.threads_left))
    stuck = [name for name in report.threads_left if name.startswith("queue_runtime-worker")]
    if play.gives_time:
        assert (len(stuck), len(report.threads_left)) == (play.stuck, play.stuck)


def _agrees_with_the_broker(play: Play, report: StopReport, client: QueueClient, worker: Worker) -> None:
    queue, sent = play.history.queue, len(play.history.handlers)
    left, dead = stored(client, queue), [letter.text for letter in client.dead_letters(queue).list()]
    gone = sent - len(left) - len(dead)
    status = worker.status()
    told_completed, told_dead = (
        len(of(play.events, MessageCompleted)),
        len(of(play.events, MessageDeadLettered)),
    )
    failed = len(of(play.events, SettlementFailed))
    assert (status.completed, status.dead_lettered) == (told_completed, told_dead)
    # What is told as done is done; what the broker has done besides was reported as not known.
    assert told_completed <= gone
    assert told_dead <= len(dead)
    unknown_to_us = (gone - told_completed) + (len(dead) - told_dead)
    assert unknown_to_us <= status.unknown
    assert status.unknown + status.lost == failed
    # What was agreed to after the report was reported as unanswered.
    late = (told_completed - report.completed) + (told_dead - report.dead_lettered)
    assert 0 <= late <= report.unknown
    # Each handler that a removed message had, returned.
    texts = Counter(f"{s}{n} {end}" for n, (s, end) in enumerate(play.history.handlers))
    for text in texts - Counter(left) - Counter(dead):
        assert play.returned[text], "gone, and never handled"
    assert all(play.rejected[text] or play.entered[text] >= POLICY.max_attempts for text in dead)
    # Nothing is counted twice, and no more is in doubt than there were places.
    assert report.completed + report.dead_lettered + report.overdue + report.unknown <= sent
    places = play.history.concurrency * (1 + BLOCKED if queue == "plain" else 1)
    assert report.overdue + report.unknown <= places
    if not play.history.settling and not failed and not report.unknown and not report.overdue:
        assert client.describe(queue).leased == 0, "nothing is kept from others"


def _leaves_nothing(client: QueueClient, worker: Worker) -> None:
    work = worker._work
    assert work is not None
    in_hand = work.in_hand
    with in_hand._changed:
        assert (in_hand._out, in_hand._runs, in_hand._counted) == (0, set(), set())
        assert in_hand._free() == in_hand.prefetch
        assert in_hand._inside.names() == []
    assert room(client.runtime().executor) == 0
    assert len(client.runtime().leases) == 0


@pytest.mark.parametrize("queue", ["plain", "sessions", "groups"])
def test_each_kind_of_end_is_counted_as_what_it_is(queue: str) -> None:
    history = History(
        queue=queue,
        concurrency=4,
        handlers=(("a", "well"), ("b", "until the stop"), ("c", "never"), ("d", "reject")),
        settling=(),
        polls_fail=False,
        begun=4,
        at_rest=True,
        deadline=6.0,
        stops=2,
    )
    with played(history) as (play, _, _):
        report = play.reports[0]

    assert (report.completed, report.dead_lettered, report.finished) == (2, 1, 1)
    assert (report.overdue, report.unknown, report.released) == (1, 0, 0)
    assert len(report.threads_left) == 1
