"""The demo's web app: what becomes of a request."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import pytest
from app import create_app
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from queue_runtime import QueueClient, connect, github
from queue_runtime.errors import ConfigurationError

SECRET = "a secret of this test"
BODY = json.dumps(
    {
        "action": "opened",
        "number": 7,
        "pull_request": {"number": 7},
        "repository": {"full_name": "octo-org/hello-world"},
    }
).encode()


@pytest.fixture
def broker() -> Iterator[QueueClient]:
    with connect("memory://?queues=events:sessions") as client:
        yield client


@pytest.fixture
def web(broker: QueueClient) -> FlaskClient:
    return create_app(broker, SECRET).test_client()


def post(web: FlaskClient, body: bytes = BODY, changed: Mapping[str, str] | None = None) -> TestResponse:
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": "pull_request",
        "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "X-Hub-Signature-256": github.sign(body, SECRET),
        **(changed or {}),
    }
    return web.post("/webhook", data=body, headers=headers)


def test_a_delivery_is_queued_in_its_session(web: FlaskClient, broker: QueueClient) -> None:
    answer = post(web)

    assert answer.status_code == 202
    assert answer.json == {
        "queued": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "session": "octo-org/hello-world#7",
    }
    session = broker.accept_session("events")
    assert session is not None
    with session:
        (message,) = session.receive()
        assert message.body == BODY
        session.complete(message)


def test_a_delivery_that_comes_twice_is_queued_once(web: FlaskClient, broker: QueueClient) -> None:
    assert [post(web).status_code, post(web).status_code] == [202, 202]

    assert broker.describe("events").active == 1


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"X-Hub-Signature-256": github.sign(BODY, "a guess")}, 401),
        ({"X-Hub-Signature-256": ""}, 401),
        ({"X-Hub-Signature-256": "sha256=short"}, 400),
        ({"X-GitHub-Event": ""}, 400),
        ({"Content-Type": "text/xml"}, 415),
    ],
)
def test_what_is_not_githubs_is_refused(
    web: FlaskClient, broker: QueueClient, changed: dict[str, str], status: int
) -> None:
    answer = post(web, changed=changed)

    assert answer.status_code == status
    assert answer.json is not None
    assert SECRET not in answer.json["error"]
    assert broker.describe("events").active == 0


def test_a_body_larger_than_github_sends_is_refused_before_it_is_read(broker: QueueClient) -> None:
    app = create_app(broker, SECRET)
    app.config["MAX_CONTENT_LENGTH"] = len(BODY) - 1

    assert post(app.test_client()).status_code == 413


def test_a_body_larger_than_the_queue_takes_is_refused(web: FlaskClient) -> None:
    body = json.dumps({"text": "x" * (github.MAX_BODY - 100)}).encode()

    assert post(web, body).status_code == 413


def test_a_broker_in_trouble_is_unavailable_and_says_no_more(web: FlaskClient, broker: QueueClient) -> None:
    broker.close()

    answer = post(web)

    assert answer.status_code == 503
    assert answer.json == {"error": "the queue is not available"}
    assert int(answer.headers["Retry-After"]) > 0


def test_health_is_the_apps_and_readiness_is_the_queues(web: FlaskClient, broker: QueueClient) -> None:
    assert web.get("/healthz").json == {"status": "ok"}
    assert web.get("/readyz").json == {"status": "ok", "waiting": 0}

    broker.close()

    assert web.get("/healthz").status_code == 200
    assert web.get("/readyz").status_code == 503


def test_without_arguments_it_is_configured_by_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE_RUNTIME_URL", "memory://?queues=events:sessions")
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", f"the old one,{SECRET}")

    assert post(create_app().test_client()).status_code == 202


def test_an_empty_secret_is_refused_at_start(monkeypatch: pytest.MonkeyPatch, broker: QueueClient) -> None:
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", "")

    with pytest.raises(ConfigurationError, match="secret is empty"):
        create_app(broker)
