"""A `LeaseRenewer` with all that it needs, on a clock that stands still, and the brokers that it asks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from queue_runtime.errors import Outcome, QueueError
from queue_runtime.events import Event, Events, LostLease
from queue_runtime.executor import SessionExecutor
from queue_runtime.leases import Held, LeaseRenewer
from queue_runtime.message import Delivery, Lease, Message
from queue_runtime.scheduler import Scheduler
from queue_runtime.testing import FakeClock
from tests.fakes import REAL, let_pass


class Broker:
    """A lane whose answers a test chooses: renewed by default."""

    def __init__(self, key: Hashable, clock: FakeClock, length: float = 30.0) -> None:
        self.key = key
        self.length = length
        self.answer: Callable[[Held], Outcome[float]] = self.yes
        self.before: Callable[[], None] = lambda: None
        self.calls: list[tuple[float, list[str]]] = []
        """When, in seconds since the start, and the ids in the call."""
        self._clock = clock
        self._start = clock.monotonic()

    def renew(self, held: Sequence[Held]) -> Sequence[Outcome[float]]:
        ids = sorted(one.delivery.message.id if one.delivery else str(one.session_id) for one in held)
        self.calls.append((self._clock.monotonic() - self._start, ids))
        self.before()
        return [self.answer(one) for one in held]

    def yes(self, held: Held) -> Outcome[float]:
        return Outcome(self._clock.monotonic() + self.length)

    def says(self, error: type[QueueError]) -> None:
        self.answer = lambda held: Outcome(error=error(f"no: {error.__name__}"))

    def times(self) -> list[float]:
        return [when for when, _ in self.calls]


class Hang:
    """Calls that come here do not go on before the end of its `with` block."""

    def __init__(self, broker: Broker) -> None:
        broker.before = self._wait
        self._reached = threading.Event()
        self._over = threading.Event()

    def _wait(self) -> None:
        self._reached.set()
        assert self._over.wait(REAL), "the hanging call was forgotten"

    def wait_until_reached(self) -> None:
        assert self._reached.wait(REAL), "no call has come"

    def __enter__(self) -> Hang:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()


@dataclass
class House:
    """A renewer with all that it needs, on a clock that stands still."""

    max_lease: float = 12 * 3600.0
    clock: FakeClock = field(default_factory=FakeClock)
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self.clock)
        self.pool = SessionExecutor(8, name="renewals", clock=self.clock)
        self.renewer = LeaseRenewer(
            self.clock, self.scheduler, self.pool, Events([self.events.append]), max_lease=self.max_lease
        )
        self._brokers: list[Broker] = []

    def broker(self, key: Hashable = "jobs", length: float = 30.0) -> Broker:
        made = Broker(key, self.clock, length)
        self._brokers.append(made)
        return made

    def hold(self, broker: Broker, name: str = "m", *, length: float = 30.0, session: bool = False) -> Lease:
        until = self.clock.monotonic() + length
        lease = Lease(self.clock, until=until, length=length, what=name, session=session)
        delivery = None if session else a_delivery(name, until, length)
        self.renewer.watch(
            Held(
                lease=lease,
                lane=broker,
                queue="jobs",
                delivery=delivery,
                session_id=name if session else None,
            )
        )
        return lease

    def let_pass(self, seconds: float, *, without: Broker | None = None) -> None:
        """Let time pass; what is due on the way is done, except by the lane of *without*, which is stuck."""
        let_pass(
            self.clock,
            seconds,
            pool=self.pool,
            lanes=[broker.key for broker in self._brokers if broker is not without],
            progress=lambda: sum(len(broker.calls) for broker in self._brokers),
        )

    def losses(self) -> list[str | None]:
        """Ids of what was told to be lost."""
        told = [event for event in self.events if isinstance(event, LostLease)]
        return [event.message_id or event.session_id for event in told]

    def close(self) -> None:
        self.scheduler.close()
        self.pool.shutdown(cancel_futures=True, deadline=REAL)


def a_delivery(name: str, until: float, length: float) -> Delivery:
    return Delivery(
        message=Message(body=b"", id=name),
        receipt=name,
        broker_id=name,
        delivery_count=1,
        sequence=1,
        enqueued_at=None,
        leased_until=until,
        lease=length,
    )
