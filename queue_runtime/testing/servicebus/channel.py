"""An AMQP session: links, windows and delivery ids. Called channel: "session" is Service Bus's word."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from queue_runtime.testing.servicebus.attaching import attach
from queue_runtime.testing.servicebus.broker import Client
from queue_runtime.testing.servicebus.errors import (
    FRAMING_ERROR,
    HANDLE_IN_USE,
    INVALID_FIELD,
    UNATTACHED_HANDLE,
    AmqpError,
)
from queue_runtime.testing.servicebus.frames import FRAME_OVERHEAD
from queue_runtime.testing.servicebus.links import IncomingLink, Link, OutgoingLink
from queue_runtime.testing.servicebus.performatives import (
    Attach,
    Begin,
    Composite,
    Detach,
    Disposition,
    Error,
    Flow,
    Outcome,
    Received,
    Transfer,
)

MAX_HANDLES = 4096

INCOMING_WINDOW = 5000
"""Transfer frames that a client may send before it hears from us; renewed when half of them have come."""

OUTGOING_WINDOW = 5000
"""What we say of ourselves; it binds nobody."""

_SERIAL = 2**32
_TRANSFER_OVERHEAD = FRAME_OVERHEAD + 64
"""More than the performative of a transfer takes."""


class Connection(Client, Protocol):
    """What carries the frames of a channel."""

    writable: bool
    """False while the client does not read what it has been sent."""
    max_frame_size: int

    def send(self, channel: int, performative: Composite, payload: bytes = b"") -> None:
        """Write a frame; if the connection is closed or closing, it is lost."""


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A delivery that the client has not settled yet."""

    link: OutgoingLink
    tag: bytes


