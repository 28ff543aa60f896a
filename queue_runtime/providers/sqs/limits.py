"""The limits of SQS, each with the page that says so."""

from __future__ import annotations

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html
MAX_BATCH = 10
MAX_BATCH_SIZE = 1024 * 1024
"""Bytes, of all entries together and of one message; a queue may be set lower for one message."""

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
MAX_ATTRIBUTES = 10
MAX_DELAY = 900
"""Seconds for which SQS itself holds back a message."""
MAX_HOPPED_DELAY = 7 * 24 * 3600
"""Seconds that a message may be due ahead: beyond `MAX_DELAY` it is sent again every 15 minutes (see `hops`).
A week of that is some 670 times; what is due later belongs into a database."""
LEAST_RETENTION = 2 * MAX_DELAY
"""Seconds that a queue must keep its messages so that one that travels so is not lost on its way."""
MAX_LEASE = 12 * 3600
"""Seconds for which one receive hides a message, all prolongations included."""

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html
MAX_WAIT = 20
