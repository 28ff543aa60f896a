"""Closing at the interpreter's exit, where Python 3.12 starts no thread any more."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from queue_runtime import Message, QueueClient, Worker, connect


@pytest.fixture
def client() -> QueueClient:
    """Closed by the test."""
    return connect("memory://?queues=jobs,mails")


@pytest.fixture
def no_new_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    # https://docs.python.org/3.12/library/atexit.html: a function registered there must start none.
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start)


def test_a_client_that_has_sent_to_several_queues_closes_without_a_new_thread(
    client: QueueClient, request: pytest.FixtureRequest
) -> None:
    done: list[Future[str]] = []
    for queue in ("jobs", "mails"):
        client.send(queue, Message(body=b"x"))
        done.append(client.submit(queue, Message(body=b"x")))
    request.getfixturevalue("no_new_threads")

    client.close(timeout=10.0)

    assert all(each.result(0) for each in done)


def test_a_client_with_several_workers_closes_without_a_new_thread(
    client: QueueClient, request: pytest.FixtureRequest
) -> None:
    workers = [Worker(client, queue, lambda message: None, concurrency=1) for queue in ("jobs", "mails")]
    for worker in workers:
        worker.start()
    request.getfixturevalue("no_new_threads")

    client.close(timeout=10.0)

    assert [worker.status().state for worker in workers] == ["stopped", "stopped"]
