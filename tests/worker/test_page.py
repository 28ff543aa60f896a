"""docs/worker.md is what the classes say."""

from __future__ import annotations

import pytest

from queue_runtime import StopReport, WorkerHealth, WorkerStatus
from tests.worker.page import PAGE, every_event, explained, first, reference, with_reference, written

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_reference_is_up_to_date() -> None:
    assert written(TEXT) == reference(), "python -m tests.worker.page"
    assert with_reference(TEXT) == TEXT


@pytest.mark.parametrize("kind", [StopReport, WorkerStatus, WorkerHealth])
def test_every_field_of_a_record_is_explained(kind: type[object]) -> None:
    assert [name for name, said in explained(kind).items() if not said] == []


def test_every_event_says_when_it_comes() -> None:
    assert [kind.__name__ for kind in every_event() if not first(kind)] == []
