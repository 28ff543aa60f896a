"""What somebody may have meant who wrote a name that there is not."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The name of *known* that is most like *name*; None if none is."""
    spelt = {each.casefold(): each for each in known}
    found = get_close_matches(name.casefold(), spelt, n=1)
    return spelt[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'retry'?``, or nothing."""
    found = nearest(name, known)
    return "" if found is None else f"; did you mean {found!r}?"
