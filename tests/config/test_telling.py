"""What the errors of settings tell: where it stands, what to write instead, and no secret."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from queue_runtime import ClientSettings, ProviderSettings, connect
from queue_runtime.config import QueueOptions, load_settings, parse_url
from queue_runtime.config.showing import CODE
from queue_runtime.errors import ConfigurationError

SECRET = "hunter2"
TARGET = f"https://user:{SECRET}@sqs.eu-west-1.amazonaws.com/1/y"


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        act()
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "queues.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the environment that a provider looks for."""
    for name in (
        "QUEUE_RUNTIME_URL",
        "AZURE_SERVICEBUS_CONNECTION_STRING",
        "AZURE_SERVICEBUS_CONNECTIONSTRING",
        "AZURE_CLIENT_SECRET",
        "AWS_PROFILE",
        "AWS_DEFAULT_REGION",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")


class TestCredentialsInATarget:
    SAID = "queue.events: the target holds credentials"

    def test_are_refused_wherever_they_stand(self, toml: Callable[[str], Path], tmp_path: Path) -> None:
        memory = ProviderSettings(provider="memory")
        dotenv = tmp_path / ".env"
        dotenv.write_text(f"QUEUE_RUNTIME_URL=memory://\nQUEUE_RUNTIME_QUEUES__EVENTS={TARGET}\n")
        variable = {"QUEUE_RUNTIME_URL": "memory://", "QUEUE_RUNTIME_QUEUES__EVENTS__TARGET": TARGET}
        whole = {"QUEUE_RUNTIME_URL": f"sqs://eu-west-1?queue.events={TARGET}"}
        file = toml(f"url = 'memory://'\n[queues]\nevents = '{TARGET}'\n")
        acts: list[tuple[Callable[[], object], str]] = [
            (lambda: parse_url(f"sqs://eu-west-1?queue.events={TARGET}"), CODE),
            (lambda: load_settings(f"sqs://eu-west-1?queue.events={TARGET}", environ={}), CODE),
            (lambda: load_settings({"url": "memory://", "queues": {"events": TARGET}}, environ={}), CODE),
            (lambda: ClientSettings(provider=memory, queues={"events": TARGET}), CODE),
            (lambda: ClientSettings(provider=memory, queues={"events": QueueOptions(target=TARGET)}), CODE),
            (lambda: load_settings(environ=variable), "QUEUE_RUNTIME_QUEUES__EVENTS__TARGET"),
            (lambda: load_settings(environ=whole), "the URL, QUEUE_RUNTIME_URL"),
            (lambda: load_settings(file, environ={}), str(file)),
            (lambda: load_settings(env_file=dotenv, environ={}), f"QUEUE_RUNTIME_QUEUES__EVENTS in {dotenv}"),
        ]

        for act, source in acts:
            message = refused(act)
            assert message.startswith(self.SAID)
            assert source == CODE or message.endswith(f"({source})")

    def test_are_refused_in_the_name_that_a_program_calls_a_queue_by(self) -> None:
        settings = parse_url("memory://?queues=jobs")

        assert "the queue's name holds credentials" in refused(lambda: settings.of(TARGET))
        with connect(settings) as client:
            assert "the queue's name holds credentials" in refused(lambda: client.receive(TARGET))

    @pytest.mark.parametrize(
        "target", ["a@b", "https://sqs.eu-west-1.amazonaws.com/1/y", "arn:aws:sqs:a:1:b"]
    )
    def test_are_not_seen_in_what_has_none(self, target: str) -> None:
        settings = ClientSettings(provider=ProviderSettings(provider="memory"), queues={"events": target})

        assert settings.of("events").target == settings.of(target).target == target


class TestAPolicyOfWhichAQueueHasAPart:
    def test_that_is_wrong_in_the_clients_part_is_named_as_the_clients_with_its_source(
        self, toml: Callable[[str], Path]
    ) -> None:
        attempts = {"url": "memory://", "queues": {"a": {"retry": {"base": 1}}}}
        rate = toml("url = 'memory://'\n[breaker]\nfailure_rate = 80\n[queues.a.breaker]\nwindow = 3\n")

        by_variable = refused(
            lambda: load_settings(attempts, environ={"QUEUE_RUNTIME_RETRY__MAX_ATTEMPTS": "0"})
        )
        by_file = refused(lambda: load_settings(rate, environ={}))

        assert by_variable == (
            "retry.max_attempts must be a whole number from 1 on, it is 0 (QUEUE_RUNTIME_RETRY__MAX_ATTEMPTS)"
        )
        assert by_file == f"breaker.failure_rate must be a number above 0 to 1, it is 80.0 ({rate})"

    def test_that_is_wrong_in_its_own_part_is_named_as_the_queues(self, toml: Callable[[str], Path]) -> None:
        path = toml("url = 'memory://'\n[retry]\nbase = 1\n[queues.a.retry]\nmax_attempts = 0\n")

        assert refused(lambda: load_settings(path, environ={})) == (
            f"queues.a.retry.max_attempts must be a whole number from 1 on, it is 0 ({path})"
        )


class TestWhatIsNoNameOfAProviderOrAPlace:
    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"provider": f"Endpoint=sb://x/;SharedAccessKey={SECRET}"}, "provider must be a name of"),
            ({"provider": f"{SECRET}/+=="}, "provider must be a name of"),
            ({"provider": "sqs", "location": f"user:{SECRET}@host"}, "sqs: the location has '@'"),
            ({"provider": "memory", "location": f"SharedAccessKey={SECRET}"}, "memory: the location has '@'"),
        ],
    )
    def test_is_refused_and_not_repeated(self, given: dict[str, Any], said: str) -> None:
        for act in (lambda: load_settings(given, environ={}), lambda: ProviderSettings(**given)):
            message = refused(act)
            assert said in message
            assert SECRET not in message.lower()

    @pytest.mark.parametrize(
        "location", ["", "eu-west-1", "a.servicebus.windows.net", "tests", "localhost:80"]
    )
    def test_is_nothing_else(self, location: str) -> None:
        assert ProviderSettings(provider="A_b-3.x", location=location).location == location