class Channel:
    """Begins when the client's *begin* has come, and ends with its end or with the connection."""

    def __init__(self, connection: Connection, number: int, begin: Begin) -> None:
        self.connection: Connection = connection
        self.broker = connection.broker
        self._number = number
        self._links: dict[int, Link] = {}
        # what comes in
        self._next_incoming_id = begin.next_outgoing_id
        self._window_left = INCOMING_WINDOW
        self._last_delivery_id: int | None = None
        # what goes out
        self._next_outgoing_id = 0
        self._next_delivery_id = 0
        self._remote_window = begin.incoming_window
        self._waiting: deque[tuple[Transfer, bytes]] = deque()
        """Transfers for which the client's window was too small."""
        self._unsettled: dict[int, Unsettled] = {}
        connection.send(
            number,
            Begin(
                remote_channel=number,
                next_outgoing_id=self._next_outgoing_id,
                incoming_window=INCOMING_WINDOW,
                outgoing_window=OUTGOING_WINDOW,
                handle_max=MAX_HANDLES - 1,
            ),
        )

    # -- what links call -------------------------------------------------------------------------------

    @property
    def links(self) -> list[Link]:
        return list(self._links.values())

    @property
    def writable(self) -> bool:
        """Whether a delivery would leave at once, rather than wait for the client to read."""
        return self.connection.writable and not self._waiting and self._remote_window > 0

    def send(self, performative: Attach | Detach | Disposition) -> None:
        self.connection.send(self._number, performative)

    def send_flow(self, **link: int | bool) -> None:
        """Tell the windows; *link* is what a `Flow` says about a link."""
        self._window_left = INCOMING_WINDOW
        self.connection.send(
            self._number,
            Flow(
                next_incoming_id=self._next_incoming_id,
                incoming_window=INCOMING_WINDOW,
                next_outgoing_id=self._next_outgoing_id,
                outgoing_window=OUTGOING_WINDOW,
                **link,  # type: ignore[arg-type]  # the names and types are Flow's
            ),
        )

    def send_delivery(self, link: OutgoingLink, tag: bytes | None, payload: bytes, *, settled: bool) -> None:
        """Send a message, in as many frames as it takes; unless *settled*, its outcome comes to the link."""
        delivery_id = self._next_delivery_id
        self._next_delivery_id = (delivery_id + 1) % _SERIAL
        if not settled:
            self._unsettled[delivery_id] = Unsettled(link, tag or b"")
        step = self.connection.max_frame_size - _TRANSFER_OVERHEAD
        for start in range(0, max(len(payload), 1), step):
            first, more = start == 0, start + step < len(payload)
            transfer = Transfer(
                handle=link.handle,
                delivery_id=delivery_id if first else None,
                delivery_tag=tag if first else None,
                message_format=0 if first else None,
                settled=settled if first else None,
                more=more,
            )
            self._waiting.append((transfer, payload[start : start + step]))
        self._send_waiting()

    def _send_waiting(self) -> None:
        while self._waiting and self._remote_window > 0:
            transfer, payload = self._waiting.popleft()
            self._next_outgoing_id = (self._next_outgoing_id + 1) % _SERIAL
            self._remote_window -= 1
            self.connection.send(self._number, transfer, payload)

    # -- what the client sends -------------------------------------------------------------------------

    def attached(self, theirs: Attach) -> None:
        if theirs.handle >= MAX_HANDLES:
            raise AmqpError(FRAMING_ERROR, f"handles are 0 to {MAX_HANDLES - 1}, not {theirs.handle}")
        known = self._links.get(theirs.handle)
        if known is not None and known.attached:
            raise AmqpError(HANDLE_IN_USE, f"a link is attached at handle {theirs.handle} already")
        self._links[theirs.handle] = attach(self, theirs)

    def detached(self, theirs: Detach) -> None:
        link = self._link(theirs.handle)
        del self._links[theirs.handle]
        self._forget(link)
        if link.attached:
            link.gone()
            self.send(Detach(handle=theirs.handle, closed=theirs.closed))

    def transferred(self, transfer: Transfer, payload: bytes) -> None:
        self._next_incoming_id = (self._next_incoming_id + 1) % _SERIAL
        self._window_left -= 1
        link = self._link(transfer.handle)
        if not isinstance(link, IncomingLink):
            raise AmqpError(UNATTACHED_HANDLE, f"the link at handle {transfer.handle} takes no transfers")
        self._check_delivery_id(link, transfer)
        link.transferred(transfer, payload)
        if self._window_left <= INCOMING_WINDOW // 2:
            self.send_flow()

    def _check_delivery_id(self, link: IncomingLink, transfer: Transfer) -> None:
        """Count what is out of order: unsafe sharing of the SDK's objects between threads looks like this."""
        if link.delivery_id is not None:  # a delivery is under way
            if transfer.delivery_id not in (None, link.delivery_id):
                self.broker.delivery_id_violations += 1
            return
        if transfer.delivery_id is None:
            raise AmqpError(INVALID_FIELD, "the first transfer of a delivery has a delivery-id")
        if self._last_delivery_id not in (None, (transfer.delivery_id - 1) % _SERIAL):
            self.broker.delivery_id_violations += 1
        self._last_delivery_id = transfer.delivery_id

    def flowed(self, flow: Flow) -> None:
        seen = 0 if flow.next_incoming_id is None else flow.next_incoming_id
        in_flight = (self._next_outgoing_id - seen) % _SERIAL
        self._remote_window = max(flow.incoming_window - in_flight, 0)
        self._send_waiting()
        if flow.handle is not None:
            self._link(flow.handle).flowed(flow)
        elif flow.echo:
            self.send_flow()
        self.resume()

    def disposed(self, theirs: Disposition) -> None:
        """Settle deliveries of ours; what clients say about their own needs no answer."""
        if not theirs.role:
            return
        last = theirs.first if theirs.last is None else theirs.last
        if last - theirs.first < len(self._unsettled):
            numbers = [number for number in range(theirs.first, last + 1) if number in self._unsettled]
        else:  # a range may span 2**32 numbers
            numbers = [number for number in self._unsettled if theirs.first <= number <= last]
        for number in numbers:
            delivery = self._unsettled[number]
            if isinstance(theirs.state, Received) or (theirs.state is None and not theirs.settled):
                continue
            del self._unsettled[number]
            delivery.link.settled(number, delivery.tag, theirs.state, theirs.settled)

    def settle(self, delivery_id: int, outcome: Outcome | None, *, sender: bool) -> None:
        """Tell the outcome of a delivery: the client sent it, unless the *sender* was this end."""
        self.send(Disposition(role=not sender, first=delivery_id, settled=True, state=outcome))

    # -- the end ---------------------------------------------------------------------------------------

    def detach(self, link: Link, error: Error) -> None:
        """End a link from our side. Its handle is free when the client has answered, or attaches it again."""
        self._forget(link)
        link.gone()
        self.send(Detach(handle=link.handle, closed=True, error=error))

    def resume(self) -> None:
        """The client reads again, or its window has grown."""
        if self.writable:
            for link in self._links.values():
                link.resume()

    def end(self) -> None:
        self._waiting.clear()
        self._unsettled.clear()
        for link in self.links:
            if link.attached:
                link.gone()
        self._links.clear()

    def _link(self, handle: int) -> Link:
        link = self._links.get(handle)
        if link is None:
            raise AmqpError(UNATTACHED_HANDLE, f"no link is attached at handle {handle}")
        return link

    def _forget(self, link: Link) -> None:
        """Drop what was sent on *link* and is not settled, or has not even left."""
        for number in [number for number, delivery in self._unsettled.items() if delivery.link is link]:
            del self._unsettled[number]
        self._waiting = deque(each for each in self._waiting if each[0].handle != link.handle)
