"""`StopReport` over random histories: it agrees with the handlers, with the broker, and with what is left."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

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
from queue_runtime.events import (
    Event,
    HandlerFailed,
    MessageCompleted,
    MessageDeadLettered,
    MessageDropped,
    SettlementFailed,
)
from queue_runtime.executor import SessionExecutor
from queue_runtime.testing import FakeClock
from queue_runtime.worker.in_hand import BLOCKED
from queue_runtime.worker.message_run import MessageRun
from queue_runtime.worker.policy import Exhausted
from queue_runtime.worker.session_run import SessionRun
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
    before the stop, then with a `Reject` as the last, never, or with a stop of its own worker."""
    settling: tuple[str, ...]
    """What becomes of the settlements, one after the other; those behind go well."""
    outage: str | None
    """What becomes of all other settlements from the stop to its report."""
    on_exhausted: Exhausted
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
            st.sampled_from(
                ["well", "well", "raise", "retry", "reject", "until the stop", "last", "never", "stop"]
            ),
        ),
        max_size=8,
    ).map(tuple),
    settling=st.just(()) | st.lists(st.sampled_from(sorted(STEPS)), max_size=6).map(tuple),
    outage=st.none() | st.sampled_from(["fails", "is lost", "does not come"]),
    on_exhausted=st.sampled_from(["dead_letter", "drop"]),
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
    held: dict[str, str | None] = field(default_factory=dict)
    """What was in hand before the stop: messages, or sessions, each with the message that it was at."""

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
        if end in ("until", "last"):
            self._wait(lambda: self.stopped)
        if end in ("reject", "last"):
            self.rejected[message.text] += 1
            raise Reject("Spam")
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
    def dead_letters(self) -> bool:
        """What can never be handled goes there."""
        return self.history.on_exhausted == "dead_letter"

    def is_given_up(self, text: str) -> bool:
        return self.rejected[text] > 0 or self.entered[text] >= POLICY.max_attempts

    @property
    def is_foreseen(self) -> bool:
        """All was in its place when the stop came, and what ends after that, ends well."""
        return self.history.at_rest and self.gives_time and not self.history.settling

    def waits(self, text: str | None) -> bool:
        """*text* is in its handler, until the stop or beyond it."""
        return text is not None and text.split()[1] in ("until", "last", "never") and self.entered[text] > 0

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
            client,
            history.queue,
            play.handler,
            concurrency=history.concurrency,
            policy=replace(POLICY, on_exhausted=history.on_exhausted),
            poll=3.0,
        )
        worker.start()
        try:
            _to_the_stop(play, client)
            play.held = _in_hand(worker)
            if history.outage is not None:
                play.script.always(SETTLE[history.queue], STEPS[history.outage])
            _stop(play, client, worker)
            play.script.always(SETTLE[history.queue])
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


def _in_hand(worker: Worker) -> dict[str, str | None]:
    assert worker._work is not None
    found: dict[str, str | None] = {}
    for run in worker._work.in_hand.runs():
        if isinstance(run, SessionRun):
            found[run._session.session_id] = None if run._head is None else run._head.text
        elif isinstance(run, MessageRun):
            found[run._message.text] = run._message.text
    return found


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
        _released_what_is_free(play, report, client)
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
    assert report.finished <= report.completed + report.dead_lettered + report.dropped
    assert report.completed <= sum(play.returned.values())
    never_handled = sum(play.rejected.values()) + len(of(play.events, HandlerFailed))
    assert report.dead_lettered <= (never_handled if play.dead_letters else 0)
    assert report.dropped <= (0 if play.dead_letters else never_handled)
    if play.gives_time:
        assert report.overdue == play.stuck, "the others had their time"
    if play.is_foreseen:
        ended = sum(play.waits(text) for text in play.held.values()) - play.stuck
        finished, unknown = (ended, 0) if play.history.outage is None else (0, ended)
        assert (report.finished, report.unknown) == (finished, unknown)


