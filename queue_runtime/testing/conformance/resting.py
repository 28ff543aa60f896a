"""Tells whether the threads of the clients have nothing to do, so that time may be moved."""

from __future__ import annotations

import gc
import sys
import threading
from types import FrameType

THEIRS = ("queue_runtime", "conformance")
"""How the names of threads begin that clients and rows start."""


def all_rest() -> bool:
    """True if each of their threads waits on a condition, and nobody has notified it yet.

    What they do takes no time on a clock that is moved, but real time: one that runs must be left to come to
    its rest first, or deadlines pass it by.
    """
    me = threading.current_thread()
    theirs = [t for t in threading.enumerate() if t.name.startswith(THEIRS) and t is not me]
    frames = _frames()
    return all(_rests(frames.get(thread.ident or 0)) for thread in theirs)


def _frames() -> dict[int, FrameType]:
    """Where each thread is. On Python 3.11 a collection of garbage in the middle of that can lock up the
    whole process: https://github.com/python/cpython/issues/106883."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        return sys._current_frames()
    finally:
        if collecting:
            gc.enable()


def _rests(frame: FrameType | None) -> bool:
    if frame is None or frame.f_code is not threading.Condition.wait.__code__:
        return False  # without a frame it is about to begin
    # `notify` takes the waiter out, and then the thread runs.
    return frame.f_locals.get("waiter") in frame.f_locals["self"]._waiters
