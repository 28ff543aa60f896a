"""Takes GitHub's webhooks: a Flask view that verifies a delivery and puts it on a queue.

    QUEUE_RUNTIME_URL=sqs://eu-west-1?queue.events=github-events.fifo \\
    GITHUB_WEBHOOK_SECRET=... waitress-serve --call app:create_app

Which broker it is, and what its queue is called there, is the URL's business alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from flask import Flask, request
from flask.typing import ResponseReturnValue

from queue_runtime import QueueClient, connect, github
from queue_runtime.errors import InvalidMessage, MessageTooLarge, QueueError

QUEUE = "events"


def create_app(client: QueueClient | None = None, secret: str | Sequence[str] | None = None) -> Flask:
    """Return the app; what is not given comes from the environment."""
    app = Flask(__name__)
    # Refuses a larger body by its Content-Length, before it is read.
    app.config["MAX_CONTENT_LENGTH"] = github.MAX_BODY
    broker = client or connect()
    # Two secrets, with a comma between them, while the old one is being replaced.
    known = secret or os.environ["GITHUB_WEBHOOK_SECRET"].split(",")
    for each in [known] if isinstance(known, str) else known:
        github.sign(b"", each)  # an empty one is refused now, not at the first delivery

    @app.post("/webhook")
    def webhook() -> ResponseReturnValue:
        message = github.message(request.headers, request.get_data(), secret=known)
        broker.send(QUEUE, message)
        return {"queued": message.id, "session": message.session_id}, 202

    @app.get("/healthz")
    def alive() -> ResponseReturnValue:
        return {"status": "ok"}

    @app.get("/readyz")
    def ready() -> ResponseReturnValue:
        return {"status": "ok", "waiting": broker.describe(QUEUE).active}

    @app.errorhandler(github.WebhookError)
    def refused(error: github.WebhookError) -> ResponseReturnValue:
        app.logger.warning("refused a delivery: %s", error)
        return {"error": str(error)}, error.status

    @app.errorhandler(InvalidMessage)
    def impossible(error: InvalidMessage) -> ResponseReturnValue:
        app.logger.error("cannot queue a delivery: %s", error)
        return {"error": str(error)}, 413 if isinstance(error, MessageTooLarge) else 422

    @app.errorhandler(QueueError)
    def unavailable(error: QueueError) -> ResponseReturnValue:
        # GitHub notes the failure and lists the delivery for redelivery: nothing is lost by saying so.
        # https://docs.github.com/en/webhooks/using-webhooks/handling-failed-webhook-deliveries
        app.logger.error("the queue took no delivery: %s: %s", type(error).__name__, error)
        return {"error": "the queue is not available"}, 503, {"Retry-After": "10"}

    return app
