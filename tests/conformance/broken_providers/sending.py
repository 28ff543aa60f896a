"""Broken: sending, to one queue and to many, alone and together; what a client is told of it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from queue_runtime.errors import Outcome, QueueNotFound, Throttled
from queue_runtime.message import Message
from queue_runtime.providers.memory import InMemoryClient
from queue_runtime.providers.memory_broker import MemoryBroker
from queue_runtime.testing.conformance import configuring, errors, limits, receiving, sending
from tests.conformance.broken_providers.base import around, breaks, replaces

Sent = Sequence[Outcome[None]]


@replaces(
    InMemoryClient,
    "send",
    sending.TestSendingTogether.test_what_sixteen_threads_send_at_once_arrives_once_and_shares_requests,
    kind="plain",
)
def drops_the_second_of_a_request(
    true: Any, client: InMemoryClient, queue: str, messages: Sequence[Message]
) -> Sent:
    """Of a request with several messages the second is confirmed and not stored."""
    true(client, queue, [message for place, message in enumerate(messages) if place != 1])
    return [Outcome() for _ in messages]


@replaces(
    InMemoryClient,
    "send",
    sending.TestSendingTogether.test_what_sixteen_threads_send_at_once_arrives_once_and_shares_requests,
    kind="plain",
)
def tells_the_wrong_one_that_it_failed(
    true: Any, client: InMemoryClient, queue: str, messages: Sequence[Message]
) -> Sent:
    """Of a request with several messages the last is not stored, and the first is told so."""
    if len(messages) == 1:
        return true(client, queue, messages)  # type: ignore[no-any-return]
    true(client, queue, messages[:-1])
    return [Outcome(error=Throttled("too many")), *(Outcome[None]() for _ in messages[1:])]


@replaces(
    InMemoryClient,
    "send",
    sending.TestSendingTogether.test_what_sixteen_threads_send_at_once_arrives_once_and_shares_requests,
    kind="sessions",
)
def answers_fewer_than_it_was_asked_for(
    true: Any, client: InMemoryClient, queue: str, messages: Sequence[Message]
) -> Sent:
    """A request with several messages has one answer too few."""
    answers: Sent = true(client, queue, messages)
    return answers[:-1] if len(messages) > 1 else answers


@replaces(
    InMemoryClient,
    "send",
    sending.TestSendingTogether.test_batches_of_many_threads_arrive_whole_and_each_in_its_order,
    kind="sessions",
)
def stores_a_request_backwards(
    true: Any, client: InMemoryClient, queue: str, messages: Sequence[Message]
) -> Sent:
    """The messages of one request are stored in the reverse order."""
    return true(client, queue, messages[::-1])  # type: ignore[no-any-return]


@breaks(sending.TestSubmit.test_closing_the_client_sends_what_was_submitted, kind="plain")
def confirms_before_it_stores(patch: pytest.MonkeyPatch) -> None:
    """What is sent is stored with the next request, or lost if that never comes."""
    kept: list[Message] = []

    def send(true: Any, client: InMemoryClient, queue: str, messages: Sequence[Message]) -> Sent:
        true(client, queue, kept)
        kept[:] = messages
        return [Outcome() for _ in messages]

    around(patch, InMemoryClient, "send", send)


@breaks(sending.TestOneSessionManySenders.test_what_each_thread_sends_keeps_that_threads_order)
def stores_a_message_behind_the_next_one(patch: pytest.MonkeyPatch) -> None:
    """The first message is confirmed, and stored behind the next one of its sender."""
    first: list[Message] = []

    def send(true: Any, client: InMemoryClient, queue: str, messages: Sequence[Message]) -> Sent:
        stored = list(messages)
        if not first:
            first.append(stored.pop(0))
        elif len(first) == 1 and any(each.body[:2] == first[0].body[:2] for each in stored):
            stored += first
            first.append(first[0])
        true(client, queue, stored)
        return [Outcome() for _ in messages]

    around(patch, InMemoryClient, "send", send)


@breaks(
    sending.TestSendingTogether.test_batches_of_many_threads_arrive_whole_and_each_in_its_order,
    kind="sessions",
)
def stores_one_of_two_requests_at_the_same_time(patch: pytest.MonkeyPatch) -> None:
    """Of requests that are under way at the same time the first is stored, and all are confirmed."""
    busy, never = threading.Lock(), threading.Event()

    def send(true: Any, client: InMemoryClient, queue: str, messages: Sequence[Message]) -> Sent:
        if not busy.acquire(blocking=False):
            return [Outcome() for _ in messages]
        try:
            never.wait(0.01)
            return true(client, queue, messages)  # type: ignore[no-any-return]
        finally:
            busy.release()

    around(patch, InMemoryClient, "send", send)


@replaces(
    MemoryBroker,
    "queue",
    sending.TestSendingTogether.test_a_send_to_a_queue_that_is_not_there_fails_alone,
    kind="plain",
)
def sends_elsewhere_what_has_no_queue(true: Any, broker: MemoryBroker, name: str) -> Any:
    """A queue that is not there is taken for another."""
    try:
        return true(broker, name)
    except QueueNotFound:
        return next(iter(broker._queues.values()))


@replaces(MemoryBroker, "queue", errors.TestQueueNotFound.test_it_is_found_when_it_is_there)
def makes_the_queue_that_is_asked_for(true: Any, broker: MemoryBroker, name: str) -> Any:
    """A queue that is not there is made."""
    if name not in broker._queues:
        broker.declare({name: "plain"}, lease=None)
    return true(broker, name)


@replaces(MemoryBroker, "queue", configuring.TestQueueNames.test_errors_go_by_it_too, kind="plain")
def has_an_error_of_its_own_for_a_missing_queue(true: Any, broker: MemoryBroker, name: str) -> Any:
    """That a queue is not there is told as an error of Python's."""
    try:
        return true(broker, name)
    except QueueNotFound:
        raise KeyError(name) from None


