"""Links: one direction each, with the credit that keeps the sending end from drowning the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from queue_runtime.testing.servicebus.broker import Broker, Client
from queue_runtime.testing.servicebus.performatives import (
    Attach,
    Detach,
    Disposition,
    Error,
    Flow,
    Outcome,
    Rejected,
    Source,
    Target,
    Transfer,
)

CREDIT = 1000
"""Messages that a client may send on a link before it hears from us; renewed when half of them have come."""

_SERIAL = 2**32


class Channel(Protocol):
    """The AMQP session that a link is on, as far as it goes by it."""

    broker: Broker

    @property
    def connection(self) -> Client:
        """The connection that the session is on."""

    @property
    def links(self) -> Sequence[Link]:
        """The links of the session."""

    @property
    def writable(self) -> bool:
        """Whether a delivery would leave at once, rather than wait for the client to read."""

    def send(self, performative: Attach | Detach | Disposition) -> None:
        """Send what concerns one link."""

    def send_flow(self, **link: int | bool) -> None:
        """Tell the windows; *link* is what a `Flow` says about a link."""

    def send_delivery(self, link: OutgoingLink, tag: bytes | None, payload: bytes, *, settled: bool) -> None:
        """Send a message, in as many frames as it takes; unless *settled*, its outcome comes to the link."""

    def settle(self, delivery_id: int, outcome: Outcome | None, *, sender: bool) -> None:
        """Tell the outcome of a delivery: the client sent it, unless the *sender* was this end."""

    def detach(self, link: Link, error: Error) -> None:
        """End a link from our side."""


class Link:
    """One end of a link, ours. *entity* is the path that it leads to, for faults and detaching."""

    def __init__(self, channel: Channel, theirs: Attach, entity: str) -> None:
        self.channel = channel
        self.name = theirs.name
        self.handle = theirs.handle
        self.entity = entity
        self.attached = True
        """False from the moment that one of both ends has detached."""
        self._theirs = theirs

    def confirm(
        self,
        *,
        source: Source | None = None,
        max_message_size: int | None = None,
        properties: dict[Any, Any] | None = None,
    ) -> None:
        """Answer the attach: with the client's own source and target, unless there is another *source*."""
        theirs = self._theirs
        self.channel.send(
            Attach(
                name=theirs.name,
                handle=theirs.handle,
                role=not theirs.role,
                snd_settle_mode=theirs.snd_settle_mode,
                rcv_settle_mode=theirs.rcv_settle_mode,
                source=source or Source(address=theirs.source.address if theirs.source else None),
                target=Target(address=theirs.target.address if theirs.target else None),
                initial_delivery_count=0 if theirs.role else None,
                max_message_size=max_message_size,
                properties=properties,
            )
        )

    def refuse(self, condition: str, description: str) -> None:
        """Answer the attach as one does who has no such thing: attach to nothing, and detach."""
        theirs = self._theirs
        self.channel.send(
            Attach(
                name=theirs.name,
                handle=theirs.handle,
                role=not theirs.role,
                initial_delivery_count=0 if theirs.role else None,
            )
        )
        self.detach(condition, description)

    def detach(self, condition: str, description: str) -> None:
        """End the link from our side, and say why."""
        self.channel.detach(self, Error(condition=condition, description=description))

    def flowed(self, flow: Flow) -> None:
        """The client has told its state of the link."""

    def resume(self) -> None:
        """The client takes messages again."""

    def gone(self) -> None:
        """The link is detached, by whichever end, or its connection lost."""
        self.attached = False


