"""What the local Service Bus is told to do wrong."""

from __future__ import annotations

from typing import Literal

Spot = Literal["send", "mgmt", "drop_disposition", "lose_disposition"]


class Faults:
    """Faults wait for the next operations at their spot and entity; each is used once.

    ``send`` refuses a transfer and ``mgmt`` a management request with an error condition;
    ``drop_disposition`` leaves a settlement or a message that is sent, which is done, without its answer;
    ``lose_disposition`` does not even do it. *latency*, in seconds, is how much later the broker's answers
    come.
    """

    def __init__(self) -> None:
        self.latency = 0.0
        self._waiting: dict[tuple[Spot, str | None], list[str | Literal[True]]] = {}

    def add(self, spot: Spot, entity: str | None, fault: str | Literal[True], count: int) -> None:
        """Let the next *count* operations at *spot* fail; *entity* None: of whatever queue."""
        key = entity.lower() if entity is not None else None
        self._waiting.setdefault((spot, key), []).extend([fault] * count)

    def take(self, spot: Spot, entity: str) -> str | Literal[True] | None:
        """Return the fault for an operation that is about to happen: an error condition, True, or None."""
        for key in (entity.lower(), None):
            if waiting := self._waiting.get((spot, key)):
                return waiting.pop(0)
        return None

    def clear(self) -> None:
        self.latency = 0.0
        self._waiting.clear()
