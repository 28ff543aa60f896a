"""SQS as the SDK sees it: answers that a test scripts, given where botocore would open a connection.

Everything above the socket is real: serializer, signer, parser, error classes, client pool.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

import boto3.session
import botocore.session
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.loaders import Loader

from queue_runtime.message import Message
from queue_runtime.providers.sqs.client import AwsSqsClient
from queue_runtime.providers.sqs.options import SqsOptions
from queue_runtime.providers.sqs.wire import encode, typed
from queue_runtime.testing import FakeClock

REGION = "eu-west-1"
ACCOUNT = "111122223333"
KEY_ID = "AKIAEXAMPLE000000000"
BASE = f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}"

Body = Mapping[str, Any]

# It remembers the service's model, which takes 0.1 s to read: one for all sessions.
_LOADER = Loader()


def arn(name: str) -> str:
    return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"


@dataclass(frozen=True)
class Asked:
    """A request as it would have left."""

    operation: str
    body: Body
    url: str


@dataclass
class Reply:
    """What the edge answers: a body, an error of the service, or what *act* raises or returns."""

    body: Body = field(default_factory=dict)
    status: int = 200
    code: str | None = None
    act: Callable[[Body], Body] | None = None
    raw: bytes | None = None


class _Raw:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self) -> Iterator[bytes]:
        yield self._content


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


class Edge:
    """Scripted answers, by operation; without one a request succeeds, and a receive is empty."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.queues: dict[str, dict[str, str]] = {}
        self.time: float | None = None
        """The service's own time, in Unix seconds, which it tells with each answer."""
        self._script: dict[str, deque[Reply]] = defaultdict(deque)

    def queue(self, name: str, *, dead_letters: str | None = None, **attributes: object) -> str:
        facts = {"QueueArn": arn(name), "VisibilityTimeout": "30", "MaximumMessageSize": "1048576"}
        if dead_letters is not None:
            policy = {"deadLetterTargetArn": arn(dead_letters), "maxReceiveCount": 7}
            facts["RedrivePolicy"] = json.dumps(policy)
        self.queues[name] = facts | {key: str(value) for key, value in attributes.items()}
        return name

    def answers(self, operation: str, *bodies: Body) -> None:
        self._script[operation] += [Reply(body) for body in bodies]

    def refuses(self, operation: str, code: str, text: str = "no", *, status: int = 400) -> None:
        self._script[operation].append(Reply({"message": text}, status=status, code=code))

    def returns(self, operation: str, raw: bytes, *, status: int = 200) -> None:
        self._script[operation].append(Reply(status=status, raw=raw))

    def does(self, operation: str, act: Callable[[Body], Body]) -> None:
        self._script[operation].append(Reply(act=act))

    def fails(self, operation: str, error: Exception) -> None:
        def act(_: Body) -> Body:
            raise error

        self.does(operation, act)

    def listen_to(self, session: boto3.session.Session) -> None:
        """Answer for the clients that *session* makes from now on."""
        session.events.register("before-send.sqs", self)  # type: ignore[arg-type]

    def of(self, operation: str) -> list[Body]:
        """The bodies of all requests of *operation*."""
        return [asked.body for asked in self.asked if asked.operation == operation]

    def __call__(self, request: AWSPreparedRequest, **_: object) -> AWSResponse:
        operation = _text(request.headers["X-Amz-Target"]).rpartition(".")[2]
        body = json.loads(_text(request.body))
        self.asked.append(Asked(operation, body, request.url))
        script = self._script[operation]
        reply = script.popleft() if script else self._usual(operation, body)
        answer = reply.act(body) if reply.act is not None else reply.body
        headers = {"Content-Type": "application/x-amz-json-1.0", "x-amzn-RequestId": "0"}
        if self.time is not None:
            headers["Date"] = formatdate(int(self.time), usegmt=True)
        if reply.code is not None:
            headers["x-amzn-query-error"] = f"{reply.code};Sender"
            answer = {"__type": f"com.amazonaws.sqs#{reply.code}", **answer}
        content = json.dumps(answer).encode() if reply.raw is None else reply.raw
        return AWSResponse(request.url, reply.status, headers, _Raw(content))  # type: ignore[arg-type]

    def _usual(self, operation: str, body: Body) -> Reply:
        missing = Reply({"message": "The specified queue does not exist."}, 400, "QueueDoesNotExist")
        if operation == "GetQueueUrl":
            name = body["QueueName"]
            return Reply({"QueueUrl": f"{BASE}/{name}"}) if name in self.queues else missing
        if operation == "GetQueueAttributes":
            facts = self.queues.get(body["QueueUrl"].rpartition("/")[2])
            return missing if facts is None else Reply({"Attributes": facts})
        if operation == "ReceiveMessage":
            return Reply()
        return Reply(all_well(body))


def all_well(body: Body) -> Body:
    return {"Successful": [{"Id": entry["Id"], "MessageId": "m"} for entry in body["Entries"]], "Failed": []}


def failing(failures: Mapping[int, tuple[str, str]], *, mine: bool = True) -> Callable[[Body], Body]:
    """An answer in which the entries at these places failed with (code, text), and the others went well."""

    def act(body: Body) -> Body:
        ids = [entry["Id"] for entry in body["Entries"]]
        return {
            "Successful": [{"Id": id} for place, id in enumerate(ids) if place not in failures],
            "Failed": [
                {"Id": ids[place], "Code": code, "Message": text, "SenderFault": mine}
                for place, (code, text) in failures.items()
            ],
        }

    return act


def stored(
    message: Message,
    *,
    broker_id: str = "b1",
    receipt: str = "r1",
    group: str | None = None,
    attributes: Mapping[str, Mapping[str, str]] | None = None,
    **facts: object,
) -> dict[str, Any]:
    """*message* as SQS hands it out; *attributes* in the place of the stored ones, *facts* of the system."""
    text = encode(message)
    system = {"ApproximateReceiveCount": "1", "SentTimestamp": "1700000000123"}
    if group is not None:
        system["MessageGroupId"] = group
    return {
        "MessageId": broker_id,
        "ReceiptHandle": receipt,
        "Body": text.body,
        "MessageAttributes": typed(text.attributes) if attributes is None else attributes,
        "Attributes": system | {name: str(value) for name, value in facts.items()},
    }


def provider_at(edge: Edge, clock: FakeClock, options: SqsOptions | None = None) -> AwsSqsClient:
    """A provider whose requests go to *edge*."""
    inner = botocore.session.Session()
    inner.register_component("data_loader", _LOADER)
    session = boto3.session.Session(
        aws_access_key_id=KEY_ID,
        aws_secret_access_key="never-shown",
        region_name=REGION,
        botocore_session=inner,
    )
    edge.listen_to(session)
    return AwsSqsClient(options or SqsOptions(region=REGION), clock, session=session)
