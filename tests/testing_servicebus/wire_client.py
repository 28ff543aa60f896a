"""A client that can say anything to a broker, for the tests of the wire."""

from __future__ import annotations

import socket
from typing import Any, Self, TypeVar
from uuid import uuid4

from queue_runtime.testing.servicebus.amqp_types import encode
from queue_runtime.testing.servicebus.frames import (
    AMQP_HEADER,
    SASL_FRAME,
    SASL_HEADER,
    FrameReader,
    frame,
)
from queue_runtime.testing.servicebus.messages import Message, Properties
from queue_runtime.testing.servicebus.performatives import (
    Accepted,
    Attach,
    Begin,
    Composite,
    Detach,
    Disposition,
    Flow,
    Open,
    Rejected,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    Source,
    Target,
    Transfer,
    read_performative,
)
from tests.testing_servicebus.wire_house import PATIENCE, House

P = TypeVar("P", bound=Composite)


class Hung(Exception):
    """The broker has ended the connection."""


class Client:
    """One connection, one channel, and no manners of its own: what it is told to send, it sends."""

    def __init__(self, house: House, *, receive_buffer: int | None = None) -> None:
        self._socket = socket.socket()
        self._socket.settimeout(PATIENCE)
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.connect(("127.0.0.1", house.port))
        self._reader = FrameReader()
        self._next_delivery = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._socket.close()

    # -- bytes -----------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def read_header(self) -> bytes:
        while (header := self._reader.header()) is None:
            self._more()
        return header

    def read(self) -> tuple[Composite | None, bytes]:
        """Return the next performative, None of an empty frame; `Hung` at the end."""
        while (found := self._reader.frame()) is None:
            self._more()
        return read_performative(found.body) if found.body else (None, b"")

    def expect(self, kind: type[P]) -> P:
        """Return the next performative, but empty frames and flows, which must be a *kind*."""
        found, _ = self.read()
        while found is None or (isinstance(found, Flow) and kind is not Flow):
            found, _ = self.read()
        assert isinstance(found, kind), found
        return found

    def ended(self) -> bool:
        """Whether the broker says nothing more, and has hung up."""
        try:
            while True:
                self.read()
        except Hung:
            return True

    def _more(self) -> None:
        try:
            data = self._socket.recv(65536)
        except ConnectionError as exc:
            raise Hung from exc
        if not data:
            raise Hung
        self._reader.feed(data)

    # -- the usual -----------------------------------------------------------------------------------------

    def send(self, performative: Composite, payload: bytes = b"", *, channel: int = 0) -> None:
        self.write(frame(channel, performative, payload))

    def sasl(self, mechanism: str = "ANONYMOUS") -> SaslOutcome:
        self.write(SASL_HEADER)
        assert self.read_header() == SASL_HEADER
        self.expect(SaslMechanisms)
        self.write(frame(0, SaslInit(mechanism=mechanism), kind=SASL_FRAME))
        return self.expect(SaslOutcome)

    def open(self, **options: Any) -> Open:
        assert self.sasl().outcome == 0
        self.write(AMQP_HEADER)
        assert self.read_header() == AMQP_HEADER
        self.send(Open(container_id="test", **options))
        return self.expect(Open)

    def begin(self, *, incoming_window: int = 1000, next_outgoing_id: int = 0) -> Begin:
        self._next_delivery = next_outgoing_id
        self.send(
            Begin(next_outgoing_id=next_outgoing_id, incoming_window=incoming_window, outgoing_window=1000)
        )
        return self.expect(Begin)

    def ready(self, **options: Any) -> Self:
        self.open(**options)
        self.begin()
        return self

    def attach_sender(self, address: str, *, handle: int = 0) -> Attach:
        self.ask_sender(address, handle=handle)
        return self.expect(Attach)

    def ask_sender(self, address: str, *, handle: int = 0) -> None:
        """Attach a sender, and do not wait for the answer."""
        self.send(
            Attach(
                name=f"sender-{handle}",
                handle=handle,
                role=False,
                snd_settle_mode=0,
                source=Source(address="me"),
                target=Target(address=address),
                initial_delivery_count=0,
            )
        )

    def attach_receiver(
        self, address: str, *, handle: int = 1, settled: bool = False, reply_to: str = "me", **options: Any
    ) -> Attach:
        self.ask_receiver(address, handle=handle, settled=settled, reply_to=reply_to, **options)
        return self.expect(Attach)

    def ask_receiver(
        self,
        address: str,
        *,
        handle: int = 1,
        settled: bool = False,
        reply_to: str = "me",
        filter: dict[Any, Any] | None = None,
        properties: dict[Any, Any] | None = None,
    ) -> None:
        """Attach a receiver, and do not wait for the answer."""
        self.send(
            Attach(
                name=f"receiver-{handle}",
                handle=handle,
                role=True,
                snd_settle_mode=1 if settled else 0,
                rcv_settle_mode=0 if settled else 1,
                source=Source(address=address, filter=filter),
                target=Target(address=reply_to),
                properties=properties,
            )
        )

    def transfer(
        self, payload: bytes, *, handle: int = 0, delivery_id: int | None = None, **options: Any
    ) -> int:
        if delivery_id is None:
            delivery_id = self._next_delivery
        self._next_delivery = delivery_id + 1
        self.send(
            Transfer(handle=handle, delivery_id=delivery_id, delivery_tag=b"t", message_format=0, **options),
            payload,
        )
        return delivery_id

    def flow(self, handle: int = 1, **link: Any) -> None:
        self.send(
            Flow(
                next_incoming_id=0,
                incoming_window=1000,
                next_outgoing_id=0,
                outgoing_window=1000,
                handle=handle,
                **link,
            )
        )

    def receive(self) -> tuple[Transfer, bytes]:
        """Return the next delivery, whole."""
        first, payload = self.read()
        while isinstance(first, Flow):
            first, payload = self.read()
        assert isinstance(first, Transfer), first
        more = first.more
        while more:
            next_one, rest = self.read()
            assert isinstance(next_one, Transfer)
            payload += rest
            more = next_one.more
        return first, payload

    def settle(self, delivery_id: int, state: Any, *, settled: bool = False) -> None:
        self.send(Disposition(role=True, first=delivery_id, settled=settled, state=state))

    def request(self, node: str, properties: dict[str, Any], body: Any = None) -> Message:
        """Ask a node, on links that are made at first use, and return its answer."""
        self.attach_receiver(node, handle=11, reply_to="back")
        self.attach_sender(node, handle=10)
        self.flow(11, delivery_count=0, link_credit=10)
        self.transfer(request(properties, body), handle=10)
        answer = None
        while answer is None:
            found, payload = self.read()
            if isinstance(found, Transfer):
                answer = Message.parse(payload)
        for handle in (10, 11):
            self.send(Detach(handle=handle, closed=True))
            self.expect(Detach)
        return answer


def message(body: bytes = b"body", **properties: Any) -> bytes:
    return (Properties(**properties).encode() if properties else b"") + section(0x75, body)


def request(properties: dict[str, Any], body: Any) -> bytes:
    return b"".join(
        (
            Properties(message_id=uuid4(), reply_to="back").encode(),
            section(0x74, properties),
            section(0x77, body),
        )
    )


def section(code: int, value: Any) -> bytes:
    return bytes((0, 0x53, code)) + encode(value)


def body_of(payload: bytes) -> Any:
    return Message.parse(payload).read_value()


def fill(client: Client, *bodies: bytes, **properties: str) -> None:
    client.attach_sender("q")
    for body in bodies:
        client.transfer(message(body, **properties))
        assert client.expect(Disposition).state == Accepted()


def body(payload: bytes) -> bytes:
    return b"".join(Message.parse(payload).data())


def refusal(client: Client) -> str:
    attach = client.expect(Attach)
    assert (attach.source, attach.target) == (None, None)
    detach = client.expect(Detach)
    assert detach.closed
    assert detach.error is not None
    return detach.error.condition


def rejected(client: Client) -> str:
    state = client.expect(Disposition).state
    assert isinstance(state, Rejected)
    assert state.error is not None
    return state.error.condition
