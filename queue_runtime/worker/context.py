"""What every run of a worker works with: the handler under its policy, settlements, events."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from queue_runtime.errors import Closed, Outcome, OutcomeUnknown, QueueError
from queue_runtime.events import HandlerFailed, MessageCompleted, MessageDeadLettered, SettlementFailed
from queue_runtime.message import ReceivedMessage
from queue_runtime.provider import Abandon, Capabilities, Complete, DeadLetter, Settlement
from queue_runtime.retry import backoff
from queue_runtime.runtime import Runtime
from queue_runtime.scheduler import Timer
from queue_runtime.settling import dead_letter_info
from queue_runtime.worker.attempts import Attempts
from queue_runtime.worker.handling import PlainHandler, Reject, Retry
from queue_runtime.worker.in_hand import InHand, Run
from queue_runtime.worker.verdict import (
    Done,
    GiveUp,
    HandlerPolicy,
    RetryIn,
    Verdict,
    before_handler,
    text_of,
    verdict,
)

log = logging.getLogger("queue_runtime")

SettleOnce = Callable[[Sequence[ReceivedMessage], Sequence[Settlement]], Sequence[Outcome[None]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """How long a session is kept: `idle` seconds without a message, and `longest` seconds or `most` messages
    in all if its place is wanted."""

    idle: float
    longest: float
    most: int | None


@dataclass(frozen=True, slots=True)
class Context:
    """Shared by the runs of one worker."""

    runtime: Runtime
    queue: str
    enter: PlainHandler
    policy: HandlerPolicy
    turn: Turn
    capabilities: Capabilities
    in_hand: InHand
    attempts: Attempts

    @property
    def target(self) -> str:
        return self.runtime.target(self.queue)

    def judge(self, message: ReceivedMessage, *, since: float | None) -> Verdict:
        """Enter the handler with *message*, unless it must not be, and say what its end means.

        *since* is the moment of its first attempt, for one that is retried in its place; else None.
        """
        refused = before_handler(message.delivery, self.policy)
        if refused is not None:
            return refused
        self.in_hand.handler(entered=True)
        error: BaseException | None = None
        try:
            self.enter(message)
        except BaseException as exc:  # whatever ends a handler, its message and its session must live on
            error = exc
        finally:
            self.in_hand.handler(entered=False)
        held = None if since is None else self.runtime.clock.monotonic() - since
        decision = verdict(error, message.attempt, self.policy, held=held, random=random.random)
        if error is not None:
            self._tell_failed(message, error, decision)
        return decision

    def settlement(self, message: ReceivedMessage, decision: Verdict) -> Settlement:
        match decision:
            case RetryIn(delay=delay):
                return Abandon(message.delivery, delay)
            case GiveUp() as end:
                info = dead_letter_info(
                    message,
                    reason=end.reason,
                    description=end.description,
                    exception=end.exception,
                    traceback=end.traceback,
                )
                return DeadLetter(message.delivery, info)
            case Done():
                return Complete(message.delivery)

    def settle(
        self,
        run: Run,
        message: ReceivedMessage,
        settlement: Settlement,
        call: SettleOnce,
        then: Callable[[QueueError | None], None],
        *,
        attempt: int = 1,
        unknown: OutcomeUnknown | None = None,
    ) -> None:
        """Settle, again and again until the lease ends if that may help; then call *then*, once.

        No thread sleeps in between: the next try is on the scheduler. What was *unknown* once stays so unless
        a later try goes well: that those fail says nothing of it.
        """
        error = self._settle_once(message, settlement, call)
        if isinstance(error, OutcomeUnknown):
            unknown = error
        if error is not None and error.retryable and not message.lease.lost:
            delay = backoff(attempt, base=0.1, cap=2.0, floor=0.05, random=random.random)
            again = min(delay, message.lease.remaining())
            go_on = partial(
                self.settle, run, message, settlement, call, then, attempt=attempt + 1, unknown=unknown
            )
            self.later(run, again, go_on)
            return
        then(unknown if error is not None and unknown is not None else error)

    def _settle_once(
        self, message: ReceivedMessage, settlement: Settlement, call: SettleOnce
    ) -> QueueError | None:
        if message.settled_as is not None:
            return None  # the handler has done it itself
        try:
            message.lease.check()
            return call([message], [settlement])[0].error
        except QueueError as exc:
            return exc

    def settled(self, message: ReceivedMessage, settlement: Settlement, started: float) -> None:
        """The broker has agreed: count it and tell."""
        match settlement:
            case Complete():
                self.in_hand.count("completed")
                self.runtime.events(
                    MessageCompleted(
                        queue=self.queue,
                        message_id=message.id,
                        session_id=message.session_id,
                        attempt=message.attempt,
                        seconds=self.runtime.clock.monotonic() - started,
                    )
                )
            case DeadLetter(info=info):
                self.in_hand.count("dead_lettered")
                self.runtime.events(
                    MessageDeadLettered(
                        queue=self.queue,
                        message_id=message.id,
                        session_id=message.session_id,
                        reason=info.reason,
                        attempts=info.attempts,
                    )
                )
            case Abandon():
                self.in_hand.count("retried")

    def not_settled(self, message: ReceivedMessage, error: QueueError) -> None:
        """It is given up here: the broker delivers it again."""
        self.in_hand.count("unknown" if isinstance(error, OutcomeUnknown) else "lost")
        self.runtime.events(
            SettlementFailed(
                queue=self.queue,
                message_id=message.id,
                session_id=message.session_id,
                error=type(error).__name__,
                text=str(error),
            )
        )

    def later(
        self, run: Run, delay: float, action: Callable[[], None], lane: str | None = None
    ) -> Timer | None:
        """Go on with *run* by *action* in *delay* seconds, as `submit` does; None if the client is closed."""
        with suppress(Closed):
            return self.runtime.scheduler.call_later(delay, lambda: self.submit(run, action, lane))
        return None

    def submit(self, run: Run, action: Callable[[], None], lane: str | None = None) -> None:
        """Go on with *run* by *action*, on the executor; after the others of *lane* if one is given.

        There is a thread for it: a run holds a permit, and the worker has claimed a thread for each.
        """

        def act() -> None:
            try:
                action()
            except Exception:  # nobody reads the future, and the run's permit and session must come back
                log.exception("a run of the worker on %r failed", self.queue)
                run.abort()

        with suppress(Closed):  # the client was closed: leases end by themselves
            if lane is None:
                self.runtime.executor.submit(act)
            else:
                self.runtime.executor.submit_in((self.queue, lane), act)

    def _tell_failed(self, message: ReceivedMessage, error: BaseException, decision: Verdict) -> None:
        self.runtime.events(
            HandlerFailed(
                queue=self.queue,
                message_id=message.id,
                session_id=message.session_id,
                attempt=message.attempt,
                error=type(error).__name__,
                text=text_of(error),
                delay=decision.delay if isinstance(decision, RetryIn) else None,
                # What a handler asks for is no failure to trace.
                exception=None if isinstance(error, Retry | Reject) else error,
            )
        )
