"""Broken: sessions, their holders, their order and their states."""

from __future__ import annotations

from typing import Any

from queue_runtime.message import Delivery
from queue_runtime.provider import Abandon
from queue_runtime.providers.memory import InMemoryClient, InMemorySession
from queue_runtime.providers.memory_queues import GroupQueue, PlainQueue, Session, SessionQueue
from queue_runtime.testing.conformance import by_id, session_ends, session_states, sessions
from tests.conformance.broken_providers.base import replaces


@replaces(SessionQueue, "take", sessions.TestSessionOrder.test_a_batch_comes_in_its_order)
def loses_order(true: Any, queue: SessionQueue, session: Session, most: int, now: float) -> list[Delivery]:
    """What a session hands out at once comes in the reverse order."""
    taken: list[Delivery] = true(queue, session, most, now)
    return taken[::-1]


@replaces(
    GroupQueue,
    "take",
    sessions.TestOnePairOfHands.test_a_held_session_is_not_given_to_another_client,
    groups=True,
)
def loses_order_of_groups(
    true: Any, queue: GroupQueue, most: int, lease: float, now: float
) -> list[Delivery]:
    """Messages of a group are handed out while earlier ones of it are held."""
    return PlainQueue.take(queue, most, lease, now)


@replaces(SessionQueue, "take", sessions.TestSessionMessages.test_a_message_is_received_once)
def hands_out_again_what_is_in_hand(
    true: Any, queue: SessionQueue, session: Session, most: int, now: float
) -> list[Delivery]:
    """Each receive from a session begins at its first message."""
    for stored in session.messages.values():
        stored.leased_until = None
    return true(queue, session, most, now)  # type: ignore[no-any-return]


@replaces(Session, "free", sessions.TestOnePairOfHands.test_a_held_session_is_not_given_to_another_client)
def shares_sessions(true: Any, session: Session, now: float) -> bool:
    """A session that somebody holds is given to others."""
    return bool(session.messages)


@replaces(
    InMemoryClient, "accept_sessions", sessions.TestOnePairOfHands.test_other_sessions_flow_past_a_held_one
)
def accepts_more_than_it_is_asked_for(
    true: Any, client: InMemoryClient, queue: str, most: int, wait: float, **options: Any
) -> Any:
    """An accept holds one session more than it was asked for."""
    return true(client, queue, most + 1, wait, **options)


@replaces(
    InMemorySession, "close", session_ends.TestClose.test_closing_gives_the_session_back_at_once_and_in_order
)
def keeps_closed_sessions(true: Any, session: InMemorySession) -> None:
    """A session that is closed is held until its lease ends."""


@replaces(InMemoryClient, "_finish", session_ends.TestAbandon.test_an_abandoned_head_comes_back_first)
def puts_the_abandoned_at_the_end(
    true: Any, client: InMemoryClient, queue: Any, stored: Any, settlement: Any, *, remove: Any
) -> None:
    """A message that is given back goes behind the others of its session."""
    true(client, queue, stored, settlement, remove=remove)
    if isinstance(settlement, Abandon) and isinstance(queue, SessionQueue):
        queue._sessions[stored.key].messages.move_to_end(stored.sequence)


@replaces(Session, "let_go", session_ends.TestSessionLease.test_a_lost_session_comes_again_elsewhere_in_order)
def forgets_what_a_lost_session_had(true: Any, session: Session, now: float) -> None:
    """What was in hand when a hold ended is handed out to nobody again."""
    session.leased_until = None


@replaces(
    SessionQueue, "check", session_ends.TestSessionLease.test_a_lost_hold_takes_nothing_from_its_successor
)
def settles_for_lost_sessions(true: Any, queue: SessionQueue, session: Session, *hold: Any) -> None:
    """Whoever has lost a session may settle its messages."""


@replaces(Session, "let_go", session_ends.TestClose.test_a_hold_that_was_let_go_counts_as_the_queue_says)
def counts_closed_sessions_and_denies_it(true: Any, session: Session, now: float) -> None:
    """A session that is closed raises delivery counts, and its queue says that it does not."""
    session.leased_until = None
    for stored in session.messages.values():
        stored.leased_until = None


@replaces(SessionQueue, "accept_one", by_id.TestAcceptById.test_one_that_is_held_is_not_available)
def gives_by_id_what_another_holds(true: Any, queue: SessionQueue, session_id: str, now: float) -> Session:
    """A session that is asked for by its id is taken from its holder."""
    return queue._hold(queue._session(session_id, session_id), now)


@replaces(SessionQueue, "accept_one", by_id.TestAcceptById.test_it_is_the_one_that_was_asked_for)
def gives_another_than_was_asked_for(
    true: Any, queue: SessionQueue, session_id: str, now: float
) -> Session | None:
    """Who asks for a session by its id gets the next free one."""
    return queue.accept(now)


@replaces(SessionQueue, "accept_one", by_id.TestAcceptById.test_one_without_messages_is_held_like_any_other)
def has_no_session_without_messages(
    true: Any, queue: SessionQueue, session_id: str, now: float
) -> Session | None:
    """A session without messages is said to be held by another."""
    found: Session | None = true(queue, session_id, now)
    return found if found is not None and found.messages else None


@replaces(
    Session,
    "let_go",
    session_states.TestSessionState.test_what_was_set_is_there_for_the_next_holder,
    state=b"state",
)
def forgets_states(true: Any, session: Session, now: float) -> None:
    """A session's state ends with the hold."""
    true(session, now)
    session.state = None


@replaces(
    InMemorySession,
    "set_state",
    session_states.TestSessionState.test_what_was_set_is_there_for_the_next_holder,
    state=session_states.STATES["any-bytes"],
)
def keeps_states_as_text(true: Any, session: InMemorySession, state: bytes | None) -> None:
    """Of a session's state only text is kept."""
    true(session, None if state is None else state.decode(errors="replace").encode())


@replaces(InMemorySession, "set_state", session_states.TestSessionState.test_each_session_has_its_own)
def shares_states(true: Any, session: InMemorySession, state: bytes | None) -> None:
    """All sessions have one state."""
    for each in session._queue._sessions.values():
        each.state = state


@replaces(InMemorySession, "set_state", session_states.TestSessionState.test_it_may_be_replaced_and_removed)
def keeps_states_that_are_removed(true: Any, session: InMemorySession, state: bytes | None) -> None:
    """A session's state can be replaced and not removed."""
    if state is not None:
        true(session, state)


@replaces(
    InMemorySession,
    "set_state",
    session_states.TestSessionState.test_one_who_has_lost_it_without_knowing_changes_nothing,
)
def lets_lost_sessions_at_the_state(true: Any, session: InMemorySession, state: bytes | None) -> None:
    """Whoever has lost a session may set its state."""
    session._session.state = state


@replaces(
    InMemorySession,
    "set_state",
    session_states.TestWorkersAndSessionState.test_handlers_hand_it_on_along_the_session,
)
def sets_a_state_once(true: Any, session: InMemorySession, state: bytes | None) -> None:
    """A session's state is what it was set to first."""
    if session._session.state is None:
        true(session, state)
