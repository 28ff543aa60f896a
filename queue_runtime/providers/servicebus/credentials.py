"""Who we are to Azure: a credential by its name in azure-identity, or an object, made fit for many threads.

How tokens stay fresh. Every link puts its own token when it is opened, and again when 90 % of the token's
life have passed: the SDK does so in whichever call next uses the link, so a link in use needs nothing from
us, and one that was idle for longer than its token lived is closed by the service and opened anew. Tokens
made of a key live an hour and cost nothing. Those of Microsoft Entra ID are asked for here by one thread at
a time, kept for the others, and replaced after 80 % of their life; a signature is put as it is until it ends.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, NoReturn, Protocol

from azure.core.credentials import AccessToken, AzureNamedKeyCredential, AzureSasCredential

# Not public, and the only kind that the administration client signs with: it wants nothing else of it.
from azure.servicebus._base_handler import ServiceBusSharedKeyCredential

from queue_runtime.clock import Clock
from queue_runtime.errors import ConfigurationError, MissingExtra
from queue_runtime.providers.servicebus.connection_strings import check_signature, refuse
from queue_runtime.providers.servicebus.errors import PROVIDER

IDENTITIES: Mapping[str, frozenset[str]] = {
    "default": frozenset({"client_id"}),
    "managed_identity": frozenset({"client_id"}),
    "service_principal": frozenset({"tenant_id", "client_id", "certificate_path"}),
    "workload_identity": frozenset({"tenant_id", "client_id"}),
    "environment": frozenset(),
    "cli": frozenset({"tenant_id"}),
}
"""What ``credential=`` may say, and the further options that each takes."""

IDENTITY_OPTIONS = frozenset({"credential"}).union(*IDENTITIES.values())

_AUTHORITIES = {
    "servicebus.chinacloudapi.cn": "AZURE_CHINA",
    "servicebus.usgovcloudapi.net": "AZURE_GOVERNMENT",
}
"""Where a namespace's name ends so, tokens come from another cloud.
https://learn.microsoft.com/azure/azure-government/compare-azure-government-global-azure"""

_USED = 0.8
"""Part of a token's life after which it is replaced: before the SDK asks, at nine tenths."""

_PAUSE = 30.0
"""Seconds that an old token is used on where asking for a new one failed."""


class TokenCredential(Protocol):
    """The part of azure.core's `TokenCredential` that is used."""

    def get_token(self, *scopes: str) -> AccessToken: ...


class Tokens:
    """The tokens of one credential, for all threads: one of them asks, the others get its answer.

    Some credentials start a program for each token (Azure CLI), and forty receivers may be opened at once.
    While a token lives, its replacement may fail; then the error is whoever's who needs a new one.
    """

    def __init__(self, credential: TokenCredential, clock: Clock, *, owned: bool) -> None:
        self._credential = credential
        self._clock = clock
        self._owned = owned
        self._lock = threading.Lock()
        # guarded by _lock: the token and the time of its replacement; the question that is under way
        self._kept: dict[tuple[str, ...], tuple[AccessToken, float]] = {}
        self._asked: dict[tuple[str, ...], Future[AccessToken]] = {}

    def __repr__(self) -> str:
        return f"<Tokens of {type(self._credential).__name__}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("tokens are not pickled; make the credential where it is used")

    @property
    def kind(self) -> str:
        return type(self._credential).__name__

    def get_token(self, *scopes: str, **more: Any) -> AccessToken:
        """A token with some life left. Raises what the credential raises."""
        if any(more.values()):  # claims that the service asks for: nothing that is kept can have them
            return self._credential.get_token(*scopes, **more)
        with self._lock:
            kept = self._kept.get(scopes)
            if kept is not None and self._now() < kept[1]:
                return kept[0]
            asked = self._asked.get(scopes)
            answer: Future[AccessToken] = self._asked.setdefault(scopes, Future())
        if asked is None:
            self._ask(scopes, answer, kept[0] if kept is not None else None)
        return answer.result()

    def close(self) -> None:
        """Close the credential's connections, unless it was given to us."""
        close = getattr(self._credential, "close", None)
        if self._owned and callable(close):
            close()

    def _ask(self, scopes: tuple[str, ...], answer: Future[AccessToken], old: AccessToken | None) -> None:
        try:
            token = self._credential.get_token(*scopes)
            renewal = self._now() + _USED * (token.expires_on - self._now())
        except Exception as exc:  # whatever it is, those who wait must hear of it
            if old is None or self._now() >= old.expires_on:
                self._answered(scopes)
                answer.set_exception(exc)
                return
            token, renewal = old, min(self._now() + _PAUSE, old.expires_on)
        except BaseException:  # an interrupt is for this thread alone; the others get a CancelledError
            self._answered(scopes)
            answer.cancel()
            raise
        self._answered(scopes, (token, renewal))
        answer.set_result(token)

    def _answered(self, scopes: tuple[str, ...], kept: tuple[AccessToken, float] | None = None) -> None:
        with self._lock:
            del self._asked[scopes]
            if kept is not None:
                self._kept[scopes] = kept

    def _now(self) -> float:
        return self._clock.now().timestamp()


Credential = Tokens | AzureNamedKeyCredential | AzureSasCredential


