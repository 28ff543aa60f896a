"""Every link of the README and the docs leads somewhere: to a file, to a heading, to a test that is there.

A link to a test is its name in a code span, ``[`test_name`](../tests/test_file.py)``; `TestName` and
`TestName::test_name` are names of tests too. What a page claims of the library rests on them.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

HIDDEN = re.compile(r"^ *(```+|~~~+)[^\n]*\n.*?^ *\1 *$|<!--.*?-->", re.MULTILINE | re.DOTALL)
"""Code blocks and comments: what looks like a link or a heading in them is none."""

CODE = re.compile(r"(?<!`)(`+)(?!`)((?:(?!\n\n).)+?)(?<!`)\1(?!`)", re.DOTALL)
LINK = re.compile(r"\[(?P<label>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>[^()\s]+)[^()\n]*\)")
HEADING = re.compile(r"^ {0,3}#{1,6} +(?P<text>.*?)(?: +#+)? *$", re.MULTILINE)
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
TEST = re.compile(r"`(?P<name>test_\w+|Test\w+(?:::test_\w+)?)`")


@dataclass(frozen=True)
class Link:
    line: int
    label: str
    target: str

    def __str__(self) -> str:
        return f"[{self.label}]({self.target})"


def links(text: str) -> list[Link]:
    """The inline links of a page, with the lines they begin at."""
    shown = CODE.sub(_blank_if_a_link, HIDDEN.sub(_blank, text))
    return [
        Link(shown.count("\n", 0, match.start()) + 1, " ".join(match["label"].split()), match["target"])
        for match in LINK.finditer(shown)
    ]


def anchors(text: str) -> set[str]:
    """What may stand behind # for a page: its headings as GitHub names them."""
    found: Counter[str] = Counter()
    names = set()
    for match in HEADING.finditer(HIDDEN.sub(_blank, text)):
        heading = LINK.sub(lambda link: link["label"], match["text"])
        name = re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        names.add(f"{name}-{found[name]}" if found[name] else name)
        found[name] += 1
    return names


def names_of_tests(source: str) -> set[str]:
    """Names of the tests of a module; those in a class with and without the class before them."""
    module = ast.parse(source).body
    names = set(_tests_among(module))
    for node in module:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            methods = _tests_among(node.body)
            names |= {node.name, *methods, *(f"{node.name}::{method}" for method in methods)}
        elif isinstance(node, ast.Assign):  # the TestCase of a state machine of hypothesis
            targets = [target.id for target in node.targets if isinstance(target, ast.Name)]
            names |= {target for target in targets if target.startswith("Test")}
    return names


def fault(link: Link, page: Path, root: Path) -> str | None:
    """What is wrong with a *link* of *page*; None if it leads somewhere, or out of this project."""
    if ELSEWHERE.match(link.target) or link.target.startswith("//"):
        return None
    place, _, anchor = link.target.partition("#")
    file = (page.parent / unquote(place)).resolve() if place else page
    test = TEST.fullmatch(link.label)
    if not file.is_relative_to(root):
        return "leads out of the project"
    if not file.exists():
        return f"there is no {file.relative_to(root)}"
    if test and file.suffix != ".py":
        return "the name of a test, and not a link to a Python file"
    if test and test["name"] not in _tests_of(file):
        return f"there is no test of this name in {file.relative_to(root)}"
    if anchor and file.suffix == ".md" and unquote(anchor) not in _anchors_of(file):
        return f"{file.relative_to(root)} has no heading of this name"
    return None


def faults(page: Path, root: Path) -> list[str]:
    """A line for each link of *page* that leads nowhere: the page, the line, the link, and why."""
    name = page.relative_to(root)
    found = ((link, fault(link, page, root)) for link in links(page.read_text(encoding="utf-8")))
    return [f"{name}:{link.line}: {link}: {why}" for link, why in found if why]


@cache
def _tests_of(file: Path) -> set[str]:
    return names_of_tests(file.read_text(encoding="utf-8"))


@cache
def _anchors_of(file: Path) -> set[str]:
    return anchors(file.read_text(encoding="utf-8"))


def _tests_among(nodes: list[ast.stmt]) -> list[str]:
    functions = [node.name for node in nodes if isinstance(node, ast.FunctionDef)]
    return [name for name in functions if name.startswith("test_")]


def _blank(match: re.Match[str]) -> str:
    """As many lines, and nothing on them."""
    return "\n" * match[0].count("\n")


