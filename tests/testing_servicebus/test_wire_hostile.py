"""Clients of the local Service Bus that break the protocol: their connection ends, and no other."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator

import pytest

from queue_runtime.testing.servicebus.amqp_types import encode
from queue_runtime.testing.servicebus.frames import (
    AMQP_HEADER,
    EMPTY_FRAME,
    MAX_FRAME_SIZE,
    SASL_FRAME,
    SASL_HEADER,
    frame,
)
from queue_runtime.testing.servicebus.performatives import (
    Accepted,
    Attach,
    Begin,
    Close,
    Composite,
    Detach,
    Disposition,
    End,
    Flow,
    Open,
    SaslInit,
    SaslOutcome,
    Source,
    Target,
    Transfer,
)
from tests.testing_servicebus.wire_client import Client, Hung, message, section
from tests.testing_servicebus.wire_house import House, running


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with running() as house:
        house.queue()
        yield house


@pytest.fixture(autouse=True)
def bystander(house: House) -> Iterator[None]:
    """Another client, in the middle of its work, whom nothing of this may disturb."""
    house.queue()
    with Client(house) as client:
        client.ready()
        client.attach_sender("q")
        client.attach_receiver("q", settled=True)
        client.transfer(message(b"before"))
        assert client.expect(Disposition).state == Accepted()

        yield

        client.transfer(message(b"after"))
        assert client.expect(Disposition).state == Accepted()
        client.flow(delivery_count=0, link_credit=2)
        assert [client.receive()[1].endswith(body) for body in (b"before", b"after")] == [True, True]


def raw_frame(body: bytes, *, size: int | None = None, offset: int = 2, kind: int = 0) -> bytes:
    return struct.pack(">IBBH", len(body) + 8 if size is None else size, offset, kind, 0) + body


def nested(depth: int) -> bytes:
    value = b"\x40"
    for _ in range(depth):
        value = b"\xd0" + struct.pack(">II", len(value) + 4, 1) + value
    return value


def attach(**changes: object) -> Attach:
    usual: dict[str, object] = {
        "name": "n",
        "handle": 0,
        "role": False,
        "source": Source(address="me"),
        "target": Target(address="q"),
        "initial_delivery_count": 0,
    }
    return Attach(**{**usual, **changes})  # type: ignore[arg-type]  # as the tests want them


FLOW = Flow(incoming_window=1, next_outgoing_id=0, outgoing_window=1)

# What an open client on channel 0 says, and the error that it gets.
BROKEN = {
    "garbage": (b"\xff" * 64, "amqp:connection:framing-error"),
    "a frame of no size": (raw_frame(b"", size=0), "amqp:connection:framing-error"),
    "a frame over the limit": (raw_frame(b"", size=MAX_FRAME_SIZE + 1), "amqp:connection:framing-error"),
    "a body before the frame": (raw_frame(b"", offset=1), "amqp:connection:framing-error"),
    "a body behind the frame": (raw_frame(b"", offset=200), "amqp:connection:framing-error"),
    "a frame of another kind": (raw_frame(b"\x40", kind=9), "amqp:connection:framing-error"),
    "SASL again": (
        frame(0, SaslInit(mechanism="ANONYMOUS"), kind=SASL_FRAME),
        "amqp:connection:framing-error",
    ),
    "SASL in an AMQP frame": (frame(0, SaslInit(mechanism="ANONYMOUS")), "amqp:not-allowed"),
    "no performative": (raw_frame(encode("text")), "amqp:decode-error"),
    "half a performative": (raw_frame(FLOW.encode()[:-1]), "amqp:decode-error"),
    "an unknown performative": (raw_frame(b"\x00\x53\x99\x45"), "amqp:decode-error"),
    "an outcome as performative": (raw_frame(Accepted().encode()), "amqp:not-allowed"),
    "huge nesting": (raw_frame(b"\x00\x53\x11" + nested(5000)), "amqp:decode-error"),
    "a field of another type": (raw_frame(b"\x00\x53\x16\xc0\x04\x01\xa1\x01a"), "amqp:decode-error"),
    "a field too many": (raw_frame(b"\x00\x53\x17\xc0\x03\x02\x40\x40"), "amqp:decode-error"),
    "a field that is missing": (raw_frame(b"\x00\x53\x16\x45"), "amqp:decode-error"),
    "a source that is none": (frame(0, attach(source=Accepted())), "amqp:decode-error"),
    "a second open": (frame(0, Open(container_id="x")), "amqp:illegal-state"),
    "a second begin": (
        frame(0, Begin(next_outgoing_id=0, incoming_window=1, outgoing_window=1)),
        "amqp:illegal-state",
    ),
    "a channel beyond the limit": (
        frame(256, Begin(next_outgoing_id=0, incoming_window=1, outgoing_window=1)),
        "amqp:connection:framing-error",
    ),
    "a channel that has not begun": (frame(5, FLOW), "amqp:not-allowed"),
    "the end of what has not begun": (frame(5, End()), "amqp:not-allowed"),
    "a handle beyond the limit": (frame(0, attach(handle=10_000)), "amqp:connection:framing-error"),
    "a transfer to nowhere": (frame(0, Transfer(handle=7, delivery_id=0)), "amqp:session:unattached-handle"),
    "a detach from nowhere": (frame(0, Detach(handle=7)), "amqp:session:unattached-handle"),
    "a flow on no link": (
        frame(0, Flow(incoming_window=1, next_outgoing_id=0, outgoing_window=1, handle=7)),
        "amqp:session:unattached-handle",
    ),
}


@pytest.mark.parametrize(("said", "condition"), BROKEN.values(), ids=BROKEN)
def test_what_breaks_the_protocol_closes_the_connection(house: House, said: bytes, condition: str) -> None:
    with Client(house) as client:
        client.ready()

        client.write(said)

        close = client.expect(Close)
        assert close.error is not None
        assert close.error.condition == condition
        client.send(Close())
        assert client.ended()


def test_a_handle_in_use_closes_the_connection(house: House) -> None:
    with Client(house) as client:
        client.ready()
        client.attach_sender("q")

        client.send(attach(name="another"))

        assert error_of(client) == "amqp:session:handle-in-use"


def test_a_transfer_on_a_link_to_the_client_closes_the_connection(house: House) -> None:
    with Client(house) as client:
        client.ready()
        client.attach_receiver("q")

        client.transfer(message(), handle=1)

        assert error_of(client) == "amqp:session:unattached-handle"


def test_a_delivery_without_an_id_closes_the_connection(house: House) -> None:
    with Client(house) as client:
        client.ready()
        client.attach_sender("q")

        client.send(Transfer(handle=0), message())

        assert error_of(client) == "amqp:invalid-field"


def test_a_frame_before_the_open_gets_an_open_and_a_close(house: House) -> None:
    with Client(house) as client:
        client.sasl()
        client.write(AMQP_HEADER)
        client.read_header()

        client.send(FLOW)

        client.expect(Open)
        assert error_of(client) == "amqp:illegal-state"


def test_a_frame_size_below_the_least_is_refused(house: House) -> None:
    with Client(house) as client:
        client.sasl()
        client.write(AMQP_HEADER)
        client.read_header()

        client.send(Open(container_id="x", max_frame_size=100))

        client.expect(Open)
        assert error_of(client) == "amqp:invalid-field"


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\n\r\n", AMQP_HEADER, b"\x16\x03\x01\x02\x00\x01\x00\x01"]
)
def test_who_does_not_begin_with_sasl_is_told_how_and_hung_up_on(house: House, said: bytes) -> None:
    with Client(house) as client:
        client.write(said)

        assert client.read_header() == SASL_HEADER
        assert client.ended()


def test_another_mechanism_is_refused(house: House) -> None:
    with Client(house) as client:
        assert client.sasl("PLAIN") == SaslOutcome(outcome=1)
        assert client.ended()


def test_another_protocol_after_sasl_is_told_which_and_hung_up_on(house: House) -> None:
    with Client(house) as client:
        client.sasl()

        client.write(SASL_HEADER)

        assert client.read_header() == AMQP_HEADER
        assert client.ended()


def test_an_empty_frame_and_a_longer_header_are_no_offence(house: House) -> None:
    with Client(house) as client:
        client.ready()

        client.write(EMPTY_FRAME + raw_frame(bytes(4) + Close().encode(), offset=3))

        assert client.expect(Close).error is None


def test_a_client_that_goes_away_in_the_middle_of_a_message_leaves_nothing(house: House) -> None:
    with Client(house) as client:
        client.ready()
        client.attach_sender("q")
        client.transfer(message(), more=True)

    assert house.counts()["active"] == 1  # the bystander's


def test_bytes_at_random(house: House) -> None:
    dice = random.Random(1)
    steps: list[Callable[[Client], object]] = [lambda client: None, Client.sasl, Client.ready]
    for number in range(60):
        with Client(house) as client:
            steps[number % 3](client)
            client.write(dice.randbytes(dice.randrange(1, 400)))
            client.write(raw_frame(dice.randbytes(40)))
            try:
                client.read_header() if number % 3 < 2 else client.read()
            except Hung:
                continue


@pytest.mark.parametrize("part", ["attach", "flow", "transfer", "disposition"])
def test_frames_with_a_byte_that_changed(house: House, part: str) -> None:
    """Whatever comes of it, it comes to this client alone."""
    said: dict[str, Composite] = {
        "attach": attach(handle=3),
        "flow": Flow(
            next_incoming_id=0,
            incoming_window=9,
            next_outgoing_id=0,
            outgoing_window=9,
            handle=0,
            delivery_count=0,
            link_credit=5,
        ),
        "transfer": Transfer(handle=0, delivery_id=0, delivery_tag=b"tag", message_format=0),
        "disposition": Disposition(role=True, first=0, last=3, settled=True, state=Accepted()),
    }
    whole = said[part].encode()
    dice = random.Random(part)
    for _ in range(15):
        changed = bytearray(whole)
        changed[dice.randrange(len(changed))] = dice.randrange(256)
        with Client(house) as client:
            client.ready()
            client.attach_sender("no-such-queue" if part == "transfer" else "q")

            client.write(raw_frame(bytes(changed) + section(0x77, 1)))
            client.send(Close())

            assert client.ended()


def error_of(client: Client) -> str:
    close = client.expect(Close)
    assert close.error is not None
    return close.error.condition
