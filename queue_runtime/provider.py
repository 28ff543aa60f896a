"""The contract between the portable layer and a broker.

`QueueClient` owns all that is shared: names, validation, strategy, codec, batching, retry, breaker,
events, fork safety. A provider is small and blocking. What every provider owes, and the conformance
suite checks:

- **Any thread may call any method at any time.** Settling or renewing waits for a receive at most 50 ms.
- **A provider never retries and never sleeps between tries**; its SDK's retries are off. The portable
  layer retries, once, in one place.
- **A provider never waits longer than it was told**, give or take 250 ms on a healthy network. Outside
  long polls every network wait is at most a sixth of the lease.
- **Batches answer per entry, aligned with the input.** One failure never hides another. An error is
  *raised* only if it stands for every entry alike.
- **Settling with one receipt twice does no harm**: it succeeds again, or is `InvalidReceipt` or `LeaseLost`,
  as a stale receipt is wherever the broker can tell.
- **Unknown is unknown**: a request that left and was not answered is `OutcomeUnknown`; one that did not
  leave is `ConnectionFailed`.
- **Leases err on the safe side**: they date from before the call that made them.
- **What comes after `close` is released**, and every call after it raises `Closed`.
- **Errors are `QueueError`s**, translated once, by a table, with the SDK's error as their cause.

A factory ``(settings: ProviderSettings, clock: Clock) -> ProviderClient``, named by an entry point of the
group ``queue_runtime.providers``, makes one. It must not connect: a client is made long before it is used.
A provider starts no thread that it does not end in `close`, and is never used in a process other than the
one that made it: after a fork the portable layer makes a new one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from queue_runtime.errors import Outcome, UnsupportedOperation
from queue_runtime.message import DeadLetterInfo, Delivery, Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What one queue can do. Asking for more raises `UnsupportedOperation` before anything is sent."""

    sessions: Literal["none", "native", "groups"]
    """`native`: the broker gives out sessions. `groups`: it gives out messages whose groups are exclusive,
    and the portable layer makes sessions of them. `none`: there is no order to keep."""
    max_message_size: int
    """Bytes, as `ProviderClient.size` counts them."""
    max_batch: int
    """Entries in one send, settle or renew request, and messages in one receive."""
    max_batch_size: int
    """Bytes of all messages in one send."""
    batched_settling: bool
    """Completions, delays and renewals of several messages are one request; if not, each is a request of its
    own, and gains nothing by waiting for others."""
    atomic_batch: bool
    """A send request is stored whole or not at all; if not, it carries at most one entry of a session."""
    max_attributes: int | None
    """User attributes in one message; None: no limit but the size."""
    max_delay: float
    """Longest delay of a message in seconds; 0: it cannot be delayed. The broker sees to it; on SQS beyond 15
    minutes whoever receives meanwhile does."""
    max_lease: float
    """Longest time one hold may last in seconds, renewals included."""
    peek: bool
    """Looking at messages without taking them."""
    chosen_lease: bool
    """A receive or a renewal may ask for a lease of its own length; if not, it is always the queue's."""
    cancel: bool
    """A message that is not due yet can be taken back: `ProviderClient.schedule` and `cancel`."""
    copied_delays: bool
    """An `Abandon` with a delay, outside sessions, replaces the message by a scheduled copy, because the
    broker has no delay for one that is in hand. A worker holds short delays itself instead."""
    session_state: bool
    """A session has a few bytes of its own: `ProviderSession.get_state` and `set_state`."""
    deduplication: bool | None = None
    """A message whose deduplication id the queue has had a while ago (SQS: five minutes) is agreed to and
    dropped; None: the broker does not tell these credentials."""
    native_expiry: bool = False
    """The broker itself takes out what has outlived its time-to-live, and the queue's own setting decides
    whether it is dropped or dead-lettered. If not, whoever receives it does, as the client's settings say,
    and until then it counts."""
    purge: bool = False
    """All messages can be removed in one request: `ProviderClient.purge`."""
    counts_lost_sessions: bool
    """A hold on a session that is closed, or ends with its connection, raises the delivery counts of what it
    had in hand. Where it does not (one that runs out may do so all the same), a message that ends its process
    leaves no trace, unless the worker marks it in the session's state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDescription:
    """A queue as its broker tells it. Counts may be a minute old on the clouds.

    What the broker does not tell these credentials is None.
    """

    name: str
    """The broker's name for it, or its URL."""
    capabilities: Capabilities
    active: int | None
    """Messages that a receive could have now."""
    leased: int | None
    delayed: int | None
    lease: float | None
    """Seconds a hold lasts if nothing else is asked for."""
    dead_letter_queue: str | None
    """A name that can be received from; None: there is no dead-letter queue."""
    max_receives: int | None
    """Deliveries after which the broker itself moves a message to the dead-letter queue."""
    retention: float | None
    """Seconds a message stays if nobody takes it; None: for ever."""


