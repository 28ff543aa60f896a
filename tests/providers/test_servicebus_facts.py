"""What the management service tells of a queue, and what is known without it."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ServiceRequestError
from azure.core.pipeline.transport import HttpRequest, HttpResponse, HttpTransport
from azure.servicebus.management import ServiceBusAdministrationClient

from queue_runtime.errors import QueueNotFound
from queue_runtime.providers.servicebus.facts import ENVELOPE, Administration, Sizes, capabilities, described

ENTRY = """<?xml version="1.0" encoding="utf-8"?>
<entry xmlns="http://www.w3.org/2005/Atom"><title type="text">events</title><content type="application/xml">
<QueueDescription xmlns="http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
 xmlns:i="http://www.w3.org/2001/XMLSchema-instance">
<LockDuration>PT45S</LockDuration><MaxSizeInMegabytes>1024</MaxSizeInMegabytes>
<RequiresDuplicateDetection>true</RequiresDuplicateDetection><RequiresSession>true</RequiresSession>
<DefaultMessageTimeToLive>{life}</DefaultMessageTimeToLive><MaxDeliveryCount>7</MaxDeliveryCount>
<SizeInBytes>0</SizeInBytes><MessageCount>9</MessageCount>
<CountDetails xmlns:d2p1="http://schemas.microsoft.com/netservices/2011/06/servicebus">
<d2p1:ActiveMessageCount>5</d2p1:ActiveMessageCount><d2p1:DeadLetterMessageCount>3</d2p1:DeadLetterMessageCount>
<d2p1:ScheduledMessageCount>1</d2p1:ScheduledMessageCount>
<d2p1:TransferMessageCount>0</d2p1:TransferMessageCount>
<d2p1:TransferDeadLetterMessageCount>0</d2p1:TransferDeadLetterMessageCount></CountDetails>
</QueueDescription></content></entry>"""

FOR_EVER = "P10675199DT2H48M5.4775807S"


class Answer(HttpResponse):
    def __init__(self, request: HttpRequest, status: int, text: str) -> None:
        super().__init__(request, None)
        self.status_code = status
        self.reason = "because"
        self.headers = {"Content-Type": "application/xml"}
        self.content_type = "application/xml"
        self._text = text

    def body(self) -> bytes:
        return self._text.encode()

    def text(self, encoding: str | None = None) -> str:
        return self._text


class Wire(HttpTransport[HttpRequest, HttpResponse]):
    """Answers every request alike, or breaks; counts them."""

    def __init__(self, status: int = 200, text: str = "", error: Exception | None = None) -> None:
        self.status, self.body_text, self.error = status, text, error
        self.asked: list[str] = []

    def send(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        self.asked.append(request.url)
        if self.error is not None:
            raise self.error
        return Answer(request, self.status, self.body_text)

    def open(self) -> None: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None: ...


class Identity:
    def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        return AccessToken("token", 4_000_000_000)


def administration(wire: Wire) -> Administration:
    return Administration(
        ServiceBusAdministrationClient(
            "orders.servicebus.windows.net", Identity(), transport=wire, retry_total=0
        )
    )


def test_settings_and_counts_are_told_to_who_may_manage() -> None:
    told = administration(Wire(text=ENTRY.format(life="P14D"))).ask("events")

    assert told is not None
    assert told[0].requires_session
    found = described("events", capabilities(sessions=True, sizes=Sizes()), told, None)
    assert (found.active, found.leased, found.delayed) == (5, None, 1)
    assert (found.lease, found.max_receives, found.retention) == (45.0, 7, 14 * 24 * 3600.0)
    assert found.dead_letter_queue == "events/$DeadLetterQueue"


def test_a_dead_letter_queue_has_its_queues_count_of_them() -> None:
    wire = Wire(text=ENTRY.format(life=FOR_EVER))
    told = administration(wire).ask("events/$DeadLetterQueue")

    found = described("events/$DeadLetterQueue", capabilities(sessions=False, sizes=Sizes()), told, None)

    assert all("/events?" in url for url in wire.asked)
    assert (found.active, found.delayed) == (3, 0)
    assert (found.dead_letter_queue, found.max_receives, found.retention) == (None, None, None)


def test_a_queue_that_is_not_there_is_said_to_be_so() -> None:
    empty = (
        '<feed xmlns="http://www.w3.org/2005/Atom"><title type="text">Publicly Listed Services</title></feed>'
    )

    with pytest.raises(QueueNotFound, match="'nope'"):
        administration(Wire(text=empty)).ask("nope")


@pytest.mark.parametrize("status", [401, 403])
def test_who_may_not_manage_is_not_asked_about_again(status: int) -> None:
    wire = Wire(status=status)
    asked = administration(wire)

    answers = [asked.ask("events") for _ in range(3)]

    assert answers == [None] * 3
    assert len(wire.asked) == 1


def test_without_a_way_out_by_https_the_links_must_tell() -> None:
    wire = Wire(error=ServiceRequestError("no way out"))
    asked = administration(wire)

    assert [asked.ask("events") for _ in range(3)] == [None] * 3
    assert len(wire.asked) == 1


def test_a_passing_trouble_of_the_service_is_not_held_against_it() -> None:
    wire = Wire(status=503)
    asked = administration(wire)
    first = asked.ask("events")

    wire.status, wire.body_text = 200, ENTRY.format(life=FOR_EVER)

    assert first is None
    assert asked.ask("events") is not None


def test_without_management_what_is_not_known_is_none() -> None:
    found = described(
        "jobs", capabilities(sessions=False, sizes=Sizes()), Administration(None).ask("jobs"), 30.0
    )

    assert (found.active, found.leased, found.delayed, found.max_receives) == (None, None, None, None)
    assert found.lease == 30.0


def test_a_batch_leaves_room_for_its_envelope() -> None:
    large = capabilities(sessions=False, sizes=Sizes(message=100 * 1024**2, batch=1024**2))
    small = capabilities(sessions=False, sizes=Sizes(message=64 * 1024, batch=1024**2))

    assert (large.max_message_size, large.max_batch_size) == (100 * 1024**2, 1024**2 - ENVELOPE)
    assert (small.max_message_size, small.max_batch_size) == (64 * 1024, 64 * 1024 - ENVELOPE)
