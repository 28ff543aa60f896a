"""Remembers receives on FIFO queues whose answer was lost, so that the next one can ask for it again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from uuid import uuid4

from queue_runtime.clock import Clock

KEPT = 256
"""Lost receives kept in all; more than were ever under way at once on one machine."""

REPLAYABLE = 240.0
"""Seconds for which a lost receive is asked for again. SQS keeps its answer for five minutes.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html"""

Question = tuple[str, int, int]
"""Queue URL, most messages, seconds hidden: a replay asks the very same."""


class LostReceives:
    """ReceiveRequestAttemptIds of receives that were not answered. Any thread may call.

    Without a replay the messages of a lost answer, and their whole groups, stay hidden until their
    visibility ends. A replay sets that visibility anew, so its lease dates from the replay.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # guarded by _lock: attempt id -> what was asked, and when
        self._lost: OrderedDict[str, tuple[Question, float]] = OrderedDict()

    def attempt_id(self, question: Question) -> str:
        """Return the id of a lost receive that asked the same and is not too old, or a new one."""
        now = self._clock.monotonic()
        with self._lock:
            for attempt, (asked, at) in list(self._lost.items()):
                # Once the hiding is over the messages are everybody's again.
                if now - at >= min(REPLAYABLE, asked[2]):
                    del self._lost[attempt]
                elif asked == question:
                    del self._lost[attempt]
                    return attempt
        return uuid4().hex

    def note(self, attempt: str, question: Question, asked_at: float) -> None:
        """Remember that *attempt*, made at *asked_at*, was not answered."""
        with self._lock:
            self._lost[attempt] = (question, asked_at)
            if len(self._lost) > KEPT:
                self._lost.popitem(last=False)
