"""How many messages a fetch asks for: decisions, without a broker or a clock in sight."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_runtime.fetch_sizes import MOST_TROUBLED, PROBE_EVERY, TROUBLE, WELL, FetchSizes


def fresh() -> FetchSizes:
    return FetchSizes(10)


def settled(depth: int = 2) -> FetchSizes:
    """Of a queue where all goes well, whose sessions have *depth* messages."""
    sizes = fresh()
    for _ in range(WELL):
        sizes.went_well()
    came(sizes, size=10, messages=depth, groups=1)
    return sizes


def came(sizes: FetchSizes, *, size: int, messages: int, groups: int, again: bool = False) -> None:
    sizes.came(size, messages, [f"g{n}" for n in range(groups)], again=again, now=0.0)


class TestDepth:
    def test_is_what_an_answer_had_of_a_session(self) -> None:
        sizes = settled()

        came(sizes, size=10, messages=9, groups=3)

        assert [sizes.size(wanted, 0.0) for wanted in (1, 2, 3)] == [3, 6, 9]

    def test_doubles_when_a_full_answer_had_several_of_a_session(self) -> None:
        sizes = settled()

        came(sizes, size=4, messages=4, groups=2)

        assert sizes.size(1, 0.0) == 4

    @given(st.lists(st.tuples(st.integers(1, 10), st.integers(1, 10)), max_size=50), st.integers(1, 1000))
    def test_asks_for_four_messages_at_most_for_a_session_and_ten_in_all(
        self, answers: list[tuple[int, int]], wanted: int
    ) -> None:
        sizes = settled()
        for messages, groups in answers:
            came(sizes, size=10, messages=messages, groups=min(groups, messages))

        assert 1 <= sizes.size(wanted, 0.0) <= min(10, 4 * wanted)

    def test_is_one_for_sessions_of_one_message(self) -> None:
        sizes = settled()

        came(sizes, size=8, messages=3, groups=3)

        assert sizes.size(5, 0.0) == 5

    def test_is_tried_anew_now_and_then_where_answers_are_full(self) -> None:
        sizes, asked = settled(depth=1), []
        for _ in range(2 * PROBE_EVERY):
            asked.append(sizes.size(1, 0.0))
            came(sizes, size=asked[-1], messages=1, groups=1)

        assert asked.count(2) == 2

    def test_is_not_learned_from_an_empty_answer(self) -> None:
        sizes = settled(depth=3)

        came(sizes, size=3, messages=0, groups=0)

        assert sizes.size(1, 0.0) == 3


class TestCaution:
    def test_is_one_session_at_a_time_in_a_new_process(self) -> None:
        sizes = fresh()

        assert sizes.size(16, 0.0) == 2

    def test_is_over_for_a_new_process_when_as_many_sessions_as_must_have_ended_well(self) -> None:
        sizes = fresh()
        for _ in range(WELL):
            assert sizes.size(4, 0.0) == 2
            sizes.went_well()

        assert sizes.size(4, 0.0) == 8

    def test_is_one_message_at_a_time_after_a_failure(self) -> None:
        sizes = settled(depth=4)

        sizes.failed("a", 0.0)

        assert sizes.size(16, 0.0) == 1

    def test_begins_when_a_message_comes_again(self) -> None:
        sizes = settled(depth=4)

        came(sizes, size=8, messages=8, groups=2, again=True)

        assert sizes.size(16, 0.0) == 1

    def test_is_not_prolonged_by_messages_that_come_again_and_end_well(self) -> None:
        sizes = settled()
        for _ in range(WELL):
            came(sizes, size=1, messages=1, groups=1, again=True)
            sizes.went_well()

        assert sizes.size(2, 0.0) == 4

    def test_is_over_when_the_group_that_failed_and_others_ended_well(self) -> None:
        sizes = settled()
        sizes.failed("a", 0.0)
        sizes.came(1, 1, ["a"], again=True, now=0.0)
        sizes.went_well()
        for _ in range(WELL - 1):
            assert sizes.size(2, 0.0) == 1
            sizes.went_well()

        assert sizes.size(2, 0.0) == 4

    @pytest.mark.parametrize(("now", "size"), [(29.9, 4), (30.0, 1), (30.0 + TROUBLE, 4)])
    def test_expects_the_group_that_failed_from_when_it_may_come_for_a_while(
        self, now: float, size: int
    ) -> None:
        sizes = settled()
        sizes.failed("a", 30.0)
        sizes.failed("a", 5.0)  # what was behind it in the session
        for _ in range(WELL):
            sizes.went_well()

        assert sizes.size(2, now) == size

    def test_does_not_expect_a_group_that_is_in_hand_here(self) -> None:
        sizes = settled()
        sizes.failed("a", 30.0)
        for _ in range(WELL):
            sizes.went_well()

        sizes.came(1, 1, ["a"], again=False, now=31.0)

        assert sizes.size(2, 31.0) == 2

    def test_remembers_a_bounded_number_of_groups(self) -> None:
        sizes = settled()
        for n in range(3 * MOST_TROUBLED):
            sizes.failed(f"f{n}", 0.0)

        assert len(sizes._free_at) == MOST_TROUBLED

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["failed", "went_well", "came", "lost"]),
                st.sampled_from("abc"),
                st.floats(0, 20),
            ),
            max_size=100,
        ),
        st.integers(1, 100),
    )
    def test_ends_whatever_has_happened(self, history: list[tuple[str, str, float]], wanted: int) -> None:
        sizes, now = fresh(), 0.0
        for event, group, passed in history:
            now += passed
            match event:
                case "failed":
                    sizes.failed(group, now + passed)
                case "went_well":
                    sizes.went_well()
                case "came":
                    sizes.came(5, 3, {group, "d"}, again=passed > 10, now=now)
                case _:
                    sizes.lost(7)
            assert 1 <= sizes.size(wanted, now) <= 10
        for _ in range(WELL):
            sizes.went_well()

        assert not sizes.cautious(now + 20 + TROUBLE)


def test_a_lost_answer_is_asked_for_with_the_same_size_once() -> None:
    sizes = settled(depth=3)
    sizes.lost(8)
    sizes.failed("a", 0.0)

    assert [sizes.size(1, 0.0), sizes.size(1, 0.0)] == [8, 1]
