"""Options of the URL, queues by name, URL and ARN, and what is remembered of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from queue_runtime import errors
from queue_runtime.clock import SystemClock
from queue_runtime.config import ProviderSettings, parse_url
from queue_runtime.message import Message
from queue_runtime.providers.sqs import create
from queue_runtime.providers.sqs.client import AwsSqsClient
from queue_runtime.providers.sqs.options import SqsOptions
from queue_runtime.testing import FakeClock
from tests.providers.sqs_edge import BASE, Edge, arn, provider_at


@pytest.fixture
def edge() -> Edge:
    edge = Edge()
    edge.queue("jobs", dead_letters="jobs-dlq")
    edge.queue("jobs-dlq")
    edge.queue("events.fifo", FifoQueue="true")
    return edge


@pytest.fixture
def provider(edge: Edge) -> AwsSqsClient:
    return provider_at(edge, FakeClock())


@pytest.fixture(autouse=True)
def no_aws_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[profile staging]\nregion = eu-north-1\n[profile bare]\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)


def made(url: str) -> AwsSqsClient:
    return create(parse_url(url).provider, SystemClock())


# Options


@pytest.mark.parametrize(
    ("query", "parts"),
    [
        ("colour=red", ["'colour'", "endpoint_url", "request_timeout", "queue.NAME"]),
        ("request_timeout=soon", ["request_timeout", "'soon'", "0.1", "60"]),
        ("request_timeout=0", ["request_timeout", "'0'"]),
        ("request_timeout=nan", ["request_timeout", "'nan'"]),
        ("max_connections=1.5", ["max_connections", "'1.5'", "whole"]),
        ("max_connections=0", ["max_connections", "'0'"]),
        ("endpoint_url=localhost:4566", ["endpoint_url", "'localhost:4566'", "http://HOST:PORT"]),
        ("endpoint_url=http://h:port", ["endpoint_url", "http://HOST:PORT"]),
        ("profile=production", ["profile", "'production'", "bare, staging"]),
    ],
)
def test_an_unusable_option_is_named_with_its_value_and_the_way_out(query: str, parts: list[str]) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        made(f"sqs://eu-west-1?{query}")

    assert [part for part in parts if part not in str(caught.value)] == []


@pytest.mark.parametrize("url", ["http://user:hunter2@127.0.0.1:1", "user:hunter2@127.0.0.1"])
def test_credentials_in_the_endpoint_are_refused_and_not_repeated(url: str) -> None:
    settings = ProviderSettings(provider="sqs", location="eu-west-1", options={"endpoint_url": url})

    with pytest.raises(errors.ConfigurationError, match="endpoint_url holds credentials") as caught:
        create(settings, SystemClock())

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("region", ["eu west", "eu_west_1", "-", "eu-west-1-"])
def test_a_region_that_is_none_is_refused(region: str) -> None:
    settings = ProviderSettings(provider="sqs", location=region)

    with pytest.raises(errors.ConfigurationError, match="region"):
        create(settings, SystemClock())


def test_without_a_region_boto3s_own_chain_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.ConfigurationError, match="AWS_DEFAULT_REGION"):
        made("sqs://")
    with pytest.raises(errors.ConfigurationError, match="no region"):
        made("sqs://?profile=bare")

    by_profile = SqsOptions(profile="staging").session().region_name
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-south-1")
    by_environment = SqsOptions().session().region_name

    assert (by_profile, by_environment) == ("eu-north-1", "eu-south-1")


def test_a_profile_that_only_the_environment_names_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")

    with pytest.raises(errors.ConfigurationError, match="'production'"):
        made("sqs://")


def test_making_a_client_connects_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("connected")

    monkeypatch.setattr("socket.socket.connect", connect)

    client = made("sqs://eu-west-1?endpoint_url=http://127.0.0.1:9&request_timeout=0.5&max_connections=8")

    client.close()


# Queues


@pytest.mark.parametrize("asked", ["jobs", f"{BASE}/jobs", arn("jobs")])
def test_a_queue_is_found_by_name_url_or_arn(edge: Edge, provider: AwsSqsClient, asked: str) -> None:
    description = provider.describe(asked)

    assert description.name == "jobs"
    assert provider.capabilities(asked) == description.capabilities
    assert edge.of("GetQueueAttributes")[0]["QueueUrl"] == f"{BASE}/jobs"


def test_an_arn_asks_for_the_queue_of_its_account(edge: Edge, provider: AwsSqsClient) -> None:
    provider.describe(arn("jobs"))

    assert edge.of("GetQueueUrl") == [{"QueueName": "jobs", "QueueOwnerAWSAccountId": "111122223333"}]


@pytest.mark.parametrize(
    "asked",
    [
        "arn:aws:sqs:us-east-1:111122223333:jobs",
        "https://sqs.us-east-1.amazonaws.com/111122223333/jobs",
        "https://us-east-1.queue.amazonaws.com/111122223333/jobs",
    ],
)
def test_a_queue_of_another_region_is_refused_before_another_one_answers(
    edge: Edge, provider: AwsSqsClient, asked: str
) -> None:
    with pytest.raises(errors.ConfigurationError, match="sqs://us-east-1"):
        provider.send(asked, [Message(body=b"x")])

    assert edge.asked == []


@pytest.mark.parametrize("name", ["q" * 81, "jobs!", "events.fifo.fifo", "q" * 76 + ".fifo", "fi.fo"])
def test_a_name_that_sqs_cannot_have_is_refused_here(edge: Edge, provider: AwsSqsClient, name: str) -> None:
    with pytest.raises(errors.InvalidName, match="80 letters"):
        provider.describe(name)

    assert edge.asked == []


def test_requests_go_to_the_clients_endpoint_wherever_the_queue_url_points(edge: Edge) -> None:
    options = SqsOptions(region="eu-west-1", endpoint_url="http://127.0.0.1:4566")
    provider = provider_at(edge, FakeClock(), options)

    provider.describe(f"{BASE}/jobs")

    assert {asked.url for asked in edge.asked} == {"http://127.0.0.1:4566/"}
    assert edge.of("GetQueueAttributes")[0]["QueueUrl"] == f"{BASE}/jobs"


def test_a_queue_is_looked_up_once_and_described_anew(edge: Edge, provider: AwsSqsClient) -> None:
    for _ in range(3):
        provider.send("jobs", [Message(body=b"x")])
        provider.capabilities("jobs")
    looked_up = len(edge.of("GetQueueAttributes"))
    edge.queue("jobs", VisibilityTimeout=60, ApproximateNumberOfMessages=5)

    description = provider.describe("jobs")

    assert looked_up == 1
    assert (description.lease, description.active) == (60.0, 5)


def test_a_queue_that_is_gone_is_forgotten_and_found_when_it_is_back(
    edge: Edge, provider: AwsSqsClient
) -> None:
    provider.capabilities("jobs")
    edge.refuses("SendMessageBatch", "AWS.SimpleQueueService.NonExistentQueue")
    with pytest.raises(errors.QueueNotFound, match="'jobs'"):
        provider.send("jobs", [Message(body=b"x")])
    edge.queue("jobs", MaximumMessageSize=2048)

    capabilities = provider.capabilities("jobs")

    assert capabilities.max_message_size == 2048 - 512


def test_a_description_of_a_queue_that_is_gone_forgets_it(edge: Edge, provider: AwsSqsClient) -> None:
    provider.capabilities("jobs")
    del edge.queues["jobs"]

    for call in (provider.describe, provider.capabilities):
        with pytest.raises(errors.QueueNotFound):
            call("jobs")


def test_no_more_queues_are_remembered_than_a_bound(
    edge: Edge, provider: AwsSqsClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queue_runtime.providers.sqs.queues.REMEMBERED", 2)
    for name in ("a", "b", "c"):
        edge.queue(name)
    for name in ("a", "b", "a", "c"):
        provider.capabilities(name)

    provider.capabilities("a")
    provider.capabilities("b")

    asked = [body["QueueUrl"].rpartition("/")[2] for body in edge.of("GetQueueAttributes")]
    assert asked == ["a", "b", "c", "b"]


def test_a_description_tells_what_the_broker_says(edge: Edge, provider: AwsSqsClient) -> None:
    edge.queue(
        "jobs",
        dead_letters="jobs-dlq",
        ApproximateNumberOfMessages=3,
        ApproximateNumberOfMessagesNotVisible=2,
        ApproximateNumberOfMessagesDelayed=1,
        MessageRetentionPeriod=345600,
    )

    found = provider.describe("jobs")

    assert (found.active, found.leased, found.delayed) == (3, 2, 1)
    assert (found.lease, found.retention) == (30.0, 345600.0)
    assert (found.dead_letter_queue, found.max_receives) == ("jobs-dlq", 7)


def test_a_dead_letter_queue_of_another_account_is_told_by_its_arn(
    edge: Edge, provider: AwsSqsClient
) -> None:
    found = provider.describe(f"{BASE}/jobs")

    assert found.dead_letter_queue == arn("jobs-dlq")


@pytest.mark.parametrize("policy", ["", "{", "[]", '{"maxReceiveCount": 3}', "null"])
def test_a_redrive_policy_that_says_nothing_is_none(edge: Edge, provider: AwsSqsClient, policy: str) -> None:
    edge.queue("jobs", RedrivePolicy=policy)

    found = provider.describe("jobs")

    assert (found.dead_letter_queue, found.max_receives) == (None, None)


def test_capabilities_differ_between_standard_and_fifo(provider: AwsSqsClient) -> None:
    standard, fifo = provider.capabilities("jobs"), provider.capabilities("events.fifo")

    assert (standard.sessions, standard.max_delay) == ("none", 7 * 86400.0)
    assert (fifo.sessions, fifo.max_delay) == ("groups", 0.0)
    for capabilities in (standard, fifo):
        assert (capabilities.max_batch, capabilities.max_batch_size) == (10, 1024 * 1024)
        assert (capabilities.max_attributes, capabilities.max_lease) == (9, 43200.0)
        assert not capabilities.atomic_batch
        assert not capabilities.peek
        assert capabilities.purge
        assert not capabilities.native_expiry
        assert capabilities.deduplication == (capabilities.sessions == "groups")


def test_what_sqs_cannot_do_is_refused_with_the_way_out(provider: AwsSqsClient) -> None:
    with pytest.raises(errors.UnsupportedOperation, match="receive"):
        provider.accept_sessions("events.fifo", 1, 0)
    with pytest.raises(errors.UnsupportedOperation, match="receive"):
        provider.accept_session("events.fifo", "a-session")
    with pytest.raises(errors.UnsupportedOperation, match="receive"):
        provider.peek("jobs", 1)