def _released_what_is_free(play: Play, report: StopReport, client: QueueClient) -> None:
    """What was in hand and is at the broker again, in nobody's hands, was released; no more, no less."""
    if not play.is_foreseen:
        return
    left = stored(client, play.history.queue)
    inside = {name for name, text in play.held.items() if play.waits(text)}
    at_least = sum(text in left and name not in inside for name, text in play.held.items())
    if play.history.queue == "plain":
        at_most = at_least
    else:
        # Of a session whose handler has ended the broker may have more, which was in hand, or in nobody's.
        overdue = {name for name in inside if "never" in str(play.held[name])}
        at_most = len({text[0] for text in left} & (set(play.held) - overdue))
    if play.history.outage is None:
        assert at_least <= report.released <= at_most
    else:
        assert report.released <= at_most, "what the broker did not hear of is not free"


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
    told_completed, told_dead, told_dropped = (
        len(of(play.events, kind)) for kind in (MessageCompleted, MessageDeadLettered, MessageDropped)
    )
    failed = len(of(play.events, SettlementFailed))
    assert (status.completed, status.dead_lettered) == (told_completed, told_dead)
    assert status.dropped == told_dropped
    # What is told as done is done; what the broker has done besides was reported as not known.
    assert told_completed + told_dropped <= gone
    assert told_dead <= len(dead)
    unknown_to_us = (gone - told_completed - told_dropped) + (len(dead) - told_dead)
    assert unknown_to_us <= status.unknown
    assert status.unknown + status.lost == failed
    # What was agreed to after the report was reported as unanswered.
    late = (told_completed - report.completed) + (told_dead - report.dead_lettered)
    late += told_dropped - report.dropped
    assert 0 <= late <= report.unknown
    # Each handler that a removed message had, returned.
    texts = Counter(f"{s}{n} {end}" for n, (s, end) in enumerate(play.history.handlers))
    for text in texts - Counter(left) - Counter(dead):
        assert play.returned[text] or (not play.dead_letters and play.is_given_up(text)), "never handled"
    assert all(play.is_given_up(text) for text in dead)
    # Nothing is counted twice, and no more is in doubt than there were places.
    done = report.completed + report.dead_lettered + report.dropped
    assert done + report.overdue + report.unknown <= sent
    places = play.history.concurrency * (1 + BLOCKED if queue == "plain" else 1)
    assert report.overdue + report.unknown <= places
    heard = not play.history.settling and play.history.outage is None
    if heard and not failed and not report.unknown and not report.overdue:
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
@pytest.mark.parametrize("on_exhausted", ["dead_letter", "drop"])
def test_each_kind_of_end_is_counted_as_what_it_is(queue: str, on_exhausted: Exhausted) -> None:
    history = History(
        queue=queue,
        concurrency=4,
        handlers=(("a", "well"), ("b", "until the stop"), ("c", "never"), ("d", "reject")),
        settling=(),
        outage=None,
        on_exhausted=on_exhausted,
        polls_fail=False,
        begun=4,
        at_rest=True,
        deadline=6.0,
        stops=2,
    )
    with played(history) as (play, _, _):
        report = play.reports[0]

    rejected = (1, 0) if on_exhausted == "dead_letter" else (0, 1)
    assert (report.completed, report.finished) == (2, 1)
    assert (report.dead_lettered, report.dropped) == rejected
    assert (report.overdue, report.unknown, report.released) == (1, 0, 0)
    assert len(report.threads_left) == 1


@pytest.mark.parametrize(("outage", "released"), [(None, 2), ("fails", 0), ("does not come", 0)])
def test_what_waits_for_another_of_its_session_is_released_if_the_broker_hears_of_it(
    outage: str | None, released: int
) -> None:
    history = History(
        queue="plain",
        concurrency=3,
        handlers=(("a", "until the stop"), ("a", "well"), ("a", "well")),
        settling=(),
        outage=outage,
        on_exhausted="dead_letter",
        polls_fail=False,
        begun=1,
        at_rest=True,
        deadline=6.0,
        stops=1,
    )
    with played(history) as (play, client, _):
        assert len(play.held) == 3
        assert play.reports[0].released == released
        _released_what_is_free(play, play.reports[0], client)
        assert client.describe("plain").leased == 3 - released - (outage is None)
