"""Decides, from a seed and before anything starts, what is posted in which order and what goes wrong."""

from __future__ import annotations

import json
import random
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

from demo_parts.checker import Fate
from demo_parts.samples import Entry, interleaved
from queue_runtime import github
from queue_runtime.errors import ConfigurationError

Forgery = Literal["unsigned", "wrong secret", "changed body"]
FORGERIES: tuple[Forgery, ...] = ("unsigned", "wrong secret", "changed body")

ALWAYS = 1_000_000
"""Failures of what fails at every attempt."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What the handler of a delivery meets: it takes `slow` seconds, its first `failures` attempts fail."""

    slow: float = 0.0
    failures: int = 0


NO_TROUBLE = Trouble()


@dataclass(frozen=True, slots=True)
class Delivery:
    """One webhook delivery as it will be posted, `posts` times under the same id."""

    id: str
    event: str
    body: bytes
    session: str | None
    fate: Fate = "handled"
    trouble: Trouble = NO_TROUBLE
    forgery: Forgery | None = None
    posts: int = 1


def make_plan(entries: Iterator[Entry], count: int, rng: random.Random) -> list[Delivery]:
    """*count* deliveries in the order in which they happen, and a few forged ones among them.

    One in the midst of its session is poison, one of another session lacks a field; of the rest, one in
    twenty fails once, as many are slow, and one in fifty is delivered twice.
    """
    plan = [_delivery(event, payload, rng) for event, payload in islice(entries, count)]
    undecodable = _choose_undecodable(plan, rng)
    poison = _choose_poison(plan, rng, beside=plan[undecodable].session)
    plan[poison] = replace(plan[poison], fate="poison", trouble=Trouble(failures=ALWAYS))
    plan[undecodable] = replace(
        plan[undecodable], fate="undecodable", body=_without_number(plan[undecodable].body)
    )
    for place, each in enumerate(plan):
        if each.fate != "handled":
            continue
        luck = rng.random()
        if luck < 0.05:
            plan[place] = replace(each, trouble=Trouble(failures=1))
        elif luck < 0.10:
            plan[place] = replace(each, trouble=Trouble(slow=rng.uniform(0.1, 0.3)))
        elif luck < 0.12:
            plan[place] = replace(each, posts=2)
    for forgery in FORGERIES:
        forged = replace(rng.choice(plan), id=_new_id(rng), fate="handled", forgery=forgery, posts=1)
        plan.insert(rng.randrange(count), replace(forged, trouble=NO_TROUBLE))
    return plan


def sample_entries(rng: random.Random) -> Iterator[Entry]:
    """The bundled ones; there is no end of them."""
    return interleaved(rng)


def file_entries(path: Path) -> Iterator[Entry]:
    """Those of *path*, a JSON list of ``{"event": ..., "payload": {...}}``, again and again."""
    try:
        entries = [(each["event"], each["payload"]) for each in json.loads(path.read_text("utf-8"))]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ConfigurationError(f"{path}: not a JSON list of {{event, payload}} objects: {exc!r}") from exc
    if not entries:
        raise ConfigurationError(f"{path}: holds no deliveries")
    return cycle(entries)


def lanes(plan: Sequence[Delivery], count: int) -> list[list[Delivery]]:
    """Deal *plan* to *count* posting threads: all of a session to one, in order."""
    dealt: list[list[Delivery]] = [[] for _ in range(count)]
    for each in plan:
        dealt[crc32((each.session or each.id).encode()) % count].append(each)
    return dealt


def write_troubles(path: Path, plan: Sequence[Delivery], *, fixed: bool = False) -> None:
    """Write down the troubles for the process that handles. *fixed*: what always failed fails no more."""
    troubles = {
        each.id: asdict(each.trouble)
        for each in plan
        if each.trouble != NO_TROUBLE and not (fixed and each.trouble.failures == ALWAYS)
    }
    path.write_text(json.dumps(troubles), "utf-8")


def read_troubles(path: Path) -> Mapping[str, Trouble]:
    """The troubles, by delivery."""
    return {delivery: Trouble(**facts) for delivery, facts in json.loads(path.read_text("utf-8")).items()}


def _delivery(event: str, payload: dict[str, Any], rng: random.Random) -> Delivery:
    return Delivery(
        id=_new_id(rng),
        event=event,
        body=json.dumps(payload, ensure_ascii=False).encode(),
        session=github.STRATEGIES["pull_request"](event, payload),
    )


def _new_id(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def _choose_undecodable(plan: Sequence[Delivery], rng: random.Random) -> int:
    places = [
        place
        for place, each in enumerate(plan)
        if each.event == "pull_request" and each.session is not None and b'"number"' in each.body
    ]
    return _one_of(places, rng, "a pull_request event")


def _choose_poison(plan: Sequence[Delivery], rng: random.Random, *, beside: str | None) -> int:
    """A place with two deliveries of its session before it and two behind it; not in the session *beside*."""
    total = Counter(each.session for each in plan)
    seen: Counter[str | None] = Counter()
    inner = []
    for place, each in enumerate(plan):
        if each.session not in (None, beside) and 2 <= seen[each.session] < total[each.session] - 2:
            inner.append(place)
        seen[each.session] += 1
    return _one_of(inner, rng, "another session of five deliveries or more")


def _one_of(places: Sequence[int], rng: random.Random, needed: str) -> int:
    if not places:
        raise ConfigurationError(f"among the deliveries must be {needed}; post more of them (--deliveries)")
    return rng.choice(places)


def _without_number(body: bytes) -> bytes:
    """A payload that lacks a field which the bot's payload type has, and is otherwise good."""
    payload = json.loads(body)
    del payload["number"]
    return json.dumps(payload, ensure_ascii=False).encode()
