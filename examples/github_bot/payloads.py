"""The parts of GitHub's payloads that the bot reads; it ignores what else they have.

https://docs.github.com/en/webhooks/webhook-events-and-payloads
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class User:
    login: str


@dataclass(frozen=True)
class Repository:
    full_name: str


@dataclass(frozen=True)
class PullRequest:
    number: int
    title: str
    user: User


@dataclass(frozen=True)
class PullRequestEvent:
    action: str
    number: int
    pull_request: PullRequest
    repository: Repository
    sender: User


@dataclass(frozen=True)
class Review:
    state: str
    user: User


@dataclass(frozen=True)
class ReviewEvent:
    action: str
    review: Review
    pull_request: PullRequest
    repository: Repository


@dataclass(frozen=True)
class Issue:
    number: int
    title: str


@dataclass(frozen=True)
class IssueEvent:
    action: str
    issue: Issue
    repository: Repository
    sender: User


@dataclass(frozen=True)
class Comment:
    body: str
    user: User


@dataclass(frozen=True)
class CommentEvent:
    action: str
    comment: Comment
    issue: Issue
    repository: Repository


@dataclass(frozen=True)
class CheckRun:
    name: str
    status: str
    conclusion: str | None


@dataclass(frozen=True)
class CheckRunEvent:
    action: str
    check_run: CheckRun
    repository: Repository


@dataclass(frozen=True)
class Commit:
    id: str
    message: str


@dataclass(frozen=True)
class PushEvent:
    ref: str
    commits: list[Commit]
    repository: Repository
