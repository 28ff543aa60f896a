"""What goes out (`Message`), what is in hand (`ReceivedMessage`), what a provider hands over (`Delivery`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from types import MappingProxyType
from typing import Any, Protocol, TypeVar, overload, runtime_checkable
from uuid import uuid4

from queue_runtime import payloads
from queue_runtime.errors import DecodeError, InvalidMessage, InvalidName, UnsupportedOperation
from queue_runtime.lease import Lease as Lease  # a message in hand is known by it: it is to be had here too
from queue_runtime.sns import SnsNotification

T = TypeVar("T")

MAX_ID_LENGTH = 1024
"""Characters of a message, session, correlation or deduplication id. Providers shorten what their broker
would refuse and keep the original beside it."""

MAX_TIME_TO_LIVE = 10 * 365 * 24 * 3600.0
"""Seconds; what should live longer has no end."""

MAX_REPLAYS = 1_000_000
"""Above it nobody counts."""

RESERVED_ATTRIBUTE = "queue_runtime"
"""The one attribute that carries what is ours where a broker has no field for it."""

_ATTRIBUTE_NAME = re.compile(r"[A-Za-z0-9_-](?:[A-Za-z0-9_.-]{0,254}[A-Za-z0-9_-])?")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def check_id(value: str, what: str) -> str:
    """Return *value* if it is a usable id; *what* names it in the error."""
    if not isinstance(value, str):
        raise InvalidName(f"{what} must be a str, not {type(value).__name__}: {value!r}")
    if not value or len(value) > MAX_ID_LENGTH:
        raise InvalidName(
            f"{what} must have 1 to {MAX_ID_LENGTH} characters, it has {len(value)}; "
            "use a shorter one, such as a hash of it"
        )
    if _UNPRINTABLE.search(value):
        raise InvalidName(f"{what} {value!r} has a control character or half a surrogate pair; remove it")
    return value


def check_queue(name: str) -> str:
    """Return *name* if it can be a queue's name, path or URL."""
    check_id(name, "queue name")
    if any(character.isspace() for character in name):
        raise InvalidName(f"queue name {name!r} has white space in it; queue names have none")
    return name


