"""The limits of SQS, each with the page that says so."""

from __future__ import annotations

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html
MAX_BATCH = 10
MAX_BATCH_SIZE = 1024 * 1024
"""Bytes, of all entries together and of one message; a queue may be set lower for one message."""

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
MAX_ATTRIBUTES = 10
MAX_DELAY = 900
MAX_LEASE = 12 * 3600
"""Seconds for which one receive hides a message, all prolongations included."""

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html
MAX_WAIT = 20
