"""Settings for gunicorn: one load of the app, threads, workers that are replaced now and then.

gunicorn --config gunicorn_conf.py 'flask_app:create_app()'
"""

from __future__ import annotations

import os
from typing import Any

preload_app = True
worker_class = "gthread"
workers = 2
threads = 8
max_requests = 10_000
max_requests_jitter = 1_000
graceful_timeout = 30  # longer than closing takes, which is 25 s at most


def worker_exit(server: Any, worker: Any) -> None:
    """Send what was submitted before the worker ends.

    `atexit` does the same; here it happens sooner, and what went wrong is in the server's log.
    """
    # gunicorn calls this in the parent too, for a worker that was gone already; the parent goes on.
    if worker.pid == os.getpid() and worker.booted:
        worker.wsgi.extensions["queue_runtime"].close()
