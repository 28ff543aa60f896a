"""A standard queue behind the SDK's edge, with the service's own clock and SQS's own 15 minutes."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from tests.providers.sqs_edge import Body, Edge, Reply, all_well


@dataclass
class Standing:
    """A message at rest. Times are the service's, in Unix seconds."""

    broker_id: str
    entry: Body
    sent: float
    visible: float
    receives: int = 0


class StandingQueue(Edge):
    """Any queue name is the same queue; receives hide a message for 30 s. `time` is moved by the test."""

    time: float

    def __init__(self, name: str, *, now: float = 1_700_000_000.25) -> None:
        super().__init__()
        self.queue(name)
        self.time = now
        self.standing: list[Standing] = []
        self._stored = 0

    def next_change(self) -> float:
        return min((each.visible for each in self.standing), default=self.time)

    def ours(self) -> list[dict[str, Any]]:
        """What the reserved attribute of each message says."""
        return [
            json.loads(each.entry["MessageAttributes"]["queue_runtime"]["StringValue"])
            for each in self.standing
        ]

    def _usual(self, operation: str, body: Body) -> Reply:
        if operation == "SendMessageBatch":
            for entry in body["Entries"]:
                self._stored += 1
                delay = entry.get("DelaySeconds", 0)
                assert 0 <= delay <= 900
                self.standing.append(Standing(f"b{self._stored}", entry, self.time, self.time + delay))
            return Reply(all_well(body))
        if operation == "ReceiveMessage":
            ready = [each for each in self.standing if each.visible <= self.time]
            return Reply({"Messages": [self._handed_out(each) for each in ready[:10]]})
        if operation == "DeleteMessageBatch":
            receipts = {entry["ReceiptHandle"].partition("/")[0] for entry in body["Entries"]}
            self.standing = [each for each in self.standing if each.broker_id not in receipts]
            return Reply(all_well(body))
        return super()._usual(operation, body)

    def _handed_out(self, each: Standing) -> dict[str, Any]:
        each.visible = self.time + 30
        each.receives += 1
        facts = {"SentTimestamp": str(int(each.sent * 1000)), "ApproximateReceiveCount": str(each.receives)}
        if "MessageGroupId" in each.entry:
            facts["MessageGroupId"] = each.entry["MessageGroupId"]
        trace = each.entry.get("MessageSystemAttributes", {}).get("AWSTraceHeader")
        if trace is not None:
            facts["AWSTraceHeader"] = trace["StringValue"]
        return {
            "MessageId": each.broker_id,
            "ReceiptHandle": f"{each.broker_id}/{each.receives}",
            "Body": each.entry["MessageBody"],
            "MessageAttributes": each.entry["MessageAttributes"],
            "Attributes": facts,
        }


def binary(content: bytes) -> dict[str, str]:
    """An attribute of another tool's, as it travels."""
    return {"DataType": "Binary", "BinaryValue": base64.b64encode(content).decode()}
