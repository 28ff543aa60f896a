"""What goes in as a dataclass comes out as one, and what does not fit is refused by the name of its field."""

from __future__ import annotations

import enum
import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, make_dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar, Union
from uuid import UUID

import pytest
from dataclasses_json import DataClassJsonMixin, LetterCase, Undefined, config, dataclass_json
from hypothesis import given
from hypothesis import strategies as st

from queue_runtime import payloads
from queue_runtime.errors import ConfigurationError, DecodeError, InvalidMessage

LOGIN = UUID("12345678-1234-5678-1234-567812345678")
Number = NewType("Number", int)
V = TypeVar("V")


class State(enum.Enum):
    OPEN = "open"
    CLOSED = "closed"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Kind(enum.StrEnum):
    BUG = "bug"


@dataclass(frozen=True)
class User:
    login: str
    site_admin: bool = False


@dataclass(frozen=True)
class Everything:
    """A field of every type that a payload may have."""

    number: int
    ratio: float
    title: str
    draft: bool
    state: State
    level: Level
    kind: Kind
    mode: Literal["fast", "slow", 3]
    at: datetime
    id: UUID
    price: Decimal
    user: User
    assignee: User | None
    maybe: Optional[int]  # noqa: UP045  # both spellings must work
    either: Union[int, str]  # noqa: UP007  # the same
    labels: list[str]
    users: list[User]
    pair: tuple[int, str]
    row: tuple[int, ...]
    unique: frozenset[int]
    reviewers: Sequence[User]
    counts: dict[str, int]
    by_login: dict[str, User]
    states: dict[State, int]
    tree: Mapping[str, list[User]]
    tagged: Annotated[int, "positive"]
    new: Number
    anything: Any
    nothing: None
    rest: str = "rest"
    more: list[int] = field(default_factory=list)


def read(text: str | bytes, payload_type: Any) -> Any:
    return payloads.decode(text.encode() if isinstance(text, str) else text, payload_type)


def field_of(annotation: Any, value: Any) -> Any:
    """What a field with *annotation* makes of *value*."""
    return read(json.dumps({"x": value}), make_dataclass("Payload", [("x", annotation)])).x


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
integers = st.integers(-(2**70), 2**70)
users = st.builds(User, text, st.booleans())
moments = st.datetimes(timezones=st.none() | st.just(UTC) | st.just(timezone(timedelta(hours=5.5))))
everything = st.builds(
    Everything,
    number=integers,
    ratio=st.floats(allow_nan=False, allow_infinity=False),
    title=text,
    draft=st.booleans(),
    state=st.sampled_from(State),
    level=st.sampled_from(Level),
    kind=st.sampled_from(Kind),
    mode=st.sampled_from(["fast", "slow", 3]),
    at=moments,
    id=st.uuids(),
    price=st.decimals(allow_nan=False),
    user=users,
    assignee=st.none() | users,
    maybe=st.none() | integers,
    either=integers | text,
    labels=st.lists(text, max_size=3),
    users=st.lists(users, max_size=3),
    pair=st.tuples(integers, text),
    row=st.lists(integers, max_size=3).map(tuple),
    unique=st.frozensets(integers, max_size=3),
    reviewers=st.lists(users, max_size=3).map(tuple),
    counts=st.dictionaries(text, integers, max_size=3),
    by_login=st.dictionaries(text, users, max_size=3),
    states=st.just({}),
    tree=st.dictionaries(text, st.lists(users, max_size=2), max_size=2),
    tagged=integers,
    new=integers,
    anything=st.recursive(
        st.none() | st.booleans() | integers | text,
        lambda items: st.lists(items, max_size=2) | st.dictionaries(text, items, max_size=2),
        max_leaves=5,
    ),
    nothing=st.none(),
    rest=text,
    more=st.lists(integers, max_size=3),
)


