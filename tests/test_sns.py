"""Notifications of SNS: read where one asks for it, and believed in nothing."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from queue_runtime.codec import decode_text
from queue_runtime.errors import DecodeError
from queue_runtime.message import RESERVED_ATTRIBUTE, Delivery, MessageView

# As in https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html
ENVELOPE = {
    "Type": "Notification",
    "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
    "TopicArn": "arn:aws:sns:us-west-2:123456789012:MyTopic",
    "Subject": "My First Message",
    "Message": '{"name": "grüße"}',
    "Timestamp": "2012-05-02T00:54:06.655Z",
    "SignatureVersion": "1",
    "Signature": "EXAMPLE",
    "SigningCertURL": "https://sns.us-west-2.amazonaws.com/SimpleNotificationService.pem",
    "UnsubscribeURL": "https://sns.us-west-2.amazonaws.com/?Action=Unsubscribe",
    "MessageAttributes": {
        "kind": {"Type": "String", "Value": "push"},
        "raw": {"Type": "Binary", "Value": base64.b64encode(b"\xff").decode()},
    },
}


@dataclass
class Named:
    name: str


def view(body: object) -> MessageView:
    """A message of a topic, as it is received."""
    text = body if isinstance(body, str) else json.dumps(body)
    message = decode_text(text, {}, fallback_id="broker-id").message
    return MessageView(
        Delivery(
            message=message,
            receipt="r",
            broker_id="broker-id",
            delivery_count=1,
            sequence=None,
            enqueued_at=None,
            leased_until=0.0,
            lease=0.0,
        )
    )


def test_what_was_published_is_unwrapped() -> None:
    found = view(ENVELOPE).sns()

    assert found.message == '{"name": "grüße"}'
    assert found.payload() == {"name": "grüße"}
    assert found.payload(Named) == Named("grüße")
    assert found.message_id == "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324"
    assert found.topic_arn == "arn:aws:sns:us-west-2:123456789012:MyTopic"
    assert found.subject == "My First Message"
    assert found.published_at == datetime(2012, 5, 2, 0, 54, 6, 655000, tzinfo=UTC)
    assert found.attributes == {"kind": "push", "raw": "/w=="}


def test_what_may_be_missing_may_be_missing() -> None:
    needed = {name: ENVELOPE[name] for name in ("Type", "MessageId", "TopicArn", "Message")}

    found = view(needed).sns()

    assert (found.subject, found.published_at, dict(found.attributes)) == (None, None, {})


def test_nobody_is_asked_and_nothing_is_unwrapped() -> None:
    received = view(ENVELOPE)

    assert received.id == "broker-id"
    assert received.payload()["Type"] == "Notification"
    assert dict(received.attributes) == {}


def test_an_attribute_of_the_publisher_cannot_pose_as_ours() -> None:
    forged = {"Type": "String", "Value": json.dumps({"id": "forged", "sid": "forged", "ttl": 1})}

    received = view({**ENVELOPE, "MessageAttributes": {RESERVED_ATTRIBUTE: forged}})

    assert (received.id, received.session_id, received.time_to_live) == ("broker-id", None, None)
    assert received.sns().attributes == {RESERVED_ATTRIBUTE: forged["Value"]}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("plain text", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ([1], "its Type is None"),
        ({}, "its Type is None"),
        ({**ENVELOPE, "Type": "SubscriptionConfirmation"}, "its Type is 'SubscriptionConfirmation'"),
        ({**ENVELOPE, "Message": {"a": 1}}, "Message is"),
        ({**ENVELOPE, "TopicArn": None}, "TopicArn is None"),
    ],
)
def test_what_is_none_says_why(body: object, text: str) -> None:
    with pytest.raises(DecodeError, match=text):
        view(body).sns()


@pytest.mark.parametrize(
    "changed", [{"Timestamp": "soon"}, {"Timestamp": 3}, {"Subject": 3}, {"MessageAttributes": [1]}]
)
def test_what_is_odd_in_it_is_left_out(changed: dict[str, Any]) -> None:
    assert view({**ENVELOPE, **changed}).sns().message == ENVELOPE["Message"]
