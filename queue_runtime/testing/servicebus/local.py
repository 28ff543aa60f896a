"""A local Service Bus in a process of its own, for tests and demos."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from urllib.parse import quote, urlencode

from queue_runtime.errors import QueueError
from queue_runtime.testing.servicebus.control_port import Controlled

SAS_KEY_NAME = "local"
SAS_KEY = "bG9jYWw="

_STOP_TIMEOUT = 5.0


def connection_string(endpoint: str, key: str) -> str:
    """What the SDK takes for a broker without TLS at ``sb://HOST:PORT``, which checks for *key*."""
    return f"Endpoint={endpoint};{_keys(key)};UseDevelopmentEmulator=true"


def _keys(key: str) -> str:
    return f"SharedAccessKeyName={SAS_KEY_NAME};SharedAccessKey={key}"


class LocalServiceBus(Controlled):
    """The broker on free ports of 127.0.0.1, for as long as the ``with`` block lasts.

    Its queues are gone with it. It is in a process group of its own, so that a Ctrl-C meant for the program
    leaves it there until the program has put its messages in order. It ends with the program, however that
    ends.

    With *certificate* and *key* (files, PEM) it serves TLS only; the certificate must be good for
    ``localhost``, and clients trust it through the file *certificate*; `target` tells `connect` all that.

    Raises `QueueError` if it is not up within *start_timeout* seconds.
    """

    def __init__(
        self,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
        start_timeout: float = 20.0,
    ) -> None:
        if (certificate is None) != (key is None):
            raise ValueError("TLS needs both certificate= and key=")
        self._certificate = certificate
        self._key = key
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._log: deque[str] = deque(maxlen=40)
        self._up_or_over = threading.Event()
        self._ports: tuple[int, int] | None = None

    @property
    def port(self) -> int:
        """Of AMQP."""
        return self._running()[0]

    @property
    def control_url(self) -> str:
        """``http://127.0.0.1:PORT``, see `queue_runtime.testing.servicebus.control`."""
        return f"http://127.0.0.1:{self._running()[1]}"

    @property
    def endpoint(self) -> str:
        """``sb://HOST:PORT``; with TLS it is the SDK's custom endpoint."""
        return f"sb://{'127.0.0.1' if self._certificate is None else 'localhost'}:{self.port}"

    @property
    def connection_string(self) -> str:
        """What the SDK takes. With TLS it needs `endpoint` as its custom endpoint, and the certificate."""
        if self._certificate is None:
            return connection_string(self.endpoint, SAS_KEY)
        return f"Endpoint=sb://localhost;{_keys(SAS_KEY)}"

    def target(self, **queues: str) -> str:
        """Return the URL for `connect`; *queues* maps the program's names to this broker's."""
        options = {"connection_string": self.connection_string}
        if self._certificate is not None:
            options |= {"endpoint": self.endpoint, "ca_bundle": str(self._certificate)}
        options |= {f"queue.{name}": target for name, target in queues.items()}
        return f"servicebus://?{urlencode(options, quote_via=quote, safe='')}"

    def __enter__(self) -> LocalServiceBus:
        self._up_or_over.clear()
        command = [sys.executable, "-m", "queue_runtime.testing.servicebus", "--with-input"]
        command += ["--sas-key", SAS_KEY]
        if self._certificate is not None:
            command += ["--tls-cert", str(self._certificate), "--tls-key", str(self._key)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(
            target=self._read_log, args=(self._process,), name="local-servicebus-log", daemon=True
        )
        self._reader.start()
        try:
            self._up_or_over.wait(self._start_timeout)
            if self._ports is None:
                raise QueueError(
                    f"the local Service Bus did not start (it has {self._start_timeout} s for it); it said:\n"
                    + "\n".join(self._log)
                )
        except BaseException:  # a Ctrl-C too: the process is in a group of its own and would stay
            self._stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop()

    def _running(self) -> tuple[int, int]:
        if self._ports is None:
            raise QueueError("the local Service Bus is not running; use it inside its `with` block")
        return self._ports

    def _read_log(self, process: subprocess.Popen[str]) -> None:
        """To the end, so that the pipe never fills up."""
        assert process.stdout is not None
        for line in process.stdout:
            self._log.append(line.rstrip())
            if self._ports is None and line.startswith('{"port"'):
                ports = json.loads(line)
                self._ports = ports["port"], ports["control_port"]
                self._up_or_over.set()
        self._up_or_over.set()

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._reader is not None:
            self._reader.join(_STOP_TIMEOUT)
        self._ports = None
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
