"""What travels together: no limit broken, no order bent, no request too many."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_runtime.batching import Entry, plan
from queue_runtime.provider import Capabilities

FIFO = Capabilities(
    sessions="groups",
    max_message_size=100,
    max_batch=10,
    max_batch_size=100,
    batched_settling=True,
    atomic_batch=False,
    max_attributes=10,
    max_delay=0.0,
    max_lease=43200.0,
    peek=False,
    chosen_lease=True,
    cancel=False,
    copied_delays=False,
    session_state=False,
    counts_lost_sessions=True,
)
STANDARD = replace(FIFO, sessions="none")
NATIVE = replace(FIFO, sessions="native", atomic_batch=True)

queues = st.builds(
    lambda base, most, size: replace(base, max_batch=most, max_batch_size=size),
    st.sampled_from([FIFO, STANDARD, NATIVE]),
    st.integers(1, 12),
    st.integers(100, 250),
)
batches = st.lists(
    st.builds(Entry, st.integers(0, 100), st.none() | st.sampled_from(["a", "b", "c"])), max_size=80
)


def entries(*sessions: str | None, size: int = 1) -> list[Entry]:
    return [Entry(size, session) for session in sessions]


class TestAnyPlan:
    @given(batches, queues)
    def test_has_every_entry_once(self, batch: list[Entry], queue: Capabilities) -> None:
        found = [index for request in plan(batch, queue) for index in request]

        assert sorted(found) == list(range(len(batch)))

    @given(batches, queues)
    def test_keeps_the_limits_of_the_queue(self, batch: list[Entry], queue: Capabilities) -> None:
        for request in plan(batch, queue):
            assert 1 <= len(request) <= queue.max_batch
            assert sum(batch[index].size for index in request) <= queue.max_batch_size

    @given(batches, queues)
    def test_goes_up_within_a_request_and_along_each_session(
        self, batch: list[Entry], queue: Capabilities
    ) -> None:
        order: defaultdict[str, list[int]] = defaultdict(list)
        for request in plan(batch, queue):
            assert request == sorted(request)
            for index in request:
                order[batch[index].session_id or f"alone {index}"].append(index)

        assert all(indexes == sorted(indexes) for indexes in order.values())

    @given(batches, queues)
    def test_has_one_entry_of_a_session_in_a_request_that_can_fail_in_part(
        self, batch: list[Entry], queue: Capabilities
    ) -> None:
        for request in plan(batch, queue):
            sessions = [batch[i].session_id for i in request if batch[i].session_id is not None]
            if queue.sessions != "none" and not queue.atomic_batch:
                assert len(sessions) == len(set(sessions))

    @given(batches, queues)
    def test_lets_no_entry_travel_later_than_it_could(self, batch: list[Entry], queue: Capabilities) -> None:
        requests = plan(batch, queue)
        one_each = queue.sessions != "none" and not queue.atomic_batch
        first_possible: dict[str, int] = {}
        for index, entry in sorted((i, batch[i]) for request in requests for i in request):
            at = next(place for place, request in enumerate(requests) if index in request)
            earliest = first_possible.get(entry.session_id, 0) if entry.session_id is not None else 0

            for earlier in requests[earliest:at]:
                used = sum(batch[i].size for i in earlier)
                assert len(earlier) == queue.max_batch or used + entry.size > queue.max_batch_size

            if entry.session_id is not None:
                first_possible[entry.session_id] = at + 1 if one_each else at


class TestPlans:
    def test_of_one_session_on_a_fifo_queue_are_one_request_each(self) -> None:
        assert plan(entries("a", "a", "a"), FIFO) == [[0], [1], [2]]

    def test_of_many_sessions_share_their_requests(self) -> None:
        assert plan(entries("a", "a", "b", "b", "c"), FIFO) == [[0, 2, 4], [1, 3]]

    def test_put_what_has_no_session_where_there_is_room(self) -> None:
        assert plan(entries("a", "a", None, None), replace(FIFO, max_batch=2)) == [[0, 2], [1, 3]]

    @pytest.mark.parametrize("queue", [NATIVE, STANDARD], ids=["native", "standard"])
    def test_fill_a_request_with_one_session_where_that_bends_no_order(self, queue: Capabilities) -> None:
        assert plan(entries(*["a"] * 25), queue) == [[*range(10)], [*range(10, 20)], [*range(20, 25)]]

    def test_do_not_let_a_small_entry_overtake_a_large_one_of_its_session(self) -> None:
        batch = [Entry(60, "a"), Entry(60, "a"), Entry(10, "a"), Entry(10, "b")]

        assert plan(batch, NATIVE) == [[0, 3], [1, 2]]

    def test_split_by_bytes(self) -> None:
        assert plan(entries(None, None, None, size=50), STANDARD) == [[0, 1], [2]]

    def test_give_an_entry_that_fits_nowhere_a_request_of_its_own(self) -> None:
        """The broker refuses it; the check before the plan has let it through."""
        assert plan([Entry(1, None), Entry(500, None), Entry(1, None)], STANDARD) == [[0, 2], [1]]

    def test_of_nothing_are_nothing(self) -> None:
        assert plan([], FIFO) == []
