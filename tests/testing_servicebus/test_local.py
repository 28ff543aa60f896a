"""The local Service Bus as a process of its own."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage, TransportType

from queue_runtime import Message, connect
from queue_runtime.errors import QueueError
from queue_runtime.testing.servicebus import LocalServiceBus
from tests.testing_servicebus.certificates import self_signed


@pytest.fixture
def broker(local_service_bus: LocalServiceBus) -> LocalServiceBus:
    return local_service_bus


def test_counts_the_queues_that_it_made(broker: LocalServiceBus) -> None:
    assert broker.make_queue("orders", sessions=True, lock=5.0, max_message_size=1000) == "orders"

    stats = broker.stats()

    assert stats["queues"]["orders"] == {"active": 0, "locked": 0, "deferred": 0, "scheduled": 0, "dead": 0}
    assert stats["delivery_id_violations"] == 0


def test_is_reached_as_an_emulator(broker: LocalServiceBus) -> None:
    assert broker.connection_string.startswith(f"Endpoint=sb://127.0.0.1:{broker.port};SharedAccessKeyName=")
    assert broker.connection_string.endswith(";UseDevelopmentEmulator=true")


def test_gives_connect_what_it_needs_and_maps_queues(broker: LocalServiceBus) -> None:
    target = urlsplit(broker.target(events="orders-1"))

    assert (target.scheme, target.netloc) == ("servicebus", "")
    assert dict(parse_qsl(target.query)) == {
        "connection_string": broker.connection_string,
        "queue.events": "orders-1",
    }


def sent_and_received(client: ServiceBusClient, queue: str) -> str:
    with client.get_queue_sender(queue) as sender:
        sender.send_messages(ServiceBusMessage("hello"))
    with client.get_queue_receiver(queue, max_wait_time=10) as receiver:
        [message] = receiver.receive_messages()
        receiver.complete_message(message)
        return str(message)


def test_serves_the_sdk(broker: LocalServiceBus) -> None:
    broker.make_queue("sdk")

    with ServiceBusClient.from_connection_string(broker.connection_string) as client:
        assert sent_and_received(client, "sdk") == "hello"


def test_serves_the_sdk_over_tls(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    with LocalServiceBus(certificate=certificate, key=key) as broker:
        broker.make_queue("sdk")
        options = dict(parse_qsl(urlsplit(broker.target(events="sdk")).query))
        assert options["queue.events"] == "sdk"

        with ServiceBusClient.from_connection_string(
            options["connection_string"],
            custom_endpoint_address=options["endpoint"],
            connection_verify=options["ca_bundle"],
            transport_type=TransportType.Amqp,
        ) as client:
            assert sent_and_received(client, "sdk") == "hello"


def test_takes_a_certificate_and_a_key_or_neither(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="both"):
        LocalServiceBus(certificate=tmp_path / "certificate.pem")


def test_prepares_faults(broker: LocalServiceBus) -> None:
    broker.make_queue("faulty")

    broker.fault("send", entity="faulty", cond="com.microsoft:server-busy", n=2)
    broker.latency(0)

    with pytest.raises(QueueError, match="no queue 'missing'"):
        broker.fault("send", entity="missing")


def test_forgets_everything_when_told_to() -> None:
    with LocalServiceBus() as broker:
        broker.make_queue("gone")

        broker.delete_all()

        assert broker.stats()["queues"] == {}


def test_ends_with_its_block_and_then_says_so() -> None:
    with LocalServiceBus() as broker:
        process = broker._process
        assert process is not None

    assert process.returncode == 0
    with pytest.raises(QueueError, match="not running"):
        broker.stats()


def test_is_in_a_process_group_of_its_own(broker: LocalServiceBus) -> None:
    process = broker._process
    assert process is not None

    assert os.getpgid(process.pid) == process.pid != os.getpgid(0)


def test_that_does_not_start_says_why() -> None:
    with pytest.raises(QueueError, match="did not start") as failed, LocalServiceBus(start_timeout=0.0):
        pass

    assert "it said" in str(failed.value)


def test_the_command_ends_on_ctrl_c_after_its_json_line() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "queue_runtime.testing.servicebus"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline().startswith('{"port": ')
        process.send_signal(signal.SIGINT)
        assert process.wait(10.0) == 0
    finally:
        process.kill()
        process.stdout.close()


def test_the_command_makes_the_queues_and_says_what_the_shell_of_a_program_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = [sys.executable, "-m", "queue_runtime.testing.servicebus", "events:sessions", "jobs"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(2)]
            said = dict(shlex.split(line)[1].split("=", 1) for line in lines)
            for name, value in said.items():
                monkeypatch.setenv(name, value)

            with connect() as client:
                client.send("events", Message.of("hello", session_id="a"))
                client.send("jobs", Message.of("hello"))
                session = client.accept_session("events", wait=5.0)
                messages = client.receive("jobs", wait=5.0)
        finally:
            process.terminate()
            code = process.wait(10.0)

    assert [line.split()[0] for line in lines] == ["export"] * 2
    assert set(said) == {"QUEUE_RUNTIME_URL", "AZURE_SERVICEBUS_CONNECTION_STRING"}
    assert session is not None
    assert [message.text for message in messages] == ["hello"]
    assert code == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["events:session"], "'events:session': write NAME or NAME:sessions"),
        (["a b"], "'a b' is no queue name"),
        (["events", "--tls-cert", "cert.pem", "--tls-key", "key.pem"], "by the control port"),
        (["--tls-cert", "cert.pem"], "go together"),
        (["--tls-cert", "missing.pem", "--tls-key", "missing.pem"], "cannot serve"),
        (["--port", "many"], "invalid int"),
    ],
)
def test_the_command_refuses_what_cannot_be(arguments: list[str], text: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "queue_runtime.testing.servicebus", *arguments],
        capture_output=True,
        text=True,
        timeout=30.0,
        check=False,
    )

    assert run.returncode != 0
    assert text in run.stderr


def test_importing_the_package_loads_neither_pytest_nor_the_sdk() -> None:
    code = (
        "import sys, queue_runtime.testing.servicebus\n"
        "sys.exit([name for name in ('pytest', 'azure', 'boto3') if name in sys.modules] or 0)"
    )

    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30.0, check=False
    )

    assert (run.returncode, run.stderr) == (0, "")


def test_ends_with_the_process_that_started_it_however_that_ends() -> None:
    program = (
        "import time\n"
        "from queue_runtime.testing.servicebus import LocalServiceBus\n"
        "with LocalServiceBus() as bus:\n"
        "    print(bus.port, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=5.0) as connection:
            connection.settimeout(5.0)

            parent.kill()

            assert connection.recv(1) == b"", "the broker hangs up, because it ends"
