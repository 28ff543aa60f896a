"""Files, environment variables, ``.env`` files and dictionaries: what they may say, and what is refused."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_runtime import BreakerPolicy, RetryPolicy
from queue_runtime.batching import BatchPolicy
from queue_runtime.config import ClientSettings, QueueOptions, load_settings
from queue_runtime.config.schema import CLIENT, QUEUE, Leaf, leaves
from queue_runtime.config.sources import variable_of
from queue_runtime.errors import ConfigurationError, MissingExtra
from queue_runtime.strategies import parse

SECRET = "hunter2"

TOML = """
provider = "sqs"
location = "eu-west-1"
strategy = "attribute:tenant"
send_timeout = 5
lease = "none"
expired = "dead_letter"
max_workers = 4
max_lease = 600.5

[options]
request_timeout = 3
endpoint_url = "http://127.0.0.1:4566"
tcp_keepalive = true

[retry]
max_attempts = 4
time_limit = 3

[breaker]
failure_rate = 0.25

[batching]
max_in_flight = 2

[queues]
jobs = "acme-jobs"

[queues.events]
target = "github-events.fifo"
strategy = "github.pull_request"
send_timeout = 2.5
lease = 60
expired = "drop"
retry = { time_limit = 2 }
breaker = { open_for = 1 }
batching = { max_pending = 10 }
"""

ENVIRONMENT = {
    "QUEUE_RUNTIME_PROVIDER": "sqs",
    "QUEUE_RUNTIME_LOCATION": "eu-west-1",
    "QUEUE_RUNTIME_STRATEGY": "attribute:tenant",
    "QUEUE_RUNTIME_SEND_TIMEOUT": "5",
    "QUEUE_RUNTIME_LEASE": "none",
    "QUEUE_RUNTIME_EXPIRED": "dead_letter",
    "QUEUE_RUNTIME_MAX_WORKERS": "4",
    "QUEUE_RUNTIME_MAX_LEASE": "600.5",
    "QUEUE_RUNTIME_OPTIONS__REQUEST_TIMEOUT": "3",
    "QUEUE_RUNTIME_OPTIONS__ENDPOINT_URL": "http://127.0.0.1:4566",
    "QUEUE_RUNTIME_OPTIONS__TCP_KEEPALIVE": "true",
    "QUEUE_RUNTIME_RETRY__MAX_ATTEMPTS": "4",
    "QUEUE_RUNTIME_RETRY__TIME_LIMIT": "3",
    "QUEUE_RUNTIME_BREAKER__FAILURE_RATE": "0.25",
    "QUEUE_RUNTIME_BATCHING__MAX_IN_FLIGHT": "2",
    "QUEUE_RUNTIME_QUEUES__JOBS": "acme-jobs",
    "QUEUE_RUNTIME_QUEUES__EVENTS__TARGET": "github-events.fifo",
    "QUEUE_RUNTIME_QUEUES__EVENTS__STRATEGY": "github.pull_request",
    "QUEUE_RUNTIME_QUEUES__EVENTS__SEND_TIMEOUT": "2.5",
    "QUEUE_RUNTIME_QUEUES__EVENTS__LEASE": "60",
    "QUEUE_RUNTIME_QUEUES__EVENTS__EXPIRED": "drop",
    "QUEUE_RUNTIME_QUEUES__EVENTS__RETRY__TIME_LIMIT": "2",
    "QUEUE_RUNTIME_QUEUES__EVENTS__BREAKER__OPEN_FOR": "1",
    "QUEUE_RUNTIME_QUEUES__EVENTS__BATCHING__MAX_PENDING": "10",
}


def read(target: Any = None, **environ: str) -> ClientSettings:
    return load_settings(target, environ=environ)


def refused(target: Any = None, /, *, dotenv: Any = None, **environ: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(target, env_file=dotenv, environ=environ)
    said = "".join(traceback.format_exception(caught.value))
    assert SECRET not in said
    return str(caught.value)


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "queues.toml"
    path.write_text(TOML)
    return path


class TestAllSources:
    def test_say_the_same_things(self, toml: Path, tmp_path: Path) -> None:
        from_toml = read(toml)
        as_json = tmp_path / "queues.json"
        as_json.write_text(json.dumps(from_toml.as_dict()))
        dotenv = tmp_path / ".env"
        dotenv.write_text("".join(f"{name}={value}\n" for name, value in ENVIRONMENT.items()))

        found = [
            read(str(toml)),
            read(as_json),
            read(**ENVIRONMENT),
            load_settings(env_file=dotenv, environ={}),
        ]
        found.append(read(from_toml.as_dict()))

        assert found == [from_toml] * 5

    def test_reach_every_setting(self, toml: Path) -> None:
        settings = read(toml)
        events = settings.of("events")

        assert (settings.provider.provider, settings.provider.location) == ("sqs", "eu-west-1")
        assert settings.provider.options == {
            "request_timeout": "3",
            "endpoint_url": "http://127.0.0.1:4566",
            "tcp_keepalive": "true",
        }
        assert settings.retry == RetryPolicy(max_attempts=4, time_limit=3.0)
        assert settings.breaker == BreakerPolicy(failure_rate=0.25)
        assert settings.batching == BatchPolicy(max_in_flight=2)
        assert (settings.send_timeout, settings.lease, settings.expired) == (5.0, None, "dead_letter")
        assert (settings.max_workers, settings.max_lease) == (4, 600.5)
        assert settings.of("jobs").target == "acme-jobs"
        assert (events.target, events.strategy) == ("github-events.fifo", parse("github.pull_request"))
        assert (events.send_timeout, events.lease, events.expired) == (2.5, 60.0, "drop")

    def test_give_a_queue_the_rest_of_a_policy_from_the_client(self, toml: Path) -> None:
        events = read(toml).of("events")

        assert events.retry == RetryPolicy(max_attempts=4, time_limit=2.0)
        assert events.breaker == BreakerPolicy(failure_rate=0.25, open_for=1.0)
        assert events.batching == BatchPolicy(max_in_flight=2, max_pending=10)

    def test_know_every_setting_of_a_client_and_of_a_queue(self) -> None:
        values = {"strategy": "attribute:a", "lease": "60", "expired": "dead_letter"}
        for group, before in ((CLIENT, ()), (QUEUE, ("queues", "events"))):
            for path, leaf in leaves(group):
                text = values.get(path[-1], "1" if leaf.kind.what == "a whole number" else "0.5")
                found: Any = read(QUEUE_RUNTIME_URL="memory://", **{variable_of((*before, *path)): text})
                for name in (*before[:1], *path):
                    found = found.queues["events"] if name == "queues" else _inside(found, name)
                assert str(found) == text or float(found) == float(text), path


def _inside(value: Any, name: str) -> Any:
    return value if isinstance(value, str) else getattr(value, name)


class TestAFile:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("retri = 1", "there is no setting 'retri'; did you mean 'retry'?"),
            ("[retry]\nmax_atempts = 1", "no setting 'retry.max_atempts'; did you mean 'max_attempts'?"),
            ("max_attempts = 1", "no setting 'max_attempts'; did you mean 'retry.max_attempts'?"),
            ("[queues.events]\ntarge = 'x'", "no setting 'queues.events.targe'; did you mean 'target'?"),
            ("[queues.events.retry]\nbas = 1", "no setting 'queues.events.retry.bas'; did you mean 'base'?"),
            ("[worker]\nconcurrency = 4", "there is no setting 'worker'; what a worker does is told in code"),
            ("config = 'other.toml'", "there is no setting 'config'"),
            ("send_timeout = '5'", "send_timeout must be a number, it is '5'"),
            (f"send_timeout = 1{'0' * 400}", "send_timeout must be a number, it is 1000"),
            ("max_workers = 1.5", "max_workers must be a whole number, it is 1.5"),
            ("max_workers = true", "max_workers must be a whole number, it is True"),
            ("lease = 'long'", "lease must be a number or 'none', it is 'long'"),
            ("expired = 'dropped'", "expired must be one of 'drop', 'dead_letter', it is 'dropped'"),
            ("strategy = 'composit:a'", ": strategy 'composit:a': no strategy is called 'composit'"),
            ("strategy = 5", ": strategy must be a function"),
            ("retry = 3", "retry must be a table with names and values, it is of type int"),
            ("queues = ['a']", "queues must be a table with names and values, it is of type list"),
            ("[queues]\na = 5", "queues.a must be a table with names and values, it is of type int"),
            ("[queues.a]\nlease = 'none'", "queues.a.lease must be a number, it is 'none'"),
            (
                f"[options]\nkey = ['{SECRET}']",
                "options.key must be text, a number or true or false",
            ),
            (f"url = ['{SECRET}']", "url must be text, it is of type list"),
            (f"url = 'sqs://a:{SECRET}@b'", "sqs: the URL holds credentials"),
            ("url = 'sqs://a'\nprovider = 'sqs'", "provider is given twice in "),
            ("url = 'sqs://a?b=c'\n[options]\nb = 'd'", "options.b is given twice in "),
            (f"a = '{SECRET}", "cannot be read: "),
        ],
    )
    def test_that_is_wrong_is_named_with_the_key(self, tmp_path: Path, text: str, said: str) -> None:
        path = tmp_path / "queues.toml"
        path.write_text(text)

        message = refused(path)

        assert said in message
        assert str(path) in message

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("[retry]\nmax_attempts = 0", "retry.max_attempts must be a whole number from 1 on, it is 0 ("),
            ("[queues.a.retry]\nbase = -1", "queues.a.retry.base must be a number of seconds from 0"),
            ("[queues.a]\nlease = 0", "queues.a.lease must be a number of seconds above 0"),
            (
                "max_lease = 60\n[queues.a]\nlease = 61",
                "queues.a.lease must be at most max_lease, 60 s",
            ),
            ("[queues.a]\ntarget = 'a b'", "queue.a: the target is no queue name"),
        ],
    )
    def test_with_a_value_out_of_range_is_named_too(self, tmp_path: Path, text: str, said: str) -> None:
        path = tmp_path / "queues.toml"
        path.write_text(f"provider = 'memory'\n{text}")

        message = refused(path)

        assert message.startswith(said)
        assert message.endswith(f"({path})")

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("queues.json", b"[1]", "must have an object with settings, it has a list"),
            ("queues.json", b'{"url": "memory://", "url": "memory://"}', "'url' is given twice"),
            ("queues.json", b"{", "cannot be read: "),
            ("queues.toml", b"\xff\xfe", "it is not UTF-8"),
            ("queues.json", b"[" * 100_000, "cannot be read"),
            ("queues.yaml", b"", "is neither a .toml nor a .json file"),
        ],
    )
    def test_that_cannot_be_read_is_named(self, tmp_path: Path, name: str, content: bytes, said: str) -> None:
        path = tmp_path / name
        path.write_bytes(content)

        message = refused(path)

        assert said in message
        assert str(path) in message

    def test_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        assert "not there" in refused(tmp_path / "queues.toml")
        assert "not there" in refused("queues.toml")
        assert "not there" in refused(QUEUE_RUNTIME_CONFIG="queues.json")
        assert "cannot be read: Is a directory" in refused({"config": str(make_directory(tmp_path))})

    def test_without_a_provider_is_not_enough(self, tmp_path: Path) -> None:
        path = tmp_path / "queues.json"
        path.write_text('{"send_timeout": 3}')

        assert f"no target: neither {str(path)!r} nor anything else says url or provider" in refused(path)
        assert read(path, QUEUE_RUNTIME_URL="memory://").send_timeout == 3.0

    def test_may_leave_a_value_open_with_null(self, tmp_path: Path) -> None:
        path = tmp_path / "queues.json"
        path.write_text('{"url": "memory://", "lease": null}')

        assert read(path).lease is None


def make_directory(place: Path) -> Path:
    path = place / "directory.toml"
    path.mkdir()
    return path


class TestTheEnvironment:
    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            ("WORKER__CONCURRENCY", "3", "is no setting; what a worker does is told in code"),
            ("RETRY_MAX_ATTEMPTS", "3", "is no setting; did you mean 'QUEUE_RUNTIME_RETRY__MAX_ATTEMPTS'?"),
            ("RETRY__MAX_ATEMPTS", "3", "is no setting; did you mean 'QUEUE_RUNTIME_RETRY__MAX_ATTEMPTS'?"),
            ("SEND_TIMEOT", "3", "is no setting; did you mean 'QUEUE_RUNTIME_SEND_TIMEOUT'?"),
            ("QUEUES__A__TARGT", "3", "did you mean 'QUEUE_RUNTIME_QUEUES__A__TARGET'?"),
            (
                "SOMETHING",
                "3",
                "is no setting; the variables that begin with QUEUE_RUNTIME_ are ",
            ),
            ("URL__X", "3", "is no setting"),
            ("QUEUES____TARGET", "3", "is no setting"),
            (
                "RETRY",
                "3",
                "is a group of settings; set one of it, such as QUEUE_RUNTIME_RETRY__MAX_A",
            ),
            ("QUEUES", "a", "such as QUEUE_RUNTIME_QUEUES__EVENTS__TARGET"),
            ("OPTIONS", SECRET, "such as QUEUE_RUNTIME_OPTIONS__NAME"),
            ("SEND_TIMEOUT", "5s", "must be a number, it is '5s'"),
            ("MAX_WORKERS", "1.0", "must be a whole number, it is '1.0'"),
            ("STRATEGY", "nonne", ": no strategy is called 'nonne'; did you mean 'none'?"),
            ("URL", f"sqs://u:{SECRET}@x", "sqs: the URL holds credentials"),
            ("URL", SECRET, "the URL names no provider"),
        ],
    )
    def test_that_is_wrong_is_named_by_its_variable(self, name: str, value: str, said: str) -> None:
        message = refused(None, **{f"QUEUE_RUNTIME_{name}": value})

        assert message.startswith(f"QUEUE_RUNTIME_{name}")
        assert said in message

    def test_says_a_value_out_of_range_by_the_variable_too(self) -> None:
        message = refused(QUEUE_RUNTIME_URL="memory://", QUEUE_RUNTIME_MAX_WORKERS="0")

        assert message == "max_workers must be a whole number from 1 on, it is 0 (QUEUE_RUNTIME_MAX_WORKERS)"

    def test_counts_an_empty_variable_as_not_set(self) -> None:
        assert read("memory://", QUEUE_RUNTIME_MAX_WORKERS="", QUEUE_RUNTIME_URL="").max_workers == 128

    def test_leaves_other_variables_alone(self) -> None:
        read("memory://", QUEUE_RUNTIMES="x", PATH="/bin", QUEUE_RUNTIME_TEST_SQS="aws")

    def test_names_queues_in_lower_case_or_as_they_are_written(self) -> None:
        settings = read(
            "memory://",
            QUEUE_RUNTIME_QUEUES__EVENTS="e",
            QUEUE_RUNTIME_QUEUES__Jobs__TARGET="j",
            **{"QUEUE_RUNTIME_QUEUES__my-queue__LEASE": "5"},
        )

        assert [settings.of(name).target for name in ("events", "Jobs", "EVENTS")] == ["e", "j", "EVENTS"]
        assert settings.of("my-queue").lease == 5.0

    def test_means_a_queue_of_the_file_or_url_that_it_cannot_spell(self) -> None:
        settings = read(
            {"provider": "memory", "queues": {"github-events.v2": {"lease": 5}}},
            QUEUE_RUNTIME_QUEUES__GITHUB_EVENTS_V2__TARGET="x",
        )

        assert settings.of("github-events.v2").target == "x"
        assert list(settings.queues) == ["github-events.v2"]

    def test_refuses_to_guess_between_two_queues(self) -> None:
        queues = {"a-b": "x", "a.b": "y"}

        message = refused({"provider": "memory", "queues": queues}, QUEUE_RUNTIME_QUEUES__A_B__LEASE="5")

        assert message == "QUEUE_RUNTIME_QUEUES__A_B__LEASE may mean 'a-b' or 'a.b'; set it in a file instead"

    def test_may_say_a_thing_only_once(self) -> None:
        message = refused(
            QUEUE_RUNTIME_URL="sqs://x?queue.events=a", QUEUE_RUNTIME_QUEUES__EVENTS__TARGET="b"
        )

        assert message == (
            "queues.events.target is given twice: by the URL of QUEUE_RUNTIME_URL, and by "
            "QUEUE_RUNTIME_QUEUES__EVENTS__TARGET; give it once"
        )

    @given(st.dictionaries(st.text("QUEUESRTYLA_", max_size=20), st.text(max_size=8), max_size=3))
    def test_raises_nothing_but_a_configuration_error(self, variables: dict[str, str]) -> None:
        try:
            read("memory://", **{f"QUEUE_RUNTIME_{name}": value for name, value in variables.items()})
        except ConfigurationError:
            pass  # the one error that a variable may cause


class TestADotEnvFile:
    def test_is_named_in_errors(self, tmp_path: Path) -> None:
        path = tmp_path / ".env"
        path.write_text(f"OTHER={SECRET}\nQUEUE_RUNTIME_MAX_WORKERS=many\n")

        assert refused("memory://", dotenv=path) == (
            f"QUEUE_RUNTIME_MAX_WORKERS in {path} must be a whole number, it is 'many'"
        )

    def test_may_be_named_by_the_environment_and_name_the_settings_file(
        self, tmp_path: Path, toml: Path
    ) -> None:
        path = tmp_path / "production.env"
        path.write_text(f"export QUEUE_RUNTIME_CONFIG='{toml}'\n# a comment\nQUEUE_RUNTIME_LEASE=30 # one\n")

        settings = read(QUEUE_RUNTIME_ENV_FILE=str(path))

        assert (settings.provider.provider, settings.lease) == ("sqs", 30.0)

    def test_changes_nothing_in_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("QUEUE_RUNTIME_URL", raising=False)
        path = tmp_path / ".env"
        path.write_text("QUEUE_RUNTIME_URL=memory://\n")

        assert load_settings(env_file=path).provider.provider == "memory"
        with pytest.raises(ConfigurationError, match="no target"):
            load_settings()

    def test_is_read_only_if_it_is_named_but_hinted_at(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / ".env").write_text("QUEUE_RUNTIME_URL=memory://\n")
        monkeypatch.chdir(tmp_path)

        assert "there is a .env file here, which connect(env_file='.env') reads" in refused()

    def test_that_is_not_there_is_an_error(self, tmp_path: Path) -> None:
        assert f"the file {str(tmp_path / '.env')!r} is not there" in refused(
            "memory://", dotenv=tmp_path / ".env"
        )

    def test_without_the_package_names_the_extra(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / ".env"
        path.write_text("")
        monkeypatch.setitem(sys.modules, "dotenv", None)

        with pytest.raises(MissingExtra, match=r"pip install 'queue_runtime\[dotenv\]'"):
            load_settings("memory://", env_file=path, environ={})
        load_settings("memory://", environ={})


class TestADictionary:
    def test_may_have_policies_and_functions_for_values(self) -> None:
        settings = read(
            {
                "url": "memory://",
                "retry": RetryPolicy(max_attempts=2),
                "strategy": lambda message: "mine",
                "queues": {"events": QueueOptions(lease=5.0, breaker=BreakerPolicy(window=1.0))},
            }
        )

        assert settings.retry == RetryPolicy(max_attempts=2)
        assert settings.of("events").lease == 5.0
        assert settings.of("events").breaker == BreakerPolicy(window=1.0)
        assert callable(settings.strategy)

    def test_says_what_is_wrong_as_a_file_does(self) -> None:
        assert refused({"retri": 5}).startswith("code: there is no setting 'retri'; did you mean 'retry'?")
        assert refused({5: 5}).startswith("code: there is no setting '5'")
        assert "not a int" in refused(5)

    def test_may_name_the_files_to_read(self, toml: Path) -> None:
        settings = read({"config": str(toml), "max_workers": 9})

        assert (settings.max_workers, settings.provider.provider) == (9, "sqs")


def test_each_leaf_is_a_setting_of_one_of_the_dataclasses() -> None:
    assert all(isinstance(leaf, Leaf) for _, leaf in (*leaves(CLIENT), *leaves(QUEUE)))