@dataclass(frozen=True, slots=True)
class Complete:
    """The handler is done with it: remove it."""

    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Abandon:
    """Give it back, to be handed out again after `delay` seconds."""

    delivery: Delivery
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Move it to the dead-letter queue; it leaves the queue only when the copy is confirmed."""

    delivery: Delivery
    info: DeadLetterInfo


Settlement = Complete | Abandon | DeadLetter

Cancelled = Callable[[], bool]
"""Asked by a wait whether it should end: when it begins, and when `ProviderClient.wake` is called."""


def never() -> bool:
    """Nothing cancels this wait."""
    return False


class ProviderSession(ABC):
    """An exclusive hold on one session. Any thread may call; calls of one session come one at a time.

    Its deliveries are settled through it while it is held. `leased_until` is on the clock's monotonic scale.
    """

    session_id: str
    lease: float
    leased_until: float
    continues: bool = True
    """More messages may come while it is held; if not, it is over when what it began with is settled."""
    on_lost: Callable[[str], None] = staticmethod(lambda reason: None)
    """Called, with the reason, when the provider learns by itself that the session is no longer held."""

    @abstractmethod
    def receive(self, max_messages: int, wait: float, *, cancelled: Cancelled = never) -> Sequence[Delivery]:
        """The session's next messages in order, within *wait* seconds; an empty answer is a normal one.

        *cancelled* ends the wait early, as in `ProviderClient.receive`. Raises `SessionLeaseLost` if the
        session is no longer held.
        """

    @abstractmethod
    def settle(self, settlements: Sequence[Settlement]) -> Sequence[Outcome[None]]:
        """Settle deliveries of this session. After an `Abandon` the caller closes the session."""

    @abstractmethod
    def renew(self) -> float:
        """Hold the session for another lease; returns its new end. Raises `SessionLeaseLost` if it cannot."""

    def has_unsettled(self) -> bool:
        """True if it surely has messages that `close` would give back; False also where that is not known."""
        return False

    @abstractmethod
    def close(self) -> None:
        """Let the session go: what is not settled is free at once, in its order. Twice is harmless.

        After an `Abandon` with a delay it is free when that has passed, as far as the provider can see to it.
        """

    def get_state(self) -> bytes | None:
        """The session's own bytes; None if there are none. Only with `Capabilities.session_state`."""
        raise UnsupportedOperation("sessions of this queue have no state; keep it in a database of your own")

    def set_state(self, state: bytes | None) -> None:
        """Replace the session's own bytes; None removes them. Only with `Capabilities.session_state`."""
        raise UnsupportedOperation("sessions of this queue have no state; keep it in a database of your own")


