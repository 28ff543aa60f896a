"""The bytes of a session's state: the user's own, and beside them the worker's crash mark. Pure.

What is stored is a line that says whose it is, and the user's bytes behind it::

    queue_runtime/1 {"mark":[4711,2],"user":true}
    ...the user's bytes...

Without a mark and without bytes of the user's nothing is stored. A value that does not begin so is foreign:
another program's, whose format is left to it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

HEADER = b"queue_runtime/1 "
LONGEST_HEADER = 128
"""Bytes of the first line; longer ones are no header of ours."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A message was about to enter a handler, for the time number `count` in holds that never came to their
    end."""

    sequence: int
    count: int


@dataclass(frozen=True, slots=True)
class SessionState:
    """What a session's state holds. A foreign one is all the user's, and has no mark."""

    user: bytes | None = None
    mark: Mark | None = None
    foreign: bool = False


def pack(state: SessionState) -> bytes | None:
    """The bytes to store; None: nothing is to be stored."""
    if state.foreign:
        return state.user
    if state.user is None and state.mark is None:
        return None
    ours: dict[str, Any] = {}
    if state.mark is not None:
        ours["mark"] = [state.mark.sequence, state.mark.count]
    if state.user is not None:
        ours["user"] = True
    return HEADER + json.dumps(ours, separators=(",", ":")).encode() + b"\n" + (state.user or b"")


def unpack(stored: bytes | None) -> SessionState:
    """What *stored* says; never raises: what cannot be read is foreign."""
    if not stored:
        return SessionState()
    line, end, user = stored.partition(b"\n")
    if not stored.startswith(HEADER) or not end or len(line) > LONGEST_HEADER:
        return SessionState(user=stored, foreign=True)
    try:
        ours = json.loads(line.removeprefix(HEADER))
    except ValueError:
        ours = None
    if not isinstance(ours, dict):
        return SessionState(user=stored, foreign=True)
    return SessionState(user=user if ours.get("user") is True else None, mark=_mark(ours.get("mark")))


def _mark(value: object) -> Mark | None:
    if not isinstance(value, list) or [type(each) for each in value] != [int, int] or value[1] < 1:
        return None
    return Mark(*value)
