"""Links on which the broker sends a queue's messages, and the client says what became of them."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import UUID

from queue_runtime.testing.servicebus.amqp_types import Symbol
from queue_runtime.testing.servicebus.delivering import payload_of
from queue_runtime.testing.servicebus.errors import (
    ARGUMENT_ERROR,
    NOT_ALLOWED,
    TIMEOUT,
    AmqpError,
    DecodeError,
)
from queue_runtime.testing.servicebus.hub import Hub
from queue_runtime.testing.servicebus.links import Channel, OutgoingLink
from queue_runtime.testing.servicebus.messages import Message
from queue_runtime.testing.servicebus.performatives import (
    Accepted,
    Attach,
    Error,
    Modified,
    Outcome,
    Rejected,
    Released,
    Source,
)
from queue_runtime.testing.servicebus.queues import Refused, Session

SESSION_FILTER = "com.microsoft:session-filter"

NEXT_SESSION_PATIENCE = 65.0
"""Seconds that a client waits for the next free session if it names no time of its own."""

_TICKS_PER_MS = 10_000
_TICKS_AT_EPOCH = 621_355_968_000_000_000
"""From the year 1, where .NET's clock begins, to 1970."""


class Receiver(OutgoingLink):
    """A link to a queue: peek-lock, or, if the client wants messages settled, receive-and-delete."""

    def __init__(self, channel: Channel, theirs: Attach, hub: Hub) -> None:
        super().__init__(channel, theirs, hub.queue.path)
        self.session: Session | None = None
        self._hub = hub
        self._queue = hub.queue
        self._delete = theirs.snd_settle_mode == 1
        """What leaves is settled, and so out of the queue."""

    def start(self) -> None:
        self.confirm(max_message_size=self._queue.settings.max_message_size)
        self._hub.join(self)

    def offer(self) -> None:
        self._hub.wake()

    def take(self, now: float) -> bool:
        """Send the next message of the queue; False if it has none for this link."""
        try:
            stored = self._queue.take(now, holder=self, session=self.session, delete=self._delete)
        except Refused:  # the session's lock has expired this moment; the hub is told
            return False
        if stored is None:
            return False
        # The service puts no delivery tag on what it does not expect to hear of again.
        tag = stored.lock.token.bytes_le if stored.lock is not None else None
        self.deliver(payload_of(stored), tag=tag, settled=self._delete)
        return True

    def settled(self, delivery_id: int, tag: bytes, outcome: Outcome | None, settled: bool) -> None:
        """Do to the message what *outcome* says, and answer with the same, or with the reason why not."""
        faults = self.channel.broker.namespace.faults
        if not settled and faults.take("lose_disposition", self.entity):
            return
        try:
            self._settle(UUID(bytes_le=tag), outcome)
        except Refused as exc:
            outcome = Rejected(error=Error(condition=exc.condition, description=exc.description))
        else:
            if isinstance(outcome, Rejected):
                outcome = Rejected()  # with an error in it, it would be a refusal
        self._hub.touched()
        if not settled and not faults.take("drop_disposition", self.entity):
            self.channel.settle(delivery_id, outcome, sender=True)

    def gone(self) -> None:
        super().gone()
        self._hub.leave(self)

    def _settle(self, token: UUID, outcome: Outcome | None) -> None:
        now = time.time()
        match outcome:
            case Accepted():
                self._queue.settle(token, "completed", now, session=self.session)
            case Modified():
                self._queue.settle(
                    token,
                    "deferred" if outcome.undeliverable_here else "abandoned",
                    now,
                    session=self.session,
                    properties=properties_to_modify(outcome.message_annotations),
                )
            case Rejected():
                info = dict(outcome.error.info or {}) if outcome.error else {}
                self._queue.settle(
                    token,
                    "dead-lettered",
                    now,
                    session=self.session,
                    reason=_text(info.pop("DeadLetterReason", None)),
                    description=_text(info.pop("DeadLetterErrorDescription", None)),
                    properties=properties_to_modify(info),
                )
            case Released() | None:
                self._queue.settle(token, "released", now, session=self.session)
            case _:
                raise Refused(NOT_ALLOWED, f"a message cannot be settled with {outcome!r:.100}")


class SessionReceiver(Receiver):
    """A link to one session, whose lock it holds while it lasts. Until then its attach is not answered."""

    def __init__(self, channel: Channel, theirs: Attach, hub: Hub) -> None:
        super().__init__(channel, theirs, hub)
        self._patience: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Accept the session that the filter names, or wait for the next free one.

        Raises `Refused` if another client has the one that is named.
        """
        wanted = session_filter(self._theirs)
        if wanted is not None:
            session = self._queue.accept(wanted, self, time.time())
            assert session is not None, "a session that is named is there, or is refused"
            self.accepted(session)
            return
        milliseconds = (self._theirs.properties or {}).get("com.microsoft:timeout")
        patience = milliseconds / 1000 if isinstance(milliseconds, int) else NEXT_SESSION_PATIENCE
        self._patience = asyncio.get_running_loop().call_later(patience, self._give_up)
        self._hub.join_accepting(self)

    def accepted(self, session: Session) -> None:
        self.session = session
        if self._patience is not None:
            self._patience.cancel()
        ticks = round(session.until * 1000) * _TICKS_PER_MS + _TICKS_AT_EPOCH
        source = self._theirs.source or Source()
        self.confirm(
            source=Source(address=source.address, filter={Symbol(SESSION_FILTER): session.id}),
            max_message_size=self._queue.settings.max_message_size,
            properties={Symbol("com.microsoft:locked-until-utc"): ticks},
        )
        self._hub.join(self)
        self._hub.touched()

    def gone(self) -> None:
        super().gone()
        if self._patience is not None:
            self._patience.cancel()
        if self.session is not None:
            self._queue.release_session(self.session, time.time())

    def _give_up(self) -> None:
        self.refuse(TIMEOUT, f"no session of '{self._queue.path}' was free in the time that there was")


def session_filter(theirs: Attach) -> str | None:
    """Return the session that is wanted; None for the next free one."""
    assert theirs.source is not None
    assert theirs.source.filter is not None
    wanted = theirs.source.filter[SESSION_FILTER]
    if wanted is not None and not isinstance(wanted, str):
        raise AmqpError(NOT_ALLOWED, f"{SESSION_FILTER} is a string or null, not {wanted!r:.60}")
    return wanted


def properties_to_modify(found: Any) -> dict[Any, Any]:
    """Return application properties to set, as a settlement names them; `Refused` if they cannot be."""
    try:
        Message().with_application_properties(found or {})
    except DecodeError as exc:
        raise Refused(ARGUMENT_ERROR, exc.description) from exc
    return dict(found or {})


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
