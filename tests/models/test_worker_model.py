"""A worker against the broker's own book: order, exclusivity, attempts, permits, reports, nothing left."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import replace
from itertools import count

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from queue_runtime import StopReport, Worker
from queue_runtime.breaker import BreakerPolicy
from queue_runtime.errors import (
    ConnectionFailed,
    LeaseLost,
    OperationTimeout,
    OutcomeUnknown,
    SessionLeaseLost,
    Throttled,
)
from queue_runtime.events import Event, MessageCompleted, MessageDeadLettered
from queue_runtime.testing import FakeClock
from queue_runtime.worker import HandlerPolicy
from queue_runtime.worker.work import LOOK
from tests.fakes import REAL, Act, Script, Step, fails, fails_for, loses, scripted
from tests.memory_hands import DEAD
from tests.models.sizes import sized, unhurried
from tests.models.worker_house import ATTEMPTS, PLANNED, Bad, Call, Down, Handler, Meeting, messages
from tests.worker.hands import FETCH, SETTLE, URL, left_over

pytestmark = unhurried

LEASE = 30.0
POLICY = HandlerPolicy(
    max_attempts=ATTEMPTS,
    base=1.0,
    cap=4.0,
    permanent=(Bad,),
    downstream=(Down,),
    max_hold=3600.0,  # handlers are held for minutes here: failing after that would be the end
    max_deliveries=1000,
)
BREAKERS = [
    None,
    BreakerPolicy(failure_rate=0.8, minimum_calls=3, window=60.0, open_for=5.0),
    BreakerPolicy(failure_rate=0.5, minimum_calls=1, open_for=2.0),
]


def first_is_lost(act: Act) -> object:
    return fails_for({act.ids[0]: LeaseLost})(act)


WEATHER: dict[str, dict[str, Step]] = {
    "fetch": {
        "unreached": fails(ConnectionFailed),
        "throttled": fails(Throttled),
        "answer lost": loses(OperationTimeout),
    },
    "settle": {
        "throttled": fails(Throttled),
        "answer lost": loses(OutcomeUnknown),
        "request lost": fails(OutcomeUnknown),
        "not held": first_is_lost,
    },
    "renew": {"throttled": fails(Throttled), "not held": fails(LeaseLost)},
}
PLANS = st.lists(st.sampled_from(PLANNED), max_size=3) | st.sampled_from(
    [["raise"] * ATTEMPTS, ["down"] * 4, ["reject"], ["hold"], ["hold, then raise"], ["hold, then down"]]
)


class WorkerModel(RuleBasedStateMachine):
    """Messages come, handlers do what is planned, brokers fail, time passes, workers stop and start again."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.clock = FakeClock()
        self.script = Script()
        self.events: list[Event] = []
        self.sent: list[str] = []
        self.numbers = count()
        self.running = False
        self.calm = True
        """The broker has done all that it was asked for, and nobody was past a deadline."""

    @initialize(
        queue=st.sampled_from(["plain", "sessions", "groups"]),
        concurrency=st.integers(1, 3),
        beyond=st.integers(0, 3),
        breaker=st.sampled_from(BREAKERS),
        plans=st.lists(PLANS, min_size=2, max_size=5),
    )
    def begin(
        self,
        queue: str,
        concurrency: int,
        beyond: int,
        breaker: BreakerPolicy | None,
        plans: list[list[str]],
    ) -> None:
        self.queue = queue
        self.before = set(left_over())
        self.client = self.stack.enter_context(
            scripted(self.script, URL, clock=self.clock, listeners=[self.events.append])
        )
        self.provider = self.client.runtime().provider
        self.handler = Handler(self.stored, ordered=queue != "plain")
        self.meeting = Meeting(self.client, self.clock, self.handler)
        self.worker = Worker(
            self.client,
            queue,
            self.handler,
            concurrency=concurrency,
            prefetch=concurrency + beyond,
            policy=replace(POLICY, breaker=breaker),
        )
        self.handler.concurrency = concurrency
        self._send("a", plans)
        self._start()

    @rule(session=st.sampled_from(["a", "a", "b", "c"]), plans=st.lists(PLANS, min_size=1, max_size=3))
    def send(self, session: str, plans: list[list[str]]) -> None:
        self._send(session, plans)
        self.meeting.meet()

    @rule(seconds=st.sampled_from([0.5, 2.0, 5.0, 16.0, LEASE]))
    def time_passes(self, seconds: float) -> None:
        self.meeting.let_pass(seconds)

    @rule(which=st.integers(0, 3))
    def a_handler_is_let_go(self, which: int) -> None:
        held = self._held()
        if held:
            self.handler.let_go([held[which % len(held)]])
            self.meeting.meet()

    @rule(data=st.data(), operation=st.sampled_from(sorted(WEATHER)), times=st.integers(1, 3))
    def the_broker_fails(self, data: st.DataObject, operation: str, times: int) -> None:
        name = data.draw(st.sampled_from(sorted(WEATHER[operation])))
        calls = {"fetch": FETCH, "settle": SETTLE}.get(operation, {})
        called = calls.get(self.queue) or ("session.renew" if self.queue == "sessions" else "renew")
        step = WEATHER[operation][name]
        if called == "session.renew" and name == "not held":
            step = fails(SessionLeaseLost)
        self.script.then(called, *[step] * times)
        self.calm = False

    @rule(seconds=st.sampled_from([10.0, LEASE + 1.0]))
    def the_broker_renews_nothing(self, seconds: float) -> None:
        for operation in ("renew", "session.renew"):
            self.script.always(operation, fails(Throttled))
        self.meeting.let_pass(seconds)
        for operation in ("renew", "session.renew"):
            self.script.always(operation)
        self.calm = False

    @rule(deadline=st.sampled_from([1.0, 5.0, 25.0]), in_time=st.booleans(), really=st.booleans())
    def it_is_stopped_and_started(self, deadline: float, in_time: bool, really: bool) -> None:
        if really:
            self._stop(deadline, let_go=0.0 if in_time else None)
            self._start()

    @rule(beyond=st.sampled_from([1.5, 2.5]))
    def a_stop_waits_for_handlers_beyond_their_leases(self, beyond: float) -> None:
        if self._held():
            self.script._next.clear()  # the broker renews them
            self._stop(3 * LEASE, let_go=beyond * LEASE)
            self._start()

    @invariant()
    def nothing_went_wrong(self) -> None:
        assert self.handler.wrong == []

    @invariant()
    def nothing_is_lost(self) -> None:
        stored, dead = set(self.stored()), self.dead()
        gone = set(self.sent) - stored - dead
        assert gone <= self.handler.returned
        assert dead <= self.handler.given_up

    @invariant()
    def no_more_is_held_than_may_be(self) -> None:
        now = self.worker.status()
        # For another of their session; elsewhere than on the plain queue that is a handler without its lease.
        waiting = 2 * now.concurrency if self.queue == "plain" else now.handlers
        assert now.held <= now.prefetch + waiting
        assert now.leases <= now.held

    def teardown(self) -> None:
        with self.stack:
            if not hasattr(self, "worker"):
                return
            self.script._next.clear()
            self.handler.plans.clear()
            self.handler.let_go()
            if not self.running:
                return  # its stop has failed, and has said how
            for _ in range(40):
                self.meeting.let_pass(10.0)
                if not self.stored():
                    break
            assert self.stored() == {}
            self.nothing_went_wrong()
            self.nothing_is_lost()
            self._stop(5.0, let_go=0.0)
            runtime = self.client.runtime()
            assert len(runtime.leases) == 0
            assert not runtime.leases._aside
            assert not runtime.leases._under_way
            assert not runtime.executor._lanes
            assert self.queue != "groups" or not runtime.dispatcher(self.queue)._open
        assert set(left_over()) <= self.before

    def stored(self) -> dict[str, tuple[str, int]]:
        """By id, the session and the place of each message of the queue."""
        found = self.provider.peek(self.queue, 1000)
        return {d.message.id: (d.message.session_id or "", d.sequence or 0) for d in found}

    def dead(self) -> set[str]:
        return {delivery.message.id for delivery in self.provider.peek(self.queue + DEAD, 1000)}

    def _send(self, session: str, plans: list[list[str]]) -> None:
        names = [f"m{next(self.numbers)}" for _ in plans]
        self.sent += names
        self.handler.plans.update(zip(names, map(list, plans), strict=True))
        self.provider.send(self.queue, messages(names, session))

    def _start(self) -> None:
        self.handler.life += 1
        self.events.clear()
        self.worker.start()
        self.running = True
        self.meeting.meet()

    def _held(self) -> list[Call]:
        return [call for call in self.handler.running if call.held]

    def _stop(self, deadline: float, *, let_go: float | None) -> None:
        """Stop it; handlers that are held are *let_go* after so many seconds, None: after the deadline."""
        self.running = False
        reports: list[StopReport] = []
        began, before = self.clock.monotonic(), self._ended()
        stopping = threading.Thread(target=lambda: reports.append(self.worker.stop(deadline)))
        mine = [call for call in self._held() if call.life == self.handler.life]
        leased = [call for call in mine if not call.lease.lost]
        stopping.start()
        self.meeting.meet(stopping)
        if let_go is not None:
            self.meeting.let_pass(let_go, stopping)
            assert not any(call.lease.lost for call in leased), "their time is not over"
            self.handler.let_go(mine)
        self.meeting.let_pass(began + deadline + LOOK - self.clock.monotonic(), stopping)
        stopping.join(REAL)
        assert not stopping.is_alive(), "a stop lasts longer than it may"
        assert self.clock.monotonic() <= began + deadline + LOOK
        late = [call for call in mine if call.held]
        self._check_report(reports[0], late, before)
        self.handler.let_go(late)
        self.meeting.let_pass(2.5)  # a settlement that waits for its next try hears then that it is too late
        self._check_balance()

    def _check_report(self, report: StopReport, late: list[Call], before: int) -> None:
        completed, dead = self._of(MessageCompleted), self._of(MessageDeadLettered)
        assert (report.completed, report.dead_lettered) == (completed, dead)
        assert report.finished == completed + dead - before
        assert report.overdue == len(late)
        assert len(report.threads_left) == len(late)
        assert report.in_hand == 0
        assert all(call.lease.lost for call in late)
        if self.calm and not late:
            assert self.client.describe(self.queue).leased == 0
            assert report.unknown == 0
        self.calm = self.calm and not late

    def _check_balance(self) -> None:
        """All that was taken is back."""
        work = self.worker._work
        assert work is not None
        in_hand = work.in_hand
        assert not in_hand._runs
        assert in_hand._out == 0
        assert not in_hand._inside.names()
        assert not in_hand._line._inside
        assert not in_hand._line._behind
        assert in_hand._line.blocked == 0
        assert in_hand._fetchers == 0
        assert self.client.runtime().executor._claimed == 0

    def _ended(self) -> int:
        return self._of(MessageCompleted) + self._of(MessageDeadLettered)

    def _of(self, kind: type[Event]) -> int:
        return sum(type(event) is kind for event in self.events)


TestWorkerModel = WorkerModel.TestCase
TestWorkerModel.settings = sized(150, steps=20)
