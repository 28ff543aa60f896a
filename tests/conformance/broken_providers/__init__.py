"""Providers that break one promise each: the memory provider with a method or two spoilt."""

# Each of these modules names its own.
from tests.conformance.broken_providers import (  # noqa: F401
    content,
    dead_letters,
    looking,
    sending,
    sessions,
    settling,
)
from tests.conformance.broken_providers.base import BROKEN, Broken

__all__ = ["BROKEN", "Broken"]
