"""Writes what docs/worker.md lists: ``python -m tests.worker.page`` from the root of the project."""

from __future__ import annotations

import ast
import inspect
import logging
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from queue_runtime import HandlerPolicy, Hooks, StopReport, Worker, WorkerHealth, WorkerStatus, events

PAGE = Path(__file__).resolve().parents[2] / "docs" / "worker.md"

BEGIN = "<!-- the reference, written by `python -m tests.worker.page` -->"
END = "<!-- end of the reference -->"

ARGUMENTS: dict[str, str] = {
    "client": "what `connect` returned; several workers may share one",
    "queue": "the queue, by the program's name. One worker serves one queue",
    "handler": "called with each message; with `payload=` with the decoded payload and the message",
    "payload": "the class that bodies are decoded to. None: the handler calls `message.payload(...)` itself",
    "concurrency": "handlers that run at once, at most",
    "prefetch": "messages, or sessions, leased at once, at most. None: as many as `concurrency`",
    "policy": "how often a message is tried, see below. None: `HandlerPolicy()`",
    "hooks": "`Hooks` objects that are told of each attempt, see below",
    "session_idle": "seconds without a message after which a session is let go",
    "session_max_time": "seconds after which a busy session is let go if other sessions wait. `inf`: never",
    "session_max_messages": "messages after which a busy session is let go if other sessions wait. "
    "None: no limit",
    "poll": "seconds that one question to the broker waits for messages. "
    "On SQS `run` may take so long to end",
    "give_up_after": "seconds without an answer from the broker after which `run` stops. None: it never does",
}
"""Argument of `Worker` -> what it means; the name, the type and the default are the signature's own."""

POLICY: dict[str, str] = {
    "max_attempts": "how often a handler is tried with one message, the first time included",
    "base": "seconds up to which the first retry waits, doubled with each attempt",
    "cap": "seconds that a backoff has at most",
    "permanent": "exceptions that dead-letter the message at once",
    "downstream": "exceptions that say that something the handler needs is down. They count as no attempt",
    "max_hold": "seconds for which a message may hold up its session, "
    "from its first attempt to its last retry",
    "max_deliveries": "deliveries after which a message is dead-lettered without being tried. "
    "None: three times `max_attempts`",
    "time_limit": "seconds after which a handler loses its lease. It is told, and not interrupted. "
    "None: no limit",
    "on_exhausted": "what becomes of a message that can never be handled: `dead_letter`, `drop` "
    "(complete it) or `block` (keep it, and try it again every `cap` seconds)",
    "breaker": "at which rate of failures, of how many handlers, within how many seconds the worker pauses. "
    "None: it never does",
}
"""Field of `HandlerPolicy` -> what it means."""


def reference() -> str:
    """All that stands between the two comments."""
    parts = [
        "## The arguments of `Worker`",
        _table(["argument", "type", "default", ""], _arguments()),
        "## The methods of `Worker`",
        _table(["method", ""], _methods(Worker)),
        "## The fields of `HandlerPolicy`",
        _table(["field", "type", "default", ""], _policy()),
        "## The methods of `Hooks`",
        _table(["method", ""], _methods(Hooks)),
    ]
    for kind in (StopReport, WorkerStatus, WorkerHealth):
        parts += [f"## `{kind.__name__}`", first(kind), _table(["field", "type", ""], _record(kind))]
    parts += ["## Events", EVENTS, _table(["event", "level", "when", "fields"], _events())]
    return "\n\n".join(parts)


EVENTS = (
    "All have `queue`, the program's name for it. They are frozen records of `queue_runtime.events`, told to "
    "the `listeners` of `connect`, and each is a line in the log `queue_runtime`."
)


def _arguments() -> Iterator[list[str]]:
    parameters = dict(inspect.signature(Worker.__init__).parameters)
    del parameters["self"]
    assert parameters.keys() == ARGUMENTS.keys()
    for name, parameter in parameters.items():
        default = "" if parameter.default is inspect.Parameter.empty else _value(parameter.default)
        yield [f"`{name}`", _code(parameter.annotation), default, ARGUMENTS[name]]


def _policy() -> Iterator[list[str]]:
    found = {field.name: field for field in fields(HandlerPolicy)}
    assert found.keys() == POLICY.keys()
    for name, field in found.items():
        yield [f"`{name}`", _code(field.type), _value(field.default), POLICY[name]]


def _methods(kind: type[Any]) -> Iterator[list[str]]:
    for name, method in vars(kind).items():
        if inspect.isfunction(method) and not name.startswith("_"):
            shown = ", ".join(
                f"{parameter.name}={parameter.default:g}"
                if parameter.default is not inspect.Parameter.empty
                else parameter.name
                for parameter in list(inspect.signature(method).parameters.values())[1:]
            )
            yield [f"`{name}({shown})`", first(method)]


def _record(kind: type[Any]) -> Iterator[list[str]]:
    said = explained(kind)
    for field in fields(kind):
        yield [f"`{field.name}`", _code(field.type), said[field.name]]
    for name, value in vars(kind).items():
        if isinstance(value, property) and not name.startswith("_"):
            yield [f"`{name}`", "", first(value)]


def _events() -> Iterator[list[str]]:
    for kind in every_event():
        own = [field.name for field in fields(kind) if field.name != "queue"]
        level = logging.getLevelName(events._LEVELS[kind])
        yield [f"`{kind.__name__}`", level, first(kind), ", ".join(f"`{name}`" for name in own)]


def every_event() -> list[type[events.Event]]:
    found = [kind for kind in vars(events).values() if isinstance(kind, type)]
    return sorted(
        (kind for kind in found if issubclass(kind, events.Event) and kind is not events.Event),
        key=lambda kind: kind.__name__,
    )


def first(what: object) -> str:
    """The first paragraph of a docstring, as Markdown."""
    return _markdown((inspect.getdoc(what) or "").split("\n\n")[0])


def explained(kind: type[Any]) -> dict[str, str]:
    """What stands below each field of a class; empty where nothing does."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    said = dict.fromkeys((field.name for field in fields(kind)), "")
    last = ""
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            last = node.target.id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and last:
            said[last] = _markdown(str(node.value.value))
    return said


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def _markdown(text: str) -> str:
    return re.sub(r"``([^`]+)``", r"`\1`", " ".join(text.split())).replace("|", r"\|")


def _code(kind: object) -> str:
    text = str(kind)
    return f"`{text}`".replace("|", r"\|")


def _value(value: object) -> str:
    if value is MISSING:
        return ""
    if is_dataclass(value):
        other = [field for field in fields(value) if getattr(value, field.name) != field.default]
        shown = ", ".join(f"{field.name}={getattr(value, field.name)!r}" for field in other)
        return f"`{type(value).__name__}({shown})`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value!r}`"


def written(page: str) -> str:
    """The reference that stands on the *page*."""
    return page.partition(BEGIN)[2].partition(END)[0].strip()


def with_reference(page: str) -> str:
    """The *page* with the reference that is right."""
    head, _, rest = page.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{reference()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(with_reference(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
