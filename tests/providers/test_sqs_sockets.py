"""The SQS provider over real sockets: local endpoints for what they do right, and bad weather."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

import boto3.session
import pytest
from moto.server import ThreadedMotoServer

from queue_runtime import errors
from queue_runtime.clock import SystemClock
from queue_runtime.config import parse_url
from queue_runtime.message import DeadLetterInfo, Delivery, Message
from queue_runtime.provider import Abandon, Complete, DeadLetter
from queue_runtime.providers.sqs import create
from queue_runtime.providers.sqs.client import AwsSqsClient
from queue_runtime.testing.sqs import CREDENTIALS, REGION, LocalSqs, MadeQueue, make_queue

BODIES = [
    b"plain",
    b'{"a": 1}',
    "🎈 grüße".encode(),
    b"\x00\x01\x1f",
    b"\xff\xfe",
    b"",
    b"(empty)",
    b"\t\r\n",
]
INFO = DeadLetterInfo(reason="Timeout")

names = (f"q{n}" for n in count())


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def local() -> Iterator[LocalSqs]:
    with LocalSqs() as local:
        yield local


@pytest.fixture
def provider(local: LocalSqs) -> Iterator[AwsSqsClient]:
    provider = at(local.url)
    yield provider
    provider.close()


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def at(endpoint: str, **options: object) -> AwsSqsClient:
    more = "".join(f"&{name}={value}" for name, value in options.items())
    url = f"sqs://{REGION}?endpoint_url={endpoint}{more}"
    return create(parse_url(url).provider, SystemClock())


def punctual(limit: float, act: Callable[[], object]) -> float:
    """Return the seconds that *act* took. The machine may be late once, the provider must not be late always:
    what takes *limit* or more is done again, up to three times."""
    for _ in range(3):
        started = time.monotonic()
        act()
        seconds = time.monotonic() - started
        if seconds < limit:
            break
    return seconds


def queue_at(endpoint: str, *, fifo: bool = False, **options: object) -> MadeQueue:
    session = boto3.session.Session(region_name=REGION)
    client = session.client("sqs", endpoint_url=endpoint)
    try:
        return make_queue(client, next(names), fifo=fifo, **options)  # type: ignore[arg-type]
    finally:
        client.close()


# FIFO, on ministack


def test_every_body_comes_back_as_it_was_sent(local: LocalSqs, provider: AwsSqsClient) -> None:
    queue = queue_at(local.url, fifo=True).name
    sent = [
        Message(body=body, session_id="a b/ü", attributes={"kind": "x", "empty": "", "odd": "\x00"})
        for body in BODIES
    ]

    outcomes = provider.send(queue, sent)
    taken = provider.receive(queue, 10, 5)

    assert all(outcome.ok for outcome in outcomes)
    assert [delivery.message for delivery in taken] == sent
    assert [delivery.follows for delivery in taken] == [False] + [True] * (len(BODIES) - 1)
    sequences = [delivery.sequence or 0 for delivery in taken]
    assert sequences == sorted(set(sequences))


def test_a_group_waits_until_what_is_in_flight_is_settled(local: LocalSqs, provider: AwsSqsClient) -> None:
    queue = queue_at(local.url, fifo=True).name
    provider.send(queue, [Message(body=b"%d" % n, session_id="a") for n in range(3)])
    provider.send(queue, [Message(body=b"other", session_id="b")])

    first = provider.receive(queue, 1, 1)
    other = provider.receive(queue, 10, 1)
    provider.settle(queue, [Complete(first[0])])
    rest = provider.receive(queue, 10, 1)

    assert [d.message.body for d in (*first, *other, *rest)] == [b"0", b"other", b"1", b"2"]


def test_a_repeated_send_is_stored_once(local: LocalSqs, provider: AwsSqsClient) -> None:
    queue = queue_at(local.url, fifo=True).name
    message = Message(body=b"once", session_id="a")

    provider.send(queue, [message])
    provider.send(queue, [message])

    assert len(provider.receive(queue, 10, 0)) == 1


def test_dead_letters_of_one_session_can_all_be_seen_at_once(local: LocalSqs, provider: AwsSqsClient) -> None:
    made = queue_at(local.url, fifo=True)
    assert made.dead_letter_name is not None
    sent = [Message(body=body, session_id="a") for body in (b"1", b"\x00", b"")]
    provider.send(made.name, sent)
    taken = provider.receive(made.name, 10, 1)

    outcomes = provider.settle(made.name, [DeadLetter(delivery, INFO) for delivery in taken])
    dead = provider.receive(made.dead_letter_name, 10, 1)

    assert [outcome.ok for outcome in outcomes] == [True] * 3
    assert provider.describe(made.name).dead_letter_queue == made.dead_letter_name
    assert [(d.message.body, d.message.session_id, d.dead_letter, d.follows) for d in dead] == [
        (message.body, "a", INFO, False) for message in sent
    ]
    assert provider.receive(made.name, 10, 0) == []


def test_what_the_broker_moves_by_itself_has_a_reason(local: LocalSqs, provider: AwsSqsClient) -> None:
    made = queue_at(local.url, fifo=True, max_receives=1)
    assert made.dead_letter_name is not None
    provider.send(made.name, [Message(body=b"x", id="m1", session_id="a")])
    provider.settle(made.name, [Abandon(provider.receive(made.name, 1, 1)[0])])
    provider.receive(made.name, 1, 0)

    [dead] = provider.receive(made.dead_letter_name, 10, 1)

    assert dead.dead_letter == DeadLetterInfo(
        reason="MaxReceivesExceeded", queue=made.name, session_id="a", message_id="m1"
    )


def test_a_stale_receipt_fails_alone(local: LocalSqs, provider: AwsSqsClient) -> None:
    queue = queue_at(local.url, fifo=True).name
    provider.send(queue, [Message(body=b"x", session_id=f"s{n}") for n in range(3)])
    taken = provider.receive(queue, 10, 1)
    provider.settle(queue, [Abandon(taken[1])])
    again = provider.receive(queue, 10, 1)

    outcomes = provider.settle(queue, [Complete(delivery) for delivery in taken])

    assert len(again) == 1
    assert [type(outcome.error) for outcome in outcomes] == [
        type(None),
        errors.InvalidReceipt,
        type(None),
    ]


def test_a_lease_that_lapses_gives_the_message_back(local: LocalSqs, provider: AwsSqsClient) -> None:
    queue = queue_at(local.url, fifo=True).name
    provider.send(queue, [Message(body=b"x", session_id="a")])
    provider.receive(queue, 1, 1, lease=1)

    hidden = provider.receive(queue, 1, 0)
    [again] = provider.receive(queue, 1, 3, lease=30)
    [renewed] = provider.renew(queue, [again], lease=60)

    assert hidden == []
    assert again.delivery_count == 2
    assert renewed.value is not None
    assert renewed.value > again.leased_until + 25


def test_the_limit_is_exact(local: LocalSqs, provider: AwsSqsClient) -> None:
    queue = queue_at(local.url, fifo=True, max_message_size=8192).name
    limit = 8192
    room = limit - provider.size(queue, Message(body=b"", id="m0", session_id="a"))
    fits = Message(body=b"x" * (room + len(',"enc":"empty"') + len("(empty)")), id="m0", session_id="a")
    over = Message(body=fits.body + b"x", id="m1", session_id="b")

    outcomes = provider.send(queue, [fits, over])

    assert provider.size(queue, fits) == limit
    assert [type(outcome.error) for outcome in outcomes] == [type(None), errors.MessageTooLarge]
    assert provider.receive(queue, 10, 1)[0].message == fits


def test_a_missing_queue_is_named(provider: AwsSqsClient) -> None:
    with pytest.raises(errors.QueueNotFound, match="'nowhere'"):
        provider.receive("nowhere", 1, 0)


def test_an_empty_long_poll_ends_on_time(local: LocalSqs, provider: AwsSqsClient) -> None:
    queue = queue_at(local.url, fifo=True).name
    provider.capabilities(queue)
    taken: list[Delivery] = []

    seconds = punctual(1.75, lambda: taken.extend(provider.receive(queue, 1, 1.5)))

    assert taken == []
    assert 0.9 < seconds < 1.75


def test_a_long_poll_ends_when_a_message_comes_and_settling_does_not_wait_for_it(
    local: LocalSqs, provider: AwsSqsClient
) -> None:
    queue = queue_at(local.url, fifo=True).name
    provider.capabilities(queue)
    with ThreadPoolExecutor(1) as threads:
        poll = threads.submit(provider.receive, queue, 1, 20)

        started = time.monotonic()
        provider.send(queue, [Message(body=b"x", session_id="a")])
        sent_in = time.monotonic() - started
        [delivery] = poll.result(10)

    assert sent_in < 1
    assert delivery.message.body == b"x"


def test_a_long_poll_gives_back_what_it_brings_after_close(local: LocalSqs) -> None:
    queue = queue_at(local.url, fifo=True).name
    closing, other = at(local.url), at(local.url)
    begun = threading.Event()
    closing._sdk._session.events.register("before-send.sqs.ReceiveMessage", lambda **_: begun.set())
    with ThreadPoolExecutor(1) as threads:
        poll = threads.submit(closing.receive, queue, 1, 5)
        assert begun.wait(10)
        closing.close()
        other.send(queue, [Message(body=b"x", session_id="a")])

        with pytest.raises(errors.Closed):
            poll.result(10)
        [delivery] = other.receive(queue, 1, 5)

    assert delivery.message.body == b"x"
    other.close()


def test_sixteen_threads_share_one_client_from_its_first_call(local: LocalSqs) -> None:
    queue = queue_at(local.url, fifo=True).name
    provider = at(local.url)
    start = threading.Barrier(16)

    def work(n: int) -> bytes:
        start.wait(10)
        provider.send(queue, [Message(body=b"%d" % n, session_id=f"s{n}")])
        [delivery] = provider.receive(queue, 1, 10)
        provider.settle(queue, [Complete(delivery)])
        return delivery.message.body

    with ThreadPoolExecutor(16) as threads:
        bodies = list(threads.map(work, range(16)))

    assert sorted(bodies) == sorted(b"%d" % n for n in range(16))
    provider.close()


# Standard queues, on moto


def test_a_standard_queue_sends_receives_settles_and_dead_letters(moto: str) -> None:
    made = queue_at(moto)
    assert made.dead_letter_name is not None
    provider = at(moto)
    sent = {Message(body=body, attributes={"kind": "x"}).id: body for body in BODIES[:4]}

    outcomes = provider.send(
        made.name, [Message(body=b, id=id, attributes={"kind": "x"}) for id, b in sent.items()]
    )
    taken = provider.receive(made.name, 10, 1)
    settled = provider.settle(
        made.name, [Complete(taken[0]), DeadLetter(taken[1], INFO), Abandon(taken[2]), Complete(taken[3])]
    )
    [again] = provider.receive(made.name, 10, 1)
    [dead] = provider.receive(made.dead_letter_name, 10, 1)

    assert all(outcome.ok for outcome in (*outcomes, *settled))
    assert {d.message.id: d.message.body for d in taken} == sent
    assert again.message.id == taken[2].message.id
    assert again.delivery_count == 2
    assert (dead.message.id, dead.dead_letter) == (taken[1].message.id, INFO)
    provider.close()


def test_a_garbage_receipt_on_a_standard_queue_fails_alone(moto: str) -> None:
    queue = queue_at(moto).name
    provider = at(moto)
    provider.send(queue, [Message(body=b"x")])
    [delivery] = provider.receive(queue, 1, 1)

    outcomes = provider.settle(queue, [Complete(replace(delivery, receipt="garbage")), Complete(delivery)])

    assert [type(outcome.error) for outcome in outcomes] == [errors.InvalidReceipt, type(None)]
    provider.close()


# Bad weather


class Weather:
    """An endpoint that knows one queue, and treats each operation as it is told: answer, hang or cut."""

    def __init__(self, port: int = 0) -> None:
        self.of: dict[str, str] = {}
        self.over = threading.Event()
        weather = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                operation = self.headers["X-Amz-Target"].rpartition(".")[2]
                mood = weather.of.get(operation, "answer")
                if mood == "hang":
                    weather.over.wait(20)
                if mood != "answer":
                    self.close_connection = True
                    return
                answers = {
                    "GetQueueUrl": {"QueueUrl": f"{weather.url}/1/jobs"},
                    "GetQueueAttributes": {"Attributes": {"VisibilityTimeout": "30"}},
                    "SendMessageBatch": {"Successful": [{"Id": "0"}]},
                }
                content = json.dumps(answers.get(operation, {})).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def weather() -> Iterator[Weather]:
    weather = Weather()
    yield weather
    weather.close()


def test_an_endpoint_that_is_down_is_said_at_once_and_found_when_it_is_up() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    provider = at(f"http://127.0.0.1:{port}", request_timeout=1)

    def send() -> None:
        with pytest.raises(errors.ConnectionFailed, match="could not be reached"):
            provider.send("jobs", [Message(body=b"x")])

    said_in = punctual(1, send)
    weather = Weather(port)
    try:
        [outcome] = provider.send("jobs", [Message(body=b"x")])
    finally:
        weather.close()

    assert said_in < 1
    assert outcome.ok
    provider.close()


def test_a_request_that_is_not_answered_is_unknown_within_its_timeout(weather: Weather) -> None:
    weather.of["SendMessageBatch"] = "hang"
    provider = at(weather.url, request_timeout=0.3)
    provider.capabilities("jobs")

    def send() -> None:
        with pytest.raises(errors.OutcomeUnknown, match="not answered in time"):
            provider.send("jobs", [Message(body=b"x")])

    assert 0.3 <= punctual(1.2, send) < 1.2
    provider.close()


def test_a_receive_that_is_not_answered_ends_soon_after_its_wait(weather: Weather) -> None:
    weather.of["ReceiveMessage"] = "hang"
    provider = at(weather.url, request_timeout=0.3)
    provider.capabilities("jobs")

    def receive() -> None:
        with pytest.raises(errors.OperationTimeout):
            provider.receive("jobs", 1, 1)

    assert 1.3 <= punctual(2.2, receive) < 2.2
    provider.close()


def test_a_connection_cut_after_the_request_leaves_a_send_unknown(weather: Weather) -> None:
    weather.of = {"SendMessageBatch": "cut", "ReceiveMessage": "cut"}
    provider = at(weather.url)

    with pytest.raises(errors.OutcomeUnknown):
        provider.send("jobs", [Message(body=b"x")])
    with pytest.raises(errors.ConnectionFailed):
        provider.receive("jobs", 1, 0)
    weather.of = {}

    assert provider.send("jobs", [Message(body=b"x")])[0].ok
    provider.close()
