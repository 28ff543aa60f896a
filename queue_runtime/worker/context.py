"""What every run of a worker works with: the handler under its policy, its judgements, the executor."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from queue_runtime.clock import instant
from queue_runtime.current import handling
from queue_runtime.errors import Closed
from queue_runtime.events import (
    HandlerFailed,
    MessageBlocked,
    ProcessingPaused,
    ProcessingResumed,
)
from queue_runtime.history import Ended, History
from queue_runtime.message import DeadLetterInfo, ReceivedMessage
from queue_runtime.provider import Abandon, Capabilities, Complete, DeadLetter, Settlement
from queue_runtime.runtime import Runtime
from queue_runtime.scheduler import Timer
from queue_runtime.settling import dead_letter_info
from queue_runtime.worker.handling import PlainHandler, Reject, Retry
from queue_runtime.worker.in_hand import InHand, Run
from queue_runtime.worker.options import Turn
from queue_runtime.worker.policy import HandlerPolicy
from queue_runtime.worker.time_limit import TimeLimit
from queue_runtime.worker.verdict import (
    Done,
    Drop,
    GiveBack,
    GiveUp,
    RetryIn,
    Verdict,
    before_handler,
    instead_of_dead_lettering,
    is_trouble,
    text_of,
    verdict,
)

log = logging.getLogger("queue_runtime")


A_MOMENT = 0.001
"""Seconds by which a probe is late, or rounding might make it early, and its end would not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """How a message is held while it is judged."""

    since: float
    """Its first attempt in this hold, on the monotonic scale."""
    in_place: bool
    """Others wait behind it, in its session."""
    down: int = 0
    """How often in a row it ended because something was down."""


