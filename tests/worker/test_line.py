"""The line before the handler: first come, first served, so many at once, one of a lane at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from queue_runtime.worker.line import Line, Place


def place(holder: str, lane: str | None = None) -> Place:
    return Place(holder, lambda: None, lane)


def join(line: Line, *holders: str, lane: str | None = None) -> list[str]:
    """They stand in line, one after the other; returns those whose turn it is then."""
    for holder in holders:
        line.join(place(holder, lane))
    return going(line)


def going(line: Line) -> list[str]:
    return [str(place.holder) for place in line.advance()]


def leave(line: Line, holder: str) -> list[str]:
    line.leave(holder)
    return going(line)


def gone(line: Line, holder: str) -> list[str]:
    line.gone(holder)
    return going(line)


class TestTheLine:
    def test_lets_in_so_many_in_the_order_in_which_they_came(self) -> None:
        line = Line(2)

        assert join(line, "a", "b", "c", "d") == ["a", "b"]
        assert leave(line, "b") == ["c"]
        assert leave(line, "a") == ["d"]

    def test_lets_nobody_in_twice(self) -> None:
        line = Line(2)
        join(line, "a")

        assert going(line) == []

    def test_has_room_again_for_whoever_left_behind_those_who_came_before(self) -> None:
        line = Line(1)
        join(line, "a", "b")

        line.leave("a")
        assert join(line, "a") == ["b"]
        assert leave(line, "b") == ["a"]

    def test_passes_over_whoever_is_gone_before_its_turn(self) -> None:
        line = Line(1)
        join(line, "a", "b", "c")

        assert gone(line, "b") == []
        assert gone(line, "a") == ["c"]

    def test_does_not_mind_who_was_never_in_it(self) -> None:
        line = Line(1)
        join(line, "a")

        assert gone(line, "nobody") == []
        assert leave(line, "nobody") == []


class TestALane:
    def test_is_for_one_at_a_time_until_that_one_is_gone(self) -> None:
        line = Line(3)

        assert join(line, "a1", "a2", "a3", lane="a") == ["a1"]
        assert leave(line, "a1") == [], "it is out of the handler, and not settled"
        assert gone(line, "a1") == ["a2"]
        assert gone(line, "a2") == ["a3"]

    def test_is_in_nobody_elses_way(self) -> None:
        line = Line(2)
        join(line, "a1", "a2", "a3", lane="a")

        assert join(line, "b1", lane="b") == ["b1"]

    def test_says_how_many_are_blocked_by_it(self) -> None:
        line = Line(1)
        join(line, "a1", "a2", "a3", lane="a")
        join(line, "b1", lane="b")

        blocked = [line.blocked]
        for holder in ("a3", "a1", "a2", "b1"):
            line.gone(holder)
            blocked.append(line.blocked)

        assert blocked == [2, 1, 0, 0, 0], "b1 waits for the handler, and a1 for nobody"

    def test_is_free_for_the_next_when_its_holder_goes_before_its_turn(self) -> None:
        line = Line(1)
        join(line, "x")
        join(line, "a1", "a2", lane="a")

        line.gone("a1")

        assert gone(line, "x") == ["a2"]

    def test_is_left_by_one_who_comes_again_behind_the_others_of_it(self) -> None:
        line = Line(2)
        join(line, "a1", "a2", lane="a")

        assert gone(line, "a1") == ["a2"]
        assert join(line, "a1", lane="a") == []
        assert gone(line, "a2") == ["a1"]


@dataclass
class Queue:
    """The plainest description of the line: everybody in the order of their coming, and what they do."""

    most: int
    waiting: list[tuple[int, str | None]] = field(default_factory=list)
    inside: set[int] = field(default_factory=set)
    on: dict[str, int] = field(default_factory=dict)
    """Who is on a lane: from the moment on at which nobody of it is before, until it is gone."""

    def settle(self) -> None:
        """Whoever is first of those who wait for a free lane is on it."""
        for number, lane in self.waiting:
            if lane is not None:
                self.on.setdefault(lane, number)

    def blocked(self) -> int:
        return sum(lane is not None and self.on[lane] != number for number, lane in self.waiting)

    def gone(self, number: int) -> None:
        self.waiting = [entry for entry in self.waiting if entry[0] != number]
        self.inside.discard(number)
        self.on = {lane: holder for lane, holder in self.on.items() if holder != number}
        self.settle()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["join", "join", "join", "leave", "gone", "gone", "again"]),
        st.sampled_from([None, None, "a", "a", "b"]),
        st.integers(0, 7),
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(most=st.integers(1, 3), steps=STEPS)
def test_in_every_history_no_more_are_inside_one_of_a_lane_nobody_waits_in_vain_and_nothing_is_left(
    most: int, steps: list[tuple[str, str | None, int]]
) -> None:
    line, queue = Line(most), Queue(most)
    lanes: dict[int, str | None] = {}
    came: dict[str | None, list[int]] = {}

    def advance() -> None:
        for place in line.advance():
            number = place.holder
            assert isinstance(number, int)
            lane = lanes[number]
            assert (number, lane) in queue.waiting
            assert lane is None or queue.on[lane] == number, "another of its lane is not gone"
            queue.waiting.remove((number, lane))
            queue.inside.add(number)
            if lane is not None:
                assert came[lane].pop(0) == number, "of a lane they go in the order of their coming"
        assert len(queue.inside) <= most
        ready = [n for n, lane in queue.waiting if lane is None or queue.on[lane] == n]
        assert not ready or len(queue.inside) == most, "somebody waits, and there is room"
        assert line.blocked == queue.blocked()

    def stand(number: int, lane: str | None) -> None:
        line.join(Place(number, lambda: None, lane))
        lanes[number] = lane
        queue.waiting.append((number, lane))
        if lane is not None:
            came.setdefault(lane, []).append(number)
        queue.settle()
        advance()

    def go(number: int) -> None:
        line.gone(number)
        lane = lanes.get(number)
        if lane is not None and (number, lane) in queue.waiting:
            came[lane].remove(number)
        queue.gone(number)
        advance()

    for what, lane, which in steps:
        known = sorted(lanes)
        if what == "join":
            stand(len(lanes), lane)
        elif known:
            number = known[-1 - which % len(known)]
            if what == "leave":
                line.leave(number)
                queue.inside.discard(number)
                advance()
            else:
                go(number)
                if what == "again":
                    stand(number, lane)

    for number in sorted(lanes):
        go(number)

    assert (line.blocked, queue.waiting, queue.inside) == (0, [], set())
    assert not any((line._ready, line._inside, line._behind, line._on)), "nothing is left in it"


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(most=st.integers(1, 3), ends=st.lists(st.integers(0, 2), max_size=40))
def test_without_lanes_it_is_first_in_first_out(most: int, ends: list[int]) -> None:
    line = Line(most)
    entered = join(line, *(str(n) for n in range(len(ends))))
    inside = list(entered)

    for which in ends:
        if inside:
            came = gone(line, inside.pop(which % len(inside)))
            entered += came
            inside += came

    assert entered == [str(n) for n in range(len(ends))]
