"""The control port of the local Service Bus, over HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from queue_runtime.testing.servicebus.control import ControlServer
from queue_runtime.testing.servicebus.namespace import Namespace
from queue_runtime.testing.servicebus.queues import QueueSettings
from tests.testing_servicebus.queue_hands import incoming


class RecordingBroker:
    """Writes down what would be done to the connections."""

    def __init__(self) -> None:
        self.done: list[tuple[str, ...]] = []

    def kill(self) -> None:
        self.done.append(("kill",))

    def close_connections(self, condition: str) -> None:
        self.done.append(("close", condition))

    def detach(self, entity: str, condition: str) -> None:
        self.done.append(("detach", entity, condition))

    def stats(self) -> Mapping[str, int]:
        return {"connections": 2, "delivery_id_violations": 0}


class Control:
    """A control port in an event loop of its own."""

    def __init__(self) -> None:
        self.namespace = Namespace()
        self.broker = RecordingBroker()
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._server = ControlServer(self.namespace, self.broker)
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Control:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result(10.0)
        return self

    def __exit__(self, *exc_info: object) -> None:
        asyncio.run_coroutine_threadsafe(self._server.stop(), self._loop).result(10.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)
        self._loop.close()

    def ask(self, method: str, target: str, body: bytes | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10.0)
        try:
            connection.request(method, target, body=body)
            answer = connection.getresponse()
            return answer.status, json.load(answer)
        finally:
            connection.close()


@pytest.fixture(scope="module")
def _running() -> Iterator[Control]:
    with Control() as control:
        yield control


@pytest.fixture
def control(_running: Control) -> Control:
    _running.ask("DELETE", "/all")
    _running.broker.done.clear()
    return _running


class TestQueues:
    def test_are_made_with_the_usual_settings(self, control: Control) -> None:
        assert control.ask("PUT", "/queues/orders") == (201, {"queue": "orders"})

        queue = control.namespace.queue("ORDERS")
        assert queue is not None
        assert queue.settings == QueueSettings()

    def test_are_made_with_the_settings_given(self, control: Control) -> None:
        control.ask(
            "PUT",
            "/queues/a%2Fb?lock=2.5&session=1&max_delivery=3&dl_on_expire=1&dup=600&ttl=60"
            "&max_message_size=1000&max_batch_size=2000",
        )

        queue = control.namespace.queue("a/b")
        assert queue is not None
        assert queue.settings == QueueSettings(
            lock=2.5,
            sessions=True,
            max_delivery=3,
            dead_letter_on_expire=True,
            duplicate_window=600.0,
            ttl=60.0,
            max_message_size=1000,
            max_batch_size=2000,
        )

    def test_that_exist_are_made_anew_and_their_links_detached(self, control: Control) -> None:
        control.ask("PUT", "/queues/q")
        queue = control.namespace.queue("q")
        assert queue is not None
        queue.send(incoming("a"), 1.0)
        assert control.broker.done == []

        control.ask("PUT", "/queues/q")

        assert control.namespace.stats()["q"]["active"] == 0
        assert control.broker.done == [("detach", "q", "amqp:link:detach-forced")]

    def test_are_all_deleted_with_the_faults(self, control: Control) -> None:
        control.ask("PUT", "/queues/q")
        control.ask("POST", "/fault/send?entity=q")
        control.ask("POST", "/fault/latency?ms=20")

        assert control.ask("DELETE", "/all") == (200, {})

        assert control.namespace.queue("q") is None
        assert control.broker.done == [("detach", "q", "amqp:not-found")]
        assert control.namespace.faults.take("send", "q") is None
        assert control.namespace.faults.latency == 0.0

    def test_and_connections_are_counted(self, control: Control) -> None:
        control.ask("PUT", "/queues/q")
        queue = control.namespace.queue("q")
        assert queue is not None
        queue.send(incoming("a", "b"), 1.0)

        assert control.ask("GET", "/stats") == (
            200,
            {
                "queues": {"q": {"active": 2, "locked": 0, "deferred": 0, "scheduled": 0, "dead": 0}},
                "connections": 2,
                "delivery_id_violations": 0,
            },
        )


class TestFaults:
    def test_of_connections_and_links_happen_at_once(self, control: Control) -> None:
        control.ask("PUT", "/queues/q")

        for target in (
            "kill",
            "close",
            "close?cond=amqp:x",
            "detach?entity=q",
            "detach?entity=Q&cond=amqp:y",
        ):
            assert control.ask("POST", f"/fault/{target}") == (200, {})

        assert control.broker.done == [
            ("kill",),
            ("close", "amqp:connection:forced"),
            ("close", "amqp:x"),
            ("detach", "q", "amqp:link:detach-forced"),
            ("detach", "q", "amqp:y"),
        ]

    @pytest.mark.parametrize("spot", ["send", "mgmt"])
    def test_with_a_condition_wait_for_as_many_operations_of_their_queue(
        self, control: Control, spot: Any
    ) -> None:
        control.ask("PUT", "/queues/q")
        control.ask("POST", f"/fault/{spot}?entity=q&cond=com.microsoft:timeout&n=2")
        faults = control.namespace.faults

        assert faults.take(spot, "other") is None
        assert [faults.take(spot, "Q") for _ in range(3)] == ["com.microsoft:timeout"] * 2 + [None]

    def test_that_drop_dispositions_may_be_for_any_queue(self, control: Control) -> None:
        control.ask("PUT", "/queues/q")
        control.ask("POST", "/fault/drop_disposition?n=1")
        faults = control.namespace.faults

        assert [faults.take("drop_disposition", "q") for _ in range(2)] == [True, None]

    def test_of_latency_are_in_milliseconds(self, control: Control) -> None:
        control.ask("POST", "/fault/latency?ms=20")

        assert control.namespace.faults.latency == 0.02

    def test_take_a_sessions_lock_away(self, control: Control) -> None:
        control.ask("PUT", "/queues/q?session=1")
        queue = control.namespace.queue("q")
        assert queue is not None
        session = queue.accept("s/1", "me", 1e11)
        assert session is not None

        assert control.ask("POST", "/fault/session_lock?entity=q&session=s%2F1") == (200, {})

        assert session.lost
        assert control.ask("POST", "/fault/session_lock?entity=q&session=s%2F1")[0] == 400


@pytest.mark.parametrize(
    ("method", "target", "status", "text"),
    [
        ("GET", "/nowhere", 404, "/queues/NAME"),
        ("POST", "/stats", 405, "takes GET, not POST"),
        ("PUT", "/queues/", 400, "'' is no queue name"),
        ("PUT", "/queues/q?lock=soon", 400, "lock must be a number, not 'soon'"),
        ("PUT", "/queues/q?lock=nan", 400, "lock must be a number"),
        ("PUT", "/queues/q?max_delivery=0", 400, "max_delivery must be 1 or more"),
        ("PUT", "/queues/q?session=yes", 400, "session must be 0 or 1, not 'yes'"),
        ("PUT", "/queues/q?locks=3&x=1", 400, "unknown parameters: locks, x"),
        ("POST", "/fault/detach", 400, "'entity' is missing"),
        ("POST", "/fault/send?entity=missing", 400, "no queue 'missing'"),
        ("POST", "/fault/latency", 400, "'ms' is missing"),
        ("POST", "/fault/session_lock?entity=plain&session=s", 400, "no sessions"),
    ],
)
def test_a_request_that_is_wrong_is_told_why(
    control: Control, method: str, target: str, status: int, text: str
) -> None:
    control.ask("PUT", "/queues/plain")

    answered, answer = control.ask(method, target)

    assert answered == status
    assert text in answer["error"]


def test_a_body_is_taken_and_ignored(control: Control) -> None:
    assert control.ask("PUT", "/queues/q", body=b"x" * 1000)[0] == 201


def test_who_speaks_no_http_harms_nobody(control: Control) -> None:
    with socket.create_connection(("127.0.0.1", control.port), timeout=10.0) as connection:
        connection.sendall(b"hello\r\n\r\n")
        assert connection.recv(100) == b""

    assert control.ask("GET", "/stats")[0] == 200
