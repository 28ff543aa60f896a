"""The AMQP type system of the local Service Bus: what goes in comes out, and what is wrong is refused."""

from __future__ import annotations

import struct
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_runtime.testing.servicebus.amqp_types import (
    MAX_DEPTH,
    Array,
    Described,
    Int,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
    decode,
    encode,
    encode_entries,
    map_entries,
)
from queue_runtime.testing.servicebus.errors import DecodeError

INT64 = st.integers(-(2**63), 2**63 - 1)
NAMES = st.text(st.characters(codec="ascii"), max_size=300)

SIMPLE = (
    st.none()
    | st.booleans()
    | st.integers(0, 2**8 - 1).map(UByte)
    | st.integers(0, 2**16 - 1).map(UShort)
    | st.integers(0, 2**32 - 1).map(UInt)
    | st.integers(0, 2**64 - 1).map(ULong)
    | st.integers(-(2**31), 2**31 - 1).map(Int)
    | INT64
    | INT64.map(Timestamp)
    | st.floats(allow_nan=False)
    | st.uuids()
    | st.binary(max_size=300)
    | st.text(max_size=300)
    | NAMES.map(Symbol)
)

ARRAYS = st.one_of(
    st.lists(st.integers(0, 2**32 - 1)).map(lambda items: Array(UInt, items)),
    st.lists(INT64).map(lambda items: Array(int, items)),
    st.lists(INT64).map(lambda items: Array(Timestamp, items)),
    st.lists(st.uuids()).map(lambda items: Array(UUID, items)),
    st.lists(NAMES).map(lambda items: Array(Symbol, items)),
)

VALUES = st.recursive(
    SIMPLE | ARRAYS,
    lambda children: (
        st.lists(children, max_size=5)
        | st.dictionaries(SIMPLE, children, max_size=5)
        | st.builds(Described, st.integers(0, 2**64 - 1).map(ULong) | NAMES.map(Symbol), children)
    ),
    max_leaves=20,
)


def plain(value: Any) -> Any:
    """What `decode` makes of the encoded *value*."""
    match value:
        case Array():
            return list(value.items)
        case list():
            return [plain(item) for item in value]
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case Described():
            return Described(value.descriptor, plain(value.value))
    return value


class TestRoundTrip:
    @given(VALUES)
    def test_a_value_comes_back(self, value: Any) -> None:
        encoded = encode(value)

        assert decode(encoded) == (plain(value), len(encoded))

    @given(VALUES, st.binary(max_size=20), st.binary(max_size=20))
    def test_a_value_is_found_among_other_bytes(self, value: Any, before: bytes, after: bytes) -> None:
        encoded = encode(value)

        found, end = decode(before + encoded + after, len(before))

        assert (found, end) == (plain(value), len(before) + len(encoded))

    @given(st.dictionaries(NAMES.map(Symbol), VALUES, max_size=5))
    def test_a_map_can_be_passed_on_entry_by_entry(self, value: dict[Symbol, Any]) -> None:
        encoded = encode(value)

        entries, end = map_entries(encoded)

        assert end == len(encoded)
        assert list(entries) == list(value)
        assert decode(encode_entries(entries.values()))[0] == plain(value)

    def test_a_null_map_has_no_entries(self) -> None:
        assert map_entries(encode(None)) == ({}, 1)

    def test_only_classes_that_amqp_knows_are_written(self) -> None:
        with pytest.raises(TypeError, match="no AMQP type for complex"):
            encode(1j)


class TestOtherEncodings:
    """What the broker does not write, but others may."""

    @pytest.mark.parametrize(
        ("encoded", "value"),
        [
            ("5601", True),
            ("5600", False),
            ("5001", 1),
            ("51ff", -1),
            ("61ffff", -1),
            ("700000000a", 10),
            ("800000000000000009", 9),
            ("7100000005", 5),
            ("723f800000", 1.0),
            ("7300000041", "A"),
            ("7400000000", bytes(4)),
            ("840000000000000000", bytes(8)),
            ("94" + "00" * 16, bytes(16)),
            ("b00000000161", b"a"),
            ("d00000000400000000", []),
            ("e00402a00161", None),  # refused below: two items, one there
            ("e0050250" + "0102" + "00", None),
            ("e0040250" + "0102", [1, 2]),
            ("e0070200a3016150" + "0102", None),
        ],
    )
    def test_is_read(self, encoded: str, value: Any) -> None:
        raw = bytes.fromhex(encoded)
        if value is None:
            with pytest.raises(DecodeError):
                decode(raw)
        else:
            assert decode(raw) == (value, len(raw))

    def test_an_array_of_described_values(self) -> None:
        raw = bytes.fromhex("e0" + "07" + "02" + "005324" + "50" + "0102")

        assert decode(raw)[0] == [Described(0x24, 1), Described(0x24, 2)]


class TestRefused:
    @given(st.binary(max_size=200))
    def test_any_bytes_are_a_value_or_a_decode_error(self, raw: bytes) -> None:
        try:
            _, end = decode(raw)
        except DecodeError:
            return
        assert 0 < end <= len(raw)

    @given(VALUES, st.data())
    def test_a_value_that_is_cut_off(self, value: Any, data: st.DataObject) -> None:
        encoded = encode(value)
        length = data.draw(st.integers(0, len(encoded) - 1))

        with pytest.raises(DecodeError):
            decode(encoded[:length])

    @given(VALUES, st.data())
    def test_a_byte_that_changed_is_a_value_or_a_decode_error(self, value: Any, data: st.DataObject) -> None:
        encoded = bytearray(encode(value))
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))

        try:
            decode(bytes(encoded))
        except DecodeError:
            pass  # as it may be

    @pytest.mark.parametrize("constructor", ["c0", "c1", "e0"])
    def test_nesting_without_end(self, constructor: str) -> None:
        raw = bytes.fromhex(constructor + "ff01") * 100_000

        with pytest.raises(DecodeError):
            decode(raw)

    def test_nesting_that_is_well_formed_but_too_deep(self) -> None:
        value: Any = None
        for _ in range(MAX_DEPTH + 1):
            value = [value]

        with pytest.raises(DecodeError, match="nested more than"):
            decode(encode(value))

    def test_descriptors_of_descriptors(self) -> None:
        with pytest.raises(DecodeError, match="nested more than"):
            decode(bytes(10_000))

    def test_an_array_that_claims_four_billion_nulls_in_ten_bytes(self) -> None:
        raw = b"\xf0" + struct.pack(">II", 5, 2**32 - 1) + b"\x40"

        with pytest.raises(DecodeError, match="claims"):
            decode(raw)

    def test_a_list_that_claims_more_bytes_than_there_are(self) -> None:
        with pytest.raises(DecodeError, match="claims"):
            decode(b"\xd0" + struct.pack(">II", 2**31, 1) + b"\x40")

    def test_a_map_with_a_key_too_many(self) -> None:
        with pytest.raises(DecodeError, match="in pairs"):
            decode(bytes.fromhex("c1020140"))

    def test_a_map_whose_key_is_a_list(self) -> None:
        with pytest.raises(DecodeError, match="simple value"):
            decode(bytes.fromhex("c103024540"))

    def test_text_that_is_no_text(self) -> None:
        with pytest.raises(DecodeError, match="UTF-8"):
            decode(bytes.fromhex("a101ff"))

    def test_a_character_beyond_unicode(self) -> None:
        with pytest.raises(DecodeError, match="character"):
            decode(bytes.fromhex("7300110000"))

    def test_a_constructor_that_does_not_exist(self) -> None:
        with pytest.raises(DecodeError, match="0x99"):
            decode(bytes.fromhex("99"))
