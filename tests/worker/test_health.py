"""Probes over real sockets: what they are answered, and that nobody can hold the server up."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection, HTTPResponse
from socketserver import TCPServer
from typing import Any
from unittest.mock import patch

import pytest

from queue_runtime.errors import ConfigurationError
from queue_runtime.worker import probe_server
from queue_runtime.worker.health import HealthServer, is_live, is_ready
from queue_runtime.worker.report import WorkerHealth
from tests.worker.hands import SOON, left_over, wait_until

WELL = WorkerHealth(
    queue="events",
    state="running",
    alive=True,
    fetching=True,
    last_progress=0.12345,
    last_answer=2.5,
    lag=float("inf"),
)
PAUSED = replace(WELL, fetching=False, paused="handlers fail: 18 of 20")
BACKING_OFF = replace(WELL, fetching=False)
STOPPING = replace(WELL, state="stopping", fetching=False)
NEW = WorkerHealth(queue="events", state="new", alive=False, fetching=False)
STOPPED = replace(NEW, state="stopped")
FORKED = replace(NEW, state="forked")
DEAD = replace(WELL, alive=False, fetching=False)


class Stub:
    """A worker that is as it is told to be."""

    def __init__(self, health: WorkerHealth = WELL) -> None:
        self.now = health

    def health(self) -> WorkerHealth:
        return self.now


class Speechless:
    def health(self) -> WorkerHealth:
        raise RuntimeError("password=hunter2")


class Holding:
    """Does not answer until it is let go."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.go_on = threading.Event()

    def health(self) -> WorkerHealth:
        self.asked.set()
        assert self.go_on.wait(SOON)
        return WELL


@pytest.fixture
def worker() -> Stub:
    return Stub()


@pytest.fixture
def server(worker: Stub) -> Iterator[HealthServer]:
    others = set(left_over())
    with HealthServer(worker, port=0) as made:
        yield made
    assert others.issuperset(left_over())  # `close` joins all it has started


def ask(server: HealthServer, path: str, method: str = "GET") -> tuple[HTTPResponse, str]:
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=SOON)) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return response, response.read().decode()


def status_of(server: HealthServer, path: str) -> int:
    return ask(server, path)[0].status


def body_of(server: HealthServer, path: str) -> Any:
    return json.loads(ask(server, path)[1])


