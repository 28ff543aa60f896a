"""Scripted providers: a broker in memory whose calls fail, get lost or block as a test says."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeVar
from unittest.mock import patch

from queue_runtime import client as client_module
from queue_runtime.batching import BatchPolicy
from queue_runtime.breaker import BreakerPolicy
from queue_runtime.client import QueueClient
from queue_runtime.clock import Clock
from queue_runtime.config import ProviderSettings, parse_url
from queue_runtime.connecting import connect
from queue_runtime.errors import Outcome, OutcomeUnknown, QueueError
from queue_runtime.events import Listener
from queue_runtime.executor import SessionExecutor
from queue_runtime.message import Delivery, Message
from queue_runtime.provider import (
    Cancelled,
    Capabilities,
    ProviderClient,
    ProviderSession,
    QueueDescription,
    Settlement,
    never,
)
from queue_runtime.providers import memory
from queue_runtime.retry import RetryPolicy
from queue_runtime.strategies import SessionStrategy
from queue_runtime.testing import FakeClock

T = TypeVar("T")

REAL = 10.0
"""Real seconds after which a thread is given up; no test takes them."""

AT_ONCE = RetryPolicy(max_attempts=3, base=0.0, cap=0.0)
"""Retries without a wait, for tests on one thread."""

NEVER_OPEN = BreakerPolicy(minimum_calls=1000, failure_rate=1.0)


@dataclass(frozen=True, slots=True)
class Act:
    """One call on its way to the broker: what a step is given."""

    operation: str
    queue: str
    ids: tuple[str, ...]
    """Ids of the messages sent, settled or renewed; none for other calls."""
    run: Callable[[], Any]
    """The whole call."""
    run_some: Callable[[Sequence[int]], Sequence[Outcome[Any]]]
    """The call with some of its entries only."""


Step = Callable[[Act], Any]


def passes(act: Act) -> Any:
    return act.run()


def fails(error: type[QueueError]) -> Step:
    """The call raises, and nothing has happened."""

    def step(act: Act) -> Any:
        raise error(f"scripted: {act.operation}")

    return step


def loses(error: type[QueueError] = OutcomeUnknown) -> Step:
    """The call is done, and its answer is lost."""

    def step(act: Act) -> Any:
        act.run()
        raise error(f"scripted: the answer to {act.operation} was lost")

    return step


def fails_for(errors: dict[str, type[QueueError]]) -> Step:
    """The entries with these ids fail, each with its error; the others go well."""

    def step(act: Act) -> Any:
        well = [i for i, message_id in enumerate(act.ids) if message_id not in errors]
        answers = dict(zip(well, act.run_some(well), strict=True))
        return [
            answers[i] if i in answers else Outcome(error=errors[message_id](f"scripted: {message_id}"))
            for i, message_id in enumerate(act.ids)
        ]

    return step


def loses_for(*ids: str) -> Step:
    """All is done; the answers for these ids are lost."""

    def step(act: Act) -> Any:
        return [
            Outcome(error=OutcomeUnknown(f"scripted: {message_id}")) if message_id in ids else answer
            for message_id, answer in zip(act.ids, act.run(), strict=True)
        ]

    return step


class Gate:
    """A step that holds its calls until it is opened; leaving its `with` block opens it."""

    def __init__(self) -> None:
        self._reached = threading.Semaphore(0)
        self._opened = threading.Event()

    def __call__(self, act: Act) -> Any:
        self._reached.release()
        assert self._opened.wait(REAL), f"nobody opened the gate of {act.operation}"
        return act.run()

    def wait_until_reached(self) -> None:
        """Return when one more call stands before it."""
        assert self._reached.acquire(timeout=REAL), "no call has reached the gate"

    def open(self) -> None:
        self._opened.set()

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.open()


class Script:
    """What happens to the calls of a provider, and the record of them. Safe to share between threads.

    Operations are the methods' names; those of a session are ``session.receive`` and so on.
    """

    def __init__(self, *, longest_wait: float = float("inf")) -> None:
        self.longest_wait = longest_wait
        """Seconds after which a receive answers, however long it was told to wait."""
        self._lock = threading.Lock()
        # guarded by _lock
        self._next: defaultdict[str, deque[Step]] = defaultdict(deque)
        self._always: dict[str, Step] = {}
        self._calls: list[Act] = []

    def then(self, operation: str, *steps: Step) -> None:
        """The next calls of *operation* go through *steps*, one each."""
        with self._lock:
            self._next[operation].extend(steps)

    def always(self, operation: str, step: Step = passes) -> None:
        """Those that no `then` speaks of go through *step*."""
        with self._lock:
            self._always[operation] = step

    def calls(self, operation: str) -> list[tuple[str, ...]]:
        """The ids in each call of *operation* up to now."""
        with self._lock:
            return [act.ids for act in self._calls if act.operation == operation]

    def follow(self, act: Act) -> Any:
        with self._lock:
            self._calls.append(act)
            steps = self._next[act.operation]
            step = steps.popleft() if steps else self._always.get(act.operation, passes)
        return step(act)


class ScriptedClient(ProviderClient):
    """A provider in front of another: its calls follow a script, its queues may have other capabilities."""

    def __init__(self, inner: ProviderClient, script: Script, **capabilities: Any) -> None:
        self.name = inner.name  # type: ignore[misc]  # a ClassVar there; here it is the inner one's
        self._inner = inner
        self._script = script
        self._capabilities = capabilities

    def describe(self, queue: str) -> QueueDescription:
        found: QueueDescription = self._single("describe", queue, lambda: self._inner.describe(queue))
        return replace(found, capabilities=replace(found.capabilities, **self._capabilities))

    def capabilities(self, queue: str) -> Capabilities:
        found: Capabilities = self._single("capabilities", queue, lambda: self._inner.capabilities(queue))
        return replace(found, **self._capabilities)

    def size(self, queue: str, message: Message) -> int:
        return self._inner.size(queue, message)

    def send(self, queue: str, messages: Sequence[Message]) -> Sequence[Outcome[None]]:
        ids = [message.id for message in messages]
        return self._batch("send", queue, ids, messages, lambda some: self._inner.send(queue, some))

    def receive(
        self,
        queue: str,
        max_messages: int,
        wait: float,
        *,
        lease: float | None = None,
        cancelled: Cancelled = never,
    ) -> Sequence[Delivery]:
        wait = min(wait, self._script.longest_wait)
        act = lambda: self._inner.receive(queue, max_messages, wait, lease=lease, cancelled=cancelled)  # noqa: E731
        found: Sequence[Delivery] = self._single("receive", queue, act)
        return found

    def accept_sessions(
        self, queue: str, most: int, wait: float, *, cancelled: Cancelled = never
    ) -> Sequence[ProviderSession]:
        act = lambda: self._inner.accept_sessions(queue, most, wait, cancelled=cancelled)  # noqa: E731
        found: Sequence[ProviderSession] = self._single("accept_sessions", queue, act)
        return [ScriptedSession(session, self._script, queue) for session in found]

    def accept_session(self, queue: str, session_id: str) -> ProviderSession:
        act = lambda: self._inner.accept_session(queue, session_id)  # noqa: E731
        session: ProviderSession = self._single("accept_session", queue, act)
        return ScriptedSession(session, self._script, queue)

    def settle(self, queue: str, settlements: Sequence[Settlement]) -> Sequence[Outcome[None]]:
        ids = [settlement.delivery.message.id for settlement in settlements]
        return self._batch("settle", queue, ids, settlements, lambda some: self._inner.settle(queue, some))

    def renew(
        self, queue: str, deliveries: Sequence[Delivery], *, lease: float | None = None
    ) -> Sequence[Outcome[float]]:
        ids = [delivery.message.id for delivery in deliveries]
        return self._batch(
            "renew", queue, ids, deliveries, lambda some: self._inner.renew(queue, some, lease=lease)
        )

    def peek(self, queue: str, max_messages: int, *, after: int = 0) -> Sequence[Delivery]:
        act = lambda: self._inner.peek(queue, max_messages, after=after)  # noqa: E731
        found: Sequence[Delivery] = self._single("peek", queue, act)
        return found

    def schedule(self, queue: str, messages: Sequence[Message]) -> Sequence[Outcome[str]]:
        ids = [message.id for message in messages]
        return self._batch("schedule", queue, ids, messages, lambda some: self._inner.schedule(queue, some))

    def cancel(self, queue: str, receipts: Sequence[str]) -> Sequence[Outcome[None]]:
        return self._batch("cancel", queue, receipts, receipts, lambda some: self._inner.cancel(queue, some))

    def purge(self, queue: str) -> None:
        self._single("purge", queue, lambda: self._inner.purge(queue))

    def wake(self, queue: str) -> None:
        self._inner.wake(queue)

    def close(self) -> None:
        self._single("close", "", self._inner.close)

    def _single(self, operation: str, queue: str, run: Callable[[], Any]) -> Any:
        return self._script.follow(Act(operation, queue, (), run, lambda chosen: []))

    def _batch(
        self,
        operation: str,
        queue: str,
        ids: Sequence[str],
        entries: Sequence[T],
        run: Callable[[Sequence[T]], Sequence[Outcome[Any]]],
    ) -> Sequence[Outcome[Any]]:
        return _batch(self._script, operation, queue, ids, entries, run)


class ScriptedSession(ProviderSession):
    """A broker's session whose calls follow a script."""

    def __init__(self, inner: ProviderSession, script: Script, queue: str) -> None:
        self._inner = inner
        self._script = script
        self._queue = queue
        self.session_id = inner.session_id
        self.lease = inner.lease
        self.leased_until = inner.leased_until
        inner.on_lost = lambda reason: self.on_lost(reason)

    def receive(self, max_messages: int, wait: float, *, cancelled: Cancelled = never) -> Sequence[Delivery]:
        act = lambda: self._inner.receive(max_messages, wait, cancelled=cancelled)  # noqa: E731
        found: Sequence[Delivery] = self._single("receive", act)
        return found

    def settle(self, settlements: Sequence[Settlement]) -> Sequence[Outcome[None]]:
        ids = [settlement.delivery.message.id for settlement in settlements]
        return _batch(self._script, "session.settle", self._queue, ids, settlements, self._inner.settle)

    def renew(self) -> float:
        until: float = self._single("renew", self._inner.renew)
        return until

    def get_state(self) -> bytes | None:
        state: bytes | None = self._single("get_state", self._inner.get_state)
        return state

    def set_state(self, state: bytes | None) -> None:
        self._single("set_state", lambda: self._inner.set_state(state))

    def close(self) -> None:
        self._single("close", self._inner.close)

    def _single(self, operation: str, run: Callable[[], Any]) -> Any:
        act = Act(f"session.{operation}", self._queue, (self.session_id,), run, lambda chosen: [])
        return self._script.follow(act)


