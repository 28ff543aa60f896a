"""What settings show of themselves: values, where they were found, and no secret."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from queue_runtime import ClientSettings, ProviderSettings, RetryPolicy
from queue_runtime.config import QueueOptions, load_settings, parse_url
from queue_runtime.strategies import composite

SECRET = "hunter2"


def shown(settings: ClientSettings) -> dict[str, str]:
    return {each.name: str(each).partition(" = ")[2] for each in settings.describe()}


class TestDescribe:
    def test_tells_each_value_and_where_it_was_found(self, tmp_path: Path) -> None:
        path = tmp_path / "queues.toml"
        path.write_text("url = 'sqs://eu-west-1?queue.jobs=j'\n[queues.events.retry]\nbase = 0.5\n")
        dotenv = tmp_path / ".env"
        dotenv.write_text("QUEUE_RUNTIME_SEND_TIMEOUT=5\n")

        found = shown(
            replace(
                load_settings(path, env_file=dotenv, environ={"QUEUE_RUNTIME_STRATEGY": "hourly:field:a"}),
                retry=RetryPolicy(max_attempts=3),
            )
        )

        assert found["provider"] == f'"sqs"  (the URL, {path})'
        assert found["send_timeout"] == f"5.0  (QUEUE_RUNTIME_SEND_TIMEOUT in {dotenv})"
        assert found["strategy"] == '"hourly:field:a"  (QUEUE_RUNTIME_STRATEGY)'
        assert found["retry.max_attempts"] == "3  (code)"
        assert found["retry.cap"] == "2.0  (default)"
        assert found["lease"] == "none  (default)"
        assert found["queues.jobs.target"] == f'"j"  (the URL, {path})'
        assert found["queues.events.retry.base"] == f"0.5  ({path})"
        assert found["queues.events.retry.max_attempts"] == "5  (default)"  # no longer what the client has

    def test_tells_of_settings_made_in_code_too(self) -> None:
        settings = ClientSettings(
            provider=ProviderSettings(provider="memory", credential=object()),
            max_workers=3,
            queues={"jobs": "v2", "events": QueueOptions(strategy=composite("a", "b"), retry=RetryPolicy())},
        )

        found = shown(settings)

        assert found["provider"] == '"memory"  (code)'
        assert found["credential"] == '"object"  (code)'
        assert (found["location"], found["max_workers"]) == ('""  (default)', "3  (code)")
        assert found["queues.events.strategy"] == '"composite:field:a,field:b"  (code)'
        assert found["queues.jobs.target"] == '"v2"  (code)'

    def test_knows_a_change_of_what_was_read(self) -> None:
        settings = load_settings("memory://", environ={"QUEUE_RUNTIME_MAX_WORKERS": "3"})

        assert shown(settings)["max_workers"] == "3  (QUEUE_RUNTIME_MAX_WORKERS)"
        assert shown(replace(settings, max_workers=4))["max_workers"] == "4  (code)"
        assert shown(replace(settings, max_workers=128))["max_workers"] == "128  (code)"

    def test_is_a_file_again_as_a_dictionary(self) -> None:
        settings = load_settings(
            {
                "url": "sqs://eu-west-1?request_timeout=3&queue.jobs=j",
                "strategy": "composite:a,b",
                "queues": {"my.queue": {"lease": 5, "retry": {"cap": 1.0}}},
            },
            environ={},
        )

        assert load_settings(json.loads(json.dumps(settings.as_dict())), environ={}) == settings


OPTIONS: list[tuple[str, str, str]] = [
    ("connection_string", f"Endpoint=sb://x;SharedAccessKey={SECRET}", "***"),
    ("endpoint", f"Endpoint=sb://x;SharedAccessKey={SECRET}", "***"),
    ("client_secret", SECRET, "***"),
    ("Password", SECRET, "***"),
    ("api_key", SECRET, "***"),
    ("token", SECRET, "***"),
    ("sas", SECRET, "***"),
    ("proxy", f"http://user:{SECRET}@proxy:3128", "http://***@proxy:3128"),
    ("proxy", f"http://user:{SECRET}@[proxy:3128", "***"),
    ("proxy", f"user:{SECRET}@proxy:3128", "***"),
    ("url", f"https://host/?sig={SECRET}", "***"),
    ("endpoint_url", "http://127.0.0.1:4566", "http://127.0.0.1:4566"),
    ("request_timeout", "5", "5"),
    ("queues", "events:sessions,jobs", "events:sessions,jobs"),
]


class TestSecrets:
    @pytest.mark.parametrize(("name", "value", "seen"), OPTIONS)
    def test_among_the_options_are_masked(self, name: str, value: str, seen: str) -> None:
        settings = load_settings({"provider": "sqs", "options": {name: value}}, environ={})

        assert settings.provider.options[name] == value
        assert settings.as_dict()["options"] == {name: seen}
        for show in SHOWS:
            assert SECRET not in show(settings)

    def test_in_the_query_of_a_target_are_masked(self) -> None:
        target = f"https://h.example/jobs?sig={SECRET}"
        settings = load_settings({"url": "memory://", "queues": {"jobs": target}}, environ={})

        assert shown(settings)["queues.jobs.target"] == '"https://h.example/jobs?***"  (code)'
        assert SECRET not in json.dumps(settings.as_dict())

    def test_are_in_no_log(self, caplog: pytest.LogCaptureFixture) -> None:
        settings = parse_url(f"sqs://x?token={SECRET}")

        with caplog.at_level(logging.DEBUG):
            logging.getLogger("app").info("%s %r %s", settings, settings.provider, settings.provider.options)

        assert SECRET not in caplog.text
        assert "'token': ***" in caplog.text

    def test_do_not_leave_the_process_by_pickle(self) -> None:
        settings = parse_url(f"sqs://x?token={SECRET}")

        for value in (settings, settings.provider, settings.provider.options):
            with pytest.raises(TypeError, match="cannot be pickled"):
                pickle.dumps(value)
        assert copy.deepcopy(settings.provider) == settings.provider
        assert SECRET not in repr(asdict(settings.provider))


SHOWS: list[Callable[[ClientSettings], Any]] = [
    repr,
    str,
    lambda settings: repr(settings.origins),
    lambda settings: repr(settings.provider),
    lambda settings: repr(settings.provider.options),
    lambda settings: str(settings.describe()),
    lambda settings: "\n".join(map(str, settings.describe())),
    lambda settings: json.dumps(settings.as_dict()),
]
