"""What ``sqs://REGION?...`` may say, read and checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import boto3.session
import botocore.session
from botocore.exceptions import ProfileNotFound

from queue_runtime.config import ProviderSettings
from queue_runtime.errors import ConfigurationError
from queue_runtime.providers.sqs.errors import PROVIDER

KNOWN_OPTIONS = frozenset({"endpoint_url", "profile", "request_timeout", "max_connections"})

REQUEST_TIMEOUT = 5.0
"""Seconds; a sixth of the 30 s for which SQS hides a message unless told otherwise."""

MAX_CONNECTIONS = 128
"""For each client. urllib3 opens more if it must, and throws them away after one request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SqsOptions:
    """What ``sqs://REGION?...`` says. None: what boto3's own chain says (environment, profile, files)."""

    region: str | None = None
    endpoint_url: str | None = None
    profile: str | None = None
    request_timeout: float = REQUEST_TIMEOUT
    max_connections: int = MAX_CONNECTIONS

    @classmethod
    def of(cls, settings: ProviderSettings) -> SqsOptions:
        """Read and check *settings*; raises `ConfigurationError` naming the option."""
        settings.refuse_unknown(KNOWN_OPTIONS)
        settings.refuse_credential()
        options = settings.options
        region = settings.location or None
        if region is not None and not re.fullmatch(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*", region):
            raise _wrong("region", region, "write it as AWS does, such as sqs://eu-west-1")
        return cls(
            region=region,
            endpoint_url=_endpoint(options.get("endpoint_url")),
            profile=options.get("profile") or None,
            request_timeout=_number(options, "request_timeout", REQUEST_TIMEOUT, 0.1, 60.0),
            max_connections=int(_number(options, "max_connections", MAX_CONNECTIONS, 1, 10_000, whole=True)),
        )

    def session(self) -> boto3.session.Session:
        """Return a session of the SDK. Reads its configuration files and connects to nothing."""
        try:
            session = boto3.session.Session(region_name=self.region, profile_name=self.profile)
            region = session.region_name
        except ProfileNotFound as exc:
            # Also one that AWS_PROFILE names.
            known = ", ".join(sorted(botocore.session.Session().available_profiles)) or "none"
            raise _wrong(
                "profile", exc.kwargs["profile"], f"the AWS configuration files have: {known}"
            ) from exc
        if not region:
            raise ConfigurationError(
                "sqs: no region; write it into the URL (sqs://eu-west-1), set AWS_DEFAULT_REGION, "
                "or give the profile one",
                provider=PROVIDER,
            )
        return session


def _endpoint(url: str | None) -> str | None:
    if not url:
        return None
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if "@" in url:
        raise ConfigurationError(
            "sqs: endpoint_url holds credentials; leave them to boto3's own chain, "
            "where they stay out of logs",
            provider=PROVIDER,
        )
    if not usable:
        raise _wrong("endpoint_url", url, "write it as http://HOST:PORT or https://HOST")
    return url


def _number(
    options: Mapping[str, str], name: str, default: float, least: float, most: float, *, whole: bool = False
) -> float:
    text = options.get(name)
    if text is None:
        return default
    try:
        value = float(int(text) if whole else text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        kind = "a whole number" if whole else "a number"
        raise _wrong(name, text, f"give {kind} from {least:g} to {most:g}, or leave it out for {default:g}")
    return value


def _wrong(name: str, value: object, way_out: str) -> ConfigurationError:
    return ConfigurationError(f"sqs: {name} = {value!r} is not usable: {way_out}", provider=PROVIDER)
