"""A Flask app that queues what is posted to it, and says 503 and when to come again while it cannot.

    QUEUE_RUNTIME_URL=sqs://eu-west-1?queue.events=orders.fifo \\
    gunicorn --worker-class gthread --threads 8 --workers 4 --preload 'flask_app:create_app()'
"""

from __future__ import annotations

import atexit
import math
from datetime import UTC, datetime

from flask import Flask, request
from flask.typing import ResponseReturnValue

from queue_runtime import Message, QueueClient, connect
from queue_runtime.errors import CircuitOpen, InvalidMessage, QueueError

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
    """Sending the same again may help: from `CircuitOpen.retry_at` on, if the breaker said so."""
    return {"error": type(error).__name__}, 503, {"Retry-After": str(retry_after(error, datetime.now(UTC)))}


def retry_after(error: QueueError, now: datetime) -> int:
    """Whole seconds, as the header has it."""
    if isinstance(error, CircuitOpen) and error.retry_at is not None:
        return max(1, math.ceil((error.retry_at - now).total_seconds()))
    return RETRY_AFTER