def _check_attribute(name: object, value: object) -> None:
    if not isinstance(name, str) or not isinstance(value, str):
        raise InvalidMessage(
            f"attribute {name!r} = {value!r}: names and values are str; convert it, or put it into the body"
        )
    if not _ATTRIBUTE_NAME.fullmatch(name) or ".." in name:
        raise InvalidName(
            f"attribute name {name!r}: use 1 to 256 letters, digits, '_', '-' and single inner '.'"
        )
    if _SURROGATE.search(value):
        raise InvalidMessage(f"attribute {name!r} has half a surrogate pair in its value; remove it")
    if name.lower().startswith(("aws.", "amazon.")) or name == RESERVED_ATTRIBUTE:
        raise InvalidName(f"attribute name {name!r} is reserved; choose another")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message to send. Plain data: share it between threads and processes as you like.

    `id` is made here once, so that a send that is tried again is the same message; it is also the
    deduplication id unless `deduplication_id` is given. `delay` and `time_to_live` are in seconds. Raises
    `InvalidMessage` or `InvalidName` for what no provider could carry; what one queue cannot carry is refused
    by `send`.
    """

    body: bytes = field(repr=False)
    id: str = field(default_factory=lambda: uuid4().hex)
    session_id: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None
    correlation_id: str | None = None
    deduplication_id: str | None = None
    delay: float = 0.0
    time_to_live: float | None = None
    """Seconds after which it is of no use any more, from when it is sent, or due if it has a delay; None: the
    queue's. One that expired is not handed out (`Capabilities.native_expiry` says who sees to it), and is
    dropped or dead-lettered; one that is in hand, or in a dead-letter queue, does not expire. A replay begins
    it anew. The brokers go by their own clocks: on SQS to the second. Service Bus lets nothing live longer
    than its queue says, or than 49 days."""
    replays: int = 0
    """Times it came back from a dead-letter queue; replays count it."""

    def __post_init__(self) -> None:
        if not isinstance(self.body, bytes):
            raise InvalidMessage(
                f"body must be bytes, not {type(self.body).__name__}; "
                "Message.of(value) takes text, dataclasses and JSON values"
            )
        check_id(self.id, "message id")
        for what in ("session_id", "content_type", "correlation_id", "deduplication_id"):
            value = getattr(self, what)
            if value is not None:
                check_id(value, what)
        for name, text in self.attributes.items():
            _check_attribute(name, text)
        if not isinstance(self.delay, int | float) or not 0 <= self.delay < float("inf"):
            raise InvalidMessage(f"delay must be a number of seconds from 0 on, not {self.delay!r}")
        life = self.time_to_live
        if life is not None and not (isinstance(life, int | float) and 0 < life <= MAX_TIME_TO_LIVE):
            raise InvalidMessage(
                f"time_to_live must be seconds above 0 and at most {MAX_TIME_TO_LIVE:.0f}, or None for the "
                f"queue's, not {life!r}"
            )
        if not isinstance(self.replays, int) or not 0 <= self.replays <= MAX_REPLAYS:
            raise InvalidMessage(f"replays must be a number from 0 to {MAX_REPLAYS}, not {self.replays!r}")
        object.__setattr__(self, "attributes", MappingProxyType(dict(self.attributes)))

    @classmethod
    def of(
        cls,
        payload: object,
        *,
        id: str | None = None,
        session_id: str | None = None,
        attributes: Mapping[str, str] | None = None,
        content_type: str | None = None,
        correlation_id: str | None = None,
        deduplication_id: str | None = None,
        delay: float = 0.0,
        time_to_live: float | None = None,
        replays: int = 0,
    ) -> Message:
        """Make a message of *payload*: bytes as they are, text as UTF-8, anything else as JSON.

        A dataclass (nested ones, datetimes, UUIDs, Decimals and enums included) comes out again with
        `ReceivedMessage.payload(TheClass)`. Raises `InvalidMessage` for what JSON cannot say.
        """
        body, natural_type = payloads.encode(payload)
        return cls(
            body=body,
            id=uuid4().hex if id is None else id,
            session_id=session_id,
            attributes=attributes or {},
            content_type=content_type or natural_type,
            correlation_id=correlation_id,
            deduplication_id=deduplication_id,
            delay=delay,
            time_to_live=time_to_live,
            replays=replays,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy cannot be pickled.
        plain = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "attributes"}
        return _remake, (plain, dict(self.attributes))


def _remake(plain: dict[str, Any], attributes: dict[str, str]) -> Message:
    return Message(attributes=attributes, **plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterInfo:
    """Why a message lies in a dead-letter queue; the same record on every provider.

    What is not known is None: a message that the broker moved by itself has little more than a reason.
    """

    reason: str
    """`MaxAttemptsExceeded`, `MaxHoldExceeded`, `MaxDeliveriesExceeded`, `DecodeError`, the class of a
    permanent exception, what `Reject` or `dead_letter` said, `MaxReceivesExceeded` of the broker's own, or
    `Unknown`."""
    description: str | None = None
    exception: str | None = None
    """The class of what the handler raised."""
    traceback: str | None = None
    """Its end, where the cause is."""
    attempts: int | None = None
    """Times a handler was entered with it."""
    first_seen_at: datetime | None = None
    """When the queue got it."""
    queue: str | None = None
    """Where it was, by the name that the program gave it."""
    session_id: str | None = None
    message_id: str | None = None
    sequence: int | None = None
    """Its place in its session, among those of the same queue."""
    host: str | None = None
    """Where it was given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What a provider hands over: a message, the proof of the hold on it, and what the broker says of it."""

    message: Message
    receipt: str = field(repr=False)
    broker_id: str
    """The broker's own id of the message, stable over redeliveries."""
    delivery_count: int
    """Times the broker handed it out, this one included."""
    sequence: int | None
    """Rises along a session; None where the queue keeps no order."""
    enqueued_at: datetime | None
    leased_until: float
    """On the clock's monotonic scale."""
    lease: float
    """Seconds the hold was asked for."""
    dead_letter: DeadLetterInfo | None = None
    problem: str | None = None
    """Why the body could not be decoded; the message then carries it as it came."""
    follows: bool = False
    """It came behind others of its session in one receive, so its delivery count says little."""
    expires: float | None = None
    """When its time-to-live is over, on the clock's monotonic scale, where the broker does not see to that
    itself (`Capabilities.native_expiry`); None also where it has no end, and in a dead-letter queue."""

    def expired(self, now: float) -> bool:
        """True if nobody wants it any more at *now*, on the clock's monotonic scale."""
        return self.expires is not None and now >= self.expires


