"""A service that is throttling says how long to wait, in its sentence only."""

from __future__ import annotations

import pytest
from azure.servicebus import exceptions as sdk
from azure.servicebus._pyamqp.error import MessageException

from queue_runtime.errors import OutcomeUnknown, Throttled
from queue_runtime.providers.servicebus.errors import translate

BUSY = b"com.microsoft:server-busy"
SENTENCE = "The request was terminated because the namespace orders is being throttled. Error code : 50009. "


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (SENTENCE + "Please wait 2 seconds and try again.", 2.0),
        (SENTENCE + "Please \nwait 10 seconds and try again. TrackingId:4_G2_B0", 10.0),
        (SENTENCE + "Please wait for 1.5 seconds and try again.", 1.5),
        ("Please wait 1 second.", 1.0),
        ("The server is busy. Please retry the operation.", None),
        ("Please wait 2 minutes.", None),
        ("", None),
    ],
)
def test_what_it_asks_for_is_the_retry_after_of_the_error(text: str, seconds: float | None) -> None:
    description = text.encode()
    inner = MessageException(condition=BUSY, description=description)
    exc = sdk.ServiceBusServerBusyError(message=text, condition=BUSY, description=description, error=inner)

    error = translate(exc, changes=True, queue="jobs")

    assert type(error) is Throttled
    assert error.retry_after == seconds


def test_another_error_that_speaks_of_waiting_asks_for_nothing() -> None:
    error = translate(sdk.OperationTimeoutError(message="Did not wait 2 seconds for it."), changes=True)

    assert type(error) is OutcomeUnknown
    assert error.retry_after is None
