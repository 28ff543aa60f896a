"""The tree of all settings, as files and environment variables name them; read off the dataclasses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, get_args, get_type_hints

from queue_runtime.config.kinds import OPTION, PLACE, TEXT, Kind, kind_of
from queue_runtime.config.settings import ClientSettings, QueueOptions

Path = tuple[str, ...]
"""The names from the outside to the inside: ``("retry", "max_attempts")``."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One setting."""

    kind: Kind
    default: object = None


@dataclass(frozen=True, slots=True)
class Group:
    """Settings with a name in common. `made` is the dataclass that they are the fields of."""

    items: Mapping[str, Leaf | Group | Names]
    made: type[Any] | None = None


@dataclass(frozen=True, slots=True)
class Names:
    """Names that the user gives, and what stands under each. `short`: a plain value instead of a group is
    this item of it."""

    each: Leaf | Group
    short: str | None = None


Node = Leaf | Group | Names


def dotted(path: Path) -> str:
    """``retry.max_attempts``: how files and errors write *path*."""
    return ".".join(path)


def _group(made: type[Any], *, without: frozenset[str] = frozenset(), inherits: bool = False) -> Group:
    hints = get_type_hints(made)
    items: dict[str, Node] = {}
    for field in fields(made):
        if field.init and field.name not in without:
            items[field.name] = _node(hints[field.name], field.default, inherits=inherits)
    return Group(items, made)


def _node(hint: Any, default: object, *, inherits: bool) -> Node:
    for each in (hint, *get_args(hint)):
        if is_dataclass(each) and isinstance(each, type):
            return _group(each)
    return Leaf(kind_of(hint, inherits=inherits), None if default is MISSING else default)


CLIENT = _group(ClientSettings, without=frozenset({"provider", "queues", "origins"}))
"""What holds for all queues, or for the client."""

QUEUE = _group(QueueOptions, inherits=True)
"""What a queue may have of its own."""

IN_FILES = Group(
    {
        "url": Leaf(PLACE),
        "provider": Leaf(TEXT),
        "location": Leaf(TEXT, ""),
        "options": Names(Leaf(OPTION)),
        "queues": Names(QUEUE, short="target"),
        **CLIENT.items,
    }
)

ANYWHERE = Group({**IN_FILES.items, "config": Leaf(TEXT), "env_file": Leaf(TEXT)})
"""Also which files to read, which files do not say."""


def leaves(group: Group, path: Path = ()) -> Iterator[tuple[Path, Leaf]]:
    """All settings that have a fixed name."""
    for name, node in group.items.items():
        if isinstance(node, Leaf):
            yield (*path, name), node
        elif isinstance(node, Group):
            yield from leaves(node, (*path, name))
