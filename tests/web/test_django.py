"""The Django view of the docs, asked through Django's own handler."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import django  # type: ignore[import-untyped]
import pytest
from django.conf import settings  # type: ignore[import-untyped]
from django.test import Client, RequestFactory  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]

from queue_runtime import QueueClient, github
from queue_runtime.errors import CircuitOpen
from tests.test_docs import blocks
from tests.web.servers import ROOT

NAME = "the_django_page"

SECRET = "a secret of the tests"


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """The block of the docs that has the view, as a module that Django is configured with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUEUE_RUNTIME_URL", "memory://?queues=events:sessions&max_message_size=1000")
        patch.setenv("GITHUB_WEBHOOK_SECRET", SECRET)
        module = ModuleType(NAME)
        patch.setitem(sys.modules, NAME, module)
        [block] = [
            each
            for each in blocks((ROOT / "docs" / "web.md").read_text(encoding="utf-8"))
            if "from django" in each.code
        ]
        exec(compile(block.code, "web.md", "exec"), vars(module))
        vars(module)["urlpatterns"] = [
            path("webhook", vars(module)["webhook"]),
            path("orders/<customer>", vars(module)["put_order"]),
        ]
        settings.configure(
            ROOT_URLCONF=NAME, MIDDLEWARE=[f"{NAME}.QueueErrors"], ALLOWED_HOSTS=["testserver"]
        )
        django.setup()
        yield module
        vars(module)["queue"].close()


def post(value: object) -> Any:
    return Client().post("/orders/octo", data=json.dumps(value), content_type="application/json")


def test_a_view_queues_what_is_posted(page: Any) -> None:
    request = RequestFactory().post("/orders/octo", data='{"item": 1}', content_type="application/json")

    answer = page.put_order(request, "octo")

    queue: QueueClient = page.queue
    session = queue.accept_session("events")
    assert session is not None
    with session:
        [message] = session.receive()
        session.complete(message)
    assert answer.status_code == 202
    assert json.loads(answer.content) == {"id": message.id}
    assert (message.session_id, message.payload()) == ("octo", {"item": 1})


def deliver(body: bytes, signature: str) -> Any:
    headers = {
        "X-Hub-Signature-256": signature,
        "X-GitHub-Event": "pull_request",
        "X-GitHub-Delivery": "delivery-1",
    }
    return Client().post("/webhook", data=body, content_type="application/json", headers=headers)


def test_a_signed_delivery_is_queued(page: Any) -> None:
    body = b'{"pull_request": {"number": 7}, "repository": {"full_name": "octo/repo"}}'

    answer = deliver(body, github.sign(body, SECRET))

    session = page.queue.accept_session("events")
    with session:
        session.complete(session.receive())
    assert (answer.status_code, answer.json()) == (202, {"id": "delivery-1"})
    assert session.session_id == "octo/repo#7"


def test_a_delivery_that_is_not_githubs_is_answered_with_its_status(page: Any) -> None:
    wrong = deliver(b"{}", github.sign(b"{}", "another secret"))
    malformed = deliver(b"{}", "sha256=x")

    assert (wrong.status_code, malformed.status_code) == (401, 400)
    assert "signature" in wrong.json()["error"].lower()


def test_what_no_queue_takes_is_422(page: Any) -> None:
    assert post("x" * 2000).status_code == 422


def test_while_the_breaker_is_open_it_is_503_and_says_when_to_come_again(
    page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise CircuitOpen("the broker keeps failing", retry_after=2.5)

    monkeypatch.setattr(page.queue, "send", refuse)

    answer = post({"item": 1})

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "3")
