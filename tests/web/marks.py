"""What the messages of these tests say, so that their way can be followed: their id, and who sent them."""

from __future__ import annotations

import os
import re

from queue_runtime import Message

SESSIONS = 16

MARK = re.compile(rb"\[id (?P<id>[\w-]+) by (?P<pid>\d+)\]")


def marked(name: str) -> Message:
    """A message with the id *name*, which says that this process sent it; some share a session."""
    session = f"s{sum(name.encode()) % SESSIONS}"
    return Message.of(f"[id {name} by {os.getpid()}]", id=name, session_id=session)
