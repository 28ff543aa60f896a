"""One queue of the namespace: what it is, and its senders, receivers and sessions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from azure.servicebus import ServiceBusMessage

from queue_runtime.errors import (
    AuthorizationFailed,
    InvalidReceipt,
    OperationTimeout,
    Outcome,
    QueueError,
    UnsupportedOperation,
)
from queue_runtime.message import Message
from queue_runtime.provider import Capabilities, DeadLetter, QueueDescription, Settlement
from queue_runtime.providers.servicebus import sdk, wire
from queue_runtime.providers.servicebus.connecting import Connector
from queue_runtime.providers.servicebus.errors import PROVIDER
from queue_runtime.providers.servicebus.facts import Administration, Sizes, capabilities, described
from queue_runtime.providers.servicebus.openings import Openings
from queue_runtime.providers.servicebus.receivers import Receivers
from queue_runtime.providers.servicebus.senders import Senders
from queue_runtime.providers.servicebus.session import NativeSession

T = TypeVar("T")


class ServiceBusQueue:
    """Any thread may call. Connects on first use."""

    def __init__(self, name: str, connector: Connector, administration: Administration) -> None:
        self.name = name
        self._connector = connector
        self._administration = administration
        self._is_dead_letters = sdk.is_dead_letters(name)
        self._senders = Senders(name, connector)
        self.receivers = Receivers(name, connector, self)
        self.openings = Openings(self._open_next, connector)
        # One thread asks; the others wait for its answer, at most as long as connecting takes.
        self._asking = threading.Lock()
        # written under _asking; read without it, because it stays
        self._capabilities: Capabilities | None = None

    @property
    def capabilities(self) -> Capabilities:
        """Asked of the service at first."""
        if self._capabilities is None:
            with self._asking:
                if self._capabilities is None:
                    self._capabilities = self._ask()
        return self._capabilities

    def describe(self) -> QueueDescription:
        told = self._administration.ask(self.name)
        found = self.capabilities
        if told is None and found.sessions == "none":
            self.receivers.peek(1, 0)  # is it still there?
        return described(self.name, found, told, self.receivers.lease)

    def send(self, messages: Sequence[Message]) -> None:
        """All of *messages* or none, at once."""
        self._check_takes()
        self._senders.send([self._outgoing(message) for message in messages])

    def send_later(self, message: Message) -> str:
        """What `cancel` takes."""
        self._check_takes()
        due_at = self._connector.clock.now() + timedelta(seconds=message.delay)
        return str(self.schedule(self._outgoing(message), due_at))

    def schedule(self, message: ServiceBusMessage, due_at: datetime) -> int:
        """Also of copies that receivers make."""
        self._check_takes()
        return self._senders.schedule(message, due_at)

    def cancel(self, receipt: str | int) -> None:
        if not str(receipt).isdecimal():
            raise InvalidReceipt(f"{receipt!r} is no receipt of a scheduled message", provider=PROVIDER)
        self._senders.cancel(int(receipt))

    def session(self, session_id: str) -> NativeSession:
        """Hold one session. Raises `SessionNotAvailable`."""
        self.check_sessions()
        native = wire.native_session_id(session_id)
        link = self._connector.connect(self.name, session=native)
        return NativeSession(link, self._connector, session_id=session_id)

    def check_sessions(self) -> None:
        if self.capabilities.sessions == "none":
            raise UnsupportedOperation(
                f"queue {self.name!r} has no sessions: receive from it, or use one that requires sessions",
                provider=PROVIDER,
            )

    def settle(self, settlements: Sequence[Settlement]) -> Sequence[Outcome[None]]:
        if not self._is_dead_letters:
            return self.receivers.settle(settlements)
        refused = Outcome[None](
            error=UnsupportedOperation(
                f"{self.name!r} is a dead-letter queue and has none of its own; "
                "complete the message, or replay it",
                provider=PROVIDER,
            )
        )
        wanted = [one for one in settlements if not isinstance(one, DeadLetter)]
        answers = iter(self.receivers.settle(wanted))
        return [refused if isinstance(one, DeadLetter) else next(answers) for one in settlements]

    def wake(self) -> None:
        self.receivers.wake()
        self.openings.wake()

    def close(self) -> None:
        self.receivers.close()
        self.openings.close()
        self._senders.close()

    def _open_next(self, wait: float) -> NativeSession | None:
        try:
            link = self._connector.connect(self.name, wait=wait)
        except OperationTimeout:
            return None  # none was free
        return NativeSession(link, self._connector)

    def _outgoing(self, message: Message) -> ServiceBusMessage:
        return wire.outgoing(message, sessions=self.capabilities.sessions != "none")

    def _check_takes(self) -> None:
        if self._is_dead_letters:
            raise UnsupportedOperation(
                f"{self.name!r} is a dead-letter queue, which takes nothing but what its queue gives up",
                provider=PROVIDER,
            )

    def _ask(self) -> Capabilities:
        """The kind from the management service, or by connecting a receiver; the sizes from a sender's link.
        Who may only send, or only receive, learns as much as that needs."""
        if self._is_dead_letters:
            return capabilities(sessions=False, sizes=Sizes(), takes=False)
        told = self._administration.ask(self.name)
        kind: list[Outcome[bool]] = []
        sizes: list[Outcome[Sizes]] = []
        self._connector.beside.together(
            [
                lambda: kind.append(
                    outcome_of(
                        partial(self._has_sessions, None if told is None else bool(told[0].requires_session))
                    )
                ),
                lambda: sizes.append(outcome_of(lambda: Sizes(*self._senders.sizes()))),
            ]
        )
        for one, other in ((kind[0].error, sizes[0].error), (sizes[0].error, kind[0].error)):
            if one is not None and not (isinstance(one, AuthorizationFailed) and other is None):
                raise one
        return capabilities(
            sessions=bool(kind[0].value),
            sizes=sizes[0].value or Sizes(),
            deduplication=None if told is None else bool(told[0].requires_duplicate_detection),
        )

    def _has_sessions(self, told: bool | None) -> bool:
        if told is not None:
            return told
        try:
            self.receivers.adopt(self._connector.connect(self.name))
        except UnsupportedOperation:
            return True
        return False


def outcome_of(act: Callable[[], T]) -> Outcome[T]:
    try:
        return Outcome(act())
    except QueueError as exc:
        return Outcome(error=exc)
