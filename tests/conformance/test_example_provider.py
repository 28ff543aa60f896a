"""The example provider passes the suite in a distribution of its own, with the harness of its page."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "shelf_provider"
PAGE = ROOT / "docs" / "writing-a-provider.md"

HARNESS = re.compile(r"^```python\n(# tests/test_conformance.py\n.*?)^```$", re.MULTILINE | re.DOTALL)
CONFTEST = 'pytest_plugins = ["queue_runtime.testing.conformance.report"]\n'


def install(place: Path) -> None:
    """The example as pip would leave it: its module, and the entry points beside it."""
    shutil.copy(EXAMPLE / "shelf.py", place)
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ((group, entries),) = project["entry-points"].items()
    info = place / "shelf_provider-1.dist-info"
    info.mkdir()
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    name, version = project["name"], project["version"]
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_the_example_provider_passes_every_row(tmp_path: Path) -> None:
    install(tmp_path)
    harness = HARNESS.search(PAGE.read_text(encoding="utf-8"))
    assert harness, "the page shows a harness"
    (tmp_path / "test_conformance.py").write_text(harness[1])
    (tmp_path / "conftest.py").write_text(CONFTEST)

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-4000:]
    summary = re.search(r"^shelf: (\d+) passed, \d+ skipped$", done.stdout, re.MULTILINE)
    assert summary, done.stdout[-4000:]
    assert int(summary[1]) > 150
