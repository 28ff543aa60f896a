"""Each error of the service and of the SDK as ours: the right class, what it is about, and the way out."""

from __future__ import annotations

import logging
import socket
import traceback
from typing import Any

import pytest
from azure.servicebus import exceptions as sdk
from azure.servicebus._pyamqp.error import (
    AMQPConnectionError,
    AMQPLinkError,
    ErrorCondition,
    MessageException,
    TokenAuthFailure,
    TokenExpired,
)

from queue_runtime import connect
from queue_runtime.errors import (
    AuthenticationFailed,
    AuthorizationFailed,
    ConnectionFailed,
    InvalidReceipt,
    LeaseLost,
    MessageTooLarge,
    OperationTimeout,
    OutcomeUnknown,
    ProviderError,
    QueueError,
    QueueNotFound,
    SessionLeaseLost,
    SessionNotAvailable,
    Throttled,
    UnsupportedOperation,
)
from queue_runtime.message import Message
from queue_runtime.provider import Complete
from queue_runtime.providers.servicebus.errors import is_definite, translate
from tests.providers.servicebus_house import House, drained, error_of, fill, ids, receive, settled

KEY = "aHVudGVyMi1odW50ZXIy"
SIGNATURE = "hunter2%2Bhunter2"


EXPIRED = TokenExpired(ErrorCondition.InternalError)


def send(client: Any, size: int = 1) -> QueueError | None:
    return error_of(client.send("jobs", [Message(body=b"x" * size, id="m")]))


def told(error: BaseException) -> str:
    """All that a log would show of it."""
    return f"{error} {error!r} {''.join(traceback.format_exception(error))}"


class TestARefusedSend:
    @pytest.mark.parametrize(
        ("condition", "kind", "way_out"),
        [
            ("com.microsoft:server-busy", Throttled, ""),
            ("amqp:resource-limit-exceeded", ProviderError, "give the queue more room"),
            ("com.microsoft:entity-disabled", ProviderError, "enable it again"),
            ("amqp:unauthorized-access", AuthorizationFailed, "Azure Service Bus Data Sender"),
            ("com.microsoft:auth-failed", AuthorizationFailed, "Azure Service Bus Data Sender"),
            ("amqp:not-found", QueueNotFound, "check the name and the namespace"),
            ("amqp:not-allowed", UnsupportedOperation, ""),
            ("amqp:link:message-size-exceeded", MessageTooLarge, "keep the body elsewhere"),
            ("com.microsoft:argument-error", ProviderError, ""),
            ("amqp:internal-error", OutcomeUnknown, ""),
            ("com.microsoft:timeout", OutcomeUnknown, ""),
            ("com.microsoft:operation-cancelled", OutcomeUnknown, ""),
        ],
    )
    def test_says_the_queue_the_condition_and_the_way_out(
        self, house: House, condition: str, kind: type[QueueError], way_out: str
    ) -> None:
        house.queue()
        client = house.client()
        fill(client, 1)
        house.fault("send", entity="jobs", cond=condition)

        error = send(client)

        assert type(error) is kind
        assert error.queue == "jobs"
        assert "queue 'jobs'" in str(error)
        assert condition in str(error)
        assert way_out in str(error)
        assert send(client) is None, "and the next one goes"

    def test_of_too_many_bytes_says_how_many_are_allowed(self, house: House) -> None:
        house.queue(max_message_size=2000, max_batch_size=2000)
        client = house.client()

        one = send(client, 5000)
        [batch, *_] = client.send("jobs", [Message(body=b"x" * 900, id=f"{n}") for n in range(3)])

        for error in (one, batch.error):
            assert isinstance(error, MessageTooLarge)
            assert error.limit == 2000

    def test_that_is_throttled_is_repeated_with_its_id_by_the_portable_layer(self, house: House) -> None:
        house.queue(duplicate_window=60)
        with connect(f"{house.bus.target()}&request_timeout=1") as client:
            house.fault("send", entity="jobs", cond="com.microsoft:server-busy", n=2)
            house.bus.fault("drop_disposition", entity="jobs")

            client.send("jobs", Message(body=b"x", id="m"))

        assert ids(drained(house.client())) == ["m"]