def _batch(
    script: Script,
    operation: str,
    queue: str,
    ids: Sequence[str],
    entries: Sequence[T],
    run: Callable[[Sequence[T]], Sequence[Outcome[Any]]],
) -> Sequence[Outcome[Any]]:
    def run_some(chosen: Sequence[int]) -> Sequence[Outcome[Any]]:
        return run([entries[i] for i in chosen]) if chosen else []

    answers: Sequence[Outcome[Any]] = script.follow(
        Act(operation, queue, tuple(ids), lambda: run(entries), run_some)
    )
    return answers


@contextmanager
def scripted(
    script: Script,
    url: str = "memory://?queues=events:sessions,groups:groups,jobs",
    *,
    clock: Clock | None = None,
    retry: RetryPolicy = AT_ONCE,
    breaker: BreakerPolicy = NEVER_OPEN,
    listeners: Sequence[Listener] = (),
    strategy: SessionStrategy | None = None,
    executor: SessionExecutor | None = None,
    max_lease: float = 12 * 3600.0,
    batching: BatchPolicy | None = None,
    more: Mapping[str, Any] = MappingProxyType({}),
    **capabilities: Any,
) -> Iterator[QueueClient]:
    """A client of a broker in memory whose calls follow *script*; closed at the end of the block.

    *capabilities* are those that the queues have instead of the memory broker's; *more* is what else the
    client's settings say.
    """

    def make(settings: ProviderSettings, its_clock: Clock) -> ProviderClient:
        return ScriptedClient(memory.create(settings, its_clock), script, **capabilities)

    settings = replace(
        parse_url(url),
        retry=retry,
        breaker=breaker,
        max_lease=max_lease,
        batching=batching or BatchPolicy(),
        **more,
    )
    with patch.object(client_module, "find", lambda name: make):
        made = connect(settings, strategy=strategy, listeners=listeners, clock=clock, executor=executor)
    with made:
        yield made