@replaces(
    InMemoryClient, "requests", configuring.TestStats.test_requests_are_counted_as_they_are_made, kind="plain"
)
def counts_no_request_after_the_first(true: Any, client: InMemoryClient) -> Mapping[str, int]:
    """The count of requests to the broker stands still."""
    return {"Send": 1}


@replaces(
    InMemoryClient, "receive", configuring.TestConfiguredLease.test_what_is_received_is_held_for_as_long
)
def holds_for_the_queues_own_lease(true: Any, client: InMemoryClient, *what: Any, **options: Any) -> Any:
    """The lease that a receive asks for is not given."""
    return true(client, *what, **{**options, "lease": None})


@replaces(
    MemoryBroker,
    "store",
    configuring.TestConfiguredStrategy.test_that_of_the_queue_comes_before_that_of_the_client,
)
def puts_all_into_one_session(
    true: Any, broker: MemoryBroker, queue: Any, message: Message, **how: Any
) -> int:
    """All messages are stored in one session."""
    if message.session_id is not None:
        message = replace(message, session_id="one")
    return true(broker, queue, message, **how)  # type: ignore[no-any-return]


@replaces(MemoryBroker, "store", receiving.TestDelays.test_a_delayed_message_comes_when_it_is_due)
def sends_at_once_what_is_delayed(
    true: Any, broker: MemoryBroker, queue: Any, message: Message, **how: Any
) -> int:
    """A message that is sent with a delay is there at once."""
    return true(broker, queue, message, **{**how, "delay": 0.0})  # type: ignore[no-any-return]


@replaces(
    MemoryBroker,
    "store",
    limits.TestDelay.test_the_longest_delay_is_taken_and_the_message_waits,
    kind="plain",
)
def forgets_a_delay_of_days(true: Any, broker: MemoryBroker, queue: Any, message: Message, **how: Any) -> int:
    """A delay of more than a day is taken, and counts for nothing."""
    delay = how.pop("delay", 0.0)
    return true(broker, queue, message, **how, delay=delay if delay < 86400 else 0.0)  # type: ignore[no-any-return]
