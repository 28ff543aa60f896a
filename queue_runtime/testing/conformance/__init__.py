"""The conformance kit: what every provider owes its callers, as pytest rows.

A provider, in whatever distribution, runs them all from one test module::

    # tests/test_conformance.py
    import pytest
    from queue_runtime.testing.conformance import *  # the rows
    from queue_runtime.testing.conformance import QueueSpec, RealTime

    class MyHarness:
        name = "mine on localhost"                   # stands in the summary
        time = RealTime()                            # or FakeTime(clock), for a broker in this process
        lease = 1.0                                  # seconds, 5 at most; rows let such leases run out
        look = 0.0                                   # seconds after which an empty answer is believed
        counts_lag = 1.0                             # seconds by which describe() may be late
        opening = 0.0                                # seconds that opening a link may take beyond a wait
        faults = {}                                  # row -> what the endpoint itself gets wrong

        def make_queue(self, spec: QueueSpec) -> str: ...     # an empty queue, by the name clients use
        def connect(self, *, listeners=(), **settings) -> QueueClient:
            return queue_runtime.connect(replace(parse_url("mine://..."), **settings), listeners=listeners)

    @pytest.fixture(scope="module")
    def harness():
        yield MyHarness()

and sees what came of it, endpoint by endpoint, with this in its `conftest.py`::

    pytest_plugins = ["queue_runtime.testing.conformance.report"]

Rows use the public door only: `connect`, and what it returns. A row is skipped where a queue's `Capabilities`
(or its description) say that it cannot do the thing, and only there. A row that an endpoint gets wrong for
itself, such as a local imitation of a cloud, is named in `Harness.faults` with the reason; it must fail then.

Needs pytest: ``pip install 'queue_runtime[testing]'``.
"""

# First, for it must come before the rows.
from queue_runtime.testing.conformance import _pytest  # noqa: F401
from queue_runtime.testing.conformance.by_id import TestAcceptById
from queue_runtime.testing.conformance.configuring import (
    TestConfiguredLease,
    TestConfiguredStrategy,
    TestQueueNames,
    TestStats,
)
from queue_runtime.testing.conformance.content import TestContent, TestSessionIdOnAPlainQueue
from queue_runtime.testing.conformance.dead_letters import (
    TestAFileOfDeadLetters,
    TestDeadLetters,
    TestNoDeadLetterQueue,
    TestRemovingDeadLetters,
    TestReplay,
    TestReplayOfSessions,
    TestTheBrokersOwnLimit,
)
from queue_runtime.testing.conformance.errors import TestClosed, TestClosingMeanwhile, TestQueueNotFound
from queue_runtime.testing.conformance.harness import FakeTime, Harness, QueueSpec, RealTime, Time
from queue_runtime.testing.conformance.leases import TestLeases
from queue_runtime.testing.conformance.limits import TestAttributes, TestDelay, TestNames, TestSize
from queue_runtime.testing.conformance.looking import TestDeduplication, TestPeek, TestPurge
from queue_runtime.testing.conformance.receiving import TestCounts, TestDelays, TestNumbers, TestWaiting
from queue_runtime.testing.conformance.scheduling import TestScheduling, TestSchedulingInASession
from queue_runtime.testing.conformance.sending import (
    TestOneSessionManySenders,
    TestSendingTogether,
    TestSubmit,
)
from queue_runtime.testing.conformance.session_ends import TestAbandon, TestClose, TestSessionLease
from queue_runtime.testing.conformance.session_states import TestSessionState, TestWorkersAndSessionState
from queue_runtime.testing.conformance.sessions import (
    TestOnePairOfHands,
    TestSessionMessages,
    TestSessionOrder,
    TestWrongKind,
)
from queue_runtime.testing.conformance.settling import (
    TestPartialFailure,
    TestSettling,
    TestTooLate,
    TestTwice,
)
from queue_runtime.testing.conformance.sharing import TestSessionsSettledTogether, TestSettlingTogether
from queue_runtime.testing.conformance.threads import TestSettlingMeanwhile, TestSixteenThreads
from queue_runtime.testing.conformance.time_to_live import TestExpiredDeadLetters, TestTimeToLive

__all__ = [
    "FakeTime",
    "Harness",
    "QueueSpec",
    "RealTime",
    "TestAFileOfDeadLetters",
    "TestAbandon",
    "TestAcceptById",
    "TestAttributes",
    "TestClose",
    "TestClosed",
    "TestClosingMeanwhile",
    "TestConfiguredLease",
    "TestConfiguredStrategy",
    "TestContent",
    "TestCounts",
    "TestDeadLetters",
    "TestDeduplication",
    "TestDelay",
    "TestDelays",
    "TestExpiredDeadLetters",
    "TestLeases",
    "TestNames",
    "TestNoDeadLetterQueue",
    "TestNumbers",
    "TestOnePairOfHands",
    "TestOneSessionManySenders",
    "TestPartialFailure",
    "TestPeek",
    "TestPurge",
    "TestQueueNames",
    "TestQueueNotFound",
    "TestRemovingDeadLetters",
    "TestReplay",
    "TestReplayOfSessions",
    "TestScheduling",
    "TestSchedulingInASession",
    "TestSendingTogether",
    "TestSessionIdOnAPlainQueue",
    "TestSessionLease",
    "TestSessionMessages",
    "TestSessionOrder",
    "TestSessionState",
    "TestSessionsSettledTogether",
    "TestSettling",
    "TestSettlingMeanwhile",
    "TestSettlingTogether",
    "TestSixteenThreads",
    "TestSize",
    "TestStats",
    "TestSubmit",
    "TestTheBrokersOwnLimit",
    "TestTimeToLive",
    "TestTooLate",
    "TestTwice",
    "TestWaiting",
    "TestWorkersAndSessionState",
    "TestWrongKind",
    "Time",
]
