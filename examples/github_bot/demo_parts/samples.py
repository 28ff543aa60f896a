"""Deliveries in the shape of GitHub's, about a made-up organization; only the fields that say something.

https://docs.github.com/en/webhooks/webhook-events-and-payloads
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count
from typing import Any

Entry = tuple[str, dict[str, Any]]
"""The event's name and its payload."""

_REPOSITORIES = ("hello-world", "hello-mobile", "octo-docs", "octo-site", "octo-kit", "octo-infra")
_PEOPLE = ("octocat", "monalisa", "hubot")
_ORGANIZATION = {"login": "octo-org", "id": 9919}
_INSTALLATION = {"id": 4711}


def interleaved(rng: random.Random, *, at_once: int = 16) -> Iterator[Entry]:
    """An endless stream of deliveries: *at_once* stories go on at a time, each in its own order."""
    fresh = _stories(rng)
    stories = [next(fresh) for _ in range(at_once)]
    while True:
        place = rng.randrange(at_once)
        entry = next(stories[place], None)
        if entry is None:
            stories[place] = next(fresh)
        else:
            yield entry


def _stories(rng: random.Random) -> Iterator[Iterator[Entry]]:
    numbers = count(1)
    kinds = (_pull_request, _pull_request, _pull_request, _pull_request, _issue, _issue, _branch, _account)
    while True:
        name = rng.choice(_REPOSITORIES)
        about = {
            "repository": {"id": 1000 + _REPOSITORIES.index(name), "full_name": f"octo-org/{name}"},
            "organization": _ORGANIZATION,
            "installation": _INSTALLATION,
            "sender": {"login": rng.choice(_PEOPLE)},
        }
        yield rng.choice(kinds)(next(numbers), about)


def _pull_request(number: int, about: dict[str, Any]) -> Iterator[Entry]:
    sha = f"{number:040x}"
    user = about["sender"]
    pull = {"number": number, "title": f"Say hello in language {number} 👋", "user": user, "draft": False}
    check = {
        "id": 5000 + number,
        "name": "tests",
        "head_sha": sha,
        "pull_requests": [{"number": number, "base": {"repo": {"id": about["repository"]["id"]}}}],
    }
    event = {"number": number, "pull_request": pull, **about}
    yield "pull_request", {"action": "opened", **event}
    yield "pull_request", {"action": "labeled", "label": {"name": "greeting"}, **event}
    yield (
        "check_run",
        {"action": "created", "check_run": {**check, "status": "queued", "conclusion": None}, **about},
    )
    yield (
        "check_run",
        {
            "action": "completed",
            "check_run": {**check, "status": "completed", "conclusion": "failure"},
            **about,
        },
    )
    yield (
        "issue_comment",
        {
            "action": "created",
            "issue": {"number": number, "title": pull["title"], "pull_request": {"merged_at": None}},
            "comment": {"id": 7000 + number, "body": "/rerun tests", "user": user},
            **about,
        },
    )
    yield "pull_request", {"action": "synchronize", "before": "0" * 40, "after": sha, **event}
    yield (
        "pull_request_review",
        {
            "action": "submitted",
            "review": {"id": 8000 + number, "state": "approved", "user": {"login": "hubot"}},
            "pull_request": pull,
            **about,
        },
    )
    yield "pull_request", {"action": "closed", **event, "pull_request": {**pull, "merged": True}}


def _issue(number: int, about: dict[str, Any]) -> Iterator[Entry]:
    issue = {"number": number, "title": f"Greeting {number} is missing", "user": about["sender"]}
    comment = {"id": 7000 + number, "body": "Which language is that?", "user": {"login": "hubot"}}
    yield "issues", {"action": "opened", "issue": issue, **about}
    yield "issues", {"action": "assigned", "issue": issue, "assignee": about["sender"], **about}
    yield "issue_comment", {"action": "created", "issue": issue, "comment": comment, **about}
    yield "issues", {"action": "closed", "issue": {**issue, "state": "closed"}, **about}


def _branch(number: int, about: dict[str, Any]) -> Iterator[Entry]:
    ref = f"greeting-{number}"
    commits = [{"id": f"{number * 10 + i:040x}", "message": f"Greeting {number}, part {i}"} for i in range(3)]
    yield "create", {"ref": ref, "ref_type": "branch", "master_branch": "main", **about}
    yield "push", {"ref": f"refs/heads/{ref}", "forced": False, "commits": commits, **about}
    yield (
        "workflow_run",
        {
            "action": "completed",
            "workflow_run": {"id": 9000 + number, "head_branch": ref, "pull_requests": []},
            **about,
        },
    )
    yield "release", {"action": "published", "release": {"id": number, "tag_name": f"v1.{number}"}, **about}


def _account(number: int, about: dict[str, Any]) -> Iterator[Entry]:
    """What belongs to no repository: an organization, an installation, a person, and nobody."""
    person = {"sender": about["sender"]}
    installation = {"installation": {**_INSTALLATION, "account": _ORGANIZATION}, **person}
    yield "membership", {"action": "added", "scope": "team", "organization": _ORGANIZATION, **person}
    yield (
        "installation_repositories",
        {"action": "added", "repositories_added": [about["repository"]], **installation},
    )
    yield "github_app_authorization", {"action": "revoked", **person}
    yield "ping", {"zen": "Anything added dilutes everything else.", "hook_id": 100 + number}
