"""Writes what docs/configuration.md lists: ``python -m tests.config.page`` from the root of the project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from queue_runtime.config.schema import ANYWHERE, QUEUE, Group, Names, dotted, leaves
from queue_runtime.config.sources import variable_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"

BEGIN = "<!-- the settings, written by `python -m tests.config.page` -->"
END = "<!-- end of the settings -->"

MEANS: dict[str, str] = {
    "url": "the broker: `PROVIDER://LOCATION?option=value&queue.NAME=TARGET`",
    "provider": "`sqs`, `servicebus`, `memory` or another that is installed, where there is no `url`",
    "location": "what stands after `PROVIDER://`: a region, a namespace, the name of a memory broker",
    "options.NAME": "an option of the provider, see below",
    "queues.NAME": "the broker's name of a queue, the same as `queues.NAME.target`",
    "queues.NAME.target": "the broker's name: a name, a path, a URL or an ARN. Not set: `NAME` itself",
    "strategy": "names the session of messages that come without one, see below. Not set: they have none",
    "retry.max_attempts": "tries of one call, the first included",
    "retry.base": "seconds up to which the first retry waits, doubled with each try",
    "retry.cap": "seconds that a retry waits at most, the first too, however long `retry.base` is",
    "retry.time_limit": "seconds after the first try in which a retry may start; at most 240",
    "breaker.failure_rate": "the part of calls that must fail for the breaker to open, above 0, at most 1",
    "breaker.minimum_calls": "calls in the window before it may open",
    "breaker.window": "seconds that are looked at",
    "breaker.open_for": "seconds that calls are refused before some are let through to see",
    "breaker.probes": "calls that must go well then for it to close",
    "batching.max_in_flight": "requests of one kind under way on one queue",
    "batching.partial_in_flight": "requests under way below which one that is not full leaves",
    "batching.max_pending": "messages of `submit` that wait on one queue; it blocks where there are more",
    "send_timeout": "seconds that a `send` may take in all, retries included",
    "lease": "seconds for which messages are held, on SQS and on memory outside sessions; elsewhere only the "
    "queue says it. `none`: as the queue says",
    "expired": "what becomes of a message whose time-to-live ran out, if that is left to us",
    "max_workers": "threads that run handlers, for all workers of the client together",
    "max_lease": "seconds for which anything is kept alive at most",
    "config": "the TOML or JSON file to read; not in a file",
    "env_file": "the `.env` file to read; not in a file",
}
"""Setting -> what it means; the name, the type and the default are the settings' own."""


def table() -> str:
    """The table of all settings."""
    rows = [
        "| setting | type | default | of one queue | environment variable | |",
        "|---|---|---|---|---|---|",
    ]
    rows += [f"| {' | '.join(row)} |" for row in _rows()]
    return "\n".join(rows)


def _rows() -> Iterator[list[str]]:
    of_a_queue = {path for path, _ in leaves(QUEUE)}
    for name, node in ANYWHERE.items.items():
        if isinstance(node, Names):
            yield _row((name, "NAME"), "text, a number, a switch" if name == "options" else "text", "", "")
            if name == "queues":
                yield _row((name, "NAME", "target"), "text", "", "")
            continue
        for path, leaf in leaves(Group({name: node})):
            default = "" if leaf.default is None or leaf.default == "" else f"`{_text(leaf.default)}`"
            yield _row(path, leaf.kind.what, default, "yes" if path in of_a_queue else "")


def _row(path: tuple[str, ...], kind: str, default: str, of_a_queue: str) -> list[str]:
    name = dotted(path)
    return [
        f"`{name}`",
        kind.replace("'", "`"),
        default,
        of_a_queue,
        f"`{variable_of(path)}`",
        MEANS[name],
    ]


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def written(page: str) -> str:
    """The table that stands on the *page*."""
    return page.partition(BEGIN)[2].partition(END)[0].strip()


def with_table(page: str) -> str:
    """The *page* with the table that is right."""
    head, _, rest = page.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