class TestRoundTrip:
    @given(everything)
    def test_a_dataclass_comes_out_as_it_went_in(self, payload: Everything) -> None:
        body, content_type = payloads.encode(payload)

        assert content_type == "application/json"
        assert payloads.decode(body, Everything) == payload

    def test_bytes_travel_as_they_are(self) -> None:
        assert payloads.encode(b"\x00\xff") == (b"\x00\xff", None)

    def test_text_travels_as_utf_8(self) -> None:
        assert payloads.encode("grüß 🚀") == ("grüß 🚀".encode(), "text/plain; charset=utf-8")

    @pytest.mark.parametrize("value", [None, True, 0, 1.5, [1, {"a": []}], {"a": {"b": None}}])
    def test_a_json_value_comes_out_without_a_type(self, value: object) -> None:
        body, content_type = payloads.encode(value)

        assert (payloads.decode(body, None), content_type) == (value, "application/json")

    def test_a_dataclass_inside_a_plain_object_is_written_too(self) -> None:
        body, _ = payloads.encode(
            {"user": User("ada"), "at": datetime(2024, 1, 2, tzinfo=UTC), "ids": {LOGIN}}
        )

        assert json.loads(body) == {
            "user": {"login": "ada", "site_admin": False},
            "at": "2024-01-02T00:00:00+00:00",
            "ids": [str(LOGIN)],
        }

    def test_a_dataclass_of_dataclasses_json_is_written_and_read(self) -> None:
        @dataclass
        class Mixed(DataClassJsonMixin):
            a: int

        # Annotations of a class inside a function can be resolved while they name builtins only.
        assert payloads.decode(payloads.encode(Mixed(1))[0], Mixed) == Mixed(1)

    def test_objects_may_nest_in_their_own_kind(self) -> None:
        tree = Tree(1, [Tree(2, [Tree(3, [])]), Tree(4, [])])

        assert payloads.decode(payloads.encode(tree)[0], Tree) == tree


@dataclass
class Tree:
    n: int
    children: list[Tree]


class TestWhatCannotBeWritten:
    @pytest.mark.parametrize(
        "value",
        [
            object(),
            {"a": b"bytes"},
            {1: "a"},
            {"a": {None: 1}},
            bytearray(b"x"),
            math.nan,
            [math.inf],
            "\ud800",
            {"a": "\ud800"},
            User("\udfff"),
            {"a": datetime(2024, 1, 1).date()},  # noqa: DTZ001  # a date has no zone
            lambda: 1,
        ],
    )
    def test_is_an_invalid_message(self, value: object) -> None:
        with pytest.raises(InvalidMessage):
            payloads.encode(value)

    def test_and_a_value_that_holds_itself_is_one_too(self) -> None:
        circle: list[object] = []
        circle.append(circle)

        with pytest.raises(
            InvalidMessage, match=r"a payload of type list cannot travel as JSON: .* holds itself"
        ):
            payloads.encode(circle)


