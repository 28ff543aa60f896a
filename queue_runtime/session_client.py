"""One session in hand: its messages in order, under one lease."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Self, TypeVar

from queue_runtime import expiring
from queue_runtime.errors import (
    InvalidArgument,
    Outcome,
    OutcomeUnknown,
    QueueError,
    UnsupportedOperation,
)
from queue_runtime.leases import Held
from queue_runtime.message import Lease, ReceivedMessage
from queue_runtime.provider import (
    Abandon,
    Cancelled,
    Complete,
    DeadLetter,
    ProviderSession,
    Settlement,
    never,
)
from queue_runtime.retry import check_number, check_whole
from queue_runtime.runtime import Runtime
from queue_runtime.session_state import Mark, SessionState, pack, unpack
from queue_runtime.settling import (
    as_list,
    check_delay,
    dead_letter_info,
    raise_failed,
    settle,
    settle_once,
)

T = TypeVar("T")


def check_question(max_messages: int, wait: float) -> None:
    """Raise `InvalidArgument` unless so many messages can be asked for, and waited for so long."""
    check_whole("max_messages", max_messages, least=1, raises=InvalidArgument)
    check_number("wait", wait, least=0, unit="seconds", raises=InvalidArgument)


class SessionClient:
    """An exclusive hold on a session, made by `QueueClient.accept_session`.

    As a context manager it keeps the session's lease alive; leaving it releases what was not settled, free
    at once and in order. Without `with`, call `renew` and `close` yourself. All messages of the session
    share its lease. Any thread may use it, one call at a time keeps the order.
    """

    def __init__(self, runtime: Runtime, queue: str, session: ProviderSession) -> None:
        self._runtime = runtime
        self._session = session
        self.queue = queue
        self.session_id = session.session_id
        self.lease = Lease(
            runtime.clock,
            until=session.leased_until,
            length=session.lease,
            what=f"session {session.session_id!r} of queue {queue!r}",
            session=True,
        )
        session.on_lost = self.lease.lose
        self._lock = threading.Lock()
        # guarded by _lock
        self._closed = False
        self._state: SessionState | None = None  # as the broker has it; None: not asked for yet

    def receive(self, *, max_messages: int = 10, wait: float = 0.0) -> list[ReceivedMessage]:
        """The session's next messages in order; an empty list after *wait* seconds is a normal answer.

        On SQS a session is what the broker handed out together, ten messages at most: when they are out the
        answer is empty at once, and when they are settled `accept_session` brings what comes after them.
        What has outlived its time-to-live is taken out first; if that cannot be settled the session is over,
        and the error raised. Raises `SessionLeaseLost` if the session is no longer held.
        """
        check_question(max_messages, wait)
        self._runtime.check_open()
        return self.next_messages(max_messages, wait)

    def complete(self, messages: ReceivedMessage | Iterable[ReceivedMessage]) -> None:
        """Remove messages that are done. Returns when the broker has agreed; twice is harmless.

        Raises `SessionLeaseLost`, `InvalidReceipt`, `SettlementError` or `OutcomeUnknown`; for several
        messages `BatchFailed` with an outcome for each.
        """
        self._settle(messages, lambda message: Complete(message.delivery))

    def abandon(self, message: ReceivedMessage, *, delay: float = 0.0) -> None:
        """Give *message* back, to come first again after *delay* seconds, and with it the whole session.

        Whatever comes later in the session waits behind it, so nothing more of it can be done here: `receive`
        answers nothing and settling raises `SessionLeaseLost`.
        """
        check_delay(delay)
        try:
            self._settle(message, lambda message: Abandon(message.delivery, delay))
        except OutcomeUnknown:
            self._end_by_abandon()  # it may be given back: nothing behind it may be done here
            raise
        self._end_by_abandon()

    def _end_by_abandon(self) -> None:
        self.lease.lose("a message of it was abandoned")
        self.close()

    def dead_letter(
        self,
        messages: ReceivedMessage | Iterable[ReceivedMessage],
        *,
        reason: str,
        description: str | None = None,
    ) -> None:
        """Move messages to the dead-letter queue; they leave the session when the copies are confirmed.

        Raises as `complete` does, and `UnsupportedOperation` if there is no dead-letter queue; the messages
        are untouched then.
        """
        self._settle(
            messages,
            lambda message: DeadLetter(
                message.delivery, dead_letter_info(message, reason=reason, description=description)
            ),
        )

    def renew(self) -> None:
        """Hold the session for another lease. Raises `SessionLeaseLost` if that cannot be."""
        self._runtime.check_open()
        self.lease.check()
        target = self._runtime.target(self.queue)
        self.lease.extend(self._runtime.retrying("renew", target, self._session.renew))
        self._runtime.leases.renewed(self.lease)

    def get_state(self) -> bytes | None:
        """The session's own bytes, which stay when it is let go; None: there are none.

        Raises `UnsupportedOperation` where sessions have no state (`Capabilities.session_state`; SQS), and
        `SessionLeaseLost` if the session is no longer held.
        """
        return self._ask_for_state("get_state").user

    def set_state(self, state: bytes | None) -> None:
        """Replace the session's own bytes; None removes them. Returns when the broker has agreed.

        They are stored behind a line that tells them from what other programs write; over what is foreign
        they are written as they are. Raises as `get_state`, and what the broker says if they are too many
        (Service Bus: as many as a message may have).
        """
        if state is not None and not isinstance(state, bytes):
            raise InvalidArgument(f"the state of a session is bytes or None, not a {type(state).__name__}")
        with self._lock:
            known = self._state
        known = known or self._ask_for_state("set_state")
        self._about_state("set_state", lambda: self.write_state(replace(known, user=state)))

    def close(self) -> None:
        """Let the session go. What is not settled is free at once, in its order. Twice is harmless.

        If the broker cannot be told, it learns when the lease ends. In a forked child this does nothing: the
        session is the parent's, which may be in the middle of it.
        """
        if self._runtime.inherited:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._runtime.leases.forget(self.lease, join=True)
        with suppress(QueueError):  # the guard has told the listeners; the lease ends by itself
            self._session.close()
        self.lease.lose("it was closed")

    def __enter__(self) -> Self:
        self.keep_alive()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"<SessionClient {self.session_id!r} of {self.queue!r} [{'lost' if self.lease.lost else 'held'}]>"
        )

    # For the library's own use.

    @property
    def continues(self) -> bool:
        """False if nothing can come behind what it began with."""
        return self._session.continues

    def has_unsettled(self) -> bool:
        """True if it surely has messages that `close` would give back."""
        return self._session.has_unsettled()

    def keep_alive(self) -> None:
        """Renew the lease whenever it is due, until `close`."""
        self._runtime.leases.watch(
            Held(
                lease=self.lease,
                lane=_SessionLane(self._session),
                queue=self.queue,
                session_id=self.session_id,
            )
        )

    def next_messages(
        self, max_messages: int, wait: float, *, cancelled: Cancelled = never
    ) -> list[ReceivedMessage]:
        """What `receive` answers; the wait can be cancelled."""
        while True:
            with self._lock:
                if self._closed:
                    return []
            arrived = [
                ReceivedMessage(delivery, queue=self.queue, lease=self.lease, owner=self)
                for delivery in self._session.receive(max_messages, wait, cancelled=cancelled)
            ]
            live = self._live(arrived)
            if live or not arrived:
                return live
            wait = 0.0  # something came

    def _live(self, arrived: Sequence[ReceivedMessage]) -> list[ReceivedMessage]:
        """*arrived* without what expired. If that cannot be settled the session ends: nothing may pass it."""
        try:
            return expiring.take_out_of_session(self._runtime, self, arrived, self._session.settle)
        except QueueError as exc:
            self.lease.lose(f"an expired message of it could not be settled: {type(exc).__name__}")
            self.close()
            raise

    def read_state(self) -> SessionState:
        """Ask the broker for the session's state: one request, no retry."""
        state = unpack(self._session.get_state())
        with self._lock:
            self._state = state
        return state

    def write_state(self, state: SessionState) -> None:
        """Have the broker store the session's state: one request, no retry."""
        try:
            self._session.set_state(pack(state))
        except OutcomeUnknown:
            with self._lock:
                self._state = None  # it may be the one or the other: whoever needs it asks
            raise
        with self._lock:
            self._state = state

    def rewrite_mark(self, mark: Mark | None) -> None:
        """Have it stored with this *mark*, beside the user's own bytes as they are by now; no retry."""
        with self._lock:
            known = self._state
        self.write_state(replace(known or self.read_state(), mark=mark))

    def settle_once(
        self, messages: Sequence[ReceivedMessage], settlements: Sequence[Settlement]
    ) -> Sequence[Outcome[None]]:
        """One request, no retry."""
        return settle_once(self._runtime.leases, messages, settlements, self._session.settle)

    def _ask_for_state(self, operation: str) -> SessionState:
        return self._about_state(operation, self.read_state)

    def _about_state(self, operation: str, act: Callable[[], T]) -> T:
        self._runtime.check_open()
        self.lease.check()
        target = self._runtime.target(self.queue)
        if not self._runtime.capabilities(target).session_state:
            raise UnsupportedOperation(
                f"sessions of queue {self.queue!r} have no state; keep it in a database of your own",
                queue=self.queue,
                operation=operation,
            )
        return self._runtime.retrying(operation, target, act)

    def _settle(
        self,
        messages: ReceivedMessage | Iterable[ReceivedMessage],
        make: Callable[[ReceivedMessage], Settlement],
    ) -> None:
        self._runtime.check_open()
        chosen = as_list(messages)
        errors = settle(self._runtime, self, chosen, make, self._session.settle)
        raise_failed("settle", chosen, errors)


class _SessionLane:
    """Renews one session: it shares its requests with no other."""

    def __init__(self, session: ProviderSession) -> None:
        self._session = session
        self.key = session

    def renew(self, held: Sequence[Held]) -> Sequence[Outcome[float]]:
        return [Outcome(self._session.renew())] * len(held)
