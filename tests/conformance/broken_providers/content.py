"""Broken: what a message is when it comes out, how long it lives, and when it comes twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from queue_runtime.errors import Outcome
from queue_runtime.message import Delivery, Message
from queue_runtime.providers.memory import InMemoryClient
from queue_runtime.providers.memory_broker import MemoryBroker
from queue_runtime.providers.memory_queues import PlainQueue, Queue, SentIds, SessionQueue, Stored
from queue_runtime.testing.conformance import content, limits, looking, scheduling, time_to_live
from tests.conformance.broken_providers.base import replaces


def changed(delivery: Delivery, **fields: Any) -> Delivery:
    return replace(delivery, message=replace(delivery.message, **fields))


@replaces(Stored, "shown", content.TestContent.test_attributes_come_out_as_they_went_in, kind="plain")
def drops_empty_attributes(true: Any, stored: Stored, **what: Any) -> Delivery:
    """Attributes without text do not arrive."""
    delivery: Delivery = true(stored, **what)
    kept = {name: value for name, value in delivery.message.attributes.items() if value}
    return changed(delivery, attributes=kept)


@replaces(
    Stored,
    "shown",
    content.TestContent.test_a_body_comes_out_as_it_went_in,
    kind="plain",
    body=content.BODIES["line-ends"],
)
def normalises_line_ends(true: Any, stored: Stored, **what: Any) -> Delivery:
    """The line ends of a body are changed."""
    delivery: Delivery = true(stored, **what)
    return changed(delivery, body=delivery.message.body.replace(b"\r\n", b"\n"))


@replaces(
    Stored,
    "shown",
    content.TestSessionIdOnAPlainQueue.test_a_session_id_travels_on_a_queue_without_sessions,
)
def drops_the_session_where_there_are_none(true: Any, stored: Stored, **what: Any) -> Delivery:
    """A queue without sessions drops the session id."""
    return changed(true(stored, **what), session_id=None)


@replaces(Stored, "shown", content.TestContent.test_the_content_type_travels, kind="sessions")
def has_one_content_type(true: Any, stored: Stored, **what: Any) -> Delivery:
    """Every message arrives as JSON."""
    return changed(true(stored, **what), content_type="application/json")


@replaces(
    Stored,
    "shown",
    limits.TestAttributes.test_as_many_attributes_as_the_queue_takes_arrive,
    kind="plain",
)
def keeps_eight_attributes(true: Any, stored: Stored, **what: Any) -> Delivery:
    """Of the attributes that a queue says it takes the last does not arrive."""
    delivery: Delivery = true(stored, **what)
    return changed(delivery, attributes=dict(list(delivery.message.attributes.items())[:8]))


@replaces(InMemoryClient, "size", limits.TestSize.test_bytes_count_and_not_characters, kind="plain")
def counts_characters(true: Any, client: InMemoryClient, queue: str, message: Message) -> int:
    """The size of a message is counted in characters."""
    return len(message.body.decode(errors="replace"))


@replaces(
    Queue,
    "take_expired",
    time_to_live.TestTimeToLive.test_one_that_has_expired_is_handed_to_nobody,
    kind="plain",
)
def hands_out_expired(true: Any, queue: Queue, now: float) -> list[Stored]:
    """What has outlived its time-to-live is handed out."""
    return []


@replaces(PlainQueue, "_is_out", time_to_live.TestTimeToLive.test_one_in_hand_does_not_expire, kind="plain")
def lets_expire_what_is_in_hand(true: Any, queue: Queue, stored: Stored, now: float) -> bool:
    """A message expires while somebody works on it."""
    return False


@replaces(
    MemoryBroker,
    "store",
    time_to_live.TestTimeToLive.test_it_counts_from_when_a_delayed_message_is_due,
    kind="plain",
)
def counts_a_life_from_sending(
    true: Any, broker: MemoryBroker, queue: Any, message: Message, **how: Any
) -> Any:
    """The time-to-live of a delayed message begins when it is sent."""
    sequence = true(broker, queue, message, **how)
    for stored in queue.stored():
        stored.due_at -= how.get("delay", 0.0)
        how["delay"] = 0.0
    return sequence


@replaces(
    Queue,
    "take_expired",
    time_to_live.TestExpiredDeadLetters.test_a_dead_letter_does_not_expire,
    kind="plain",
)
def lets_dead_letters_expire(true: Any, queue: Queue, now: float) -> list[Stored]:
    """Dead letters expire."""
    above = queue.dead_letters
    queue.dead_letters = above or PlainQueue("nowhere", lease=1.0, dead_letters=None)
    try:
        return true(queue, now)  # type: ignore[no-any-return]
    finally:
        queue.dead_letters = above


@replaces(
    MemoryBroker,
    "catch_up",
    time_to_live.TestExpiredDeadLetters.test_where_it_is_wanted_an_expired_message_is_a_dead_letter,
    kind="plain",
)
def drops_all_that_expires(true: Any, broker: MemoryBroker, queue: Queue) -> None:
    """What expires is dropped, where the queue says that it goes to the dead letters."""
    queue.dead_letters_expired = False
    true(broker, queue)


@replaces(
    Stored,
    "shown",
    time_to_live.TestTimeToLive.test_one_that_is_received_in_time_says_how_long_it_was_given,
    kind="sessions",
)
def forgets_times_to_live(true: Any, stored: Stored, **what: Any) -> Delivery:
    """A message does not say what time-to-live it was given."""
    return changed(true(stored, **what), time_to_live=None)


@replaces(
    Stored,
    "shown",
    time_to_live.TestExpiredDeadLetters.test_a_replay_begins_it_anew_and_is_counted,
    kind="plain",
)
def forgets_replays(true: Any, stored: Stored, **what: Any) -> Delivery:
    """A message that came back from the dead letters does not say so."""
    return changed(true(stored, **what), replays=0)


@replaces(
    SentIds,
    "first",
    looking.TestDeduplication.test_of_two_with_one_deduplication_id_one_comes,
    kind="sessions",
)
def deduplicates_nothing_and_denies_it(true: Any, sent: SentIds, stored: Stored, now: float) -> int:
    """A repeated deduplication id is stored again, and the queue says that it is not."""
    return stored.sequence


@replaces(
    SentIds,
    "first",
    looking.TestDeduplication.test_of_many_sent_at_once_with_one_deduplication_id_one_comes,
    kind="sessions",
)
def deduplicates_by_the_message_id(true: Any, sent: SentIds, stored: Stored, now: float) -> int:
    """The deduplication id that a message was given is not looked at."""
    plain = replace(stored, message=replace(stored.message, deduplication_id=None))
    return true(sent, plain, now)  # type: ignore[no-any-return]


@replaces(
    SentIds,
    "first",
    looking.TestDeduplication.test_equal_messages_with_different_ids_all_come,
    kind="sessions",
)
def deduplicates_by_the_body(true: Any, sent: SentIds, stored: Stored, now: float) -> int:
    """A message with the body of an earlier one is dropped."""
    by_body = replace(stored, message=replace(stored.message, deduplication_id=stored.message.body.hex()))
    return true(sent, by_body, now)  # type: ignore[no-any-return]


@replaces(
    InMemoryClient,
    "cancel",
    scheduling.TestScheduling.test_one_that_was_cancelled_never_comes_and_the_others_do,
    kind="plain",
)
def cancels_nothing(true: Any, client: InMemoryClient, queue: str, receipts: Any) -> Any:
    """A message that was taken back comes all the same."""
    return [Outcome() for _ in receipts]


@replaces(
    InMemoryClient,
    "cancel",
    scheduling.TestScheduling.test_one_that_was_cancelled_never_comes_and_the_others_do,
    kind="plain",
)
def cancels_all(true: Any, client: InMemoryClient, queue: str, receipts: Any) -> Any:
    """With one message all that wait are taken back."""
    every = [str(stored.sequence) for stored in client._broker.queue(queue).stored()]
    return true(client, queue, every)[: len(receipts)]


@replaces(
    PlainQueue,
    "cancel",
    scheduling.TestScheduling.test_one_that_was_received_cannot_be_cancelled,
    kind="plain",
)
def cancels_what_is_due(true: Any, queue: PlainQueue, sequence: int, now: float) -> None:
    """A message that somebody has is taken back."""
    queue._messages.pop(sequence, None)


@replaces(
    InMemoryClient,
    "schedule",
    scheduling.TestScheduling.test_a_scheduled_message_comes_when_it_is_due,
    kind="sessions",
)
def schedules_for_now(true: Any, client: InMemoryClient, queue: str, messages: Sequence[Message]) -> Any:
    """A scheduled message is there at once."""
    return true(client, queue, [replace(message, delay=0.0) for message in messages])


@replaces(
    SessionQueue,
    "add",
    scheduling.TestSchedulingInASession.test_one_that_is_not_due_holds_back_no_other_of_its_session,
)
def schedules_at_the_head_of_the_session(true: Any, queue: SessionQueue, stored: Stored, now: float) -> int:
    """A message that is not due yet holds back its session."""
    queue.append(stored)
    return stored.sequence
