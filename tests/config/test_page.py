"""docs/configuration.md is what the settings say, and what it shows can be used as it stands."""

from __future__ import annotations

import re
import tomllib

import pytest

from queue_runtime.config import load_settings
from queue_runtime.config.schema import ANYWHERE, dotted, leaves
from queue_runtime.providers import memory
from queue_runtime.providers.sqs import options as sqs_options
from queue_runtime.retry import RetryPolicy
from queue_runtime.strategies import PERIODS, parse
from queue_runtime.strategies.parsing import KINDS, NAMED
from tests.config.page import MEANS, PAGE, table, with_table, written

TEXT = PAGE.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_the_table_is_up_to_date() -> None:
    assert written(TEXT) == table(), "python -m tests.config.page"
    assert with_table(TEXT) == TEXT


def test_every_setting_is_explained_and_nothing_else() -> None:
    names = {dotted(path) for path, _ in leaves(ANYWHERE)}

    assert set(MEANS) == names | {"options.NAME", "queues.NAME", "queues.NAME.target"}


def test_the_file_that_is_shown_can_be_read() -> None:
    (shown,) = blocks("toml")

    settings = load_settings(tomllib.loads(shown), environ={})

    assert settings.of("events").retry == RetryPolicy(max_attempts=4, time_limit=2.0)
    assert settings.of("jobs").target == "acme-jobs"


def test_the_variables_that_are_shown_can_be_read() -> None:
    shown = next(block for block in blocks("sh") if "QUEUE_RUNTIME_URL" in block)

    settings = load_settings(environ=dict(line.split("=", 1) for line in shown.splitlines()))

    assert settings.provider.options == {"request_timeout": "3"}
    assert settings.of("events").target == "github-events.fifo"


def test_every_strategy_is_shown_as_it_is_written() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", TEXT.partition("## Session strategies")[2], re.MULTILINE)
    shown = [row.replace("\\|", "|") for row in rows]

    for text in shown:
        if not text.startswith("myapp."):
            parse(text)
    section = TEXT.partition("## Session strategies")[2].partition("\n## ")[0]
    assert all(f"`{name}" in section for name in (*KINDS, *NAMED, *PERIODS))


@pytest.mark.parametrize(
    ("provider", "known"), [("memory", memory.OPTIONS), ("sqs", sqs_options.KNOWN_OPTIONS)]
)
def test_the_options_of_a_provider_are_those_that_it_has(provider: str, known: frozenset[str]) -> None:
    rows = TEXT.partition(f"| `{provider}` | |\n|---|---|\n")[2].partition("\n\n")[0]

    found = [name for row in rows.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])]

    assert sorted(found) == sorted(known)
