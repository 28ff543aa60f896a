"""What a broken provider is: what it breaks, how, and the row that must catch it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import pytest

from queue_runtime.testing.conformance.kit import Kit

F = TypeVar("F", bound=Callable[..., Any])
Row = Callable[..., None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A memory provider that breaks one promise."""

    name: str
    breaks: str
    """What it does, in a sentence."""
    spoil: Callable[[pytest.MonkeyPatch], None]
    row: Row
    """A method of a class of rows."""
    parameters: Mapping[str, object]
    """Those that the row is run with."""
    sessions: Literal["sessions", "groups"]
    """The kind of its queues that have sessions."""

    @property
    def row_name(self) -> str:
        return self.row.__qualname__

    @property
    def family(self) -> str:
        """The class of the row."""
        return self.row_name.partition(".")[0]

    def run_row(self, kit: Kit) -> None:
        rows = getattr(sys.modules[self.row.__module__], self.family)()
        self.row(rows, kit, **self.parameters)


BROKEN: dict[str, Broken] = {}
"""All of them, by name."""


def breaks(row: Row, *, groups: bool = False, **parameters: object) -> Callable[[F], F]:
    """A function that spoils the provider, whose docstring says what is broken then; *row* catches it."""

    def note(spoil: F) -> F:
        name, text = spoil.__name__, spoil.__doc__
        assert text is not None, f"{name} must say what it breaks"
        assert name not in BROKEN, f"{name} is there twice"
        BROKEN[name] = Broken(
            name=name,
            breaks=" ".join(text.split()),
            spoil=spoil,
            row=row,
            parameters=parameters,
            sessions="groups" if groups else "sessions",
        )
        return spoil

    return note


def replaces(
    owner: type, method: str, row: Row, *, groups: bool = False, **parameters: object
) -> Callable[[F], F]:
    """A function that takes the place of *method*, and gets the true one first."""
    true = getattr(owner, method)

    def note(spoilt: F) -> F:
        def spoil(patch: pytest.MonkeyPatch) -> None:
            around(patch, owner, method, spoilt, true)

        spoil.__name__, spoil.__doc__ = spoilt.__name__, spoilt.__doc__
        breaks(row, groups=groups, **parameters)(spoil)
        return spoilt

    return note


def around(
    patch: pytest.MonkeyPatch, owner: type, method: str, spoilt: Callable[..., Any], true: Any = None
) -> None:
    """Replace a method by *spoilt*, which gets the true one first."""
    true = true or getattr(owner, method)
    patch.setattr(owner, method, lambda *args, **named: spoilt(true, *args, **named))
