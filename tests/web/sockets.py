"""Which connections to a port a process holds, from /proc."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

PROC = Path("/proc")

HAS_PROC = (PROC / "self" / "net" / "tcp").exists()


def runs_here(thread: Thread) -> bool:
    """It is a thread of this process, as the system tells where it does."""
    return not HAS_PROC or (PROC / "self" / "task" / str(thread.native_id)).exists()


ESTABLISHED = "01"
"""https://docs.kernel.org/networking/proc_net_tcp.html"""


def connections(pid: int, port: int) -> set[str]:
    """The inodes of the sockets of process *pid* that are connected to 127.0.0.1:*port*."""
    remote = f"0100007F:{port:04X}"
    rows = [line.split() for line in (PROC / str(pid) / "net" / "tcp").read_text().splitlines()[1:]]
    wanted = {row[9] for row in rows if row[2] == remote and row[3] == ESTABLISHED}
    return wanted & _open(pid)


def mine(url: str) -> list[str]:
    """The same of this process, to the endpoint of the URL for `connect`; none where there is no /proc."""
    if not HAS_PROC:
        return []
    [endpoint] = parse_qs(urlsplit(url).query)["endpoint_url"]
    port = urlsplit(endpoint).port
    assert port is not None
    return sorted(connections(os.getpid(), port))


def opened() -> list[str]:
    """All sockets that this process has open: one may be connected only later."""
    return sorted(_open(os.getpid())) if HAS_PROC else []


def children(pid: int) -> set[int]:
    """The processes whose parent is *pid*."""
    found = set()
    for stat in PROC.glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended while we looked
            # The name may hold spaces and brackets, the last bracket is its end.
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.add(int(stat.parent.name))
    return found


def _open(pid: int) -> set[str]:
    found = set()
    for number in (PROC / str(pid) / "fd").iterdir():
        with suppress(OSError):  # it was closed while we looked
            target = str(number.readlink())
            if target.startswith("socket:["):
                found.add(target[len("socket:[") : -1])
    return found
