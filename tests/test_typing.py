"""What mypy says to users: a handler that does not fit its payload is rejected, one that does is not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.xdist_group("mypy")  # one run for all, of all workers

PRELUDE = """
from dataclasses import dataclass
from typing import Any
from queue_runtime import Message, QueueClient, ReceivedMessage, Worker, connect

@dataclass
class PullRequest:
    number: int

@dataclass
class Issue:
    title: str

client = connect("memory://?queues=events:sessions,jobs")

def plain(message: ReceivedMessage) -> None: ...
def on_pull_request(event: PullRequest, message: ReceivedMessage) -> None: ...
def on_issue(event: Issue, message: ReceivedMessage) -> bool: return True
def on_anything(event: object, message: ReceivedMessage) -> None: ...
def on_list(events: list[Issue], message: ReceivedMessage) -> None: ...
"""


@dataclass(frozen=True)
class Snippet:
    """Code behind the prelude, and what mypy must say of its only statement; None: nothing."""

    name: str
    code: str
    error: str | None = None


NO_OVERLOAD = r"No overload variant of .Worker. matches|incompatible type"

SNIPPETS = [
    Snippet("a_plain_handler_is_right", 'Worker(client, "events", plain)'),
    Snippet(
        "a_handler_of_the_payload_is_right", 'Worker(client, "events", on_pull_request, payload=PullRequest)'
    ),
    Snippet("what_a_handler_returns_is_its_own_affair", 'Worker(client, "events", on_issue, payload=Issue)'),
    Snippet("a_handler_of_a_wider_type_is_right", 'Worker(client, "events", on_anything, payload=Issue)'),
    Snippet("a_payload_may_be_a_list", 'Worker(client, "events", on_list, payload=list[Issue])'),
    Snippet(
        "a_handler_of_another_payload_is_wrong",
        'Worker(client, "events", on_issue, payload=PullRequest)',
        NO_OVERLOAD,
    ),
    Snippet(
        "a_handler_without_a_payload_is_wrong",
        'Worker(client, "events", plain, payload=PullRequest)',
        NO_OVERLOAD,
    ),
    Snippet("a_payload_that_nobody_named_is_wrong", 'Worker(client, "events", on_pull_request)', NO_OVERLOAD),
    Snippet(
        "an_instance_is_no_payload_type",
        'Worker(client, "events", on_issue, payload=Issue("a"))',
        NO_OVERLOAD,
    ),
    Snippet("an_unknown_setting_is_wrong", 'Worker(client, "events", plain, concurency=3)', NO_OVERLOAD),
    Snippet(
        "a_payload_has_the_type_that_was_asked_for",
        'n: int = client.receive("jobs")[0].payload(PullRequest).number',
    ),
    Snippet(
        "and_no_other",
        'issue: Issue = client.receive("jobs")[0].payload(PullRequest)',
        r"Argument 1 to .payload. .* incompatible type|Incompatible types in assignment",
    ),
    Snippet("a_payload_of_no_type_is_anything", 'n: int = client.receive("jobs")[0].payload()["n"]'),
    Snippet("send_takes_a_message", 'sent: str = client.send("jobs", Message.of({}))'),
    Snippet("and_nothing_else", 'client.send("jobs", {"n": 1})', "incompatible type"),
    Snippet(
        "one_that_is_asked_for_by_id_is_there_or_an_error_is_raised",
        'client.accept_session("events", session_id="a").receive()',
    ),
    Snippet(
        "a_session_may_not_be_there", 'client.accept_session("events").receive()', r"None.* has no attribute"
    ),
]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What mypy says of each snippet; one run for all, as a run costs seconds."""
    place = tmp_path_factory.mktemp("typing")
    for snippet in SNIPPETS:
        (place / f"{snippet.name}.py").write_text(PRELUDE + snippet.code + "\n")
    # From outside, as a user's project, without this one's settings; and in a process of its own, because
    # mypy changes the recursion limit and the garbage collector of the one that it runs in.
    options = "--strict --follow-imports=silent --no-error-summary --hide-error-context --cache-dir=cache"
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options.split(), "."],
        cwd=place,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.stderr == ""
    found = {snippet.name: "" for snippet in SNIPPETS}
    for line in done.stdout.splitlines():
        name = re.split(r"\.py:", line)[0]
        assert name in found, f"mypy stumbles over the package itself: {line}"
        found[name] += line + "\n"
    return found


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.name)
def test_mypy_says(snippet: Snippet, said: dict[str, str]) -> None:
    if snippet.error is None:
        assert said[snippet.name] == ""
    else:
        assert re.search(snippet.error, said[snippet.name]), said[snippet.name]
