"""Turns at a receiver: one at a time, settlements and renewals before receives, nobody waits for ever."""

from __future__ import annotations

import threading

from queue_runtime.clock import SystemClock
from queue_runtime.providers.servicebus.turns import Turns
from queue_runtime.testing import FakeClock


def start(work: object) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def test_the_urgent_go_before_the_patient() -> None:
    clock = FakeClock()
    turns = Turns(clock)
    order: list[str] = []

    def patient() -> None:
        with turns.patient(60.0) as mine:
            order.append(f"patient {mine}")

    def urgent() -> None:
        with turns.urgent(60.0) as mine:
            order.append(f"urgent {mine}")

    with turns.patient(1.0) as mine:
        first = start(patient)
        clock.block_until(1)
        second = start(urgent)
        clock.block_until(2)

    first.join(5.0)
    second.join(5.0)
    assert mine
    assert order == ["urgent True", "patient True"]


def test_a_turn_that_does_not_come_in_time_is_none() -> None:
    clock = FakeClock()
    turns = Turns(clock)
    answers: list[bool] = []

    def urgent() -> None:
        with turns.urgent(2.0) as mine:
            answers.append(mine)

    with turns.patient(1.0):
        waiting = start(urgent)
        clock.block_until(1)
        clock.advance(2.0)
        waiting.join(5.0)

    assert answers == [False]
    with turns.patient(0.0) as mine:
        assert mine, "who gave up does not stand in the way"


def test_an_error_in_a_turn_ends_it() -> None:
    turns = Turns(FakeClock())

    try:
        with turns.urgent(1.0):
            raise RuntimeError
    except RuntimeError:
        pass

    with turns.urgent(0.0) as mine:
        assert mine


def test_a_turn_is_for_one_only() -> None:
    clock = FakeClock()
    turns = Turns(clock)
    at_once: list[int] = []
    inside = 0
    guard = threading.Lock()

    def work(kind: str) -> None:
        nonlocal inside
        for _ in range(200):
            with turns.urgent(60.0) if kind == "urgent" else turns.patient(60.0):
                with guard:
                    inside += 1
                    at_once.append(inside)
                with guard:
                    inside -= 1

    threads = [start(lambda kind=kind: work(kind)) for kind in ("urgent", "patient", "urgent", "patient")]
    for thread in threads:
        thread.join(20.0)

    assert len(at_once) == 800
    assert max(at_once) == 1


def test_the_urgent_go_in_the_order_of_their_coming() -> None:
    clock = FakeClock()
    turns = Turns(clock)
    order: list[int] = []

    def urgent(number: int) -> None:
        with turns.urgent(60.0):
            order.append(number)

    with turns.urgent(1.0):
        waiting = []
        for number in range(5):
            waiting.append(start(lambda number=number: urgent(number)))
            clock.block_until(number + 1)
    for thread in waiting:
        thread.join(5.0)

    assert order == [0, 1, 2, 3, 4]


def test_one_that_gives_up_lets_the_next_go() -> None:
    clock = FakeClock()
    turns = Turns(clock)
    answers: list[tuple[float, bool]] = []

    def urgent(timeout: float) -> None:
        with turns.urgent(timeout) as mine:
            answers.append((timeout, mine))

    with turns.urgent(1.0):
        first = start(lambda: urgent(2.0))
        clock.block_until(1)
        second = start(lambda: urgent(60.0))
        clock.block_until(2)
        clock.advance(2.0)
        first.join(5.0)
    second.join(5.0)

    assert answers == [(2.0, False), (60.0, True)]


def test_the_patient_get_a_turn_among_urgent_ones_without_end() -> None:
    turns = Turns(SystemClock())
    over = threading.Event()

    def again_and_again() -> None:
        while not over.is_set():
            with turns.urgent(5.0):
                over.wait(0.001)

    threads = [start(again_and_again) for _ in range(3)]
    try:
        with turns.patient(5.0) as mine:
            assert mine
    finally:
        over.set()
    for thread in threads:
        thread.join(5.0)
