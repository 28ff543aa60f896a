"""Broken: receiving, leases and settling outside sessions."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from queue_runtime.clock import sleep
from queue_runtime.errors import Outcome
from queue_runtime.message import Delivery
from queue_runtime.provider import Abandon, Complete, Settlement
from queue_runtime.providers.memory import InMemoryClient
from queue_runtime.providers.memory_broker import MemoryBroker
from queue_runtime.providers.memory_queues import PlainQueue, Stored
from queue_runtime.testing.conformance import errors, leases, receiving, settling, sharing, threads
from tests.conformance.broken_providers.base import around, breaks, replaces

Settled = Sequence[Outcome[None]]


@replaces(
    PlainQueue,
    "held",
    settling.TestTooLate.test_a_stale_receipt_does_not_take_the_message_from_its_new_holder,
)
def accepts_stale_receipts(true: Any, queue: PlainQueue, delivery: Delivery, now: float) -> Stored:
    """A receipt settles the message after its lease too, whoever holds it then."""
    stored = queue._messages.get(delivery.sequence or 0)
    return stored or true(queue, delivery, now)


@replaces(
    InMemoryClient, "settle", settling.TestPartialFailure.test_in_a_large_batch_each_outcome_is_at_its_place
)
def misaligns_outcomes(
    true: Any, client: InMemoryClient, queue: str, settlements: Sequence[Settlement]
) -> Settled:
    """Of a batch the failures come first."""
    outcomes: Settled = true(client, queue, settlements)
    return sorted(outcomes, key=lambda outcome: outcome.ok)


@replaces(
    InMemoryClient,
    "settle",
    settling.TestPartialFailure.test_one_bad_receipt_among_good_ones_fails_alone,
    act=settling.VERBS["complete"],
)
def raises_for_all(
    true: Any, client: InMemoryClient, queue: str, settlements: Sequence[Settlement]
) -> Settled:
    """One bad receipt fails the whole batch, though the others are settled."""
    outcomes: Settled = true(client, queue, settlements)
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return outcomes


@replaces(
    InMemoryClient,
    "settle",
    sharing.TestSettlingTogether.test_what_sixteen_threads_settle_at_once_is_settled_each,
    settle=settling.SETTLE["complete"],
)
def settles_the_first_of_a_request(
    true: Any, client: InMemoryClient, queue: str, settlements: Sequence[Settlement]
) -> Settled:
    """Of a request with several messages the first is settled, and all are confirmed."""
    true(client, queue, settlements[:1])
    return [Outcome() for _ in settlements]


@replaces(
    InMemoryClient,
    "settle",
    sharing.TestSettlingTogether.test_one_bad_receipt_is_told_to_its_own_thread_only,
    act=settling.VERBS["complete"],
)
def answers_a_shared_request_backwards(
    true: Any, client: InMemoryClient, queue: str, settlements: Sequence[Settlement]
) -> Settled:
    """The answers to one request come in the reverse order."""
    outcomes: Settled = true(client, queue, settlements)
    return outcomes[::-1]


@replaces(
    InMemoryClient, "renew", sharing.TestSettlingTogether.test_renewals_of_sixteen_threads_at_once_hold_each
)
def renews_the_first_of_a_request(
    true: Any, client: InMemoryClient, queue: str, deliveries: Sequence[Delivery], **options: Any
) -> Any:
    """Of a request with several messages the first is renewed, and all are confirmed."""
    answers = true(client, queue, deliveries[:1], **options)
    return [answers[0] for _ in deliveries]


@replaces(
    InMemoryClient,
    "settle",
    sharing.TestSessionsSettledTogether.test_sixteen_sessions_are_completed_at_once,
    groups=True,
)
def settles_no_more_than_two_in_groups(
    true: Any, client: InMemoryClient, queue: str, settlements: Sequence[Settlement]
) -> Settled:
    """Of a request with more than two messages two are settled, and all are confirmed."""
    outcomes: Settled = true(client, queue, settlements[:2])
    return [*outcomes, *(Outcome[None]() for _ in settlements[2:])]


@replaces(Stored, "free", leases.TestLeases.test_a_lapsed_lease_gives_the_message_back)
def never_ends_a_lease(true: Any, stored: Stored, now: float) -> bool:
    """A message that is not settled never comes again."""
    return stored.visible_at <= now and stored.leased_until is None


@replaces(Stored, "free", leases.TestLeases.test_a_held_message_is_hidden_from_all)
def hides_nothing(true: Any, stored: Stored, now: float) -> bool:
    """A message that somebody holds is handed out to others."""
    return stored.visible_at <= now


@replaces(InMemoryClient, "renew", leases.TestLeases.test_a_renewed_lease_lasts_from_its_renewal)
def does_not_renew(true: Any, client: InMemoryClient, queue: str, deliveries: Any, **options: Any) -> Any:
    """A renewal is confirmed, and nothing is renewed."""
    return [Outcome(client._clock.monotonic() + 30.0) for _ in deliveries]


@replaces(InMemoryClient, "_finish", settling.TestSettling.test_a_completed_message_is_gone)
def completes_nothing(true: Any, client: InMemoryClient, *what: Any, remove: Any) -> None:
    """A completion is confirmed, and the message stays."""
    kept = isinstance(what[2], Complete)
    true(client, *what, remove=(lambda: None) if kept else remove)


@replaces(InMemoryClient, "_finish", settling.TestSettling.test_an_abandoned_message_comes_again_at_once)
def completes_the_abandoned(true: Any, client: InMemoryClient, *what: Any, remove: Any) -> None:
    """A message that is given back is removed."""
    if isinstance(what[2], Abandon):
        remove()
    else:
        true(client, *what, remove=remove)


@replaces(Stored, "give_back", settling.TestSettling.test_an_abandoned_message_waits_for_its_delay)
def forgets_delays(true: Any, stored: Stored, now: float, delay: float) -> None:
    """A message that is given back with a delay comes again at once."""
    true(stored, now, 0.0)


@replaces(InMemoryClient, "receive", receiving.TestWaiting.test_an_empty_answer_comes_on_time, kind="plain")
def overstays(true: Any, client: InMemoryClient, queue: str, most: int, wait: float, **options: Any) -> Any:
    """A receive that brings nothing takes half a second more than it was told."""
    found = true(client, queue, most, wait, **options)
    if not found:
        sleep(client._clock, 0.5)
    return found


@replaces(InMemoryClient, "receive", receiving.TestWaiting.test_an_empty_answer_comes_on_time, kind="plain")
def comes_back_early(
    true: Any, client: InMemoryClient, queue: str, most: int, wait: float, **options: Any
) -> Any:
    """A receive waits half as long as it was told."""
    return true(client, queue, most, wait / 2, **options)


@replaces(InMemoryClient, "receive", receiving.TestNumbers.test_no_more_than_asked_for)
def brings_too_many(
    true: Any, client: InMemoryClient, queue: str, most: int, wait: float, **options: Any
) -> Any:
    """A receive brings one message more than it was asked for."""
    return true(client, queue, most + 1, wait, **options)


@replaces(InMemoryClient, "receive", receiving.TestNumbers.test_more_than_one_request_brings_is_no_error)
def keeps_one_of_what_it_takes(true: Any, client: InMemoryClient, *what: Any, **options: Any) -> Any:
    """Of several messages that a receive takes the last is handed to nobody."""
    found = true(client, *what, **options)
    return found[:-1] if len(found) > 1 else found


@replaces(PlainQueue, "add", threads.TestSixteenThreads.test_nothing_is_lost_and_nothing_comes_twice)
def delivers_twice(true: Any, queue: PlainQueue, stored: Stored, now: float) -> int:
    """A message is stored twice."""
    twin = Stored(
        message=stored.message,
        sequence=stored.sequence + 1_000_000,
        enqueued_at=stored.enqueued_at,
        visible_at=stored.visible_at,
        due_at=stored.due_at,
        info=stored.info,
    )
    true(queue, twin, now)
    return true(queue, stored, now)  # type: ignore[no-any-return]


@replaces(Stored, "shown", leases.TestLeases.test_deliveries_are_counted)
def counts_no_deliveries(true: Any, stored: Stored, **what: Any) -> Delivery:
    """Every delivery says that it is the first."""
    stored.deliveries = 1
    return true(stored, **what)  # type: ignore[no-any-return]


@breaks(threads.TestSettlingMeanwhile.test_nothing_waits_for_a_receive_from_the_same_queue)
def holds_a_lock_through_its_receives(patch: pytest.MonkeyPatch) -> None:
    """A completion waits while another thread waits for messages."""
    busy = threading.Lock()

    def receive(true: Any, *what: Any, **options: Any) -> Any:
        with busy:
            return true(*what, **options)

    def settle(true: Any, *what: Any) -> Any:
        if busy.acquire(timeout=0.2):  # longer, and a test on a clock that stands still would never end
            busy.release()
        return true(*what)

    around(patch, InMemoryClient, "receive", receive)
    around(patch, InMemoryClient, "settle", settle)


@breaks(errors.TestClosingMeanwhile.test_what_it_still_brings_is_not_lost, kind="plain")
def takes_a_message_after_its_close(patch: pytest.MonkeyPatch) -> None:
    """The first message that is sent after the close of a client is taken by its receive, and lost."""
    closed: list[InMemoryClient] = []

    def close(true: Any, client: InMemoryClient) -> None:
        true(client)
        closed.append(client)

    def store(true: Any, *what: Any, **how: Any) -> int:
        if closed:
            closed.clear()
            return 0
        return true(*what, **how)  # type: ignore[no-any-return]

    around(patch, InMemoryClient, "close", close)
    around(patch, MemoryBroker, "store", store)


@replaces(InMemoryClient, "close", errors.TestClosed.test_no_thread_is_left_behind)
def leaves_a_thread_behind(true: Any, client: InMemoryClient) -> None:
    """A thread goes on for seconds after the close."""
    threading.Thread(target=threading.Event().wait, args=(3.0,), name="left behind", daemon=True).start()
    true(client)
