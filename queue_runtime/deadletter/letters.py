"""`DeadLetters`, what programs hold of a dead-letter queue."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import TextIO

from queue_runtime.deadletter import purging
from queue_runtime.deadletter.carrier import check_rate
from queue_runtime.deadletter.exporting import Export
from queue_runtime.deadletter.holding import find
from queue_runtime.deadletter.importing import Import
from queue_runtime.deadletter.looking import PAGE, pages
from queue_runtime.deadletter.purging import PurgePlan
from queue_runtime.deadletter.removing import Removal
from queue_runtime.deadletter.replaying import Replay, Wanted
from queue_runtime.deadletter.reports import ExportReport, ImportReport, RemovalReport, ReplayReport
from queue_runtime.errors import InvalidArgument
from queue_runtime.message import DeadLettered, check_id
from queue_runtime.retry import check_whole
from queue_runtime.runtime import Runtime

Where = Callable[[DeadLettered], bool]


def _each(letter: DeadLettered) -> bool:
    return True


class DeadLetters:
    """The dead-letter queue of one queue, made by `QueueClient.dead_letters`. Any thread may use it.

    Looking changes nothing on a broker that can be looked into (`Capabilities.peek` of the dead-letter queue:
    Service Bus, memory). SQS cannot: there whatever looks receives and releases, so delivery counts rise, and
    others do not see them meanwhile; of a message group that the broker itself moved there only the first ten
    can be had; and ten thousand, or 256 MiB of bodies, is the most that one call can go past.

    What takes dead letters (`replay`, `remove`, `export` with *remove*, a purge) holds at most a thousand at
    a time of those that it wants, and until its end those that stay: at the same ten thousand it ends, and
    says so in its report. An error before the first dead letter was met is raised; a later one is in the
    report, because what was done by then must not be a secret. What *where* raises goes through, with a note
    of what was done. Everything may be broken off at any moment and run again.
    """

    def __init__(self, runtime: Runtime, queue: str) -> None:
        self._runtime = runtime
        self.queue = queue

    def count(self) -> int:
        """How many there are, as the broker tells it: on the clouds up to a minute old.

        Where it does not tell (on Service Bus to credentials that may not manage), they are looked at page by
        page and counted: one request for each hundred, and no more than those in memory.
        """
        place = find(self._runtime, self.queue)
        told = purging.told(place)
        if told is not None:
            return told
        with closing(pages(place, PAGE)) as found:
            return sum(len(page) for page in found)

    def list(self, limit: int = 100) -> list[DeadLettered]:
        """Look at up to *limit* of them, the oldest as far as the broker says."""
        return [letter for page in self.pages(limit=limit) for letter in page]

    def pages(
        self, *, size: int = PAGE, limit: int | None = None
    ) -> Generator[Sequence[DeadLettered], None, None]:
        """Look at all of them, or the first *limit*, up to *size* at a time; no page is empty.

        On SQS all that was shown is hidden from others until the iterator ends or is closed, and
        `UnsupportedOperation` is raised behind the ten thousandth.
        """
        check_whole("size", size, least=1, raises=InvalidArgument)
        _check_limit(limit)
        place = find(self._runtime, self.queue)

        def shown() -> Generator[Sequence[DeadLettered], None, None]:
            with closing(pages(place, size, limit)) as found:
                for page in found:
                    yield [DeadLettered(delivery) for delivery in page]

        return shown()

    def __iter__(self) -> Iterator[DeadLettered]:
        """All of them, one after the other, a page in memory; see `pages`."""
        for page in self.pages():
            yield from page

    def show(self, message_id: str) -> DeadLettered | None:
        """The dead letter with this id, with its whole body, record and traceback; None if there is none.

        They are looked through from the oldest on. If several have the id, this is the first.
        """
        check_id(message_id, "message id")
        with closing(self.pages()) as found:
            return next((letter for page in found for letter in page if letter.id == message_id), None)

    def replay(
        self,
        *,
        where: Where = _each,
        limit: int | None = None,
        rate: float | None = None,
        max_replays: int | None = 3,
        dry_run: bool = False,
    ) -> ReplayReport:
        """Send those back to the queue for which *where* is true, at most *limit*, at most *rate* a second.

        Each keeps its id, session, attributes and body, and counts one more in `Message.replays`; its
        time-to-live begins anew. Those with *max_replays* behind them stay (None: any number is fine), as do
        those that come back while this runs. With *dry_run* nothing is sent: the report says what would be.

        **Order.** Those of a session go back in their order, a thousand dead letters at a time, behind what
        the session has now. If one cannot be sent, or another process got hold of it, the rest of its session
        stays as well. What concerns one message alone (too large for the queue) keeps no other session; what
        would meet all (no connection, no permission, an open breaker) ends the replay.

        **Again.** A dead letter is removed when the queue has confirmed its copy, a hundred at most between
        the two (fewer at a *rate*). So however a replay ends, with an error, with Ctrl-C, with its process,
        it can be run again: nothing is lost, what was done is gone from the dead letters, what was held comes
        back when its lease ends. Twice come at most those whose copy had been sent and whose removal had not
        been confirmed; both copies have one deduplication id, so that queues that drop repeated ones (SQS
        FIFO for five minutes, Service Bus where it is switched on) store one, and the same message id, by
        which a handler may know them elsewhere.
        """
        _check_where(where)
        _check_limit(limit)
        check_rate(rate)
        _check_replays(max_replays)
        wanted = Wanted(where=where, limit=limit, rate=rate, max_replays=max_replays, dry_run=dry_run)
        return Replay(find(self._runtime, self.queue), wanted).run()

    def remove(
        self, which: Iterable[str] | Where, *, limit: int | None = None, dry_run: bool = False
    ) -> RemovalReport:
        """Remove those with the message ids *which*, or for which the function *which* is true, for good.

        All are gone through, so that all of an id go; ids that were not met are in the report. With *dry_run*
        nothing is removed, and the report says what would be.
        """
        _check_limit(limit)
        if callable(which):
            ids, where = None, which
        else:
            if isinstance(which, str):
                raise InvalidArgument(f"remove takes message ids, give it a list: [{which!r}]")
            ids = frozenset(check_id(each, "message id") for each in which)
            where = _with_id(ids)
        removal = Removal(
            find(self._runtime, self.queue),
            wanted=lambda delivery: where(DeadLettered(delivery)),
            ids=ids,
            limit=limit,
            dry_run=dry_run,
        )
        return removal.run()

    def purge(self) -> PurgePlan:
        """Plan to remove all of them: how many there are, and the first five to look at.

        Nothing is removed until the plan's `confirm`, which removes what was there now.
        """
        return purging.plan(find(self._runtime, self.queue))

    def export(
        self, file: TextIO, *, where: Where = _each, limit: int | None = None, remove: bool = False
    ) -> ExportReport:
        """Write them to *file*, one line of JSON each: the whole message, its record, what the broker says.

        The body is `body` if it is UTF-8, else `body_base64`; the lines are ASCII. A page is in memory. With
        *remove* each is removed when its line was flushed (and synchronised to the disk, if *file* is one's),
        so that any number of them can be taken out; in such a file one may be twice if it was broken off.
        """
        if not callable(getattr(file, "write", None)):
            raise InvalidArgument(
                f"file must be a text file that is open for writing, it is {file!r}; "
                "with open(NAME, 'w') as file: ..."
            )
        _check_where(where)
        _check_limit(limit)
        export = Export(find(self._runtime, self.queue), file, where=where, limit=limit, remove=remove)
        return export.run()

    def import_(
        self,
        file: Iterable[str],
        *,
        start: int = 1,
        where: Where = _each,
        limit: int | None = None,
        rate: float | None = None,
        max_replays: int | None = 3,
        dry_run: bool = False,
    ) -> ImportReport:
        """Send what `export` wrote to *file*, an open text file or its lines, back to the queue.

        To the queue, as a replay would, not among the dead letters: there Service Bus lets nobody put
        anything. In the order of the file, a hundred lines in memory. A line needs `id` and one of `body` and
        `body_base64`; one that cannot be read is named in the report, and passed over; at a thousand of them
        the import ends.

        *start* is the first line to be looked at (1 is the first); after an import that was broken off it is
        `ImportReport.next_line`: everything before it is done with, and at most a hundred lines behind it can
        be sent twice, with the same deduplication ids as a replay of them would have. So on a queue that
        drops repeated ones nothing comes twice within its time, also not what was imported and replayed.
        """
        check_whole("start", start, least=1, raises=InvalidArgument)
        _check_where(where)
        _check_limit(limit)
        check_rate(rate)
        _check_replays(max_replays)
        self._runtime.check_open()
        return Import(
            self._runtime,
            self.queue,
            file,
            start=start,
            where=where,
            limit=limit,
            rate=rate,
            max_replays=max_replays,
            dry_run=dry_run,
        ).run()

    def __repr__(self) -> str:
        return f"<DeadLetters of {self.queue!r}>"


def _with_id(ids: frozenset[str]) -> Where:
    return lambda letter: letter.id in ids


def _check_limit(limit: int | None) -> None:
    if limit is not None:
        check_whole("limit", limit, least=0, raises=InvalidArgument)


def _check_replays(max_replays: int | None) -> None:
    if max_replays is not None:
        check_whole("max_replays", max_replays, least=0, raises=InvalidArgument)


def _check_where(where: object) -> None:
    if not callable(where):
        raise InvalidArgument(
            f"where must be a function of a dead letter that returns True or False, it is {where!r}"
        )