class ProviderClient(ABC):
    """One broker. Queues are the broker's own names; *lease* and *wait* are seconds."""

    name: ClassVar[str]

    @abstractmethod
    def describe(self, queue: str) -> QueueDescription:
        """Ask the broker. Raises `QueueNotFound`."""

    @abstractmethod
    def capabilities(self, queue: str) -> Capabilities:
        """What `describe` said of it, remembered after the first time."""

    @abstractmethod
    def size(self, queue: str, message: Message) -> int:
        """Bytes that count against `Capabilities.max_message_size`. No I/O."""

    @abstractmethod
    def send(self, queue: str, messages: Sequence[Message]) -> Sequence[Outcome[None]]:
        """Store at most `Capabilities.max_batch` messages, of `max_batch_size` bytes, in one request."""

    @abstractmethod
    def receive(
        self,
        queue: str,
        max_messages: int,
        wait: float,
        *,
        lease: float | None = None,
        cancelled: Cancelled = never,
    ) -> Sequence[Delivery]:
        """Block for at most *wait*; an empty answer is a normal one.

        A wait that can be woken ends when *cancelled* is true; it is called with the provider's own locks
        held, so it must be quick and take none that calls back. Where the SDK cannot be woken (an SQS long
        poll) it is asked at most once, before the wait.

        *lease* None means the queue's own. On a queue with `sessions="groups"` this is the portable layer's
        way to its groups; with `sessions="native"` it raises `UnsupportedOperation`.
        """

    @abstractmethod
    def accept_sessions(
        self, queue: str, most: int, wait: float, *, cancelled: Cancelled = never
    ) -> Sequence[ProviderSession]:
        """Hold up to *most* free sessions with messages, as soon as there is one; none after *wait* seconds,
        or when it is *cancelled*. Where opening one takes long, several are opened beside each other, and
        what comes too late for this call is kept a moment for the next.

        Only with `sessions="native"`; else it raises `UnsupportedOperation`.
        """

    @abstractmethod
    def accept_session(self, queue: str, session_id: str) -> ProviderSession:
        """Hold this session, whether it has messages or not.

        Raises `SessionNotAvailable` if another holds it. Only with `sessions="native"`; else it raises
        `UnsupportedOperation`.
        """

    @abstractmethod
    def settle(self, queue: str, settlements: Sequence[Settlement]) -> Sequence[Outcome[None]]:
        """Settle deliveries that `receive` brought; any number of them."""

    @abstractmethod
    def renew(
        self, queue: str, deliveries: Sequence[Delivery], *, lease: float | None = None
    ) -> Sequence[Outcome[float]]:
        """Hold deliveries for another *lease*; the answers are their new ends, on the monotonic scale.

        *lease* None means what each was received with.
        """

    @abstractmethod
    def peek(self, queue: str, max_messages: int, *, after: int = 0) -> Sequence[Delivery]:
        """Look at the first messages whose sequence is above *after*, without taking them; an empty answer
        means that there are no more. Only with `Capabilities.peek`."""

    def schedule(self, queue: str, messages: Sequence[Message]) -> Sequence[Outcome[str]]:
        """Send messages that have a delay; the answers are what `cancel` takes.

        Only with `Capabilities.cancel`.
        """
        raise UnsupportedOperation("this queue cannot take a message back; send it with its delay instead")

    def cancel(self, queue: str, receipts: Sequence[str]) -> Sequence[Outcome[None]]:
        """Take back messages that are not due yet; `InvalidReceipt` for those that are, or are gone.

        Only with `Capabilities.cancel`.
        """
        raise UnsupportedOperation("this queue cannot take a message back")

    def purge(self, queue: str) -> None:
        """Remove all messages, those in hand and those not due yet too; what is sent meanwhile may go with
        them. Only with `Capabilities.purge`."""
        raise UnsupportedOperation(
            f"queue {queue!r} cannot be emptied in one request; receive its messages and complete them"
        )

    def wake(self, queue: str) -> None:  # noqa: B027  # doing nothing is a right answer
        """Have whoever is blocked on *queue*, or on a session of it, ask whether it is cancelled.

        So a worker stops at once. Where the SDK cannot be woken (an SQS long poll), this does nothing.
        """

    def requests(self) -> Mapping[str, int]:
        """Requests made up to now, by the broker's name of the operation; empty where nobody counts them."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """End everything; a blocked receive is woken where the SDK can. Closing twice is harmless."""
