"""Which of several values holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from queue_runtime import ClientSettings, ProviderSettings, connect
from queue_runtime.config import load_settings, parse_url
from queue_runtime.errors import ConfigurationError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "queues.toml").write_text(
        "provider = 'sqs'\nlocation = 'from-file'\nmax_workers = 1\nmax_lease = 1000\nsend_timeout = 1\n"
        "lease = 1\n[options]\nprofile = 'from-file'\n[queues.events]\ntarget = 'from-file'\nlease = 11\n"
    )
    (tmp_path / ".env").write_text(
        "QUEUE_RUNTIME_MAX_LEASE=2000\nQUEUE_RUNTIME_SEND_TIMEOUT=2\nQUEUE_RUNTIME_LEASE=2\n"
    )
    return tmp_path


def loaded(place: Path, target: Any = None, **environ: str) -> ClientSettings:
    return load_settings(
        target,
        env_file=place / ".env",
        environ={"QUEUE_RUNTIME_CONFIG": str(place / "queues.toml"), **environ},
    )


def test_code_comes_before_environment_before_dot_env_before_file_before_default(place: Path) -> None:
    settings = loaded(place, {"lease": 4}, QUEUE_RUNTIME_LEASE="3", QUEUE_RUNTIME_SEND_TIMEOUT="3")

    assert settings.lease == 4.0
    assert settings.send_timeout == 3.0
    assert settings.max_lease == 2000.0
    assert settings.max_workers == 1
    assert settings.expired == "drop"


def test_a_file_in_code_is_a_file_all_the_same(place: Path) -> None:
    settings = load_settings(place / "queues.toml", environ={"QUEUE_RUNTIME_CONFIG": "other.toml"})
    changed = load_settings(place / "queues.toml", environ={"QUEUE_RUNTIME_MAX_WORKERS": "5"})

    assert (settings.max_workers, changed.max_workers) == (1, 5)


class TestAUrl:
    def test_comes_with_its_place_in_the_order(self, place: Path) -> None:
        in_code = loaded(place, "sqs://from-code", QUEUE_RUNTIME_URL="sqs://from-environment")
        in_environment = loaded(place, QUEUE_RUNTIME_URL="sqs://from-environment")

        assert in_code.provider.location == "from-code"
        assert in_environment.provider.location == "from-environment"
        assert loaded(place).provider.location == "from-file"

    def test_leaves_what_it_does_not_say_to_what_comes_after(self, place: Path) -> None:
        settings = loaded(place, "sqs://eu-west-1?queue.jobs=j")

        assert settings.provider.options == {"profile": "from-file"}
        assert [settings.of(name).target for name in ("events", "jobs")] == ["from-file", "j"]

    def test_takes_the_place_of_any_other_with_all_that_that_one_says(self) -> None:
        other = {"QUEUE_RUNTIME_URL": "memory://name?queues=a,b&lease=5&queue.a=b"}

        assert load_settings("memory://?queues=c", environ=other) == parse_url("memory://?queues=c")
        assert load_settings("memory://", environ=other) == parse_url("memory://")

    def test_comes_before_a_location_that_stands_behind_it_and_after_one_before_it(self, place: Path) -> None:
        url = {"url": "sqs://from-code"}

        assert loaded(place, url, QUEUE_RUNTIME_LOCATION="x").provider.location == "from-code"
        settings = load_settings(
            {"location": "mine"}, environ={"QUEUE_RUNTIME_URL": "sqs://theirs?queue.a=b"}
        )
        assert (settings.provider.location, settings.of("a").target) == ("mine", "b")


class TestAnotherProvider:
    def test_does_not_get_what_was_said_for_the_first(self, place: Path) -> None:
        settings = loaded(place, QUEUE_RUNTIME_URL="memory://?queues=events")

        assert settings.provider == ProviderSettings(provider="memory", options={"queues": "events"})
        assert settings.of("events").target == "events"
        assert (settings.of("events").lease, settings.max_workers) == (11.0, 1)

    def test_may_be_chosen_by_name_alone(self, place: Path) -> None:
        settings = loaded(place, QUEUE_RUNTIME_PROVIDER="memory", QUEUE_RUNTIME_OPTIONS__QUEUES="events")

        assert settings.provider.options == {"queues": "events"}
        assert settings.provider.location == ""

    def test_gets_what_is_said_for_no_provider_in_particular(self, place: Path) -> None:
        (place / ".env").write_text("QUEUE_RUNTIME_OPTIONS__LEASE=5\nQUEUE_RUNTIME_QUEUES__EVENTS=v2\n")

        settings = loaded(place, QUEUE_RUNTIME_URL="memory://")

        assert settings.provider.options == {"lease": "5"}
        assert settings.of("events").target == "v2"


class TestConnect:
    def test_reads_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "queues.toml"
        path.write_text("url = 'memory://?queues=v2'\n[queues]\njobs = 'v2'\n")

        for target in (path, str(path)):
            with connect(target) as client:
                assert client.describe("jobs").name == "v2"

    def test_reads_what_the_environment_names(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "queues.json").write_text('{"url": "memory://?queues=jobs"}')
        monkeypatch.delenv("QUEUE_RUNTIME_URL", raising=False)
        monkeypatch.setenv("QUEUE_RUNTIME_CONFIG", str(tmp_path / "queues.json"))

        with connect() as client:
            assert client.describe("jobs").active == 0

    def test_reads_a_dot_env_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("QUEUE_RUNTIME_URL", raising=False)
        (tmp_path / ".env").write_text("QUEUE_RUNTIME_URL='memory://?queues=jobs'\n")

        with connect(env_file=tmp_path / ".env") as client:
            assert client.describe("jobs").active == 0

    def test_takes_settings_as_they_are(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = replace(parse_url("memory://?queues=jobs"), max_workers=3)
        monkeypatch.setenv("QUEUE_RUNTIME_QUEUES__JOBS", "elsewhere")

        with connect(settings) as client:
            assert client.describe("jobs").name == "jobs"
        with pytest.raises(ConfigurationError, match="env_file has no meaning beside ClientSettings"):
            connect(settings, env_file=".env")

    def test_says_where_an_option_was_found_that_the_provider_does_not_know(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("QUEUE_RUNTIME_OPTIONS__QUEUE", "jobs")

        with pytest.raises(ConfigurationError) as caught:
            connect("memory://")

        assert str(caught.value).startswith(
            "memory: unknown option 'queue' (QUEUE_RUNTIME_OPTIONS__QUEUE); it takes "
        )
        assert str(caught.value).endswith("; did you mean 'queues'?")