class MessageView:
    """A message as its broker shows it: the facts, without a hold."""

    __slots__ = ("delivery",)

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery

    @property
    def id(self) -> str:
        """The sender's id, the same over redeliveries and replays."""
        return self.delivery.message.id

    @property
    def body(self) -> bytes:
        """The body as it was sent."""
        return self.delivery.message.body

    @property
    def text(self) -> str:
        """The body as UTF-8 text; raises `DecodeError` if it is not."""
        try:
            return self.body.decode()
        except UnicodeDecodeError as exc:
            raise DecodeError(f"the body of message {self.id!r} is not UTF-8: {exc}") from exc

    @property
    def attributes(self) -> Mapping[str, str]:
        """The sender's attributes; it cannot be changed."""
        return self.delivery.message.attributes

    @property
    def session_id(self) -> str | None:
        """The session it belongs to; None: it stands alone."""
        return self.delivery.message.session_id

    @property
    def content_type(self) -> str | None:
        """What the sender says that the body is, such as ``application/json``."""
        return self.delivery.message.content_type

    @property
    def correlation_id(self) -> str | None:
        """What the sender says that it belongs to."""
        return self.delivery.message.correlation_id

    @property
    def time_to_live(self) -> float | None:
        """Seconds that it was given to live, by its sender or by its queue; None: no end is known."""
        return self.delivery.message.time_to_live

    @property
    def replays(self) -> int:
        """Times it came back from a dead-letter queue."""
        return self.delivery.message.replays

    @property
    def delivery_count(self) -> int:
        """Times the broker handed it out, this one included."""
        return self.delivery.delivery_count

    @property
    def sequence(self) -> int | None:
        """Rises along a session; None where the queue keeps no order."""
        return self.delivery.sequence

    @property
    def enqueued_at(self) -> datetime | None:
        """When the broker stored it."""
        return self.delivery.enqueued_at

    @property
    def dead_letter(self) -> DeadLetterInfo | None:
        """Why it is in a dead-letter queue; None outside of one."""
        return self.delivery.dead_letter

    @overload
    def payload(self) -> Any: ...

    @overload
    def payload(self, payload_type: type[T]) -> T: ...

    def payload(self, payload_type: type[Any] | None = None) -> Any:
        """Decode the JSON body, into *payload_type* if one is given.

        Raises `DecodeError` naming the field for a missing one or a value of the wrong type; fields that
        *payload_type* does not have are ignored.
        """
        if self.delivery.problem is not None:
            raise DecodeError(f"message {self.id!r}: {self.delivery.problem}")
        return payloads.decode(self.body, payload_type)

    def sns(self) -> SnsNotification:
        """The notification of Amazon SNS that the body is, where a topic delivers to the queue as SNS does
        unless told otherwise ("raw message delivery" off). Raises `DecodeError` if it is none.

        What is in it says nothing about this message: an id or an attribute in there is the publisher's.
        """
        return SnsNotification.of(self.body)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r}>"


class DeadLettered(MessageView):
    """A message in a dead-letter queue."""

    __slots__ = ()

    @property
    def session_id(self) -> str | None:
        """The session it came from, and goes back to."""
        return self.delivery.message.session_id or self.dead_letter.session_id

    @property
    def dead_letter(self) -> DeadLetterInfo:
        """Why it is there; the reason is `Unknown` where nobody has noted one."""
        return self.delivery.dead_letter or DeadLetterInfo(reason="Unknown")


@runtime_checkable
class HasState(Protocol):
    """A session in hand, as its messages know it."""

    def get_state(self) -> bytes | None: ...

    def set_state(self, state: bytes | None) -> None: ...


class ReceivedMessage(MessageView):
    """A message in hand, held by a lease until it is settled.

    Plain facts and a lease; settling is done by the client or session that received it. `attempt` counts
    the times a handler was entered with it, as far as they are known here; `delivery_count` the times the
    broker handed it out. Both are 1 at first.
    """

    __slots__ = ("attempt", "lease", "owner", "queue", "settled_as")

    def __init__(
        self, delivery: Delivery, *, queue: str, lease: Lease, owner: object, attempt: int = 1
    ) -> None:
        super().__init__(delivery)
        self.queue = queue
        self.lease = lease
        self.owner = owner
        self.attempt = attempt
        self.settled_as: str | None = None
        """`completed`, `abandoned` or `dead-lettered` once the broker has agreed to it."""

    @property
    def receipt(self) -> str:
        """The broker's proof of the hold. It is a key to the message: do not log it."""
        return self.delivery.receipt

    def get_session_state(self) -> bytes | None:
        """What `set_session_state` has left for this session, here or elsewhere; None: nothing.

        Raises `UnsupportedOperation` outside a session and where sessions have no state
        (`Capabilities.session_state`), `SessionLeaseLost` if the session is no longer held.
        """
        return self._session("get_state").get_state()

    def set_session_state(self, state: bytes | None) -> None:
        """Leave a few bytes with the session for the handlers of its later messages; None removes them.

        It is written at once, and stays also if the handler then fails. Raises as `get_session_state`.
        """
        self._session("set_state").set_state(state)

    def _session(self, operation: str) -> HasState:
        if isinstance(self.owner, HasState):
            return self.owner
        raise UnsupportedOperation(
            f"message {self.id!r} was received outside a session, so there is no session state; keep it in a "
            "database of your own",
            queue=self.queue,
            operation=operation,
        )

    def __repr__(self) -> str:
        state = self.settled_as or ("lost" if self.lease.lost else "held")
        session = f" of session {self.session_id!r}" if self.session_id is not None else ""
        return f"<ReceivedMessage {self.id!r}{session} [{state} | attempt {self.attempt}]>"
