"""Which session a strategy names, and how it is chosen by text, in code, and in a client's configuration."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_runtime import payloads
from queue_runtime.config import ClientSettings, ProviderSettings, QueueOptions
from queue_runtime.connecting import connect
from queue_runtime.errors import ConfigurationError, InvalidName
from queue_runtime.message import Message
from queue_runtime.strategies import (
    as_strategy,
    attribute,
    by_time,
    composite,
    field,
    first,
    no_session,
    on_clock,
    parse,
    payload,
)
from queue_runtime.testing import FakeClock

ORDER = Message.of(
    {"order": {"id": 7, "items": [{"sku": "cup"}]}, "tenant": "acme", "open": True, "name": "", "price": 1.5},
    attributes={"room": "r1", "empty": ""},
)
PICTURE = Message(body=b"\x89PNG\xff", attributes={"room": "r2"})


def by_body(message: Message) -> str | None:
    return message.body.decode() or None


class TestOneField:
    @pytest.mark.parametrize(
        ("text", "session"),
        [
            ("attribute:room", "r1"),
            ("attribute:tenant", None),
            ("attribute:empty", None),
            ("payload:tenant", "acme"),
            ("payload:order.id", "7"),
            ("payload:order.items.0.sku", "cup"),
            ("payload:order.items.1.sku", None),
            ("payload:order.items.first", None),
            ("payload:room", None),
            ("payload:tenant.0", None),
            ("payload:order", None),
            ("payload:open", None),
            ("payload:name", None),
            ("payload:price", None),
            ("field:room", "r1"),
            ("field:tenant", "acme"),
            ("field:nothing", None),
            (" attribute: room ", "r1"),
            ("none", None),
        ],
    )
    def test_is_an_attribute_or_text_or_a_whole_number_of_the_payload(
        self, text: str, session: str | None
    ) -> None:
        assert parse(text)(ORDER) == session

    @pytest.mark.parametrize("body", [b"", b"hello", b"\xff\xfe", b"[1]", b"null", b"5", b"[" * 100_000])
    def test_of_a_body_that_is_not_json_is_none(self, body: bytes) -> None:
        assert payload("order.id")(Message(body=body)) is None
        assert parse("github.pull_request")(Message(body=body)) is None


class TestComposite:
    def test_needs_all_its_parts(self) -> None:
        strategy = parse("composite:tenant, room,payload:order.id")

        assert strategy(ORDER) == "acme|r1|7"
        assert strategy(PICTURE) is None

    @given(st.lists(st.text("a|\\", min_size=1, max_size=4), min_size=2, max_size=2, unique=True))
    def test_never_brings_two_different_things_to_one_session(self, rooms: list[str]) -> None:
        strategy = composite("room", "shop")

        ids = [
            strategy(Message(body=b"", attributes={"room": one, "shop": other}))
            for one, other in (rooms, rooms[::-1], (rooms[0], rooms[0]))
        ]

        assert len(set(ids)) == 3

    def test_takes_functions_and_named_strategies(self) -> None:
        message = Message.of({"repository": {"full_name": "octo/repo"}}, attributes={"room": "r"})

        assert composite("room", "github.repository", lambda m: "mine")(message) == "r|octo/repo|mine"


class TestFirst:
    def test_takes_the_first_that_names_a_session(self) -> None:
        strategy = parse("first: payload:order.id | attribute:room | composite:room,shop")

        assert [strategy(ORDER), strategy(PICTURE), strategy(Message(body=b""))] == ["7", "r2", None]

    def test_takes_a_plain_name_for_a_field_as_composites_and_periods_do(self) -> None:
        fields = first("field:tenant", "field:room")

        assert parse("first:tenant|room") == first("tenant", "room") == fields
        assert parse("hourly:tenant") == by_time("hourly", "tenant") == by_time("hourly", "field:tenant")
        assert parse("daily:first:tenant|room") == by_time("daily", fields)
        assert parse("composite:a,weekly:b") == composite("a", by_time("weekly", "b"))

    def test_asks_no_further_than_it_must(self) -> None:
        def never(message: Message) -> str:
            raise AssertionError

        assert first("attribute:room", never)(ORDER) == "r1"


class TestByTime:
    @pytest.mark.parametrize(
        ("period", "stamp"),
        [
            ("hourly", "2027-01-01T00"),
            ("daily", "2027-01-01"),
            ("weekly", "2026-W53"),
            ("monthly", "2027-01"),
        ],
    )
    def test_begins_a_new_session_in_each_period_of_the_clock(self, period: str, stamp: str) -> None:
        clock = FakeClock()
        clock.advance((datetime(2027, 1, 1, 0, 30, tzinfo=UTC) - clock.now()).total_seconds())

        strategy = on_clock(parse(f"{period}:attribute:room"), clock)

        assert strategy(ORDER) == f"r1@{stamp}"
        assert strategy(Message(body=b"")) is None
        clock.advance(timedelta(days=32).total_seconds())
        assert strategy(ORDER) != f"r1@{stamp}"

    def test_may_stand_alone_and_deep_inside_others(self) -> None:
        clock = FakeClock()
        hour = f"{clock.now():%Y-%m-%dT%H}"

        assert on_clock(parse("hourly"), clock)(ORDER) == hour
        assert on_clock(parse("first:attribute:no|composite:room,hourly"), clock)(ORDER) == f"r1|{hour}"
        assert on_clock(parse("daily:first:attribute:no|field:tenant"), clock)(ORDER) == (
            f"acme@{clock.now():%Y-%m-%d}"
        )

    def test_has_the_clock_of_the_client(self) -> None:
        clock = FakeClock()
        with connect("memory://?queues=events:sessions", strategy="hourly:field:room", clock=clock) as client:
            client.send("events", ORDER)
            hours = [f"{clock.now():%H}"]
            clock.advance(3600.0)
            client.send("events", replace(ORDER, id="second"))
            hours.append(f"{clock.now():%H}")

            found = [client.accept_session("events"), client.accept_session("events")]

        assert [session.session_id[-2:] for session in found if session] == hours


class TestABody:
    def test_is_decoded_once_for_all_that_ask_and_not_for_an_attribute(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decoded: list[bytes] = []
        decode = payloads.decode

        def counting(body: bytes, payload_type: Any) -> Any:
            decoded.append(body)
            return decode(body, payload_type)

        monkeypatch.setattr(payloads, "decode", counting)

        parse("first:composite:payload:no,tenant|composite:tenant,payload:order.id,github.issue|none")(ORDER)
        assert len(decoded) == 1
        parse("composite:room,attribute:room")(ORDER)
        assert len(decoded) == 1


class TestGitHub:
    def test_names_the_session_of_a_delivery_by_what_it_is_about(self) -> None:
        delivery = Message.of({"pull_request": {"number": 7}, "repository": {"full_name": "octo/repo"}})

        assert parse("github.pull_request")(delivery) == "octo/repo#7"
        assert parse("github.repository")(delivery) == "octo/repo"
        assert parse("github.issue")(Message.of("text")) is None


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of the user's."""
    (tmp_path / "rooms_of_mine.py").write_text(
        "from queue_runtime.strategies import attribute\n"
        "def by_room(message): return message.attributes.get('room')\n"
        "class Rooms:\n"
        "    @staticmethod\n"
        "    def of(message): return 'static'\n"
        "ready = attribute('room')\n"
        "number = 5\n"
    )
    (tmp_path / "needs_more.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "rooms_of_mine"
    for name in ("rooms_of_mine", "needs_more"):
        sys.modules.pop(name, None)


class TestAFunction:
    def test_is_found_by_its_module_and_name(self, module: str) -> None:
        assert parse(f"{module}:by_room")(ORDER) == "r1"
        assert parse(f"{module}:Rooms.of")(ORDER) == "static"
        assert str(parse(f"{module}:ready")) == "attribute:room"
        assert parse(f"first:attribute:no|{module}:by_room")(ORDER) == "r1"

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("rooms_of_mine:by_rom", "has no 'by_rom'; did you mean 'by_room'"),
            ("rooms_of_mine:number", "is no function, it is 5"),
            ("rooms_of_mine:", "has no ''"),
            ("rooms_of_mien.x:by_room", "no module 'rooms_of_mien'"),
        ],
    )
    def test_that_is_not_there_is_named(self, module: str, name: str, text: str) -> None:
        with pytest.raises(ConfigurationError, match=text):
            parse(name)

    def test_whose_module_misses_another_says_which(self, module: str) -> None:
        with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
            parse("needs_more:function")

    def test_is_called_by_its_name_in_errors_and_listings(self) -> None:
        assert str(as_strategy(by_body)).endswith("test_strategies:by_body")
        assert repr(composite("room", by_body)).startswith("<strategy composite:field:room,")


