"""Turns a GitHub webhook request into a verified `Message` with a session id.

    message(request.headers, request.get_data(), secret=SECRET)

`message` names the session of a delivery by a strategy, so that deliveries about the same thing are
handled one at a time and in the order in which they came:

============== ===================================================== ==========================
strategy       one session for each                                  session id
============== ===================================================== ==========================
pull_request   pull request, with its reviews, comments and checks   ``octo-org/hello-world#7``
issue          issue, pull request or discussion                     ``octo-org/hello-world#7``
repository     repository                                            ``octo-org/hello-world``
installation   installation of a GitHub App                          ``installation:4711``
none           no session                                            None
============== ===================================================== ==========================

A delivery about none of these goes to the next wider thing that it names: repository, organization
(``octo-org``), installation, enterprise (``enterprise:octo-corp``), the account of a purchase or a
security advisory (``advisory:GHSA-…``), and last its sender (``octocat``). One that names nothing at all
stands outside sessions. Issues and pull requests share one number space in a repository, so a comment
on a pull request, which GitHub reports as an ``issue_comment``, has the session of its pull request.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Protocol
from urllib.parse import parse_qs

from queue_runtime.errors import ConfigurationError, InvalidMessage, MessageTooLarge
from queue_runtime.message import Message
from queue_runtime.nearest import did_you_mean
from queue_runtime.payloads import JSON
from queue_runtime.strategies.github import STRATEGIES as STRATEGIES
from queue_runtime.strategies.github import DeliveryStrategy as DeliveryStrategy
from queue_runtime.strategies.github import Payload as Payload
from queue_runtime.strategies.github import number_at, repository_of, text_at

MAX_BODY = 25 * 1024 * 1024
"""Bytes. GitHub delivers no larger payload.
https://docs.github.com/en/webhooks/webhook-events-and-payloads#payload-cap"""

# https://docs.github.com/en/webhooks/webhook-events-and-payloads#delivery-headers
_SIGNATURE = "X-Hub-Signature-256"
_EVENT = "X-GitHub-Event"
_DELIVERY = "X-GitHub-Delivery"

_SIGNATURE_FORM = re.compile("sha256=([0-9a-fA-F]{64})")
_EVENT_FORM = re.compile("[a-z][a-z0-9_]{0,99}")
_DELIVERY_FORM = re.compile("[A-Za-z0-9-]{1,128}")

# https://docs.github.com/en/webhooks/using-webhooks/creating-webhooks
_FORM = "application/x-www-form-urlencoded"

Secret = str | bytes


class Headers(Protocol):
    """A request's headers: a dict, Flask's and Django's ``request.headers``. Names in any case."""

    def items(self) -> Iterable[tuple[str, str]]: ...


class WebhookError(InvalidMessage):
    """A request that is not taken. No text of these errors shows a secret, a signature or the body."""

    status: ClassVar[int] = 400
    """The HTTP status to answer with."""


class InvalidDelivery(WebhookError):
    """The request does not have the form of a delivery; the text names the header or the body."""


class UnsupportedContentType(WebhookError):
    """The body is neither JSON nor the form that GitHub sends."""

    status = 415


class BodyTooLarge(WebhookError, MessageTooLarge):
    """The body is larger than `max_body`. It was not looked at."""

    status = 413


class SignatureError(WebhookError):
    """The request does not prove that it comes from GitHub."""

    status = 401


class MissingSignature(SignatureError):
    """The request has no signature."""


class MalformedSignature(SignatureError):
    """The signature does not have the form that GitHub gives it."""

    status = 400


class WrongSignature(SignatureError):
    """The signature was made with another secret, or for another body."""


def message(
    headers: Headers,
    body: bytes,
    *,
    secret: Secret | Sequence[Secret],
    session: str | DeliveryStrategy | None = "pull_request",
    max_body: int = MAX_BODY,
) -> Message:
    """Verify a delivery and return it as a message, ready to send.

    *body* is the request's raw body, before any parsing. Several secrets are all accepted, so that one
    can be replaced without losing a delivery. *session* is the name of a strategy (see above), a function,
    or None: the strategy of the client that sends it is asked then, for it is asked about messages without a
    session id only (``connect(strategy="github.repository")``, or in its configuration). *max_body* is in
    bytes.

    The message's body is the JSON payload, byte by byte as GitHub sent it (taken out of its form field
    where the webhook sends forms). Its id, and with it its deduplication id, is the delivery's, which
    stays the same when a delivery is asked for again: a queue that deduplicates drops the second one
    within its window (SQS FIFO: five minutes), later ones are for the handler to notice.

    Attributes, where the delivery has them: ``github.event``, ``github.action``, ``github.repository``,
    ``github.sender`` and ``github.installation``. Only the body is signed; the id and the event are as
    trustworthy as the connection, so serve webhooks over HTTPS.
    https://docs.github.com/en/webhooks/using-webhooks/best-practices-for-using-webhooks

    Raises a `WebhookError` for a request that is not to be taken, with the HTTP `status` to answer, and
    `ConfigurationError` for a secret, session or limit that cannot be used.
    """
    strategy = _strategy(session)
    if max_body < 1:
        raise ConfigurationError(f"max_body must be at least 1 byte, it is {max_body}")
    if not isinstance(body, bytes):
        raise InvalidMessage(
            f"body must be the raw bytes of the request, not {type(body).__name__}; "
            "take request.get_data() in Flask, request.body in Django"
        )
    if len(body) > max_body:
        raise BodyTooLarge(
            f"the body has {len(body)} bytes, at most {max_body} are taken; GitHub sends at most {MAX_BODY}",
            actual=len(body),
            limit=max_body,
        )
    given = {name.lower(): value for name, value in headers.items()}
    _verify(given, body, _keys(secret))
    event = _header(given, _EVENT, _EVENT_FORM, "the name of an event, such as pull_request")
    delivery = _header(given, _DELIVERY, _DELIVERY_FORM, "the id of a delivery, a GUID")
    text, payload = _read(given, body)
    return Message(
        body=text,
        id=delivery,
        session_id=strategy(event, payload),
        attributes=_attributes(event, payload),
        content_type=JSON,
    )


