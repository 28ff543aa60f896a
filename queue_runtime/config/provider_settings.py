"""`ProviderSettings`: which broker, where, and the options that its provider reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from queue_runtime.errors import ConfigurationError
from queue_runtime.nearest import did_you_mean

QUEUE_PREFIX = "queue."
"""Begins the names of a URL's parameters that map logical queue names."""

_PROVIDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_NO_PLACE = re.compile("[@;=]")


class Options(Mapping[str, str]):
    """A provider's options. They may hold secrets: it shows their names only, and cannot be pickled."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{name!r}: ***' for name in self._values)}}}"

    def __copy__(self) -> Options:
        return self

    def __deepcopy__(self, memo: object) -> Options:
        return self  # it does not change

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "settings cannot be pickled, for they may hold secrets; have the other process read its own"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """What a provider's factory is given: the URL's place and its options, as text.

    `options` may hold secrets and stays out of the repr. A provider refuses options that it does not
    know, by name.
    """

    provider: str
    location: str = ""
    """What stands after ``provider://``: a region, a namespace, the name of a memory broker."""
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    credential: object | None = field(default=None, repr=False)
    """An object of the SDK's that says who we are, from code (Azure: any `TokenCredential`)."""
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Where options were found, for errors."""

    def __post_init__(self) -> None:
        for name in ("provider", "location"):
            if not isinstance(getattr(self, name), str):
                raise ConfigurationError(
                    f"{name} must be text, it is of type {type(getattr(self, name)).__name__}"
                )
        # Without the values: a connection string may have been given in their place.
        if not _PROVIDER.fullmatch(self.provider):
            raise ConfigurationError(
                "provider must be a name of letters, digits and '._+-', such as 'sqs'; what was given is none"
            )
        if _NO_PLACE.search(self.location):
            raise ConfigurationError(
                f"{self.provider}: the location has '@', ';' or '=' in it; it is a region, a namespace "
                "or a name, and credentials are left to the SDK's own chain or to options",
                provider=self.provider,
            )
        for name, value in self.options.items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise ConfigurationError(
                    f"{self.provider}: option {name!r} must be text, its value is of type "
                    f"{type(value).__name__}",
                    provider=self.provider,
                )
        object.__setattr__(self, "options", Options(self.options))

    def refuse_unknown(self, known: frozenset[str]) -> None:
        """Raise `ConfigurationError` for the first option that is not *known*."""
        for name in self.options:
            if name not in known:
                source = f" ({self.sources[name]})" if name in self.sources else ""
                raise ConfigurationError(
                    f"{self.provider}: unknown option {name!r}{source}; it takes {', '.join(sorted(known))}, "
                    f"and {QUEUE_PREFIX}NAME for logical queue names{did_you_mean(name, known)}",
                    provider=self.provider,
                )

    def refuse_credential(self) -> None:
        """Raise `ConfigurationError` if there is a credential; for a provider that takes none."""
        if self.credential is not None:
            raise ConfigurationError(
                f"{self.provider}: it takes no credential object (a {type(self.credential).__name__} was "
                "given); leave credential= out",
                provider=self.provider,
            )

    def number(self, name: str, default: float, least: float, most: float, *, whole: bool = False) -> float:
        """The option *name* as a number, *default* where it is not given. Raises `ConfigurationError`."""
        text = self.options.get(name)
        if text is None:
            return default
        try:
            value = float(int(text) if whole else text)
        except (ValueError, OverflowError):
            value = float("nan")
        if not least <= value <= most:
            kind = "a whole number" if whole else "a number"
            way_out = f"give {kind} from {least:g} to {most:g}, or leave it out for {default:g}"
            raise self._not_usable(name, text, way_out)
        return value

    def switch(self, name: str) -> bool | None:
        """The option *name*, None where it is not given. Raises `ConfigurationError`."""
        text = self.options.get(name)
        if text not in (None, "true", "false"):
            raise self._not_usable(name, text, "write true or false, or leave it out")
        return None if text is None else text == "true"

    def _not_usable(self, name: str, text: str | None, way_out: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self.provider}: {name} = {text!r} is not usable: {way_out}", provider=self.provider
        )
