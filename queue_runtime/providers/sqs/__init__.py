"""The SQS provider: ``sqs://REGION``, standard and FIFO queues behind the contract."""

from queue_runtime.providers.sqs.client import AwsSqsClient, create

__all__ = ["AwsSqsClient", "create"]
