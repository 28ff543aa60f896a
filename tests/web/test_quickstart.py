"""The README's quickstart, copied and pasted: the program, and the delivery that is posted to it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.web.servers import ROOT

SECTION = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Try it")[2].partition("\n## ")[0]


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_a_delivery_that_is_posted_is_handled(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    program = tmp_path / "quickstart.py"
    program.write_text(block("python").replace("8000", port))
    bin_folder = Path(sys.executable).parent
    environ = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    posting = block("sh").replace("8000", port).replace("curl ", "curl --retry 30 --retry-connrefused ")

    with subprocess.Popen(
        [sys.executable, "-u", str(program)], env=environ, stdout=subprocess.PIPE, text=True
    ) as app:
        try:
            answer = subprocess.run(
                ["sh", "-c", posting], env=environ, capture_output=True, text=True, timeout=40, check=True
            )
            assert app.stdout is not None
            lines = iter(app.stdout.readline, "")
            handled = next((line for line in lines if "octo/repo" in line), "")
        finally:
            app.terminate()

    assert answer.stdout.strip() == '{"queued":"delivery-1"}'
    assert handled.strip() == "octo/repo#7 pull_request opened"
