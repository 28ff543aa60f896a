"""The local Service Bus under the SDK it is made for, in the clear and with TLS.

The SDK takes half a second to open a link and as long to close one: each test is a story.
"""

from __future__ import annotations

import gc
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.servicebus import (
    NEXT_AVAILABLE_SESSION,
    ServiceBusClient,
    ServiceBusMessage,
    ServiceBusMessageState,
    ServiceBusReceiveMode,
    ServiceBusReceiver,
    ServiceBusSender,
    ServiceBusSubQueue,
    TransportType,
)
from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageHeader
from azure.servicebus.exceptions import (
    MessageLockLostError,
    MessageSizeExceededError,
    ServiceBusAuthenticationError,
    ServiceBusConnectionError,
    SessionLockLostError,
)

from tests.testing_servicebus.certificates import self_signed
from tests.testing_servicebus.wire_house import House, running


class Bus:
    """A broker, and how the SDK gets to it."""

    def __init__(self, house: House, **options: Any) -> None:
        self.house = house
        self._options = options

    def client(self, *, key: str = "right", **options: Any) -> ServiceBusClient:
        text = self.house.connection_string.replace("=right", f"={key}")
        if "connection_verify" in self._options:
            text = text.replace(";UseDevelopmentEmulator=true", "")
        return ServiceBusClient.from_connection_string(text, **{"retry_total": 0, **self._options, **options})