def stored(client: QueueClient, queue: str, most: int = 1000) -> list[str]:
    """The texts of all messages of *queue*, held ones included, in the order in which they were stored."""
    runtime = client.runtime()
    return [d.message.body.decode() for d in runtime.provider.peek(runtime.target(queue), most)]


def our_threads() -> list[str]:
    """Names of the library's threads that are alive."""
    return sorted(t.name for t in threading.enumerate() if t.name.startswith("queue_runtime"))


def let_pass(
    clock: FakeClock,
    seconds: float,
    *,
    pool: SessionExecutor,
    lanes: Iterable[Hashable],
    progress: Callable[[], int],
) -> None:
    """Let time pass in steps: at each, what is due on the scheduler and in *lanes* of *pool* is done.

    *progress* counts what was done. Needs a scheduler with a thread, and no other thread that waits.
    """
    end = clock.monotonic() + seconds
    for _ in range(2000):
        done = -1
        while done != progress():
            done = progress()
            assert done < 2000, "something is done over and over"
            clock.block_until(1)
            for lane in lanes:
                pool.submit_in(lane, lambda: None).result(REAL)
            clock.block_until(1)
        now = clock.monotonic()
        if now >= end:
            return
        due = clock.next_deadline()
        clock.advance(min(end, due if due is not None and due > now else end) - now)
    raise AssertionError("time passes in too many steps")
