"""Catches the signals that ask a worker to stop, for as long as it runs on the main thread."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Signals:
    """SIGTERM and SIGINT go to *handler* inside the block, if it is entered on the main thread."""

    def __init__(self, handler: Callable[[int, FrameType | None], None]) -> None:
        self._handler = handler
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handler)

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            if handler is not None:  # None: it was not set by Python, and cannot be by Python
                signal.signal(number, handler)
