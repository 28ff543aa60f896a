"""Which session a GitHub delivery belongs to: pure functions of its payload."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Payload = Mapping[str, Any]

DeliveryStrategy = Callable[[str, Payload], str | None]
"""From the event's name and the payload to a session id, or None for a delivery outside sessions."""

# Where a payload names things. Each answers None where it does not: events differ, and new ones come.
# https://docs.github.com/en/webhooks/webhook-events-and-payloads


def value_at(payload: Payload, *path: str) -> Any:
    value: Any = payload
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def text_at(payload: Payload, *path: str) -> str | None:
    value = value_at(payload, *path)
    return value if isinstance(value, str) and value and value.isprintable() else None


def number_at(payload: Payload, *path: str) -> str | None:
    value = value_at(payload, *path)
    return str(value) if type(value) is int else None


def _numbered(payload: Payload, number: str | None) -> str | None:
    repository = repository_of(payload)
    return f"{repository}#{number}" if repository is not None and number is not None else None


def _pull_request(payload: Payload) -> str | None:
    number = number_at(payload, "pull_request", "number")
    if number is None and value_at(payload, "issue", "pull_request") is not None:
        number = number_at(payload, "issue", "number")
    return _numbered(payload, number or _checked_pull_request(payload))


def _checked_pull_request(payload: Payload) -> str | None:
    """The number of the pull request that a check or a workflow ran for.

    They list every one with their commit, those of other repositories too. Of several of this repository
    the lowest is taken, whatever their order. (For a commit from a fork the list is empty.)
    """
    here = value_at(payload, "repository", "id")
    for source in ("check_run", "check_suite", "workflow_run"):
        listed = value_at(payload, source, "pull_requests")
        numbers = [
            item["number"]
            for item in (listed if isinstance(listed, list) else ())
            if type(value_at(item, "number")) is int and value_at(item, "base", "repo", "id") in (here, None)
        ]
        if numbers:
            return str(min(numbers))
    return None


def _issue(payload: Payload) -> str | None:
    number = number_at(payload, "issue", "number") or number_at(payload, "discussion", "number")
    return _numbered(payload, number) or _pull_request(payload)


def repository_of(payload: Payload) -> str | None:
    return text_at(payload, "repository", "full_name")


def _installation(payload: Payload) -> str | None:
    number = number_at(payload, "installation", "id")
    return f"installation:{number}" if number is not None else None


def _organization(payload: Payload) -> str | None:
    return text_at(payload, "organization", "login")


def _owner(payload: Payload) -> str | None:
    return text_at(payload, "repository", "owner", "login")


def _enterprise(payload: Payload) -> str | None:
    slug = text_at(payload, "enterprise", "slug")
    return f"enterprise:{slug}" if slug is not None else None


def _buyer(payload: Payload) -> str | None:
    return text_at(payload, "marketplace_purchase", "account", "login")


def _advisory(payload: Payload) -> str | None:
    name = text_at(payload, "security_advisory", "ghsa_id")
    return f"advisory:{name}" if name is not None else None


def _sender(payload: Payload) -> str | None:
    return text_at(payload, "sender", "login")


_Place = Callable[[Payload], str | None]


def _first_of(*places: _Place) -> DeliveryStrategy:
    def strategy(event: str, payload: Payload) -> str | None:
        return next((found for place in places if (found := place(payload)) is not None), None)

    return strategy


_BEYOND: tuple[_Place, ...] = (_enterprise, _buyer, _advisory, _sender)
_WIDER: tuple[_Place, ...] = (repository_of, _organization, _installation, *_BEYOND)

STRATEGIES: Mapping[str, DeliveryStrategy] = {
    "pull_request": _first_of(_pull_request, *_WIDER),
    "issue": _first_of(_issue, *_WIDER),
    "repository": _first_of(*_WIDER),
    # An installation belongs to an account: where a webhook of a repository or organization names no
    # installation, the account is the same width.
    "installation": _first_of(_installation, _organization, _owner, *_BEYOND),
    "none": _first_of(),
}
"""The strategies that have a name; each is a function like those that `message` takes."""
