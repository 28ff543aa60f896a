"""An append-only file of what happened, one JSON object a line, shared by several threads and processes."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from queue_runtime import StopReport
from queue_runtime.events import Event

Record = dict[str, Any]


class Journal:
    """Writes records. Each is one `write` to a file opened for appending, so that lines never mix."""

    def __init__(self, path: Path, **always: object) -> None:
        self._always = always
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._lock = threading.Lock()

    def write(self, kind: str, **facts: object) -> None:
        """Add a record of *kind*; ``at`` is the wall clock, ``clock`` one that all processes here share."""
        record = {"kind": kind, "at": time.time(), "clock": time.monotonic(), **self._always, **facts}
        line = json.dumps(record, default=str, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            if self._file >= 0:
                os.write(self._file, line)

    def hear(self, event: Event) -> None:
        """A listener: each event of the library becomes a record, by the name of its class."""
        self.write(type(event).__name__, **{item.name: getattr(event, item.name) for item in fields(event)})

    def stopped(self, report: StopReport) -> None:
        """The last record of a life."""
        self.write("stopped", report=asdict(report))

    def close(self) -> None:
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1


class Reader:
    """Reads a journal while it is being written; each call goes on where the last one ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new(self) -> Iterator[Record]:
        """The whole lines that came since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # still being written
                self._offset += len(line)
                yield json.loads(line)
