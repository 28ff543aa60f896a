"""A worker on memory under a clock that stands still, and a handler that notes what must not be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from queue_runtime import Message, QueueClient, ReceivedMessage, Reject, Retry
from queue_runtime.executor import SessionExecutor
from queue_runtime.message import Lease
from queue_runtime.testing import FakeClock
from tests.fakes import REAL

ATTEMPTS = 3


class Down(Exception):
    """Something that the handler needs is not there."""


class Bad(Exception):
    """The message can never be handled."""


ERRORS: dict[str, Callable[[], Exception]] = {
    "raise": lambda: ValueError("scripted"),
    "retry": lambda: Retry(1.0),
    "reject": lambda: Reject("scripted"),
    "bad": Bad,
    "down": Down,
}
PLANNED = ["ok", "hold", *ERRORS, "hold, then raise", "hold, then down"]
"""What a call of the handler may come to; one that is held goes on when it is told to."""


@dataclass(eq=False)
class Call:
    """One call of the handler."""

    message_id: str
    session_id: str
    lease: Lease
    life: int
    """Of which start of the worker."""
    held: bool = False


class Handler:
    """Does what is planned for each message, and checks at each call that it may be made."""

    def __init__(self, stored: Callable[[], dict[str, tuple[str, int]]], *, ordered: bool) -> None:
        self._stored = stored
        self._ordered = ordered
        self._changed = threading.Condition()
        self.life = 0
        self.concurrency = 1
        # guarded by _changed
        self.plans: dict[str, list[str]] = {}
        self.running: list[Call] = []
        self.counted: dict[str, int] = {}
        """Attempts that have failed, by message."""
        self.over: set[str] = set()
        """Messages that are done with: their handler returned, or gave them up, and their lease held."""
        self.returned: set[str] = set()
        self.given_up: set[str] = set()
        """Messages that may be dead-lettered."""
        self.wrong: list[str] = []

    def __call__(self, message: ReceivedMessage) -> None:
        with self._changed:
            plan = self.plans.get(message.id, [])
            outcome = plan.pop(0) if plan else "ok"
            call = Call(message.id, message.session_id or "", message.lease, self.life)
            self._check(message, call)
            self.running.append(call)
            if outcome.startswith("hold"):
                call.held, outcome = True, outcome.removeprefix("hold, then ")
                if not self._changed.wait_for(lambda: not call.held, 6 * REAL):
                    self.wrong.append(f"nobody has let go of {message.id}")
            self.running.remove(call)
            self._note(message, outcome)
        if outcome in ERRORS:
            raise ERRORS[outcome]()

    def holding(self) -> int:
        """How many calls do not return before they are told to."""
        with self._changed:
            return sum(call.held for call in self.running)

    def let_go(self, calls: Iterable[Call] | None = None) -> None:
        with self._changed:
            for call in self.running if calls is None else calls:
                call.held = False
            self._changed.notify_all()

    def _check(self, message: ReceivedMessage, call: Call) -> None:
        name = message.id
        if message.lease.lost:
            self.wrong.append(f"{name} is begun, and its lease is lost")
        if name in self.over:
            self.wrong.append(f"{name} is begun again, and was done with")
        held = [other for other in self.running if not other.lease.lost]
        if beside := [other.message_id for other in held if other.session_id == call.session_id]:
            self.wrong.append(f"{name} is begun beside {beside}")
        if sum(other.life == self.life for other in self.running) >= self.concurrency:
            self.wrong.append(f"{name} is one handler too many")
        if message.attempt > ATTEMPTS:
            self.wrong.append(f"{name} is tried too often")
        if message.attempt != self.counted.get(name, 0) + 1:
            self.wrong.append(f"{name} is told attempt {message.attempt}, after {self.counted.get(name, 0)}")
        if self._ordered:
            stored = self._stored()
            mine = stored.get(name, ("", 0))[1]
            before = [n for n, (group, place) in stored.items() if group == call.session_id and place < mine]
            if before:
                self.wrong.append(f"{name} is begun before {before} are done")

    def _note(self, message: ReceivedMessage, outcome: str) -> None:
        name = message.id
        if outcome in ERRORS and outcome != "down":
            self.counted[name] = self.counted.get(name, 0) + 1
        if outcome in ("ok", "hold"):
            self.returned.add(name)
        elif outcome in ("reject", "bad") or self.counted.get(name, 0) >= ATTEMPTS:
            self.given_up.add(name)
        else:
            return
        if not message.lease.lost:
            self.over.add(name)


class Meeting:
    """Where all threads of a client are met: each waits for time, for work, or in a handler that is held."""

    def __init__(self, client: QueueClient, clock: FakeClock, handler: Handler) -> None:
        self._client = client
        self._clock = clock
        self._handler = handler
        self._before = set(threading.enumerate())
        """Other clients', which may never be closed: they do not wait for this clock."""
        self._pause = threading.Event()

    def meet(self, *beside: threading.Thread) -> None:
        """Return when nobody goes on by himself, of the library's threads and of those *beside*."""
        for _ in range(int(REAL / 0.0005)):
            if self._rests(beside) and self._rests(beside):
                return
            self._pause.wait(0.0005)
        raise AssertionError(f"threads do not come to rest: {self._clock!r}, {threading.enumerate()}")

    def let_pass(self, seconds: float, *beside: threading.Thread) -> None:
        """Let time pass; what is due on the way is done."""
        end = self._clock.monotonic() + seconds
        for _ in range(3000):
            self.meet(*beside)
            now = self._clock.monotonic()
            if now >= end:
                return
            due = self._clock.next_deadline()
            self._clock.advance(min(end, due if due is not None and due > now else end) - now)
        raise AssertionError("time passes in too many steps")

    def _rests(self, beside: Iterable[threading.Thread]) -> bool:
        version = self._clock._version
        runtime = self._client.runtime()
        pools = [runtime.executor, runtime.pool, runtime.carriers]
        crews = [self._crew(pool) for pool in pools]
        for number, (crew, idle) in enumerate(crews):
            parked = sum(self._clock.is_parked(thread) for thread in crew)
            held = self._handler.holding() if number == 0 else 0
            if idle is None or len(crew) != idle + parked + held:
                return False
        of_pools = {thread for crew, _ in crews for thread in crew}
        others = [
            thread
            for thread in threading.enumerate()
            if thread not in of_pools
            and thread not in self._before
            and (thread.name.startswith("queue_runtime") or thread in beside)
        ]
        return self._clock.is_parked(*others) and version == self._clock._version

    def _crew(self, pool: SessionExecutor) -> tuple[list[threading.Thread], int | None]:
        """Its threads, and how many of them are idle; None if there is work for one."""
        with pool._changed:
            return list(pool._threads), None if pool._ready else pool._idle


def messages(names: Iterable[str], session: str) -> list[Message]:
    return [Message(body=b"", id=name, session_id=session) for name in names]
