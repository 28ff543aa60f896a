"""What ``sqs://REGION?...`` may say, read and checked, and the SDK's session made of it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import boto3.session
import botocore.session
from botocore.config import Config
from botocore.exceptions import ProfileNotFound

from queue_runtime.config import ProviderSettings
from queue_runtime.errors import ConfigurationError
from queue_runtime.providers.sqs import routes
from queue_runtime.providers.sqs.errors import PROVIDER
from queue_runtime.providers.sqs.routes import wrong

_TEXTS = frozenset({"ca_bundle", "client_cert", "client_key", "proxy", "proxy_credentials_env"})
_SWITCHES = frozenset({"tcp_keepalive", "use_fips_endpoint", "use_dualstack_endpoint"})

KNOWN_OPTIONS = (
    frozenset({"endpoint_url", "profile", "request_timeout", "connect_timeout", "max_connections"})
    | _TEXTS
    | _SWITCHES
)

REQUEST_TIMEOUT = 5.0
"""Seconds; a sixth of the 30 s for which SQS hides a message unless told otherwise."""

CONNECT_TIMEOUT = 2.0
"""Seconds."""

MAX_CONNECTIONS = 128
"""For each client. urllib3 opens more if it must, and throws them away after one request."""

_ONE_TRY: Mapping[str, Any] = {"total_max_attempts": 1, "mode": "standard"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SqsOptions:
    """What ``sqs://REGION?...`` says. None: what boto3's own chain says (environment, profile, files)."""

    region: str | None = None
    endpoint_url: str | None = None
    profile: str | None = None
    request_timeout: float = REQUEST_TIMEOUT
    """Seconds for one answer, beyond the wait of a long poll."""
    connect_timeout: float = CONNECT_TIMEOUT
    """Seconds to open a connection; never more than the request may take."""
    max_connections: int = MAX_CONNECTIONS
    """Connections kept open."""
    ca_bundle: str | None = None
    """A file with the authorities to trust instead of certifi's. Certificates are verified in any case."""
    client_certificate: routes.ClientCertificate | None = None
    """For a gateway that asks for one; AWS itself does not."""
    proxy: routes.Proxy | None = None
    """None: what ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY`` say."""
    tcp_keepalive: bool = True
    use_fips_endpoint: bool | None = None
    use_dualstack_endpoint: bool | None = None

    @classmethod
    def of(cls, settings: ProviderSettings) -> SqsOptions:
        """Read and check *settings*; raises `ConfigurationError` naming the option.

        Reads the environment and the files that are named. Connects to nothing.
        """
        settings.refuse_unknown(KNOWN_OPTIONS)
        settings.refuse_credential()
        options = settings.options
        for name in sorted(_TEXTS & options.keys()):
            if not options[name]:
                routes.refuse(f"{name} is empty; give it a value, or leave it out")
        region = settings.location or None
        if region is not None and not re.fullmatch(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*", region):
            raise wrong("region", region, "write it as AWS does, such as sqs://eu-west-1")
        bundle = options.get("ca_bundle")
        keepalive = settings.switch("tcp_keepalive")
        found = cls(
            region=region,
            endpoint_url=routes.endpoint(options.get("endpoint_url")),
            profile=options.get("profile") or None,
            request_timeout=settings.number("request_timeout", REQUEST_TIMEOUT, 0.1, 60.0),
            connect_timeout=settings.number("connect_timeout", CONNECT_TIMEOUT, 0.1, 60.0),
            max_connections=int(settings.number("max_connections", MAX_CONNECTIONS, 1, 10_000, whole=True)),
            ca_bundle=routes.ca_bundle(bundle) if bundle is not None else None,
            client_certificate=routes.client_certificate(
                options.get("client_cert"), options.get("client_key")
            ),
            proxy=routes.proxy(options.get("proxy"), options.get("proxy_credentials_env")),
            tcp_keepalive=keepalive is not False,
            use_fips_endpoint=settings.switch("use_fips_endpoint"),
            use_dualstack_endpoint=settings.switch("use_dualstack_endpoint"),
        )
        found._check_beside_endpoint()
        return found

    def session(self) -> boto3.session.Session:
        """Return a session of the SDK. Reads its configuration files and connects to nothing.

        What the SDK asks other services for, to get credentials, goes the same way, and is tried once.
        """
        inner = botocore.session.Session()
        try:
            session = boto3.session.Session(
                region_name=self.region, profile_name=self.profile, botocore_session=inner
            )
            region = session.region_name
            inner.set_config_variable("ca_bundle", self._authorities(inner))
        except ProfileNotFound as exc:
            # Also one that AWS_PROFILE names.
            known = ", ".join(sorted(botocore.session.Session().available_profiles)) or "none"
            raise wrong(
                "profile", exc.kwargs["profile"], f"the AWS configuration files have: {known}"
            ) from exc
        if not region:
            raise ConfigurationError(
                "sqs: no region; write it into the URL (sqs://eu-west-1), set AWS_DEFAULT_REGION, "
                "or give the profile one",
                provider=PROVIDER,
            )
        inner.set_default_client_config(Config(**self._way(self.request_timeout)))
        return session

    def client_config(self, timeout: float) -> Config:
        """How a client of the SDK's makes its requests, each of which may take *timeout* seconds."""
        more: dict[str, Any] = {}
        if self.client_certificate is not None:
            more["client_cert"] = self.client_certificate.for_botocore()
        return Config(
            max_pool_connections=self.max_connections,
            parameter_validation=False,
            **self._way(timeout),
            **more,
        )

    def _way(self, timeout: float) -> dict[str, Any]:
        way: dict[str, Any] = {
            "connect_timeout": min(self.connect_timeout, timeout, self.request_timeout),
            "read_timeout": timeout,
            "retries": dict(_ONE_TRY),
            "tcp_keepalive": self.tcp_keepalive,
        }
        if self.proxy is not None:
            way["proxies"] = dict.fromkeys(("http", "https"), self.proxy.whole())
        for name in ("use_fips_endpoint", "use_dualstack_endpoint"):
            if getattr(self, name) is not None:
                way[name] = getattr(self, name)
        return way

    def _authorities(self, inner: botocore.session.Session) -> str | bool:
        """The file that names them, or True for certifi's; never what would switch verification off, as an
        empty ``AWS_CA_BUNDLE`` did in older SDKs."""
        if self.ca_bundle is not None:
            return self.ca_bundle
        source, named = "AWS_CA_BUNDLE, or ca_bundle of the profile,", inner.get_config_variable("ca_bundle")
        if not named:
            source, named = "REQUESTS_CA_BUNDLE", os.environ.get("REQUESTS_CA_BUNDLE")
        if not named or (self.endpoint_url or "").startswith("http:"):
            return True
        return routes.ca_bundle(named, source)

    def _check_beside_endpoint(self) -> None:
        if self.endpoint_url is None:
            return
        for name in ("use_fips_endpoint", "use_dualstack_endpoint"):
            if getattr(self, name):
                routes.refuse(f"{name} chooses among AWS's own endpoints, and endpoint_url names another one")
        if self.endpoint_url.startswith("http:"):
            for name, given in (("ca_bundle", self.ca_bundle), ("client_cert", self.client_certificate)):
                if given is not None:
                    routes.refuse(
                        f"{name} has no effect: endpoint_url = {self.endpoint_url!r} is without TLS"
                    )
