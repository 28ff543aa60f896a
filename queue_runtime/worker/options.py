"""What a worker is told besides its queue and its handler, validated."""

from __future__ import annotations

import math
from dataclasses import dataclass

from queue_runtime.errors import ConfigurationError
from queue_runtime.provider import Capabilities
from queue_runtime.retry import check_number, check_whole
from queue_runtime.worker.policy import HandlerPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """How long a session is kept: `idle` seconds without a message, and `longest` seconds or `most` messages
    in all if its place is wanted."""

    idle: float
    longest: float
    most: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """See `Worker`, where each is told."""

    concurrency: int
    prefetch: int
    policy: HandlerPolicy
    turn: Turn
    poll: float
    give_up_after: float | None

    def __post_init__(self) -> None:
        check_whole("concurrency", self.concurrency, least=1)
        check_whole("prefetch", self.prefetch, least=1)
        if self.prefetch < self.concurrency:
            raise ConfigurationError(
                f"prefetch={self.prefetch} is below concurrency={self.concurrency}: so many handlers could "
                "never run at once; raise it, or leave it out"
            )
        check_number("session_idle", self.turn.idle, least=0, unit="seconds")
        if self.turn.longest != math.inf:
            check_number("session_max_time", self.turn.longest, least=0, above=True, unit="seconds")
        if self.turn.most is not None:
            check_whole("session_max_messages", self.turn.most, least=1)
        check_number("poll", self.poll, least=0, above=True, unit="seconds")
        if self.give_up_after is not None:
            check_number("give_up_after", self.give_up_after, least=0, above=True, unit="seconds")
        if not isinstance(self.policy, HandlerPolicy):
            raise ConfigurationError(f"policy must be a HandlerPolicy(...), it is {self.policy!r}")

    def threads(self, capabilities: Capabilities) -> int:
        """Threads that a queue of these *capabilities* takes: one for each handler, and as many for messages
        on their way in and out. Sessions that the broker gives out may each wait for their next message."""
        if capabilities.sessions == "native":
            return self.prefetch
        return min(self.prefetch, 2 * self.concurrency)
