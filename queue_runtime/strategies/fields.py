"""Strategies that look at one thing: an attribute, a field of the payload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from queue_runtime.strategies.base import Facts, Strategy
from queue_runtime.strategies.github import STRATEGIES


@dataclass(frozen=True, slots=True, repr=False)
class Attribute(Strategy):
    """The value of an attribute. One that is not there, or empty, names nothing."""

    attribute: str

    def name(self, facts: Facts) -> str | None:
        return facts.message.attributes.get(self.attribute) or None

    def __str__(self) -> str:
        return f"attribute:{self.attribute}"


@dataclass(frozen=True, slots=True, repr=False)
class PayloadField(Strategy):
    """A field of a JSON body, by the way to it: names, and indexes of lists.

    Text and whole numbers are ids; anything else, and a field that is not there, names nothing.
    """

    path: tuple[str, ...]

    def name(self, facts: Facts) -> str | None:
        value = facts.payload()
        for step in self.path:
            value = _inside(value, step)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return value if isinstance(value, str) and value else None

    def __str__(self) -> str:
        return f"payload:{'.'.join(self.path)}"


@dataclass(frozen=True, slots=True, repr=False)
class Field(Strategy):
    """An attribute, or the payload's field of that name where there is no such attribute."""

    attribute: Attribute
    payload: PayloadField

    def name(self, facts: Facts) -> str | None:
        return self.attribute.name(facts) or self.payload.name(facts)

    def __str__(self) -> str:
        return f"field:{self.attribute.attribute}"


@dataclass(frozen=True, slots=True, repr=False)
class GitHubDelivery(Strategy):
    """What a GitHub delivery is about, by one of the named ways of `queue_runtime.github`."""

    way: str

    def name(self, facts: Facts) -> str | None:
        payload = facts.payload()
        if not isinstance(payload, Mapping):
            return None
        return STRATEGIES[self.way](facts.message.attributes.get("github.event", ""), payload)

    def __str__(self) -> str:
        return f"github.{self.way}"


def _inside(value: object, step: str) -> object:
    if isinstance(value, Mapping):
        return value.get(step)
    if isinstance(value, Sequence) and not isinstance(value, str) and step.isdecimal():
        index = int(step)
        return value[index] if index < len(value) else None
    return None