class TestVariablesOfAnSdkInADotEnvFile:
    NAME = "AZURE_SERVICEBUS_CONNECTION_STRING"
    STRING = f"Endpoint=sb://a.example;SharedAccessKeyName=n;SharedAccessKey={SECRET}"

    def test_are_not_read_from_there_and_the_error_says_so(self, tmp_path: Path) -> None:
        path = tmp_path / ".env"
        path.write_text(f"QUEUE_RUNTIME_URL=servicebus://\n{self.NAME}={self.STRING}\nMY_KEY={SECRET}\n")

        message = refused(lambda: connect(env_file=path))

        assert message.startswith("servicebus: no namespace")
        assert f"{self.NAME} stands in {path}, and is not read from there" in message
        assert f"dotenv.load_dotenv({str(path)!r})" in message
        assert "MY_KEY" not in message

    def test_are_named_also_where_the_environment_names_the_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "test.env"
        path.write_text("AWS_DEFAULT_REGION=eu-west-1\nAWS_ACCESS_KEY_ID=x\n")
        monkeypatch.setenv("QUEUE_RUNTIME_ENV_FILE", str(path))

        message = refused(lambda: connect("sqs://"))

        assert f"AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID stand in {path}, and are not read" in message

    def test_may_have_a_name_of_their_own_that_a_setting_tells(self, tmp_path: Path) -> None:
        path = tmp_path / ".env"
        path.write_text(f"OURS={self.STRING}\nAWS_PROFILE=x\n")

        message = refused(lambda: connect("servicebus://?connection_string_env=OURS", env_file=path))

        assert f"OURS stands in {path}" in message

    def test_are_not_spoken_of_where_they_are_set_or_have_nothing_to_do_with_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / ".env"
        path.write_text("AWS_PROFILE=x\nAWS_REGION=eu-west-1\n")
        monkeypatch.setenv("AWS_REGION", "eu-west-1")

        for target in ("servicebus://", "sqs://eu-west-1?request_timeout=fast"):
            assert "not read from there" not in refused(
                lambda target=target: connect(target, env_file=path)  # type: ignore[misc]
            )


