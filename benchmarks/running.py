"""Runs the endpoint of `sqs_endpoint.py` for as long as a block lasts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def endpoint(latency: float, faults: float = 0.0) -> Iterator[str]:
    """Its URL."""
    program = Path(__file__).with_name("sqs_endpoint.py")
    process = subprocess.Popen(
        [sys.executable, str(program), str(latency), str(faults)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.terminate()
        process.wait(5)
        process.stdout.close()
