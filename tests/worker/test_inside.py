"""Who is in the handler, and who stands behind one of them."""

from __future__ import annotations

from queue_runtime.worker.inside import Inside


def nothing() -> None:
    pass


class TestInside:
    def test_nobody_stands_behind_a_session_that_nobody_is_at(self) -> None:
        inside: Inside[str] = Inside()
        inside.enter(1, "one", "a", 10.0)

        assert inside.stand_behind("run", "b", nothing, 12.0) is None
        assert inside.behind == 0

    def test_says_how_long_the_first_of_them_has_been_at_it(self) -> None:
        inside: Inside[str] = Inside()
        inside.enter(1, "one", "a", 10.0)
        inside.enter(2, "two", "a", 11.0)

        stuck = inside.stand_behind("run", "a", nothing, 15.0)

        assert stuck is not None
        assert (stuck.seconds, stuck.overtaken, inside.behind) == (5.0, [], 1)

    def test_those_behind_go_on_when_the_last_of_their_session_has_left(self) -> None:
        inside: Inside[str] = Inside()
        gone: list[str] = []
        inside.enter(1, "one", "a", 10.0)
        inside.enter(2, "two", "a", 11.0)
        inside.enter(3, "three", "b", 11.0)
        inside.stand_behind("of a", "a", lambda: gone.append("a"), 12.0)
        inside.stand_behind("of b", "b", lambda: gone.append("b"), 12.0)

        assert inside.exit(1) == []
        for go in inside.exit(2):
            go()

        assert (gone, inside.behind, inside.names()) == (["a"], 1, ["three"])

    def test_who_comes_later_to_the_same_session_has_overtaken_those_that_wait(self) -> None:
        inside: Inside[str] = Inside()
        inside.enter(1, "one", "a", 10.0)
        inside.stand_behind("first", "a", nothing, 11.0)

        stuck = inside.stand_behind("second", "a", nothing, 12.0)

        assert stuck is not None
        assert stuck.overtaken == ["first"]

    def test_who_is_gone_is_not_called(self) -> None:
        inside: Inside[str] = Inside()
        inside.enter(1, "one", "a", 10.0)
        inside.stand_behind("run", "a", nothing, 11.0)

        inside.gone("run")
        inside.gone("nobody")

        assert (inside.behind, inside.exit(1)) == (0, [])

    def test_a_message_without_a_session_has_nobody_behind_it(self) -> None:
        inside: Inside[str] = Inside()
        inside.enter(1, "one", None, 10.0)
        inside.enter(2, "two", "a", 10.0)
        inside.stand_behind("run", "a", nothing, 11.0)

        assert inside.exit(1) == []
        assert inside.behind == 1