class RefusedLink(Link):
    """A handle that leads nowhere, until the client has understood that."""

    def __init__(self, channel: Channel, theirs: Attach, condition: str, description: str) -> None:
        super().__init__(channel, theirs, "")
        self.refuse(condition, description)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that has arrived whole. *payload* is None if it is larger than the link takes."""

    id: int
    settled: bool
    message_format: int
    payload: bytes | None


class IncomingLink(Link):
    """Takes messages that the client sends. Messages over *max_message_size* bytes are not collected."""

    def __init__(self, channel: Channel, theirs: Attach, entity: str, *, max_message_size: int) -> None:
        super().__init__(channel, theirs, entity)
        self.delivery_id: int | None = None
        """Of the delivery that has begun and is not over."""
        self._max_message_size = max_message_size
        self._delivery_count = theirs.initial_delivery_count or 0
        self._credit = 0
        self._parts: list[bytes] = []
        self._size = 0
        self._first: Transfer | None = None

    def grant(self) -> None:
        self._credit = CREDIT
        self.channel.send_flow(handle=self.handle, delivery_count=self._delivery_count, link_credit=CREDIT)

    def flowed(self, flow: Flow) -> None:
        if flow.echo and self.attached:
            self.grant()

    def transferred(self, transfer: Transfer, payload: bytes) -> None:
        if not self.attached:  # it was under way when we detached
            return
        if self._first is None:
            self._first = transfer
            self.delivery_id = transfer.delivery_id
        self._size += len(payload)
        if payload and self._size <= self._max_message_size:
            self._parts.append(payload)
        if transfer.more and not transfer.aborted:
            return
        first, parts, whole = self._first, self._parts, self._size <= self._max_message_size
        self._first, self.delivery_id, self._parts, self._size = None, None, [], 0
        self._account()
        if not transfer.aborted:
            self.received(
                Delivery(
                    id=first.delivery_id or 0,
                    settled=bool(first.settled or transfer.settled),
                    message_format=first.message_format or 0,
                    payload=b"".join(parts) if whole else None,
                )
            )

    def received(self, delivery: Delivery) -> None:
        """A delivery is complete; to be answered by `settle`."""
        raise NotImplementedError

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        """Tell the client what became of a message that it sent.

        It is accepted or rejected: at any other outcome the SDK waits for ever.
        """
        if not delivery.settled:
            self.channel.settle(delivery.id, outcome, sender=False)

    def reject(self, delivery: Delivery, condition: str, description: str) -> None:
        self.settle(delivery, Rejected(error=Error(condition=condition, description=description)))

    def _account(self) -> None:
        self._delivery_count = (self._delivery_count + 1) % _SERIAL
        self._credit -= 1
        if self._credit <= CREDIT // 2:
            self.grant()


class OutgoingLink(Link):
    """Sends messages to the client, as many as it gives credit for."""

    def __init__(self, channel: Channel, theirs: Attach, entity: str) -> None:
        super().__init__(channel, theirs, entity)
        self._delivery_count = 0
        self._credit = 0
        self._drain = False

    @property
    def ready(self) -> bool:
        """Whether a message would reach the client now."""
        return self.attached and self._credit > 0 and self.channel.writable

    def deliver(self, payload: bytes, *, tag: bytes | None, settled: bool) -> None:
        self._credit -= 1
        self._delivery_count = (self._delivery_count + 1) % _SERIAL
        self.channel.send_delivery(self, tag, payload, settled=settled)

    def settled(self, delivery_id: int, tag: bytes, outcome: Outcome | None, settled: bool) -> None:
        """The client has told the outcome of a delivery; if it is not *settled*, it waits for an answer."""
        if not settled:
            self.channel.settle(delivery_id, outcome, sender=True)

    def flowed(self, flow: Flow) -> None:
        if not self.attached:
            return
        if flow.link_credit is not None:
            limit = (flow.delivery_count or 0) + flow.link_credit
            credit = (limit - self._delivery_count) % _SERIAL
            self._credit = credit if credit < _SERIAL // 2 else 0  # less than what is on its way
            self._drain = flow.drain
        self.offer()
        if flow.echo and not flow.drain:
            self._tell()

    def resume(self) -> None:
        if self.attached and self._credit > 0:
            self.offer()

    def offer(self) -> None:
        """Send what is there, if the client takes it; `drained` when there is no more."""
        raise NotImplementedError

    def drained(self) -> None:
        """Nothing more is there. If the client asked for that, its credit is used up, and it is told."""
        if self._drain and self.attached:
            self._delivery_count = (self._delivery_count + self._credit) % _SERIAL
            self._credit = 0
            self._tell()
            self._drain = False

    def _tell(self) -> None:
        self.channel.send_flow(
            handle=self.handle,
            delivery_count=self._delivery_count,
            link_credit=self._credit,
            drain=self._drain,
        )