def raw(server: HealthServer, request: bytes) -> bytes:
    """What is answered to exactly *request*, until the server hangs up."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=SOON) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(4096), b""))


class TestDecisions:
    @pytest.mark.parametrize(
        ("health", "live", "ready"),
        [
            (WELL, True, True),
            (PAUSED, True, False),
            (BACKING_OFF, True, False),
            (STOPPING, True, False),
            (NEW, True, False),
            (DEAD, False, False),
            (STOPPED, False, False),
            (FORKED, False, False),
        ],
    )
    def test_who_lives_and_who_takes_messages(self, health: WorkerHealth, live: bool, ready: bool) -> None:
        assert (is_live(health), is_ready(health)) == (live, ready)

    def test_a_stuck_flag_of_a_dead_worker_makes_it_not_ready(self) -> None:
        assert not is_ready(replace(WELL, alive=False))
        assert not is_ready(replace(WELL, paused="why"))
        assert not is_ready(replace(WELL, state="stopping"))


class TestAnswers:
    @pytest.mark.parametrize(
        ("health", "live", "ready"), [(WELL, 200, 200), (PAUSED, 200, 503), (DEAD, 503, 503)]
    )
    def test_a_probe_is_answered_by_how_the_worker_is(
        self, server: HealthServer, worker: Stub, health: WorkerHealth, live: int, ready: int
    ) -> None:
        worker.now = health

        assert (status_of(server, "/livez"), status_of(server, "/readyz")) == (live, ready)

    def test_the_body_has_the_facts_of_each_worker(self, server: HealthServer, worker: Stub) -> None:
        worker.now = PAUSED

        response, text = ask(server, "/readyz")

        assert json.loads(text) == {
            "ok": False,
            "workers": [
                {
                    "ok": False,
                    "queue": "events",
                    "state": "running",
                    "alive": True,
                    "fetching": False,
                    "last_progress": 0.123,
                    "last_answer": 2.5,
                    "lag": None,
                    "paused": "handlers fail: 18 of 20",
                }
            ],
        }
        assert response.headers["Content-Type"] == "application/json"
        assert response.headers["Cache-Control"] == "no-store"
        assert int(response.headers["Content-Length"]) == len(text)
        assert response.headers["Server"] == "queue_runtime"

    def test_all_workers_must_be_well(self) -> None:
        with HealthServer(Stub(), Stub(DEAD), port=0) as server:
            assert status_of(server, "/livez") == 503
            assert [entry["ok"] for entry in body_of(server, "/livez")["workers"]] == [True, False]

    def test_a_worker_that_cannot_say_how_it_is_is_not_well_and_tells_no_secret(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        with HealthServer(Speechless(), Stub(), port=0) as server:
            body = body_of(server, "/livez")

        assert body["workers"][0] == {"ok": False, "error": "RuntimeError"}
        assert body["workers"][1]["ok"]
        assert "a worker cannot say how it is" in caplog.text

    def test_head_has_no_body(self, server: HealthServer) -> None:
        response, text = ask(server, "/livez", "HEAD")

        assert (response.status, text) == (200, "")
        assert int(response.headers["Content-Length"]) > 0

    def test_a_query_changes_nothing(self, server: HealthServer) -> None:
        assert status_of(server, "/readyz?verbose=1") == 200

    @pytest.mark.parametrize("path", ["/", "/livez/", "/healthz", "/livez/../readyz"])
    def test_other_paths_are_not_there(self, server: HealthServer, path: str) -> None:
        response, text = ask(server, path)

        assert response.status == 404
        assert json.loads(text) == {"error": "there are /livez, /readyz"}

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
    def test_other_methods_are_not_allowed(self, server: HealthServer, method: str) -> None:
        response, _ = ask(server, "/livez", method)

        assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")

    @pytest.mark.parametrize(
        "request_", [b"\r\n\r\n", b"GET\r\n\r\n", b"GET /livez HTTP/9.x\r\n\r\n", b"\x16\x03\n\n"]
    )
    def test_what_is_no_http_is_not_answered_well(self, server: HealthServer, request_: bytes) -> None:
        assert b" 200 " not in raw(server, request_)
        assert status_of(server, "/livez") == 200

    def test_a_request_with_bare_line_feeds_is_read(self, server: HealthServer) -> None:
        assert raw(server, b"GET /livez HTTP/1.0\n\n").startswith(b"HTTP/1.0 200 ")

    def test_nothing_is_written_to_the_console_and_only_debug_lines_to_the_log(
        self,
        server: HealthServer,
        caplog: pytest.LogCaptureFixture,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        with caplog.at_level("DEBUG", logger="queue_runtime"):
            status_of(server, "/livez")
            status_of(server, "/nowhere")

        assert {record.levelname for record in caplog.records} == {"DEBUG"}
        assert capsys.readouterr() == ("", "")


class TestSlowClients:
    def test_one_that_says_nothing_holds_up_no_other(self, server: HealthServer) -> None:
        with closing(socket.create_connection(("127.0.0.1", server.port))) as slow:
            slow.sendall(b"GET /livez")

            assert status_of(server, "/livez") == 200

    def test_one_that_takes_its_time_is_hung_up_on(
        self, worker: Stub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(probe_server, "PATIENCE", 0.3)
        with (
            HealthServer(worker, port=0) as server,
            socket.create_connection(("127.0.0.1", server.port), timeout=SOON) as slow,
        ):
            slow.sendall(b"GET /livez HTTP/1.0\r\n")
            seen = threading.Event()
            thread = threading.Thread(target=_send_byte_after_byte, args=(slow, seen))
            thread.start()
            try:
                assert _hung_up(slow)
            finally:
                seen.set()
                thread.join()

    def test_one_that_sends_without_end_is_hung_up_on(self, server: HealthServer) -> None:
        def send_without_end(connection: socket.socket) -> None:
            for _ in range(10_000):
                connection.sendall(b"x" * 1024)

        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=SOON) as endless,
            pytest.raises(OSError, match=r"reset|pipe"),
        ):
            send_without_end(endless)

    def test_those_above_the_limit_are_hung_up_on_and_the_next_is_answered(
        self, server: HealthServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(probe_server, "MOST", 2)
        slow = [socket.create_connection(("127.0.0.1", server.port), timeout=SOON) for _ in range(2)]
        try:
            wait_until(lambda: left_over().count("queue_runtime-health-request") == 2)
            assert raw(server, b"") == b""
        finally:
            for connection in slow:
                connection.close()
        wait_until(lambda: "queue_runtime-health-request" not in left_over())

        assert status_of(server, "/livez") == 200

    def test_closing_does_not_wait_for_a_client_that_says_nothing(self, worker: Stub) -> None:
        server = HealthServer(worker, port=0)
        server.start()
        with closing(socket.create_connection(("127.0.0.1", server.port), timeout=SOON)) as slow:
            wait_until(lambda: "queue_runtime-health-request" in left_over())

            server.close()

            assert _hung_up(slow)

    def test_closing_lets_an_answer_that_is_under_way_be_given(self) -> None:
        worker = Holding()
        server = HealthServer(worker, port=0)
        server.start()
        listens = f"queue_runtime-health-{server.port}"
        answers: list[int] = []
        asking = threading.Thread(target=lambda: answers.append(status_of(server, "/livez")))
        asking.start()
        assert worker.asked.wait(SOON)
        closing_it = threading.Thread(target=server.close)
        closing_it.start()

        wait_until(lambda: listens not in left_over())
        worker.go_on.set()
        closing_it.join(SOON)
        asking.join(SOON)

        assert answers == [200]

    def test_while_no_connection_can_be_taken_it_does_not_turn_in_circles(
        self, server: HealthServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = 0
        good_from = time.monotonic() + 0.5
        take = TCPServer.get_request

        def get_request(self: TCPServer) -> tuple[socket.socket, Any]:
            nonlocal calls
            calls += 1
            if time.monotonic() < good_from:
                raise OSError(errno.EMFILE, "Too many open files")
            return take(self)

        monkeypatch.setattr(TCPServer, "get_request", get_request)

        assert status_of(server, "/livez") == 200
        assert calls <= 5

    def test_without_a_thread_to_be_had_the_next_request_is_answered(self, server: HealthServer) -> None:
        with patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
            assert raw(server, b"GET /livez HTTP/1.0\r\n\r\n") == b""

        assert status_of(server, "/livez") == 200


def _send_byte_after_byte(connection: socket.socket, seen: threading.Event) -> None:
    """So that a time limit which each byte begins anew would never end; until *seen*."""
    for _ in range(100):
        if seen.wait(0.05):
            return
        try:
            connection.sendall(b"x")
        except OSError:
            return


def _hung_up(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:  # there was something that it had not read
        return True


class TestStartAndClose:
    def test_it_can_be_started_again_on_the_same_port(self, worker: Stub) -> None:
        with HealthServer(worker, port=0) as first:
            port = first.port
        server = HealthServer(worker, port=port)

        for _ in range(2):
            with server:
                assert server.port == port
                assert status_of(server, "/livez") == 200

    def test_closed_it_refuses_connections_and_closing_again_does_nothing(self, worker: Stub) -> None:
        with HealthServer(worker, port=0) as server:
            port = server.port
        server.close()

        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=SOON)

    def test_starting_twice_is_refused(self, server: HealthServer) -> None:
        with pytest.raises(ConfigurationError, match=f"port {server.port} is started already"):
            server.start()

    def test_one_that_finds_no_thread_leaves_the_port_free(self, worker: Stub) -> None:
        with HealthServer(worker, port=0) as first:
            port = first.port
        server = HealthServer(worker, port=port)
        with (
            patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")),
            pytest.raises(RuntimeError, match="thread"),
        ):
            server.start()

        with server:
            assert status_of(server, "/livez") == 200

    def test_its_threads_are_named_daemons(self, server: HealthServer) -> None:
        [thread] = [t for t in threading.enumerate() if t.name == f"queue_runtime-health-{server.port}"]

        assert thread.daemon

    def test_repr_says_where_and_whether_it_serves(self, worker: Stub) -> None:
        server = HealthServer(worker, port=0)
        assert repr(server) == "<HealthServer 127.0.0.1:0 [closed | workers 1]>"
        with server:
            assert repr(server) == f"<HealthServer 127.0.0.1:{server.port} [serving | workers 1]>"

    @pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
    def test_it_listens_on_ipv6_too(self, worker: Stub) -> None:
        with (
            HealthServer(worker, port=0, host="::1") as server,
            closing(HTTPConnection("::1", server.port, timeout=SOON)) as connection,
        ):
            connection.request("GET", "/livez")
            assert connection.getresponse().status == 200

    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_forked_child_neither_serves_nor_holds_the_port(self, server: HealthServer) -> None:
        port = server.port
        go_on, say = os.pipe()
        told, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(say)
                os.write(tell, repr(server).encode())
                os.read(go_on, 1)  # until the parent has tried, or is gone
            finally:
                os._exit(0)
        try:
            assert b"[closed" in os.read(told, 100)
            assert status_of(server, "/livez") == 200
            server.close()
            with HealthServer(Stub(), port=port) as again:
                assert status_of(again, "/livez") == 200
        finally:
            os.close(say)
            os.waitpid(pid, 0)
            for end in (go_on, told, tell):
                os.close(end)


class TestBadInput:
    @pytest.mark.parametrize("port", [-1, 65536, "8080", 80.5, None, True])
    def test_a_port_that_is_none_is_refused_by_name(self, worker: Stub, port: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"^port must be .* it is "):
            HealthServer(worker, port=port)

    @pytest.mark.parametrize("host", ["", None, 127])
    def test_a_host_that_is_none_is_refused_by_name(self, worker: Stub, host: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"^host must be .* it is "):
            HealthServer(worker, port=0, host=host)

    @pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 300, "1.2.3.4.5"])
    def test_a_host_that_is_not_known_is_said_at_start(self, worker: Stub, host: str) -> None:
        with pytest.raises(ConfigurationError, match=f"host='{host}'"):
            HealthServer(worker, port=0, host=host).start()

    def test_an_address_of_another_machine_is_said_at_start(self, worker: Stub) -> None:
        with pytest.raises(ConfigurationError, match=r"host='192\.0\.2\.1'.*0\.0\.0\.0"):
            HealthServer(worker, port=0, host="192.0.2.1").start()

    def test_a_port_in_use_is_said_at_start_with_the_way_out(
        self, server: HealthServer, worker: Stub
    ) -> None:
        with pytest.raises(ConfigurationError, match=rf"port={server.port}: another program.*or 0"):
            HealthServer(worker, port=server.port).start()

    def test_it_needs_a_worker(self) -> None:
        with pytest.raises(ConfigurationError, match="at least one worker"):
            HealthServer(port=0)

    @pytest.mark.parametrize("worker", [Stub, "events", None])
    def test_what_has_no_health_is_refused(self, worker: Any) -> None:
        with pytest.raises(ConfigurationError, match="no health"):
            HealthServer(worker, port=0)
