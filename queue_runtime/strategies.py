"""Which session a message belongs to: functions from a message to a session id, or None."""

from __future__ import annotations

from collections.abc import Callable

from queue_runtime.message import Message

SessionStrategy = Callable[[Message], str | None]
"""Called by `send` for a message without a session id. None: the message stands outside sessions."""


def no_session(message: Message) -> str | None:
    """Every message stands alone; the strategy that a client has unless it is given another."""
    return None
