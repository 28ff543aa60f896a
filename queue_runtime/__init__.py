"""One blocking API over message queues: AWS SQS, and memory for tests and local runs.

    client = connect("sqs://eu-west-1")     # or memory://?queues=events:sessions, or connect()
    client.send("events", Message.of(payload, session_id="octo/repo#7"))
    Worker(client, "events", handler, payload=PayloadClass).run()

`QueueClient` sends, receives, settles, accepts sessions and looks after dead letters; `Worker` runs a
handler. The errors are in `queue_runtime.errors`, all of them `QueueError`s; what happens is told by the
records in `queue_runtime.events`; `queue_runtime.github` makes messages of webhooks; `queue_runtime.testing`
has a clock for tests and the conformance suite for providers.
"""

from queue_runtime import errors, events, github
from queue_runtime.batching import BatchPolicy
from queue_runtime.breaker import BreakerPolicy
from queue_runtime.client import QueueClient
from queue_runtime.config import ClientSettings, ProviderSettings, QueueOptions, load_settings, parse_url
from queue_runtime.connecting import connect
from queue_runtime.current import MessageLogFilter, current_message
from queue_runtime.deadletter import (
    DeadLetters,
    ExportReport,
    FailedLetter,
    FailedLine,
    ImportReport,
    PurgePlan,
    RemovalReport,
    ReplayReport,
)
from queue_runtime.errors import (
    BatchFailed,
    DecodeError,
    LeaseLost,
    Outcome,
    OutcomeUnknown,
    QueueError,
    SessionLeaseLost,
    SessionNotAvailable,
)
from queue_runtime.executor import SessionExecutor
from queue_runtime.message import (
    DeadLettered,
    DeadLetterInfo,
    Lease,
    Message,
    MessageView,
    ReceivedMessage,
)
from queue_runtime.provider import Capabilities, QueueDescription
from queue_runtime.retry import RetryPolicy
from queue_runtime.scheduled import ScheduledMessage
from queue_runtime.session_client import SessionClient
from queue_runtime.sns import SnsNotification
from queue_runtime.stats import ClientStats, OperationStats
from queue_runtime.strategies import SessionStrategy
from queue_runtime.worker import (
    HandlerPolicy,
    HealthServer,
    Hooks,
    Paused,
    Reject,
    Retry,
    StopReport,
    Worker,
    WorkerHealth,
    WorkerStatus,
)

__all__ = [
    "BatchFailed",
    "BatchPolicy",
    "BreakerPolicy",
    "Capabilities",
    "ClientSettings",
    "ClientStats",
    "DeadLetterInfo",
    "DeadLettered",
    "DeadLetters",
    "DecodeError",
    "ExportReport",
    "FailedLetter",
    "FailedLine",
    "HandlerPolicy",
    "HealthServer",
    "Hooks",
    "ImportReport",
    "Lease",
    "LeaseLost",
    "Message",
    "MessageLogFilter",
    "MessageView",
    "OperationStats",
    "Outcome",
    "OutcomeUnknown",
    "Paused",
    "ProviderSettings",
    "PurgePlan",
    "QueueClient",
    "QueueDescription",
    "QueueError",
    "QueueOptions",
    "ReceivedMessage",
    "Reject",
    "RemovalReport",
    "ReplayReport",
    "Retry",
    "RetryPolicy",
    "ScheduledMessage",
    "SessionClient",
    "SessionExecutor",
    "SessionLeaseLost",
    "SessionNotAvailable",
    "SessionStrategy",
    "SnsNotification",
    "StopReport",
    "Worker",
    "WorkerHealth",
    "WorkerStatus",
    "connect",
    "current_message",
    "errors",
    "events",
    "github",
    "load_settings",
    "parse_url",
]
