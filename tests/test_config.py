"""Settings from code and from a URL, how a provider is found, and that no secret shows up in either."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import Distribution, EntryPoint, EntryPoints
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_runtime import BatchPolicy, BreakerPolicy, registry
from queue_runtime.config import ClientSettings, ProviderSettings, QueueOptions, parse_url
from queue_runtime.errors import ConfigurationError, MissingExtra, ProviderNotFound
from queue_runtime.retry import RetryPolicy

SECRET = "hunter2"


def everything_said(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


class TestAUrl:
    def test_names_provider_place_options_and_queues(self) -> None:
        settings = parse_url(
            "sqs://eu-west-1?endpoint_url=http://127.0.0.1:4566&queue.events=github-events.fifo&profile="
        )

        assert settings == ClientSettings(
            provider=ProviderSettings(
                provider="sqs",
                location="eu-west-1",
                options={"endpoint_url": "http://127.0.0.1:4566", "profile": ""},
            ),
            queues={"events": "github-events.fifo"},
        )

    @pytest.mark.parametrize("url", ["memory://", "memory:///", "MEMORY://", "memory://?"])
    def test_need_say_no_more_than_its_provider(self, url: str) -> None:
        assert parse_url(url) == ClientSettings(provider=ProviderSettings(provider="memory"))

    def test_maps_a_queue_to_a_url_in_another_account(self) -> None:
        target = "https://sqs.eu-west-1.amazonaws.com/123456789012/events.fifo"

        for written in (target, quote(target, safe="")):
            assert parse_url(f"sqs://eu-west-1?queue.events={written}").queues == {"events": target}

    def test_keeps_the_case_of_its_place(self) -> None:
        assert parse_url("servicebus://My-Space.servicebus.windows.net").provider.location == (
            "My-Space.servicebus.windows.net"
        )

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("", "names no provider"),
            (SECRET, "names no provider"),
            ("sqs:eu-west-1", "names no provider"),
            ("//eu-west-1", "names no provider"),
            (f"Endpoint=sb://ns.example/;SharedAccessKey={SECRET}", "names no provider"),
            (f"sqs://{SECRET}@eu-west-1", "holds credentials"),
            (f"sqs://user:{SECRET}@eu-west-1", "holds credentials"),
            (f"sqs://eu-west-1/{SECRET}", "a path or a fragment"),
            (f"sqs://eu-west-1#{SECRET}", "a path or a fragment"),
            (f"sqs://[{SECRET}", "unpaired brackets"),
            (f"sqs://eu-west-1?key={SECRET}&key=x", "'key' is given twice"),
            (f"sqs://eu-west-1?queue.a={SECRET}&queue.a=x", "'queue.a' is given twice"),
            (f"sqs://eu-west-1?queue.a={SECRET}%20x", "queue.a: the target is no queue name"),
            (f"sqs://eu-west-1?queue.a={SECRET}%00", "queue.a: the target is no queue name"),
            ("sqs://eu-west-1?queue.a=", "queue.a: the target is no queue name"),
            (f"sqs://eu-west-1?queue.={SECRET}", "queue.: the name is no queue name"),
        ],
    )
    def test_that_is_wrong_is_refused_without_repeating_what_may_be_secret(
        self, url: str, message: str
    ) -> None:
        with pytest.raises(ConfigurationError) as caught:
            parse_url(url)

        assert message in str(caught.value)
        assert SECRET not in str(caught.value)
        assert SECRET not in repr(caught.value.__cause__)

    @given(st.text(max_size=30) | st.text("sq:/?&=#[]@.%2", max_size=30))
    def test_raises_nothing_but_a_configuration_error(self, url: str) -> None:
        for each in (url, f"sqs://{url}", f"sqs://x?{url}"):
            try:
                parse_url(each)
            except ConfigurationError:
                pass  # the one error that a URL may cause

    @given(
        options=st.dictionaries(st.text("abc_-", min_size=1), st.text(max_size=10), max_size=3),
        queues=st.dictionaries(st.text("abc-.", min_size=1), st.text("abc/:.-&=+é", min_size=1), max_size=3),
    )
    def test_brings_back_what_was_quoted(self, options: dict[str, str], queues: dict[str, str]) -> None:
        pairs = [*options.items(), *((f"queue.{name}", target) for name, target in queues.items())]
        query = "&".join(
            f"{quote(name, safe='')}={quote(value.encode(errors='replace'), safe='')}"
            for name, value in pairs
        )

        found = parse_url(f"sqs://eu-west-1?{query}")

        assert found.queues == queues
        assert found.provider.options == {
            name: value.encode(errors="replace").decode() for name, value in options.items()
        }


class TestSettings:
    def test_show_no_option_in_their_repr(self) -> None:
        settings = parse_url(f"sqs://eu-west-1?token={SECRET}")

        assert SECRET not in repr(settings)
        assert "eu-west-1" in repr(settings)

    def test_do_not_change_with_the_dictionaries_they_were_made_with(self) -> None:
        options, queues = {"a": "1"}, {"events": "e"}
        settings = ClientSettings(provider=ProviderSettings(provider="sqs", options=options), queues=queues)

        options["a"] = queues["events"] = "changed"

        assert settings.provider.options == {"a": "1"}
        assert settings.queues == {"events": "e"}

    def test_can_be_changed_into_others(self) -> None:
        settings = replace(parse_url("memory://"), retry=RetryPolicy(max_attempts=1), max_workers=2)

        assert (settings.retry.max_attempts, settings.max_workers) == (1, 2)

    @pytest.mark.parametrize(
        ("setting", "value"),
        [("max_workers", 0), ("max_lease", 0), ("max_lease", float("inf")), ("max_lease", float("nan"))],
    )
    def test_refuse_what_is_out_of_range_by_its_name(self, setting: str, value: Any) -> None:
        with pytest.raises(ConfigurationError, match=f"{setting} .* {value}"):
            ClientSettings(provider=ProviderSettings(provider="memory"), **{setting: value})

    @pytest.mark.parametrize(
        ("setting", "value", "said"),
        [
            ("provider", "sqs", "provider must be a ProviderSettings, it is of type str"),
            ("retry", 3, "retry must be a RetryPolicy, it is of type int"),
            ("breaker", None, "breaker must be a BreakerPolicy"),
            ("batching", {}, "batching must be a BatchPolicy"),
            ("max_workers", "4", "max_workers must be a whole number"),
            ("max_lease", "600", "max_lease must be a number of seconds"),
            ("send_timeout", None, "send_timeout must be a number of seconds"),
            ("send_timeout", 0, "send_timeout must be a number of seconds above 0"),
            ("lease", "60", "lease must be a number of seconds"),
            ("lease", 43201, "lease must be at most max_lease, 43200 seconds; it is 43201"),
            ("expired", "keep", "expired must be 'drop' or 'dead_letter', it is 'keep'"),
            ("expired", None, "expired must be 'drop' or 'dead_letter'"),
            ("strategy", 5, "strategy must be a function"),
            ("strategy", "nonne", "no strategy is called 'nonne'; did you mean 'none'?"),
            ("queues", {"jobs": 5}, "queues.jobs must be a str or QueueOptions, it is of type int"),
        ],
    )
    def test_refuse_a_wrong_type_or_choice_by_its_name(self, setting: str, value: Any, said: str) -> None:
        arguments: dict[str, Any] = {"provider": ProviderSettings(provider="memory"), setting: value}
        with pytest.raises(ConfigurationError) as caught:
            ClientSettings(**arguments)

        assert said in str(caught.value)

    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            ("target", 5),
            ("retry", 3),
            ("send_timeout", 0),
            ("lease", -1),
            ("expired", "keep"),
            ("strategy", 5),
        ],
    )
    def test_of_a_queue_are_checked_too(self, setting: str, value: Any) -> None:
        with pytest.raises(ConfigurationError, match=f"^{setting} must be"):
            QueueOptions(**{setting: value})

    def test_of_a_provider_are_text(self) -> None:
        options: Any = {"token": [SECRET]}
        with pytest.raises(ConfigurationError, match="sqs: option 'token' must be text") as caught:
            ProviderSettings(provider="sqs", options=options)

        assert SECRET not in str(caught.value)

    def test_say_what_holds_for_each_queue(self) -> None:
        settings = ClientSettings(
            provider=ProviderSettings(provider="memory"),
            queues={"jobs": "jobs-v2", "events": QueueOptions(lease=5.0, retry=RetryPolicy(max_attempts=1))},
            retry=RetryPolicy(max_attempts=2),
            lease=60.0,
            strategy="attribute:tenant",
        )

        jobs, events, other = (settings.of(name) for name in ("jobs", "events", "other"))
        assert [each.target for each in (jobs, events, other)] == ["jobs-v2", "events", "other"]
        assert [each.lease for each in (jobs, events, other)] == [60.0, 5.0, 60.0]
        assert [each.retry.max_attempts for each in (jobs, events, other)] == [2, 1, 2]
        assert {each.strategy for each in (jobs, events, other)} == {settings.strategy}
        assert (other.queue, other.send_timeout, other.expired) == ("other", 8.0, "drop")

    def test_refuse_names_that_no_queue_has_and_say_which(self) -> None:
        with pytest.raises(ConfigurationError, match=r"queue\.events: the target is no queue name"):
            ClientSettings(provider=ProviderSettings(provider="memory"), queues={"events": "a b"})

    def test_refuse_an_option_that_the_provider_does_not_know_and_list_those_it_does(self) -> None:
        settings = ProviderSettings(provider="sqs", options={"regoin": SECRET})

        with pytest.raises(ConfigurationError) as caught:
            settings.refuse_unknown(frozenset({"endpoint_url", "profile"}))

        assert str(caught.value).startswith("sqs: unknown option 'regoin'; it takes endpoint_url, profile")
        assert SECRET not in everything_said(caught.value)

    def test_keep_a_credential_out_of_their_repr_and_let_a_provider_refuse_it_by_its_class(self) -> None:
        class Token:
            def __repr__(self) -> str:
                return SECRET

        settings = ProviderSettings(provider="sqs", credential=Token())
        assert SECRET not in repr(settings)

        with pytest.raises(
            ConfigurationError, match=r"sqs: it takes no credential object \(a Token"
        ) as caught:
            settings.refuse_credential()

        assert SECRET not in everything_said(caught.value)
        ProviderSettings(provider="sqs").refuse_credential()

    def test_take_the_options_that_it_knows(self) -> None:
        ProviderSettings(provider="sqs", options={"profile": "x"}).refuse_unknown(frozenset({"profile"}))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[EntryPoint]]:
    """The entry points that are found, and a place for modules that they name."""
    found: list[EntryPoint] = []
    monkeypatch.setattr(registry, "entry_points", lambda group: EntryPoints(found).select(group=group))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "toy_provider.py").write_text("def create(settings, clock): return 'toy'\n")
    (tmp_path / "needy_provider.py").write_text("import an_sdk_that_is_not_here\n")
    (tmp_path / "broken_provider.py").write_text("raise RuntimeError('out of order')\n")
    yield found
    for name in ("toy_provider", "needy_provider", "broken_provider"):
        sys.modules.pop(name, None)


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group=registry.GROUP)


class TestTheRegistry:
    def test_finds_a_provider_by_its_entry_point(self, installed: list[EntryPoint]) -> None:
        installed += [entry("other", "nowhere:create"), entry("toy", "toy_provider:create")]

        assert registry.find("toy").__module__ == "toy_provider"

    def test_names_the_providers_that_there_are(self, installed: list[EntryPoint]) -> None:
        installed += [entry("toy", "toy_provider:create"), entry("memory", "nowhere:create")]

        with pytest.raises(
            ProviderNotFound, match="no provider 'tyo'; installed: memory, toy; did you mean 'toy'"
        ):
            registry.find("tyo")

    def test_suspects_the_installation_where_there_are_none(self, installed: list[EntryPoint]) -> None:
        with pytest.raises(ProviderNotFound, match="is the package installed"):
            registry.find("memory")

    def test_names_the_extra_that_brings_a_missing_sdk(self, installed: list[EntryPoint]) -> None:
        installed.append(entry("needy", "needy_provider:create"))

        with pytest.raises(MissingExtra) as caught:
            registry.find("needy")

        assert "'an_sdk_that_is_not_here'" in str(caught.value)
        assert "pip install 'queue_runtime[needy]'" in str(caught.value)
        assert isinstance(caught.value.__cause__, ModuleNotFoundError)

    def test_names_the_distributions_of_the_extra_that_are_missing(
        self, installed: list[EntryPoint], tmp_path: Path
    ) -> None:
        place = tmp_path / "needy_queues-1.dist-info"
        place.mkdir()
        (place / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: needy-queues\nVersion: 1\n"
            'Requires-Dist: pytest>=8; extra == "needy"\n'
            "Requires-Dist: an-sdk-of-theirs[fast] (<8,>=7.15) ; extra == 'needy'\n"
            'Requires-Dist: another; extra == "other"\nRequires-Dist: more\n'
        )
        (place / "entry_points.txt").write_text(f"[{registry.GROUP}]\nneedy = needy_provider:create\n")
        installed += Distribution.at(place).entry_points

        with pytest.raises(MissingExtra) as caught:
            registry.find("needy")

        assert str(caught.value) == (
            "provider 'needy' needs the package 'an-sdk-of-theirs'; pip install 'needy-queues[needy]'"
        )

    def test_does_not_hide_another_fault_of_a_provider(self, installed: list[EntryPoint]) -> None:
        installed.append(entry("broken", "broken_provider:create"))

        with pytest.raises(RuntimeError, match="out of order"):
            registry.find("broken")

    def test_finds_the_providers_that_are_part_of_this_package(self) -> None:
        assert callable(registry.find("memory"))
        assert callable(registry.find("sqs"))


class TestTwoNamesOfOneQueue:
    def test_may_have_strategies_of_their_own(self) -> None:
        settings = replace(
            parse_url("memory://?queues=jobs"),
            queues={"a": "jobs", "b": QueueOptions(target="jobs", strategy="attribute:tenant")},
        )

        assert settings.of("a").target == settings.of("b").target == "jobs"

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("retry", QueueOptions(target="jobs", retry=RetryPolicy(max_attempts=2))),
            ("breaker", QueueOptions(target="jobs", breaker=BreakerPolicy(window=2.0))),
            ("batching", QueueOptions(target="jobs", batching=BatchPolicy(max_in_flight=2))),
            ("lease", QueueOptions(target="jobs", lease=10.0)),
        ],
    )
    def test_cannot_differ_in_what_holds_for_its_requests(self, name: str, options: QueueOptions) -> None:
        with pytest.raises(
            ConfigurationError, match=f"queues.a and queues.b are .* 'jobs', and differ in {name}"
        ):
            replace(parse_url("memory://?queues=jobs"), queues={"a": "jobs", "b": options})
