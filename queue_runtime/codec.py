"""What travels on a broker that carries text and few attributes, and how it is read again.

A body that is legal XML text travels as it is, so that other tools can read and write our queues;
everything else as base64, with a marker. User attributes keep their names; all that is ours is JSON in
one reserved attribute: ids, content type, session, times, and user attributes that the broker would refuse.
What it claims is clamped to sane bounds when it is read: a forged one harms only its own message.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from queue_runtime.errors import InvalidName
from queue_runtime.message import (
    MAX_REPLAYS,
    MAX_TIME_TO_LIVE,
    RESERVED_ATTRIBUTE,
    DeadLetterInfo,
    Message,
    check_id,
)

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

EMPTY = "(empty)"
"""What stands in the place of a body without a byte."""

_SHORT = {
    "id": "id",
    "session_id": "sid",
    "content_type": "ct",
    "correlation_id": "cid",
}
"""Message field -> its name inside the reserved attribute."""


WAIT, SENT = "wait", "sent"
"""Names inside the reserved attribute: seconds from when it was sent until it is due, and, in a copy that was
sent again meanwhile, when that was: milliseconds of the broker's own clock."""

TIME_TO_LIVE, REPLAYS = "ttl", "re"
"""Names of those fields inside the reserved attribute."""

_TIMES = frozenset({WAIT, SENT, TIME_TO_LIVE})


@dataclass(frozen=True, slots=True)
class TextMessage:
    """A message in the terms of the broker: text, and text attributes."""

    body: str
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Decoded:
    """A message read back, what came beside it, and what could not be read."""

    message: Message
    dead_letter: DeadLetterInfo | None
    problem: str | None
    wait: float | None = None
    """Seconds until it is due, as it says; None: it says nothing."""
    sent: int | None = None
    """Milliseconds of the broker's clock at which that began; None: when the broker got it."""


def encode_text(
    message: Message,
    *,
    dead_letter: DeadLetterInfo | None = None,
    pack_attributes: bool = False,
    wait: float | None = None,
) -> TextMessage:
    """Return *message* as text. *pack_attributes* moves every user attribute into the reserved one; *wait* is
    the seconds until it is due, where the message must say so."""
    ours: dict[str, Any] = {
        short: value for name, short in _SHORT.items() if (value := getattr(message, name)) is not None
    }
    if message.time_to_live is not None:
        ours[TIME_TO_LIVE] = message.time_to_live
    if message.replays:
        ours[REPLAYS] = message.replays
    if wait is not None:
        ours[WAIT] = wait
    text = _legal_text(message.body)
    if not message.body:
        # SQS refuses an empty body.
        ours["enc"], text = "empty", EMPTY
    elif text is None:
        ours["enc"], text = "base64", base64.b64encode(message.body).decode("ascii")
    plain: dict[str, str] = {}
    packed: dict[str, str] = {}
    for name, value in message.attributes.items():
        refused = pack_attributes or not value or _ILLEGAL.search(value)
        (packed if refused else plain)[name] = value
    if packed:
        ours["attrs"] = packed
    if dead_letter is not None:
        ours["dl"] = written_info(dead_letter)
    return TextMessage(text, {**plain, RESERVED_ATTRIBUTE: compact(ours)})


def decode_text(
    body: str,
    attributes: Mapping[str, str],
    *,
    fallback_id: str,
    session_id: str | None = None,
    deduplication_id: str | None = None,
) -> Decoded:
    """Read what `encode_text` wrote, or what another tool sent.

    Never raises: a body or a reserved attribute that cannot be read gives the message as it came and
    says why in `Decoded.problem`. *session_id* is the broker's, used where the message names none.
    """
    user = {name: value for name, value in attributes.items() if name != RESERVED_ATTRIBUTE}
    ours, problem = read_ours(attributes.get(RESERVED_ATTRIBUTE))
    raw = body.encode("utf-8", "surrogatepass")
    if ours.get("enc") == "empty":
        raw = b""
    elif ours.get("enc") == "base64":
        try:
            raw = base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError) as exc:
            problem = problem or f"the body is marked as base64 and is not: {exc}"
    packed = ours.get("attrs")
    if isinstance(packed, dict):
        user.update({name: value for name, value in packed.items() if isinstance(value, str)})
    known: dict[str, Any] = {
        name: ours[short] for name, short in _SHORT.items() if isinstance(ours.get(short), str)
    }
    known |= life_story(ours)
    known.setdefault("id", fallback_id)
    if session_id is not None:
        known.setdefault("session_id", session_id)
    try:
        message = Message(body=raw, attributes=user, deduplication_id=deduplication_id, **known)
    except Exception as exc:  # names of another tool's that ours would refuse: show the message all the same
        problem = problem or f"it has a name that is not portable: {exc}"
        message = Message(body=raw, id=fallback_id, session_id=session_id)
    sent = ours.get(SENT)
    return Decoded(
        message,
        read_info(ours.get("dl")),
        problem,
        wait=_seconds(ours.get(WAIT)),
        sent=sent if type(sent) is int and sent >= 0 else None,
    )


