"""What rows are written with: clients that are closed, queues of either kind, threads that are met."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import pytest

from queue_runtime import Lease, Message, QueueClient, ReceivedMessage, SessionClient
from queue_runtime.provider import Capabilities, QueueDescription
from queue_runtime.testing.conformance.harness import Harness, QueueSpec, Time

T = TypeVar("T")

Kind = Literal["plain", "sessions"]

SLACK = 0.25
"""Seconds by which a provider may exceed what it was told, on a healthy network."""

GRACE = 0.2
"""Seconds after a lease's end at which its holder surely knows; the broker may take longer to give it out."""


class Job(Generic[T]):
    """A piece of work on a thread of its own, and how long it took on the harness's clock."""

    def __init__(self, time: Time, work: Callable[[], T]) -> None:
        self._time = time
        self._work = work
        self._value: T | None = None
        self._error: BaseException | None = None
        self.elapsed = 0.0
        self.thread = threading.Thread(target=self._run, name="conformance", daemon=True)
        self.thread.start()

    def result(self) -> T:
        """What the work returned; raises what it raised."""
        assert not self.thread.is_alive(), "a call has not returned in time"
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # it has returned, so this is what it returned

    def _run(self) -> None:
        started = self._time.clock.monotonic()
        try:
            self._value = self._work()
        except BaseException as exc:  # it belongs to the row, which asks for the result
            self._error = exc
        self.elapsed = self._time.clock.monotonic() - started


@dataclass(slots=True)
class Drained:
    """What was received and completed, in order."""

    messages: list[ReceivedMessage] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        return [message.id for message in self.messages]

    def of(self, session_id: str) -> list[str]:
        """Ids of one session."""
        return [message.id for message in self.messages if message.session_id == session_id]


class Kit:
    """A row's tools. What it made is closed after the row."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.time = harness.time
        self.lease = harness.lease
        self.look = harness.look
        self.opening = harness.opening
        self.long_lease = 2 * (harness.lease + harness.look + harness.opening)
        """Seconds of a hold that rows keep: longer than a look, and twice what they let run out."""
        self._clients: list[QueueClient] = []
        self._desks: list[Desk] = []
        self._main: QueueClient | None = None

    @property
    def client(self) -> QueueClient:
        """The row's first client."""
        if self._main is None:
            self._main = self.connect()
        return self._main

    def connect(self, **options: Any) -> QueueClient:
        """Another client; *options* are the `listeners` and the fields of `ClientSettings` that it has."""
        client = self.harness.connect(**options)
        self._clients.append(client)
        return client

    def queue(self, kind: Kind = "plain", *, lease: float = 30.0, dead_letters: bool = True) -> str:
        """A new queue of this *kind*; skips the row if its capabilities are of the other."""
        spec = QueueSpec(sessions=kind == "sessions", lease=lease, dead_letters=dead_letters)
        return self.queue_of(spec)

    def queue_of(self, spec: QueueSpec) -> str:
        name = self.harness.make_queue(spec)
        sessions = self.capabilities(name).sessions
        if spec.sessions != (sessions != "none"):
            pytest.skip(f"Capabilities.sessions is {sessions!r}")
        return name

    def desk(
        self,
        kind: Kind = "plain",
        *,
        lease: float = 30.0,
        queue: str | None = None,
        client: QueueClient | None = None,
    ) -> Desk:
        """A new queue of this *kind*, or an older *queue*, before one client."""
        name = self.queue(kind, lease=lease) if queue is None else queue
        desk = Desk(self, client or self.client, name, kind)
        self._desks.append(desk)
        return desk

    def describe(self, queue: str) -> QueueDescription:
        return self.client.describe(queue)

    def capabilities(self, queue: str) -> Capabilities:
        return self.describe(queue).capabilities

    def left(self, queue: str) -> int:
        """Messages that wait in *queue* or are held, as far as its broker tells."""
        found = self.describe(queue)
        return (found.active or 0) + (found.leased or 0)

    def call(self, work: Callable[[], T], *, within: float = 30.0) -> T:
        """Make a call that may wait, while time passes; it must return within so many seconds."""
        return self.timed(work, within=within)[0]

    def timed(self, work: Callable[[], T], *, within: float = 30.0) -> tuple[T, float]:
        """The same, and how many seconds it took."""
        job = self.start(work)
        self.join(job, within=within)
        return job.result(), job.elapsed

    def assert_punctual(self, attempt: Callable[[], float], limit: float) -> None:
        """Assert that one of three attempts took at most *limit* seconds: a busy machine may be late once, a
        provider must not be late always."""
        took: list[float] = []
        while len(took) < 3 and (not took or took[-1] > limit):
            took.append(attempt())
        assert min(took) <= limit

    def start(self, work: Callable[[], T]) -> Job[T]:
        """Begin a piece of work on a thread of its own. It must not let time pass itself, as a `Desk` does:
        the row's own thread does that."""
        return Job(self.time, work)

    def join(self, *jobs: Job[Any], within: float = 30.0) -> None:
        """Let time pass until all have ended; raises what one raised."""
        self.time.join([job.thread for job in jobs], within)
        for job in jobs:
            job.result()

    def eventually(self, look: Callable[[], T], expected: T) -> None:
        """Assert that *look* comes to *expected*, within the time by which counts may be late."""
        deadline = self.time.clock.monotonic() + self.harness.counts_lag
        while (seen := look()) != expected and self.time.clock.monotonic() < deadline:
            self.time.sleep(0.1)
        assert seen == expected

    def pass_held(self, seconds: float, *leases: Lease) -> None:
        """Let time pass while *leases* are kept alive, in steps that leave renewals the time to be made."""
        end = self.time.clock.monotonic() + seconds
        step = min(lease.length for lease in leases) / 12
        while (left := end - self.time.clock.monotonic()) > 0:
            self.time.sleep(min(left, step))
            for _ in range(1000):
                if all(lease.remaining() > 0.4 * lease.length for lease in leases):
                    break
                self.yield_to_others()
            assert not any(lease.lost for lease in leases)

    def yield_to_others(self) -> None:
        """Let the client's own threads run: what they do takes real time on any clock."""
        threading.Event().wait(0.005)

    def close(self) -> None:
        for desk in self._desks:
            desk.let_go()
        for client in self._clients:
            client.close()