class TestARefusedRequest:
    @pytest.mark.parametrize(
        ("condition", "kind"),
        [
            ("com.microsoft:server-busy", Throttled),
            ("com.microsoft:message-lock-lost", LeaseLost),
            ("com.microsoft:timeout", OperationTimeout),
            ("amqp:internal-error", OperationTimeout),
            ("amqp:unauthorized-access", AuthorizationFailed),
        ],
    )
    def test_to_renew_is_an_error_of_that_message_and_the_receiver_goes_on(
        self, house: House, condition: str, kind: type[QueueError]
    ) -> None:
        house.queue()
        client = house.client()
        fill(client, 1)
        [delivery] = receive(client)
        house.fault("mgmt", entity="jobs", cond=condition)

        error = error_of(client.renew("jobs", [delivery]))

        assert type(error) is kind
        assert "b'" not in str(error)
        assert error_of(client.renew("jobs", [delivery])) is None
        assert settled(client, Complete(delivery)) is None

    def test_to_cancel_what_is_not_scheduled_is_an_invalid_receipt(self, house: House) -> None:
        house.queue()
        client = house.client()

        assert isinstance(error_of(client.cancel("jobs", ["77"])), InvalidReceipt)
        house.fault("mgmt", entity="jobs", cond="com.microsoft:server-busy")
        assert isinstance(error_of(client.cancel("jobs", ["77"])), Throttled)

    def test_for_a_session_that_another_holds_says_so(self, house: House) -> None:
        house.queue(sessions=True)
        client = house.client()
        client.accept_session("jobs", "s")

        with pytest.raises(SessionNotAvailable, match=r"'s'.*another holds it"):
            house.client().accept_session("jobs", "s")


class TestWithoutAQueue:
    def test_every_call_says_that_there_is_none(self, house: House) -> None:
        client = house.client()

        for call in (
            lambda: client.receive("jobs", 1, 0.0),
            lambda: client.peek("jobs", 1),
            lambda: client.describe("jobs"),
            lambda: client.accept_session("jobs", "s"),
        ):
            with pytest.raises(QueueNotFound, match=r"queue 'jobs': .*404.*check the name"):
                call()
        assert isinstance(send(client), QueueNotFound)

    def test_one_that_is_deleted_is_missed_by_what_was_connected_before(self, house: House) -> None:
        house.queue()
        client = house.client()
        fill(client, 1)
        [delivery] = receive(client)

        house.bus.delete_all()
        house.fault("kill")

        assert isinstance(send(client), QueueNotFound)
        assert isinstance(settled(client, Complete(delivery)), QueueNotFound)
        with pytest.raises(QueueNotFound):
            client.receive("jobs", 1, 0.0)