class HttpSignature(ServiceBusSharedKeyCredential):
    """A key or signature for the administration client, which takes neither.

    Signed anew for each request: its own policy keeps a signature for a minute longer than it lives, and
    would not see that the key has been replaced (`AzureNamedKeyCredential.update`).
    """

    def __init__(self, credential: AzureNamedKeyCredential | AzureSasCredential) -> None:
        super().__init__("", "")
        self._given = credential

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is not pickled")

    def get_token(self, *scopes: str, **more: Any) -> AccessToken:
        if isinstance(self._given, AzureSasCredential):
            return AccessToken(self._given.signature, 0)
        key = ServiceBusSharedKeyCredential(*self._given.named_key)
        return AccessToken(key.get_token(*scopes).token, 0)


def given(credential: object, clock: Clock) -> Credential:
    """What `ProviderSettings.credential` holds, checked."""
    if isinstance(credential, AzureNamedKeyCredential):
        return credential
    if isinstance(credential, AzureSasCredential):
        check_signature(credential.signature, "the AzureSasCredential in ProviderSettings.credential")
        return credential
    get_token = getattr(credential, "get_token", None)
    if not callable(get_token) or isinstance(credential, type):
        refuse(
            f"ProviderSettings.credential is {_what(credential)}; give an object with get_token (of "
            "azure.identity), an AzureNamedKeyCredential or an AzureSasCredential"
        )
    if inspect.iscoroutinefunction(get_token):
        refuse(
            f"ProviderSettings.credential is {_what(credential)}, for asyncio; azure.identity has its like"
        )
    return Tokens(credential, clock, owned=False)  # type: ignore[arg-type]  # it has get_token


def named(options: Mapping[str, str], namespace: str, clock: Clock, http: Mapping[str, Any]) -> Tokens:
    """The credential that ``credential=`` names. *http* is for those that ask by HTTP. None asks yet."""
    kind = options.get("credential", "default")
    takes = IDENTITIES.get(kind)
    if takes is None:  # it is not repeated: it may be a key in the wrong place
        refuse(f"credential must be one of {', '.join(IDENTITIES)}")
    for name in options:
        if name in IDENTITY_OPTIONS - takes - {"credential"}:
            refuse(
                f"credential={kind} takes {' and '.join(sorted(takes)) or 'no further option'}, not {name}"
            )
    try:
        return Tokens(_make(kind, options, namespace, http), clock, owned=True)
    except ConfigurationError:
        raise
    except ValueError as exc:  # azure-identity names what is missing, and repeats nothing
        raise ConfigurationError(f"servicebus: credential={kind}: {exc}", provider=PROVIDER) from None


def _make(kind: str, options: Mapping[str, str], namespace: str, http: Mapping[str, Any]) -> TokenCredential:
    identity = _azure_identity()
    chosen = {name: options[name] for name in ("tenant_id", "client_id") if name in options}
    cloud = next((cloud for end, cloud in _AUTHORITIES.items() if namespace.endswith("." + end)), None)
    place = {}
    if cloud is not None and "AZURE_AUTHORITY_HOST" not in os.environ:
        place["authority"] = getattr(identity.AzureAuthorityHosts, cloud)
    made: TokenCredential
    match kind:
        case "managed_identity":
            made = identity.ManagedIdentityCredential(**chosen, **http)
        case "service_principal":
            made = _service_principal(identity, options, {**place, **http})
        case "workload_identity":
            made = identity.WorkloadIdentityCredential(**chosen, **place, **http)
        case "environment":
            made = identity.EnvironmentCredential(**place, **http)
        case "cli":
            made = identity.AzureCliCredential(**chosen)
        case _:
            if "client_id" in chosen:
                chosen = {"managed_identity_client_id": chosen["client_id"]}
            made = identity.DefaultAzureCredential(**chosen, **place, **http)
    return made


def _service_principal(identity: Any, options: Mapping[str, str], more: Mapping[str, Any]) -> TokenCredential:
    missing = [name for name in ("tenant_id", "client_id") if name not in options]
    if missing:
        refuse(f"credential=service_principal needs {' and '.join(missing)}")
    who = (options["tenant_id"], options["client_id"])
    path = options.get("certificate_path")
    secret = os.environ.get("AZURE_CLIENT_SECRET")
    made: TokenCredential
    if path is None and not secret:
        refuse(
            "credential=service_principal finds no secret: set the environment variable AZURE_CLIENT_SECRET, "
            "or give certificate_path"
        )
    if path is None:
        made = identity.ClientSecretCredential(*who, secret, **more)
        return made
    password = os.environ.get("AZURE_CLIENT_CERTIFICATE_PASSWORD")
    try:
        made = identity.CertificateCredential(*who, path, password=password, **more)
    except Exception:  # cryptography has a dozen of them, and what they say of a key is not repeated
        usable = False
    else:
        usable = True
    if not usable:
        refuse(
            f"certificate_path = {path!r} is no PEM or PKCS12 file with a certificate and its RSA key, or is "
            "not opened by the password in the environment variable AZURE_CLIENT_CERTIFICATE_PASSWORD"
        )
    return made


def _azure_identity() -> Any:
    # Not at the top: keys and signatures need none of it, and it takes msal and cryptography along.
    try:
        import azure.identity  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise MissingExtra(
            f"servicebus: tokens need the package {exc.name!r}; pip install 'queue_runtime[servicebus]'",
            provider=PROVIDER,
        ) from exc
    return azure.identity


def _what(credential: object) -> str:
    kind = credential if isinstance(credential, type) else type(credential)
    return f"{'the class' if isinstance(credential, type) else 'a'} {kind.__module__}.{kind.__qualname__}"
