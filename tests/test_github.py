"""GitHub deliveries: which requests are taken, and which session they get."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from queue_runtime import github
from queue_runtime.connecting import connect
from queue_runtime.errors import ConfigurationError, InvalidMessage, InvalidName, MessageTooLarge, QueueError
from queue_runtime.message import Message

SECRET = "It's a Secret to Everybody"
DELIVERY = "72d3162e-cc78-11e3-81ab-4c9367dc0958"
REPOSITORY = {
    "id": 1296269,
    "full_name": "octo-org/hello-world",
    "owner": {"login": "octo-org", "id": 9919},
}
OPENED: dict[str, Any] = {
    "action": "opened",
    "number": 7,
    "pull_request": {"number": 7, "title": "Say hello in every language 👋"},
    "repository": REPOSITORY,
    "organization": {"login": "octo-org"},
    "installation": {"id": 4711},
    "sender": {"login": "octocat"},
}


def request(
    payload: object = OPENED, *, event: str = "pull_request", secret: str | bytes = SECRET
) -> tuple[dict[str, str], bytes]:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return {
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": DELIVERY,
        "X-Hub-Signature-256": github.sign(body, secret),
    }, body


def session_of(strategy: str, payload: Mapping[str, Any], event: str = "some_event") -> str | None:
    return github.STRATEGIES[strategy](event, payload)


class TestADeliveryThatIsTaken:
    def test_it_becomes_a_message_with_the_delivery_as_its_id_and_the_body_as_it_came(self) -> None:
        headers, body = request()

        message = github.message(headers, body, secret=SECRET)

        assert message.id == DELIVERY
        assert message.deduplication_id in (None, DELIVERY)  # None: the id is used
        assert message.body == body
        assert message.content_type == "application/json"
        assert message.session_id == "octo-org/hello-world#7"

    def test_its_attributes_tell_a_worker_what_it_is_without_reading_the_body(self) -> None:
        message = github.message(*request(), secret=SECRET)

        assert dict(message.attributes) == {
            "github.event": "pull_request",
            "github.action": "opened",
            "github.repository": "octo-org/hello-world",
            "github.sender": "octocat",
            "github.installation": "4711",
        }

    def test_an_event_without_action_or_installation_has_no_such_attributes(self) -> None:
        message = github.message(*request({"ref": "refs/heads/main"}, event="push"), secret=SECRET)

        assert dict(message.attributes) == {"github.event": "push"}
        assert message.session_id is None

    def test_the_signature_is_the_one_that_github_documents(self) -> None:
        # https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries#testing-the-webhook-payload-validation
        signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"

        assert github.sign(b"Hello, World!", SECRET) == signature

    @pytest.mark.parametrize("change", [str.lower, str.upper, str.title])
    def test_header_names_are_found_in_any_case(self, change: Any) -> None:
        headers, body = request()

        message = github.message(
            {change(name): value for name, value in headers.items()}, body, secret=SECRET
        )

        assert message.id == DELIVERY

    def test_header_objects_of_frameworks_are_taken_as_they_are(self) -> None:
        datastructures = pytest.importorskip("werkzeug.datastructures", reason="Flask is not installed")
        headers, body = request()

        assert github.message(datastructures.Headers(headers), body, secret=SECRET).id == DELIVERY

    def test_any_of_several_secrets_is_accepted_so_that_one_can_be_replaced(self) -> None:
        for used in ("old", b"new"):
            headers, body = request(secret=used)

            assert github.message(headers, body, secret=["old", b"new"]).id == DELIVERY

    def test_the_form_that_a_webhook_may_send_is_unwrapped(self) -> None:
        text = json.dumps(OPENED, ensure_ascii=False)
        headers, body = request(urlencode({"payload": text}).encode())
        headers["Content-Type"] = "application/x-www-form-urlencoded; charset=utf-8"

        message = github.message(headers, body, secret=SECRET)

        assert message.body == text.encode()
        assert message.content_type == "application/json"
        assert message.session_id == "octo-org/hello-world#7"

    def test_a_body_of_exactly_the_limit_is_taken(self) -> None:
        headers, body = request()

        assert github.message(headers, body, secret=SECRET, max_body=len(body)).body == body


class TestARequestThatIsRefused:
    def test_without_a_signature(self) -> None:
        headers, body = request()
        del headers["X-Hub-Signature-256"]

        with pytest.raises(
            github.MissingSignature, match="no X-Hub-Signature-256 header; give the webhook"
        ) as e:
            github.message(headers, body, secret=SECRET)
        assert e.value.status == 401

    def test_with_the_old_signature_only(self) -> None:
        headers, body = request()
        del headers["X-Hub-Signature-256"]
        headers["X-Hub-Signature"] = "sha1=" + hmac.new(SECRET.encode(), body, hashlib.sha1).hexdigest()

        with pytest.raises(github.MissingSignature, match="only the SHA-1 signature came"):
            github.message(headers, body, secret=SECRET)

    @pytest.mark.parametrize(
        "signature",
        [
            "757107ea",
            "sha256=",
            "sha256=" + "a" * 63,
            "sha256=" + "g" * 64,
            "sha1=" + "a" * 64,
            "sha256=" + "é" * 64,
        ],
    )
    def test_with_a_malformed_signature(self, signature: str) -> None:
        headers, body = request()
        headers["X-Hub-Signature-256"] = signature

        with pytest.raises(github.MalformedSignature) as e:
            github.message(headers, body, secret=SECRET)
        assert e.value.status == 400

    @pytest.mark.parametrize("tampered", ["body", "secret"])
    def test_with_a_wrong_signature(self, tampered: str) -> None:
        headers, body = request(secret="another secret" if tampered == "secret" else SECRET)
        body += b" " if tampered == "body" else b""

        with pytest.raises(github.WrongSignature) as e:
            github.message(headers, body, secret=SECRET)
        assert e.value.status == 401

    def test_signatures_are_compared_in_constant_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        compared: list[tuple[bytes, bytes]] = []

        def refuse(ours: bytes, theirs: bytes) -> bool:
            compared.append((ours, theirs))
            return False

        monkeypatch.setattr(hmac, "compare_digest", refuse)
        with pytest.raises(github.WrongSignature):
            github.message(*request(), secret=SECRET)

        assert [len(ours) for ours, _ in compared] == [32]

    def test_with_a_body_over_the_limit_which_is_not_even_hashed(self) -> None:
        headers, body = request()
        headers["X-Hub-Signature-256"] = "not looked at"

        with pytest.raises(github.BodyTooLarge) as e:
            github.message(headers, body, secret=SECRET, max_body=len(body) - 1)
        assert (e.value.status, e.value.actual, e.value.limit) == (413, len(body), len(body) - 1)
        assert isinstance(e.value, MessageTooLarge)

    @pytest.mark.parametrize("name", ["X-GitHub-Event", "X-GitHub-Delivery"])
    @pytest.mark.parametrize("value", [None, "", "two words", "x" * 200])
    def test_with_a_header_missing_or_strange(self, name: str, value: str | None) -> None:
        headers, body = request()
        del headers[name]
        if value is not None:
            headers[name] = value

        with pytest.raises(github.InvalidDelivery, match=name) as e:
            github.message(headers, body, secret=SECRET)
        assert e.value.status == 400

    @pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[1]", b"null", b'"text"', b"[" * 100_000])
    def test_with_a_body_that_is_not_a_json_object(self, body: bytes) -> None:
        with pytest.raises(github.InvalidDelivery, match="the body is"):
            github.message(*request(body), secret=SECRET)

    @pytest.mark.parametrize(
        "body", [b"", b"payload=", b"load=%7B%7D", b"payload=1&payload=2", b"payload=%FF", b"\xff"]
    )
    def test_with_a_form_that_is_not_githubs(self, body: bytes) -> None:
        headers, body = request(body)
        headers["Content-Type"] = "application/x-www-form-urlencoded"

        with pytest.raises(github.InvalidDelivery, match="'payload'"):
            github.message(headers, body, secret=SECRET)

    def test_with_another_content_type(self) -> None:
        headers, body = request()
        headers["Content-Type"] = "text/xml"

        with pytest.raises(github.UnsupportedContentType) as e:
            github.message(headers, body, secret=SECRET)
        assert e.value.status == 415

    def test_no_error_shows_the_secret_the_signature_or_the_body(self) -> None:
        headers, body = request(b'{"token": "ghp_private", }')
        forged = headers["X-Hub-Signature-256"]
        faults: list[dict[str, Any]] = [
            {"secret": SECRET},  # not JSON
            {"secret": ["old one", SECRET + "!"]},  # wrong
            {"secret": ""},
            {"secret": SECRET, "max_body": 3},
        ]

        for fault in faults:
            with pytest.raises(QueueError) as e:
                github.message(headers, body, **fault)
            shown = f"{e.value} {e.value!r} {e.value.__cause__!r}"
            for private in (SECRET, "old one", forged[7:], "ghp_private"):
                assert private not in shown


class TestAMistakeOfTheCaller:
    @pytest.mark.parametrize("secret", ["", b"", " \n", [], [""], ["good", ""], None, [None]])
    def test_an_empty_secret_is_refused_since_anybody_could_sign_with_it(self, secret: Any) -> None:
        headers, body = request()

        with pytest.raises(ConfigurationError, match="secret"):
            github.message(headers, body, secret=secret)

    def test_a_strategy_that_does_not_exist_is_named_with_those_that_do(self) -> None:
        headers, body = request()

        with pytest.raises(ConfigurationError, match="'pr'; there are pull_request, issue, repository"):
            github.message(headers, body, secret=SECRET, session="pr")

    def test_a_parsed_body_is_not_taken_for_the_raw_one(self) -> None:
        headers, _ = request()

        with pytest.raises(InvalidMessage, match=r"request\.get_data\(\) in Flask"):
            github.message(headers, OPENED, secret=SECRET)  # type: ignore[arg-type]

    def test_a_limit_below_one_byte_is_refused(self) -> None:
        headers, body = request()

        with pytest.raises(ConfigurationError, match="max_body must be at least 1 byte, it is 0"):
            github.message(headers, body, secret=SECRET, max_body=0)


class TestASessionByAFunctionOfTheUsers:
    def test_it_is_given_the_event_and_the_payload(self) -> None:
        def by_title(event: str, payload: Mapping[str, Any]) -> str | None:
            return f"{event}: {payload['pull_request']['title']}"

        message = github.message(*request(), secret=SECRET, session=by_title)

        assert message.session_id == "pull_request: Say hello in every language 👋"

    def test_none_leaves_it_to_the_client_that_sends(self) -> None:
        message = github.message(*request(), secret=SECRET, session=None)

        assert message.session_id is None
        with connect("memory://?queues=events:sessions", strategy="github.installation") as client:
            client.send("events", message)
            session = client.accept_session("events")
            assert session is not None
            assert session.session_id == "installation:4711"

    def test_a_name_that_there_is_not_is_an_error_with_the_nearest(self) -> None:
        with pytest.raises(ConfigurationError, match="did you mean 'pull_request'"):
            github.message(*request(), secret=SECRET, session="pull_requests")

    def test_an_id_that_no_queue_could_carry_is_an_invalid_name(self) -> None:
        with pytest.raises(InvalidName, match="session_id"):
            github.message(*request(), secret=SECRET, session=lambda event, payload: "a\x00b")


PULL = {"number": 7, "base": {"repo": {"id": REPOSITORY["id"]}}}
FOREIGN = {"number": 3, "base": {"repo": {"id": 2}}}


class TestThePullRequestStrategy:
    @pytest.mark.parametrize(
        "part",
        [
            {"pull_request": {"number": 7}},
            {"pull_request": {"number": 7}, "review": {"id": 1}},
            {
                "issue": {"number": 7, "pull_request": {"url": "https://api.github.com/…"}},
                "comment": {"id": 1},
            },
            {"check_run": {"id": 1, "pull_requests": [PULL]}},
            {"check_suite": {"id": 1, "pull_requests": [PULL]}},
            {"workflow_run": {"id": 1, "pull_requests": [PULL]}},
            {
                "workflow_run": {
                    "id": 1,
                    "pull_requests": [{"number": 9, **PULL}, {"number": 8}, PULL, FOREIGN],
                }
            },
        ],
    )
    def test_all_that_concerns_a_pull_request_is_one_session(self, part: dict[str, Any]) -> None:
        assert session_of("pull_request", {**part, "repository": REPOSITORY}) == "octo-org/hello-world#7"

    @pytest.mark.parametrize(
        "part",
        [
            {"issue": {"number": 7}, "comment": {"id": 1}},
            {"check_run": {"pull_requests": []}},
            {"check_run": {"pull_requests": [FOREIGN]}},
            {"check_run": {"pull_requests": None}},
            {"workflow_job": {"id": 1}},
            {"ref": "refs/heads/main"},
            {"pull_request": {"number": True}},
            {"pull_request": {"number": "7"}},
        ],
    )
    def test_all_else_of_a_repository_is_another(self, part: dict[str, Any]) -> None:
        assert session_of("pull_request", {**part, "repository": REPOSITORY}) == "octo-org/hello-world"

    @pytest.mark.parametrize(
        ("payload", "expected"),
        [
            ({"organization": {"login": "octo-org"}, "installation": {"id": 4711}}, "octo-org"),
            ({"installation": {"id": 4711}, "sender": {"login": "octocat"}}, "installation:4711"),
            ({"enterprise": {"slug": "octo-corp"}, "sender": {"login": "octocat"}}, "enterprise:octo-corp"),
            (
                {"marketplace_purchase": {"account": {"login": "octo-org"}}, "sender": {"login": "octocat"}},
                "octo-org",
            ),
            ({"security_advisory": {"ghsa_id": "GHSA-rf4j-j272-fj86"}}, "advisory:GHSA-rf4j-j272-fj86"),
            ({"sender": {"login": "octocat"}}, "octocat"),
            ({"sender": {"login": ""}}, None),
            ({"zen": "Keep it logically awesome.", "hook_id": 1}, None),
        ],
    )
    def test_beyond_repositories_the_next_wider_thing_is_the_session(
        self, payload: dict[str, Any], expected: str | None
    ) -> None:
        assert session_of("pull_request", payload) == expected


class TestTheOtherStrategies:
    @pytest.mark.parametrize("part", ["issue", "pull_request", "discussion"])
    def test_issue_gives_each_issue_pull_request_and_discussion_its_session(self, part: str) -> None:
        payload = {part: {"number": 7}, "repository": REPOSITORY}

        assert session_of("issue", payload) == "octo-org/hello-world#7"

    def test_issue_falls_back_to_the_repository(self) -> None:
        assert (
            session_of("issue", {"ref": "refs/heads/main", "repository": REPOSITORY})
            == "octo-org/hello-world"
        )

    def test_repository_keeps_all_of_a_repository_together(self) -> None:
        assert session_of("repository", OPENED) == "octo-org/hello-world"

    def test_installation_keeps_all_of_an_installation_together(self) -> None:
        assert session_of("installation", OPENED) == "installation:4711"

    def test_installation_falls_back_to_the_account(self) -> None:
        assert session_of("installation", {"organization": {"login": "octo-org"}}) == "octo-org"
        assert session_of("installation", {"repository": REPOSITORY}) == "octo-org"

    def test_none_gives_no_session(self) -> None:
        assert session_of("none", OPENED) is None


def webhooks() -> Iterator[tuple[str, dict[str, Any]]]:
    """Real deliveries, from a file that is not part of the project."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "github-webhooks.json"
    file = Path(os.environ.get("QUEUE_RUNTIME_PAYLOADS") or beside)
    if not file.exists():
        pytest.skip("no file of real webhooks: set QUEUE_RUNTIME_PAYLOADS to one")
    for entry in json.loads(file.read_text("utf-8")):
        yield entry["event"], entry["payload"]


class TestRealDeliveries:
    @pytest.mark.parametrize("strategy", ["pull_request", "issue", "repository", "installation"])
    def test_every_event_gets_a_session(self, strategy: str) -> None:
        without = {
            event
            for event, payload in webhooks()
            if github.message(*request(payload, event=event), secret=SECRET, session=strategy).session_id
            is None
        }

        assert without == set()

    def test_all_events_about_a_pull_request_are_in_its_session(self) -> None:
        events = {
            "pull_request",
            "pull_request_review",
            "pull_request_review_comment",
            "pull_request_review_thread",
            "deployment_review",
        }
        for event, payload in webhooks():
            session = session_of("pull_request", payload, event)
            if event in events:
                assert session is not None
                assert session.startswith(payload["repository"]["full_name"] + "#")
            elif "repository" in payload and "pull_request" not in json.dumps(payload):
                assert session == payload["repository"]["full_name"]

    def test_every_one_survives_the_message_unchanged(self) -> None:
        for event, payload in webhooks():
            headers, body = request(payload, event=event)

            message = github.message(headers, body, secret=SECRET)

            assert isinstance(message, Message)
            assert json.loads(message.body) == payload
            assert message.attributes["github.event"] == event