class TestWithoutTheRight:
    def test_a_wrong_key_is_said_and_not_shown(self, house: House, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        house.queue()
        client = house.client(house.bus.connection_string.replace("bG9jYWw=", KEY))

        with pytest.raises(
            AuthenticationFailed, match=r"queue 'jobs': .*401.*check the connection string"
        ) as raised:
            client.receive("jobs", 1, 0.0)
        error = send(client)

        assert isinstance(error, AuthenticationFailed)
        for text in (told(raised.value), told(error), caplog.text, repr(client)):
            assert KEY not in text
            assert "sig=" not in text

    def test_a_signature_that_has_expired_is_said_and_not_shown(
        self, house: House, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        house.queue()
        signature = f"SharedAccessSignature sr=sb%3A%2F%2Fx&sig={SIGNATURE}&se=1000&skn=local"
        client = house.client(
            f"Endpoint={house.bus.endpoint};SharedAccessSignature={signature};UseDevelopmentEmulator=true"
        )

        with pytest.raises(AuthenticationFailed, match="that it has not expired") as raised:
            client.receive("jobs", 1, 0.0)

        for text in (told(raised.value), caplog.text, repr(client)):
            assert "hunter2" not in text


class TestWithoutAWay:
    @pytest.mark.parametrize("place", ["refused", "unknown"])
    def test_it_is_said_where_to_look(self, house: House, place: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        endpoint = f"sb://127.0.0.1:{port}" if place == "refused" else "sb://no.such.host.invalid:5672"
        client = house.client(house.bus.connection_string.replace(house.bus.endpoint, endpoint))

        with pytest.raises(ConnectionFailed, match="port 5671, or that of the emulator"):
            client.receive("jobs", 1, 0.0)
        assert isinstance(send(client), ConnectionFailed)


class TestTheTable:
    @pytest.mark.parametrize(
        ("exc", "kind"),
        [
            (sdk.MessageAlreadySettled(action="complete"), InvalidReceipt),
            (sdk.SessionLockLostError(), SessionLeaseLost),
            (sdk.ServiceBusCommunicationError(), ConnectionFailed),
            (sdk.ServiceBusError("Handler failed: closed.", error=ValueError("closed")), ConnectionFailed),
            (sdk.MessagingEntityAlreadyExistsError(), ProviderError),
            (sdk.ServiceBusAuthenticationError(error=EXPIRED), ConnectionFailed),
            (TimeoutError("slow"), OperationTimeout),
            (ConnectionResetError("gone"), ConnectionFailed),
            (AttributeError("'NoneType' object has no attribute '_link'"), ConnectionFailed),
            (ValueError("The handler has already been shutdown. Please use ..."), ConnectionFailed),
            (TypeError("a bug"), ProviderError),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
    )
    def test_has_a_class_for_what_the_sdk_says_by_itself(
        self, exc: Exception, kind: type[QueueError]
    ) -> None:
        error = translate(exc, changes=False)

        assert type(error) is kind
        assert error.__cause__ is exc
        assert str(error)

    @pytest.mark.parametrize(
        "exc",
        [
            sdk.ServiceBusConnectionError(),
            sdk.OperationTimeoutError(),
            ConnectionResetError(),
            sdk.ServiceBusError("Handler failed: closed.", error=ValueError("closed")),
        ],
        ids=lambda exc: type(exc).__name__,
    )
    def test_calls_unknown_what_may_have_arrived(self, exc: Exception) -> None:
        assert type(translate(exc, changes=True)) is OutcomeUnknown

    def test_tells_a_definite_refusal_from_one_that_may_be_of_the_second_try(self) -> None:
        lost = {"condition": b"com.microsoft:message-lock-lost"}
        on_the_link = sdk.MessageLockLostError(error=MessageException(**lost), **lost)
        by_management = sdk.MessageLockLostError(**lost, status_code=410)
        by_the_sdks_clock = sdk.MessageLockLostError()
        link_gone = sdk.ServiceBusConnectionError(
            error=AMQPLinkError(ErrorCondition.LinkDetachForced),
            condition=ErrorCondition.LinkDetachForced.value,
        )

        assert is_definite(on_the_link)
        assert is_definite(sdk.SessionLockLostError())
        assert not any(map(is_definite, (by_management, by_the_sdks_clock, link_gone, None)))

    @pytest.mark.parametrize("said", [b"no queue 'jobs'", b'no queue "jobs"', "no queue 'jobs'"])
    def test_tells_what_the_service_said_as_text(self, said: Any) -> None:
        refused = TokenAuthFailure(404, said)  # type: ignore[no-untyped-call]

        found = translate(sdk.ServiceBusAuthenticationError(error=refused), changes=False)

        text = said if isinstance(said, str) else said.decode()
        assert str(found).startswith(f"the service refused the token with status 404: {text} (")
        wrapped = translate(sdk.ServiceBusError(f"it was {text.encode()!r}."), changes=False)
        assert str(wrapped) == f"it was {text}."

    @pytest.mark.parametrize(
        "text",
        [
            f"SharedAccessSignature sr=x&sig={SIGNATURE}&se=1",
            f"Endpoint=sb://x;SharedAccessKey={KEY};EntityPath=q",
            f"password={KEY}",
        ],
    )
    def test_shows_no_secret_that_the_service_or_the_sdk_repeats(self, text: str) -> None:
        inner = AMQPConnectionError(ErrorCondition.SocketError, description=text)
        refused = TokenAuthFailure(401, text.encode())  # type: ignore[no-untyped-call]
        exceptions: list[Exception] = [
            sdk.ServiceBusConnectionError(message=text, error=inner),
            sdk.ServiceBusAuthenticationError(error=refused),
        ]

        for exc in exceptions:
            shown = told(translate(exc, changes=False, queue="jobs"))
            assert KEY not in shown
            assert SIGNATURE not in shown
            assert "=***" in shown
