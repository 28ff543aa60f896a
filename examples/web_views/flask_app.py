"""A Flask app that queues what is posted to it, and says 503 and when to come again while it cannot.

    QUEUE_RUNTIME_URL=sqs://eu-west-1?queue.events=orders.fifo \\
    gunicorn --worker-class gthread --threads 8 --workers 4 --preload 'flask_app:create_app()'
"""

from __future__ import annotations

import atexit
import logging
import math

from flask import Flask, request
from flask.typing import ResponseReturnValue

from queue_runtime import Message, QueueClient, connect
from queue_runtime.errors import InvalidMessage, QueueError

log = logging.getLogger(__name__)

QUEUE = "events"

RETRY_AFTER = 5
"""Seconds, where the error names no time."""


def create_app(client: QueueClient | None = None) -> Flask:
    """Return the app; without a *client* it makes one of what the environment says, and closes it at exit."""
    app = Flask(__name__)
    broker = client or connect()
    app.extensions["queue_runtime"] = broker
    if client is None:
        # Each process that the server forks runs this for itself; what was not used is closed at once.
        atexit.register(broker.close)

    @app.post("/events/<session>")
    def put(session: str) -> ResponseReturnValue:
        return {"id": broker.send(QUEUE, Message.of(request.get_json(), session_id=session))}, 202

    app.register_error_handler(InvalidMessage, refused)
    app.register_error_handler(QueueError, unavailable)
    return app


def refused(error: QueueError) -> ResponseReturnValue:
    """Sending the same again will not help."""
    return {"error": str(error)}, 422


def unavailable(error: QueueError) -> ResponseReturnValue:
    """Sending the same again may help, after as many seconds as the broker or the breaker says."""
    log.error("not queued: %s: %s", type(error).__name__, error)
    seconds = math.ceil(error.retry_after or RETRY_AFTER)
    return {"error": type(error).__name__}, 503, {"Retry-After": str(seconds)}
