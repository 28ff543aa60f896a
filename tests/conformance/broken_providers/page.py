"""Writes the table of docs/conformance.md: ``python -m tests.conformance.broken_providers.page``."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.broken_providers import BROKEN

PAGE = Path(__file__).resolve().parents[3] / "docs" / "conformance.md"

BEGIN = "<!-- the broken providers, written by `python -m tests.conformance.broken_providers.page` -->"
END = "<!-- end of the broken providers -->"


def table() -> str:
    """A line for each broken provider, by the family of rows that catches it."""
    lines = ["| broken provider | what it breaks | the row that catches it |", "| --- | --- | --- |"]
    for broken in sorted(BROKEN.values(), key=lambda each: (each.row_name, each.name)):
        lines.append(f"| `{broken.name}` | {broken.breaks} | `{broken.row_name.replace('.', '::')}` |")
    return "\n".join(lines)


def with_table(page: str) -> str:
    """The *page* with the table that is right."""
    head, _, rest = page.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