class TestADotEnvFileThatIsWrong:
    def test_is_named_with_its_line(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = tmp_path / ".env"
        path.write_text(f"# first\nQUEUE_RUNTIME_URL=memory://\n'{SECRET}\nQUEUE_RUNTIME_LEASE=5\n")

        with caplog.at_level(logging.DEBUG):
            message = refused(lambda: load_settings(env_file=path, environ={}))

        assert message == f"{path}, line 3, cannot be read: write it as NAME=VALUE"
        assert caplog.text == ""


class TestAFileThatNamesAFile:
    @pytest.mark.parametrize("name", ["env_file", "config"])
    def test_is_told_where_that_is_said(self, toml: Callable[[str], Path], name: str) -> None:
        path = toml(f"{name} = 'x'\n")

        assert refused(lambda: load_settings(path, environ={})) == (
            f"{path}: there is no setting {name!r} in a file; it is named in code, or by the environment "
            f"variable QUEUE_RUNTIME_{name.upper()}"
        )


class TestWhatIsGivenTwice:
    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("url = 'sqs://a'\nlocation = 'b'", "location"),
            ("url = 'sqs://a?b=c'\n[options]\nb = 'd'", "options.b"),
            ("url = 'sqs://a?queue.b=c'\n[queues]\nb = 'd'", "queues.b.target"),
        ],
    )
    def test_in_one_file_is_told_once(self, toml: Callable[[str], Path], text: str, name: str) -> None:
        path = toml(text)

        assert refused(lambda: load_settings(path, environ={})) == (
            f"{name} is given twice in {path}: by the URL, and by itself; give it once"
        )

    def test_in_code_or_two_variables_too(self) -> None:
        assert refused(lambda: load_settings({"url": "sqs://a", "location": "b"}, environ={})) == (
            "location is given twice in code: by the URL, and by itself; give it once"
        )
        two = {"QUEUE_RUNTIME_QUEUES__A": "b", "QUEUE_RUNTIME_QUEUES__A__TARGET": "c"}
        assert refused(lambda: load_settings("memory://", environ=two)) == (
            "queues.A.target is given twice: by QUEUE_RUNTIME_QUEUES__A, and by "
            "QUEUE_RUNTIME_QUEUES__A__TARGET; give it once"
        )


class TestAnOptionThatAProviderRefuses:
    @pytest.mark.parametrize(
        ("url", "option", "value", "said"),
        [
            ("sqs://eu-west-1", "request_timeout", "fast", "sqs: request_timeout = 'fast' is not usable"),
            ("sqs://eu-west-1", "endpoint_url", f"http://u:{SECRET}@h", "sqs: endpoint_url holds credent"),
            ("servicebus://orders", "receivers", "0", "servicebus: receivers = '0' is not usable"),
            ("servicebus://orders", "credential", SECRET, "servicebus: credential must be one of"),
            ("memory://", "lease", "long", "memory: lease must be a number"),
            ("memory://", "queues", "a:b", "memory: queues: 'a:b' is neither"),
        ],
    )
    def test_is_found_by_the_file_or_the_variable(
        self, toml: Callable[[str], Path], url: str, option: str, value: str, said: str
    ) -> None:
        path = toml(f"url = '{url}'\n[options]\n{option} = '{value}'\n")

        message = refused(lambda: connect(path))

        assert message.startswith(said)
        assert message.endswith(f" ({path})")

    def test_in_code_needs_no_words(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert not refused(lambda: connect("sqs://eu-west-1?request_timeout=fast")).endswith(")")

        monkeypatch.setenv("QUEUE_RUNTIME_OPTIONS__REQUEST_TIMEOUT", "fast")
        assert refused(lambda: connect("sqs://eu-west-1")).endswith(
            "(QUEUE_RUNTIME_OPTIONS__REQUEST_TIMEOUT)"
        )

    def test_may_be_a_queue_of_memory_with_no_name_for_one(self) -> None:
        assert refused(lambda: connect("memory://?queues=a%20b")) == (
            "memory: queues: queue name 'a b' has white space in it; queue names have none"
        )


class TestAStrategy:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("strategy = 'payload'", "strategy 'payload' needs more, such as 'payload:order.id'"),
            ("strategy = 'nonne'", "strategy: no strategy is called 'nonne'; did you mean 'none'?"),
            ("strategy = 'payload:a..b'", "strategy 'payload:a..b': 'a..b' is no path"),
            ("strategy = 5", "strategy must be a function"),
            ("[queues.a]\nstrategy = 'payload'", "queues.a.strategy 'payload' needs more"),
        ],
    )
    def test_of_a_file_is_named_once(self, toml: Callable[[str], Path], text: str, said: str) -> None:
        path = toml(text)

        assert refused(lambda: load_settings(path, environ={})).startswith(f"{path}: {said}")

    def test_of_a_variable_is_named_once(self) -> None:
        environ: dict[str, Any] = {"QUEUE_RUNTIME_STRATEGY": "payload"}

        assert refused(lambda: load_settings("memory://", environ=environ)).startswith(
            "QUEUE_RUNTIME_STRATEGY: strategy 'payload' needs more, such as"
        )
