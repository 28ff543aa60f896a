"""Providers that break one promise each: the memory provider with one method spoilt."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from queue_runtime.clock import sleep
from queue_runtime.errors import Outcome
from queue_runtime.message import Delivery, Message
from queue_runtime.provider import Abandon, Complete, DeadLetter, Settlement
from queue_runtime.providers.memory import InMemoryClient, InMemorySession
from queue_runtime.providers.memory_broker import MemoryBroker
from queue_runtime.providers.memory_queues import (
    GroupQueue,
    PlainQueue,
    Queue,
    SentIds,
    Session,
    SessionQueue,
    Stored,
)

Break = Callable[[pytest.MonkeyPatch], None]


def _around(owner: type, name: str, spoil: Callable[..., Any]) -> Break:
    """Replace a method by *spoil*, which gets the true one first."""
    true = getattr(owner, name)
    return lambda patch: patch.setattr(owner, name, lambda *a, **k: spoil(true, *a, **k))


def loses_order(true: Any, queue: SessionQueue, session: Session, most: int, now: float) -> list[Delivery]:
    taken: list[Delivery] = true(queue, session, most, now)
    return taken[::-1]


def loses_order_of_groups(
    true: Any, queue: GroupQueue, most: int, lease: float, now: float
) -> list[Delivery]:
    return PlainQueue.take(queue, most, lease, now)  # and their exclusivity


def accepts_stale_receipts(true: Any, queue: PlainQueue, delivery: Delivery, now: float) -> Stored:
    return queue._messages[delivery.sequence or 0]


def misaligns_outcomes(
    true: Any, client: InMemoryClient, queue: str, settlements: Sequence[Settlement]
) -> Sequence[Outcome[None]]:
    outcomes: Sequence[Outcome[None]] = true(client, queue, settlements)
    return sorted(outcomes, key=lambda outcome: outcome.ok)


def raises_for_all(
    true: Any, client: InMemoryClient, queue: str, settlements: Sequence[Settlement]
) -> Sequence[Outcome[None]]:
    for outcome in (outcomes := true(client, queue, settlements)):
        if outcome.error is not None:
            raise outcome.error
    return outcomes  # type: ignore[no-any-return]


def never_ends_a_lease(true: Any, stored: Stored, now: float) -> bool:
    return stored.visible_at <= now and stored.leased_until is None


def hides_nothing(true: Any, stored: Stored, now: float) -> bool:
    return stored.visible_at <= now


def does_not_renew(true: Any, client: InMemoryClient, queue: str, deliveries: Any, **options: Any) -> Any:
    return [Outcome(client._clock.monotonic() + 30.0) for _ in deliveries]


def dead_letters_without_a_copy(
    true: Any, broker: MemoryBroker, queue: Any, message: Message, **options: Any
) -> None:
    if options.get("info") is None:
        true(broker, queue, message, **options)


def dead_letters_without_a_reason(
    true: Any, broker: MemoryBroker, queue: Any, message: Message, **options: Any
) -> None:
    if options.get("info") is not None:
        options["info"] = replace(options["info"], description=None, message_id=None)
    true(broker, queue, message, **options)


def dead_letters_by_copy_only(true: Any, client: InMemoryClient, *what: Any, remove: Any) -> None:
    kept = isinstance(what[2], DeadLetter)
    true(client, *what, remove=(lambda: None) if kept else remove)


def completes_nothing(true: Any, client: InMemoryClient, *what: Any, remove: Any) -> None:
    kept = isinstance(what[2], Complete)
    true(client, *what, remove=(lambda: None) if kept else remove)


def completes_the_abandoned(true: Any, client: InMemoryClient, *what: Any, remove: Any) -> None:
    if isinstance(what[2], Abandon):
        remove()
    else:
        true(client, *what, remove=remove)


def forgets_delays(true: Any, stored: Stored, now: float, delay: float) -> None:
    true(stored, now, 0.0)


def shares_sessions(true: Any, session: Session, now: float) -> bool:
    return bool(session.messages)


def keeps_closed_sessions(true: Any, session: InMemorySession) -> None:
    pass


def forgets_what_a_lost_session_had(true: Any, session: Session, now: float) -> None:
    session.leased_until = None


def settles_for_lost_sessions(true: Any, queue: SessionQueue, session: Session, *hold: Any) -> None:
    pass


def overstays(true: Any, client: InMemoryClient, queue: str, most: int, wait: float, **options: Any) -> Any:
    found = true(client, queue, most, wait, **options)
    if not found:
        sleep(client._clock, 0.5)
    return found


def comes_back_early(
    true: Any, client: InMemoryClient, queue: str, most: int, wait: float, **options: Any
) -> Any:
    return true(client, queue, most, wait / 2, **options)


def brings_too_many(
    true: Any, client: InMemoryClient, queue: str, most: int, wait: float, **options: Any
) -> Any:
    return true(client, queue, most + 1, wait, **options)


def delivers_twice(true: Any, queue: PlainQueue, stored: Stored, now: float) -> None:
    true(queue, stored, now)
    true(queue, replace(stored, sequence=stored.sequence + 1_000_000), now)


def counts_no_deliveries(true: Any, stored: Stored, **what: Any) -> Delivery:
    delivery: Delivery = true(stored, **what)
    return replace(delivery, delivery_count=1)


def drops_empty_attributes(true: Any, stored: Stored, **what: Any) -> Delivery:
    delivery: Delivery = true(stored, **what)
    kept = {name: value for name, value in delivery.message.attributes.items() if value}
    return replace(delivery, message=replace(delivery.message, attributes=kept))


def normalises_line_ends(true: Any, stored: Stored, **what: Any) -> Delivery:
    delivery: Delivery = true(stored, **what)
    body = delivery.message.body.replace(b"\r\n", b"\n")
    return replace(delivery, message=replace(delivery.message, body=body))


def counts_characters(true: Any, client: InMemoryClient, queue: str, message: Message) -> int:
    return len(message.body.decode(errors="replace"))


def gives_by_id_what_another_holds(true: Any, queue: SessionQueue, session_id: str, now: float) -> Session:
    return queue._hold(queue._session(session_id, session_id), now)


def gives_another_than_was_asked_for(
    true: Any, queue: SessionQueue, session_id: str, now: float
) -> Session | None:
    return queue.accept(now)


def has_no_session_without_messages(
    true: Any, queue: SessionQueue, session_id: str, now: float
) -> Session | None:
    found: Session | None = true(queue, session_id, now)
    return found if found is not None and found.messages else None


def accepts_more_than_it_is_asked_for(
    true: Any, client: InMemoryClient, queue: str, most: int, wait: float, **options: Any
) -> Any:
    return true(client, queue, most + 1, wait, **options)


def counts_closed_sessions_and_denies_it(true: Any, session: Session, now: float) -> None:
    session.leased_until = None
    for stored in session.messages.values():
        stored.leased_until = None


def forgets_states(true: Any, session: Session, now: float) -> None:
    true(session, now)
    session.state = None


def keeps_states_as_text(true: Any, session: InMemorySession, state: bytes | None) -> None:
    true(session, None if state is None else state.decode(errors="replace").encode())


def shares_states(true: Any, session: InMemorySession, state: bytes | None) -> None:
    for each in session._queue._sessions.values():
        each.state = state


def keeps_states_that_are_removed(true: Any, session: InMemorySession, state: bytes | None) -> None:
    if state is not None:
        true(session, state)


def lets_lost_sessions_at_the_state(true: Any, session: InMemorySession, state: bytes | None) -> None:
    session._session.state = state


def cancels_nothing(true: Any, client: InMemoryClient, queue: str, receipts: Any) -> Any:
    return [Outcome() for _ in receipts]


def cancels_all(true: Any, client: InMemoryClient, queue: str, receipts: Any) -> Any:
    return true(client, queue, [str(s.sequence) for s in client._broker.queue(queue).stored()])[
        : len(receipts)
    ]


def cancels_what_is_due(true: Any, queue: PlainQueue, sequence: int, now: float) -> None:
    queue._messages.pop(sequence, None)


def schedules_for_now(true: Any, client: InMemoryClient, queue: str, messages: Sequence[Message]) -> Any:
    return true(client, queue, [replace(message, delay=0.0) for message in messages])


def schedules_at_the_head_of_the_session(true: Any, queue: SessionQueue, stored: Stored, now: float) -> int:
    queue.append(stored)
    return stored.sequence


def hands_out_expired(true: Any, queue: Queue, now: float) -> list[Stored]:
    return []


def lets_expire_what_is_in_hand(true: Any, queue: Queue, stored: Stored, now: float) -> bool:
    return False


def counts_a_life_from_sending(
    true: Any, broker: MemoryBroker, queue: Any, message: Message, **how: Any
) -> Any:
    sequence = true(broker, queue, message, **how)
    for stored in queue.stored():
        stored.due_at -= how.get("delay", 0.0)
        how["delay"] = 0.0
    return sequence


def lets_dead_letters_expire(true: Any, queue: Queue, now: float) -> list[Stored]:
    above = queue.dead_letters
    queue.dead_letters = above or PlainQueue("nowhere", lease=1.0, dead_letters=None)
    try:
        return true(queue, now)  # type: ignore[no-any-return]
    finally:
        queue.dead_letters = above


def drops_all_that_expires(true: Any, broker: MemoryBroker, queue: Queue) -> None:
    queue.dead_letters_expired = False
    true(broker, queue)


def forgets_times_to_live(true: Any, stored: Stored, **what: Any) -> Delivery:
    delivery: Delivery = true(stored, **what)
    return replace(delivery, message=replace(delivery.message, time_to_live=None))


def forgets_replays(true: Any, stored: Stored, **what: Any) -> Delivery:
    delivery: Delivery = true(stored, **what)
    return replace(delivery, message=replace(delivery.message, replays=0))


def deduplicates_nothing_and_denies_it(true: Any, sent: SentIds, stored: Stored, now: float) -> int:
    return stored.sequence


def purges_nothing(true: Any, client: InMemoryClient, queue: str) -> None:
    pass


def purges_what_is_free(true: Any, client: InMemoryClient, queue: str) -> None:
    with client._broker.changed:
        found = client._broker.queue(queue)
        for stored in list(found.stored()):
            if stored.free(client._clock.monotonic()):
                found._forget(stored)


def takes_what_it_shows(
    true: Any, client: InMemoryClient, queue: str, most: int, *, after: int = 0
) -> Sequence[Delivery]:
    shown: Sequence[Delivery] = true(client, queue, most, after=after)
    for stored in client._broker.queue(queue).stored():
        stored.deliveries += 1
    return shown


def shows_from_the_beginning(
    true: Any, client: InMemoryClient, queue: str, most: int, *, after: int = 0
) -> Sequence[Delivery]:
    return true(client, queue, most, after=0)  # type: ignore[no-any-return]


def holds_a_lock_through_its_receives(patch: pytest.MonkeyPatch) -> None:
    busy = threading.Lock()

    def receive(true: Any, *what: Any, **options: Any) -> Any:
        with busy:
            return true(*what, **options)

    def settle(true: Any, *what: Any) -> Any:
        if busy.acquire(timeout=0.2):  # longer, and a test on a clock that stands still would never end
            busy.release()
        return true(*what)

    _around(InMemoryClient, "receive", receive)(patch)
    _around(InMemoryClient, "settle", settle)(patch)


BROKEN: dict[str, Break] = {
    each.__name__: _around(owner, name, each)
    for owner, name, each in (
        (SessionQueue, "take", loses_order),
        (GroupQueue, "take", loses_order_of_groups),
        (PlainQueue, "held", accepts_stale_receipts),
        (InMemoryClient, "settle", misaligns_outcomes),
        (InMemoryClient, "settle", raises_for_all),
        (Stored, "free", never_ends_a_lease),
        (Stored, "free", hides_nothing),
        (InMemoryClient, "renew", does_not_renew),
        (MemoryBroker, "store", dead_letters_without_a_copy),
        (MemoryBroker, "store", dead_letters_without_a_reason),
        (InMemoryClient, "_finish", dead_letters_by_copy_only),
        (InMemoryClient, "_finish", completes_nothing),
        (InMemoryClient, "_finish", completes_the_abandoned),
        (Stored, "give_back", forgets_delays),
        (Session, "free", shares_sessions),
        (InMemorySession, "close", keeps_closed_sessions),
        (Session, "let_go", forgets_what_a_lost_session_had),
        (SessionQueue, "check", settles_for_lost_sessions),
        (InMemoryClient, "receive", overstays),
        (InMemoryClient, "receive", comes_back_early),
        (InMemoryClient, "receive", brings_too_many),
        (PlainQueue, "add", delivers_twice),
        (Stored, "shown", counts_no_deliveries),
        (Stored, "shown", drops_empty_attributes),
        (Stored, "shown", normalises_line_ends),
        (InMemoryClient, "size", counts_characters),
        (SessionQueue, "accept_one", gives_by_id_what_another_holds),
        (SessionQueue, "accept_one", gives_another_than_was_asked_for),
        (SessionQueue, "accept_one", has_no_session_without_messages),
        (InMemoryClient, "accept_sessions", accepts_more_than_it_is_asked_for),
        (Session, "let_go", counts_closed_sessions_and_denies_it),
        (Session, "let_go", forgets_states),
        (InMemorySession, "set_state", keeps_states_as_text),
        (InMemorySession, "set_state", shares_states),
        (InMemorySession, "set_state", keeps_states_that_are_removed),
        (InMemorySession, "set_state", lets_lost_sessions_at_the_state),
        (InMemoryClient, "cancel", cancels_nothing),
        (InMemoryClient, "cancel", cancels_all),
        (PlainQueue, "cancel", cancels_what_is_due),
        (InMemoryClient, "schedule", schedules_for_now),
        (SessionQueue, "add", schedules_at_the_head_of_the_session),
        (Queue, "take_expired", hands_out_expired),
        (PlainQueue, "_is_out", lets_expire_what_is_in_hand),
        (MemoryBroker, "store", counts_a_life_from_sending),
        (Queue, "take_expired", lets_dead_letters_expire),
        (MemoryBroker, "catch_up", drops_all_that_expires),
        (Stored, "shown", forgets_times_to_live),
        (Stored, "shown", forgets_replays),
        (SentIds, "first", deduplicates_nothing_and_denies_it),
        (InMemoryClient, "purge", purges_nothing),
        (InMemoryClient, "purge", purges_what_is_free),
        (InMemoryClient, "peek", takes_what_it_shows),
        (InMemoryClient, "peek", shows_from_the_beginning),
    )
}
BROKEN["holds_a_lock_through_its_receives"] = holds_a_lock_through_its_receives
