"""The control port of the local Service Bus: plain HTTP on 127.0.0.1, for any test harness.

What takes a value takes it as a query parameter; every answer is JSON, errors ``{"error": TEXT}``::

    PUT    /queues/NAME?lock=30&session=1&max_delivery=10&dl_on_expire=1&dup=600&ttl=0
                       &max_message_size=262144&max_batch_size=262144     seconds, 0/1 flags, bytes
    POST   /fault/kill                         every connection's socket is closed
    POST   /fault/close?cond=amqp:connection:forced
    POST   /fault/detach?entity=q&cond=amqp:link:detach-forced
    POST   /fault/send?entity=q&cond=com.microsoft:server-busy&n=2
    POST   /fault/mgmt?entity=q&cond=com.microsoft:server-busy&n=2
    POST   /fault/drop_disposition?n=1         done and not answered; without entity: of any queue
    POST   /fault/lose_disposition?n=1         neither done nor answered
    POST   /fault/session_lock?entity=q&session=s
    POST   /fault/latency?ms=20                until it is set anew
    GET    /stats
    DELETE /all                                every queue, and the faults that wait

A queue that exists is made anew, empty; links to it are detached.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from queue_runtime.testing.servicebus.faults import Spot
from queue_runtime.testing.servicebus.namespace import Namespace
from queue_runtime.testing.servicebus.queues import Queue, QueueSettings, Refused

HOST = "127.0.0.1"

_REQUEST_TIMEOUT = 10.0
_MAX_HEAD = 64 * 1024
_MAX_BODY = 64 * 1024

_REASONS = {200: "OK", 201: "Created", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}

T = TypeVar("T")


class Broker(Protocol):
    """The connections, as far as faults are concerned."""

    def kill(self) -> None:
        """Close every socket without a word."""

    def close_connections(self, condition: str) -> None:
        """Close every connection with an AMQP error."""

    def detach(self, entity: str, condition: str) -> None:
        """Detach the links to *entity* with an AMQP error."""

    def stats(self) -> Mapping[str, int]:
        """Return connections and delivery_id_violations."""


class ControlServer:
    """Listens from `start` to `stop`, in the event loop of the broker itself."""

    def __init__(self, namespace: Namespace, broker: Broker) -> None:
        self._control = _Control(namespace, broker)
        self._server: asyncio.Server | None = None

    async def start(self, port: int = 0) -> int:
        """Listen on *port* of 127.0.0.1, 0: any that is free; return which."""
        self._server = await asyncio.start_server(self._serve, HOST, port, limit=_MAX_HEAD)
        listening: int = self._server.sockets[0].getsockname()[1]
        return listening

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT):
                method, target = await _read_request(reader)
                status, answer = self._control.answer(method, target)
                body = json.dumps(answer).encode()
                head = (
                    f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                )
                writer.write(head.encode() + body)
                await writer.drain()
        except (TimeoutError, OSError, ValueError, EOFError, asyncio.LimitOverrunError):
            pass  # whoever speaks no HTTP to us, or went away, gets no answer
        finally:
            writer.close()


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, str]:
    """Read one request to its end; its body, which none of them needs, is thrown away."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request, *fields = head.split("\r\n")
    method, target, _ = request.split(" ")
    for each in fields:
        name, _, value = each.partition(":")
        if name.strip().lower() == "content-length":
            length = int(value)
            if length > _MAX_BODY:
                raise ValueError(f"a body of {length} bytes; {_MAX_BODY} are enough")
            await reader.readexactly(length)
    return method, target


class _BadRequest(Exception):
    """What the client asks for cannot be understood."""


