"""Every Python block of the README and the docs runs, so that none of them can become false unnoticed.

The blocks of a page run in order and share their names; `connect()` finds a memory provider. The test
functions among them are called. A block after ``<!-- compile only: reason -->`` is compiled and not run.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from queue_runtime import client as client_module

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

BLOCK = re.compile(
    r"^(?P<mark><!-- compile only(?:: (?P<reason>[^\n]+))? -->\n+)?"
    r"^(?P<indent> *)```python\n(?P<code>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced Python block and the line it begins at; `reason` says why it is not run, None if it is."""

    line: int
    code: str
    reason: str | None


def blocks(text: str) -> list[Block]:
    found = []
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        if match["mark"] and not match["reason"]:
            raise ValueError(f"line {line}: say why: <!-- compile only: reason -->")
        code = re.sub(f"^{match['indent']}", "", match["code"], flags=re.MULTILINE)
        found.append(Block(line, code, match["reason"]))
    return found


def run(module: ModuleType, path: str, found: list[Block]) -> None:
    for block in found:
        # On the lines where the page has it, so that a traceback points into the page.
        compiled = compile("\n" * (block.line - 1) + block.code, path, "exec")
        if block.reason is None:
            exec(compiled, vars(module))
    for name, value in list(vars(module).items()):
        if name.startswith("test_") and callable(value):
            value()


@pytest.fixture
def page_module() -> Iterator[ModuleType]:
    """A module for the blocks of a page: dataclasses look for their annotations in one. What clients the page
    has made, and left open as programs do, are closed after it."""
    module = ModuleType("a_page")
    sys.modules[module.__name__] = module
    before = set(client_module._clients)
    yield module
    del sys.modules[module.__name__]
    for client in set(client_module._clients) - before:
        client.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_blocks_of_a_page_run(
    page: Path, page_module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # for the files that a page writes
    name = page.relative_to(ROOT).as_posix()
    broker = re.sub(r"\W", "-", name)
    monkeypatch.setenv("QUEUE_RUNTIME_URL", f"memory://{broker}?queues=events:sessions,jobs")
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", "a secret of the docs")

    run(page_module, name, blocks(page.read_text(encoding="utf-8")))


def test_the_readme_shows_how_to_send_and_how_to_work() -> None:
    shown = "\n".join(block.code for block in blocks((ROOT / "README.md").read_text(encoding="utf-8")))

    assert "client.send(" in shown
    assert "Worker(" in shown


class TestBlocks:
    def test_are_found_with_their_line_and_without_their_indent(self) -> None:
        text = (
            "# Page\n```python\na = 1\n```\n- item\n\n  ```python\n  if a:\n      b = 2\n  ```\n```sh\n```\n"
        )

        assert blocks(text) == [Block(3, "a = 1\n", None), Block(8, "if a:\n    b = 2\n", None)]

    def test_share_their_names_and_the_page_runs_its_tests(self, page_module: ModuleType) -> None:
        run(page_module, "page", [Block(1, "a = [1]", None), Block(3, "def test_a(): a.append(2)", None)])

        assert vars(page_module)["a"] == [1, 2]

    def test_that_fail_name_the_line_of_the_page(self, page_module: ModuleType) -> None:
        with pytest.raises(ZeroDivisionError) as caught:
            run(page_module, "page.md", [Block(7, "1 / 0\n", None)])

        assert (caught.traceback[-1].path, caught.traceback[-1].lineno + 1) == ("page.md", 7)

    def test_may_be_only_compiled_with_a_reason(self, page_module: ModuleType) -> None:
        (block,) = blocks("<!-- compile only: needs an account -->\n```python\n1 / 0\n```\n")

        run(page_module, "page", [block])

        assert block.reason == "needs an account"
        with pytest.raises(SyntaxError):
            run(page_module, "page", [Block(1, "1 /", "a reason")])

    def test_may_not_be_only_compiled_without_one(self) -> None:
        with pytest.raises(ValueError, match="line 3: say why"):
            blocks("<!-- compile only -->\n```python\n1 / 0\n```\n")
