"""What a session strategy is, and what all of ours have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from queue_runtime import payloads
from queue_runtime.clock import Clock
from queue_runtime.errors import DecodeError, InvalidName
from queue_runtime.message import Message, check_id

SessionStrategy = Callable[[Message], str | None]
"""Called by `send` for a message without a session id. None: the message stands outside sessions."""

SHOWN = 100
"""Characters that an error shows of a value."""


class Facts:
    """A message, as strategies ask for it: the body is decoded once, and only if one of them asks."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self._payload: object = None
        self._decoded = False

    def payload(self) -> object:
        """The JSON value of the body; None if it is no JSON, for then it names nothing."""
        if not self._decoded:
            self._decoded = True
            try:
                self._payload = payloads.decode(self.message.body, None)
            except DecodeError:
                pass  # text, pictures, anything: a body need not be JSON
        return self._payload


class Strategy(ABC):
    """A strategy that can be written as text, `str(strategy)`, and be part of others."""

    __slots__ = ()

    @abstractmethod
    def name(self, facts: Facts) -> str | None:
        """The session id, not checked yet."""

    def on(self, clock: Clock) -> Self:
        """The same, with the time of *clock* if it asks for the time."""
        return self

    def __call__(self, message: Message) -> str | None:
        """The session id, or None. Raises `InvalidName`, naming the strategy, for what can be no id."""
        return checked(self, self.name(Facts(message)))

    def __repr__(self) -> str:
        return f"<strategy {self}>"


def checked(strategy: Strategy, value: str | None) -> str | None:
    """*value*, if it is a session id or None; else an `InvalidName` that names *strategy*."""
    if value is None:
        return None
    try:
        return check_id(value, "session_id")
    except InvalidName as exc:
        shown = repr(value)
        shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"
        raise InvalidName(f"strategy {str(strategy)!r} gave {shown}: {exc}") from None


@dataclass(frozen=True, slots=True, repr=False)
class Nothing(Strategy):
    """Every message stands alone."""

    def name(self, facts: Facts) -> str | None:
        return None

    def __str__(self) -> str:
        return "none"


@dataclass(frozen=True, slots=True, repr=False)
class Function(Strategy):
    """A function of the user's."""

    function: SessionStrategy
    text: str
    """What the function is called."""

    def name(self, facts: Facts) -> str | None:
        return checked(self, self.function(facts.message))

    def __str__(self) -> str:
        return self.text


no_session: SessionStrategy = Nothing()
"""Every message stands alone; the strategy that a client has unless it is given another."""


def on_clock(strategy: SessionStrategy, clock: Clock) -> SessionStrategy:
    """*strategy* with the time of *clock*, if it is one of ours that asks for the time."""
    return strategy.on(clock) if isinstance(strategy, Strategy) else strategy
