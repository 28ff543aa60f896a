"""Which session a message belongs to: functions from a message to a session id, or None.

connect(url, strategy="composite:tenant,order")                        # as text, in code or configuration
connect(url, strategy=composite("tenant", payload("order.id")))        # the same, and more, in code
connect(url, strategy=lambda message: message.attributes.get("room"))  # any function
"""

from queue_runtime.strategies.base import SessionStrategy, no_session, on_clock
from queue_runtime.strategies.combining import PERIODS
from queue_runtime.strategies.parsing import (
    as_strategy,
    attribute,
    by_time,
    composite,
    field,
    first,
    parse,
    payload,
)

__all__ = [
    "PERIODS",
    "SessionStrategy",
    "as_strategy",
    "attribute",
    "by_time",
    "composite",
    "field",
    "first",
    "no_session",
    "on_clock",
    "parse",
    "payload",
]
