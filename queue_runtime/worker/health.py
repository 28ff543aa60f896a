"""Answers the probes of whoever runs the program: do the workers live, and do they take messages?"""

from __future__ import annotations

import errno
import logging
import math
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self
from weakref import WeakSet

from queue_runtime.errors import ConfigurationError
from queue_runtime.worker.probe_server import ProbeServer
from queue_runtime.worker.report import WorkerHealth

log = logging.getLogger("queue_runtime")


class HasHealth(Protocol):
    """A `Worker`, or what else can say how it is."""

    def health(self) -> WorkerHealth: ...


def is_live(health: WorkerHealth) -> bool:
    """Whether to let it be; if not, a restart of its process is what helps.

    A broker that is away or a pause is no reason: after a restart it would be the same. Nor is a worker that
    was not started yet. One that has ended, or whose fetching thread has, is.
    """
    return health.alive or health.state == "new"


def is_ready(health: WorkerHealth) -> bool:
    """Whether it takes messages: it runs, and neither is it paused nor does the broker fail it."""
    return health.alive and health.fetching and health.state == "running" and health.paused is None


Question = Callable[[WorkerHealth], bool]


def answer(question: Question, workers: Sequence[HasHealth]) -> tuple[bool, dict[str, Any]]:
    """Whether *question* is answered well for all *workers*, and the facts of each, as JSON has them."""
    entries = [_entry(question, worker) for worker in workers]
    ok = all(entry["ok"] for entry in entries)
    return ok, {"ok": ok, "workers": entries}


def _entry(question: Question, worker: HasHealth) -> dict[str, Any]:
    try:
        health = worker.health()
        return {"ok": question(health), **{name: _plain(value) for name, value in asdict(health).items()}}
    except Exception as exc:  # the others have an answer; and who asks is told that this one has none
        log.exception("a worker cannot say how it is")
        return {"ok": False, "error": type(exc).__name__}


def _plain(value: object) -> object:
    """As JSON has it, which knows no infinity."""
    if not isinstance(value, float):
        return value
    return round(value, 3) if math.isfinite(value) else None


class HealthServer:
    """An HTTP port for liveness and readiness probes, on a daemon thread of its own.

    ``GET /livez`` is 200 while each worker lives (`is_live`), else 503: restart the process. ``GET /readyz``
    is 200 while each takes messages (`is_ready`), else 503: also while one is paused, cannot reach its
    broker, or stops. Both have a JSON body with the `WorkerHealth` of each worker; none of its facts is
    secret, but queue names are among them, so *host* is this machine only unless you say otherwise:
    Kubernetes asks from outside, and needs ``host="0.0.0.0"`` (or ``"::"``). *port* 0 takes one that is free.

    It serves from `start` to `close`, or inside ``with``; it can be started again. It neither starts nor
    stops workers. A forked child does not serve, and does not hold the port. Raises `ConfigurationError` for
    arguments that cannot work; `start` does so for an address that is not to be had.
    """

    def __init__(self, *workers: HasHealth, port: int, host: str = "127.0.0.1") -> None:
        if not workers:
            raise ConfigurationError("a health server needs at least one worker to ask")
        for worker in workers:
            if isinstance(worker, type) or not callable(getattr(worker, "health", None)):
                raise ConfigurationError(f"{worker!r} has no health() to ask for; give Worker objects")
        if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
            raise ConfigurationError(f"port must be a whole number from 0 to 65535, it is {port!r}")
        if not isinstance(host, str) or not host:
            raise ConfigurationError(
                f"host must be a name or address of this machine, such as '0.0.0.0' for all, it is {host!r}"
            )
        self._workers = workers
        self._port = port
        self._host = host
        self._lock = threading.Lock()
        # guarded by _lock
        self._server: ProbeServer | None = None
        _servers.add(self)

    @property
    def port(self) -> int:
        """The port it listens on; while it does not, the one it was given."""
        server = self._server
        return self._port if server is None else server.port

    def start(self) -> None:
        """Listen, and answer on a thread; returns at once."""
        with self._lock:
            if self._server is not None:
                raise ConfigurationError(f"the health server on port {self._server.port} is started already")
            server = self._listen()
            server.start()
            self._server = server

    def close(self) -> None:
        """Answer no more, and join the threads: in half a second, or five if a worker does not answer. It
        may be called again."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._server is None else "serving"
        return f"<HealthServer {self._host}:{self.port} [{state} | workers {len(self._workers)}]>"

    def _listen(self) -> ProbeServer:
        pages = {
            "/livez": partial(answer, is_live, self._workers),
            "/readyz": partial(answer, is_ready, self._workers),
        }
        try:
            return ProbeServer(self._host, self._port, pages)
        except (OSError, UnicodeError) as exc:  # UnicodeError: no name of a host can be written so
            raise ConfigurationError(
                f"the health server cannot listen on host={self._host!r}, port={self._port}: "
                f"{_ADVICE.get(getattr(exc, 'errno', None), str(exc))}"
            ) from exc

    def _forked(self) -> None:
        server, self._server = self._server, None
        self._lock = threading.Lock()  # a thread of the parent may have held the other
        if server is not None:
            server.abandon()


_ADVICE: dict[int | None, str] = {
    errno.EADDRINUSE: "another program, or another health server of this one, has the port; "
    "choose another one, or 0 for one that is free",
    errno.EACCES: "this program may not; ports from 1024 on are free to all",
    errno.EADDRNOTAVAIL: "this machine has no such address; 0.0.0.0 stands for all it has",
}

_servers: WeakSet[HealthServer] = WeakSet()


def _after_fork_in_child() -> None:
    for server in list(_servers):
        server._forked()


os.register_at_fork(after_in_child=_after_fork_in_child)