def sign(body: bytes, secret: Secret) -> str:
    """What GitHub puts into ``X-Hub-Signature-256`` for *body*; for tests, and for playing GitHub.

    https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
    """
    return f"sha256={hmac.digest(_key(secret), body, 'sha256').hex()}"


def _verify(given: Mapping[str, str], body: bytes, keys: Sequence[bytes]) -> None:
    signature = given.get(_SIGNATURE.lower())
    if not signature:
        old = " (only the SHA-1 signature came, which is not accepted)" if "x-hub-signature" in given else ""
        raise MissingSignature(
            f"the request has no {_SIGNATURE} header{old}; give the webhook a secret in its settings"
        )
    match = _SIGNATURE_FORM.fullmatch(signature)
    if match is None:
        raise MalformedSignature(f"the {_SIGNATURE} header is not 'sha256=' and 64 hexadecimal digits")
    claimed = bytes.fromhex(match[1])
    if not any(hmac.compare_digest(hmac.digest(key, body, "sha256"), claimed) for key in keys):
        raise WrongSignature(
            f"the {_SIGNATURE} header does not fit the body: another secret, or a body that was changed "
            "on its way; sign and verify the raw bytes"
        )


def _keys(secret: Secret | Sequence[Secret]) -> list[bytes]:
    if isinstance(secret, str | bytes) or not isinstance(secret, Sequence):
        return [_key(secret)]
    if not secret:
        raise ConfigurationError("secret: none was given; without one anybody could send deliveries")
    return [_key(each) for each in secret]


def _key(secret: object) -> bytes:
    if not isinstance(secret, str | bytes):
        raise ConfigurationError(f"secret must be text or bytes, not {type(secret).__name__}; is it set?")
    if not secret.strip():
        raise ConfigurationError("secret is empty; with an empty one anybody could sign deliveries")
    return secret.encode() if isinstance(secret, str) else secret


def _header(given: Mapping[str, str], name: str, form: re.Pattern[str], meaning: str) -> str:
    value = given.get(name.lower())
    if not value:
        raise InvalidDelivery(f"the request has no {name} header, {meaning}")
    if not form.fullmatch(value):
        raise InvalidDelivery(f"the {name} header is not {meaning}")
    return value


def _read(given: Mapping[str, str], body: bytes) -> tuple[bytes, Payload]:
    """The JSON text and its value."""
    content_type = given.get("content-type", JSON).split(";")[0].strip().lower()
    if content_type == _FORM:
        body = _field(body)
    elif content_type != JSON:
        raise UnsupportedContentType(
            f"the Content-Type is neither {JSON} nor {_FORM}; set one at the webhook"
        )
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as exc:
        # Not the error's own text: it may show a piece of the body.
        raise InvalidDelivery(f"the body is not JSON ({type(exc).__name__})") from None
    if not isinstance(payload, dict):
        raise InvalidDelivery("the body is JSON, but not an object, as every payload is")
    return body, payload


def _field(body: bytes) -> bytes:
    try:
        fields = parse_qs(body.decode("ascii"), errors="strict", max_num_fields=1)
        (text,) = fields["payload"]
    except (ValueError, KeyError):
        raise InvalidDelivery("the body is not a form with the one field 'payload'") from None
    return text.encode()


def _attributes(event: str, payload: Payload) -> dict[str, str]:
    found = {
        "github.event": event,
        "github.action": text_at(payload, "action"),
        "github.repository": repository_of(payload),
        "github.sender": text_at(payload, "sender", "login"),
        "github.installation": number_at(payload, "installation", "id"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _strategy(session: str | DeliveryStrategy | None) -> DeliveryStrategy:
    if session is None:
        session = "none"
    if not isinstance(session, str):
        return session
    try:
        return STRATEGIES[session]
    except KeyError:
        raise ConfigurationError(
            f"session: no strategy is called {session!r}{did_you_mean(session, STRATEGIES)}; there are "
            f"{', '.join(STRATEGIES)}, or give a function of the event's name and the payload"
        ) from None
