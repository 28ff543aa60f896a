"""A signal handler that raises leaves no lock taken."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import pytest

from queue_runtime.condition import Condition
from tests.fakes import REAL


def raises_at_the_next(event: str) -> Callable[[FrameType, str, Any], None]:
    """As a signal handler does, at the next function in Python that begins, or ends."""

    def interrupt(frame: FrameType, what: str, arg: Any) -> None:
        if what == event:
            sys.setprofile(None)
            raise KeyboardInterrupt

    return interrupt


def nothing() -> None:
    pass


def is_free(condition: Condition) -> bool:
    with ThreadPoolExecutor(1) as aside:
        return aside.submit(condition.acquire, blocking=False).result(REAL)


@pytest.mark.parametrize("event", ["call", "return"])
class TestAnInterruptedBlock:
    def test_that_ends_has_left_its_lock(self, event: str) -> None:
        condition = Condition()

        def block() -> None:
            with condition:
                sys.setprofile(raises_at_the_next(event))
            nothing()

        with pytest.raises(KeyboardInterrupt):  # in the block, or behind it
            block()

        assert is_free(condition)

    def test_that_begins_has_not_taken_its_lock(self, event: str) -> None:
        condition = Condition()

        def block() -> None:
            sys.setprofile(raises_at_the_next(event))
            with condition:
                nothing()

        with pytest.raises(KeyboardInterrupt):
            block()

        assert is_free(condition)


def test_it_waits_and_is_notified_as_any_other() -> None:
    condition = Condition()
    told: list[str] = []

    def wait() -> bool:
        with condition:
            return condition.wait_for(lambda: bool(told), REAL)

    with ThreadPoolExecutor(1) as aside:
        waiting = aside.submit(wait)
        with condition:
            told.append("now")
            condition.notify_all()
        assert waiting.result(REAL)
