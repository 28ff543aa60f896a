"""Plays GitHub: posts signed deliveries over HTTP, each session's by one thread and in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException

from demo_parts.journal import Journal
from demo_parts.plan import Delivery
from queue_runtime import github

TAKEN = 202

TIMEOUT = 10.0
"""GitHub waits as long for an answer.
https://docs.github.com/en/webhooks/using-webhooks/best-practices-for-using-webhooks"""

TRIES = 5
PAUSE = 1.0
"""Seconds before a delivery that was not taken is posted again. GitHub leaves that to the webhook's owner."""


class Poster:
    """One thread for each lane; every answer becomes a ``posted`` record of the journal.

    All lanes together post *rate* deliveries a second, each its own share, evenly; more slowly if the app
    takes longer to answer. 0: as fast as it answers.
    """

    def __init__(
        self,
        port: int,
        lanes: Sequence[Sequence[Delivery]],
        secret: str,
        journal: Journal,
        *,
        rate: float = 0.0,
    ) -> None:
        self._seconds = sum(map(len, lanes)) / rate if rate > 0 else 0.0
        self._port = port
        self._secret = secret
        self._journal = journal
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._post_lane, args=(lane,), name=f"post-{number}", daemon=True)
            for number, lane in enumerate(lanes)
        ]

    def __enter__(self) -> Poster:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Post no more, and wait for the answers that are still to come."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(2 * TIMEOUT)

    @property
    def finished(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def _post_lane(self, lane: Sequence[Delivery]) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT)
        started = time.monotonic()
        try:
            for number, delivery in enumerate(lane):
                self._stopped.wait(started + self._seconds * number / len(lane) - time.monotonic())
                for _ in range(delivery.posts):
                    self._post_until_answered(connection, delivery)
        finally:
            connection.close()

    def _post_until_answered(self, connection: HTTPConnection, delivery: Delivery) -> None:
        """A delivery that the app could not take (503, no answer) must not be overtaken by the next."""
        for _ in range(TRIES):
            if self._stopped.is_set():
                return
            since = time.time()
            status = self._post(connection, delivery)
            facts = {"delivery": delivery.id, "status": status, "since": since}
            self._journal.write("posted", **facts, seconds=time.time() - since)
            if 0 < status < 500:
                return
            self._stopped.wait(PAUSE)

    def _post(self, connection: HTTPConnection, delivery: Delivery) -> int:
        """The status, or 0 for no answer."""
        body = delivery.body
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "GitHub-Hookshot/demo",
            "X-GitHub-Event": delivery.event,
            "X-GitHub-Delivery": delivery.id,
            "X-Hub-Signature-256": github.sign(body, self._secret),
        }
        match delivery.forgery:
            case "unsigned":
                del headers["X-Hub-Signature-256"]
            case "wrong secret":
                headers["X-Hub-Signature-256"] = github.sign(body, "a guess")
            case "changed body":
                body += b"\n"
        try:
            connection.request("POST", "/webhook", body, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, HTTPException):
            with suppress(OSError):
                connection.close()  # the next request opens it anew
            return 0
