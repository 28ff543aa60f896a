"""What goes back to the queue, and in which order: pure functions of what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from queue_runtime.message import MAX_REPLAYS, DeadLetterInfo, Delivery, Message


def copy_of(message: Message, info: DeadLetterInfo | None, deduplication_id: str) -> Message:
    """*message* as it is sent again, counted, with a deduplication id that the queue cannot have seen."""
    return replace(
        message,
        # The message's own first: a record is trimmed where it would not fit.
        session_id=message.session_id or (info.session_id if info else None),
        deduplication_id=deduplication_id,
        delay=0.0,
        replays=min(message.replays + 1, MAX_REPLAYS),
    )


def replay_id(broker_id: str) -> str:
    """The deduplication id of the copy of a dead letter. The same at every try: a queue that drops repeated
    ones stores one copy, however often a replay is broken off between sending and removing."""
    return f"re-{broker_id}"


def session_of(delivery: Delivery) -> str | None:
    info = delivery.dead_letter
    return delivery.message.session_id or (info.session_id if info else None)


def in_order(deliveries: Sequence[Delivery]) -> list[Delivery]:
    """As they came, except that those of a session change places: they go in the order they were sent in.

    So that the sessions stay mixed, and requests full, and that a limit takes the oldest.
    """
    places: dict[str | None, list[int]] = {}
    for place, delivery in enumerate(deliveries):
        places.setdefault(session_of(delivery), []).append(place)
    ordered = list(deliveries)
    for mine in places.values():
        for place, delivery in zip(mine, sorted((deliveries[i] for i in mine), key=_sequence), strict=True):
            ordered[place] = delivery
    return ordered


def _sequence(delivery: Delivery) -> int:
    """Where it stood in its queue, if that was noted; else where it stands among the dead letters."""
    info = delivery.dead_letter
    sequence = info.sequence if info and info.sequence is not None else delivery.sequence
    return sequence or 0
