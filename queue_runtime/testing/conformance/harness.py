"""What the kit must be told about a provider: how to make a queue, to connect, and to let time pass."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from queue_runtime import QueueClient
from queue_runtime.clock import Clock, SystemClock, sleep
from queue_runtime.events import Listener
from queue_runtime.testing.clock import PATIENCE, FakeClock
from queue_runtime.testing.conformance.resting import all_rest


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpec:
    """The queue that a row asks for. What a provider does not have is left out, not imitated: the row looks
    at the queue's `Capabilities` and its description, and skips."""

    sessions: bool = False
    lease: float = 30.0
    """Seconds that a hold lasts if nothing else is asked for."""
    dead_letters: bool = True
    max_receives: int | None = None
    """Deliveries after which the broker itself moves a message to the dead letters; None: so many that no
    row gets there."""
    dead_letter_expired: bool = False
    """What has outlived its time-to-live goes to the dead letters: by a setting of the queue where the broker
    sees to that (`Capabilities.native_expiry`), else by the settings of the clients that are connected from
    now on. If not, it is dropped."""


class Time(Protocol):
    """How time passes for the clients of a harness."""

    @property
    def clock(self) -> Clock:
        """What the clients go by."""

    def sleep(self, seconds: float) -> None:
        """Let so many seconds pass."""

    def join(self, threads: Sequence[threading.Thread], seconds: float) -> None:
        """Let time pass until *threads* have ended, at most so many seconds."""


class RealTime:
    """Time passes by itself: for brokers behind a socket."""

    def __init__(self) -> None:
        self.clock: Clock = SystemClock()

    def sleep(self, seconds: float) -> None:
        sleep(self.clock, seconds)

    def join(self, threads: Sequence[threading.Thread], seconds: float) -> None:
        deadline = self.clock.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, deadline - self.clock.monotonic()))


class FakeTime:
    """Time is moved, on a `FakeClock` that the clients were given: for brokers in this process."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock: Clock = clock
        self._fake = clock
        self._real = SystemClock()

    def sleep(self, seconds: float) -> None:
        self._fake.advance(seconds)

    def join(self, threads: Sequence[threading.Thread], seconds: float) -> None:
        deadline = self._fake.monotonic() + seconds
        give_up_at = self._real.monotonic() + PATIENCE
        while running := [thread for thread in threads if thread.is_alive()]:
            if all_rest() and self._fake.is_parked(*running):
                left = deadline - self._fake.monotonic()
                if left <= 0:
                    return
                self._fake.advance(self._step(left))
                give_up_at = self._real.monotonic() + PATIENCE
            elif self._real.monotonic() >= give_up_at:
                return
            else:
                running[0].join(0.001)

    def _step(self, left: float) -> float:
        """To the next deadline and no further: a wait that ends then must be seen to end then."""
        first = self._fake.next_deadline()
        return left if first is None else min(left, max(0.0, first - self._fake.monotonic()))


class Harness(Protocol):
    """One provider on one endpoint. A fixture named `harness` gives it to the rows."""

    @property
    def name(self) -> str:
        """Stands in the summary: ``sqs on ministack``."""

    @property
    def time(self) -> Time: ...

    @property
    def lease(self) -> float:
        """Seconds of a hold that rows let run out (they keep twice that): 1 where time is real, 5 at most."""

    @property
    def counts_lag(self) -> float:
        """Seconds by which the counts of `describe` may be late."""

    @property
    def look(self) -> float:
        """Seconds of receiving after which an empty answer is believed: 0 where a broker looks at all it has,
        1 on real SQS, whose short polls ask only some of its servers."""

    @property
    def opening(self) -> float:
        """Seconds by which a request may exceed its wait because it opens a connection, a link or a session
        for itself: 0 where a request is all there is."""

    @property
    def faults(self) -> Mapping[str, str]:
        """Rows that the endpoint itself gets wrong (a local imitation, say), by name, with what it does.

        A name is a test function's, with its ``[parameters]`` or without, for all of them. Such a row must
        fail: it is a strict xfail, and the summary tells the reason.
        """

    def make_queue(self, spec: QueueSpec) -> str:
        """Make an empty queue that nobody else uses; returns the name that the clients know it by."""

    def connect(self, *, listeners: Sequence[Listener] = (), **settings: Any) -> QueueClient:
        """A new client of the endpoint, made by `queue_runtime.connect`, on the clock of `time`.

        *settings* are fields of `ClientSettings` that a row wants otherwise::

            return connect(replace(parse_url(URL), **settings), listeners=listeners)
        """
