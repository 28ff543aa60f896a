"""An SQS endpoint for measuring senders: every answer takes a while, and some go wrong if that is wanted.

    python benchmarks/sqs_endpoint.py LATENCY [FAULTS]

*LATENCY* is in seconds, *FAULTS* the part of entries that fail; as many requests fail as a whole, and of as
many the answer is lost. It prints its port, and ends with its standard input. Of a FIFO queue it keeps what
it has stored, in order and once for each deduplication id, and tells it when asked for "Stored". It is a
process of its own so that what it costs stays out of the figures.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Mapping
from typing import Any

ATTRIBUTES = {"VisibilityTimeout": "30", "MaximumMessageSize": "1048576"}
UNAVAILABLE = {"__type": "com.amazonaws.sqs#ServiceUnavailable", "message": "try again"}


class Lost(Exception):
    """What was asked for is done, and the answer does not arrive."""


class Endpoint:
    def __init__(self, latency: float, faults: float) -> None:
        self._latency = latency
        self._faults = faults
        self._chance = random.Random(7)
        self._ids: set[str] = set()
        self._stored: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: request after request, each answered so many seconds after it came."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                fields = {
                    name.strip().lower(): value.strip()
                    for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
                }
                asked = json.loads(await reader.readexactly(int(fields[b"content-length"])))
                await asyncio.sleep(self._latency)
                said = self._answer(fields[b"x-amz-target"].decode().rpartition(".")[2], asked)
                status = b"503 Service Unavailable" if said is UNAVAILABLE else b"200 OK"
                body = json.dumps(said).encode()
                writer.write(
                    b"HTTP/1.1 %s\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: %d\r\n\r\n%s"
                    % (status, len(body), body)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, Lost):
            pass
        finally:
            writer.close()

    def _answer(self, operation: str, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        match operation:
            case "GetQueueUrl":
                return {"QueueUrl": f"http://127.0.0.1/000000000000/{asked['QueueName']}"}
            case "GetQueueAttributes":
                return {"Attributes": ATTRIBUTES}
            case "SendMessage":
                return {"MessageId": "m", "SequenceNumber": "1"}
            case "SendMessageBatch":
                return self._take(asked["Entries"])
            case "Stored":
                return {"Stored": self._stored}
        raise ValueError(f"this endpoint takes no {operation}")

    def _take(self, entries: list[dict[str, Any]]) -> Mapping[str, Any]:
        if self._happens():
            return UNAVAILABLE
        failed = [entry for entry in entries if self._happens()]
        stored = [entry for entry in entries if entry not in failed]
        for entry in stored:
            key = entry.get("MessageDeduplicationId")
            if key is not None and key not in self._ids:
                self._ids.add(key)
                self._stored.append(entry["MessageBody"])
        if self._happens():
            raise Lost
        return {
            "Successful": [{"Id": entry["Id"], "MessageId": "m"} for entry in stored],
            "Failed": [
                {"Id": entry["Id"], "Code": "ServiceUnavailable", "SenderFault": False} for entry in failed
            ],
        }

    def _happens(self) -> bool:
        return self._chance.random() < self._faults


async def main(latency: float, faults: float = 0.0) -> None:
    server = await asyncio.start_server(Endpoint(latency, faults).serve, "127.0.0.1", 0, limit=2**24)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*map(float, sys.argv[1:])))