class TestWrongTypes:
    @pytest.mark.parametrize(
        ("annotation", "value", "message"),
        [
            (int, None, "payload.x: expected int, got null"),
            (int, 1.7, "payload.x: expected int, got 1.7"),
            (int, 1.0, "payload.x: expected int, got 1.0"),
            (int, "7", "payload.x: expected int, got text of 1 characters"),
            (int, True, "payload.x: expected int, got true"),
            (float, False, "payload.x: expected float, got false"),
            (float, "1.5", "payload.x: expected float, got text of 3 characters"),
            (float, 10**400, "payload.x: a number is beyond the range of a float"),
            (bool, 1, "payload.x: expected bool, got 1"),
            (str, 5, "payload.x: expected str, got 5"),
            (str, {"a": 1}, "payload.x: expected str, got an object"),
            (str, ["a"], "payload.x: expected str, got a list of 1"),
            (list[int], "ab", "payload.x: expected a list, got text of 2 characters"),
            (list[int], {"a": 1}, "payload.x: expected a list, got an object"),
            (list[int], [1, None], "payload.x[1]: expected int, got null"),
            (set[Any], [[1]], "payload.x: unhashable type: 'list', so it cannot be in a set"),
            (tuple[int, str], [1], "payload.x: expected 2 items, got 1"),
            (tuple[int, str], [1, 2], "payload.x[1]: expected str, got 2"),
            (tuple[()], [1], "payload.x: expected 0 items, got 1"),
            (dict[str, int], [], "payload.x: expected an object, got a list of 0"),
            (dict[str, int], {"a": "b"}, "payload.x.a: expected int, got text of 1 characters"),
            (dict[State, int], {"new": 1}, "payload.x, key 'new': expected 'open' or 'closed', got"),
            (User, "ada", "payload.x: expected an object for User, got text of 3 characters"),
            (User, {}, "payload.x.login: missing"),
            (list[User], [{"login": "a"}, {"login": None}], "payload.x[1].login: expected str, got null"),
            (State, "new", "payload.x: expected 'open' or 'closed', got text of 3 characters"),
            (Level, 1.0, "payload.x: expected 1 or 2, got 1.0"),
            (Level, True, "payload.x: expected 1 or 2, got true"),
            (Literal["a", 1], "b", "payload.x: expected 'a' or 1, got text of 1 characters"),
            (Literal[1], True, "payload.x: expected 1, got true"),
            (datetime, "soon", "payload.x: expected an ISO 8601 instant, got text of 4 characters"),
            (datetime, 1700000000, "payload.x: expected an ISO 8601 instant as text, got 1700000000"),
            (UUID, "x", "payload.x: expected a UUID, got text of 1 characters"),
            (Decimal, "x", "payload.x: expected a decimal number, got text of 1 characters"),
            (Decimal, 1.5, "payload.x: expected a decimal number as text, got 1.5"),
            (int | None, "a", "payload.x: expected int, got text of 1 characters"),
            (None | int, "a", "payload.x: expected int, got text of 1 characters"),
            (User | None, {}, "payload.x.login: missing"),
            (int | str, None, "payload.x: expected int or str, got null"),
            (int | str | None, 1.5, "payload.x: expected int or str or null, got 1.5"),
            (None, 1, "payload.x: expected null, got 1"),
            (Number, "a", "payload.x: expected int, got text of 1 characters"),
            (Annotated[int, "x"], "a", "payload.x: expected int, got text of 1 characters"),
        ],
    )
    def test_are_refused_by_the_name_of_their_field(self, annotation: Any, value: Any, message: str) -> None:
        with pytest.raises(DecodeError) as caught:
            field_of(annotation, value)

        assert str(caught.value).startswith(message)

    @pytest.mark.parametrize(
        ("annotation", "value", "expected"),
        [
            (float, 1, 1.0),
            (int | str, "a", "a"),
            (User | str, {"login": "a"}, User("a")),
            (dict[str, int] | User, {"login": "a"}, User("a")),
            (list, [1, "a"], [1, "a"]),
            (tuple, [1, "a"], (1, "a")),
            (tuple[()], [], ()),
            (dict, {"a": [1]}, {"a": [1]}),
            (Iterable[int], [1], (1,)),
            (object, None, None),
            (list[Number], [1], [1]),
            (dict[Literal["a"], int], {"a": 1}, {"a": 1}),
            (dict[UUID, int], {str(LOGIN): 1}, {LOGIN: 1}),
            (datetime, "2024-05-06T07:08:09Z", datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)),
        ],
    )
    def test_and_these_are_right(self, annotation: Any, value: Any, expected: Any) -> None:
        found = field_of(annotation, value)

        assert found == expected
        assert type(found) is type(expected)

    def test_texts_which_may_be_secret_are_neither_in_the_error_nor_in_its_causes(self) -> None:
        for annotation in (int, datetime, UUID, Decimal, State, User):
            with pytest.raises(DecodeError) as caught:
                field_of(annotation, "hunter2")

            assert "hunter2" not in str(caught.value)
            assert caught.value.__cause__ is None

    @given(st.binary(max_size=64) | text.map(str.encode))
    def test_no_body_raises_anything_but_a_decode_error(self, body: bytes) -> None:
        for payload_type in (None, Everything, Tree):
            try:
                payloads.decode(body, payload_type)
            except DecodeError:
                pass  # the one error that a body may cause

    @given(
        st.recursive(
            st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | text,
            lambda items: st.lists(items, max_size=3) | st.dictionaries(st.sampled_from("nabc"), items),
        )
    )
    def test_no_json_value_becomes_a_field_of_another_type(self, value: Any) -> None:
        for annotation, wanted in ((int, int), (str, str), (float, float), (bool, bool), (list[int], list)):
            try:
                found = field_of(annotation, value)
            except DecodeError:
                continue
            assert type(found) is wanted
            assert found == value


