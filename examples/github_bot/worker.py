"""Handles GitHub's webhooks: a plain script with one typed handler for each event that it cares about.

    QUEUE_RUNTIME_URL=sqs://eu-west-1?queue.events=github-events.fifo python worker.py

Deliveries about one pull request come one at a time and in order; those about different ones at once.
A handler that raises is tried again in its place, and ends in the dead-letter queue if it keeps failing.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from payloads import CheckRunEvent, CommentEvent, IssueEvent, PullRequestEvent, PushEvent, ReviewEvent

from queue_runtime import HandlerPolicy, QueueClient, ReceivedMessage, StopReport, Worker, connect
from queue_runtime.events import Listener

QUEUE = "events"
MAX_ATTEMPTS = 5
POLL = 5.0
"""Seconds of one question to an idle queue: few requests, and a quick restart."""

Handler = Callable[[ReceivedMessage], None]
T = TypeVar("T")

log = logging.getLogger("github_bot")


def on_pull_request(event: PullRequestEvent, message: ReceivedMessage) -> None:
    if event.action == "opened":
        log.info("%s#%d: welcome, %s", event.repository.full_name, event.number, event.sender.login)


def on_review(event: ReviewEvent, message: ReceivedMessage) -> None:
    if event.review.state == "approved":
        log.info("%s#%d: ready to merge", event.repository.full_name, event.pull_request.number)


def on_issue(event: IssueEvent, message: ReceivedMessage) -> None:
    log.info("%s#%d: %s", event.repository.full_name, event.issue.number, event.action)


def on_comment(event: CommentEvent, message: ReceivedMessage) -> None:
    if event.comment.body.startswith("/"):
        command, *_ = event.comment.body.split()
        log.info("%s#%d: %s asks for %s", event.repository.full_name, event.issue.number,
                 event.comment.user.login, command)  # fmt: skip


def on_check_run(event: CheckRunEvent, message: ReceivedMessage) -> None:
    if event.check_run.conclusion == "failure":
        log.info("%s: %s failed", message.session_id, event.check_run.name)


def on_push(event: PushEvent, message: ReceivedMessage) -> None:
    log.info("%s: %d commits on %s", event.repository.full_name, len(event.commits), event.ref)


def typed(payload_type: type[T], handler: Callable[[T, ReceivedMessage], None]) -> Handler:
    """A handler of messages from a handler of payloads; a payload that lacks a field is a `DecodeError`."""

    def handle_payload(message: ReceivedMessage) -> None:
        handler(message.payload(payload_type), message)

    return handle_payload


HANDLERS: dict[str, Handler] = {
    "pull_request": typed(PullRequestEvent, on_pull_request),
    "pull_request_review": typed(ReviewEvent, on_review),
    "issues": typed(IssueEvent, on_issue),
    "issue_comment": typed(CommentEvent, on_comment),
    "check_run": typed(CheckRunEvent, on_check_run),
    "push": typed(PushEvent, on_push),
}


def handle(message: ReceivedMessage) -> None:
    """Give *message* to the handler of its event; one that nobody cares about is done."""
    handler = HANDLERS.get(message.attributes.get("github.event", ""))
    if handler is not None:
        handler(message)


def make_worker(client: QueueClient, handler: Handler = handle) -> Worker:
    """The worker of this bot: five tries within a few seconds, sixteen sessions at once."""
    policy = HandlerPolicy(max_attempts=MAX_ATTEMPTS, base=0.2, cap=5.0)
    return Worker(client, QUEUE, handler, concurrency=16, policy=policy, poll=POLL)


def run(handler: Handler = handle, listeners: Sequence[Listener] = ()) -> StopReport:
    """Work until SIGTERM or Ctrl-C; what is under way then is finished."""
    with connect(listeners=listeners) as client:
        return make_worker(client, handler).run()


def log_to(**target: Any) -> None:
    """Have the bot and the library log from INFO on, and others, SDKs too, what is worth a warning. *target*:
    ``stream=`` or ``filename=``."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", **target)
    for name in (log.name, "queue_runtime"):
        logging.getLogger(name).setLevel(logging.INFO)


if __name__ == "__main__":
    log_to(stream=sys.stdout)
    print(run())
