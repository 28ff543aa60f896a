"""`load_settings`: from all sources, in the order of their precedence, to `ClientSettings`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, cast

from queue_runtime.config.precedence import PROVIDER, merge
from queue_runtime.config.provider_settings import ProviderSettings
from queue_runtime.config.schema import CLIENT, QUEUE, Group, Path, dotted
from queue_runtime.config.settings import ClientSettings, QueueOptions
from queue_runtime.config.showing import Origin
from queue_runtime.config.sources import (
    CODE,
    IN_CODE,
    SUFFIXES,
    Given,
    Layer,
    from_code,
    from_env_file,
    from_environment,
    from_file,
)
from queue_runtime.errors import ConfigurationError

Target = str | os.PathLike[str] | Mapping[str, Any]
"""A URL, the path of a TOML or JSON file, or a dictionary with settings as a file would have them."""

ENV_FILE = ".env"

ENV_FILE_PATH: Path = ("env_file",)


def load_settings(
    target: Target | None = None,
    *,
    env_file: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> ClientSettings:
    """Read the settings, each from the first source that has it: code (a URL or a dictionary as *target*),
    the environment, the *env_file*, a TOML or JSON file, the defaults.

    The file is *target*, or what ``QUEUE_RUNTIME_CONFIG`` names; the ``.env`` file is *env_file*, or what
    ``QUEUE_RUNTIME_ENV_FILE`` names, and none if neither is given. *environ* stands for the environment in
    tests. Raises `ConfigurationError`, naming the file and the key, or the variable, for what is unknown, of
    the wrong type or out of range, and if nothing names a provider.
    """
    code, named = _told(target)
    environment = from_environment(os.environ if environ is None else environ)
    chosen = env_file if env_file is not None else _first("env_file", code, environment)
    dotenv: Layer = {} if chosen is None else from_env_file(FilePath(chosen))
    file = named or _first("config", code, environment, dotenv)
    layers = [code, environment, dotenv]
    if file is not None:
        layers.append(from_file(FilePath(file)))
    merged = dict(merge(layers))
    if chosen is not None:  # also where it is an argument, which is in no layer
        merged[ENV_FILE_PATH] = Given(ENV_FILE_PATH, os.fspath(chosen), CODE)
    if PROVIDER not in merged:
        raise ConfigurationError(_nothing_named(file, env_file=chosen))
    return _settings(merged)


def _told(target: Target | None) -> tuple[Layer, FilePath | None]:
    """What *target* says itself, and the file that it names."""
    if target is None:
        return {}, None
    if isinstance(target, Mapping):
        return from_code(target), None
    if isinstance(target, os.PathLike):
        return {}, FilePath(target)
    if not isinstance(target, str):
        raise ConfigurationError(
            "settings come from a URL, the name of a .toml or .json file, or a dictionary, not a "
            f"{type(target).__name__}"
        )
    if "://" not in target and FilePath(target).suffix in SUFFIXES:
        return {}, FilePath(target)
    return from_code({"url": target}), None


def _first(name: str, *layers: Layer) -> str | None:
    return next((str(layer[(name,)].value) for layer in layers if (name,) in layer), None)


def _nothing_named(file: object, *, env_file: object) -> str:
    if file is not None:
        return f"no target: neither {str(file)!r} nor anything else says url or provider; such as sqs://eu-west-1"
    here = (
        f"; there is a {ENV_FILE} file here, which connect(env_file={ENV_FILE!r}) reads"
        if env_file is None and FilePath(ENV_FILE).is_file()
        else ""
    )
    return (
        "no target: set the environment variable QUEUE_RUNTIME_URL (or QUEUE_RUNTIME_CONFIG, for a file), or "
        f"call connect(URL), such as connect('sqs://eu-west-1'){here}"
    )


# From values to the dataclasses.


def _settings(merged: Layer) -> ClientSettings:
    plain = {path: given.value for path, given in merged.items()}
    names = dict.fromkeys(path[1] for path in plain if path[0] == "queues")
    try:
        common = _made_of(CLIENT, plain, ())  # before the queues, which have what is wrong here from here
        provider = ProviderSettings(
            provider=cast(str, plain[PROVIDER]),
            location=cast(str, plain.get(("location",), "")),
            options={path[1]: cast(str, value) for path, value in plain.items() if path[0] == "options"},
            sources={
                path[1]: given.source
                for path, given in merged.items()
                if path[0] == "options" and given.source not in IN_CODE
            },
        )
        return ClientSettings(
            provider=provider,
            queues={name: _queue(name, plain) for name in names},
            origins={path: Origin(given.value, given.source) for path, given in merged.items()},
            **common,
        )
    except ConfigurationError as exc:
        raise ConfigurationError(_with_source(str(exc), merged)) from exc.__cause__


def _queue(name: str, plain: Mapping[Path, object]) -> str | QueueOptions:
    """What the queue has of its own. A policy of which it says a part has the rest from the client's."""
    try:
        found = _made_of(QUEUE, plain, (), ("queues", name))
        return cast(str, found["target"]) if found.keys() == {"target"} else QueueOptions(**found)
    except ConfigurationError as exc:
        raise ConfigurationError(f"queues.{name}.{exc}") from exc.__cause__


def _made_of(group: Group, plain: Mapping[Path, object], *places: Path) -> dict[str, Any]:
    """The arguments for what *group* describes: what stands under the last of *places*. A policy of which a
    part stands there has the rest from the places before."""
    found: dict[str, Any] = {}
    for name, node in group.items.items():
        if isinstance(node, Group):
            said = [
                {item: plain[*place, name, item] for item in node.items if (*place, name, item) in plain}
                for place in places
            ]
            if said[-1] and node.made is not None:
                found[name] = node.made(**{item: value for each in said for item, value in each.items()})
        elif (*places[-1], name) in plain:
            found[name] = plain[*places[-1], name]
    return found


def _with_source(text: str, merged: Layer) -> str:
    """*text*, with where the setting was found that it begins with."""
    named: dict[str, Given] = {}
    for path, given in merged.items():
        named[dotted(path)] = given
        if path[0] == "queues" and path[-1] == "target":
            named[f"queue.{path[1]}"] = given
    found = [name for name in named if re.match(rf"{re.escape(name)}\b", text)]
    source = named[max(found, key=len)].source if found else CODE
    return text if source in IN_CODE else f"{text} ({source})"
