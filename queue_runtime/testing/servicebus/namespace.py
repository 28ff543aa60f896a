"""The queues of the local Service Bus, by path."""

from __future__ import annotations

import re
from dataclasses import replace

from queue_runtime.testing.servicebus.faults import Faults
from queue_runtime.testing.servicebus.queues import DEAD_LETTER_SUFFIX, Queue, QueueSettings

# https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules#microsoftservicebus
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,258}[A-Za-z0-9_])?")


class Namespace:
    """Queues by their names, whose case does not matter; ``NAME/$DeadLetterQueue`` is a queue too.

    *faults* are what its server is to do wrong.
    """

    def __init__(self) -> None:
        self.faults = Faults()
        self._queues: dict[str, Queue] = {}

    def queue(self, path: str) -> Queue | None:
        """Return the queue at *path*, with or without the dead-letter suffix; None if there is none."""
        key = path.strip("/").lower()
        suffix = DEAD_LETTER_SUFFIX.lower()
        queue = self._queues.get(key.removesuffix(suffix))
        if queue is not None and key.endswith(suffix):
            return queue.dead_letters
        return queue

    def put(self, name: str, settings: QueueSettings) -> Queue:
        """Make an empty queue, in the place of one of that name. Raises `ValueError` for no name."""
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is no queue name: up to 260 letters, digits, '.', '-', '_' and '/', "
                "and a letter or a digit at both ends"
            )
        dead = replace(settings, sessions=False, dead_letter_on_expire=False, duplicate_window=0.0, ttl=0.0)
        queue = Queue(name, settings, dead_letters=Queue(name + DEAD_LETTER_SUFFIX, dead))
        self._queues[name.lower()] = queue
        return queue

    def delete_all(self) -> list[str]:
        """Forget every queue and its messages; return their names."""
        names = [queue.path for queue in self._queues.values()]
        self._queues.clear()
        return names

    def tick(self, now: float) -> float | None:
        """Do what has fallen due in all queues; return when there is more to do (Unix seconds)."""
        times = [due for queue in self._queues.values() if (due := queue.tick(now)) is not None]
        return min(times, default=None)

    def stats(self) -> dict[str, dict[str, int]]:
        """Count the messages of each queue: active, locked, deferred, scheduled, dead."""
        return {queue.path: queue.stats() for queue in self._queues.values()}
