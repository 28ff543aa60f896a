"""A client in a forked child: connections of its own, and nothing of its parent's touched or waited for.

As under ``gunicorn --preload`` and uWSGI, where the program is loaded before the workers are forked.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from queue_runtime import Message, QueueClient, Worker, connect
from queue_runtime.errors import Closed, QueueError, SettlementError
from queue_runtime.executor import SessionExecutor
from queue_runtime.providers import memory
from tests.fakes import REAL, Script, our_threads, scripted, stored

# Python warns of a fork beside threads because a child may wait for a lock that one of them held: what is
# tested here is that ours does not.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

URL = "memory://?queues=events:sessions,jobs"


def in_child(work: Callable[[], Any], *, fork: Callable[[], int] = os.fork) -> Any:
    """What *work* returns in a forked child, as JSON has it. Fails if it raises, or hangs."""
    answers, answer = os.pipe()
    pid = fork()
    if pid == 0:
        _answer_and_exit(work, answer)
    os.close(answer)
    text = b""
    try:
        while select.select([answers], [], [], REAL)[0]:
            part = os.read(answers, 65536)
            if not part:
                break
            text += part
        else:
            os.kill(pid, signal.SIGKILL)
            pytest.fail("the child hangs")
    finally:
        os.close(answers)
        os.waitpid(pid, 0)
    found = json.loads(text)
    assert "error" not in found, found["error"]
    return found["value"]


def _answer_and_exit(work: Callable[[], Any], answer: int) -> None:
    try:
        text = json.dumps({"value": work()})
    except BaseException:  # nothing of the parent's test may run on in the child
        text = json.dumps({"error": traceback.format_exc()})
    try:
        os.write(answer, text.encode())
    finally:
        os._exit(0)


def there_and_back(client: QueueClient, name: str = "m") -> str:
    """Send a message, receive and complete it; returns its text."""
    client.send("jobs", Message(body=name.encode(), id=name))
    [message] = client.receive("jobs", wait=1.0)
    with client.keep_alive(message):
        client.complete(message)
    return message.text


def error_of(act: Callable[[], object]) -> str:
    try:
        act()
    except QueueError as exc:
        return f"{type(exc).__name__}: {exc}"
    return "no error"


@pytest.fixture
def client() -> Iterator[QueueClient]:
    with connect(URL) as made:
        yield made


class TestUsingIt:
    def test_first_in_the_child_works(self, client: QueueClient) -> None:
        assert in_child(lambda: there_and_back(client)) == "m"

    def test_in_both_works_in_both(self, client: QueueClient) -> None:
        assert there_and_back(client, "before") == "before"
        assert in_child(lambda: there_and_back(client, "child")) == "child"
        assert there_and_back(client, "after") == "after"

    def test_is_counted_from_nothing_in_the_child(self, client: QueueClient) -> None:
        def child() -> list[int]:
            before = client.stats().sent
            there_and_back(client, "child")
            return [before, client.stats().sent, client.stats().settled]

        there_and_back(client)
        there_and_back(client)

        assert in_child(child) == [0, 1, 1]
        assert client.stats().sent == 2

    def test_in_a_childs_child_works(self, client: QueueClient) -> None:
        def child() -> list[str]:
            return [there_and_back(client), in_child(lambda: there_and_back(client, "deep"))]

        assert in_child(child) == ["m", "deep"]

    def test_in_many_children_while_the_parents_threads_are_at_it(self, client: QueueClient) -> None:
        over = threading.Event()

        def busily(number: int) -> int:
            done = 0
            while not over.is_set():
                client.send("jobs", Message(body=b"parent"))
                found = client.receive("jobs")
                with client.keep_alive(*found):
                    client.complete(found)
                done += 1
            return done

        with ThreadPoolExecutor(6) as crew:
            working = [crew.submit(busily, number) for number in range(6)]
            try:
                answers = [in_child(lambda: there_and_back(client, "child")) for _ in range(12)]
            finally:
                over.set()
            assert all(each.result(REAL) for each in working)

        assert answers == ["child"] * 12

    def test_starts_with_empty_queues_in_memory(self) -> None:
        with connect("memory://shared-by-name?queues=jobs") as client:
            client.send("jobs", Message(body=b"parent"))

            def child() -> list[str]:
                client.send("jobs", Message(body=b"child"))
                with connect("memory://shared-by-name?queues=jobs") as second:
                    return stored(second, "jobs")

            assert in_child(child) == ["child"]
            assert stored(client, "jobs") == ["parent"]

    def test_does_not_run_handlers_in_an_executor_of_the_parents(self) -> None:
        mine = SessionExecutor(2, name="mine")
        mine.submit(int).result(REAL)
        with connect(URL, executor=mine) as client:

            def child() -> int:
                client.send("jobs", Message(body=b"x"))
                worker = Worker(client, "jobs", lambda message: None, concurrency=1)
                worker.run_until_idle()
                return worker.status().completed

            assert in_child(child) == 1
        mine.shutdown()


class TestWhatIsTheParents:
    def test_message_is_not_settled_by_the_child(self, client: QueueClient) -> None:
        client.send("jobs", Message(body=b"x", id="m"))
        [message] = client.receive("jobs")

        def child() -> list[str]:
            def keep_alive() -> None:
                with client.keep_alive(message):
                    raise AssertionError

            return [
                error_of(lambda: client.complete(message)),
                error_of(lambda: client.abandon(message)),
                error_of(lambda: client.dead_letter(message, reason="x")),
                error_of(lambda: client.renew(message)),
                error_of(keep_alive),
            ]

        for error in in_child(child):
            assert error.startswith(SettlementError.__name__)
            assert "or by the parent of this process" in error
        client.complete(message)

    def test_session_is_of_no_use_to_the_child(self, client: QueueClient) -> None:
        client.send("events", Message(body=b"x", session_id="a"))
        with _accepted(client) as session:
            [message] = session.receive()

            def child() -> list[str]:
                return [
                    error_of(session.receive),
                    error_of(session.renew),
                    error_of(lambda: session.complete(message)),
                ]

            for error in in_child(child):
                assert error.startswith(Closed.__name__)
                assert "made by the parent of this process" in error
            session.complete(message)

    def test_session_is_not_released_by_a_child_that_leaves_its_block(self) -> None:
        script = Script()
        with scripted(script, URL) as client:
            client.send("events", Message(body=b"x", session_id="a"))

            def child() -> list[tuple[str, ...]]:
                session.__exit__(None, None, None)
                return [*script.calls("session.close"), *script.calls("session.settle")]

            with _accepted(client) as session:
                [message] = session.receive()

                assert in_child(child) == []
                session.complete(message)

    def test_dead_letters_are_asked_for_anew(self, client: QueueClient) -> None:
        dead = client.dead_letters("jobs")

        def child() -> list[Any]:
            errors = [error_of(dead.count), error_of(dead.list), error_of(dead.replay)]
            return [*errors, client.dead_letters("jobs").count()]

        *errors, count = in_child(child)
        assert all(error.startswith(Closed.__name__) for error in errors)
        assert count == 0

    def test_threads_are_not_the_childs(self, client: QueueClient) -> None:
        client.send("jobs", Message(body=b"x"))

        def child() -> list[list[str]]:
            before = our_threads()
            there_and_back(client)
            client.close()
            return [before, our_threads()]

        with client.keep_alive(*client.receive("jobs")):
            assert our_threads() != []
            assert in_child(child) == [[], []]

    def test_worker_does_not_run_in_the_child_and_says_so(self, client: QueueClient) -> None:
        with Worker(client, "jobs", lambda message: None, concurrency=2) as worker:

            def child() -> list[Any]:
                own = Worker(client, "jobs", lambda message: None, concurrency=2)
                client.send("jobs", Message(body=b"x"))
                own.run_until_idle()
                return [worker.status().state, own.status().completed]

            assert in_child(child) == ["forked", 1]
            assert worker.status().state == "running"

    def test_worker_can_be_stopped_and_started_in_the_child(self, client: QueueClient) -> None:
        with Worker(client, "jobs", lambda message: None, concurrency=2) as worker:

            def child() -> list[Any]:
                nothing = worker.stop()
                client.send("jobs", Message(body=b"x"))
                return [nothing.completed, worker.run_until_idle().completed, worker.status().state]

            assert in_child(child) == [0, 1, "stopped"]
            assert worker.status().state == "running"

    def test_worker_answers_in_the_child_though_it_was_just_being_started(self, client: QueueClient) -> None:
        worker = Worker(client, "jobs", lambda message: None, concurrency=2)

        with worker._changed:
            assert in_child(lambda: [worker.status().state, worker.health().alive]) == ["new", False]


class TestALockThatAThreadHeldAtTheFork:
    def test_is_waited_for_by_nobody_in_the_child(self) -> None:
        with connect("memory://locks?queues=events:sessions,jobs") as client:
            client.send("jobs", Message(body=b"x"))
            client.send("events", Message(body=b"x", session_id="a"))
            [message] = client.receive("jobs")
            client.runtime().executor.submit(int).result(REAL)
            runtime = client.runtime()
            locks = [
                client._lock,
                runtime._changed,
                runtime.leases._changed,
                runtime.scheduler._changed,
                runtime.executor._changed,
                runtime.pool._changed,
                memory._shared_lock,
                runtime.provider._inner._broker.changed,  # type: ignore[attr-defined]
            ]

            with client.keep_alive(message), _accepted(client) as session:

                def child() -> list[str]:
                    session.__exit__(None, None, None)
                    told = [
                        repr(client),
                        error_of(lambda: client.complete(message)),
                        error_of(session.receive),
                    ]
                    told.append(there_and_back(client))
                    client.close()
                    return told

                with HeldElsewhere([*locks, session._lock]):
                    told = in_child(child)

            assert told[0] == "<QueueClient memory://locks [open]>"
            assert told[3] == "m"

    def test_does_not_hold_up_a_block_that_the_child_leaves(self, client: QueueClient) -> None:
        client.send("jobs", Message(body=b"x"))
        [message] = client.receive("jobs")
        block = client.keep_alive(message)
        block.__enter__()

        def child() -> str:
            block.__exit__(None, None, None)
            return "left"

        with HeldElsewhere([client.runtime().leases._changed, client.runtime().scheduler._changed]):
            assert in_child(child) == "left"
        block.__exit__(None, None, None)


class TestClosing:
    def test_before_the_fork_is_for_the_child_too(self, client: QueueClient) -> None:
        there_and_back(client)
        client.close()

        def child() -> list[str]:
            return [error_of(lambda: there_and_back(client)), repr(client)]

        assert in_child(child) == ["Closed: the client is closed", "<QueueClient memory:// [closed]>"]

    def test_in_the_child_before_its_first_use_is_closing(self, client: QueueClient) -> None:
        def child() -> str:
            client.close()
            client.close()
            return error_of(lambda: there_and_back(client))

        assert in_child(child) == "Closed: the client is closed"

    def test_in_a_child_of_which_python_has_not_heard_waits_for_no_thread_of_the_parents(
        self, client: QueueClient
    ) -> None:
        client.send("jobs", Message(body=b"x"))

        def child() -> list[str]:
            shown = [repr(client)]
            client.close(timeout=1.0)
            return [*shown, repr(client)]

        with client.keep_alive(*client.receive("jobs")), HeldElsewhere([client._lock]):
            told = in_child(child, fork=ctypes.PyDLL(None).fork)

        assert told == ["<QueueClient memory:// [open]>", "<QueueClient memory:// [closed]>"]

    def test_in_the_child_closes_nothing_of_the_parents(self, client: QueueClient) -> None:
        def child() -> str:
            there_and_back(client)
            client.close()
            return "closed"

        there_and_back(client)
        assert in_child(child) == "closed"
        assert there_and_back(client) == "m"


def _accepted(client: QueueClient) -> Any:
    session = client.accept_session("events")
    assert session is not None
    return session


class HeldElsewhere(ExitStack):
    """Locks that another thread holds for as long as the block lasts."""

    def __init__(self, locks: list[Any]) -> None:
        super().__init__()
        held, over = threading.Event(), threading.Event()

        def hold() -> None:
            with ExitStack() as stack:
                for lock in locks:
                    lock.acquire()
                    stack.callback(lock.release)
                held.set()
                assert over.wait(REAL)

        thread = threading.Thread(target=hold, daemon=True)
        thread.start()
        assert held.wait(REAL), "a lock was not to be had"
        self.callback(thread.join, REAL)
        self.callback(over.set)