def _blank_if_a_link(match: re.Match[str]) -> str:
    """A code span may be the label of a link, and what looks like a whole link in one is none."""
    return _blank(match) if "](" in match[0] else match[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    wrong = faults(page, ROOT)

    assert not wrong, "\n".join(["links that lead nowhere:", *wrong])


class TestLinks:
    def test_are_found_with_their_lines(self) -> None:
        text = (
            "# Page\n\nSee [a page](a.md), [`test_it`](../tests/test_a.py)\nand [what\nwraps](b.md#part).\n"
        )

        assert links(text) == [
            Link(3, "a page", "a.md"),
            Link(3, "`test_it`", "../tests/test_a.py"),
            Link(4, "what wraps", "b.md#part"),
        ]

    def test_may_have_brackets_and_a_title(self) -> None:
        assert links('[a [b] c](a.md "what it is") ![drawn](b.png)') == [
            Link(1, "a [b] c", "a.md"),
            Link(1, "drawn", "b.png"),
        ]

    @pytest.mark.parametrize(
        "text",
        [
            "```python\nx = '[a](b.md)'\n```\n",
            "  ```\n  [a](b.md)\n  ```\n",
            "a code span `[a](b.md)` and ``[`a`](b.md)``",
            "<!-- [a](b.md)\n[c](d.md) -->",
        ],
    )
    def test_in_code_and_comments_are_none(self, text: str) -> None:
        assert links(text) == []

    def test_after_a_code_block_keep_their_line(self) -> None:
        assert links("```sh\none\ntwo\n```\n[a](b.md)") == [Link(5, "a", "b.md")]

    def test_between_two_code_spans_are_links_all_the_same(self) -> None:
        assert [link.label for link in links("[`a`](a.md), [`b`](b.md)")] == ["`a`", "`b`"]


class TestAnchors:
    def test_are_headings_as_github_names_them(self) -> None:
        text = "# Leases & locks\n## What `renew(lease=…)` does: it_holds\n### See [this page](a.md#x) ##\n"

        assert anchors(text) == {"leases--locks", "what-renewlease-does-it_holds", "see-this-page"}

    def test_of_headings_with_one_name_are_numbered(self) -> None:
        assert anchors("# A\n# B\n# A\n# A\n") == {"a", "b", "a-1", "a-2"}

    def test_are_not_found_in_code(self) -> None:
        assert anchors("# A\n```sh\n# a comment\n```\n") == {"a"}


class TestNamesOfTests:
    def test_are_those_of_functions_classes_and_methods(self) -> None:
        source = "def test_a(): ...\nclass TestB:\n    def test_c(self): ...\n    def help(self): ...\n"

        assert names_of_tests(source) == {"test_a", "TestB", "test_c", "TestB::test_c"}

    def test_may_be_given_to_a_state_machine(self) -> None:
        assert names_of_tests("TestModel = Model.TestCase\nother = 1\n") == {"TestModel"}

    def test_are_not_those_of_helpers_and_of_functions_inside_of_others(self) -> None:
        source = "class House:\n    def test_a(self): ...\ndef help():\n    def test_b(): ...\n"

        assert names_of_tests(source) == set()


class TestFaults:
    """The check can fail: each kind of dead link is found, and named by page, line and link."""

    @pytest.fixture
    def page(self, tmp_path: Path) -> Path:
        (tmp_path / "docs").mkdir()
        (tmp_path / "tests").mkdir()
        (tmp_path / "docs" / "other.md").write_text("# A heading\n")
        (tmp_path / "tests" / "test_a.py").write_text("class TestA:\n    def test_it(self): ...\n")
        return tmp_path / "docs" / "page.md"

    @pytest.mark.parametrize(
        ("link", "why"),
        [
            ("[x](gone.md)", "there is no docs/gone.md"),
            ("[x](../README.md)", "there is no README.md"),
            ("[x](other.md#no-heading)", "docs/other.md has no heading of this name"),
            ("[x](#no-heading)", "docs/page.md has no heading of this name"),
            ("[x](../../outside.md)", "leads out of the project"),
            ("[`test_gone`](../tests/test_a.py)", "there is no test of this name in tests/test_a.py"),
            ("[`TestGone`](../tests/test_a.py)", "there is no test of this name in tests/test_a.py"),
            ("[`TestA::test_gone`](../tests/test_a.py)", "there is no test of this name in tests/test_a.py"),
            ("[`test_it`](../tests/test_b.py)", "there is no tests/test_b.py"),
            ("[`test_it`](other.md)", "the name of a test, and not a link to a Python file"),
        ],
    )
    def test_name_the_page_the_line_and_the_link(self, page: Path, link: str, why: str) -> None:
        page.write_text(f"# Page\n\nSee {link}.\n")

        assert faults(page, page.parents[1]) == [f"docs/page.md:3: {link}: {why}"]

    @pytest.mark.parametrize(
        "link",
        [
            "[x](other.md)",
            "[x](other.md#a-heading)",
            "[x](#page)",
            "[x](../tests)",
            "[`test_it`](../tests/test_a.py)",
            "[`TestA`](../tests/test_a.py)",
            "[`TestA::test_it`](../tests/test_a.py)",
            "[the tests](../tests/test_a.py)",
            "[x](https://example.com/gone.md#gone)",
            "[x](mailto:somebody@example.com)",
        ],
    )
    def test_are_none_where_a_link_leads_somewhere(self, page: Path, link: str) -> None:
        page.write_text(f"# Page\n\nSee {link}.\n")

        assert faults(page, page.parents[1]) == []

    def test_are_all_told_at_once(self, page: Path) -> None:
        page.write_text("[a](a.md)\n[b](other.md)\n[c](c.md)\n")

        assert [line.partition(": ")[0] for line in faults(page, page.parents[1])] == [
            "docs/page.md:1",
            "docs/page.md:3",
        ]
