"""Many threads send to one ordered queue while its broker fails in part: nothing is lost, or out of order."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from queue_runtime import Message, QueueClient
from queue_runtime.errors import Outcome, OutcomeUnknown, Throttled
from queue_runtime.retry import RetryPolicy
from tests.fakes import Act, Script, scripted, stored

THREADS, SESSIONS, EACH, AT_ONCE = 16, 50, 40, 8


class Weather:
    """Of ten requests one fails, of another the answer is lost, and in a third each message has a chance of
    its own."""

    def __init__(self, seed: int) -> None:
        self._lock = threading.Lock()
        self._random = random.Random(seed)
        self.failed = 0

    def __call__(self, act: Act) -> Any:
        with self._lock:
            fate = self._random.random()
            well = [i for i in range(len(act.ids)) if self._random.random() < 0.5]
            self.failed += fate < 0.3
        if fate < 0.1:
            raise Throttled("scripted")
        if fate < 0.2:
            act.run()
            raise OutcomeUnknown("scripted")
        if fate < 0.3:
            answers = dict(zip(well, act.run_some(well), strict=True))
            failure: Outcome[None] = Outcome(error=Throttled("scripted"))
            return [answers.get(i, failure) for i in range(len(act.ids))]
        return act.run()


def give(client: QueueClient, thread: int) -> None:
    """Some messages of each session of this thread, and again; every other thread submits them."""
    futures = []
    for begun in range(0, EACH, AT_ONCE):
        batch = [
            Message(body=f"{session} {number}".encode(), session_id=str(session))
            for session in range(thread, SESSIONS, THREADS)
            for number in range(begun, begun + AT_ONCE)
        ]
        if thread % 2:
            client.send_batch("groups", batch)
        else:
            futures += [client.submit("groups", message) for message in batch]
    for future in futures:
        future.result()


def test_two_thousand_messages_of_fifty_sessions_are_stored_once_and_in_order() -> None:
    script, weather = Script(), Weather(seed=1)
    script.always("send", weather)
    with scripted(script, retry=RetryPolicy(max_attempts=100, base=0.0, cap=0.0, time_limit=60.0)) as client:
        with ThreadPoolExecutor(THREADS) as crew:
            for given in [crew.submit(give, client, thread) for thread in range(THREADS)]:
                given.result()
        found = defaultdict(list)
        for text in stored(client, "groups", most=2 * SESSIONS * EACH):
            session, number = map(int, text.split())
            found[session].append(number)

    assert weather.failed > 10
    assert found == {session: list(range(EACH)) for session in range(SESSIONS)}
