"""Sessions are opened beside each other, as many as are wanted, and what nobody takes goes back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from queue_runtime.errors import Closed, ConnectionFailed, QueueError
from queue_runtime.providers.servicebus.openings import AHEAD, LONGEST, OPENING, UNTAKEN, Openings
from queue_runtime.providers.servicebus.tasks import Tasks
from queue_runtime.scheduler import Scheduler
from queue_runtime.testing import FakeClock


class Session:
    """Knows whether it was let go."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


class House:
    """A service that opens a session when it is told to, and what `Openings` needs of a `Connector`."""

    def __init__(self, openings: int = 8) -> None:
        self.clock = FakeClock()
        self.options = self
        self.openings = openings
        self.opening = Tasks("open", openings, self.clock)
        self._scheduler = Scheduler(self.clock)
        self._changed = threading.Condition()
        self._answers: list[Session | QueueError | None] = []
        self._numbers = 0
        self.waiting: list[float] = []  # the waits of openings that stand at the service
        self.most_at_once = 0
        self.under_test = Openings(cast(Any, self._open), cast(Any, self))

    def later(self, delay: float, action: Callable[[], object]) -> None:
        def submit() -> None:
            self.opening.submit(action)

        self._scheduler.call_later(delay, submit)

    def brings(self, *, error: QueueError | None = None, nothing: bool = False, count: int = 1) -> None:
        """Answer so many openings."""
        with self._changed:
            for _ in range(count):
                self._numbers += 1
                self._answers.append(error or (None if nothing else Session(self._numbers)))
            self._changed.notify_all()

    def stand(self, count: int) -> None:
        """Wait until so many openings stand at the service."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.waiting) == count, 5.0), self.waiting

    def rest(self) -> None:
        """Wait until no opening is under way, and what came is ready."""
        with self.under_test._changed:
            assert self.under_test._changed.wait_for(lambda: not self.under_test._began, 5.0)

    def accept(self, most: int, wait: float, cancelled: Callable[[], bool] = lambda: False) -> Call:
        return Call(lambda: cast(list[Session], self.under_test.accept(most, wait, cancelled)))

    def close(self) -> None:
        self.under_test.close()
        self.brings(nothing=True, count=100)
        self._scheduler.close()
        self.opening.close(5.0)

    def _open(self, wait: float) -> Session | None:
        with self._changed:
            self.waiting.append(wait)
            self.most_at_once = max(self.most_at_once, len(self.waiting))
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: bool(self._answers), 10.0)
            self.waiting.remove(wait)
            answer = self._answers.pop(0)
            self._changed.notify_all()
        if isinstance(answer, QueueError):
            raise answer
        return answer


class Call:
    """An accept on a thread of its own."""

    def __init__(self, work: Callable[[], list[Session]]) -> None:
        self._work = work
        self._answer: list[Session] | None = None
        self._error: QueueError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def waits(self) -> bool:
        self._thread.join(0.05)
        return self._thread.is_alive()

    def result(self) -> list[Session]:
        self._thread.join(5.0)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error
        return self._answer or []

    def _run(self) -> None:
        try:
            self._answer = self._work()
        except QueueError as exc:
            self._error = exc


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.close()


def test_one_stands_at_an_empty_queue_however_many_are_wanted(house: House) -> None:
    call = house.accept(8, 30.0)
    house.stand(1)
    for _ in range(3):
        house.brings(nothing=True)
        house.stand(1)

    house.brings()

    assert len(call.result()) == 1
    assert house.most_at_once == 1


def rounds(house: House, most: int) -> list[int]:
    """How many stand at the service, round after round, if each brings what is asked of it."""
    standing = []
    for expected in (1, 2, 8, 8):
        call = house.accept(8, 30.0)
        house.stand(min(most, expected))
        standing.append(len(house.waiting))
        house.brings(count=len(house.waiting))
        taken = call.result()
        house.rest()
        while len(taken) < standing[-1]:
            taken += house.accept(8, 0.0).result()
    return standing


def test_twice_as_many_are_opened_whenever_one_has_come(house: House) -> None:
    assert rounds(house, 8) == [1, 2, 8, 8]


def test_no_more_are_opened_than_the_limit_says() -> None:
    house = House(openings=2)

    assert rounds(house, 2) == [1, 2, 2, 2]
    assert house.most_at_once == 2
    house.close()


def test_several_that_are_ready_come_with_one_call(house: House) -> None:
    house.brings()
    house.accept(1, 30.0).result()
    house.brings(count=2)
    first = house.accept(2, 30.0).result()
    house.rest()

    rest = house.accept(3, 0.0).result() if len(first) == 1 else []

    assert sorted(session.number for session in [*first, *rest]) == [2, 3]


def test_an_opening_stands_as_long_as_its_caller_waits_but_not_for_ever(house: House) -> None:
    short = house.accept(1, 3.0)
    house.stand(1)
    assert house.waiting == [3.0]
    house.brings(nothing=True)
    house.clock.advance(3.0 + OPENING)
    short.result()

    house.accept(1, 60.0)
    house.stand(1)
    assert house.waiting == [LONGEST]


def test_none_after_the_wait(house: House) -> None:
    call = house.accept(1, 5.0)
    house.stand(1)

    house.clock.advance(4.9)
    assert call.waits
    house.clock.advance(0.2)

    assert call.result() == []


def test_a_wait_that_is_shorter_than_connecting_is_for_what_was_begun(house: House) -> None:
    call = house.accept(1, 0.0)
    house.stand(1)
    house.clock.advance(OPENING / 2)
    assert call.waits

    house.brings()

    assert len(call.result()) == 1


def test_but_not_for_longer_than_connecting_takes(house: House) -> None:
    call = house.accept(1, 0.0)
    house.stand(1)

    house.clock.advance(OPENING)

    assert call.result() == []


def test_without_a_wait_an_empty_queue_is_asked_once(house: House) -> None:
    call = house.accept(1, 0.0)
    house.stand(1)

    house.brings(nothing=True)

    assert call.result() == []


def test_what_comes_too_late_is_kept_for_the_next(house: House) -> None:
    first = house.accept(1, 1.0)
    house.stand(1)
    house.clock.advance(OPENING)
    assert first.result() == []
    house.brings()
    house.stand(0)

    assert len(house.accept(1, 0.0).result()) == 1


def test_what_nobody_takes_is_let_go(house: House) -> None:
    first = house.accept(1, 1.0)
    house.stand(1)
    house.clock.advance(OPENING)
    first.result()
    session = Session(99)
    with house._changed:
        house._answers.append(session)
        house._changed.notify_all()
    house.stand(0)
    house.clock.block_until(1)

    house.clock.advance(UNTAKEN)

    assert session.closed.wait(5.0)


def test_as_many_are_opened_ahead_as_were_just_handed_out(house: House) -> None:
    house.brings()
    assert len(house.accept(1, 30.0).result()) == 1

    house.accept(1, 30.0)

    house.stand(2)  # one for the caller, one for the place of the session that may be done soon


def test_none_is_opened_ahead_where_sessions_last(house: House) -> None:
    house.brings()
    house.accept(1, 30.0).result()
    house.clock.advance(AHEAD + 0.1)

    call = house.accept(1, 30.0)

    house.stand(1)
    assert call.waits
    assert house.most_at_once == 1


def test_who_is_cancelled_goes_at_once(house: House) -> None:
    over = threading.Event()
    call = house.accept(1, 30.0, over.is_set)
    house.stand(1)

    over.set()
    house.under_test.wake()

    assert call.result() == []


def test_waking_lets_go_what_nobody_waits_for(house: House) -> None:
    first = house.accept(1, 1.0)
    house.stand(1)
    house.clock.advance(OPENING)
    first.result()
    session = Session(99)
    with house._changed:
        house._answers.append(session)
        house._changed.notify_all()
    house.stand(0)
    house.clock.block_until(1)

    house.under_test.wake()

    assert session.closed.is_set()


def test_an_error_is_told_to_who_waits(house: House) -> None:
    call = house.accept(1, 30.0)
    house.stand(1)

    house.brings(error=ConnectionFailed("no way"))

    with pytest.raises(ConnectionFailed, match="no way"):
        call.result()


def test_an_error_of_before_is_not_told_to_the_next(house: House) -> None:
    first = house.accept(1, 1.0)
    house.stand(1)
    house.clock.advance(OPENING)
    first.result()
    house.brings(error=ConnectionFailed("long ago"))
    house.stand(0)

    call = house.accept(1, 30.0)
    house.stand(1)
    house.brings()

    assert len(call.result()) == 1


def test_closing_ends_the_waits_and_lets_go_what_comes_then(house: House) -> None:
    call = house.accept(1, 30.0)
    house.stand(1)

    house.under_test.close()

    with pytest.raises(Closed):
        call.result()
    session = Session(99)
    with house._changed:
        house._answers.append(session)
        house._changed.notify_all()
    assert session.closed.wait(5.0)
