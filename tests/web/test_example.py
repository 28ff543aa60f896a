"""The Flask example: what becomes of a request, and that its settings for gunicorn work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from flask import Flask

from examples.web_views.flask_app import RETRY_AFTER, create_app, unavailable
from queue_runtime import QueueClient, connect
from queue_runtime.errors import CircuitOpen, ConnectionFailed, QueueError
from tests.web.checks import check_ended_well
from tests.web.conftest import Broker
from tests.web.servers import ROOT, gunicorn, serving


@pytest.fixture
def client() -> Iterator[QueueClient]:
    with connect("memory://?queues=events:sessions&max_message_size=1000") as made:
        yield made


@pytest.fixture
def app(client: QueueClient) -> Flask:
    return create_app(client)


def test_what_is_posted_is_queued_in_its_session(app: Flask, client: QueueClient) -> None:
    answer = app.test_client().post("/events/octo", json={"item": 1})

    session = client.accept_session("events")
    assert session is not None
    with session:
        [message] = session.receive()
        session.complete(message)
    assert (answer.status_code, answer.json) == (202, {"id": message.id})
    assert (message.session_id, message.payload()) == ("octo", {"item": 1})


def test_what_no_queue_takes_is_422(app: Flask) -> None:
    assert app.test_client().post("/events/octo", json="x" * 2000).status_code == 422


def test_a_client_that_cannot_send_is_503_and_says_when_to_come_again(
    app: Flask, client: QueueClient
) -> None:
    client.close()

    answer = app.test_client().post("/events/octo", json={})

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, str(RETRY_AFTER))


@pytest.mark.parametrize(
    ("error", "seconds"), [(CircuitOpen(retry_after=2.1), 3), (ConnectionFailed(), RETRY_AFTER)]
)
def test_to_come_again_is_worth_it_when_the_breaker_lets_one_through(
    error: QueueError, seconds: int, app: Flask
) -> None:
    with app.app_context():
        answer = app.make_response(unavailable(error))

    assert answer.headers["Retry-After"] == str(seconds)


def test_gunicorn_serves_it_with_its_settings(broker: Broker, tmp_path: Path) -> None:
    folder = ROOT / "examples" / "web_views"
    settings = [f"--chdir={folder}", f"--config={folder / 'gunicorn_conf.py'}"]
    command = gunicorn(*settings, app="flask_app:create_app()")
    with serving(command, tmp_path, target=broker.target) as server:
        request = Request(
            f"http://127.0.0.1:{server.port}/events/octo",
            data=json.dumps("[id first by 1]").encode(),
            headers={"Content-Type": "application/json"},
        )
        with urlopen(request, timeout=10.0) as answer:
            status = answer.status
        check_ended_well(server)

    assert status == 202
    assert broker.drain() == {"first": 1}
