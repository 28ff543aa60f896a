"""The page of the architecture tells what the code is: its layers, and every lock with what it guards."""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")

LOCKS = {"Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore"}


def layers_of_the_page(page: str) -> list[str]:
    block = re.search(r"```text\n(.*?)```", page, re.DOTALL)
    assert block, "the layers stand in a block of text"
    return [line.split("  ")[0].strip() for line in block[1].splitlines()]


def owners_of_locks(source: str) -> set[str]:
    """Names of the classes of a module that make a lock for themselves."""
    classes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef))
    return {each.name for each in classes if any(_makes_a_lock(node) for node in _assigned(each))}


def _assigned(owner: ast.ClassDef) -> Iterator[ast.expr]:
    for node in ast.walk(owner):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            yield node.value


def _makes_a_lock(value: ast.expr) -> bool:
    made = value.func if isinstance(value, ast.Call) else None
    name = made.attr if isinstance(made, ast.Attribute) else made.id if isinstance(made, ast.Name) else None
    return name in LOCKS


def test_its_layers_are_those_that_are_checked() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    checked = settings["importlinter:contract:layers"]["layers"].split("\n")

    assert layers_of_the_page(PAGE) == [layer for layer in checked if layer]


def test_every_class_with_a_lock_is_in_its_table() -> None:
    package = ROOT / "queue_runtime"
    modules = [path for path in package.rglob("*.py") if "testing" not in path.relative_to(package).parts]
    owners = {owner for path in modules for owner in owners_of_locks(path.read_text(encoding="utf-8"))}

    table = PAGE.partition("## Which lock guards what")[2].partition("\n## ")[0]
    missing = {owner for owner in owners if not re.search(rf"`{owner}\b", table)}

    assert "Scheduler" in owners
    assert not missing, "say there what their locks guard"


def test_a_lock_is_found_wherever_its_class_makes_it() -> None:
    source = """
class A:
    def __init__(self):
        self._changed = threading.Condition()
class B:
    def _forked(self):
        self._lock = threading.Lock()
class C:
    def wait(self):
        done = threading.Condition()
"""

    assert owners_of_locks(source) == {"A", "B"}
