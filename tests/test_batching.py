"""Group commit: an idle lane sends at once, a busy one together; everybody is answered, and once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queue_runtime.batching import BatchPolicy, Lane, Load, Parcel, Told
from queue_runtime.clock import Clock, SystemClock
from queue_runtime.errors import (
    ConfigurationError,
    ConnectionFailed,
    Outcome,
    OutcomeUnknown,
    ProviderError,
    QueueError,
)
from queue_runtime.executor import SessionExecutor
from queue_runtime.scheduler import Scheduler
from queue_runtime.testing import FakeClock
from tests.fakes import REAL

Request = Callable[[Sequence[str]], Sequence[Outcome[str]]]


class House:
    """A lane, the requests that were made, and who was told what. Requests wait while the gate is shut."""

    def __init__(self, policy: BatchPolicy, load: Load, clock: Clock) -> None:
        self.scheduler = Scheduler(clock)
        self.carriers = SessionExecutor(16, name="carrier", clock=clock)
        self.open = threading.Event()
        self.open.set()
        self.changed = threading.Condition()
        # guarded by changed
        self.requests: list[list[str]] = []
        self.threads: list[str] = []
        self.told: dict[str, list[Outcome[str]]] = {}
        self.under_way = self.most_under_way = 0
        self.next: Request = lambda items: [Outcome(item) for item in items]
        self.lane: Lane[str, str] = Lane(
            self._request,
            self._answered,
            policy=policy,
            load=load,
            clock=clock,
            scheduler=self.scheduler,
            carriers=self.carriers,
        )

    def add(self, *names: str, here: bool = False, size: int = 0) -> list[Parcel[str]]:
        """A parcel each; "ab" is one of two items."""
        parcels = [Parcel(list(name), size) for name in names]
        self.lane.add(parcels, wanted=(lambda: True) if here else None)
        return parcels

    def meet(self, until: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(until, REAL)

    def close(self) -> None:
        self.open.set()
        self.scheduler.close()
        self.carriers.shutdown()

    def _request(self, items: Sequence[str]) -> Sequence[Outcome[str]]:
        with self.changed:
            self.requests.append(list(items))
            self.threads.append(threading.current_thread().name)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            self.changed.notify_all()
        try:
            assert self.open.wait(REAL)
            return self.next(items)
        finally:
            with self.changed:
                self.under_way -= 1

    def _answered(self, told: Told[str, str], began: float) -> None:
        with self.changed:
            for parcel, outcomes in told:
                for item, outcome in zip(parcel.items, outcomes, strict=True):
                    self.told.setdefault(item, []).append(outcome)
            self.changed.notify_all()


Make = Callable[..., House]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[House] = []

    def house(clock: Clock | None = None, *, items: int = 3, size: int = 0, **policy: Any) -> House:
        made.append(House(BatchPolicy(**policy), Load(items=items, size=size), clock or SystemClock()))
        return made[-1]

    yield house
    for each in made:
        each.close()


def error_of(house: House, item: str) -> QueueError | None:
    (outcome,) = house.told[item]
    return outcome.error


class TestAnIdleLane:
    def test_sends_at_once_on_the_thread_that_calls(self, make: Make) -> None:
        house = make()

        house.add("a", here=True)

        assert house.requests == [["a"]]
        assert house.threads == [threading.current_thread().name]
        assert house.told == {"a": [Outcome("a")]}

    def test_has_a_carrier_send_for_one_that_does_not_wait(self, make: Make) -> None:
        house = make()

        house.add("a")

        house.meet(lambda: "a" in house.told)
        assert house.threads == ["carrier-1"]


class TestABusyLane:
    def test_keeps_what_comes_meanwhile_for_the_next_request(self, make: Make) -> None:
        house = make()
        house.open.clear()
        house.add("a")
        house.meet(lambda: len(house.requests) == 1)

        house.add("b")
        house.add("c")
        house.open.set()

        house.meet(lambda: len(house.told) == 3)
        assert house.requests == [["a"], ["b", "c"]]

    def test_sends_a_full_request_at_once(self, make: Make) -> None:
        house = make()
        house.open.clear()
        house.add("a")
        house.meet(lambda: len(house.requests) == 1)

        house.add("b", "c", "d", "e")

        house.meet(lambda: len(house.requests) == 2)
        assert house.requests == [["a"], ["b", "c", "d"]]

    def test_sends_as_many_partial_ones_as_it_may(self, make: Make) -> None:
        house = make(partial_in_flight=2)
        house.open.clear()

        for count, name in enumerate("ab", 1):
            house.add(name)
            house.meet(lambda count=count: len(house.requests) == count)  # type: ignore[misc]
        house.add("c", "d")
        house.open.set()

        house.meet(lambda: len(house.told) == 4)
        assert house.requests == [["a"], ["b"], ["c", "d"]]

    def test_has_no_more_requests_under_way_than_it_may(self, make: Make) -> None:
        house = make(max_in_flight=2)
        house.open.clear()

        house.add(*"abcdefghijkl")

        house.meet(lambda: len(house.requests) == 2)
        house.open.set()
        house.meet(lambda: len(house.told) == 12)
        assert house.most_under_way == 2
        assert [len(request) for request in house.requests] == [3, 3, 3, 3]

    def test_takes_no_more_bytes_than_a_request_may_have(self, make: Make) -> None:
        house = make(items=10, size=100, max_in_flight=1)
        house.open.clear()
        house.add("a")
        house.meet(lambda: len(house.requests) == 1)

        house.add("b", "c", "d", size=40)
        house.open.set()

        house.meet(lambda: len(house.told) == 4)
        assert house.requests == [["a"], ["b", "c"], ["d"]]

    def test_sends_what_is_larger_than_a_request_alone(self, make: Make) -> None:
        house = make(size=100, max_in_flight=1)
        house.open.clear()
        house.add("a")
        house.meet(lambda: len(house.requests) == 1)

        house.add("b", "c", size=400)
        house.open.set()

        house.meet(lambda: len(house.told) == 3)
        assert house.requests == [["a"], ["b"], ["c"]]

    def test_never_takes_a_parcel_apart(self, make: Make) -> None:
        house = make(max_in_flight=1)
        house.open.clear()
        house.add("a")
        house.meet(lambda: len(house.requests) == 1)

        house.add("bc", "de", "f")
        house.open.set()

        house.meet(lambda: len(house.told) == 6)
        assert house.requests == [["a"], ["b", "c"], ["d", "e", "f"]]


class TestARequestThatIsSlow:
    def test_holds_partial_ones_back_for_a_second_only(self, make: Make) -> None:
        clock = FakeClock()
        house = make(clock)
        house.open.clear()
        house.add("a")
        house.meet(lambda: len(house.requests) == 1)
        house.add("b")
        clock.block_until(1)
        assert house.requests == [["a"]]

        clock.advance(1.0)

        house.meet(lambda: len(house.requests) == 2)
        assert house.requests == [["a"], ["b"]]

    def test_does_not_open_the_way_for_more_than_may_be_under_way(self, make: Make) -> None:
        clock = FakeClock()
        house = make(clock, max_in_flight=1)
        house.open.clear()
        house.add("a")
        house.meet(lambda: len(house.requests) == 1)
        house.add("b")

        clock.advance(5.0)
        house.open.set()

        house.meet(lambda: len(house.told) == 2)
        assert house.most_under_way == 1


class TestAFailure:
    def test_is_told_to_each_with_an_error_of_its_own(self, make: Make) -> None:
        house = make()
        cause = OSError("no route")

        def fails(items: Sequence[str]) -> Sequence[Outcome[str]]:
            raise ConnectionFailed("gone", queue="jobs") from cause

        house.next = fails
        house.add("a", "b", here=True)

        first, second = error_of(house, "a"), error_of(house, "b")
        assert isinstance(first, ConnectionFailed)
        assert isinstance(second, ConnectionFailed)
        assert first is not second
        assert (str(first), first.queue, first.__cause__) == ("gone", "jobs", cause)

    def test_of_the_answer_is_no_silence(self, make: Make) -> None:
        house = make()
        house.next = lambda items: [Outcome("a")]

        house.add("a", "b", here=True)

        assert isinstance(error_of(house, "a"), ProviderError)
        assert "2 entries were asked for, 1 answered" in str(error_of(house, "b"))

    def test_of_the_thread_leaves_nobody_without_an_answer(self, make: Make) -> None:
        house = make()

        def dies(items: Sequence[str]) -> Sequence[Outcome[str]]:
            raise KeyboardInterrupt

        house.next = dies
        with pytest.raises(KeyboardInterrupt):
            house.add("a", "b", here=True)
        house.next = lambda items: [Outcome(item) for item in items]
        house.add("c", here=True)

        assert isinstance(error_of(house, "a"), OutcomeUnknown)
        assert isinstance(error_of(house, "b"), OutcomeUnknown)
        assert error_of(house, "c") is None

    def test_of_the_thread_before_its_request_leaves_nobody_without_an_answer(self, make: Make) -> None:
        house = make(items=1)
        interrupted = patch.object(house.carriers, "submit", side_effect=KeyboardInterrupt)
        with interrupted, pytest.raises(KeyboardInterrupt):
            house.add("a", "b", here=True)
        house.add("c", here=True)

        house.meet(lambda: len(house.told) == 3)
        assert isinstance(error_of(house, "a"), ConnectionFailed)
        assert "not sent" in str(error_of(house, "a"))
        assert [error_of(house, each) for each in "bc"] == [None, None]

    def test_to_find_a_carrier_has_the_caller_carry(self, make: Make) -> None:
        house = make()
        house.carriers.shutdown()

        house.add(*"abcdefg")

        assert sorted(house.told) == list("abcdefg")
        assert set(house.threads) == {threading.current_thread().name}


class TestTakingBack:
    def test_is_not_answered(self, make: Make) -> None:
        house = make()
        house.open.clear()
        house.add("a")
        house.meet(lambda: len(house.requests) == 1)
        (parcel, *_) = house.add("b", "c")

        assert house.lane.withdraw(parcel)
        house.open.set()

        house.meet(lambda: len(house.told) == 2)
        assert house.requests == [["a"], ["c"]]

    def test_is_possible_where_it_was_never_taken(self, make: Make) -> None:
        assert make().lane.withdraw(Parcel(["a"]))

    def test_keeps_it_also_from_who_is_about_to_give_it(self, make: Make) -> None:
        """Its sender has been told that it was not sent."""
        house = make()
        parcel = Parcel(["a"])

        assert house.lane.withdraw(parcel)
        house.lane.add([parcel], wanted=lambda: True)

        assert house.requests == []

    def test_is_too_late_when_it_has_left(self, make: Make) -> None:
        house = make()
        house.open.clear()
        (parcel,) = house.add("a")
        house.meet(lambda: len(house.requests) == 1)

        assert not house.lane.withdraw(parcel)
        house.open.set()
        house.meet(lambda: "a" in house.told)


@pytest.mark.parametrize("name", ["max_in_flight", "partial_in_flight", "max_pending"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "8", True])
def test_a_policy_is_of_whole_numbers(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"batching\.{name} must be a whole number from 1 on"):
        BatchPolicy(**{name: value})


def test_a_policy_sends_no_more_partial_requests_than_requests() -> None:
    with pytest.raises(ConfigurationError, match="at most max_in_flight"):
        BatchPolicy(max_in_flight=2, partial_in_flight=3)


@settings(max_examples=40, deadline=None)
@given(
    threads=st.integers(1, 12),
    parcels=st.lists(st.integers(1, 4), min_size=1, max_size=40),
    items=st.integers(4, 10),
    size=st.integers(4, 12),
    in_flight=st.integers(1, 4),
    fails=st.sets(st.integers(0, 12)),
    here=st.booleans(),
)
def test_all_are_answered_once_and_no_request_is_too_large(
    threads: int,
    parcels: list[int],
    items: int,
    size: int,
    in_flight: int,
    fails: set[int],
    here: bool,
) -> None:
    house = House(BatchPolicy(max_in_flight=in_flight), Load(items=items, size=size), SystemClock())
    calls = iter(range(1000))

    def sometimes(chosen: Sequence[str]) -> Sequence[Outcome[str]]:
        if next(calls) in fails:
            raise ConnectionFailed("scripted")
        return [Outcome(item) for item in chosen]

    house.next = sometimes
    names = [[f"{number}.{item}" for item in range(count)] for number, count in enumerate(parcels)]

    def give(mine: Sequence[Sequence[str]]) -> None:
        for each in mine:
            house.lane.add([Parcel(each, len(each))], wanted=(lambda: True) if here else None)

    try:
        with ThreadPoolExecutor(threads) as crew:
            for _ in crew.map(give, [names[start::threads] for start in range(threads)]):
                pass
        house.meet(lambda: len(house.told) == sum(parcels))
    finally:
        house.close()

    assert all(len(outcomes) == 1 for outcomes in house.told.values())
    assert sorted(item for request in house.requests for item in request) == sorted(house.told)
    assert all(len(request) <= min(items, size) for request in house.requests)
    assert house.most_under_way <= in_flight
