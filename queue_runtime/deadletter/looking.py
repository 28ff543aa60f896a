"""Dead letters page by page, left where they are."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import partial

from queue_runtime.deadletter.holding import MOST_HELD, Holding, Place
from queue_runtime.errors import UnsupportedOperation
from queue_runtime.message import Delivery

PAGE = 100
"""Dead letters that one request looks at."""


def pages(place: Place, size: int, limit: int | None = None) -> Generator[Sequence[Delivery]]:
    """All of them, or the first *limit*, up to *size* at a time; no page is empty.

    Where a broker cannot be looked into, they are received and held until the generator is closed. Raises
    `UnsupportedOperation` there at the ten thousandth.
    """
    if place.capabilities.peek:
        yield from peeked(place, size, limit)
        return
    with Holding(place) as held:
        yield from held.rounds(size, limit)
        if held.ended == "held":
            raise UnsupportedOperation(
                f"there are more than {MOST_HELD} dead letters, or very large ones, and no more can be "
                "held to look at the next ones; export(file, remove=True) takes any number of them out",
                queue=place.queue,
                operation="dead_letters",
            )


def peeked(place: Place, size: int, limit: int | None = None) -> Generator[Sequence[Delivery]]:
    """The same of a broker that can be looked into; it may show fewer than it is asked for."""
    after, left = 0, limit
    while left is None or left > 0:
        want = size if left is None else min(size, left)
        peek = partial(place.runtime.provider.peek, place.dead, want, after=after)
        page = place.runtime.retrying("peek", place.dead, peek)
        if not page:
            return
        yield page
        places = [delivery.sequence for delivery in page if delivery.sequence is not None]
        if not places or max(places) <= after:
            return
        after = max(places)
        left = None if left is None else left - len(page)
