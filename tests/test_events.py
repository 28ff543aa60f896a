"""What happened is told to every listener, and a listener that fails disturbs nobody."""

from __future__ import annotations

import dataclasses
import logging
from datetime import UTC, datetime
from typing import Any

import pytest

from queue_runtime import events
from queue_runtime.events import (
    CircuitOpened,
    Event,
    Events,
    FetchFailed,
    HandlerFailed,
    LostLease,
    MessageCompleted,
    MessageDeadLettered,
    ProviderCalled,
    RetryScheduled,
    SettlementFailed,
    WorkerStopped,
    WorkerWarned,
    log_event,
)

RETRY = RetryScheduled(queue="jobs", operation="send", attempt=1, delay=0.5, error="Throttled")


def every_event() -> list[type[Event]]:
    return [
        kind
        for kind in vars(events).values()
        if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event
    ]


def example(kind: type[Event], **facts: Any) -> Event:
    values: dict[str, Any] = {
        "int": 1,
        "bool": False,
        "float": 0.5,
        "str": "text",
        "tuple[str, ...]": (),
        "datetime": datetime(2024, 1, 1, tzinfo=UTC),
        "BaseException": ValueError("text"),
    }
    made = {item.name: values[str(item.type).split(" | ")[0]] for item in dataclasses.fields(kind)}
    return kind(**{**made, **facts})


class TestListeners:
    def test_all_hear_of_an_event_in_their_order(self) -> None:
        heard: list[tuple[str, Event]] = []
        tell = Events(
            [lambda event: heard.append(("first", event)), lambda event: heard.append(("second", event))]
        )

        tell(RETRY)

        assert heard == [("first", RETRY), ("second", RETRY)]

    @pytest.mark.parametrize("kind", [RuntimeError, SystemExit])
    def test_one_that_raises_disturbs_neither_the_others_nor_the_caller(
        self, kind: type[BaseException], caplog: pytest.LogCaptureFixture
    ) -> None:
        heard: list[Event] = []

        def broken(event: Event) -> None:
            raise kind("no room on the disk")

        Events([broken, heard.append])(RETRY)

        assert heard == [RETRY]
        (record,) = [record for record in caplog.records if record.exc_info]
        assert "broken" in record.getMessage()
        assert "RetryScheduled" in record.getMessage()
        assert "no room on the disk" in caplog.text

    def test_one_that_ends_the_program_may(self) -> None:
        def stop(event: Event) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Events([stop])(RETRY)


class TestTheLog:
    def test_has_a_line_for_every_event_with_its_fields_beside_it(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, logger="queue_runtime")

        for kind in every_event():
            caplog.clear()
            log_event(example(kind))

            (record,) = caplog.records
            assert record.name == "queue_runtime"
            assert record.getMessage().startswith(f"{kind.__name__} queue='text'")
            assert record.__dict__["event"] == kind.__name__
            for item in (item for item in dataclasses.fields(kind) if item.repr):
                assert record.__dict__[f"event_{item.name}"] == getattr(example(kind), item.name)

    @pytest.mark.parametrize(
        ("kind", "level"),
        [
            (ProviderCalled, "DEBUG"),
            (MessageCompleted, "DEBUG"),
            (RetryScheduled, "INFO"),
            (HandlerFailed, "WARNING"),
            (FetchFailed, "WARNING"),
            (WorkerWarned, "WARNING"),
            (CircuitOpened, "WARNING"),
            (LostLease, "WARNING"),
            (SettlementFailed, "ERROR"),
            (MessageDeadLettered, "ERROR"),
        ],
    )
    def test_has_the_level_of_what_happened(
        self, kind: type[Event], level: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, logger="queue_runtime")

        log_event(example(kind))

        assert [record.levelname for record in caplog.records] == [level]

    def test_writes_a_moment_as_iso_and_a_number_short(self, caplog: pytest.LogCaptureFixture) -> None:
        log_event(example(CircuitOpened))
        log_event(example(FetchFailed, delay=2.1416360278992816))

        assert "retry_at=2024-01-01T00:00:00+00:00" in caplog.text
        assert "delay=2.142" in caplog.text

    def test_has_the_traceback_of_a_failed_attempt_and_only_the_text_of_what_was_none(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        for counted in (True, False):
            log_event(example(HandlerFailed, counted=counted))

        assert [bool(record.exc_info) for record in caplog.records] == [True, False]
        assert "text='text'" in caplog.records[1].getMessage()

    def test_warns_of_a_request_that_the_broker_refuses(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, logger="queue_runtime")

        log_event(
            ProviderCalled(
                queue="jobs", operation="send", messages=1, seconds=0.1, error="QueueNotFound", refused=True
            )
        )

        assert [record.levelname for record in caplog.records] == ["WARNING"]

    @pytest.mark.parametrize(
        ("facts", "level"),
        [
            ({"overdue": 0, "unknown": 0}, "INFO"),
            ({"overdue": 1, "unknown": 0}, "WARNING"),
            ({"overdue": 0, "unknown": 1}, "WARNING"),
            ({"overdue": 0, "unknown": 0, "threads_left": ("queue_runtime-fetch-jobs",)}, "INFO"),
            ({"overdue": 0, "unknown": 0, "reason": "provider lost"}, "ERROR"),
        ],
    )
    def test_tells_a_clean_stop_from_one_that_is_not(
        self, facts: dict[str, Any], level: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, logger="queue_runtime")

        log_event(example(WorkerStopped, **facts))

        assert [record.levelname for record in caplog.records] == [level]

    def test_is_what_a_client_without_listeners_has(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, logger="queue_runtime")

        Events()(RETRY)

        assert "RetryScheduled queue='jobs' operation='send' attempt=1" in caplog.text

    def test_costs_nothing_where_nobody_reads_it(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.ERROR, logger="queue_runtime")

        log_event(RETRY)

        assert caplog.records == []


class TestEvents:
    @pytest.mark.parametrize("kind", every_event())
    def test_are_frozen_and_name_their_queue(self, kind: type[Event]) -> None:
        event = example(kind)

        assert event.queue == "text"
        with pytest.raises(dataclasses.FrozenInstanceError):
            event.queue = "other"  # type: ignore[misc]  # that is the test

    def test_have_a_level_each(self) -> None:
        assert set(every_event()) == set(events._LEVELS)