@pytest.fixture(scope="module", params=["tcp", "tls"])
def bus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bus]:
    if request.param == "tcp":
        with running(sas_key="right") as house:
            yield Bus(house)
        return
    certificate, key = self_signed(tmp_path_factory.mktemp("tls"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with running(sas_key="right", ssl_context=context) as house:
        yield Bus(
            house,
            custom_endpoint_address=f"sb://localhost:{house.port}",
            transport_type=TransportType.Amqp,
            connection_verify=str(certificate),
        )


@pytest.fixture(scope="module")
def plain_bus() -> Iterator[Bus]:
    with running(sas_key="right") as house:
        yield Bus(house)


# A connection that was cut off under it, the SDK leaves to the garbage collector with its socket open.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(autouse=True)
def leftovers() -> Iterator[None]:
    """Collect them here: in another test they would be an error."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def no_violations(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for name in ("bus", "plain_bus"):
        if name in request.fixturenames:
            house = request.getfixturevalue(name).house
            assert house.stats()["delivery_id_violations"] == 0


@contextmanager
def opened(
    client: ServiceBusClient, queue: str, **options: Any
) -> Iterator[tuple[ServiceBusSender, ServiceBusReceiver]]:
    """A sender and a receiver, opened at the same time and closed so."""
    sender, receiver = client.get_queue_sender(queue), client.get_queue_receiver(queue, **options)
    handlers: list[ServiceBusSender | ServiceBusReceiver] = [sender, receiver]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda handler: handler.__enter__(), handlers))
        try:
            yield sender, receiver
        finally:
            list(pool.map(lambda handler: handler.close(), handlers))


def texts(messages: list[Any]) -> list[str]:
    return [str(message) for message in messages]


def test_a_message_goes_through_all_that_can_happen_to_it(bus: Bus) -> None:
    bus.house.queue("q", max_delivery=3)
    with bus.client() as client, opened(client, "q") as (sender, receiver):
        sender.send_messages([ServiceBusMessage(name, message_id=name) for name in "abcde"])
        a, b, c, d, e = receiver.receive_messages(5, 5)

        receiver.complete_message(a)
        receiver.abandon_message(b)
        receiver.dead_letter_message(c, "why", "because")
        receiver.defer_message(d)
        assert receiver.renew_message_lock(e) == e.locked_until_utc

        peeked = {str(each): each.state for each in receiver.peek_messages(10, sequence_number=1)}
        assert peeked == {
            "b": ServiceBusMessageState.ACTIVE,
            "d": ServiceBusMessageState.DEFERRED,
            "e": ServiceBusMessageState.ACTIVE,
        }
        [deferred] = receiver.receive_deferred_messages(d.sequence_number or 0)
        receiver.complete_message(deferred)
        [again] = receiver.receive_messages(1, 5)
        assert (str(again), again.delivery_count) == ("b", 1)
        receiver.complete_message(again)
        receiver.complete_message(e)
        with client.get_queue_receiver(
            "q",
            sub_queue=ServiceBusSubQueue.DEAD_LETTER,
            receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE,
        ) as dead_letters:
            [dead] = dead_letters.receive_messages(1, 5)
            assert (dead.dead_letter_reason, dead.dead_letter_error_description) == ("why", "because")
    assert sum(bus.house.counts("q").values()) == 0


def test_sessions_are_held_kept_state_of_and_listed(bus: Bus) -> None:
    bus.house.queue("s", sessions=True)
    with bus.client() as client, opened(client, "s", session_id="b") as (sender, receiver):
        for name in "ab":
            sender.send_messages([ServiceBusMessage(f"{name}{number}", session_id=name) for number in (1, 2)])
        assert list(client.list_queue_sessions("s")) == ["a", "b"]

        receiver.session.set_state("state")
        assert receiver.session.get_state() == b"state"
        assert receiver.session.renew_lock() == receiver.session.locked_until_utc
        with client.get_queue_receiver("s", session_id=NEXT_AVAILABLE_SESSION) as other:
            assert other.session.session_id == "a"
            assert texts(other.receive_messages(2, 5)) == ["a1", "a2"]


@pytest.fixture
def client(plain_bus: Bus) -> Iterator[ServiceBusClient]:
    plain_bus.house.queue("q")
    plain_bus.house.queue("s", sessions=True)
    with plain_bus.client() as client:
        yield client


def test_sizes_are_told_and_kept(plain_bus: Bus, client: ServiceBusClient) -> None:
    plain_bus.house.queue("q", max_message_size=400_000, max_batch_size=300_000)
    with opened(client, "q") as (sender, receiver):
        assert sender.create_message_batch().max_size_in_bytes == 300_000
        sender.send_messages(ServiceBusMessage(b"x" * 399_000))
        for size in (401_000, 3_000_000):
            with pytest.raises(MessageSizeExceededError):
                sender.send_messages(ServiceBusMessage(b"x" * size))

        [large] = receiver.receive_messages(1, 5)

        assert b"".join(large.body) == b"x" * 399_000


def test_what_the_sender_wrote_is_what_the_receiver_reads(client: ServiceBusClient) -> None:
    sent = AmqpAnnotatedMessage(
        sequence_body=[[1, "two"], [b"three"]],
        header=AmqpMessageHeader(priority=9, durable=True),
        footer={"foot": "note"},
        annotations={"x-theirs": 5},
        delivery_annotations={"d-theirs": "y"},
        application_properties={"key": "value", "number": 4},
    )
    with opened(client, "q") as (sender, receiver):
        sender.send_messages(sent)
        [message] = receiver.receive_messages(1, 5)

    raw = message.raw_amqp_message
    assert list(raw.body) == [[1, b"two"], [b"three"]]
    assert raw.header is not None
    assert (raw.header.priority, raw.header.durable) == (9, True)
    assert raw.footer == {b"foot": b"note"}
    assert raw.annotations is not None
    assert raw.annotations[b"x-theirs"] == 5
    assert raw.delivery_annotations is not None
    assert raw.delivery_annotations[b"d-theirs"] == b"y"
    assert raw.application_properties == {b"key": b"value", b"number": 4}


def test_scheduled_messages_come_in_their_time_or_are_cancelled(
    plain_bus: Bus, client: ServiceBusClient
) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    with opened(client, "q") as (sender, receiver):
        first, _ = sender.schedule_messages([ServiceBusMessage("1"), ServiceBusMessage("2")], soon)
        sender.cancel_scheduled_messages(first)
        assert plain_bus.house.counts("q")["scheduled"] == 1

        assert texts(receiver.receive_messages(2, 5)) == ["2"]
        assert datetime.now(UTC) >= soon - timedelta(milliseconds=2)


def test_a_prefetched_message_comes_back_when_its_receiver_closes(
    plain_bus: Bus, client: ServiceBusClient
) -> None:
    with opened(client, "q", prefetch_count=10) as (sender, receiver):
        sender.send_messages([ServiceBusMessage(str(number)) for number in range(5)])
        assert texts(receiver.receive_messages(1, 5)) == ["0"]
        assert plain_bus.house.counts("q")["locked"] == 5

    assert plain_bus.house.counts("q") == {"active": 4, "locked": 1, "deferred": 0, "scheduled": 0, "dead": 0}


def test_an_expired_lock_is_lost(plain_bus: Bus, client: ServiceBusClient) -> None:
    plain_bus.house.queue("q", lock=1.0)
    with opened(client, "q") as (sender, receiver):
        sender.send_messages(ServiceBusMessage("1"))
        [message] = receiver.receive_messages(1, 5)

        [again] = receiver.receive_messages(1, 5)

        assert again.delivery_count == 1
        with pytest.raises(MessageLockLostError):
            receiver.complete_message(message)
        receiver.complete_message(again)


def test_a_settlement_survives_a_kill_through_management(plain_bus: Bus) -> None:
    plain_bus.house.queue("q")
    patient = plain_bus.client(retry_total=1, retry_backoff_factor=0.01)
    with patient, opened(patient, "q") as (sender, receiver):
        sender.send_messages(ServiceBusMessage("1"))
        [message] = receiver.receive_messages(1, 5)
        plain_bus.house.do(plain_bus.house.server.kill)

        receiver.complete_message(message)

    assert sum(plain_bus.house.counts("q").values()) == 0


def test_a_lost_session_is_told_to_its_receiver(plain_bus: Bus, client: ServiceBusClient) -> None:
    queue = plain_bus.house.do(lambda: plain_bus.house.namespace.queue("s"))
    assert queue is not None
    with client.get_queue_receiver("s", session_id="a") as receiver:
        plain_bus.house.do(lambda: queue.lose_session("a", time.time()))

        with pytest.raises(SessionLockLostError):
            receiver.receive_messages(1, 1)


def test_a_wrong_key_and_an_unknown_queue_are_refused(plain_bus: Bus, client: ServiceBusClient) -> None:
    for stranger, queue, status in ((plain_bus.client(key="wrong"), "q", 401), (client, "none", 404)):
        with stranger, pytest.raises(ServiceBusAuthenticationError) as caught:
            stranger.get_queue_sender(queue).send_messages(ServiceBusMessage("1"))
        assert getattr(caught.value.inner_exception, "status_code", None) == status


def test_closed_connections_and_detached_links_are_made_anew(
    plain_bus: Bus, client: ServiceBusClient
) -> None:
    server = plain_bus.house.server
    faults: list[Callable[[], None]] = [
        lambda: server.close_connections("amqp:connection:forced"),
        lambda: server.detach("q", "amqp:link:detach-forced"),
    ]
    with client.get_queue_sender("q") as sender:
        for fault in faults:
            sender.send_messages(ServiceBusMessage("before"))
            plain_bus.house.do(fault)
            try:
                sender.send_messages(ServiceBusMessage("perhaps"))
            except ServiceBusConnectionError:
                sender.send_messages(ServiceBusMessage("after"))

    assert plain_bus.house.counts("q")["active"] >= 4


def test_many_clients_at_once(plain_bus: Bus, client: ServiceBusClient) -> None:
    received: list[str] = []

    def work(number: int) -> None:
        with client.get_queue_sender("q") as sender:
            sender.send_messages(ServiceBusMessage(str(number)))
        with client.get_queue_receiver("q") as receiver:
            [message] = receiver.receive_messages(1, 10)
            receiver.complete_message(message)
            received.append(str(message))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert sorted(received, key=int) == [str(number) for number in range(20)]
