"""Requests to a server from several threads, and what became of each."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from time import monotonic
from typing import Any, Self

TIMEOUT = 12.0
"""Seconds for one answer: above what a view may take, and still an end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one request came to; `status` is 0 if no answer came, `body` says why then."""

    name: str
    status: int
    seconds: float
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        """The process that answered."""
        pid: int = self.body["pid"]
        return pid


def post(port: int, path: str) -> Answer:
    """Post to *path*, whose last part is the name, on a connection of its own."""
    name = path.rpartition("/")[2]
    began = monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request("POST", path, headers={"Connection": "close"})
        response = connection.getresponse()
        text = response.read()
        body = json.loads(text) if text.startswith(b"{") else {"text": text.decode()}
        headers = dict(response.getheaders())
        return Answer(
            name=name, status=response.status, seconds=monotonic() - began, headers=headers, body=body
        )
    except (OSError, http.client.HTTPException) as exc:
        return Answer(name=name, status=0, seconds=monotonic() - began, body={"error": repr(exc)})
    finally:
        connection.close()


class Load:
    """Posts to ``/PATH/NAME`` from *threads* threads until the block ends; each name is used once."""

    def __init__(self, port: int, path: str = "send/events", *, threads: int = 6) -> None:
        self._port = port
        self._path = path
        self._numbers = count(1)
        self._over = threading.Event()
        self._changed = threading.Condition()
        # guarded by _changed
        self._answers: list[Answer] = []
        self._threads = [threading.Thread(target=self._post_on, daemon=True) for _ in range(threads)]

    def answers(self) -> list[Answer]:
        with self._changed:
            return list(self._answers)

    def good(self) -> list[Answer]:
        """Those that said that the message is on the queue."""
        return [each for each in self.answers() if each.status == 202]

    def bad(self) -> list[Answer]:
        return [each for each in self.answers() if each.status != 202]

    def until(self, fact: Callable[[list[Answer]], bool], seconds: float = 20.0) -> None:
        """Go on until *fact* is true of the good answers."""
        self.until_any(lambda answers: fact([each for each in answers if each.status == 202]), seconds)

    def until_any(self, fact: Callable[[list[Answer]], bool], seconds: float = 20.0) -> None:
        """Go on until *fact* is true of the answers."""
        with self._changed:
            done = self._changed.wait_for(lambda: fact(self._answers), seconds)
            assert done, (
                f"not within {seconds} s; {len(self._answers)} answers, the last {self._answers[-3:]}"
            )

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(TIMEOUT + 5.0)
        assert not any(thread.is_alive() for thread in self._threads), "a request hangs"

    def _post_on(self) -> None:
        while not self._over.is_set():
            answer = post(self._port, f"/{self._path}/load-{next(self._numbers)}")
            with self._changed:
                self._answers.append(answer)
                self._changed.notify_all()
            if answer.status != 202:
                self._over.wait(0.02)  # refusals come fast, and need no thousands