@dataclass(frozen=True)
class Context:
    """Shared by the runs of one worker."""

    runtime: Runtime
    queue: str
    enter: PlainHandler
    policy: HandlerPolicy
    turn: Turn
    capabilities: Capabilities
    in_hand: InHand

    @cached_property
    def target(self) -> str:
        return self.runtime.target(self.queue)

    @cached_property
    def history(self) -> History:
        return self.runtime.history(self.target)

    def judge(self, run: Run, message: ReceivedMessage, hold: Hold, refused: GiveUp | None = None) -> Verdict:
        """Enter the handler with *message*, unless it is *refused* or must not be, and say what its end
        means."""
        key = message.delivery.broker_id
        if refused is None or self.policy.on_exhausted == "block":
            message.attempt = self.history.next_attempt(key)
            excused = self.history.excused(key)
            refused = before_handler(message.delivery, message.attempt, excused, self.policy)
            if refused is not None:
                message.attempt -= 1  # those that were entered
        if refused is not None:
            return self._instead(message, refused, hold)
        started = self.runtime.clock.monotonic()
        error, overran = self._enter(run, message)
        decision = verdict(
            error,
            message.attempt,
            self.policy,
            held=self.runtime.clock.monotonic() - hold.since,
            in_place=hold.in_place,
            down=hold.down,
            random=random.random,
        )
        given_back = message.settled_as == "abandoned"
        uncounted = isinstance(decision, RetryIn | GiveBack) and not decision.counted
        if given_back or (error is not None and not uncounted):
            self.history.tried(key, message.attempt)
        trouble = True if overran else is_trouble(error, self.policy)
        if trouble is not None:
            self._note_end(run, error, trouble=trouble, started=started)
        elif isinstance(error, Retry) and self.in_hand.asks_for_later(run):
            run.stop()  # or it would stand in the way of the next probe
        if isinstance(decision, RetryIn):
            decision = self._not_before_probe_is_due(run, decision)
        if isinstance(decision, GiveUp):
            decision = self._instead(message, decision, hold)
        if given_back:
            decision = RetryIn(0.0)  # by the handler itself, with a delay of its own: it comes again
        elif message.settled_as is not None:
            decision = Done()  # the handler has settled it by itself, and failed after that: it is gone
        if error is not None:
            with handling(message):  # what is logged of it bears its name
                self._tell_failed(message, error, decision)
        return decision

    def settlement(self, message: ReceivedMessage, decision: Verdict) -> Settlement:
        """What is asked of the broker. That the handler is done with the message is remembered until the
        broker has agreed, if the message was ours to its end."""
        match decision:
            case RetryIn(delay=delay) | GiveBack(delay=delay):
                return Abandon(message.delivery, delay)
            case GiveUp() as end:
                info = _info(message, end)
                self._remember(message, Ended(info))
                return DeadLetter(message.delivery, info)
            case Drop(instead_of=end):
                self._remember(message, Ended(_info(message, end), dropped=True))
                return Complete(message.delivery)
            case Done():
                self._remember(message, Ended(None))
                return Complete(message.delivery)

    def settlement_again(self, message: ReceivedMessage) -> tuple[Settlement, Drop | None] | None:
        """What is asked of the broker for a message that the handler is done with already, and whether that
        drops it; None for others."""
        ended = self.history.ended(message.delivery.broker_id)
        if ended is None:
            return None
        message.attempt = max(1, self.history.next_attempt(message.delivery.broker_id) - 1)
        info = ended.info
        if info is None:
            return Complete(message.delivery), None
        if ended.dropped:
            return Complete(message.delivery), Drop(GiveUp(reason=info.reason, description=info.description))
        return DeadLetter(message.delivery, info), None

    def later(
        self, run: Run, delay: float, action: Callable[[], None], lane: str | None = None
    ) -> Timer | None:
        """Go on with *run* by *action* in *delay* seconds, as `submit` does; None if the client is closed."""
        with suppress(Closed):
            return self.runtime.scheduler.call_later(delay, lambda: self.submit(run, action, lane))
        return None

    def submit(self, run: Run, action: Callable[[], None], lane: str | None = None) -> None:
        """Go on with *run* by *action*, on the executor; after the others of *lane* if one is given.

        There is a thread for it, as the worker has claimed one for each run that is in the handler, and as
        many for those that are on their way in or out.
        """

        def act() -> None:
            try:
                action()
            except BaseException:  # nobody reads the future, and the run's permit and session must come back
                log.exception("a run of the worker on %r failed", self.queue)
                run.abort()

        with suppress(Closed):  # the client was closed: leases end by themselves
            if lane is None:
                self.runtime.executor.submit(act)
            else:
                self.runtime.executor.submit_in(self._lane(lane), act)

    def is_busy(self, lane: str) -> bool:
        """What is submitted with this *lane* now has to wait, here or for another worker of the client."""
        return self.runtime.executor.is_busy(self._lane(lane))

    def _lane(self, lane: str) -> Hashable:
        return self.runtime, self.target, lane

    def _enter(self, run: Run, message: ReceivedMessage) -> tuple[BaseException | None, bool]:
        """What the handler raised, if it did, and whether it ran for too long."""
        self.in_hand.enter(message.session_id, lag=self._age(message))
        error: BaseException | None = None
        limit = TimeLimit(
            self.runtime, self.policy.time_limit, message, exceeded=lambda: self.in_hand.leave_lane(run)
        )
        try:
            with limit:
                self.enter(message)
        except BaseException as exc:  # whatever ends a handler, its message and its session must live on
            error = exc
        finally:
            self.in_hand.exit()
        return error, limit.exceeded

    def _age(self, message: ReceivedMessage) -> float | None:
        sent_at = message.enqueued_at
        return None if sent_at is None else max(0.0, (self.runtime.clock.now() - sent_at).total_seconds())

    def _remember(self, message: ReceivedMessage, ended: Ended) -> None:
        if not message.lease.lost:  # else the handler may have been told, and have left it to its successor
            self.history.end(message.delivery.broker_id, ended)

    def _note_end(self, run: Run, error: BaseException | None, *, trouble: bool, started: float) -> None:
        why = "a handler ran for too long" if error is None else f"{type(error).__name__}: {text_of(error)}"
        change = self.in_hand.handled(run, trouble=trouble, why=why, started=started)
        if change == "paused":
            self._pause(run, why)
        elif change == "resumed":
            self.runtime.events(ProcessingResumed(queue=self.queue))

    def _pause(self, probe: Run, why: str) -> None:
        """Let go of all but *probe*; whatever waits for messages is called off."""
        retry_at = self.in_hand.probe_due(probe) or self.runtime.clock.monotonic()
        self.runtime.events(
            ProcessingPaused(queue=self.queue, text=why, retry_at=instant(self.runtime.clock, retry_at))
        )
        self.runtime.provider.wake(self.target)  # or our own poll might take what goes back now
        for run in self.in_hand.runs():
            if run is not probe:
                run.stop()
        self.runtime.stop_waiting(self.target)

    def probe_waits(self, run: Run) -> float:
        """Seconds until *run* may be tried, if it is the probe; else 0."""
        due = self.in_hand.probe_due(run)
        left = 0.0 if due is None else due - self.runtime.clock.monotonic()
        return left + A_MOMENT if left > 0 else 0.0

    def _not_before_probe_is_due(self, run: Run, decision: RetryIn) -> RetryIn:
        return RetryIn(max(decision.delay, self.probe_waits(run)), counted=decision.counted)

    def _instead(self, message: ReceivedMessage, end: GiveUp, hold: Hold) -> Verdict:
        held = self.runtime.clock.monotonic() - hold.since
        decision = instead_of_dead_lettering(end, self.policy, held=held, in_place=hold.in_place)
        if isinstance(decision, RetryIn | GiveBack):
            self.runtime.events(
                MessageBlocked(
                    queue=self.queue,
                    message_id=message.id,
                    session_id=message.session_id,
                    reason=end.reason,
                    delay=decision.delay,
                )
            )
        return decision

    def _tell_failed(self, message: ReceivedMessage, error: BaseException, decision: Verdict) -> None:
        again = decision if isinstance(decision, RetryIn | GiveBack) else None
        self.runtime.events(
            HandlerFailed(
                queue=self.queue,
                message_id=message.id,
                session_id=message.session_id,
                attempt=message.attempt,
                error=type(error).__name__,
                text=text_of(error),
                delay=None if again is None else again.delay,
                counted=again is None or again.counted,
                # What a handler asks for is no failure to trace.
                exception=None if isinstance(error, Retry | Reject) else error,
            )
        )


def _info(message: ReceivedMessage, end: GiveUp) -> DeadLetterInfo:
    return dead_letter_info(
        message,
        reason=end.reason,
        description=end.description,
        exception=end.exception,
        traceback=end.traceback,
    )
