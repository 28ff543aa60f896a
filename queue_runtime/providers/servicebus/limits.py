"""What the service takes, with the page that says so.

https://learn.microsoft.com/azure/service-bus-messaging/service-bus-quotas unless another page is named.
"""

MAX_ID = 128
"""Characters of a message id, and of a session id."""

STANDARD_MESSAGE_SIZE = 256 * 1024
"""Bytes of a message in the standard tier: what is assumed where no link has told."""

MAX_BATCH = 100
"""Messages in one send. The service limits only the bytes; a transaction there takes a hundred, and what a
retry repeats should stay small."""

MAX_DELAY = 7 * 24 * 3600.0
"""Seconds. The service has no limit for a scheduled message; beyond a week a database is the better place."""

LONGEST_LIFE = 2**32 - 1
"""Milliseconds of a time-to-live that the field of AMQP for it can hold.
https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-messaging-v1.0-os.html#type-header"""

MAX_LOCK = 300.0
"""Seconds that a lock lasts, at most."""

MAX_DESCRIPTION = 4096
"""Characters of a dead letter's reason, and of its description.
https://learn.microsoft.com/azure/service-bus-messaging/service-bus-dead-letter-queues"""

DEAD_LETTERS = "/$deadletterqueue"
"""Behind a queue's path, in small letters: its dead-letter queue. The service does not mind the case."""