class _Control:
    """The requests by their paths, without the network."""

    def __init__(self, namespace: Namespace, broker: Broker) -> None:
        self._namespace = namespace
        self._broker = broker
        self._routes: dict[str, tuple[str, Callable[[_Query], Any]]] = {
            "/fault/kill": ("POST", self._kill),
            "/fault/close": ("POST", self._close),
            "/fault/detach": ("POST", self._detach),
            "/fault/send": ("POST", lambda query: self._condition_at("send", query)),
            "/fault/mgmt": ("POST", lambda query: self._condition_at("mgmt", query)),
            "/fault/drop_disposition": ("POST", lambda query: self._silence_at("drop_disposition", query)),
            "/fault/lose_disposition": ("POST", lambda query: self._silence_at("lose_disposition", query)),
            "/fault/session_lock": ("POST", self._lose_session),
            "/fault/latency": ("POST", self._latency),
            "/stats": ("GET", self._stats),
            "/all": ("DELETE", self._delete_all),
        }

    def answer(self, method: str, target: str) -> tuple[int, Any]:
        """Do what is asked; return the status and what to say."""
        parts = urlsplit(target)
        query = _Query(parts.query)
        try:
            found = self._route(parts.path)
            if found is None:
                known = ", ".join(["/queues/NAME", *self._routes])
                return 404, {"error": f"no {parts.path!r} here; there are {known}"}
            allowed, handle = found
            if method != allowed:
                return 405, {"error": f"{parts.path} takes {allowed}, not {method}"}
            return (201 if allowed == "PUT" else 200), handle(query)
        except (_BadRequest, Refused) as exc:
            return 400, {"error": str(exc)}

    def _route(self, path: str) -> tuple[str, Callable[[_Query], Any]] | None:
        if path.startswith("/queues/"):
            return "PUT", partial(self._put, unquote(path.removeprefix("/queues/")))
        return self._routes.get(path)

    def _put(self, name: str, query: _Query) -> Any:
        usual = QueueSettings()
        settings = QueueSettings(
            lock=query.number("lock", usual.lock, least=0.01),
            sessions=query.flag("session"),
            max_delivery=query.count("max_delivery", usual.max_delivery),
            dead_letter_on_expire=query.flag("dl_on_expire"),
            duplicate_window=query.number("dup", usual.duplicate_window),
            ttl=query.number("ttl", usual.ttl),
            max_message_size=query.count("max_message_size", usual.max_message_size),
            max_batch_size=query.count("max_batch_size", usual.max_batch_size),
        )
        query.done()
        existed = self._namespace.queue(name) is not None
        try:
            queue = self._namespace.put(name, settings)
        except ValueError as exc:
            raise _BadRequest(str(exc)) from exc
        if existed:
            self._broker.detach(name, "amqp:link:detach-forced")
        return {"queue": queue.path}

    def _kill(self, query: _Query) -> Any:
        query.done()
        self._broker.kill()
        return {}

    def _close(self, query: _Query) -> Any:
        condition = query.text("cond", "amqp:connection:forced")
        query.done()
        self._broker.close_connections(condition)
        return {}

    def _detach(self, query: _Query) -> Any:
        entity, condition = query.text("entity"), query.text("cond", "amqp:link:detach-forced")
        query.done()
        self._broker.detach(self._existing(entity).path, condition)
        return {}

    def _condition_at(self, spot: Spot, query: _Query) -> Any:
        entity = query.text("entity")
        condition, count = query.text("cond", "com.microsoft:server-busy"), query.count("n", 1)
        query.done()
        self._namespace.faults.add(spot, self._existing(entity).path, condition, count)
        return {}

    def _silence_at(self, spot: Spot, query: _Query) -> Any:
        entity, count = query.text("entity", ""), query.count("n", 1)
        query.done()
        path = self._existing(entity).path if entity else None
        self._namespace.faults.add(spot, path, True, count)
        return {}

    def _lose_session(self, query: _Query) -> Any:
        queue, session = self._existing(query.text("entity")), query.text("session")
        query.done()
        if not queue.lose_session(session, time.time()):
            raise _BadRequest(f"nobody holds a session {session!r} of {queue.path!r}")
        return {}

    def _latency(self, query: _Query) -> Any:
        milliseconds = query.number("ms")
        query.done()
        self._namespace.faults.latency = milliseconds / 1000
        return {}

    def _stats(self, query: _Query) -> Any:
        query.done()
        self._namespace.tick(time.time())
        return {"queues": self._namespace.stats(), **self._broker.stats()}

    def _delete_all(self, query: _Query) -> Any:
        query.done()
        for name in self._namespace.delete_all():
            self._broker.detach(name, "amqp:not-found")
        self._namespace.faults.clear()
        return {}

    def _existing(self, entity: str) -> Queue:
        queue = self._namespace.queue(entity)
        if queue is None:
            raise _BadRequest(f"no queue {entity!r}; make it with PUT /queues/{entity}")
        return queue


class _Query:
    """Query parameters, each asked for once; what nobody asked for is an error."""

    def __init__(self, text: str) -> None:
        self._values = dict(parse_qsl(text, keep_blank_values=True))

    def text(self, name: str, default: str | None = None) -> str:
        return self._take(name, default, str, "text")

    def number(self, name: str, default: float | None = None, *, least: float = 0.0) -> float:
        value = self._take(name, default, float, "a number")
        if not least <= value < 1e12:
            raise _BadRequest(f"{name} must be a number from {least} on, not {value}")
        return value

    def count(self, name: str, default: int | None = None) -> int:
        value = self._take(name, default, int, "a whole number")
        if value < 1:
            raise _BadRequest(f"{name} must be 1 or more, not {value}")
        return value

    def flag(self, name: str) -> bool:
        return self._take(name, False, lambda value: {"0": False, "1": True}[value], "0 or 1")

    def done(self) -> None:
        if self._values:
            raise _BadRequest(f"unknown parameters: {', '.join(sorted(self._values))}")

    def _take(self, name: str, default: T | None, convert: Callable[[str], T], wanted: str) -> T:
        value = self._values.pop(name, None)
        if value is None:
            if default is None:
                raise _BadRequest(f"the parameter {name!r} is missing")
            return default
        try:
            return convert(value)
        except (ValueError, KeyError):
            raise _BadRequest(f"{name} must be {wanted}, not {value!r}") from None
