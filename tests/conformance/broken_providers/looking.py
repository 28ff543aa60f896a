"""Broken: looking, counting and emptying."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from queue_runtime.message import Delivery
from queue_runtime.provider import QueueDescription
from queue_runtime.providers.memory import InMemoryClient
from queue_runtime.testing.conformance import looking, receiving
from tests.conformance.broken_providers.base import replaces


@replaces(InMemoryClient, "peek", looking.TestPeek.test_they_are_there_still, kind="plain")
def takes_what_it_shows(
    true: Any, client: InMemoryClient, queue: str, most: int, *, after: int = 0
) -> Sequence[Delivery]:
    """Looking at a message counts as a delivery."""
    shown: Sequence[Delivery] = true(client, queue, most, after=after)
    for stored in client._broker.queue(queue).stored():
        stored.deliveries += 1
    return shown


@replaces(InMemoryClient, "peek", looking.TestPeek.test_one_may_go_on_where_one_has_stopped, kind="plain")
def shows_from_the_beginning(
    true: Any, client: InMemoryClient, queue: str, most: int, *, after: int = 0
) -> Sequence[Delivery]:
    """A look begins at the first message, wherever it was to go on."""
    return true(client, queue, most, after=0)  # type: ignore[no-any-return]


@replaces(InMemoryClient, "peek", looking.TestPeek.test_what_is_in_hand_is_shown_too, kind="plain")
def shows_what_is_free(
    true: Any, client: InMemoryClient, queue: str, most: int, *, after: int = 0
) -> Sequence[Delivery]:
    """Messages that somebody holds are not shown."""
    now = client._clock.monotonic()
    free = {stored.sequence for stored in client._broker.queue(queue).stored() if stored.free(now)}
    return [delivery for delivery in true(client, queue, most, after=after) if delivery.sequence in free]


@replaces(InMemoryClient, "purge", looking.TestPurge.test_a_purge_removes_all, kind="plain")
def purges_nothing(true: Any, client: InMemoryClient, queue: str) -> None:
    """A purge is confirmed, and nothing is removed."""


@replaces(InMemoryClient, "purge", looking.TestPurge.test_a_purge_removes_all, kind="plain")
def purges_what_is_free(true: Any, client: InMemoryClient, queue: str) -> None:
    """A purge leaves what somebody holds and what is not due yet."""
    with client._broker.changed:
        found = client._broker.queue(queue)
        for stored in list(found.stored()):
            if stored.free(client._clock.monotonic()):
                found._forget(stored)


@replaces(InMemoryClient, "purge", looking.TestPurge.test_the_dead_letters_stay, kind="sessions")
def purges_the_dead_letters_too(true: Any, client: InMemoryClient, queue: str) -> None:
    """A purge of a queue removes its dead letters."""
    true(client, queue)
    true(client, f"{queue}/$DeadLetterQueue")


@replaces(InMemoryClient, "describe", receiving.TestCounts.test_describe_counts_what_waits_and_what_is_held)
def counts_as_waiting_what_is_held(true: Any, client: InMemoryClient, queue: str) -> QueueDescription:
    """What somebody holds counts as free."""
    found: QueueDescription = true(client, queue)
    return replace(found, active=(found.active or 0) + (found.leased or 0), leased=0)
