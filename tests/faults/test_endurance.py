"""The long run, short: a worker is stopped twice and killed once under load, and every promise is kept."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "benchmarks" / "endurance.py"


def endured(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and output of a run of five seconds, or as *arguments* say."""
    short = ("--minutes", "0.08", "--sessions", "60", "--handlers", "16", "--rate", "40", "--lease", "3")
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *short, "--keep", str(folder), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=55,
    )
    return done.returncode, done.stdout


def test_two_restarts_and_a_kill_among_failing_handlers_break_no_promise(tmp_path: Path) -> None:
    status, told = endured(tmp_path, "--seed", "5")

    assert status == 0, told
    assert re.findall(r"^ +[\d.]+ s  (\w+), ", told, re.MULTILINE) == ["SIGKILL", "SIGTERM", "SIGTERM"]
    for name in ("lost", "out of order", "wrongly dead-lettered", "other broken promises"):
        assert re.search(rf"^{name} +0$", told, re.MULTILINE), told
    assert len(re.findall(r"^life \d: SIGTERM.* reported ", told, re.MULTILINE)) == 3, told
    assert told.endswith("Every promise was kept.\n")


def test_a_provider_without_a_process_of_its_own_is_refused(tmp_path: Path) -> None:
    status, told = endured(tmp_path, "--provider", "memory")

    assert status == 2
    assert "invalid choice: 'memory'" in told