class Desk:
    """One client before one queue, so that a row reads the same with and without sessions."""

    def __init__(self, kit: Kit, client: QueueClient, queue: str, kind: Kind) -> None:
        self.kit = kit
        self.client = client
        self.queue = queue
        self.kind = kind
        self._sessions: list[SessionClient] = []
        self._sources: dict[str, SessionClient] = {}

    def message(self, body: bytes = b"body", *, session_id: str = "session", **fields: Any) -> Message:
        """A message for this queue: with a session if it has sessions."""
        return Message(body=body, session_id=session_id if self.kind == "sessions" else None, **fields)

    def send(self, *messages: Message) -> list[str]:
        return self.client.send_batch(self.queue, messages)

    def fill(self, count: int, *, session_id: str = "session") -> list[str]:
        """Send so many messages; returns their ids."""
        return self.send(*(self.message(b"%d" % n, session_id=session_id) for n in range(count)))

    def one(self, *, wait: float = 5.0) -> ReceivedMessage:
        """The next message, which must come."""
        found = self.take(1, wait=wait)
        assert found, f"no message came within {wait:g} s"
        return found[0]

    def take(self, count: int, *, wait: float = 5.0) -> list[ReceivedMessage]:
        """Up to *count* messages, each of which may take *wait* seconds to come."""
        taken: list[ReceivedMessage] = []
        while len(taken) < count:
            more = self._more(count - len(taken), wait)
            if not more:
                break
            taken += more
        return taken

    def nothing(self) -> bool:
        """True if nothing is to be had now."""
        return not self.take(1, wait=self.kit.look)

    def complete(self, messages: ReceivedMessage | Sequence[ReceivedMessage]) -> None:
        for source, mine in self._by_source(messages):
            source.complete(mine)

    def dead_letter(
        self,
        messages: ReceivedMessage | Sequence[ReceivedMessage],
        *,
        reason: str = "because",
        description: str | None = None,
    ) -> None:
        for source, mine in self._by_source(messages):
            source.dead_letter(mine, reason=reason, description=description)

    def session_of(self, message: ReceivedMessage) -> SessionClient:
        """The session that *message* was taken from."""
        return self._sources[message.receipt]

    def drain(self, count: int = 0) -> Drained:
        """Receive and complete *count* messages, and whatever comes beyond them."""
        drained = Drained()
        while more := self._more(10, 5.0 if len(drained.messages) < count else self.kit.look):
            drained.messages += more
            self.complete(more)
        self.let_go()
        return drained

    def let_go(self) -> None:
        """Close the sessions that were accepted here."""
        while self._sessions:
            self._sessions.pop().close()

    def _more(self, most: int, wait: float) -> list[ReceivedMessage]:
        if self.kind == "plain":
            return self.kit.call(
                lambda: self.client.receive(self.queue, max_messages=most, wait=wait), within=wait + 30.0
            )
        for session in self._sessions:
            if more := self._from(session, most):
                return more
        accepted = self.kit.call(
            lambda: self.client.accept_session(self.queue, wait=wait), within=wait + 30.0
        )
        if accepted is None:
            return []
        self._sessions.append(accepted)
        return self._from(accepted, most)

    def _from(self, session: SessionClient, most: int) -> list[ReceivedMessage]:
        found = [] if session.lease.lost else session.receive(max_messages=most)
        self._sources.update({message.receipt: session for message in found})
        return found

    def _by_source(
        self, messages: ReceivedMessage | Sequence[ReceivedMessage]
    ) -> Iterator[tuple[QueueClient | SessionClient, ReceivedMessage | Iterable[ReceivedMessage]]]:
        if isinstance(messages, ReceivedMessage):
            yield self._sources.get(messages.receipt, self.client), messages
            return
        for source in dict.fromkeys(self._sources.get(message.receipt, self.client) for message in messages):
            yield source, [m for m in messages if self._sources.get(m.receipt, self.client) is source]


class Rows:
    """The base of all rows: marks those that the endpoint gets wrong, tells the summary whose they are."""

    @pytest.fixture(autouse=True)
    def _known_fault(self, request: pytest.FixtureRequest, harness: Harness) -> None:
        unknown = {name.partition("[")[0] for name in harness.faults} - row_names()
        assert not unknown, f"{harness.name}: faults name rows that do not exist: {sorted(unknown)}"
        request.node.user_properties.append(("endpoint", harness.name))
        name, _, _ = request.node.name.partition("[")
        reason = harness.faults.get(request.node.name) or harness.faults.get(name)
        if reason is not None:
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))

    @pytest.fixture
    def kit(self, harness: Harness) -> Iterator[Kit]:
        kit = Kit(harness)
        yield kit
        kit.close()


def row_names() -> set[str]:
    """Names of all rows that were imported."""
    classes = [Rows]
    for each in classes:
        classes += each.__subclasses__()
    return {name for each in classes for name in vars(each) if name.startswith("test_")}


both_kinds = pytest.mark.parametrize("kind", ["plain", "sessions"])
