"""The rules of retrying, without a thread in sight."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from queue_runtime.errors import ConfigurationError, DecodeError
from queue_runtime.message import Delivery, Message
from queue_runtime.worker.handling import Reject, Retry
from queue_runtime.worker.policy import FLOOR_IN_PLACE, HandlerPolicy
from queue_runtime.worker.verdict import (
    FLOOR_GIVEN_BACK,
    MAX_TRACEBACK,
    Done,
    Drop,
    GiveBack,
    GiveUp,
    RetryIn,
    Verdict,
    before_handler,
    instead_of_dead_lettering,
    is_trouble,
    text_of,
    verdict,
)

POLICY = HandlerPolicy(max_attempts=3, base=2.0, cap=3.0)
DELIVERY = Delivery(
    message=Message(body=b"{}"),
    receipt="r",
    broker_id="b",
    delivery_count=1,
    sequence=1,
    enqueued_at=None,
    leased_until=0.0,
    lease=30.0,
)


def judge(
    error: BaseException | None,
    attempt: int = 1,
    policy: HandlerPolicy = POLICY,
    *,
    held: float | None = None,
    down: int = 0,
    luck: float = 1.0,
) -> Verdict:
    """*held* is given for one that is retried in its place."""
    in_place = held is not None
    return verdict(
        error, attempt, policy, held=held or 0.0, in_place=in_place, down=down, random=lambda: luck
    )


def test_returning_completes() -> None:
    assert judge(None) == Done()


@pytest.mark.parametrize(("attempt", "delay"), [(1, 3.0), (2, 4.0)])
def test_an_error_is_tried_again_after_a_growing_backoff_up_to_the_cap(attempt: int, delay: float) -> None:
    assert judge(ValueError(), attempt) == RetryIn(delay)


def test_the_backoff_has_full_jitter_above_a_floor() -> None:
    assert judge(ValueError(), luck=0.75) == RetryIn(FLOOR_GIVEN_BACK + 1.5)
    assert judge(ValueError(), luck=0.0) == RetryIn(FLOOR_GIVEN_BACK)
    assert judge(ValueError(), luck=0.0, held=0.0) == RetryIn(FLOOR_IN_PLACE)


def test_the_last_attempt_gives_up_and_says_why() -> None:
    try:
        raise ValueError("no such branch")
    except ValueError as error:
        end = judge(error, attempt=3)

    assert isinstance(end, GiveUp)
    assert (end.reason, end.description, end.exception) == (
        "MaxAttemptsExceeded",
        "no such branch",
        "ValueError",
    )
    assert end.traceback is not None
    assert end.traceback.endswith("ValueError: no such branch\n")


def test_a_long_traceback_keeps_its_end() -> None:
    end = judge(ValueError("x" * 10_000), attempt=3)

    assert isinstance(end, GiveUp)
    assert end.traceback is not None
    assert len(end.traceback) == MAX_TRACEBACK
    assert end.traceback.endswith("x\n")


def test_retry_asks_for_its_delay_and_is_an_attempt_like_any_other() -> None:
    assert judge(Retry(7.0)) == RetryIn(7.0)
    assert judge(Retry()) == RetryIn(3.0)
    assert isinstance(judge(Retry(7.0), attempt=3), GiveUp)


def test_a_message_holds_up_its_session_no_longer_than_max_hold() -> None:
    assert judge(Retry(POLICY.max_hold - 10.0), held=10.0) == RetryIn(POLICY.max_hold - 10.0)

    end = judge(Retry(POLICY.max_hold), held=10.0)

    assert isinstance(end, GiveUp)
    assert end.reason == "MaxHoldExceeded"


def test_an_exception_that_cannot_say_what_it_is_is_judged_all_the_same() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    end = judge(MuteError(), attempt=3)

    assert isinstance(end, GiveUp)
    assert "RuntimeError" in str(end.description)
    assert text_of(MuteError()) == end.description


@pytest.mark.parametrize("delay", [-1.0, float("nan"), float("inf")])
def test_an_impossible_delay_is_refused_where_it_is_written(delay: float) -> None:
    with pytest.raises(ValueError, match="delay"):
        Retry(delay)


def test_reject_gives_up_at_once_with_its_reason() -> None:
    assert judge(Reject("Spam", "from a bot")) == GiveUp(reason="Spam", description="from a bot")


def test_a_body_that_cannot_be_decoded_is_poison() -> None:
    end = judge(DecodeError("payload.number: missing"))

    assert isinstance(end, GiveUp)
    assert (end.reason, end.description) == ("DecodeError", "payload.number: missing")


def test_a_permanent_exception_does_not_wait_for_the_last_attempt() -> None:
    end = judge(KeyError("x"), policy=replace(POLICY, permanent=(LookupError,)))

    assert isinstance(end, GiveUp)
    assert end.reason == "KeyError"


def test_even_an_exit_from_a_handler_is_an_attempt() -> None:
    assert isinstance(judge(SystemExit(1)), RetryIn)


class TestBeforeTheHandler:
    def test_what_has_been_handed_out_too_often_does_not_run(self) -> None:
        limit = POLICY.delivery_limit

        assert before_handler(replace(DELIVERY, delivery_count=limit), 1, 0, POLICY) is None
        end = before_handler(replace(DELIVERY, delivery_count=limit + 1), 1, 0, POLICY)

        assert end is not None
        assert end.reason == "MaxDeliveriesExceeded"

    def test_one_that_came_behind_others_is_not_blamed_for_their_failures(self) -> None:
        assert before_handler(replace(DELIVERY, delivery_count=1000, follows=True), 1, 0, POLICY) is None

    def test_deliveries_that_say_nothing_against_it_do_not_count(self) -> None:
        often = replace(DELIVERY, delivery_count=POLICY.delivery_limit + 7)

        assert before_handler(often, 1, 7, POLICY) is None
        assert before_handler(often, 1, 6, POLICY) is not None

    def test_one_whose_last_attempt_never_came_to_its_end_has_had_them_all(self) -> None:
        assert before_handler(DELIVERY, 3, 0, POLICY) is None

        end = before_handler(DELIVERY, 4, 0, POLICY)

        assert end is not None
        assert end.reason == "MaxAttemptsExceeded"
        assert before_handler(DELIVERY, 4, 0, replace(POLICY, on_exhausted="block")) is None


class TestWhatIsDown:
    POLICY = replace(POLICY, downstream=(ConnectionError,))

    def test_is_no_attempt_whatever_its_number(self) -> None:
        assert judge(ConnectionResetError(), attempt=3, policy=self.POLICY) == RetryIn(2.1, counted=False)

    def test_is_waited_for_longer_each_time_up_to_the_cap(self) -> None:
        assert judge(ConnectionError(), policy=self.POLICY, down=1) == RetryIn(3.1, counted=False)

    def test_goes_back_when_it_has_been_held_for_long_enough(self) -> None:
        held = self.POLICY.max_hold

        assert judge(ConnectionError(), policy=self.POLICY, held=held) == GiveBack(2.1, counted=False)

    def test_is_not_what_the_policy_calls_permanent(self) -> None:
        policy = replace(self.POLICY, permanent=(ConnectionRefusedError,))

        assert isinstance(judge(ConnectionRefusedError(), policy=policy), GiveUp)


class TestInsteadOfDeadLettering:
    END = GiveUp(reason="Spam")

    def test_by_default_there_is_nothing(self) -> None:
        assert instead_of_dead_lettering(self.END, POLICY, held=0.0, in_place=True) is self.END

    def test_it_is_dropped_where_the_policy_says_so(self) -> None:
        policy = replace(POLICY, on_exhausted="drop")

        assert instead_of_dead_lettering(self.END, policy, held=0.0, in_place=False) == Drop(self.END)

    def test_it_blocks_its_session_from_its_place_and_then_from_the_queue(self) -> None:
        policy = replace(POLICY, on_exhausted="block")

        assert instead_of_dead_lettering(self.END, policy, held=0.0, in_place=True) == RetryIn(policy.cap)
        assert instead_of_dead_lettering(self.END, policy, held=policy.max_hold, in_place=True) == GiveBack(
            policy.cap
        )
        assert instead_of_dead_lettering(self.END, policy, held=0.0, in_place=False) == GiveBack(policy.cap)


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (None, False),
        (ValueError(), True),
        (ConnectionError(), True),
        (KeyError(), False),
        (Reject("Spam"), False),
        (Retry(), None),
        (DecodeError("x"), None),
        (SystemExit(), True),
    ],
)
def test_only_what_may_be_everybodys_is_trouble(error: BaseException | None, trouble: bool | None) -> None:
    policy = replace(POLICY, downstream=(ConnectionError,), permanent=(KeyError,))

    assert is_trouble(error, policy) is trouble


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"max_attempts": 0}, "max_attempts"),
        ({"base": -1.0}, "base"),
        ({"cap": float("nan")}, "cap"),
        ({"max_deliveries": 2}, "max_deliveries"),
        ({"max_hold": 10.0, "max_attempts": 9}, "max_hold"),
        ({"permanent": [ValueError]}, "permanent"),
        ({"permanent": (KeyboardInterrupt,)}, "permanent"),
        ({"downstream": ConnectionError}, "downstream"),
        ({"time_limit": 0.0}, "time_limit"),
        ({"time_limit": float("inf")}, "time_limit"),
        ({"on_exhausted": "ignore"}, "on_exhausted"),
        ({"breaker": 0.5}, "breaker"),
    ],
)
def test_a_policy_that_cannot_work_is_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        HandlerPolicy(**settings)


@pytest.mark.parametrize("value", [2.5, "3", True])
@pytest.mark.parametrize("name", ["max_attempts", "max_deliveries"])
def test_what_is_counted_is_a_whole_number(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} must be a whole number .*, it is {value!r}$"):
        HandlerPolicy(**{name: value})


@pytest.mark.parametrize("value", ["x", "1.0", True, float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["base", "cap", "max_hold", "time_limit"])
def test_what_is_seconds_is_a_number(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} must be a number of seconds .*, it is {value!r}$"):
        HandlerPolicy(**{name: value})