def life_story(ours: Mapping[str, Any]) -> dict[str, Any]:
    """Time-to-live and replays as fields of a message, clamped; without what is nothing of the kind."""
    known: dict[str, Any] = {}
    life = _seconds(ours.get(TIME_TO_LIVE))
    if life is not None:
        known["time_to_live"] = life
    replays = ours.get(REPLAYS)
    if type(replays) is int:
        known["replays"] = max(0, min(replays, MAX_REPLAYS))
    return known


def _seconds(value: object) -> float | None:
    """A claimed duration, at most the longest; None for what is none."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:  # nor is NaN
        return None
    return float(min(value, MAX_TIME_TO_LIVE))


def short_id(value: str, *, limit: int, legal: re.Pattern[str], prefix: str = "q-") -> str:
    """*value*, or a prefix and a hash of it where it is longer or stranger than the broker takes."""
    if len(value) <= limit and legal.fullmatch(value):
        return value
    return prefix + hashlib.sha256(value.encode()).hexdigest()


def _legal_text(body: bytes) -> str | None:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if _ILLEGAL.search(text) else text


def compact(ours: Mapping[str, Any]) -> str:
    """JSON for the reserved attribute."""
    # ASCII: \u escapes keep what XML forbids out of the attribute.
    return json.dumps(ours, separators=(",", ":"))


def read_ours(text: str | None) -> tuple[dict[str, Any], str | None]:
    """What the reserved attribute holds, and why it cannot be read if it cannot."""
    if text is None:
        return {}, None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        return {}, f"the attribute {RESERVED_ATTRIBUTE!r} is not JSON: {exc}"
    if not isinstance(value, dict):
        return {}, f"the attribute {RESERVED_ATTRIBUTE!r} is not a JSON object"
    return value, None


def without_times(text: str) -> str:
    """The reserved attribute without what says when the message is due, or expires; as it is if it cannot be
    read."""
    ours, problem = read_ours(text)
    return text if problem else compact({name: value for name, value in ours.items() if name not in _TIMES})


def written_info(info: DeadLetterInfo) -> dict[str, Any]:
    """*info* for JSON, without what is not known."""
    known = {name: value for name, value in asdict(info).items() if value is not None}
    if info.first_seen_at is not None:
        known["first_seen_at"] = info.first_seen_at.isoformat()
    return known


def read_info(value: Any) -> DeadLetterInfo | None:
    """What `written_info` wrote; None if it is nothing of the kind.

    A forged or foreign record loses the fields that have the wrong type, and a session id that no message
    may have; it harms only itself.
    """
    if not isinstance(value, dict) or not isinstance(value.get("reason"), str):
        return None
    numbers = {"attempts", "sequence"}
    known: dict[str, Any] = {
        item.name: value[item.name]
        for item in fields(DeadLetterInfo)
        if type(value.get(item.name)) is (int if item.name in numbers else str)
    }
    known["first_seen_at"] = _instant(known.get("first_seen_at"))
    if not _is_id(known.get("session_id")):
        known.pop("session_id", None)  # a replay would give it to a message
    return DeadLetterInfo(**known)


def _is_id(value: str | None) -> bool:
    try:
        return value is not None and check_id(value, "session_id") == value
    except InvalidName:
        return False


def _instant(text: str | None) -> datetime | None:
    try:
        read = None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if read is None or read.tzinfo is None else read
