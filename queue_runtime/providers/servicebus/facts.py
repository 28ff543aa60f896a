"""What is known of a queue: asked of the management service where that is allowed, else told by its links."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from datetime import timedelta

from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.servicebus.management import (
    QueueProperties,
    QueueRuntimeProperties,
    ServiceBusAdministrationClient,
)

from queue_runtime.errors import QueueNotFound
from queue_runtime.provider import Capabilities, QueueDescription
from queue_runtime.providers.servicebus.errors import PROVIDER, SDK_ERRORS
from queue_runtime.providers.servicebus.limits import (
    DEAD_LETTERS,
    MAX_BATCH,
    MAX_DELAY,
    STANDARD_MESSAGE_SIZE,
)
from queue_runtime.providers.servicebus.sdk import is_dead_letters

log = logging.getLogger("queue_runtime.servicebus")

HOLD_AS_LONG_AS_NEEDED = 7 * 24 * 3600.0
"""Seconds: a lock may be renewed without end; a week stands for that."""

ENVELOPE = 1024
"""Bytes of a batch that are not its messages: the ids of the first one, and headers."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes that a link takes, as it said when it was opened."""

    message: int = STANDARD_MESSAGE_SIZE
    batch: int = STANDARD_MESSAGE_SIZE


def capabilities(
    *, sessions: bool, sizes: Sizes, takes: bool = True, deduplication: bool | None = None
) -> Capabilities:
    """*takes* False: nothing can be sent to it. *deduplication* is what the management service says."""
    return Capabilities(
        sessions="native" if sessions else "none",
        max_message_size=sizes.message,
        max_batch=MAX_BATCH,
        max_batch_size=max(1, min(sizes.batch, sizes.message) - ENVELOPE),
        batched_settling=False,
        atomic_batch=True,
        max_attributes=None,
        max_delay=MAX_DELAY if takes else 0.0,
        max_lease=HOLD_AS_LONG_AS_NEEDED,
        # The service shows messages of a session only to who holds it.
        peek=not sessions,
        chosen_lease=False,
        cancel=takes,
        copied_delays=not sessions,
        session_state=sessions,
        deduplication=deduplication if takes else False,
        native_expiry=True,
        # The SDK for Python has no request for it.
        purge=False,
        counts_lost_sessions=False,
    )


def described(
    queue: str,
    found: Capabilities,
    told: tuple[QueueProperties, QueueRuntimeProperties] | None,
    lease: float | None,
) -> QueueDescription:
    """*told* by the management service, or None; then *lease* is what has been seen."""
    dead = is_dead_letters(queue)
    dead_letter_queue = None if dead else queue + "/$DeadLetterQueue"
    if told is None:
        return QueueDescription(
            name=queue,
            capabilities=found,
            active=None,
            leased=None,
            delayed=None,
            lease=lease,
            dead_letter_queue=dead_letter_queue,
            max_receives=None,
            retention=None,
        )
    properties, runtime = told
    lock, life = properties.lock_duration, properties.default_message_time_to_live
    return QueueDescription(
        name=queue,
        capabilities=found,
        active=runtime.dead_letter_message_count if dead else runtime.active_message_count,
        leased=None,
        delayed=0 if dead else runtime.scheduled_message_count,
        lease=lock.total_seconds() if isinstance(lock, timedelta) else lease,
        dead_letter_queue=dead_letter_queue,
        max_receives=None if dead else properties.max_delivery_count,
        retention=_retention(life),
    )


class Administration:
    """Asks the management service, as long as it answers. Any thread may call.

    It needs the right to manage; without it, or where there is none to ask, everything works all the same,
    but counts, lock duration and delivery limit are not told.
    """

    def __init__(self, client: ServiceBusAdministrationClient | None) -> None:
        self._lock = threading.Lock()
        # guarded by _lock
        self._client = client

    def ask(self, queue: str) -> tuple[QueueProperties, QueueRuntimeProperties] | None:
        """None if it may not, or cannot, be asked. Raises `QueueNotFound`."""
        with self._lock:
            client = self._client
        if client is None:
            return None
        name = queue[: -len(DEAD_LETTERS)] if is_dead_letters(queue) else queue
        try:
            return client.get_queue(name), client.get_queue_runtime_properties(name)
        except ResourceNotFoundError as exc:
            raise QueueNotFound(f"no queue {queue!r} in this namespace", provider=PROVIDER) from exc
        except (ClientAuthenticationError, HttpResponseError) as exc:
            if getattr(exc, "status_code", None) in (401, 403):
                self._give_up(exc)
            return None
        except SDK_ERRORS as exc:
            # Say, no way out by HTTPS: the links will tell.
            self._give_up(exc)
            return None

    def close(self) -> None:
        self._give_up(None)

    def _give_up(self, error: Exception | None) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            if error is not None:
                log.info("servicebus.no_management", extra={"error": type(error).__name__})
            client.__exit__()


def _retention(life: object) -> float | None:
    """None where it is for ever, which the service writes as ten million days."""
    if not isinstance(life, timedelta) or life > timedelta(days=100 * 365):
        return None
    return life.total_seconds()
