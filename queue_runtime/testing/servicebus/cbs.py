"""$cbs: clients show a token for each entity that they use.

https://learn.microsoft.com/azure/service-bus-messaging/service-bus-amqp-protocol-guide#claims-based-security
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from typing import Any
from urllib.parse import unquote_plus

from queue_runtime.testing.servicebus.amqp_types import Int
from queue_runtime.testing.servicebus.broker import Client
from queue_runtime.testing.servicebus.requests import Answer, Request

_SIGNATURE = "SharedAccessSignature "

_OK = 202  # as the service says it
_BAD_REQUEST = 400
_UNAUTHORIZED = 401
_NOT_FOUND = 404

_NEVER = float("inf")


class _BadToken(Exception):
    """Its text is for the client."""


def put_token(request: Request) -> Answer:
    """Let the client use what its token is for, until that expires.

    A signature is checked with the broker's key, if it has one. Other tokens (JWT) are only looked at for
    their expiry: who has signed them, the broker cannot know.
    """
    connection = request.connection
    name = request.properties.get("name")
    if request.properties.get("operation") != "put-token" or not isinstance(name, str):
        return _answer(_BAD_REQUEST, "the operation is put-token, with the entity's URI as name")
    path = _path(name)
    if path and connection.broker.namespace.queue(path) is None:
        return _answer(_NOT_FOUND, f"there is no queue '{path}'")
    try:
        expires = _check(request.body, path, connection.broker.sas_key)
    except _BadToken as exc:
        return _answer(_UNAUTHORIZED, str(exc))
    if expires <= time.time():
        return _answer(_UNAUTHORIZED, "the token has expired")
    connection.claims[path.lower()] = expires
    return _answer(_OK, "Accepted")


def may_use(connection: Client, entity: str) -> bool:
    """Whether the client has shown a token for *entity* or what is above it, or need not: without a key."""
    if connection.broker.sas_key is None:
        return True
    now = time.time()
    return any(expires > now and _covers(path, entity.lower()) for path, expires in connection.claims.items())


def _answer(code: int, description: str) -> Answer:
    return Answer({"status-code": Int(code), "status-description": description})


def _path(uri: str) -> str:
    _, scheme, rest = uri.partition("://")
    return (rest.partition("/")[2] if scheme else uri).strip("/")


def _covers(path: str, entity: str) -> bool:
    return not path or entity == path or entity.startswith(path + "/")


def _check(token: Any, path: str, key: str | None) -> float:
    """Return when *token* expires (Unix seconds); raise `_BadToken` if it is none for *path*."""
    if not isinstance(token, str) or not token:
        raise _BadToken("the body of put-token is the token, a string")
    if not token.startswith(_SIGNATURE):
        return _jwt_expiry(token)
    # As it was signed: the resource still quoted, whichever way the client quotes.
    fields = dict(each.partition("=")[::2] for each in token[len(_SIGNATURE) :].split("&"))
    resource, expiry = fields.get("sr", ""), fields.get("se", "")
    if not expiry.isdecimal() or "sig" not in fields:
        raise _BadToken("a shared access signature has sr, sig and se")
    if key is not None:
        expected = hmac.digest(key.encode(), f"{resource}\n{expiry}".encode(), hashlib.sha256)
        found = unquote_plus(fields["sig"])
        if not hmac.compare_digest(base64.b64encode(expected), found.encode()):
            raise _BadToken("the signature is not that of this namespace's key")
        if not _covers(_path(unquote_plus(resource)).lower(), path.lower()):
            raise _BadToken(f"the signature is not for '{path}'")
    return float(expiry)


def _jwt_expiry(token: str) -> float:
    """Return the ``exp`` of a JWT; what is none is taken for a token without end."""
    parts = token.split(".")
    if len(parts) != 3:
        return _NEVER
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return _NEVER
    expiry = claims.get("exp") if isinstance(claims, dict) else None
    return float(expiry) if isinstance(expiry, int | float) else _NEVER
