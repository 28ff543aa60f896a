"""$cbs of the local Service Bus: which tokens open which queues."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

import pytest

from queue_runtime.testing.servicebus.performatives import Attach, Detach, Disposition, Rejected
from tests.testing_servicebus.wire_client import Client, request
from tests.testing_servicebus.wire_house import House, running

KEY = "right"
LATER = int(time.time()) + 600


@pytest.fixture(scope="module")
def locked_house() -> Iterator[House]:
    with running(sas_key=KEY) as house:
        house.queue("q")
        house.queue("q2")
        house.queue("area/q")
        yield house


@pytest.fixture(scope="module")
def open_house() -> Iterator[House]:
    with running() as house:
        house.queue("q")
        yield house


@pytest.fixture
def client(locked_house: House) -> Iterator[Client]:
    with Client(locked_house) as client:
        yield client.ready()


def sas(uri: str, *, key: str = KEY, expires: int = LATER, quoted: str | None = None) -> str:
    resource = quote_plus(uri) if quoted is None else quoted
    digest = hmac.digest(key.encode(), f"{resource}\n{expires}".encode(), hashlib.sha256)
    signature = quote_plus(base64.b64encode(digest))
    return f"SharedAccessSignature sr={resource}&sig={signature}&se={expires}&skn=name"


def jwt(**claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"eyJh.{payload}.signature"


def put(client: Client, token: object, uri: str = "sb://host/q") -> int:
    properties = {"name": uri, "operation": "put-token", "type": "jwt"}
    status = client.request("$cbs", properties, token).read_application_properties()["status-code"]
    assert isinstance(status, int)
    return status


def may_send(client: Client, queue: str) -> bool:
    attach = client.attach_sender(queue, handle=5)
    if attach.target is not None:
        client.send(Detach(handle=5, closed=True))
        client.expect(Detach)
        return True
    error = client.expect(Detach).error
    assert error is not None
    assert error.condition == "amqp:unauthorized-access"
    return False


class TestSignatures:
    def test_the_right_key_opens_the_queue_and_no_other(self, client: Client) -> None:
        assert not may_send(client, "q")

        assert put(client, sas("sb://host/q")) == 202

        assert may_send(client, "q")
        assert may_send(client, "sb://host:5671/Q")
        assert not may_send(client, "q2")

    def test_dead_letters_and_management_are_part_of_it(self, client: Client) -> None:
        put(client, sas("sb://host/q"))

        assert client.attach_receiver("q/$DeadLetterQueue", handle=1).source is not None
        assert client.attach_receiver("q/$management", handle=2).source is not None

    def test_what_is_signed_for_an_area_is_good_for_what_is_in_it(self, client: Client) -> None:
        assert put(client, sas("sb://host/area"), "sb://host/area/q") == 202
        assert may_send(client, "area/q")
        assert put(client, sas("sb://host/"), "sb://host/q2") == 202
        assert may_send(client, "q2")

    def test_it_is_verified_as_it_was_quoted(self, client: Client) -> None:
        lower = quote("sb://host/q", safe="").lower()

        assert put(client, sas("", quoted=lower)) == 202

    @pytest.mark.parametrize(
        "token",
        [
            sas("sb://host/q", key="wrong"),
            sas("sb://host/q2"),
            sas("sb://host/q", expires=int(time.time()) - 5),
            sas("sb://host/q").replace(str(LATER), str(LATER + 1)),
            sas("sb://host/q").replace("&se=", "&no="),
            sas("sb://host/q").replace("sig=", "sig=%FF%C3"),
            "SharedAccessSignature ",
            "",
            None,
            17,
        ],
        ids=["key", "queue", "expired", "prolonged", "no-expiry", "mangled", "bare", "empty", "null", "int"],
    )
    def test_what_is_wrong_is_unauthorized(self, client: Client, token: object) -> None:
        assert put(client, token) == 401
        assert not may_send(client, "q")

    def test_a_queue_that_is_not_there_is_not_found(self, client: Client) -> None:
        assert put(client, sas("sb://host/none"), "sb://host/none") == 404

    def test_a_link_needs_a_token_that_is_still_good(self, client: Client) -> None:
        # In whole seconds: one more may be a moment only.
        assert put(client, sas("sb://host/q", expires=int(time.time()) + 2)) == 202

        deadline = time.monotonic() + 5
        while may_send(client, "q"):
            assert time.monotonic() < deadline


class TestOtherTokens:
    def test_a_jwt_is_taken_at_its_word(self, client: Client) -> None:
        assert put(client, jwt(exp=LATER)) == 202
        assert may_send(client, "q")

    def test_a_jwt_that_has_expired_is_not(self, client: Client) -> None:
        assert put(client, jwt(exp=int(time.time()) - 5)) == 401

    @pytest.mark.parametrize("token", ["opaque", "a.b.c", "a.!.c", jwt(), "a." + "x" * 100 + ".c"])
    def test_what_has_no_expiry_has_none(self, client: Client, token: str) -> None:
        assert put(client, token) == 202


class TestWithoutKey:
    def test_any_signature_will_do_and_none_too(self, open_house: House) -> None:
        with Client(open_house) as client:
            client.ready()

            assert put(client, sas("sb://host/q", key="whatever")) == 202
            assert may_send(client, "q")

    def test_but_not_one_that_has_expired(self, open_house: House) -> None:
        with Client(open_house) as client:
            assert put(client.ready(), sas("sb://host/q", expires=1)) == 401


class TestRequests:
    def test_another_operation_is_a_bad_request(self, client: Client) -> None:
        answer = client.request("$cbs", {"name": "sb://host/q", "operation": "delete-token"}, "token")

        assert answer.read_application_properties()["status-code"] == 400

    def test_without_a_link_for_the_answer_the_request_is_rejected(self, client: Client) -> None:
        client.attach_sender("$cbs")

        client.transfer(request({"operation": "put-token"}, "token"))

        state = client.expect(Disposition).state
        assert isinstance(state, Rejected)
        assert state.error is not None
        assert state.error.condition == "amqp:not-found"

    def test_answers_that_nobody_takes_end_the_link(self, client: Client) -> None:
        client.attach_receiver("$cbs")
        client.attach_sender("$cbs")

        for _ in range(1001):
            client.transfer(request({"operation": "none"}, "token"), settled=True)

        error = client.expect(Detach).error
        assert error is not None
        assert error.condition == "amqp:resource-limit-exceeded"

    def test_two_pairs_of_links_do_not_mix_their_answers(self, client: Client) -> None:
        client.attach_receiver("$cbs", handle=1, reply_to="one")
        client.attach_receiver("$cbs", handle=2, reply_to="back")
        client.attach_sender("$cbs")
        for handle in (1, 2):
            client.flow(handle, delivery_count=0, link_credit=1)

        client.transfer(request({"operation": "none"}, None), settled=True)

        assert client.receive()[0].handle == 2


def test_the_attach_of_cbs_needs_no_token(client: Client) -> None:
    attach = client.attach_receiver("$cbs")

    assert isinstance(attach, Attach)
    assert attach.source is not None
