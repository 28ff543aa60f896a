"""One blocking API over Azure Service Bus, AWS SQS and memory; see `connect`."""

from queue_runtime.client import QueueClient, connect
from queue_runtime.config import ClientSettings, ProviderSettings
from queue_runtime.deadletter import DeadLetters
from queue_runtime.message import DeadLetterInfo, Lease, Message, MessageView, ReceivedMessage
from queue_runtime.session_client import SessionClient
from queue_runtime.worker import HandlerPolicy, Reject, Retry, StopReport, Worker, WorkerStatus

__all__ = [
    "ClientSettings",
    "DeadLetterInfo",
    "DeadLetters",
    "HandlerPolicy",
    "Lease",
    "Message",
    "MessageView",
    "ProviderSettings",
    "QueueClient",
    "ReceivedMessage",
    "Reject",
    "Retry",
    "SessionClient",
    "StopReport",
    "Worker",
    "WorkerStatus",
    "connect",
]
