"""Broken: dead letters, what is told of them, and what goes back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from queue_runtime.message import Message
from queue_runtime.provider import Complete, DeadLetter
from queue_runtime.providers.memory import InMemoryClient
from queue_runtime.providers.memory_broker import MemoryBroker
from queue_runtime.providers.memory_queues import PlainQueue, Queue, SentIds, SessionQueue, Stored
from queue_runtime.testing.conformance import dead_letters
from tests.conformance.broken_providers.base import replaces


@replaces(
    MemoryBroker,
    "store",
    dead_letters.TestDeadLetters.test_a_dead_lettered_message_is_gone_from_the_queue,
    kind="plain",
)
def dead_letters_without_a_copy(
    true: Any, broker: MemoryBroker, queue: Any, message: Message, **options: Any
) -> int:
    """A message that is dead-lettered is removed, and no dead letter is stored."""
    return 0 if options.get("info") is not None else true(broker, queue, message, **options)


@replaces(
    MemoryBroker,
    "store",
    dead_letters.TestDeadLetters.test_it_keeps_what_it_was_and_says_why_it_is_there,
    kind="plain",
)
def dead_letters_without_a_reason(
    true: Any, broker: MemoryBroker, queue: Any, message: Message, **options: Any
) -> int:
    """A dead letter does not say why it is there."""
    if options.get("info") is not None:
        options["info"] = replace(options["info"], description=None, message_id=None)
    return true(broker, queue, message, **options)  # type: ignore[no-any-return]


@replaces(
    MemoryBroker,
    "store",
    dead_letters.TestReplay.test_a_message_goes_there_and_back_again_and_again,
    kind="plain",
)
def dead_letters_without_a_body(
    true: Any, broker: MemoryBroker, queue: Any, message: Message, **options: Any
) -> int:
    """Of a dead letter only what describes it is kept."""
    kept = message if options.get("info") is None else replace(message, body=b"")
    return true(broker, queue, kept, **options)  # type: ignore[no-any-return]


@replaces(
    InMemoryClient,
    "_finish",
    dead_letters.TestDeadLetters.test_a_dead_lettered_message_is_gone_from_the_queue,
    kind="plain",
)
def dead_letters_by_copy_only(true: Any, client: InMemoryClient, *what: Any, remove: Any) -> None:
    """A message that is dead-lettered stays in its queue too."""
    kept = isinstance(what[2], DeadLetter)
    true(client, *what, remove=(lambda: None) if kept else remove)


@replaces(
    InMemoryClient,
    "_finish",
    dead_letters.TestNoDeadLetterQueue.test_without_a_dead_letter_queue_the_message_stays,
)
def drops_what_has_no_dead_letter_queue(
    true: Any, client: InMemoryClient, queue: Queue, stored: Stored, settlement: Any, *, remove: Any
) -> None:
    """Where there is no dead-letter queue a message that is dead-lettered is removed."""
    if isinstance(settlement, DeadLetter) and queue.dead_letters is None:
        remove()
    else:
        true(client, queue, stored, settlement, remove=remove)


@replaces(
    InMemoryClient,
    "_finish",
    dead_letters.TestAFileOfDeadLetters.test_a_message_goes_into_a_file_and_comes_back_from_it_whole,
    kind="plain",
)
def removes_no_dead_letter(
    true: Any, client: InMemoryClient, queue: Queue, stored: Stored, settlement: Any, *, remove: Any
) -> None:
    """A dead letter that is removed stays."""
    kept = isinstance(settlement, Complete) and queue.dead_letters is None
    true(client, queue, stored, settlement, remove=(lambda: None) if kept else remove)


@replaces(
    InMemoryClient,
    "_finish",
    dead_letters.TestRemovingDeadLetters.test_those_that_are_named_are_removed,
    kind="plain",
)
def removes_another_dead_letter(
    true: Any, client: InMemoryClient, queue: Queue, stored: Stored, settlement: Any, *, remove: Any
) -> None:
    """In place of the dead letter that is named the oldest is removed."""
    if isinstance(settlement, Complete) and isinstance(queue, PlainQueue) and queue.dead_letters is None:
        queue.remove(next(queue.stored()))
    else:
        true(client, queue, stored, settlement, remove=remove)


@replaces(
    InMemoryClient,
    "purge",
    dead_letters.TestRemovingDeadLetters.test_a_purge_of_everything_leaves_nothing,
    kind="sessions",
)
def purges_all_but_dead_letters(true: Any, client: InMemoryClient, queue: str) -> None:
    """A purge of dead letters is confirmed, and none is removed."""
    if not queue.endswith("/$DeadLetterQueue"):
        true(client, queue)


@replaces(
    SentIds,
    "first",
    dead_letters.TestReplay.test_a_message_goes_there_and_back_again_and_again,
    kind="sessions",
)
def takes_a_replay_for_a_repetition(true: Any, sent: SentIds, stored: Stored, now: float) -> int:
    """What comes back from the dead letters is confirmed and dropped, for the queue has had its id."""
    plain = replace(stored, message=replace(stored.message, deduplication_id=None))
    return true(sent, plain, now)  # type: ignore[no-any-return]


@replaces(
    SessionQueue,
    "append",
    dead_letters.TestReplayOfSessions.test_each_session_goes_back_in_its_order_behind_what_it_has_now,
)
def puts_replays_at_the_head_of_the_session(true: Any, queue: SessionQueue, stored: Stored) -> None:
    """What comes back from the dead letters passes what its session has by then."""
    true(queue, stored)
    if stored.message.replays:
        queue._sessions[stored.key].messages.move_to_end(stored.sequence, last=False)
