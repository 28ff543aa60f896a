"""The worker: fetch, handle, finish, renew, each in a file; the rules of retrying are in `verdict`."""

from queue_runtime.worker.handling import Reject, Retry
from queue_runtime.worker.report import StopReport, WorkerStatus
from queue_runtime.worker.verdict import HandlerPolicy
from queue_runtime.worker.worker import Worker

__all__ = ["HandlerPolicy", "Reject", "Retry", "StopReport", "Worker", "WorkerStatus"]
