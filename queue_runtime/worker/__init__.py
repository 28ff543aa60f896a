"""The worker: fetch, handle, finish, renew, each in a file; the rules of retrying are in `verdict`."""

from queue_runtime.worker.handling import Reject, Retry
from queue_runtime.worker.health import HealthServer
from queue_runtime.worker.hooks import Hooks
from queue_runtime.worker.policy import HandlerPolicy
from queue_runtime.worker.report import Paused, StopReport, WorkerHealth, WorkerStatus
from queue_runtime.worker.worker import Worker

__all__ = [
    "HandlerPolicy",
    "HealthServer",
    "Hooks",
    "Paused",
    "Reject",
    "Retry",
    "StopReport",
    "Worker",
    "WorkerHealth",
    "WorkerStatus",
]