class TestText:
    @pytest.mark.parametrize(
        ("text", "part"),
        [
            ("composit:tenant", "no strategy is called 'composit'; did you mean 'composite'?"),
            ("nonee", "'nonee'; did you mean 'none'?"),
            ("github.pul_request", "did you mean 'github.pull_request'?"),
            ("first:attribute:a|github.isue", "'github.isue'; did you mean 'github.issue'?"),
            ("composite:a,github.pull_requests", "did you mean 'github.pull_request'?"),
            ("tenant", "A field of messages is field:NAME"),
            ("tenant", "there are 'none', 'github.pull_request', "),
            (
                "first:a|github.0123456789",
                "no strategy is called 'github.0123456789'. The attribute is attribute:git",
            ),
            ("attribute:", "'attribute' needs more, such as 'attribute:tenant'"),
            ("attribute", "strategy 'attribute' needs more, such as"),
            ("attribute:a b", "'a b' is no name of an attribute"),
            ("payload:a..b", "'a..b' is no path"),
            ("composite:a,,b", "part 2 of 'composite' is empty"),
            ("composite:a,none", "'none' inside 'composite'"),
            ("hourly:none", "'none' inside 'hourly'"),
            ("hourly:", "'hourly' needs more"),
            ("first:attribute:a|first:b", "inside another first"),
            ("", "no strategy is called ''"),
            ("-:-", "no strategy is called '-'"),
        ],
    )
    def test_that_is_wrong_is_shown_with_the_part_that_is(self, text: str, part: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            parse(text)

        message = str(caught.value)
        assert message.startswith((f"strategy {text!r}", f"no strategy is called {text!r}"))
        assert part in message
        assert message.count(repr(text)) == 1

    @given(st.text("abc:|,. payloadfirst", max_size=30))
    def test_raises_nothing_but_a_configuration_error(self, text: str) -> None:
        try:
            parse(f"x{text}")
        except ConfigurationError:
            pass  # the one error that a text may cause

    @pytest.mark.parametrize(
        "text",
        [
            "none",
            "attribute:room",
            "payload:order.id",
            "composite:field:tenant,attribute:room",
            "first:github.issue|hourly:attribute:room|weekly",
        ],
    )
    def test_says_of_a_strategy_what_it_is_read_from(self, text: str) -> None:
        assert str(parse(text)) == text
        assert parse(text) == parse(text)

    @pytest.mark.parametrize(
        ("make", "text"),
        [
            (lambda: attribute(""), "no name of an attribute"),
            (lambda: composite(), "it has no parts"),
            (lambda: composite("a", no_session), "'none' inside 'composite'"),
            (lambda: first(), "it has no choices"),
            (lambda: by_time("hurly"), "no period 'hurly', only .* did you mean 'hourly'"),
            (lambda: as_strategy(5), "strategy must be a function .* it is 5"),
        ],
    )
    def test_in_code_wrong_ones_are_refused_too(self, make: Any, text: str) -> None:
        with pytest.raises(ConfigurationError, match=text):
            make()

    def test_in_code_is_the_same_as_in_configuration(self) -> None:
        assert field("tenant") == parse("field:tenant")
        assert composite("tenant", payload("order.id")) == parse("composite:tenant,payload:order.id")
        assert by_time("daily", "attribute:a") == parse("daily:attribute:a")


class TestWhatComesOut:
    @pytest.mark.parametrize(
        ("value", "problem"),
        [("a\nb", "control character"), ("x" * 1025, "it has 1025"), ("\ud800", "surrogate")],
    )
    def test_must_be_a_session_id_or_the_error_names_strategy_and_value(
        self, value: str, problem: str
    ) -> None:
        message = Message(body=json.dumps({"id": value}).encode())

        with pytest.raises(InvalidName) as caught:
            parse("payload:id")(message)

        assert str(caught.value).startswith(f"strategy 'payload:id' gave {value!r}"[:60])
        assert problem in str(caught.value)
        assert len(str(caught.value)) < 400

    @pytest.mark.parametrize("value", [5, "", b"x", "a\x00"])
    def test_of_a_function_is_checked_also_inside_of_others(self, value: Any) -> None:
        def mine(message: Message) -> Any:
            return value

        for strategy in (as_strategy(mine), composite("room", mine), first(mine)):
            with pytest.raises(InvalidName, match="mine' gave"):
                strategy(ORDER)

    def test_may_be_too_long_only_together(self) -> None:
        message = Message(body=b"", attributes={"a": "x" * 600, "b": "y" * 600})

        with pytest.raises(InvalidName, match=r"strategy 'composite:field:a,field:b' gave 'xxx"):
            composite("a", "b")(message)


class TestAClient:
    def test_asks_the_strategy_given_as_text(self) -> None:
        with connect("memory://?queues=events:sessions", strategy="attribute:room") as client:
            client.send("events", ORDER)
            session = client.accept_session("events")

        assert session is not None
        assert session.session_id == "r1"

    def test_asks_that_of_its_settings_unless_it_is_given_one(self) -> None:
        settings = ClientSettings(
            provider=ProviderSettings(provider="memory", options={"queues": "events:sessions"}),
            strategy="attribute:room",
        )
        found = []
        for strategy in (None, "payload:tenant"):
            with connect(settings, strategy=strategy) as client:
                client.send("events", ORDER)
                session = client.accept_session("events")
                found.append(session and session.session_id)

        assert found == ["r1", "acme"]

    def test_asks_a_queues_own_first(self) -> None:
        settings = ClientSettings(
            provider=ProviderSettings(provider="memory", options={"queues": "events:sessions,jobs"}),
            queues={"events": QueueOptions(strategy="attribute:room"), "jobs": QueueOptions(strategy="none")},
        )
        with connect(settings, strategy="payload:tenant") as client:
            client.send("events", ORDER)
            client.send("jobs", ORDER)
            session = client.accept_session("events")
            assert session is not None
            assert session.session_id == "r1"
            assert client.receive("jobs")[0].session_id is None