class TestBadBodies:
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"\xff\xfe\x00",
            b"nope",
            b"NaN",
            b"-Infinity",
            b'{"a": NaN}',
            b"1e400",
            b"[" * 100_000,
            b'{"n":1,"children":[' * 5_000,
            b"9" * 5_000,
        ],
    )
    def test_are_decode_errors(self, body: bytes) -> None:
        for payload_type in (None, Tree):
            with pytest.raises(DecodeError):
                payloads.decode(body, payload_type)

    def test_a_well_formed_body_that_nests_too_deeply_for_its_type_is_one_too(self) -> None:
        deep = '{"n":1,"children":[' * 450 + "]}" * 450

        with pytest.raises(DecodeError, match="nested too deeply"):
            read(deep, Tree)

    def test_a_payload_that_is_no_object_is_refused(self) -> None:
        with pytest.raises(DecodeError, match=r"payload: expected an object for User, got a list of 0"):
            read("[]", User)

    def test_a_payload_need_not_be_a_dataclass(self) -> None:
        assert read('[{"login": "ada"}]', list[User]) == [User("ada")]


class TestFields:
    def test_unknown_ones_are_ignored(self) -> None:
        assert read('{"login": "ada", "url": {"a": [1]}}', User) == User("ada")

    def test_a_missing_one_takes_its_default(self) -> None:
        assert read('{"login": "ada"}', User).site_admin is False

    def test_a_missing_one_without_a_default_is_named(self) -> None:
        with pytest.raises(DecodeError, match=r"^payload\.login: missing$"):
            read("{}", User)

    def test_a_missing_optional_one_without_a_default_is_missing_too(self) -> None:
        with pytest.raises(DecodeError, match=r"payload\.x: missing"):
            read("{}", make_dataclass("Payload", [("x", int | None)]))

    def test_a_default_of_another_type_is_the_owners_business(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read("{}", make_dataclass("Payload", [("x", int, field(default=None))])).x is None

    def test_those_that_init_does_not_take_are_left_alone(self) -> None:
        assert (
            read(
                '{"a": 1, "b": 2}',
                make_dataclass("P", [("a", int), ("b", int, field(init=False, default=9))]),
            ).b
            == 9
        )

    def test_a_post_init_may_refuse_the_values(self) -> None:
        with pytest.raises(DecodeError, match=r"payload: Even refuses it: 3 is odd"):
            read('{"n": 3}', Even)

    def test_what_a_constructor_asks_for_beside_its_fields_is_refused_with_its_reason(self) -> None:
        with pytest.raises(DecodeError, match="NeedsMore refuses it"):
            read('{"n": 3}', NeedsMore)

    def test_inherited_ones_count(self) -> None:
        @dataclass
        class Base:
            a: int

        @dataclass
        class Child(Base):
            b: int = 2

        assert read('{"a": 1}', Child) == Child(1, 2)


@dataclass
class Even:
    n: int

    def __post_init__(self) -> None:
        if self.n % 2:
            raise ValueError(f"{self.n} is odd")


@dataclass
class NeedsMore:
    n: int
    key: InitVar[str]


def _upper(value: str) -> str:
    return value.upper()


@dataclass
class Configured:
    first_name: str = field(metadata=config(letter_case=LetterCase.CAMEL))
    kind: str = field(metadata=config(field_name="@type"))
    shout: str = field(metadata=config(decoder=_upper, encoder=str.lower))
    at: datetime = field(metadata=config(decoder=datetime.fromtimestamp, encoder=datetime.timestamp))
    maybe: str | None = field(default=None, metadata=config(decoder=_upper))


# Its annotations say LetterCase where a function stands.
@dataclass_json(letter_case=LetterCase.CAMEL, undefined=Undefined.EXCLUDE)  # type: ignore[call-overload]
@dataclass
class CamelUser:
    first_name: str
    last_name: str = field(default="", metadata=config(field_name="surname"))


class TestConfigOfDataclassesJson:
    def test_holds_in_both_directions(self) -> None:
        payload = Configured("Ada", "user", "HEY", datetime.fromtimestamp(1_700_000_000), "X")  # noqa: DTZ006  # as its decoder does

        body, _ = payloads.encode(payload)

        assert json.loads(body) == {
            "firstName": "Ada",
            "@type": "user",
            "shout": "hey",
            "at": 1_700_000_000.0,
            "maybe": "X",
        }
        assert payloads.decode(body, Configured) == payload

    def test_of_a_class_holds_for_its_fields_unless_they_have_their_own(self) -> None:
        body, _ = payloads.encode(CamelUser("Ada", "Lovelace"))

        assert json.loads(body) == {"firstName": "Ada", "surname": "Lovelace"}
        assert payloads.decode(body, CamelUser) == CamelUser("Ada", "Lovelace")

    def test_errors_name_the_field_as_it_travels(self) -> None:
        with pytest.raises(DecodeError, match=r"payload\.firstName: missing"):
            read("{}", CamelUser)

    def test_a_decoder_is_not_shown_null(self) -> None:
        known = {"firstName": "a", "@type": "b", "shout": "c", "at": 1}

        assert read(json.dumps({**known, "maybe": None}), Configured).maybe is None
        with pytest.raises(DecodeError, match=r"payload\.shout: expected str, got null"):
            read(json.dumps({**known, "shout": None}), Configured)

    def test_a_decoder_that_refuses_is_a_decode_error(self) -> None:
        with pytest.raises(DecodeError, match=r"payload\.shout: its decoder refuses 5: "):
            read('{"firstName": "a", "@type": "b", "shout": 5, "at": 1}', Configured)


class Row(NamedTuple):
    a: int


class Dictionary(TypedDict):
    a: int


@dataclass
class Holder(Generic[V]):
    value: V


@dataclass
class Unresolved:
    other: Missing  # type: ignore[name-defined]  # noqa: F821  # that is the test


@dataclass
class Deep:
    users: list[dict[str, bytes]]


class TestTypesThatCannotBeRead:
    @pytest.mark.parametrize(
        "annotation",
        [
            bytes,
            complex,
            type,
            Row,
            Dictionary,
            dict[int, int],
            dict[bytes, int],
            list[bytes],
            bytes | None,
            Holder[int],
        ],
    )
    def test_are_found_before_a_message_comes(self, annotation: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"payload\.x"):
            payloads.check_type(make_dataclass("Payload", [("x", annotation)]))

    def test_are_found_in_the_depth(self) -> None:
        with pytest.raises(ConfigurationError, match=r"payload\.users\[\.\.\.\]\[\.\.\.\]: .* bytes"):
            payloads.check_type(Deep)

    def test_are_a_configuration_error_when_a_message_comes_all_the_same(self) -> None:
        with pytest.raises(
            ConfigurationError, match=r"payload\.x: a payload cannot have a field of type bytes"
        ):
            field_of(bytes, "a")

    def test_and_annotations_that_cannot_be_resolved_say_where_to_put_the_class(self) -> None:
        for use in (payloads.check_type, lambda kind: read("{}", kind)):
            with pytest.raises(ConfigurationError, match=r"Unresolved.*at the top of a module"):
                use(Unresolved)

    @pytest.mark.parametrize(
        "payload_type", [Everything, Tree, Configured, CamelUser, list[User], dict[str, Any]]
    )
    def test_and_those_that_can_pass(self, payload_type: Any) -> None:
        payloads.check_type(payload_type)

    def test_a_decoder_of_its_own_makes_any_type_readable(self) -> None:
        payloads.check_type(
            make_dataclass("P", [("x", bytes, field(metadata=config(decoder=bytes.fromhex)))])
        )
