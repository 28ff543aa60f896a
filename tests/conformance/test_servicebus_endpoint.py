"""The conformance rows on any Service Bus endpoint, or on a real namespace.

``QUEUE_RUNTIME_TEST_SERVICEBUS='Endpoint=sb://...'`` is a connection string, and with it goes one of

``QUEUE_RUNTIME_TEST_SERVICEBUS_CONTROL=http://127.0.0.1:PORT``
    A broker with this control port makes the queues, see `queue_runtime.testing.servicebus.control`.

``QUEUE_RUNTIME_TEST_SERVICEBUS_QUEUE=plain,sessions``
    Two queues of a real namespace that nobody else uses: what is in them is thrown away. The second requires
    sessions; both are best made with a lock of 5 seconds, 10 or more deliveries and no duplicate detection.
    The key needs the rights to listen and to send; with the right to manage more rows run. Rows that need
    another setting, or two queues of a kind, skip and say so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from queue_runtime.testing.conformance import *  # noqa: F403  # the rows: pytest collects what is here
from queue_runtime.testing.servicebus import ControlPort
from tests.conformance.given_queues import GivenQueuesHarness
from tests.conformance.servicebus_harness import ServiceBusHarness

CONNECTION_STRING = os.environ.get("QUEUE_RUNTIME_TEST_SERVICEBUS", "")
CONTROL = os.environ.get("QUEUE_RUNTIME_TEST_SERVICEBUS_CONTROL", "")
QUEUES = os.environ.get("QUEUE_RUNTIME_TEST_SERVICEBUS_QUEUE", "")

if not CONNECTION_STRING:
    pytest.skip("QUEUE_RUNTIME_TEST_SERVICEBUS has no connection string", allow_module_level=True)

pytestmark: list[pytest.MarkDecorator] = []
if QUEUES:
    # They are for one row at a time, under pytest-xdist for one worker. What a row has left locked in them is
    # waited for, up to the five minutes that a lock lasts at most.
    pytestmark = [pytest.mark.xdist_group("given queues"), pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def harness() -> Iterator[ServiceBusHarness | GivenQueuesHarness]:
    assert bool(CONTROL) != bool(QUEUES), (
        "name the control port in QUEUE_RUNTIME_TEST_SERVICEBUS_CONTROL, "
        "or two queues in QUEUE_RUNTIME_TEST_SERVICEBUS_QUEUE"
    )
    if CONTROL:
        broker = ControlPort(CONTROL)
        target = f"servicebus://?connection_string={quote(CONNECTION_STRING, safe='')}"
        before = broker.stats()["delivery_id_violations"]
        yield ServiceBusHarness(f"servicebus with {CONTROL}", broker, target)
        assert broker.stats()["delivery_id_violations"] == before
        return
    with GivenQueuesHarness(CONNECTION_STRING, *_two(QUEUES)) as given:
        yield given


@pytest.fixture(autouse=True)
def _a_row_begins(harness: ServiceBusHarness | GivenQueuesHarness) -> None:
    if isinstance(harness, GivenQueuesHarness):
        harness.begin()


def _two(names: str) -> tuple[str, str]:
    found = [name.strip() for name in names.split(",")]
    assert len(found) == 2 and all(found), (  # noqa: PT018  # one thing is wrong in either case
        f"QUEUE_RUNTIME_TEST_SERVICEBUS_QUEUE must be PLAIN,SESSIONS and is {names!r}"
    )
    return found[0], found[1]
