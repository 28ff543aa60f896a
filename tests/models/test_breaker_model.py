"""The breaker against a plain list of all calls: its state, what it lets through, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, field
from unittest.mock import patch

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from queue_runtime import breaker as breaker_module
from queue_runtime.breaker import BreakerPolicy, CircuitBreaker, State
from tests.models.sizes import sized, unhurried

pytestmark = unhurried

REMEMBERED = 6
"""Calls that the breaker remembers here, so that histories are long enough to reach that bound."""

POLICIES = st.builds(
    BreakerPolicy,
    failure_rate=st.sampled_from([0.25, 0.5, 0.75, 1.0]),
    minimum_calls=st.integers(1, 4),
    window=st.sampled_from([1.0, 2.0, 4.0, 100.0]),
    open_for=st.sampled_from([2.0, 5.0]),
    probes=st.integers(1, 3),
)


@dataclass
class Judge:
    """What should be true, found from everything that has ever happened since the last change of state."""

    policy: BreakerPolicy
    now: float = 1000.0
    opened: float | None = None
    """When it last opened; None while it is closed."""
    closed: float = float("-inf")
    ends: list[tuple[float, bool]] = field(default_factory=list)
    """While it is closed: when each call ended, and whether it failed."""
    round_began: float = float("-inf")
    """While it is half-open: when the last probes were asked for."""
    probing: int = 0
    """Of those, the ones that nobody has heard of yet."""
    passed: int = 0

    def state(self) -> State:
        if self.opened is None:
            return "closed"
        return "half-open" if self.now >= self.opened + self.policy.open_for else "open"

    def refused_until(self) -> float | None:
        """What `admit` should answer; notes the probe that it lets through."""
        if self.opened is None:
            return None
        if self.state() == "open":
            return self.opened + self.policy.open_for
        if self.now >= self.round_began + self.policy.open_for:
            self.round_began, self.probing = self.now, 0
        if self.probing + self.passed >= self.policy.probes:
            return self.round_began + self.policy.open_for
        self.probing += 1
        return None

    def ended(self, started: float, failed: bool) -> State | None:
        """What `record` should answer."""
        if self.opened is not None:
            if started < self.opened + self.policy.open_for:
                return None
            return self._probe_ended(failed)
        if started < self.closed:
            return None
        self.ends.append((self.now, failed))
        judged = [failed for at, failed in self.ends if at > self.now - self.policy.window][-REMEMBERED:]
        if len(judged) < self.policy.minimum_calls or sum(judged) / len(judged) < self.policy.failure_rate:
            return None
        return self._open()

    def _probe_ended(self, failed: bool) -> State | None:
        if failed:
            return self._open()
        self.probing = max(0, self.probing - 1)  # one that was given up meanwhile is as good as any
        self.passed += 1
        if self.passed < self.policy.probes:
            return None
        self.opened, self.closed = None, self.now
        self._begin_anew()
        return "closed"

    def _open(self) -> State:
        self.opened = self.now
        self._begin_anew()
        return "open"

    def _begin_anew(self) -> None:
        self.ends, self.round_began, self.probing, self.passed = [], float("-inf"), 0, 0


class BreakerModel(RuleBasedStateMachine):
    """Calls are admitted, end well or badly, or are never heard of again, while time goes on."""

    def __init__(self) -> None:
        super().__init__()
        self._patch = patch.object(breaker_module, "MAX_CALLS", REMEMBERED)
        self._patch.start()
        self.under_way: list[float] = []
        self.let_through_since: list[float] = []

    @initialize(policy=POLICIES)
    def begin(self, policy: BreakerPolicy) -> None:
        self.judge = Judge(policy)
        self.breaker = CircuitBreaker(policy)

    @rule(many=st.integers(1, 4))
    def calls_come(self, many: int) -> None:
        for _ in range(many):
            expected = self.judge.refused_until()
            half_open = self.judge.state() == "half-open"

            assert self.breaker.admit(self.judge.now) == expected

            if expected is None:
                self.under_way.append(self.judge.now)
                if half_open:
                    self.let_through_since.append(self.judge.now)

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 30), failed=st.booleans(), many=st.integers(1, 4))
    def calls_end(self, which: int, failed: bool, many: int) -> None:
        for _ in range(min(many, len(self.under_way))):
            started = self.under_way.pop(which % len(self.under_way))
            expected = self.judge.ended(started, failed)

            assert self.breaker.record(self.judge.now, started=started, failed=failed) == expected

            if expected is not None:
                self.let_through_since.clear()

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 30))
    def a_call_is_never_heard_of_again(self, which: int) -> None:
        self.under_way.pop(which % len(self.under_way))

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.judge.now += seconds

    @invariant()
    def it_says_the_state_it_is_in(self) -> None:
        assert self.breaker.state(self.judge.now) == self.judge.state()

    @invariant()
    def a_broker_that_is_down_sees_few_probes(self) -> None:
        """However many callers there are: so many in each `open_for` seconds."""
        policy, now = self.judge.policy, self.judge.now
        recent = [at for at in self.let_through_since if at > now - policy.open_for]
        assert len(recent) <= 2 * policy.probes

    @invariant()
    def it_keeps_no_more_than_it_judges_by(self) -> None:
        assert len(self.breaker._calls) <= REMEMBERED

    def teardown(self) -> None:
        self._patch.stop()
        if not hasattr(self, "judge"):
            return
        # Whatever has happened, calls that go well close it in the end.
        for _ in range(3 * self.judge.policy.probes):
            if self.breaker.state(self.judge.now) == "closed":
                return
            self.judge.now += self.judge.policy.open_for
            if self.breaker.admit(self.judge.now) is None:
                self.breaker.record(self.judge.now, started=self.judge.now, failed=False)
        assert self.breaker.state(self.judge.now) == "closed"


TestBreakerModel = BreakerModel.TestCase
TestBreakerModel.settings = sized(300, steps=40)
