"""The breaker: it opens at a rate, lets one probe through, and is not fooled by late results."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_runtime.breaker import MAX_CALLS, BreakerPolicy, CircuitBreaker
from queue_runtime.errors import ConfigurationError

POLICY = BreakerPolicy(failure_rate=0.5, minimum_calls=10, window=30.0, open_for=5.0)


def breaker(policy: BreakerPolicy = POLICY) -> CircuitBreaker:
    return CircuitBreaker(policy)


def opened(at: float = 0.0) -> CircuitBreaker:
    found = breaker()
    for _ in range(10):
        found.record(at, started=at, failed=True)
    assert found.state(at) == "open"
    return found


class TestClosed:
    def test_lets_everything_through(self) -> None:
        assert [breaker().admit(now) for now in (0.0, 1.0, 1e9)] == [None, None, None]

    def test_opens_when_enough_calls_have_failed(self) -> None:
        found = breaker()
        changes = [found.record(1.0, started=0.5, failed=n % 2 == 0) for n in range(10)]

        assert changes == [None] * 9 + ["open"]
        assert found.admit(1.0) == 6.0

    def test_does_not_judge_by_few_calls(self) -> None:
        found = breaker()

        assert [found.record(1.0, started=0.5, failed=True) for _ in range(9)] == [None] * 9
        assert found.state(1.0) == "closed"

    def test_counts_the_rate_and_not_a_run(self) -> None:
        found = breaker()
        for _ in range(30):
            found.record(1.0, started=0.5, failed=False)
        run_of_failures = [found.record(2.0, started=1.5, failed=True) for _ in range(29)]

        assert run_of_failures == [None] * 29
        assert found.record(2.0, started=1.5, failed=True) == "open"

    def test_opens_at_ninety_percent_although_a_run_never_gets_long(self) -> None:
        found = breaker(BreakerPolicy(minimum_calls=10, failure_rate=0.9))
        changes = [found.record(1.0, started=0.5, failed=n % 10 != 0) for n in range(10)]

        assert changes[-1] == "open"

    def test_forgets_what_left_the_window(self) -> None:
        found = breaker()
        for _ in range(9):
            found.record(0.0, started=0.0, failed=True)

        assert found.record(30.0, started=29.0, failed=True) is None
        assert found.state(30.0) == "closed"

    def test_remembers_a_bounded_number_of_calls_the_newest(self) -> None:
        found = breaker()
        for _ in range(5 * MAX_CALLS):
            found.record(1.0, started=0.5, failed=False)
        changes = [found.record(2.0, started=1.5, failed=True) for _ in range(MAX_CALLS // 2)]

        assert changes[:-1] == [None] * (MAX_CALLS // 2 - 1)
        assert changes[-1] == "open"


class TestOpen:
    def test_refuses_until_its_time(self) -> None:
        found = opened(at=100.0)

        assert [found.admit(now) for now in (100.0, 102.0, 104.9)] == [105.0, 105.0, 105.0]

    def test_is_not_moved_by_the_results_of_calls_that_began_before(self) -> None:
        found = opened(at=100.0)

        assert found.record(101.0, started=99.0, failed=True) is None
        assert found.record(101.0, started=99.0, failed=False) is None
        assert (found.state(104.9), found.admit(104.9)) == ("open", 105.0)


class TestHalfOpen:
    def test_lets_one_call_through(self) -> None:
        found = opened(at=0.0)

        assert found.state(5.0) == "half-open"
        assert found.admit(5.0) is None
        assert [found.admit(now) for now in (5.0, 7.0, 9.9)] == [10.0, 10.0, 10.0]

    def test_closes_when_the_probe_goes_well(self) -> None:
        found = opened(at=0.0)
        found.admit(5.0)

        assert found.record(6.0, started=5.0, failed=False) == "closed"
        assert (found.state(6.0), found.admit(6.0)) == ("closed", None)

    def test_opens_again_when_the_probe_fails(self) -> None:
        found = opened(at=0.0)
        found.admit(5.0)

        assert found.record(6.0, started=5.0, failed=True) == "open"
        assert found.admit(6.0) == 11.0
        assert found.admit(11.0) is None

    def test_lets_another_through_when_the_probe_never_reports(self) -> None:
        found = opened(at=0.0)
        found.admit(5.0)

        assert found.admit(10.0) is None
        assert found.admit(10.0) == 15.0

    def test_is_not_closed_by_a_late_success_of_a_call_from_before_it_opened(self) -> None:
        found = opened(at=10.0)
        found.admit(15.0)

        assert found.record(16.0, started=9.0, failed=False) is None
        assert found.admit(16.0) == 20.0

    def test_a_probe_that_reports_after_it_was_given_up_still_says_how_the_broker_is(self) -> None:
        found = opened(at=0.0)
        found.admit(5.0)
        found.admit(10.0)

        assert found.record(11.0, started=5.0, failed=False) == "closed"


class TestSeveralProbes:
    def opened(self, probes: int) -> CircuitBreaker:
        found = breaker(BreakerPolicy(minimum_calls=1, open_for=5.0, probes=probes))
        found.record(0.0, started=0.0, failed=True)
        return found

    def test_are_let_through_beside_each_other_and_no_more(self) -> None:
        found = self.opened(3)

        assert [found.admit(5.0) for _ in range(5)] == [None, None, None, 10.0, 10.0]

    def test_close_it_when_all_have_gone_well(self) -> None:
        found = self.opened(3)
        for _ in range(3):
            found.admit(5.0)

        changes = [found.record(6.0, started=5.0, failed=False) for _ in range(3)]

        assert changes == [None, None, "closed"]

    def test_make_room_for_no_more_than_are_missing(self) -> None:
        found = self.opened(3)
        found.admit(5.0)
        found.record(6.0, started=5.0, failed=False)

        assert [found.admit(7.0) for _ in range(3)] == [None, None, 10.0]

    def test_open_it_again_when_one_fails_and_count_anew(self) -> None:
        found = self.opened(2)
        found.admit(5.0)
        found.admit(5.0)
        found.record(6.0, started=5.0, failed=False)

        assert found.record(6.0, started=5.0, failed=True) == "open"
        assert found.admit(10.9) == 11.0
        assert [found.admit(11.0) for _ in range(3)] == [None, None, 16.0]
        assert found.record(12.0, started=11.0, failed=False) is None

    def test_that_never_report_are_given_up(self) -> None:
        found = self.opened(2)
        found.admit(5.0)
        found.admit(5.0)
        found.record(6.0, started=5.0, failed=False)

        assert found.admit(9.9) == 10.0
        assert [found.admit(10.0) for _ in range(2)] == [None, 15.0]


class TestClosedAgain:
    def test_starts_with_an_empty_window(self) -> None:
        found = opened(at=0.0)
        found.admit(5.0)
        found.record(5.5, started=5.0, failed=False)

        assert [found.record(6.0, started=5.8, failed=True) for _ in range(9)] == [None] * 9

    def test_is_not_opened_by_late_failures_of_calls_from_before(self) -> None:
        found = opened(at=0.0)
        found.admit(5.0)
        found.record(5.5, started=5.0, failed=False)

        changes = [found.record(30.0, started=-1.0, failed=True) for _ in range(50)]

        assert changes == [None] * 50
        assert found.state(30.0) == "closed"


class TestSharedByThreads:
    def test_admits_one_probe_however_many_ask(self) -> None:
        found, admitted = opened(at=0.0), []
        line_up = threading.Barrier(8)

        def ask() -> None:
            line_up.wait(timeout=10)
            admitted.append(found.admit(5.0))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=10)

        assert sorted(admitted, key=str) == [10.0] * 7 + [None]


class TestAnyHistory:
    @given(
        st.lists(st.tuples(st.floats(0, 20), st.floats(0, 40), st.booleans()), max_size=200),
        st.integers(1, 20),
        st.integers(1, 5),
    )
    def test_leaves_it_in_one_of_its_states_and_never_shut_for_longer_than_it_may(
        self, steps: list[tuple[float, float, bool]], minimum_calls: int, probes: int
    ) -> None:
        found, now = breaker(BreakerPolicy(minimum_calls=minimum_calls, probes=probes)), 0.0

        for passed, age, failed in steps:
            now += passed
            found.record(now, started=now - age, failed=failed)
            refused_until = found.admit(now)

            assert found.state(now) in ("closed", "open", "half-open")
            assert refused_until is None or now < refused_until <= now + 5.0


class TestThePolicy:
    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            ("failure_rate", 0),
            ("failure_rate", 1.1),
            ("minimum_calls", 0),
            ("minimum_calls", MAX_CALLS + 1),
            ("window", 0),
            ("window", float("inf")),
            ("open_for", float("nan")),
            ("probes", 0),
            ("probes", True),
            ("minimum_calls", "10"),
            ("minimum_calls", 10.0),
            ("failure_rate", True),
            ("window", "30"),
            ("open_for", None),
        ],
    )
    def test_refuses_settings_out_of_range_by_their_name(self, setting: str, value: Any) -> None:
        with pytest.raises(ConfigurationError, match=rf"breaker\.{setting} .* {value!r}"):
            BreakerPolicy(**{setting: value})

    def test_is_frozen(self) -> None:
        with pytest.raises(AttributeError):
            BreakerPolicy().probes = 2  # type: ignore[misc]
