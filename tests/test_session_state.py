"""How a session's state is stored: the user's bytes whole, a mark beside them, foreign values as they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_runtime.session_state import HEADER, LONGEST_HEADER, Mark, SessionState, pack, unpack

marks = st.builds(Mark, sequence=st.integers(0, 2**63), count=st.integers(1, 10**6))
states = st.builds(
    SessionState, user=st.none() | st.binary(max_size=50), mark=st.none() | marks, foreign=st.just(False)
)


@given(states)
def test_what_is_packed_is_unpacked(state: SessionState) -> None:
    assert unpack(pack(state)) == state


@given(states)
def test_the_line_before_the_users_bytes_is_short(state: SessionState) -> None:
    assert len(pack(state) or b"") - len(state.user or b"") <= LONGEST_HEADER


@given(st.binary(max_size=200))
def test_whatever_is_stored_can_be_read_and_a_foreign_value_stays_as_it_is(stored: bytes) -> None:
    state = unpack(stored)

    if state.foreign:
        assert (state.user, state.mark, pack(state)) == (stored, None, stored)


def test_nothing_is_stored_for_nothing() -> None:
    assert pack(SessionState()) is None
    assert unpack(None) == unpack(b"") == SessionState()


def test_it_is_readable() -> None:
    packed = pack(SessionState(user=b"user's", mark=Mark(4711, 2)))

    assert packed == b'queue_runtime/1 {"mark":[4711,2],"user":true}\nuser\'s'


def test_empty_bytes_are_not_nothing() -> None:
    assert unpack(pack(SessionState(user=b""))).user == b""


@pytest.mark.parametrize(
    "stored",
    [
        b"hello",
        HEADER,
        HEADER + b'{"user":true}',  # no end of the line
        HEADER + b"{nonsense\nuser's",
        HEADER + b"[1,2]\nuser's",
        HEADER + b" " * LONGEST_HEADER + b"{}\n",
        HEADER + b"\xff\n",
    ],
)
def test_what_only_looks_like_ours_is_foreign(stored: bytes) -> None:
    assert unpack(stored) == SessionState(user=stored, foreign=True)


@pytest.mark.parametrize("mark", ["1", "[1]", "[1,0]", "[1,-5]", '["1",2]', "[1,2,3]", "[1.5,2]", "[true,1]"])
def test_a_mark_that_is_none_is_passed_over(mark: str) -> None:
    stored = HEADER + b'{"mark":' + mark.encode() + b',"user":true}\nmine'

    assert unpack(stored) == SessionState(user=b"mine")
