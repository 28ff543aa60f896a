"""Says more of what a provider refuses: where the option stands, and what is not read from a ``.env``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from queue_runtime.config.settings import ClientSettings
from queue_runtime.config.sources import PREFIX, set_in
from queue_runtime.errors import ConfigurationError

_OF_SDKS = ("AZURE_", "AWS_")
"""Begin the variables that the SDKs look for in the environment."""


def explained(
    error: ConfigurationError, settings: ClientSettings, environ: Mapping[str, str]
) -> ConfigurationError:
    """*error*, of the provider that *settings* name, with what its text leaves out; itself if that is
    nothing. No value is repeated."""
    text = str(error)
    more = f"{_source(text, settings)}{_unread(text, settings, environ)}"
    if not more or type(error) is not ConfigurationError:
        return error
    return ConfigurationError(
        f"{text}{more}", queue=error.queue, operation=error.operation, provider=error.provider
    )


def _source(text: str, settings: ClientSettings) -> str:
    """Where the option was found that *text* begins with, after the provider's name."""
    provider = settings.provider
    begin = re.escape(f"{provider.provider}: ")
    for name, source in provider.sources.items():
        if re.match(rf"{begin}{re.escape(name)}(?!\w)", text):
            return f" ({source})"
    return ""


def _unread(text: str, settings: ClientSettings, environ: Mapping[str, str]) -> str:
    """That variables which *text* asks for stand in the ``.env`` file, from which only ours are read."""
    origin = settings.origins.get(("env_file",))
    if origin is None:
        return ""
    path = str(origin.value)
    try:
        found = set_in(Path(path))
    except ConfigurationError:
        return ""  # it has been read once, and has changed since
    names = [name for name in found if not environ.get(name) and _asked_for(name, text)]
    if not names:
        return ""
    stands = "stands in {}, and is" if len(names) == 1 else "stand in {}, and are"
    return (
        f"; {', '.join(names)} {stands.format(path)} not read from there: only variables that begin with "
        f"{PREFIX} are. Call dotenv.load_dotenv({path!r}) before connect, or set them in the environment of "
        "the process"
    )


def _asked_for(name: str, text: str) -> bool:
    if f"_env = {name!r}" in text:  # an option that names a variable
        return True
    return any(name.startswith(prefix) and re.search(rf"\b{prefix}", text) for prefix in _OF_SDKS)
