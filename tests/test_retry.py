"""When a call to the broker is made again: decisions, without a thread or a clock in sight."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_runtime.errors import (
    AuthorizationFailed,
    CircuitOpen,
    Closed,
    ConfigurationError,
    ConnectionFailed,
    MessageTooLarge,
    OperationTimeout,
    OutcomeUnknown,
    ProviderError,
    QueueError,
    QueueNotFound,
    Throttled,
)
from queue_runtime.retry import LONGEST, RetryPolicy, backoff


def highest() -> float:
    return 1 - 1e-12


def lowest() -> float:
    return 0.0


class TestTheBackoff:
    @given(
        attempt=st.integers(1, 10_000),
        base=st.floats(0, 100),
        cap=st.floats(0, 1000),
        floor=st.floats(0, 10),
        chance=st.floats(0, 1, exclude_max=True),
    )
    def test_stays_between_its_floor_and_its_cap(
        self, attempt: int, base: float, cap: float, floor: float, chance: float
    ) -> None:
        delay = backoff(attempt, base=base, cap=cap, floor=floor, random=lambda: chance)

        assert floor <= delay <= floor + cap

    def test_doubles_its_ceiling_with_each_attempt(self) -> None:
        delays = [backoff(n, base=0.1, cap=2.0, floor=0, random=highest) for n in range(1, 8)]

        assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])

    def test_is_spread_from_nothing_to_its_ceiling(self) -> None:
        assert backoff(5, base=0.1, cap=2.0, floor=0, random=lowest) == 0
        assert backoff(5, base=0.1, cap=2.0, floor=0, random=lambda: 0.5) == pytest.approx(0.8)


class TestThePolicy:
    @pytest.mark.parametrize("error", [Throttled, ConnectionFailed, OperationTimeout, OutcomeUnknown])
    def test_asks_again_after_an_error_that_may_pass(self, error: type[QueueError]) -> None:
        assert RetryPolicy().delay(1, error("x"), 0, highest) == pytest.approx(0.1)

    @pytest.mark.parametrize(
        "error",
        [
            ProviderError,
            QueueNotFound,
            AuthorizationFailed,
            MessageTooLarge,
            ConfigurationError,
            CircuitOpen,
            Closed,
        ],
    )
    def test_does_not_after_any_other(self, error: type[QueueError]) -> None:
        assert RetryPolicy().delay(1, error("x"), 0, lowest) is None

    def test_counts_the_first_try(self) -> None:
        policy = RetryPolicy(max_attempts=3)
        asked = [policy.delay(n, Throttled("x"), 0, lowest) is not None for n in (1, 2, 3, 4)]

        assert asked == [True, True, False, False]

    def test_of_one_attempt_never_asks_again(self) -> None:
        assert RetryPolicy(max_attempts=1).delay(1, Throttled("x"), 0, lowest) is None

    def test_starts_no_retry_past_its_time_limit(self) -> None:
        policy = RetryPolicy(base=1, cap=1, time_limit=8)

        assert policy.delay(2, Throttled("x"), 6.9, highest) is not None
        assert policy.delay(2, Throttled("x"), 7.5, highest) is None
        assert policy.delay(2, Throttled("x"), 8.0, lowest) is None

    def test_waits_as_long_as_the_broker_asks_for_if_that_is_longer(self) -> None:
        policy = RetryPolicy(base=1, cap=1, time_limit=8)

        assert policy.delay(1, Throttled("x", retry_after=3.0), 0, highest) == 3.0
        assert policy.delay(1, Throttled("x", retry_after=0.5), 0, highest) == pytest.approx(1.0)
        assert policy.delay(1, Throttled("x", retry_after=0.0), 0, lowest) == 0.0

    def test_gives_up_where_the_broker_asks_for_more_time_than_is_left(self) -> None:
        policy = RetryPolicy(time_limit=8)

        assert policy.delay(1, Throttled("x", retry_after=7.9), 0, lowest) == 7.9
        assert policy.delay(1, Throttled("x", retry_after=8.0), 0, lowest) is None
        assert policy.delay(1, OutcomeUnknown("x", retry_after=3.0), 5.5, lowest) is None

    def test_does_not_retry_what_will_not_pass_because_of_it(self) -> None:
        assert RetryPolicy().delay(1, AuthorizationFailed("x", retry_after=0.1), 0, lowest) is None

    @given(
        attempt=st.integers(1, 10),
        retry_after=st.none() | st.floats(0, 1e6),
        elapsed=st.floats(0, 300),
        chance=st.floats(0, 1, exclude_max=True),
        policy=st.builds(
            RetryPolicy,
            max_attempts=st.integers(1, 10),
            base=st.floats(0, 10),
            cap=st.floats(0, 100),
            time_limit=st.floats(0, LONGEST),
        ),
    )
    def test_never_exceeds_its_limits_nor_comes_earlier_than_asked(
        self, attempt: int, retry_after: float | None, elapsed: float, chance: float, policy: RetryPolicy
    ) -> None:
        delay = policy.delay(attempt, Throttled("x", retry_after=retry_after), elapsed, lambda: chance)

        if delay is not None:
            assert attempt < policy.max_attempts
            assert elapsed + delay < policy.time_limit
            assert (retry_after or 0.0) <= delay <= max(policy.cap, retry_after or 0.0)

    def test_lets_a_webhook_answer_in_time_by_default(self) -> None:
        policy, elapsed = RetryPolicy(), 0.0

        for attempt in range(1, 20):
            delay = policy.delay(attempt, Throttled("x"), elapsed, highest)
            if delay is None:
                break
            elapsed += delay

        assert elapsed < 8

    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            ("max_attempts", 0),
            ("base", -1),
            ("cap", float("inf")),
            ("time_limit", float("nan")),
            ("max_attempts", True),
            ("max_attempts", "5"),
            ("max_attempts", 5.0),
            ("base", "0.1"),
            ("cap", None),
            ("time_limit", False),
            ("time_limit", 240.1),
        ],
    )
    def test_refuses_settings_out_of_range_by_their_name(self, setting: str, value: Any) -> None:
        with pytest.raises(ConfigurationError, match=rf"retry\.{setting} .* {value!r}"):
            RetryPolicy(**{setting: value})

    def test_takes_whole_numbers_of_seconds_too(self) -> None:
        assert RetryPolicy(base=1, cap=2, time_limit=240).time_limit == 240

    def test_is_frozen(self) -> None:
        with pytest.raises(AttributeError):
            RetryPolicy().max_attempts = 1  # type: ignore[misc]
